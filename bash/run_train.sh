#!/usr/bin/env bash
# Train a thought generator on the visible GPUs. Edit the flags here, set them in the environment, or pass more of
# train.py's flags on:  CUDA_VISIBLE_DEVICES=4,5,6,7 OUTPUT_NAME=first bash bash/run_train.sh --max_steps 100
# Several nodes: NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT, the same command on each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LARGE_MODEL_ID=${LARGE_MODEL_ID:-Qwen/Qwen3-8B}
SMALL_MODEL_ID=${SMALL_MODEL_ID:-Qwen/Qwen3-0.6B}
OUTPUT_NAME=${OUTPUT_NAME:-lta}
THOUGHT_GENERATOR=${THOUGHT_GENERATOR:-small_block}
TASK_NAME=${TASK_NAME:-gsm8k}
NUM_THOUGHT_TOKENS=${NUM_THOUGHT_TOKENS:-32}
BATCH_SIZE=${BATCH_SIZE:-4}
GRADIENT_ACCUMULATION_STEPS=${GRADIENT_ACCUMULATION_STEPS:-4}
LEARNING_RATE=${LEARNING_RATE:-1e-4}
N_EPOCHS=${N_EPOCHS:-10.0}
SEED=${SEED:-41}

source bash/_gpus.sh
need_gpu
"$PYTHON" -m torch.distributed.run --nproc_per_node="$NUM_GPUS" --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${MASTER_PORT:-29501}" train.py \
    --large_model_id "$LARGE_MODEL_ID" --small_model_id "$SMALL_MODEL_ID" --output_name "$OUTPUT_NAME" \
    --thought_generator "$THOUGHT_GENERATOR" --task_name "$TASK_NAME" --num_thought_tokens "$NUM_THOUGHT_TOKENS" \
    --batch_size "$BATCH_SIZE" --gradient_accumulation_steps "$GRADIENT_ACCUMULATION_STEPS" \
    --learning_rate "$LEARNING_RATE" --n_epochs "$N_EPOCHS" --seed "$SEED" "$@"
