"""The work of bash/run_dis_evaluate.sh: every checkpoint of a run is evaluated, one at a time on each GPU (on a CPU one
after another), and they are ranked.

    bash bash/run_dis_evaluate.sh RUN [flags of evaluate.py]    # has the settings and puts them into the environment
"""

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.runner import Command, Ended, Runner, stop_on_signals  # noqa: E402

ON_DEV = "on the dev questions: checkpoints are chosen there, and --split test is for the one that was chosen"


def check(argv: list[str]) -> None:
    """One line and exit status 1 where the arguments cannot be used."""
    if not argv or argv[0].startswith("-"):
        sys.exit("error: which run? bash bash/run_dis_evaluate.sh RUN [flags of evaluate.py]")
    for flag in flag_names(argv[1:]):
        if flag in ("--output-dir", "--thought-generator") or flag.startswith("--checkpoint"):
            sys.exit("error: --output_dir, --checkpoint and --thought_generator are each checkpoint's own here")


def flag_names(arguments: list[str]) -> list[str]:
    """--a_b=c as --a-b: evaluate.py takes both spellings."""
    return [argument.partition("=")[0].replace("_", "-") for argument in arguments]


def places(num_gpus: int) -> list[str]:
    """A device for each GPU that is used; on a CPU one place without a device."""
    if num_gpus == 0:
        return [""]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(num_gpus)))
    return re.split("[, ]+", visible)[:num_gpus]  # CUDA leaves out what follows an entry that is no GPU


def read_settings() -> list[str]:
    """Flags of evaluate.py from the environment."""
    flags = []
    for name in ("NUM_RETURN_SEQUENCES", "BATCH_SIZE", "SEED", "NUM_THOUGHT_TOKENS"):
        if os.environ[name]:
            flags += [f"--{name.lower()}", os.environ[name]]
    return flags


def find_checkpoints(python: str, run: str) -> list[str]:
    found = subprocess.run([python, "evaluate.py", "--checkpoints_of", run], stdout=subprocess.PIPE, text=True)
    if found.returncode:
        sys.exit(found.returncode)
    return found.stdout.splitlines()


def main(argv: list[str]) -> None:
    check(argv)
    python, (run, *given) = os.environ["PYTHON"], argv
    checkpoints, flags = find_checkpoints(python, run), read_settings()
    if "--split" not in flag_names(given):
        print(ON_DEV, flush=True)
        flags += ["--split", "dev"]
    logs = {checkpoint: Path(f"results/dis-{run}", Path(checkpoint).name + ".log") for checkpoint in checkpoints}

    def evaluate(checkpoint: str, device: str) -> Ended:
        where = f" on GPU {device}" if device else ""
        print(f"{checkpoint}{where}: {logs[checkpoint]}", flush=True)
        command = [python, "-u", "evaluate.py", "--checkpoint", checkpoint, *flags, *given]
        return runner.run(Command(command, logs[checkpoint], {"CUDA_VISIBLE_DEVICES": device}))

    with Runner(places(int(os.environ["NUM_GPUS"]))) as runner:
        ended = dict(runner.each(evaluate, checkpoints))
    reports, failed = [], []
    for checkpoint in checkpoints:
        printed = re.findall(r"^  (.*/report\.json)$", ended[checkpoint].output, re.MULTILINE)
        reason = ended[checkpoint].failure
        if reason is None and printed:
            reports.append(printed[-1])
        else:
            failed.append(f"failed: {checkpoint}, see {logs[checkpoint]}: {reason or 'it ended without its report'}")
    print(flush=True)
    status = subprocess.run([python, "evaluate.py", "--rank", *reports]).returncode if reports else 0
    if failed:
        sys.exit("\n".join(failed))
    sys.exit(min(status, 1))


if __name__ == "__main__":
    stop_on_signals()
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt as stopped:
        sys.exit(128 + stopped.args[0])
