#!/usr/bin/env bash
# The tests of evaluate.py --backend vllm, on vLLM's CPU build, in a virtual environment of their own (.venv-vllm, made if
# absent; Linux on x86_64): bash bash/run_tests_vllm.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv-vllm}
PYTHON=$VENV/bin/python
stamp=$(cksum <tests/constraints-vllm.txt)
if [ "$(cat "$VENV/.installed" 2>/dev/null)" != "$stamp" ]; then
    echo "making $VENV (minutes)"
    "${BASE_PYTHON:-python3}" -m venv "$VENV"
    pip=("$PYTHON" -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" torch==2.13.0
    "${pip[@]}" --no-deps -r tests/constraints-vllm.txt
    echo "$stamp" >"$VENV/.installed"
fi
# two engines and the tests' own hf models on a small machine
export OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1
exec "$PYTHON" -m pytest tests/vllm "$@"
