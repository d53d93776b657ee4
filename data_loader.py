"""Tasks: where the rows of a task are, and the prompts that its questions stand in.

    split = load_split(TASKS["gsm8k"], "train", "data")
    python data_loader.py --task aqua --from PATH --to data/aqua     # official raw files -> files that are read here

A new task is one entry of TASKS, or only flags: --task_name mytask --train_file a.jsonl --answer_type number.
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C during the imports is no traceback

import dataclasses
import os
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lta_thinker.answers import ANSWER_TYPES
from lta_thinker.common import InputError, parse_json
from lta_thinker.rows.examples import Example, Fields, Split, Task, parse_rows, read_rows
from lta_thinker.rows.layout import WorkedExample, target_text

ROOT = Path(__file__).resolve().parent
SPLITS = ("train", "dev", "test", "sample")
DEV_SHARE, DEV_SEED = 0.05, 41  # the dev rows of a task never depend on a run's --seed
OWN_HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}

# ---------------------------------------------------------------------------------------------------------------------
# Tasks: add one here


TASKS = {
    task.name: task
    for task in (
        Task(
            "gsm8k",
            "number",
            {
                "train": ("train_socratic.jsonl", "train.jsonl", "hub:openai/gsm8k:socratic:train"),
                "test": ("test_socratic.jsonl", "test.jsonl", "hub:openai/gsm8k:socratic:test"),
            },
        ),
        Task(
            "strategyqa",
            "boolean",
            {
                "train": ("strategyqa_train.jsonl", "train.jsonl", "hub:ChilleD/StrategyQA::train"),
                "test": (
                    "strategyqa_test.jsonl",
                    "strategyqa_dev.jsonl",
                    "test.jsonl",
                    "hub:ChilleD/StrategyQA::test",
                ),
            },
            (Fields(steps="facts"),),
            folders=("strategyqa", "strategy-qa"),
        ),
        Task(
            "math",
            "latex",
            {
                "train": ("train.jsonl", "hub:DigitalLearningGmbH/MATH-lighteval::train"),
                "test": ("math-500-test.jsonl", "test.jsonl", "hub:HuggingFaceH4/MATH-500::test"),
            },
            (Fields("problem", "solution", "solution"), Fields()),
            folders=("math", "math-500"),
            separator="\n\n",
        ),
        Task(
            "asdiv-aug",
            "number",
            {
                "train": ("aug-train.jsonl", "train.jsonl", "hub:xuyige/ASDiv-Aug::train"),
                "test": ("aug-dev.jsonl", "test.jsonl", "hub:xuyige/ASDiv-Aug::test"),
            },
        ),
        Task(
            "asdiv",
            "number",
            {"train": ("train.jsonl",), "dev": ("dev.jsonl",), "test": ("test.jsonl",)},
            missing="python data_loader.py --task asdiv --from ASDiv.xml --to data/asdiv makes it from the file of "
            "github.com/chaochun/nlu-asdiv-dataset",
        ),
        Task(
            "aqua",
            "choice",
            {
                "train": ("gsm_style_train.jsonl", "train.jsonl", "train.json", "hub:deepmind/aqua_rat:raw:train"),
                "dev": ("gsm_style_dev.jsonl", "dev.jsonl", "dev.json", "hub:deepmind/aqua_rat:raw:validation"),
                "test": ("gsm_style_test.jsonl", "test.jsonl", "test.json", "hub:deepmind/aqua_rat:raw:test"),
            },
            (Fields(steps="rationale", answer="correct"), Fields()),
            folders=("aqua", "AQuA-master"),
        ),
        Task(
            "du",
            "choice",
            {"test": ("test.jsonl", "date_understanding_gsm_style.json")},
            missing="BIG-bench's date understanding is for evaluation only, its file asks never to be trained on; "
            "python data_loader.py --task du --from task.json --to data/du makes test.jsonl",
        ),
        Task(
            "arithmetic",
            "number",
            {"train": ("train.jsonl",), "dev": ("dev.jsonl",), "test": ("test.jsonl",)},
            missing="python toy/build.py --data makes it",
        ),
    )
}


def get_task(name: str) -> Task:
    """A task of the table; InputError for another name."""
    if name not in TASKS:
        raise InputError(
            f"--task_name {name}: no such task; there are {', '.join(TASKS)}; a task of your own takes "
            "--answer_type and --train_file or --test_file"
        )
    return TASKS[name]


@dataclass(frozen=True)
class OwnTask:
    """The flags of a task of the user's own.

    files: by split, local paths or "hub:owner/name[:config[:split]]"; fields: a row's names of the fields of Fields.
    """

    files: dict[str, str]
    fields: dict[str, str]
    answer_type: str | None

    @property
    def says_anything(self) -> bool:
        """Whether one of the flags is given."""
        return bool(self.files or self.fields or self.answer_type)


def own_task(name: str, own: OwnTask) -> Task:
    """A task of the user's own. Raises InputError where it cannot be one."""
    if name in TASKS:
        raise InputError(
            f"--task_name {name}: a task of this project; --answer_type, files and fields are for one of your own, "
            "under another name"
        )
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--task_name {name}: letters, digits, '.', '_' and '-' only")
    if own.answer_type not in ANSWER_TYPES:
        raise InputError(f"--answer_type {own.answer_type}: one of {', '.join(ANSWER_TYPES)}")
    unknown = sorted(own.files.keys() - OWN_HUB_SPLITS.keys()) + sorted(own.fields.keys() - vars(Fields()).keys())
    if unknown:  # of a thoughts.json: the flags have no such names
        raise InputError(f"--task_name {name}: a task of your own has no {unknown[0]}")
    sources = {}
    for split, file in own.files.items():
        if file.startswith("hub:"):
            if not re.fullmatch(r"hub:[^:\s]+(:[^:\s]*){0,2}", file):
                raise InputError(f"--{split}_file {file}: hub:owner/name[:config[:split]]")
            parts = file.split(":")[1:]
            repository, config, hub_split = parts + [""] * (3 - len(parts))
            file = f"hub:{repository}:{config}:{hub_split or OWN_HUB_SPLITS[split]}"
        sources[split] = (file,)
    return Task(name, own.answer_type, sources, (Fields(**own.fields),))


# ---------------------------------------------------------------------------------------------------------------------
# Prompts

PROMPTS = {
    "number": {
        "problem": "Solve the problem step by step. Put the final answer in \\boxed{}.\n\nProblem: {question}",
        "thoughts": "\n\nHint: {thoughts}",
        "generator": "Read the problem and prepare hints for solving it.\n\nProblem: {question}",
    },
}
PROMPTS["latex"] = PROMPTS["number"]
PROMPTS["choice"] = PROMPTS["number"] | {
    "problem": "Answer the question step by step. Put the right option's letter in \\boxed{}.\n\nQuestion: {question}",
}
PROMPTS["boolean"] = PROMPTS["number"] | {
    "problem": "Answer the question step by step. Put yes or no in \\boxed{}.\n\nQuestion: {question}",
}
PLACEHOLDERS = {"problem": "{question}", "thoughts": "{thoughts}", "generator": "{question}"}
PLACEHOLDER = re.compile(r"(?:\\[A-Za-z]+|[\^_])(?:\{[^{}]*\})+|(\{\s*[A-Za-z_][^{}]*\})")  # \boxed{answer} is LaTeX


def read_prompts(path: str, prompts: dict[str, str]) -> dict[str, str]:
    """`prompts`, with those of --prompt_file (a JSON object, by the same names) instead.

    Raises InputError for a file that is no such object, and for a placeholder that is unknown, missing or there twice.
    """
    try:
        given = parse_json(Path(path).read_text(encoding="utf-8-sig"), f"--prompt_file {path}")
    except OSError as error:
        raise InputError(f"--prompt_file {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not UTF-8, or a null character in the path
        raise InputError(f"--prompt_file {path}: cannot be read ({error})") from None
    if not isinstance(given, dict) or not all(isinstance(prompt, str) for prompt in given.values()):
        raise InputError(f"--prompt_file {path}: not a JSON object of texts ({', '.join(PLACEHOLDERS)})")
    for name, prompt in given.items():
        if name not in PLACEHOLDERS:
            raise InputError(f"--prompt_file {path}: no such prompt {name!r}; there are {', '.join(PLACEHOLDERS)}")
        known = PLACEHOLDERS[name]
        found = [placeholder for placeholder in PLACEHOLDER.findall(prompt) if placeholder]
        unknown = [placeholder for placeholder in found if placeholder != known]
        if unknown:
            raise InputError(f"--prompt_file {path}: {name} has the unknown placeholder {unknown[0]}; it takes {known}")
        if not found.count(known) == prompt.count(known) == 1:
            raise InputError(f"--prompt_file {path}: {name} must have {known} once, as an argument of no command")
    return prompts | given


# ---------------------------------------------------------------------------------------------------------------------
# Splits


def load_split(task: Task, split: str, data_dir: str, skip_bad_rows: bool = False) -> Split:
    """Examples of one split of a task, from its files, else from the hub (`sample`: from this repository).

    Raises InputError for an unknown split, for data that is not found, and for a bad row (file:line and the reason),
    unless `skip_bad_rows` leaves such rows out and counts them.
    """
    if split not in SPLITS:
        raise InputError(f"--split {split}: no such split; there are {', '.join(SPLITS)}")
    if split == "sample" and task.name not in TASKS:
        raise InputError(f"--split sample: only this project's tasks have a sample, {task.name} has none")
    if split == "sample":
        path = ROOT / "data" / task.name / "sample.jsonl"
        return parse_rows(task, str(path), read_rows(str(path)), skip_bad_rows)
    if split in task.sources or split == "test":
        whole = _load_source(task, split, data_dir, skip_bad_rows)
        return _dev_share(whole, train_rows=True) if split == "train" and "dev" not in task.sources else whole
    return _dev_share(_load_source(task, "train", data_dir, skip_bad_rows), train_rows=False)


def _load_source(task: Task, split: str, data_dir: str, skip_bad_rows: bool) -> Split:
    source = find_source(task, split, data_dir)
    try:
        rows = read_rows(source)
    except InputError as error:
        if task.name not in TASKS:
            raise InputError(f"--{split}_file {error}") from None
        if not source.startswith("hub:"):
            raise
        folder, names = Path(data_dir) / task.name, " or ".join(task.sources[split][:-1])
        raise InputError(
            f"{folder}: no {names} there, and {error}; put {names} into {folder}, or point --data_dir to a folder that "
            f"has {task.name}/{task.sources[split][0]}"
        ) from None
    return parse_rows(task, source, rows, skip_bad_rows)


def _dev_share(whole: Split, train_rows: bool) -> Split:
    """The rows of train that are held out as dev, or with `train_rows` all others."""
    examples = whole.examples
    held_out = set(random.Random(DEV_SEED).sample(range(len(examples)), max(1, round(DEV_SHARE * len(examples)))))
    kept = [example for i, example in enumerate(examples) if (i in held_out) != train_rows]
    return dataclasses.replace(whole, examples=kept)


def worked_examples(task: Task, count: int, data_dir: str, skip_bad_rows: bool = False) -> list[WorkedExample]:
    """--num_fewshot: the first `count` rows of the task's train split as they stand in a prompt.

    Raises InputError where the task has no train rows, or fewer, or as load_split does.
    """
    if not count:
        return []
    try:
        split = load_split(task, "train", data_dir, skip_bad_rows)
    except InputError as error:
        raise InputError(f"--num_fewshot {count} takes rows of train: {error}") from None
    if len(split.examples) < count:
        raise InputError(f"--num_fewshot {count}: {split.source} has only {len(split.examples)} train rows")
    return [WorkedExample(row.question, target_text(row, task.separator)) for row in split.examples[:count]]


def without_worked(examples: list[Example], worked: Sequence[WorkedExample]) -> list[Example]:
    """The examples whose questions do not stand in the prompt with their answers."""
    known = {example.question for example in worked}
    return [example for example in examples if example.question not in known]


def where_missing(task: Task, split: str, data_dir: str) -> str | None:
    """Where a split's rows were looked for, if they are not here: neither a file nor, on the hub, within reach. None
    where they are, of the user's own task too."""
    if task.name not in TASKS:
        return None
    try:
        source = find_source(task, split if split in task.sources else "train", data_dir)
    except InputError as error:
        return str(error).partition(":")[0]
    if not source.startswith("hub:"):
        return None
    try:
        load_split(task, split, data_dir)
    except InputError as error:
        return str(error).partition(":")[0]
    return None


def find_source(task: Task, split: str, data_dir: str) -> str:
    """The path or "hub:..." that a split is read from. Raises InputError where it has none."""
    own = task.name not in TASKS
    if split not in task.sources:
        reason = f"--{split}_file names its file" if own else task.missing
        raise InputError(f"--task_name {task.name}: no {split} split ({reason})")
    sources = task.sources[split]
    if own:
        return sources[0]
    names = [name for name in sources if not name.startswith("hub:")]
    folders = [Path(data_dir) / folder for folder in task.folders or (task.name,)]
    for path in (folder / name for folder in folders for name in names):
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # else another file, or the hub, would stand in for it
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        return str(path)
    if len(names) < len(sources):
        return sources[-1]
    raise InputError(f"{folders[0]}: no {' or '.join(names)} there ({task.missing}); --data_dir looks elsewhere")


# ---------------------------------------------------------------------------------------------------------------------
# What there is


def task_table(data_dir: str) -> str:
    """--list_tasks: a line for each split of each task, with where its rows are and how many. What is on the hub is
    named and not looked up."""
    rows: list[tuple[str, ...]] = [("task", "answers", "split", "rows", "where")]
    for task in TASKS.values():
        titles = (task.name, task.answer_type)
        for split in ("train", "dev", "test"):
            if split in task.sources:
                rows.append((*titles, split, *_rows_and_place(task, split, data_dir)))
            elif split == "dev" and "train" in task.sources:
                rows.append((*titles, split, "", f"{DEV_SHARE:.0%} of train, always the same ones"))
            else:
                continue
            titles = ("", "")
        if task.missing and any(cells[4].startswith("none") for cells in rows[-len(task.sources) :]):
            rows.append(("", "", "", "", task.missing))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    more = "--split sample: 20 rows of each, of this project's own. A task of your own: --answer_type and --train_file"
    return "\n".join([*lines, f"{more} or --test_file (docs/tasks.md)"])


def _rows_and_place(task: Task, split: str, data_dir: str) -> tuple[str, str]:
    """How many rows a split's source has ("" where that is not known), and where it is, or why there is none."""
    try:
        source = find_source(task, split, data_dir)
        if source.startswith("hub:"):
            return "", f"{source} (no file in {data_dir}/{task.name})"
        return f"{sum(1 for _ in read_rows(source)):,}", source
    except InputError as error:
        return "", f"none: {str(error).partition(' (')[0]}"


if __name__ == "__main__":
    from lta_thinker.data.convert import main

    main(sys.argv[1:], TASKS)
