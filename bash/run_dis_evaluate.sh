#!/usr/bin/env bash
# Evaluate every checkpoint of a run and rank them, one evaluation on each visible GPU at a time (on a CPU one after
# another). Edit the flags here, set them in the environment, or pass more of evaluate.py's flags on:
#   CUDA_VISIBLE_DEVICES=0,1 NUM_THOUGHT_TOKENS=2 bash bash/run_dis_evaluate.sh RUN --test_k 100
# RUN is train.py's --output_name. Checkpoints are chosen on dev; --split test is for the one that was chosen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

NUM_THOUGHT_TOKENS=${NUM_THOUGHT_TOKENS:-} # empty: all
NUM_RETURN_SEQUENCES=${NUM_RETURN_SEQUENCES:-10}
BATCH_SIZE=${BATCH_SIZE:-4}
SEED=${SEED:-41}

if ((BASH_VERSINFO[0] * 10 + BASH_VERSINFO[1] < 44)); then
    echo "error: this script needs bash 4.4 or newer, and this is bash $BASH_VERSION" >&2
    exit 1
fi
if [ $# -eq 0 ] || [[ $1 == -* ]]; then
    echo "error: which run? bash bash/run_dis_evaluate.sh RUN [flags of evaluate.py]" >&2
    exit 1
fi
run=$1
shift
flags=(--num_return_sequences "$NUM_RETURN_SEQUENCES" --batch_size "$BATCH_SIZE" --seed "$SEED")
if [ -n "$NUM_THOUGHT_TOKENS" ]; then flags+=(--num_thought_tokens "$NUM_THOUGHT_TOKENS"); fi
note="on the dev questions: checkpoints are chosen there, and --split test is for the one that was chosen"
for arg in "$@"; do
    name=${arg%%=*}
    case ${name//_/-} in # the parser takes both
    --output-dir | --checkpoint* | --thought-generator)
        echo "error: --output_dir, --checkpoint and --thought_generator are each checkpoint's own here" >&2
        exit 1
        ;;
    --split) note= ;;
    esac
done
if [ -n "$note" ]; then flags+=(--split dev); fi
flags+=("$@")

source bash/_gpus.sh
found=$("$PYTHON" evaluate.py --checkpoints_of "$run")
mapfile -t checkpoints <<<"$found"
if [ -n "$note" ]; then echo "$note"; fi
free=("") # devices; on a CPU one place and no device
if [ "$NUM_GPUS" -gt 0 ]; then
    IFS=', ' read -r -a free <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((NUM_GPUS - 1)))}"
    free=("${free[@]:0:NUM_GPUS}") # CUDA leaves out what follows an entry that is no GPU
fi
logs=results/dis-$run
mkdir -p "$logs"

declare -A running=() # pid of an evaluation -> its device
pids=()
trap 'for pid in "${!running[@]}"; do kill -- "-$pid" 2>/dev/null || true; done' EXIT

# next_end: wait until an evaluation has ended, in whatever way; its device is free again
next_end() {
    local pid
    # not `wait -n -p pid`: it passes over one that was killed while nobody waited
    wait -n 2>/dev/null || true
    for pid in "${!running[@]}"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            free+=("${running[$pid]}")
            unset "running[$pid]"
        fi
    done
}

set -m # a process group for each evaluation, so that all of it can be stopped
for checkpoint in "${checkpoints[@]}"; do
    while [ ${#free[@]} -eq 0 ]; do next_end; done
    log=$logs/${checkpoint##*/}.log
    echo "$checkpoint${free[0]:+ on GPU ${free[0]}}: $log"
    CUDA_VISIBLE_DEVICES=${free[0]} "$PYTHON" -u evaluate.py --checkpoint "$checkpoint" "${flags[@]}" \
        >"$log" 2>&1 </dev/null &
    running[$!]=${free[0]}
    pids+=($!)
    free=("${free[@]:1}")
done
while [ ${#running[@]} -gt 0 ]; do next_end; done
set +m

reports=() failed=()
for i in "${!checkpoints[@]}"; do
    log=$logs/${checkpoints[i]##*/}.log status=0
    wait "${pids[i]}" || status=$?
    if [ "$status" -eq 0 ]; then
        reports+=("$(sed -n 's/^  \(.*\/report\.json\)$/\1/p' "$log" | tail -n 1)")
    elif [ "$status" -gt 128 ]; then
        failed+=("failed: ${checkpoints[i]}, see $log: killed by signal $((status - 128))")
    else
        failed+=("failed: ${checkpoints[i]}, see $log: $(tail -n 1 "$log")")
    fi
done

status=0
echo
if [ ${#reports[@]} -gt 0 ]; then "$PYTHON" evaluate.py --rank "${reports[@]}" || status=1; fi
if [ ${#failed[@]} -gt 0 ]; then
    printf '%s\n' "${failed[@]}" >&2
    status=1
fi
exit "$status"
