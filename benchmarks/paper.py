"""The list behind bash/reproduce_paper.sh, which has the settings and says what it does: the commands of the paper's
main table, what is done of them, their hours, the table.

    bash bash/reproduce_paper.sh [--list | --measure | --table]

Hours are measured or absent: a training's are steps x seconds a step + dev evaluations x their seconds, an
evaluation's are questions x seconds a question of the LLM without thoughts (before training there are no thoughts worth
timing, and what takes the time is writing the answers). Loading the models is left out, and a command that was begun is
counted as a whole. A command that ran here to its end has its own time instead.
"""

import argparse
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lta_thinker.data_loader import TASKS, get_task, load_split  # noqa: E402

MEASURED_STEPS, WARM_UP_STEPS, MEASURED_QUESTIONS = 12, 2, 8  # questions: a GPU

# ---------------------------------------------------------------------------------------------------------------------
# The list


@dataclass(frozen=True)
class Item:
    """A training or an evaluation. `name` is a training's --output_name, an evaluation's folder in OUT."""

    script: str
    name: str
    flags: list[str]
    pair: tuple[str, str]
    task: str
    kind: str  # of hours: items of one kind are measured once
    training: str | None = None  # the training whose weights are evaluated


def base_name(model_id: str) -> str:
    return Path(model_id.rstrip("/")).name


def training(args, pair: tuple[str, str], task: str, generator: str) -> Item:
    names = "-".join(map(base_name, pair))
    name = f"{args.out.name}-seed{args.seed}-{names}-{task}-{generator}"
    flags = [*args.paper, "--large_model_id", pair[0], "--small_model_id", pair[1], "--output_name", name]
    flags += ["--thought_generator", generator, *(args.sft_alone if generator in ("small", "prompt") else [])]
    flags += ["--task_name", task, "--data_dir", args.data_dir, "--seed", args.seed]
    flags += ["--gradient_accumulation_steps", str(16 // max(args.gpus, 1)), *args.train_flags]
    return Item("train.py", name, flags, pair, task, f"train {names} {task} {generator}")


def evaluation(args, pair: tuple[str, str], task: str, generator: str = "none", n: str | None = None) -> Item:
    names = "-".join(map(base_name, pair))
    name, trained = f"seed{args.seed}/{names}/{task}-{generator}" + (f"-n{n}" if n else ""), None
    flags = [*args.paper, "--task_name", task, "--data_dir", args.data_dir, "--seed", args.seed]
    if generator == "none":
        flags += ["--base_model_id", pair[0], "--thought_generator", "none"]
    else:
        flags += ["--num_thought_tokens", n]
        trained = training(args, pair, args.du_trained_on if task == "du" else task, generator).name
    flags += ["--output_dir", str(args.out / name), *args.evaluate_flags]
    return Item("evaluate.py", name, flags, pair, task, f"evaluate {names} {task}", trained)


def rows(args) -> list[tuple[str, str | None]]:
    """The table's (generator, thoughts injected)."""
    return [(g, n) for g in args.generators for n in ([None] if g == "none" else args.num_thoughts)]


def make_list(args) -> list[Item]:
    """Every command of the table, each training before what needs its weights."""
    items = {}
    for pair in args.pairs:
        for task in args.tasks:
            for generator, n in rows(args):
                new = [evaluation(args, pair, task, generator, n)]
                if generator != "none":
                    new.insert(0, training(args, pair, args.du_trained_on if task == "du" else task, generator))
                for item in new:
                    items.setdefault(item.name, item)
    return list(items.values())


def weights(run: str) -> Path | None:
    """The finished weights of a training."""
    for path in Path("ckpt").glob(f"{run}-*/thoughts.json"):
        left_by_a_kill = path.parent.suffix in (".partial", ".old")
        if not left_by_a_kill and read(path).get("flags", {}).get("output_name") == run:
            return path.parent
    return None


def is_done(args, item: Item) -> bool:
    return bool(weights(item.name)) if item.script == "train.py" else (args.out / item.name / "report.json").is_file()


def command(args, item: Item) -> list[str]:
    """As bash/run_train.sh and bash/run_evaluate.sh run it; a training that was begun goes on."""
    several = args.gpus > 1 or (args.gpus and item.script != "evaluate.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={args.gpus}"] if several else []
    more = ["--resume"] if item.script == "train.py" and begun(args, item) else []
    if item.training:  # not trained yet: a pattern, for --list
        more = ["--checkpoint", str(weights(item.training) or f"ckpt/{item.training}-*")]
    return [args.python, "-u", *launcher, item.script, *item.flags, *more]


def begun(args, item: Item) -> bool:
    if item.script == "train.py":
        return any(Path("results", item.name).glob("checkpoint-[0-9]*/complete"))
    return any((args.out / item.name).glob("samples*.jsonl"))


# ---------------------------------------------------------------------------------------------------------------------
# Files of OUT


def read(path: Path) -> dict:
    """A JSON object; {} where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        sys.exit(f"error: {path}: not JSON ({error})")


def write(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def check_settings(args) -> None:
    """One folder, one table: what decides every figure must not change half-way. Written at the first run."""
    path = args.out / "settings.json"
    names = "paper sft_alone du_trained_on train_flags evaluate_flags".split()
    settings = {name: value if isinstance(value := getattr(args, name), str) else shlex.join(value) for name in names}
    before = read(path)
    for name in before:
        if before[name] != settings.get(name):
            was, now = before[name], settings.get(name)
            sys.exit(f"error: {args.out} was begun with {name.upper()}={was!r}, not {now!r}; use another OUT")
    if not before and args.mode in ("run", "measure"):
        write(path, settings)


# ---------------------------------------------------------------------------------------------------------------------
# Running


def execute(arguments: list[str], log: Path) -> str | None:
    """Run a command into its log; None, or why it failed. Whatever ends this program ends the command too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        file.write(f"$ {shlex.join(arguments)}\n".encode())
        file.flush()
        start = file.tell()
        child = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = child.wait()
        except KeyboardInterrupt:
            os.killpg(child.pid, signal.SIGTERM)  # torchrun passes it on and waits for its ranks
            try:
                child.wait(60)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                os.killpg(child.pid, signal.SIGKILL)
            raise
    if code == 0:
        return None
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").split("\n")
    errors = [line for line in lines if line.startswith("error: ")]  # torchrun writes many lines after it
    last = (errors or [line for line in lines if line.strip()] or ["no output"])[-1]
    return f"killed by signal {-code}" if code < 0 else last


def run(args, items: list[Item]) -> list[str]:
    """Run what is not done; a line for each item that failed or could not be run."""
    failed = []
    for item in items:
        if is_done(args, item):
            print(f"done before: {item.name}", flush=True)
            continue
        if item.training and weights(item.training) is None:
            failed.append(f"not run: {item.name}: no weights of {item.training}")
            continue
        log, start = args.out / "logs" / (item.name.replace("/", "-") + ".log"), time.time()
        print(f"{time.strftime('%d %b %H:%M')} {item.name}, see {log}", flush=True)
        try:
            reason = execute(command(args, item), log)
        finally:  # of an attempt that was stopped too
            spent = read(args.out / "spent.json")
            spent[item.name] = spent.get(item.name, 0) + (time.time() - start) * max(args.gpus, 1) / 3600
            write(args.out / "spent.json", spent)
        if reason is not None or not is_done(args, item):
            failed.append(f"failed: {item.name}, see {log}: {reason or 'it ended without its result'}")
    return failed


# ---------------------------------------------------------------------------------------------------------------------
# Hours


def measure(args, items: list[Item]) -> list[str]:
    """Seconds of every kind of item that is to do into hours.json; a line for each kind that failed."""
    failed, path = [], args.out / "hours.json"
    for kind, item in {item.kind: item for item in items if not is_done(args, item)}.items():
        if read(path).get(kind, {}).get("gpus") == args.gpus:
            print(f"measured before: {kind}", flush=True)
            continue
        name = kind.replace(" ", "-")
        log = args.out / "logs" / f"measure-{name}.log"
        print(f"{time.strftime('%d %b %H:%M')} {kind}, see {log}", flush=True)
        measure_one = measure_training if item.script == "train.py" else measure_evaluation
        found, reason = measure_one(args, item, args.out / "measure" / name, log)
        if reason is None:
            write(path, read(path) | {kind: {"gpus": args.gpus} | found})
        else:
            failed.append(f"failed: {kind}, see {log}: {reason}")
    return failed


def measure_training(args, item: Item, folder: Path, log: Path) -> tuple[dict, str | None]:
    """What hours.json says of a training, or why it could not be measured."""
    name, result = f"{item.name}-measure", folder / "times.json"
    flags = ["--time_training", str(result), *item.flags, "--output_name", name]
    reason = execute(command(args, replace(item, script="benchmarks/paper.py", flags=flags)), log)
    shutil.rmtree(f"results/{name}", ignore_errors=True)
    if reason is not None:
        return {}, reason
    found = read(result)
    seconds = found["steps"] * found["seconds_a_step"] + found["dev_evaluations"] * found["seconds_a_dev_evaluation"]
    return found | {"seconds": seconds}, None


def measure_evaluation(args, item: Item, folder: Path, log: Path) -> tuple[dict, str | None]:
    """What hours.json says of an evaluation, or why it could not be measured."""
    shutil.rmtree(folder, ignore_errors=True)  # what was answered before takes no time
    bare = evaluation(args, item.pair, item.task)
    count = MEASURED_QUESTIONS * max(args.gpus, 1)
    bare.flags.extend(["--output_dir", str(folder), "--test_k", str(count)])
    reason = execute(command(args, bare), log)
    if reason is not None:
        return {}, reason
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--split", default="test")
    parser.add_argument("--test_k", type=int, default=0)
    given = parser.parse_known_args(args.evaluate_flags)[0]
    examples = load_split(get_task(item.task), given.split, args.data_dir, skip_bad_rows=True).examples
    questions = len(examples[: given.test_k or None])
    seconds = 1 / read(folder / "report.json")["speed"]["questions"]
    return {"questions": questions, "seconds_a_question": seconds, "seconds": questions * seconds}, None


def time_training(result: str, flags: list[str]) -> None:
    """train.py with these flags, but only a few timed steps and one dev evaluation; nothing is saved."""
    import torch
    from transformers import TrainerCallback

    from lta_thinker import train
    from lta_thinker.training import trainer

    class Clock(TrainerCallback):
        def __init__(self):
            self.ends = []

        def on_step_end(self, *args, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    class TimedTrainer(trainer.ThoughtTrainer):
        def train(self, **kwargs):
            args, clock = self.args, Clock()
            micro_batches = math.ceil(len(self.train_dataset) / (args.per_device_train_batch_size * args.world_size))
            an_epoch = math.ceil(micro_batches / args.gradient_accumulation_steps)
            steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * an_epoch)
            every = an_epoch if args.eval_strategy == "epoch" else args.eval_steps
            every = every if every >= 1 else math.ceil(every * steps)
            args.eval_strategy, args.save_strategy, args.load_best_model_at_end = "no", "no", False
            args.max_steps = MEASURED_STEPS
            self.add_callback(clock)
            super().train()
            start = time.perf_counter()
            self.evaluate()
            dev_seconds = time.perf_counter() - start
            if self.is_world_process_zero():
                seconds = clock.ends[-1] - clock.ends[WARM_UP_STEPS - 1]
                found = {"steps": steps, "seconds_a_step": seconds / (MEASURED_STEPS - WARM_UP_STEPS)}
                found["dev_evaluations"] = math.ceil(steps / every)
                found["seconds_a_dev_evaluation"] = dev_seconds
                found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
                write(Path(result), found)
            sys.exit()

    trainer.ThoughtTrainer = TimedTrainer
    sys.argv[1:] = flags
    train.main()


def print_list(args, items: list[Item]) -> None:
    """A shell script of all commands, a comment before each."""
    measured, spent = read(args.out / "hours.json"), read(args.out / "spent.json")
    sums, unknown, done = {"spent": 0.0, "expected": 0.0}, 0, 0
    for item in items:
        state = "done" if is_done(args, item) else "begun" if begun(args, item) else "to do"
        done += state == "done"
        found, hours = measured.get(item.kind, {}), {}
        if item.name in spent:
            hours["spent"] = spent[item.name]
        if state != "done" and found.get("gpus") == args.gpus:
            hours["expected"] = found["seconds"] * max(args.gpus, 1) / 3600
        told = [f"{value:.3g} hours {what}" for what, value in hours.items()]
        if state != "done" and "expected" not in hours:
            told, unknown = [*told, "not measured"], unknown + 1
        for what, value in hours.items():
            sums[what] += value
        print(f"# {', '.join([state, *told])}: {item.name}")
        print(re.sub(r"'(ckpt/\S+-\*)'", r"\1", shlex.join(command(args, item))))
    told = [f"{value:.3g} {what}" for what, value in sums.items()]
    told += [f"{unknown} commands not measured (--measure)"] if unknown else []
    print(f"# {done} of {len(items)} commands done; {'GPU' if args.gpus else 'CPU'} hours: {', '.join(told)}")


# ---------------------------------------------------------------------------------------------------------------------
# The table


def cell(report: dict) -> str:
    """One sample / vote, with intervals."""
    figures = [report[f"{name}_accuracy"] for name in ("sample", "vote")] if report else []
    percent = [[100 * figure[name] for name in ("value", "low", "high")] for figure in figures]
    return " / ".join(f"{value:.1f} [{low:.1f}, {high:.1f}]" for value, low, high in percent) or "–"


def table(args) -> str:
    """Markdown: for each pair a row for each generator and number of thoughts, a column for each task."""
    lines = []
    for pair in args.pairs:
        heads, columns = [], []
        for task in args.tasks:
            names = [evaluation(args, pair, task, *row).name for row in rows(args)]
            reports = [read(args.out / name / "report.json") for name in names]
            counts = sorted({report["num_questions"] for report in reports if report})
            notes = [f"{' or '.join(map(str, counts))} questions"] if counts else []
            notes += [f"thoughts of {args.du_trained_on}"] if task == "du" else []
            heads.append(f"{task} ({', '.join(notes)})" if notes else task)
            columns.append(reports)
        found = [report for column in columns for report in column if report]
        if not found:
            continue
        samples = sorted({report["settings"]["sampling"]["num_return_sequences"] for report in found})
        lines += [f"### {base_name(pair[0])} with {base_name(pair[1])}", ""]
        vote = f"vote of {' or '.join(map(str, samples))}"
        lines += [f"One sample / {vote}, % right [95 % interval: bootstrap over questions]; seed {args.seed}.", ""]
        lines += ["| " + " | ".join(["generator", "thoughts", *heads]) + " |", "| --- " * (len(heads) + 2) + "|"]
        for i, (generator, n) in enumerate(rows(args)):
            cells = [cell(reports[i]) for reports in columns]
            lines.append("| " + " | ".join([generator, n or "–", *cells]) + " |")
        lines.append("")
    if not lines:
        sys.exit(f"error: no report.json in {args.out} yet")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# The whole


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        sys.exit(f"error: {message}; bash/reproduce_paper.sh takes --list, --measure, --table, or nothing")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(allow_abbrev=False, add_help=False)
    for mode in ("list", "measure", "table"):
        parser.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, default="run")
    values = "python gpus pairs tasks generators num_thoughts du_trained_on seed data_dir out"
    for name in [*values.split(), "paper", "sft_alone", "train_flags", "evaluate_flags"]:
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args(argv)
    args.gpus, args.out, args.pairs = int(args.gpus), Path(args.out), [p.split(",") for p in args.pairs.split()]
    for name in ("tasks", "generators", "num_thoughts"):
        setattr(args, name, getattr(args, name).split())
    for name in ("paper", "sft_alone", "train_flags", "evaluate_flags"):
        try:
            setattr(args, name, shlex.split(getattr(args, name)))
        except ValueError as error:
            sys.exit(f"error: {name.upper()}: {error}")
    for pair in args.pairs:
        if len(pair) != 2 or not all(pair):
            sys.exit(f"error: PAIRS: {','.join(pair)} is not large,small")
    names = [tuple(map(base_name, pair)) for pair in args.pairs]
    if len(set(names)) < len(names):
        sys.exit("error: PAIRS: two pairs have the same names, and their runs would too")
    for task in [*args.tasks, args.du_trained_on]:
        if task not in TASKS:
            sys.exit(f"error: TASKS: {task} is none of {', '.join(TASKS)}")
    for n in args.num_thoughts:
        if not re.fullmatch("[1-9][0-9]*", n):
            sys.exit(f"error: NUM_THOUGHTS: {n} is not a number of thoughts")
    if not args.seed.isdecimal():
        sys.exit(f"error: SEED: {args.seed} is not a number")
    if args.du_trained_on == "du":
        sys.exit("error: DU_TRAINED_ON: du is for evaluation only")
    if not re.fullmatch(r"\w[\w.-]*", args.out.name):
        sys.exit(f"error: OUT={args.out}: its last name begins the runs' names: letters, digits, '.', '_' and '-'")
    return args


def stop(*_) -> None:
    raise KeyboardInterrupt


def main(argv: list[str]) -> None:
    args = parse(argv)
    check_settings(args)
    items = make_list(args)
    if args.mode == "list":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # | head
        return print_list(args, items)
    failed = []
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sign) != signal.SIG_IGN:  # nohup
            signal.signal(sign, stop)
    if args.mode == "measure":
        failed = measure(args, items)
        if not failed:
            print(f"{args.out / 'hours.json'}; --list shows the hours")
    elif args.mode == "run":
        failed = run(args, items)
    if args.mode == "table" or (args.mode == "run" and not failed):
        path, text = args.out / f"table-seed{args.seed}.md", table(args)
        path.write_text(text, encoding="utf-8")
        print(f"\n{text}\n{path}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--time_training"]:
        time_training(sys.argv[2], sys.argv[3:])
    else:
        try:
            main(sys.argv[1:])
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            sys.exit(130)
