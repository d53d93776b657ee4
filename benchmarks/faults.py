"""Kills training and evaluation (SIGKILL) at random moments, starts them again until they end, and compares what they
leave with what a run leaves that was never cut: weights and dev figures to the bit, every answer.

    python benchmarks/faults.py --folder /tmp/faults                  # 100 kills of training, 50 of evaluation: 28 min
    python benchmarks/faults.py --folder /tmp/faults --train 6 --evaluate 3        # a few of each kind

On the toy pair, with short runs. The moments follow from --seed; the machine decides what they hit. Every chain (a run
that is killed one to three times and then left alone) is a line of FOLDER/chains.jsonl, and the same command after a
stop does the chains that are missing. The last lines are a table. Exit status 1 where a chain ended in another way.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
TWO_RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
TRAIN = (
    f"--large_model_id {ROOT}/toy/large --small_model_id {ROOT}/toy/small --task_name arithmetic --data_dir data "
    "--num_thought_tokens 4 --batch_size 4 --gradient_accumulation_steps 1 --learning_rate 3e-3 --warmup_ratio 0 "
    "--max_steps 20 --eval_strategy steps --eval_steps 4 --logging_steps 3 --disable_tqdm True"
).split()
EVALUATE = "--data_dir data --test_k 24 --num_return_sequences 3 --max_new_tokens 48 --batch_size 4".split()
MOST_KILLS = 3  # of a chain; then the run is left alone
SECONDS = 300  # of one start, before it is given up


@dataclass(frozen=True)
class Kind:
    """A kind of kill. share: of the kills of its part; moment: "any", or what must be seen being written first."""

    name: str
    script: str
    two_ranks: bool
    moment: str
    share: float


KINDS = (
    Kind("training, any moment", "train.py", False, "any", 0.30),
    Kind("training, a checkpoint is written", "train.py", False, "checkpoint", 0.25),
    Kind("training, ckpt/ is written", "train.py", False, "final", 0.15),
    Kind("training on two ranks, any moment", "train.py", True, "any", 0.15),
    Kind("training on two ranks, a checkpoint is written", "train.py", True, "checkpoint", 0.15),
    Kind("evaluation, any moment", "evaluate.py", False, "any", 0.7),
    Kind("evaluation on two ranks, any moment", "evaluate.py", True, "any", 0.3),
)


@dataclass(frozen=True)
class Chain:
    """One run: when it was killed (seconds after each start), and why it counts as another (None: it is the same)."""

    kind: str
    number: int
    kills: list[float]
    fault: str | None


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def command(kind: Kind, name: str) -> list[str]:
    """The command that starts or goes on with a run."""
    launcher = [sys.executable, *(TWO_RANKS if kind.two_ranks else []), str(ROOT / kind.script)]
    if kind.script == "evaluate.py":
        (checkpoint,) = Path("ckpt").glob("uncut-1-*")
        return [*launcher, "--checkpoint", str(checkpoint), *EVALUATE, "--output_dir", f"results/{name}"]
    written = [*Path("results", name).glob("checkpoint-*/complete"), *finals(name)]
    return [*launcher, *TRAIN, "--output_name", name, *(["--resume"] if written else [])]


def finals(name: str) -> list[Path]:
    """The folders in ckpt/ that a run has left, half-written ones too."""
    return [*Path("ckpt").glob(f"{name}-*"), *Path("ckpt").glob(f".{name}-*")]


def is_seen(kind: Kind, name: str) -> Callable[[], bool]:
    """Whether what the kind waits for is being written now."""
    if kind.moment == "checkpoint":
        # a kill before may have left a folder without `complete`: its files are then written anew
        before = {path: path.stat().st_mtime_ns for path in Path("results", name).glob("checkpoint-*/*")}

        def checkpoint() -> bool:
            for folder in Path("results", name).glob("checkpoint-*/"):
                weights = folder / "model.safetensors"
                if weights.exists() and not (folder / "complete").exists():
                    return weights.stat().st_mtime_ns != before.get(weights)
            return False

        return checkpoint
    return lambda: any(path.name.endswith(".partial") and (path / "projection.bin").exists() for path in finals(name))


def run_and_kill(kind: Kind, name: str, whole: float, chance: random.Random, log) -> tuple[float | None, int | None]:
    """Start a run and kill it and its children -> (seconds until then, None); (None, exit status) where it ended."""
    start = time.monotonic()
    process = subprocess.Popen(command(kind, name), stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True)
    moment = chance.uniform(0, whole)
    sees = is_seen(kind, name) if kind.moment != "any" else lambda: time.monotonic() - start >= moment
    while process.poll() is None and time.monotonic() - start < SECONDS:
        try:
            seen = sees()
        except FileNotFoundError:  # it was renamed just now
            seen = True
        if seen:
            if kind.moment != "any":
                time.sleep(chance.uniform(0, 0.02))
            break
        time.sleep(0.0005)
    if process.poll() is not None:
        return None, process.returncode
    kill(process.pid, one_rank=kind.two_ranks and chance.random() < 0.3)
    process.wait()
    return round(time.monotonic() - start, 3), None


def kill(pid: int, one_rank: bool) -> None:
    """SIGKILL to a process and all below it. one_rank: to one of torchrun's two, and to the rest when torchrun ends."""
    everyone = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    ranks = [one for one in everyone[1:] if is_rank(one)]
    if one_rank and ranks:
        ranks[0].send_signal(signal.SIGKILL)
        psutil.wait_procs(everyone, timeout=60)
    for one in everyone:
        if one.is_running():
            one.send_signal(signal.SIGKILL)
    psutil.wait_procs(everyone[1:], timeout=10)


def is_rank(process: psutil.Process) -> bool:
    """Whether a process is alive and not torchrun's own."""
    try:
        return process.is_running() and "torch.distributed.run" not in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def run_uncut(kind: Kind, name: str) -> float:
    """Run to the end -> the seconds it took."""
    start = time.monotonic()
    with open(f"{name}.log", "ab") as log:
        status = subprocess.run(command(kind, name), stdout=log, stderr=log, env=ENVIRONMENT).returncode
    if status:
        sys.exit(f"error: {name} ended with status {status}, see {Path.cwd()}/{name}.log")
    return time.monotonic() - start


# ---------------------------------------------------------------------------------------------------------------------
# What a run leaves


def left_by(kind: Kind, name: str) -> dict:
    """All that must be the same, by what it is."""
    if kind.script == "evaluate.py":
        report = json.loads(Path("results", name, "report.json").read_text())
        lines = [json.loads(line) for line in Path("results", name, "samples.jsonl").read_text().splitlines()]
        kept = ("index", "question", "responses", "num_tokens", "finished")
        samples = [{key: line[key] for key in kept} for line in lines]
        return {"samples": samples, "report": [report["vote_accuracy"], report["sample_accuracy"]]}
    (folder,) = finals(name)
    record = json.loads((folder / "thoughts.json").read_text())
    weights = {}
    for path in sorted(folder.glob("*.bin")):
        for tensor, values in torch.load(path, weights_only=True).items():
            weights[f"{path.name} {tensor}"] = values.numpy().tobytes()
    figures = {f"thoughts.json {key}": record[key] for key in ("dev", "dev_curve", "best", "rows", "fingerprints")}
    names = {path.name for path in folder.iterdir()}
    return weights | figures | {"files": names, "dev_losses": Path("results", name, "dev_losses.jsonl").read_bytes()}


def do_chain(kind: Kind, number: int, kills: int, whole: float, uncut: dict, chance: random.Random) -> Chain:
    """Kill a run `kills` times (fewer where it ends before), let it end, and compare it."""
    name, moments, fault = f"{kind.name.replace(', ', '-').replace(' ', '_').replace('/', '')}-{number}", [], None
    for path in (Path("results", name), *finals(name)):  # a stop of this program has left it
        shutil.rmtree(path, ignore_errors=True)
    with open(f"{name}.log", "wb") as log:
        while len(moments) < kills:
            moment, status = run_and_kill(kind, name, whole, chance, log)
            if moment is None:
                fault = f"ended with status {status}" if status else None
                break
            moments.append(moment)
        else:
            status = subprocess.run(command(kind, name), stdout=log, stderr=log, env=ENVIRONMENT).returncode
            fault = f"ended with status {status}" if status else None
    if fault is None:
        try:
            left = left_by(kind, name)
            differ = sorted(key for key in left.keys() | uncut.keys() if left.get(key) != uncut.get(key))
            fault = f"differs in {', '.join(differ)[:200]}" if differ else None
        except (OSError, ValueError, KeyError) as error:
            fault = f"left nothing that can be compared: {type(error).__name__} {error}"
    said = Path(f"{name}.log").read_text(errors="replace").splitlines()
    if fault is None and any(f'File "{ROOT}' in line and "site-packages" not in line for line in said):
        fault = "printed a traceback"  # of ours: torchrun has its own
    if fault is None:
        for path in (Path("results", name), *finals(name)):
            shutil.rmtree(path, ignore_errors=True)
    return Chain(kind.name, number, moments, fault)


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def make_rows() -> None:
    """FOLDER/data/arithmetic: the first rows of the toy task."""
    for split, count in (("train", 48), ("dev", 8), ("test", 24)):
        lines = (ROOT / "data" / "arithmetic" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        path = Path("data/arithmetic", f"{split}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def prepare(kind: Kind) -> tuple[float, dict]:
    """(seconds of an uncut run, what it leaves). It is run once a folder, and once more for its time."""
    ranks = 2 if kind.two_ranks else 1
    name = f"uncut-{ranks}" if kind.script == "train.py" else f"uncut-eval-{ranks}"
    if not Path(f"{name}.seconds").exists():
        for path in (path for run in (name, f"again-{name}") for path in (Path("results", run), *finals(run))):
            shutil.rmtree(path, ignore_errors=True)  # a stop of this program has left it
        run_uncut(kind, name)
        seconds = run_uncut(kind, f"again-{name}")
        Path(f"{name}.seconds").write_text(str(seconds))
    return float(Path(f"{name}.seconds").read_text()), left_by(kind, name)


def read_chains() -> list[Chain]:
    path = Path("chains.jsonl")
    return [Chain(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of all that is written")
    parser.add_argument(
        "--train", type=int, default=100, help="kills of training, shared out among its five kinds (few: some get none)"
    )
    parser.add_argument("--evaluate", type=int, default=50, help="kills of evaluation, shared out among its two kinds")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(args.folder)
    make_rows()
    if args.evaluate or args.train:
        prepare(KINDS[0])  # evaluation needs its weights
    for kind in KINDS:
        wanted = round(kind.share * (args.train if kind.script == "train.py" else args.evaluate))
        while (left := wanted - sum(len(chain.kills) for chain in read_chains() if chain.kind == kind.name)) > 0:
            number = sum(chain.kind == kind.name for chain in read_chains())
            if number > 4 * wanted:
                print(f"{kind.name}: its moment is missed too often; {left} kills are left out", flush=True)
                break
            whole, uncut = prepare(kind)
            chance = random.Random(f"{args.seed} {kind.name} {number}")
            kills = min(left, chance.randint(1, MOST_KILLS))
            chain = do_chain(kind, number, kills, whole, uncut, chance)
            with open("chains.jsonl", "a") as file:
                file.write(json.dumps(asdict(chain)) + "\n")
            print(f"{kind.name} {number}: killed after {chain.kills} s: {chain.fault or 'the same'}", flush=True)
    chains = read_chains()
    print("\n| killed | chains | kills | the same as uncut | another end |\n| --- | --- | --- | --- | --- |")
    for kind in KINDS:
        of_kind = [chain for chain in chains if chain.kind == kind.name]
        kills = sum(len(chain.kills) for chain in of_kind)
        other = sum(chain.fault is not None for chain in of_kind)
        print(f"| {kind.name} | {len(of_kind)} | {kills} | {len(of_kind) - other} | {other} |")
    sys.exit(any(chain.fault for chain in chains))


if __name__ == "__main__":
    main()
