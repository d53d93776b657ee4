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

if [ $# -eq 0 ] || [[ $1 == -* ]]; then
    echo "error: which run? bash bash/run_dis_evaluate.sh RUN [flags of evaluate.py]" >&2
    exit 1
fi
run=$1
shift
note=
flags=(--num_return_sequences "$NUM_RETURN_SEQUENCES" --batch_size "$BATCH_SIZE" --seed "$SEED")
if [ -n "$NUM_THOUGHT_TOKENS" ]; then flags+=(--num_thought_tokens "$NUM_THOUGHT_TOKENS"); fi
case " $*" in
*" --output_dir"* | *" --checkpoint"* | *" --thought_generator"*)
    echo "error: --output_dir, --checkpoint and --thought_generator are each checkpoint's own here" >&2
    exit 1
    ;;
*" --split"*) ;;
*)
    flags+=(--split dev)
    note="on the dev questions: checkpoints are chosen there, and --split test is for the one that was chosen"
    ;;
esac
flags+=("$@")

source bash/_gpus.sh
found=$("$PYTHON" evaluate.py --checkpoints_of "$run")
mapfile -t checkpoints <<<"$found"
if [ -n "$note" ]; then echo "$note"; fi
devices=("") # on a CPU: one place, no device
if [ "$NUM_GPUS" -gt 0 ]; then
    IFS=', ' read -r -a devices <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((NUM_GPUS - 1)))}"
    devices=("${devices[@]:0:NUM_GPUS}") # CUDA leaves out what follows an entry that is no GPU
fi
logs=results/dis-$run
mkdir -p "$logs"

# evaluate CHECKPOINT DEVICE: then the device is free again
evaluate() {
    local status=0
    CUDA_VISIBLE_DEVICES=$2 "$PYTHON" -u evaluate.py --checkpoint "$1" "${flags[@]}" \
        >"$logs/${1##*/}.log" 2>&1 </dev/null 3>&- || status=$?
    echo "$2" >&3
    return "$status"
}

# free devices wait in a pipe, a line each
mkfifo "$logs/free.$$"
exec 3<>"$logs/free.$$"
rm "$logs/free.$$"
printf '%s\n' "${devices[@]}" >&3

evaluations=()
trap 'for pid in "${evaluations[@]}"; do kill -- "-$pid" 2>/dev/null || true; done' EXIT
set -m # a process group for each evaluation, so that all of it can be stopped
for checkpoint in "${checkpoints[@]}"; do
    read -r device <&3
    echo "$checkpoint${device:+ on GPU $device}: $logs/${checkpoint##*/}.log"
    evaluate "$checkpoint" "$device" &
    evaluations+=($!)
done

reports=() failed=()
for i in "${!checkpoints[@]}"; do
    log=$logs/${checkpoints[i]##*/}.log
    if wait "${evaluations[i]}"; then
        reports+=("$(sed -n 's/^  \(.*\/report\.json\)$/\1/p' "$log" | tail -n 1)")
    else
        failed+=("failed: ${checkpoints[i]}, see $log: $(tail -n 1 "$log")")
    fi
done
evaluations=()
set +m

status=0
echo
if [ ${#reports[@]} -gt 0 ]; then "$PYTHON" evaluate.py --rank "${reports[@]}" || status=1; fi
if [ ${#failed[@]} -gt 0 ]; then
    printf '%s\n' "${failed[@]}" >&2
    status=1
fi
exit "$status"
