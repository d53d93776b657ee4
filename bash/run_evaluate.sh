#!/usr/bin/env bash
# Evaluate a checkpoint: several answers a question and a vote. Edit the flags here, set them in the environment, or pass
# more of evaluate.py's flags on:  CUDA_VISIBLE_DEVICES=0,1 CKPT=ckpt/NAME bash bash/run_evaluate.sh --test_k 100
# CKPT=none evaluates the LLM without thoughts. Every visible GPU takes its share of the questions; with SPREAD=1 it is
# one process, and the LLM is spread over the GPUs (so too for --backend vllm, with --tensor_parallel_size and the like).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BASE_MODEL_ID=${BASE_MODEL_ID:-Qwen/Qwen3-8B}
ASSISTANT_MODEL_ID=${ASSISTANT_MODEL_ID:-Qwen/Qwen3-0.6B}
CKPT=${CKPT:-ckpt/lta-gsm8k-small_block-10-32-Qwen3-8B-Qwen3-0.6B}
TASK_NAME=${TASK_NAME:-gsm8k}
NUM_THOUGHT_TOKENS=${NUM_THOUGHT_TOKENS:-2}
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
weights=(--thought_generator none)
if [ "$CKPT" != none ]; then
    weights=(--params_file_name "$CKPT/projection.bin" --num_thought_tokens "$NUM_THOUGHT_TOKENS")
    if [ -e "$CKPT/TransformerBlock.bin" ]; then weights+=(--att_file_name "$CKPT/TransformerBlock.bin"); fi
fi
"${run[@]}" evaluate.py --base_model_id "$BASE_MODEL_ID" --assistant_model_id "$ASSISTANT_MODEL_ID" \
    "${weights[@]}" --batch_size "$BATCH_SIZE" --task_name "$TASK_NAME" \
    --num_return_sequences "$NUM_RETURN_SEQUENCES" --seed "$SEED" "$@"
