#!/usr/bin/env bash
# The whole of LTA-Thinker on a laptop, from nothing but Python 3.11+: makes .venv, evaluates the bare toy LLM, trains
# thoughts for it on the CPU, evaluates it with them, compares. SEED=42 bash bash/run_demo.sh runs another seed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SEED=${SEED:-41}

source bash/_venv.sh
install requirements.txt
# tiny models: on CPUs, one thread a process is fastest, and two processes share the questions
export CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore
run=demo-$SEED
bare=results/eval-$run-bare thoughts=results/eval-$run
rm -rf "results/$run" "logs/$run" "ckpt/$run"-* "$bare" "$thoughts"

evaluate=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node=2 evaluate.py)
sampling=(--num_return_sequences 10 --seed "$SEED" --batch_size 8 --max_new_tokens 96)

echo "1/3  the frozen toy LLM without thoughts: 600 test questions, 10 answers each"
"${evaluate[@]}" --base_model_id toy/large --thought_generator none --task_name arithmetic "${sampling[@]}" \
    --output_dir "$bare"

echo "2/3  training latent thoughts for it; the LLM and the small LM stay frozen"
"$PYTHON" train.py --large_model_id toy/large --small_model_id toy/small --task_name arithmetic \
    --output_name "$run" --seed "$SEED" --num_thought_tokens 8 --batch_size 16 --gradient_accumulation_steps 1 \
    --learning_rate 3e-3 --max_steps 100 --eval_strategy steps --eval_steps 50 --logging_steps 10
checkpoint=$(echo "ckpt/$run"-*)

echo "3/3  the same questions with thoughts"
"${evaluate[@]}" --checkpoint "$checkpoint" "${sampling[@]}" --output_dir "$thoughts"

echo
"$PYTHON" evaluate.py --compare "$bare/report.json" "$thoughts/report.json"
echo "  weights: $checkpoint"
echo "  every answer, every setting: $bare  $thoughts"
