#!/usr/bin/env bash
# A `python` that writes what is run to `record` and makes what a training or an evaluation leaves; what fits the
# pattern $FAILS fails, what fits $HANGS waits; the scheduler itself runs in $REAL_PYTHON.
case "$*" in
*device_count*) echo "$FAKE_GPUS"; exit ;;
benchmarks/paper.py*) exec "$REAL_PYTHON" "$@" ;;
esac
echo "$*" >>record
if [[ -n "$FAILS" && "$*" =~ $FAILS ]]; then
    printf 'some lines\nerror: no luck\nlines of torchrun\n'
    exit 3
fi
if [[ -n "$HANGS" && "$*" =~ $HANGS ]]; then
    trap 'echo stopped >>record; exit 1' TERM
    sleep 60 &
    wait
fi
if [[ "$*" =~ --output_name\ ([^ ]+) ]]; then
    name=${BASH_REMATCH[1]}
    mkdir -p "ckpt/$name-x" && echo '{"flags": {"output_name": "'$name'"}}' >"ckpt/$name-x/thoughts.json"
elif [[ "$*" =~ --output_dir\ ([^ ]+) ]]; then
    mkdir -p "${BASH_REMATCH[1]}" && cp figures.json "${BASH_REMATCH[1]}/report.json"
fi
