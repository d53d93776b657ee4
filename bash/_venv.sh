# Sourced by run_demo.sh, run_real.sh and run_tests.sh: a virtual environment with the tested versions; sets PYTHON.
# VENV (default .venv), CONSTRAINTS (default constraints.txt) and BASE_PYTHON (default python3) can be set.
VENV=${VENV:-.venv}
CONSTRAINTS=${CONSTRAINTS:-constraints.txt}
BASE_PYTHON=${BASE_PYTHON:-python3}
PYTHON=$VENV/bin/python

# install REQUIREMENTS: nothing is done when the same files were installed before
install() {
    if [ ! -x "$PYTHON" ]; then
        if ! "$BASE_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "error: Python 3.11 or newer is needed, $BASE_PYTHON is not; set BASE_PYTHON=/path/to/python3.11" >&2
            exit 1
        fi
        echo "making $VENV"
        "$BASE_PYTHON" -m venv "$VENV"
    fi
    local stamp installed=$VENV/.installed-$1
    stamp=$(cat requirements.txt "$1" "$CONSTRAINTS" | cksum)
    if [ "$(cat "$installed" 2>/dev/null)" != "$stamp" ]; then
        echo "installing $1 with $CONSTRAINTS into $VENV (minutes, the first time)"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$1" -c "$CONSTRAINTS"
        echo "$stamp" >"$installed"
    fi
}
