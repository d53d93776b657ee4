#!/usr/bin/env bash
# Mutation testing: COUNT small faults, drawn with SEED, are put into the package one at a time, and the tests of the room
# they are in must fail. Prints the share that was noticed, and each that was not with its diff.
# The tool is cosmic-ray: it is well kept, mutates whole files (mutmut only functions, so no tables and no patterns), runs
# the tests in a process of their own (mutmut forks after torch's import), and a killed run goes on where it was. It gets a
# virtual environment of its own; the tests run with $PYTHON, in a clone of HEAD: files that are not committed do not count.
#   bash benchmarks/mutants.sh                       # 300 mutants with seed 17 (hours); again: goes on, and prints
#   bash benchmarks/mutants.sh 300 17 answers rows   # of the same 300 those in these rooms: two shells share the work
#   OUT=/tmp/mutants PYTHON=~/venv/bin/python bash benchmarks/mutants.sh 20 1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${OUT:-results/mutants}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
PYTHON=$(command -v "${PYTHON:-${VENV:-.venv}/bin/python}") || { echo "error: ${PYTHON:-${VENV:-.venv}/bin/python}: no Python there; make setup makes .venv, PYTHON=... names another" >&2; exit 1; }
[ "${PYTHON:0:1}" = / ] || PYTHON=$PWD/$PYTHON
mkdir -p "$OUT"
if [ ! -x "$OUT/tool/bin/cr-report" ]; then
    "$PYTHON" -m venv "$OUT/tool"
    "$OUT/tool/bin/python" -m pip install --quiet --disable-pip-version-check "cosmic-ray>=8.7,<9"
fi
"$PYTHON" benchmarks/mutants.py "$OUT" "$PYTHON" "${1:-300}" "${2:-17}" "${@:3}"
