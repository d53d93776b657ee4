#!/usr/bin/env bash
# The paper's main table: every training and every evaluation, one after another, each on all visible GPUs.
#   bash bash/reproduce_paper.sh             # runs what is not done yet, then prints the table
#   bash bash/reproduce_paper.sh --list      # every command, what is done, GPU hours spent, expected (measured) or
#                                            # estimated (of CARD; from the models' config.json and the rows)
#   bash bash/reproduce_paper.sh --measure   # for --list: 12 steps of each training, 8 questions a GPU of each task
#   bash bash/reproduce_paper.sh --table     # the table of what is there (Markdown; also $OUT/table-seed$SEED.md)
# Nothing of this was run with the real models yet (no GPU was at hand), only with the toy pair on a CPU:
#   PAIRS=toy/large,toy/small TASKS=arithmetic NUM_THOUGHTS=2 OUT=results/toy \
#       TRAIN_FLAGS="--num_thought_tokens 8 --max_steps 20" EVALUATE_FLAGS="--test_k 20 --max_new_tokens 96" \
#       bash bash/reproduce_paper.sh
#
# Stop it as you like: finished commands are skipped the next time, a training goes on from its newest complete
# checkpoint, an evaluation asks no question twice. What failed is listed at the end and tried again the next time.
# Weights go to ckpt/, resume checkpoints to results/<run>/, all else to $OUT: evaluations, logs/, hours.json (measured
# times: delete it to measure again), spent.json (GPU hours of the commands that ran here).
# One evaluation of 10 samples a question gives both figures: one sample (the mean over the 10) and the vote.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PAIRS=${PAIRS:-Qwen/Qwen3-8B,Qwen/Qwen3-0.6B Qwen/Qwen2.5-7B-Instruct,Qwen/Qwen2.5-1.5B-Instruct} # large,small
TASKS=${TASKS:-gsm8k math aqua strategyqa du asdiv-aug}
GENERATORS=${GENERATORS:-none small block small_block}
NUM_THOUGHTS=${NUM_THOUGHTS:-2 4} # thoughts at evaluation; no more are made (--make_only_n)
DU_TRAINED_ON=${DU_TRAINED_ON:-gsm8k} # du is never trained on: it is asked with the thoughts of this task
SEED=${SEED:-41}
DATA_DIR=${DATA_DIR:-data}
OUT=${OUT:-results/paper} # its last name begins the names of the runs
TRAIN_FLAGS=${TRAIN_FLAGS:-} # more of train.py's flags, and of evaluate.py's: they win over all others
EVALUATE_FLAGS=${EVALUATE_FLAGS:-}
CARD=${CARD:-} # a100, h100, h200 or 4090, for --list: hours of this card before anything is measured (else the visible one)

# the published settings, for both scripts (flags.py); flags given besides win
PAPER=(--recipe paper)
SFT_ALONE=(--sft_loss_weight 1 --align_loss_weight 0 --focus_loss_weight 0) # of `small` (SoftCoT) and `prompt`

source bash/_gpus.sh
if [[ ${1:---measure} == --measure && $PAIRS != toy/* ]]; then need_gpu; fi
# a step is 64 rows on any number of GPUs (published: 4 GPUs x 4 rows x 4 micro-batches)
if ((16 % (NUM_GPUS > 0 ? NUM_GPUS : 1))); then
    echo "error: $NUM_GPUS GPUs cannot share 16 micro-batches; let CUDA_VISIBLE_DEVICES name 1, 2, 4, 8 or 16" >&2
    exit 1
fi
exec "$PYTHON" benchmarks/paper.py "$@" --python "$PYTHON" --gpus "$NUM_GPUS" --pairs "$PAIRS" --tasks "$TASKS" \
    --generators "$GENERATORS" --num_thoughts "$NUM_THOUGHTS" --du_trained_on "$DU_TRAINED_ON" --seed "$SEED" \
    --data_dir "$DATA_DIR" --out "$OUT" --paper="${PAPER[*]}" --sft_alone="${SFT_ALONE[*]}" \
    --train_flags="$TRAIN_FLAGS" --evaluate_flags="$EVALUATE_FLAGS" --card "$CARD"
