#!/usr/bin/env bash
# Samples a second of evaluate.py's two backends, in turn on one machine:  bash benchmarks/backends.sh OUT [flags]
# Flags of evaluate.py that both get; PYTHON is one that has vLLM (.venv-vllm's, bash/run_tests_vllm.sh makes it).
# What takes long before the first question (the engine's start) is no part of the figures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-${VENV:-.venv-vllm}/bin/python}
out=${1:?which folder? bash benchmarks/backends.sh OUT [flags of evaluate.py]}
shift
for turn in 1 2; do
    for backend in hf vllm; do
        log=$out-$backend-$turn.log
        rm -rf "$out/$backend-$turn"
        if ! "$PYTHON" evaluate.py "$@" --backend $backend --output_dir "$out/$backend-$turn" >"$log" 2>&1; then
            echo "$log: $(tail -n 1 "$log")" >&2
            exit 1
        fi
    done
done
"$PYTHON" - "$out" <<'EOF'
import json, sys

for name in ("hf-1", "vllm-1", "hf-2", "vllm-2"):
    report = json.load(open(f"{sys.argv[1]}/{name}/report.json"))
    samples = report["settings"]["sampling"]["num_return_sequences"] * report["speed"]["questions"]
    print(f"{name:6s} {samples:8.1f} samples/s {report['speed']['tokens']:8.0f} tokens/s {report['wall_seconds']:6.1f} s in all")
EOF
"$PYTHON" evaluate.py --compare "$out/hf-1/report.json" "$out/vllm-1/report.json"
