#!/usr/bin/env bash
# Evaluate a run: several answers a question and a vote. The run's name is enough, its checkpoint says all the rest:
#   OUTPUT_NAME=first bash bash/run_evaluate.sh
# Edit the flags here, set them in the environment, or pass more of evaluate.py's flags on (--test_k 100).
# CKPT names a folder instead; CKPT=none evaluates the LLM without thoughts. Every visible GPU takes its share of the
# questions; with SPREAD=1 it is one process, and the LLM is spread over the GPUs (so too for --backend vllm, with
# --tensor_parallel_size and the like).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

OUTPUT_NAME=${OUTPUT_NAME:-lta} # run_train.sh's
CKPT=${CKPT:-$OUTPUT_NAME}
# empty: as in the training
BASE_MODEL_ID=${BASE_MODEL_ID:-}
ASSISTANT_MODEL_ID=${ASSISTANT_MODEL_ID:-}
TASK_NAME=${TASK_NAME:-}
NUM_THOUGHT_TOKENS=${NUM_THOUGHT_TOKENS:-}
NUM_RETURN_SEQUENCES=${NUM_RETURN_SEQUENCES:-10}
BATCH_SIZE=${BATCH_SIZE:-4}
SEED=${SEED:-41}
SPREAD=${SPREAD:-0}

source bash/_gpus.sh
need_gpu
run=("$PYTHON" -u)
if [ "$NUM_GPUS" -gt 1 ] && [ "$SPREAD" = 0 ]; then
    run=("$PYTHON" -u -m torch.distributed.run --nproc_per_node="$NUM_GPUS" --master_port="${MASTER_PORT:-29502}")
fi
flags=(--checkpoint "$CKPT")
if [ "$CKPT" = none ]; then
    flags=(--thought_generator none)
elif [ -e "$CKPT/projection.bin" ] && [ ! -e "$CKPT/thoughts.json" ]; then # published weights
    flags=(--params_file_name "$CKPT/projection.bin")
    if [ -e "$CKPT/TransformerBlock.bin" ]; then flags+=(--att_file_name "$CKPT/TransformerBlock.bin"); fi
    NUM_THOUGHT_TOKENS=${NUM_THOUGHT_TOKENS:-2}
fi
if [ -n "$BASE_MODEL_ID" ]; then flags+=(--base_model_id "$BASE_MODEL_ID"); fi
if [ -n "$ASSISTANT_MODEL_ID" ]; then flags+=(--assistant_model_id "$ASSISTANT_MODEL_ID"); fi
if [ -n "$TASK_NAME" ]; then flags+=(--task_name "$TASK_NAME"); fi
if [ -n "$NUM_THOUGHT_TOKENS" ] && [ "$CKPT" != none ]; then flags+=(--num_thought_tokens "$NUM_THOUGHT_TOKENS"); fi
"${run[@]}" evaluate.py "${flags[@]}" --batch_size "$BATCH_SIZE" --num_return_sequences "$NUM_RETURN_SEQUENCES" \
    --seed "$SEED" "$@"
