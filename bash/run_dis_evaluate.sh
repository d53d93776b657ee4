#!/usr/bin/env bash
# Evaluate every checkpoint of a run and rank them, one evaluation on each visible GPU at a time (on a CPU one after
# another). Edit the flags here, set them in the environment, or pass more of evaluate.py's flags on:
#   CUDA_VISIBLE_DEVICES=0,1 NUM_THOUGHT_TOKENS=2 bash bash/run_dis_evaluate.sh RUN --test_k 100
# RUN is train.py's --output_name. Checkpoints are chosen on dev; --split test is for the one that was chosen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export NUM_THOUGHT_TOKENS=${NUM_THOUGHT_TOKENS:-} # empty: all
export NUM_RETURN_SEQUENCES=${NUM_RETURN_SEQUENCES:-10}
export BATCH_SIZE=${BATCH_SIZE:-4}
export SEED=${SEED:-41}

source bash/_gpus.sh
export PYTHON NUM_GPUS
exec "$PYTHON" benchmarks/checkpoints.py "$@"
