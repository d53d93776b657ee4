"""Tasks: where the rows of a task are, row -> Example, and the prompts of each answer type.

A new task is one entry of TASKS.
"""

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from answers import extract_answer

ROOT = Path(__file__).resolve().parent
DEV_SHARE, DEV_SEED = 0.05, 41  # the dev rows of a task never depend on a run's --seed
DATE_STRING = "26 Jul 2024"  # for templates that print today's date

PROMPTS = {
    "number": {
        "problem": "Solve the problem step by step. Put the final answer in \\boxed{}.\n\nProblem: {question}",
        "thoughts": "\n\nHint: {thoughts}",
        "generator": "Read the problem and prepare hints for solving it.\n\nProblem: {question}",
    },
}


class InputError(Exception):
    """Something that the user gave is wrong: the message is the one line that says what, where and what to do."""


@dataclass(frozen=True)
class Example:
    """One question with its written solution; `index` counts its source's rows, `answer` is the canonical gold.

    `options` of a choice question, without letters; they stand in `question` too.
    """

    index: int
    question: str
    steps: tuple[str, ...]
    answer: str
    options: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------------------------
# Tasks: where rows are, row -> Example


@dataclass(frozen=True)
class Task:
    """One task: kind of answer, accepted file names of each split (the first found is read), hub source, row parser.

    A split without file names is taken from the others: dev is a seeded 5 % of train.
    """

    answer_type: str
    files: dict[str, tuple[str, ...]]
    hub: tuple[str, str] | None
    parse: Callable[[dict], tuple[str, list[str], str]]


def parse_gsm8k(row: dict) -> tuple[str, list[str], str]:
    """Row of the published GSM8K layout -> (question, steps, gold answer); ValueError says what is wrong with it.

    `<<16-3=13>>` and ` ** ` (socratic sub-question ** step) are mark-up and leave the text.
    """
    for field in ("question", "answer"):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise ValueError(f'field "{field}" is missing or not a text')
    solution, mark, final = row["answer"].rpartition("####")
    if not mark:
        raise ValueError('no final answer: "answer" has no line "#### <number>"')
    answer = extract_answer(final, "number")
    if answer is None:
        raise ValueError(f'no final answer: "{final.strip()}" after #### is not a number')
    steps = [re.sub(r"<<.*?>>", "", line).replace(" ** ", " ").strip() for line in solution.split("\n")]
    return row["question"].strip(), [step for step in steps if step], answer


TASKS = {
    "gsm8k": Task(
        answer_type="number",
        files={
            "train": ("train_socratic.jsonl", "train.jsonl"),
            "test": ("test_socratic.jsonl", "test.jsonl"),
        },
        hub=("openai/gsm8k", "socratic"),
        parse=parse_gsm8k,
    ),
    "arithmetic": Task(
        answer_type="number",
        files={"train": ("train.jsonl",), "dev": ("dev.jsonl",), "test": ("test.jsonl",)},
        hub=None,
        parse=parse_gsm8k,
    ),
}
SPLITS = ("train", "dev", "test", "sample")


@dataclass(frozen=True)
class Split:
    """The examples of one split, and what a report says of them: the source and how many rows it had."""

    examples: list[Example]
    source: str
    read: int
    bad: int


def get_task(name: str) -> Task:
    if name not in TASKS:
        raise InputError(f"--task_name {name}: no such task; there are {', '.join(TASKS)}")
    return TASKS[name]


def load_split(task_name: str, split: str, data_dir: str, skip_bad_rows: bool = False) -> Split:
    """Examples of one split of a task, from `data_dir/<task>/`, else from the hub (`sample`: from this repository).

    Raises InputError for an unknown task or split, for data that is nowhere to be found, and for a bad row
    (file:line and the reason), unless `skip_bad_rows` leaves such rows out and counts them.
    """
    task = get_task(task_name)
    if split not in SPLITS:
        raise InputError(f"--split {split}: no such split; there are {', '.join(SPLITS)}")
    if split == "sample":
        path = ROOT / "data" / task_name / "sample.jsonl"
        return _parse_rows(task, _read_jsonl(path), str(path), skip_bad_rows)
    if split in task.files:
        return _load_source(task_name, split, data_dir, skip_bad_rows, train_rows=split == "train")
    return _load_source(task_name, "train", data_dir, skip_bad_rows, train_rows=False)


def _load_source(task_name: str, split: str, data_dir: str, skip_bad_rows: bool, train_rows: bool) -> Split:
    task = TASKS[task_name]
    folder = Path(data_dir) / task_name
    path = next((folder / name for name in task.files[split] if (folder / name).is_file()), None)
    if path is not None:
        whole = _parse_rows(task, _read_jsonl(path), str(path), skip_bad_rows)
    else:
        whole = _parse_rows(task, _read_hub(task_name, split, folder), f"hub:{task.hub[0]}", skip_bad_rows)
    if split != "train" or "dev" in task.files:
        return whole
    examples = whole.examples
    held_out = set(random.Random(DEV_SEED).sample(range(len(examples)), max(1, round(DEV_SHARE * len(examples)))))
    kept = [example for i, example in enumerate(examples) if (i in held_out) != train_rows]
    return Split(kept, whole.source, whole.read, whole.bad)


def _read_jsonl(path: Path) -> Iterable[tuple[str, bytes]]:
    try:
        with open(path, "rb") as file:  # bytes: a line that is not UTF-8 is a bad row, not the end of the file
            yield from ((f"{path}:{number}", line) for number, line in enumerate(file, 1) if line.strip())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None


def _read_hub(task_name: str, split: str, folder: Path) -> Iterable[tuple[str, dict]]:
    task = TASKS[task_name]
    names = " or ".join(task.files[split])
    if task.hub is None:
        raise InputError(f"{folder}: no {names} there; python toy/build.py --data makes it, --data_dir looks elsewhere")
    try:
        import datasets  # imported here: machines that only run local files need not have it

        rows = datasets.load_dataset(*task.hub, split=split)
    except Exception as error:  # the hub's clients raise errors of several unrelated libraries
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"{folder}: no {names} there, and the hub's {task.hub[0]} ({task.hub[1]}) cannot be loaded ({reason}); "
            f"put {names} into {folder}, or point --data_dir to a folder that has {task_name}/{task.files[split][0]}"
        ) from None
    return ((f"hub:{task.hub[0]}:{split}:{number}", row) for number, row in enumerate(rows, 1))


def _parse_rows(task: Task, rows: Iterable[tuple[str, bytes | dict]], source: str, skip_bad_rows: bool) -> Split:
    examples, read, bad = [], 0, 0
    for place, row in rows:
        read += 1
        try:
            if isinstance(row, bytes):
                row = json.loads(row)
            if not isinstance(row, dict):
                raise ValueError("not a JSON object")
            question, steps, answer = task.parse(row)
        except ValueError as error:
            broken = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError))
            reason = f"not JSON ({error})" if broken else str(error)
            if not skip_bad_rows:
                raise InputError(f"{place}: {reason}; mend the row, or leave such rows out: --skip_bad_rows") from None
            bad += 1
            continue
        examples.append(Example(read - 1, question, tuple(steps), answer))
    if not examples:
        raise InputError(f"{source}: no usable row")
    return Split(examples, source, read, bad)
