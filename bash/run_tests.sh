#!/usr/bin/env bash
# The whole test suite, in .venv (made if absent), two processes: bash bash/run_tests.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source bash/_venv.sh
install requirements-dev.txt
# The tests make thousands of folders, which takes half of their time on a busy disk: in memory where 2 GB are free there and
# programs may be started from it (TMPDIR=/tmp keeps them for a look at a failed test)
room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }' || true)
if [ -z "${TMPDIR:-}" ] && [ "${room:-0}" -gt 2000000 ] && ! grep -q ' /dev/shm .*noexec' /proc/mounts; then
    TMPDIR=$(mktemp -d /dev/shm/lta-tests.XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
fi
"$PYTHON" -m pytest -n 2 --dist worksteal "$@"
