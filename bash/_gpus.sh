# Sourced by the scripts that run on GPUs: PYTHON and NUM_GPUS, the visible GPUs (CUDA_VISIBLE_DEVICES).
# PYTHON, where it is not set, is that of VENV (default .venv), else python3.
if [ -z "${PYTHON:-}" ] && [ -n "${VENV:-}" ] && [ ! -x "$VENV/bin/python" ]; then
    echo "error: VENV=$VENV: there is no bin/python in it" >&2
    exit 1
fi
VENV=${VENV:-.venv}
PYTHON=${PYTHON:-$([ -x "$VENV/bin/python" ] && echo "$VENV/bin/python" || echo python3)}
if ! NUM_GPUS=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())' 2>/dev/null); then
    echo "error: $PYTHON has no torch: pip install -r requirements.txt -c constraints.txt" >&2
    exit 1
fi

# need_gpu: stops with one line where no GPU is visible
need_gpu() {
    if [ "$NUM_GPUS" -eq 0 ]; then
        echo "error: no GPU is visible (CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-not set}); on a CPU run the demo: bash bash/run_demo.sh" >&2
        exit 1
    fi
}
