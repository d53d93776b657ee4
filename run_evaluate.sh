#!/usr/bin/env bash
# bash/run_evaluate.sh, which has the flags, from here
exec bash "$(dirname "${BASH_SOURCE[0]}")/bash/run_evaluate.sh" "$@"
