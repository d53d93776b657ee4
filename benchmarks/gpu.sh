#!/usr/bin/env bash
# What one GPU shows in under 10 minutes: the toy pair trained and evaluated there, whole and with --shard_llm, and its
# large LM as Coconut; the speed benchmarks of evaluation and training, shapes 8b and cpu, batches 1, 4, 16, 32; where
# $PYTHON has vLLM, also evaluate.py --backend vllm beside hf, at the last shape. PARTS names what of this is done.
# A JSON file a run goes to $OUT (default results/gpu); a run that fails (out of memory, say) says so and the next starts.
#   bash benchmarks/gpu.sh
#   DATA_DIR=../shared/data bash benchmarks/gpu.sh         # rows of GSM8K's test set instead of this project's sample
#   PARTS="evaluate train" SHAPES=8b bash benchmarks/gpu.sh
#   SHAPES=tiny BATCHES="1 4" bash benchmarks/gpu.sh       # tries the script itself on a CPU
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-${VENV:+$VENV/bin/}python3}
OUT=${OUT:-results/gpu}
DATA_DIR=${DATA_DIR:-data}
SHAPES=${SHAPES:-8b cpu}
BATCHES=${BATCHES:-16 4 1 32}
PARTS=${PARTS:-toy coconut evaluate train backends}
SECONDS_IN_ALL=${SECONDS_IN_ALL:-570}
mkdir -p "$OUT"
failed=0

step() { # name, script, flags; its output goes to a log, and what matters of it is printed
    local name=$1 left=$((SECONDS_IN_ALL - SECONDS))
    shift
    if ((left < 20)); then
        echo "$name: no time left"
        return 1
    fi
    echo "$name ($left s left)"
    if ! timeout "$left" "$PYTHON" "$@" > "$OUT/$name.log" 2>&1; then
        tail -1 "$OUT/$name.log"
        return 1
    fi
    grep -E "^dev |one sample|--shard_llm:" "$OUT/$name.log"
    return 0
}

run() { # name, script, flags: a benchmark
    local name=$1
    shift
    step "$name" "$@" --data_dir "$DATA_DIR" --out "$OUT/$name.json" && tail -1 "$OUT/$name.json"
}

common=(--large_model_id toy/large --small_model_id toy/small --task_name arithmetic
    --num_thought_tokens 8 --batch_size 16 --gradient_accumulation_steps 1 --learning_rate 3e-3
    --eval_strategy steps --logging_steps 20 --disable_tqdm true)

# the toy pair in bf16 as the demo has it, then 20 steps in float32 in one process and as one rank of a sharded LLM
toy() {
    local one_rank=(-m torch.distributed.run --standalone --nproc_per_node=1)
    rm -rf results/gpu-toy* ckpt/gpu-toy* "$OUT/toy-evaluation"
    step toy-train train.py "${common[@]}" --output_name gpu-toy --max_steps 100 --eval_steps 50 &&
        step toy-evaluate evaluate.py --checkpoint ckpt/gpu-toy-* --num_return_sequences 10 --batch_size 48 \
            --max_new_tokens 96 --output_dir "$OUT/toy-evaluation" &&
        step toy-whole train.py "${common[@]}" --output_name gpu-toy-whole --bf16 False --max_steps 20 --eval_steps 20 &&
        step toy-shard "${one_rank[@]}" train.py "${common[@]}" --output_name gpu-toy-shard --bf16 False --max_steps 20 \
            --eval_steps 20 --shard_llm
}

# the large LM as its own generator, in stages, by LoRA in bf16
coconut() {
    rm -rf results/gpu-coconut ckpt/gpu-coconut-* "$OUT/coconut-evaluation"
    step coconut-train train.py "${common[@]}" --output_name gpu-coconut --thought_generator coconut --tune_base_model \
        --align_loss_weight 0 --focus_loss_weight 0 --coconut_stages 4 --thoughts_per_step 2 --k_shot 160 --n_epochs 6 \
        --eval_steps 30 &&
        step coconut-evaluate evaluate.py --checkpoint ckpt/gpu-coconut-* --num_return_sequences 4 --batch_size 48 \
            --max_new_tokens 96 --output_dir "$OUT/coconut-evaluation"
}

# the published way needs the most memory: where both do not fit, ours runs alone
train() { # shape, generator, batch
    local flags=(benchmarks/train_step.py --shape "$1" --generator "$2" --batch_size "$3" --accumulation 1 --rounds 3)
    run "train-$1-$2-$3" "${flags[@]}" || run "train-$1-$2-$3-ours" "${flags[@]}" --baseline none || failed=1
}

part() { # name: whether it was asked for
    [[ " $PARTS " == *" $1 "* ]]
}

if part toy; then toy || failed=1; fi
if part coconut; then coconut || failed=1; fi
for shape in $SHAPES; do
    answers=(--questions 32 --rounds 1 --checked 2 --mean 100 --longest 300)
    if [ "$shape" = tiny ]; then answers=(--questions 8 --rounds 1 --checked 2); fi
    for batch in 16 4; do
        part evaluate || continue
        run "evaluate-$shape-$batch" benchmarks/evaluate.py --shape "$shape" --batch_size "$batch" "${answers[@]}" || failed=1
    done
    part train || continue
    train "$shape" small_block 16
    for batch in $BATCHES; do train "$shape" block "$batch"; done
done

# hf beside vLLM, without thoughts: there is no trained generator here
backends() { # shape
    local left=$((SECONDS_IN_ALL - SECONDS)) large=$OUT/large-$1 log=$OUT/backends-$1.log
    local flags=(--thought_generator none --test_k 8 --num_return_sequences 10 --max_new_tokens 32 --batch_size 8)
    if ((left < 20)); then
        echo "backends-$1: no time left"
        return 1
    fi
    echo "backends-$1 ($left s left)"
    if [ "$1" = tiny ]; then
        flags+=(--base_model_id toy/large --task_name arithmetic)
    else
        flags+=(--base_model_id "$large" --dtype bfloat16 --split sample)
        "$PYTHON" benchmarks/save_large.py --shape "$1" --data_dir "$DATA_DIR" "$large" > "$log" 2>&1 || return 1
    fi
    PYTHON=$PYTHON timeout "$left" bash benchmarks/backends.sh "$OUT/backends-$1" "${flags[@]}" > "$log" 2>&1
    local status=$?
    grep samples/s "$log" || tail -1 "$log"
    return $status
}

part backends || exit $failed
if "$PYTHON" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("vllm") is None)'; then
    backends "${SHAPES##* }" || failed=1
else
    echo "backends: left out, $PYTHON has no vLLM"
fi
exit $failed
