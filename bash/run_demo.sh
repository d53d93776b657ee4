#!/usr/bin/env bash
# The whole of LTA-Thinker on a laptop, from nothing but Python 3.11+: makes .venv, evaluates the bare toy LLM, trains
# thoughts for it on the CPU, evaluates it with them, compares. SEED=42 bash bash/run_demo.sh runs another seed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SEED=${SEED:-41}

source bash/_venv.sh
install requirements.txt
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore
run=demo-$SEED
rm -rf "results/$run" "results/eval-$run" "results/eval-$run-bare" "logs/$run" "ckpt/$run"-*

sampling=(--task_name arithmetic --num_return_sequences 10 --seed "$SEED" --batch_size 100 --max_new_tokens 96)

echo "1/3 the frozen toy LLM without thoughts: 600 test questions, 10 answers each"
"$PYTHON" evaluate.py --base_model_id toy/large --thought_generator none "${sampling[@]}" \
    --output_dir "results/eval-$run-bare"

echo "2/3 training latent thoughts for it (the LLM and the small LM stay frozen)"
"$PYTHON" train.py --large_model_id toy/large --small_model_id toy/small --task_name arithmetic \
    --output_name "$run" --seed "$SEED" --num_thought_tokens 8 --batch_size 16 --gradient_accumulation_steps 1 \
    --learning_rate 2e-3 --max_steps 600 --eval_strategy steps --eval_steps 100 --logging_steps 50 \
    --sft_loss_weight 1 --align_loss_weight 0 --focus_loss_weight 0.1

echo "3/3 the same questions with thoughts"
"$PYTHON" evaluate.py --checkpoint "$(echo "ckpt/$run"-*)" "${sampling[@]}" --output_dir "results/eval-$run"

"$PYTHON" evaluate.py --compare "results/eval-$run-bare/report.json" "results/eval-$run/report.json"
echo "weights: $(echo "ckpt/$run"-*)   answers and reports: results/eval-$run-bare/ results/eval-$run/"
