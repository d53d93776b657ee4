#!/usr/bin/env bash
# The whole test suite, in .venv (made if absent), two processes: bash bash/run_tests.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source bash/_venv.sh
install requirements-dev.txt
exec "$PYTHON" -m pytest -n 2 --dist worksteal "$@"
