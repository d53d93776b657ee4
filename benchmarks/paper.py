"""The work of bash/reproduce_paper.sh: the commands of the paper's main table, which are done, their hours, the table.

    bash bash/reproduce_paper.sh [--list | --measure | --table]    # has the settings, and says what it does

Hours are measured, else estimated where the card is known (paper_hours.py), else absent. A training's are measured as
steps x seconds a step + dev evaluations x their seconds, an evaluation's as questions x seconds a question of the LLM
without thoughts: before training there are no thoughts worth timing, and what takes the time is writing the answers.
Loading the models is left out, and a command that was begun counts as a whole. A command that ran here to its end has
its own time instead.
"""

import argparse
import json
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.runner import Command, Runner, stop_on_signals, visible_card  # noqa: E402
from lta_thinker.common import write_text  # noqa: E402
from lta_thinker.data_loader import TASKS, get_task, load_split  # noqa: E402
from lta_thinker.flags import RECIPES  # noqa: E402
from lta_thinker.names import CARD_NAMES  # noqa: E402

MEASURED_QUESTIONS = 8  # a GPU


@dataclass(frozen=True)
class Settings:
    """What bash/reproduce_paper.sh gives; `mode` is run, list, measure or table."""

    mode: str
    python: str
    gpus: int  # 0: a CPU
    pairs: list[tuple[str, str]]  # (large, small)
    tasks: list[str]
    generators: list[str]
    num_thoughts: list[str]  # injected
    du_trained_on: str
    seed: str
    data_dir: str
    out: Path
    paper: list[str]  # flags of both scripts
    sft_alone: list[str]  # flags of train.py for `small` and `prompt`
    train_flags: list[str]
    evaluate_flags: list[str]
    card: str  # of estimate.cards.CARDS; "": the visible one

    @property
    def processes(self) -> int:
        return max(self.gpus, 1)


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


@dataclass(frozen=True)
class Row:
    """A row of the table: a generator, and how many of its thoughts are injected (None: of `none`)."""

    generator: str
    injected: str | None


def base_name(model_id: str) -> str:
    return Path(model_id.rstrip("/")).name


def training(settings: Settings, pair: tuple[str, str], task: str, generator: str) -> Item:
    names = "-".join(map(base_name, pair))
    name = f"{settings.out.name}-seed{settings.seed}-{names}-{task}-{generator}"
    flags = [*settings.paper, "--large_model_id", pair[0], "--small_model_id", pair[1], "--output_name", name]
    flags += ["--thought_generator", generator]
    if generator in ("small", "prompt"):
        flags += settings.sft_alone
    flags += ["--task_name", task, "--data_dir", settings.data_dir, "--seed", settings.seed]
    flags += ["--gradient_accumulation_steps", str(16 // settings.processes), *settings.train_flags]
    return Item("train.py", name, flags, pair, task, f"train {names} {task} {generator}")


def evaluation(settings: Settings, pair: tuple[str, str], task: str, row: Row) -> Item:
    names = "-".join(map(base_name, pair))
    name, trained = f"seed{settings.seed}/{names}/{task}-{row.generator}", None
    flags = [*settings.paper, "--task_name", task, "--data_dir", settings.data_dir, "--seed", settings.seed]
    if row.injected is None:
        flags += ["--base_model_id", pair[0], "--thought_generator", "none"]
    else:
        name += f"-n{row.injected}"
        flags += ["--num_thought_tokens", row.injected]
        trained = training(settings, pair, trained_on(settings, task), row.generator).name
    flags += ["--output_dir", str(settings.out / name), *settings.evaluate_flags]
    return Item("evaluate.py", name, flags, pair, task, f"evaluate {names} {task}", trained)


def trained_on(settings: Settings, task: str) -> str:
    return settings.du_trained_on if task == "du" else task


def rows(settings: Settings) -> list[Row]:
    """The rows of the table, in its order."""
    found = []
    for generator in settings.generators:
        counts = [None] if generator == "none" else settings.num_thoughts
        found += [Row(generator, injected) for injected in counts]
    return found


def make_list(settings: Settings) -> list[Item]:
    """Every command of the table, each training before what needs its weights."""
    items = {}
    for pair in settings.pairs:
        for task in settings.tasks:
            for row in rows(settings):
                if row.injected is not None:
                    item = training(settings, pair, trained_on(settings, task), row.generator)
                    items.setdefault(item.name, item)
                item = evaluation(settings, pair, task, row)
                items.setdefault(item.name, item)
    return list(items.values())


def weights(run: str) -> Path | None:
    """The finished weights of a training."""
    for path in Path("ckpt").glob(f"{run}-*/thoughts.json"):
        left_by_a_kill = path.parent.suffix in (".partial", ".old")
        if not left_by_a_kill and read(path).get("flags", {}).get("output_name") == run:
            return path.parent
    return None


def is_done(settings: Settings, item: Item) -> bool:
    if item.script == "train.py":
        return weights(item.name) is not None
    return (settings.out / item.name / "report.json").is_file()


def arguments_of(settings: Settings, item: Item) -> list[str]:
    """As bash/run_train.sh and bash/run_evaluate.sh run it; a training that was begun goes on."""
    several = settings.gpus > 1 or (settings.gpus == 1 and item.script != "evaluate.py")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={settings.gpus}"] if several else []
    more = ["--resume"] if item.script == "train.py" and begun(settings, item) else []
    if item.training:  # not trained yet: a pattern, for --list
        more = ["--checkpoint", str(weights(item.training) or f"ckpt/{item.training}-*")]
    return [settings.python, "-u", *launcher, item.script, *item.flags, *more]


def begun(settings: Settings, item: Item) -> bool:
    if item.script == "train.py":
        return any(Path("results", item.name).glob("checkpoint-[0-9]*/complete"))
    return any((settings.out / item.name).glob("samples*.jsonl"))


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
    write_text(path, json.dumps(values, indent=2) + "\n")


def check_settings(settings: Settings) -> None:
    """One folder, one table: what decides every figure must not change half-way. Written at the first run."""
    path = settings.out / "settings.json"
    now = {"du_trained_on": settings.du_trained_on}
    for name in ("paper", "sft_alone", "train_flags", "evaluate_flags"):
        now[name] = shlex.join(getattr(settings, name))
    for script in RECIPES:  # what --recipe paper stands for may change with the version
        now[f"recipe of {script}"] = RECIPES[script]["paper"]
    before = read(path)
    for name, value in now.items():
        if before and before.get(name) != value:
            changed = f"{name.upper()}={before.get(name)!r}, not {value!r}"
            sys.exit(f"error: {settings.out} was begun with {changed}; use another OUT")
    if not before and settings.mode in ("run", "measure"):
        write(path, now)


# ---------------------------------------------------------------------------------------------------------------------
# Running


def run_each(work: Callable[[Runner, Item], str | None], items: list[Item]) -> list[str]:
    """Call work(runner, item) for one item after another; the lines that say what failed."""
    with Runner() as runner:
        lines = [line for _, line in runner.each(lambda item, _: work(runner, item), items)]
    return [line for line in lines if line]


def run(settings: Settings, items: list[Item]) -> list[str]:
    """Run what is not done; a line for each item that failed or could not be run."""

    def run_one(runner: Runner, item: Item) -> str | None:
        if is_done(settings, item):
            print(f"done before: {item.name}", flush=True)
            return None
        if item.training and weights(item.training) is None:
            return f"not run: {item.name}: no weights of {item.training}"
        log, start = settings.out / "logs" / (item.name.replace("/", "-") + ".log"), time.time()
        print(f"{time.strftime('%d %b %H:%M')} {item.name}, see {log}", flush=True)
        reason = runner.run(Command(arguments_of(settings, item), log)).failure
        spent = read(settings.out / "spent.json")  # hours of an attempt that was stopped count too
        spent[item.name] = spent.get(item.name, 0) + (time.time() - start) * settings.processes / 3600
        write(settings.out / "spent.json", spent)
        if reason is None and is_done(settings, item):
            return None
        return f"failed: {item.name}, see {log}: {reason or 'it ended without its result'}"

    return run_each(run_one, items)


# ---------------------------------------------------------------------------------------------------------------------
# Hours


class Failed(Exception):
    """A command that was to be measured failed; the message says why."""


def measure(settings: Settings, items: list[Item]) -> list[str]:
    """Seconds of every kind of item that is to do into hours.json; a line for each kind that failed."""
    path = settings.out / "hours.json"

    def measure_one(runner: Runner, item: Item) -> str | None:
        if read(path).get(item.kind, {}).get("gpus") == settings.gpus:
            print(f"measured before: {item.kind}", flush=True)
            return None
        name = item.kind.replace(" ", "-")
        folder, log = settings.out / "measure" / name, settings.out / "logs" / f"measure-{name}.log"
        print(f"{time.strftime('%d %b %H:%M')} {item.kind}, see {log}", flush=True)

        def execute(item: Item) -> None:
            reason = runner.run(Command(arguments_of(settings, item), log)).failure
            if reason is not None:
                raise Failed(reason)

        measure_kind = measure_training if item.script == "train.py" else measure_evaluation
        try:
            figures = measure_kind(settings, item, folder, execute)
        except Failed as reason:
            return f"failed: {item.kind}, see {log}: {reason}"
        write(path, read(path) | {item.kind: {"gpus": settings.gpus} | figures})
        return None

    kinds = {item.kind: item for item in items if not is_done(settings, item)}
    return run_each(measure_one, list(kinds.values()))


def measure_training(settings: Settings, item: Item, folder: Path, execute: Callable) -> dict:
    """What hours.json says of a training."""
    name, result = f"{item.name}-measure", folder / "times.json"
    flags = [str(result), *item.flags, "--output_name", name]
    try:
        execute(replace(item, script="benchmarks/time_training.py", flags=flags))
    finally:
        shutil.rmtree(f"results/{name}", ignore_errors=True)
    found = read(result)
    seconds = found["steps"] * found["seconds_a_step"] + found["dev_evaluations"] * found["seconds_a_dev_evaluation"]
    return found | {"seconds": seconds}


def measure_evaluation(settings: Settings, item: Item, folder: Path, execute: Callable) -> dict:
    """What hours.json says of an evaluation."""
    shutil.rmtree(folder, ignore_errors=True)  # what was answered before takes no time
    bare = evaluation(settings, item.pair, item.task, Row("none", None))
    count = MEASURED_QUESTIONS * settings.processes
    execute(replace(bare, flags=[*bare.flags, "--output_dir", str(folder), "--test_k", str(count)]))
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--split", default="test")
    parser.add_argument("--test_k", type=int, default=0)
    given = parser.parse_known_args(settings.evaluate_flags)[0]
    examples = load_split(get_task(item.task), given.split, settings.data_dir, skip_bad_rows=True).examples
    questions = len(examples[: given.test_k or None])
    seconds = 1 / read(folder / "report.json")["speed"]["questions"]
    return {"questions": questions, "seconds_a_question": seconds, "seconds": questions * seconds}


def estimated(settings: Settings, items: list[Item]) -> tuple[str | None, dict[str, float]]:
    """The card of --estimate (None: no GPU of a known kind is visible, and CARD names none), and seconds by kind of
    those items that are to do and were not measured."""
    measured = read(settings.out / "hours.json")
    wanted = [item for item in items if not is_done(settings, item)]
    wanted = [item for item in wanted if measured.get(item.kind, {}).get("gpus") != settings.gpus]
    bare = Row("none", None)  # as they are measured
    wanted = [
        item if item.script == "train.py" else evaluation(settings, item.pair, item.task, bare) for item in wanted
    ]
    card = settings.card or visible_card()
    if not wanted or card is None:
        return card, {}
    from benchmarks.paper_hours import estimated_seconds  # imported here: torch takes seconds

    return card, estimated_seconds(wanted, card, settings.processes)


def print_list(settings: Settings, items: list[Item]) -> None:
    """A shell script of all commands, a comment before each."""
    measured, spent = read(settings.out / "hours.json"), read(settings.out / "spent.json")
    card, guessed = estimated(settings, items)
    sums, unknown, done = {"spent": 0.0, "expected": 0.0}, 0, 0
    for item in items:
        state = "done" if is_done(settings, item) else "begun" if begun(settings, item) else "to do"
        done += state == "done"
        found, hours = measured.get(item.kind, {}), {}
        if item.name in spent:
            hours["spent"] = spent[item.name]
        if state != "done" and found.get("gpus") == settings.gpus:
            hours["expected"] = found["seconds"] * settings.processes / 3600
        elif state != "done" and item.kind in guessed:
            hours["estimated"] = guessed[item.kind] * settings.processes / 3600
        words = [state, *(f"{value:.3g} hours {what}" for what, value in hours.items())]
        if state != "done" and not hours.keys() & {"expected", "estimated"}:
            words.append("not measured")
            unknown += 1
        for what, value in hours.items():
            sums[what] = sums.get(what, 0.0) + value
        print(f"# {', '.join(words)}: {item.name}")
        print(re.sub(r"'(ckpt/\S+-\*)'", r"\1", shlex.join(arguments_of(settings, item))))
    on = {"estimated": f" on {card} (train.py --estimate)"}
    words = [f"{value:.3g} {what}{on.get(what, '')}" for what, value in sums.items()]
    if unknown:
        words.append(f"{unknown} commands not measured (--measure)")
    unit = "GPU" if settings.gpus or card else "CPU"
    print(f"# {done} of {len(items)} commands done; {unit} hours: {', '.join(words)}")


# ---------------------------------------------------------------------------------------------------------------------
# The table


def cell(report: dict) -> str:
    """One sample / vote, with intervals."""
    if not report:
        return "–"
    accuracies = [report["sample_accuracy"], report["vote_accuracy"]]
    percent = [{name: 100 * accuracy[name] for name in ("value", "low", "high")} for accuracy in accuracies]
    return " / ".join("{value:.1f} [{low:.1f}, {high:.1f}]".format(**figures) for figures in percent)


def column(settings: Settings, pair: tuple[str, str], task: str) -> tuple[str, list[dict]]:
    """The head of a task's column, and the report of each row ({} where there is none)."""
    names = [evaluation(settings, pair, task, row).name for row in rows(settings)]
    reports = [read(settings.out / name / "report.json") for name in names]
    counts = sorted({report["num_questions"] for report in reports if report})
    notes = []
    if counts:
        notes.append(f"{' or '.join(map(str, counts))} questions")
    if task == "du":
        notes.append(f"thoughts of {settings.du_trained_on}")
    return f"{task} ({', '.join(notes)})" if notes else task, reports


def table_of(settings: Settings, pair: tuple[str, str]) -> list[str]:
    """The lines of a pair's table; none where it has no report."""
    columns = [column(settings, pair, task) for task in settings.tasks]
    found = [report for _, reports in columns for report in reports if report]
    if not found:
        return []
    samples = sorted({report["settings"]["sampling"]["num_return_sequences"] for report in found})
    vote = f"vote of {' or '.join(map(str, samples))}"
    heads = ["generator", "thoughts", *(head for head, _ in columns)]
    lines = [f"### {base_name(pair[0])} with {base_name(pair[1])}", ""]
    lines += [f"One sample / {vote}, % right [95 % interval over questions]; seed {settings.seed}.", ""]
    lines += ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for i, row in enumerate(rows(settings)):
        cells = [row.generator, row.injected or "–", *(cell(reports[i]) for _, reports in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def table(settings: Settings) -> str:
    """Markdown: for each pair a row for each generator and number of thoughts, a column for each task."""
    lines = [line for pair in settings.pairs for line in table_of(settings, pair)]
    if not lines:
        sys.exit(f"error: no report.json in {settings.out} yet")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# The whole


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        sys.exit(f"error: {message}; bash/reproduce_paper.sh takes --list, --measure, --table, or nothing")


def parse(argv: list[str]) -> Settings:
    parser = Parser(allow_abbrev=False, add_help=False)
    for mode in ("list", "measure", "table"):
        parser.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, default="run")
    for name in [field.name for field in fields(Settings) if field.name != "mode"]:
        parser.add_argument(f"--{name}", required=True)
    given = vars(parser.parse_args(argv))
    given |= {"gpus": int(given["gpus"]), "out": Path(given["out"])}
    given["pairs"] = [tuple(pair.split(",")) for pair in given["pairs"].split()]
    for name in ("tasks", "generators", "num_thoughts"):
        given[name] = given[name].split()
    for name in ("paper", "sft_alone", "train_flags", "evaluate_flags"):
        try:
            given[name] = shlex.split(given[name])
        except ValueError as error:
            sys.exit(f"error: {name.upper()}: {error}")
    settings = Settings(**given)
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """One line and exit status 1 for what cannot be run."""
    for pair in settings.pairs:
        if len(pair) != 2 or not all(pair):
            sys.exit(f"error: PAIRS: {','.join(pair)} is not large,small")
    names = {tuple(map(base_name, pair)) for pair in settings.pairs}
    if len(names) < len(settings.pairs):
        sys.exit("error: PAIRS: two pairs have the same names, and their runs would too")
    for task in [*settings.tasks, settings.du_trained_on]:
        if task not in TASKS:
            sys.exit(f"error: TASKS: {task} is none of {', '.join(TASKS)}")
    for n in settings.num_thoughts:
        if not re.fullmatch("[1-9][0-9]*", n):
            sys.exit(f"error: NUM_THOUGHTS: {n} is not a number of thoughts")
    if not settings.seed.isdecimal():
        sys.exit(f"error: SEED: {settings.seed} is not a number")
    if settings.card not in ("", *CARD_NAMES):
        sys.exit(f"error: CARD: {settings.card} is none of {', '.join(CARD_NAMES)}")
    if settings.du_trained_on == "du":
        sys.exit("error: DU_TRAINED_ON: du is for evaluation only")
    out = settings.out
    if not re.fullmatch(r"\w[\w.-]*", out.name):
        sys.exit(f"error: OUT={out}: its last name begins the runs' names: letters, digits, '.', '_' and '-'")


def main(argv: list[str]) -> None:
    settings = parse(argv)
    check_settings(settings)
    items, failed = make_list(settings), []
    if settings.mode == "list":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # | head
        print_list(settings, items)
    if settings.mode == "measure":
        failed = measure(settings, items)
        if not failed:
            print(f"{settings.out / 'hours.json'}; --list shows the hours")
    if settings.mode == "run":
        failed = run(settings, items)
    if settings.mode in ("run", "table") and not failed:
        path, text = settings.out / f"table-seed{settings.seed}.md", table(settings)
        path.write_text(text, encoding="utf-8")
        print(f"\n{text}\n{path}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    stop_on_signals()
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
