#!/usr/bin/env bash
# bash/run_train.sh, which has the flags, from here
exec bash "$(dirname "${BASH_SOURCE[0]}")/bash/run_train.sh" "$@"
