#!/usr/bin/env bash
# A real LLM, no GPU, no hub: makes .venv and SmolLM2-135M-Instruct, trains thoughts for it on ASDiv, asks it 200 test
# questions without them and with them, prints one table. 34 minutes on two idle cores; QUICK=1: fewer steps and
# questions, about 11 (docs/results/runs.md). What was stopped goes on when it is started again.
# ASDIV=path/to/ASDiv.xml names the file of the rows; SEED=42 is another run. A training that is killed goes on from its
# last dev evaluation (every 50 steps, two minutes each; EVAL_STEPS=25 for more), one that gets SIGTERM from its last step.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SEED=${SEED:-41}
QUICK=${QUICK:-0}
XML_URL=https://raw.githubusercontent.com/chaochun/nlu-asdiv-dataset/master/dataset/ASDiv.xml

run=real-$SEED steps=100 eval_steps=50 questions=200 samples=4
if [ "$QUICK" != 0 ]; then run=real-quick-$SEED steps=30 eval_steps=30 questions=60 samples=2; fi
eval_steps=${EVAL_STEPS:-$eval_steps}
llm=models/smollm2-135m thoughts=8
results=results/$run bare=results/eval-$run-bare with=results/eval-$run

source bash/_venv.sh
install requirements-real.txt
export TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore

echo "1/4  the LLM and the rows"
TQDM_DISABLE=$([ -t 2 ] || echo 1) "$PYTHON" toy/real.py --to "$llm" # the library's bars are for a terminal
export HF_HUB_OFFLINE=1
if [ ! -e data/asdiv/train.jsonl ]; then
    xml=${ASDIV:-../shared/data/asdiv/ASDiv.xml}
    if [ -z "${ASDIV:-}" ] && [ ! -e "$xml" ]; then
        xml=$(mktemp -d)/ASDiv.xml
        if ! "$PYTHON" -c 'import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])' "$XML_URL" "$xml" 2>/dev/null; then
            echo "error: $XML_URL cannot be downloaded from here; get it elsewhere: ASDIV=path/to/ASDiv.xml bash bash/run_real.sh" >&2
            exit 1
        fi
    fi
    "$PYTHON" data_loader.py --task asdiv --from "$xml" --to data/asdiv | grep -v "^left out: "
fi

echo "2/4  the frozen LLM without thoughts: $questions test questions, $samples answers each"
sampling=(--num_return_sequences "$samples" --test_k "$questions" --max_new_tokens 256 --batch_size 8 --seed "$SEED")
"$PYTHON" evaluate.py --thought_generator none --base_model_id "$llm" --task_name asdiv "${sampling[@]}" --output_dir "$bare"

echo "3/4  training latent thoughts for it, $steps steps; its first 20 layers are the small LM, and both stay frozen"
checkpoint=ckpt/$run-asdiv-small_block-10-$thoughts-smollm2-135m-smollm2-135m
if [ ! -e "$checkpoint" ]; then
    resume=False
    if compgen -G "$results/checkpoint-*/complete" >/dev/null; then resume=True; fi
    "$PYTHON" train.py --large_model_id "$llm" --small_model_id "$llm" --reader_layers 20 --task_name asdiv \
        --output_name "$run" --seed "$SEED" --num_thought_tokens "$thoughts" --batch_size 8 \
        --gradient_accumulation_steps 1 --learning_rate 1e-3 --max_steps "$steps" --eval_strategy steps \
        --eval_steps "$eval_steps" --logging_steps 5 --resume "$resume"
fi

echo "4/4  the same questions with thoughts"
"$PYTHON" evaluate.py --checkpoint "$checkpoint" "${sampling[@]}" --output_dir "$with"

echo
"$PYTHON" evaluate.py --rank "$bare/report.json" "$with/report.json"
"$PYTHON" evaluate.py --compare "$bare/report.json" "$with/report.json"
echo "  weights: $checkpoint"
echo "  every answer, every setting: $bare  $with"
