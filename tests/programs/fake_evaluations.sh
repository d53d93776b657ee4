#!/usr/bin/env bash
# A `python` with two GPUs and five checkpoints. An evaluation writes only when it runs to `record`, and waits
# $SECONDS_EACH; that of $FAILS fails, that of $KILLED is killed with its group.
case "$*" in
*device_count*) echo 2 ;;
benchmarks/*) exec "$REAL_PYTHON" "$@" ;;
*--checkpoints_of*) printf 'results/r/checkpoint-%s\n' 2 4 6 8 10 ;;
*--rank*) echo "ranked ${*:3}" ;;
*)
    trap 'echo "stopped $4 $CUDA_VISIBLE_DEVICES" >>record; exit 1' TERM
    echo "start $4 $CUDA_VISIBLE_DEVICES" >>record
    echo "${*:5}" >flags
    if [ "$4" = "$KILLED" ]; then kill -9 -- -$$; fi
    sleep "$SECONDS_EACH" &
    wait
    echo "end $4 $CUDA_VISIBLE_DEVICES" >>record
    if [ "$4" = "$FAILS" ]; then echo "no luck" && exit 3; fi
    echo "  ${4##*/}/report.json"
    ;;
esac
