#!/usr/bin/env bash
# $REAL_PYTHON, but it sees no GPU
case "$*" in
*device_count*) echo 0 ;;
*) exec "$REAL_PYTHON" "$@" ;;
esac
