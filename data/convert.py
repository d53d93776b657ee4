"""Official raw files of the tasks -> files that data_loader.py reads: python data_loader.py --task T --from P --to D

A row that cannot be converted is printed with its place and the reason. Before a row is written, the task's own parser
reads it.
"""

import argparse
import hashlib
import json
import random
import re
import sys
import xml.etree.ElementTree
import xml.parsers.expat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lta_thinker.common import InputError, read_json, write_text
from lta_thinker.rows.examples import LETTERS, Row, Task, parse_row, read_row, read_rows

OPTIONS_SEED = 41  # for the order of du's options
NUMBER = re.compile(r"-?\(?\d[\d,]*(?:\.\d+)?(?:/\d+)?\)?")


@dataclass(frozen=True)
class Raw:
    """Official raw files of a task. files: {raw name: names of its results}; convert: (raw row, its number from 1) ->
    row; read: file -> (place, raw row or bytes of JSON); split: raw row -> name of the result that it goes into, for
    raw files with more than one."""

    files: dict[str, tuple[str, ...]]
    convert: Callable[[dict, int], dict]
    read: Callable[[Path], Iterable[tuple[str, Row]]] = lambda path: read_rows(str(path))
    split: Callable[[dict], str] | None = None


def convert_strategyqa(row: dict, number: int) -> dict:
    """AI2's rows, facts as a list, or the published ones, facts as a text -> the published ones."""
    facts = row.get("facts")
    facts = "\n".join(facts) if isinstance(facts, list) else facts
    return {"question": row.get("question"), "answer": row.get("answer"), "facts": facts}


def convert_du(row: dict, number: int) -> dict:
    """BIG-bench row -> question, options in an order seeded by the row's number, letter of the right one.

    In the raw file the right one nearly always comes first: "always A" would be right on 98.6 % of the rows.
    Raises ValueError where not exactly one option is right.
    """
    scores = row["target_scores"]
    options = list(scores)
    random.Random(f"{OPTIONS_SEED} {number}").shuffle(options)
    right = [letter for letter, option in zip(LETTERS, options, strict=False) if scores[option] == 1]
    if len(right) != 1:
        raise ValueError(f"{len(right)} options are right")
    return {"question": row["input"], "options": options, "answer": right[0]}


def read_du(path: Path) -> Iterable[tuple[str, dict]]:
    """(place, row) of BIG-bench's task.json; InputError where it is none."""
    try:
        rows = list(read_json(path)["examples"])
    except (LookupError, TypeError) as error:
        raise InputError(f"{path}: not BIG-bench's task.json ({error!r})") from None
    return ((f"{path}: example {number}", row) for number, row in enumerate(rows, 1))


def convert_asdiv(row: dict, number: int) -> dict:
    """<Problem> -> GSM-style row, its formula as the one step. ValueError where the answer is not one number."""
    answer = re.sub(r"\s*\([^()]*[A-Za-z][^()]*\)\s*$", "", row["Answer"]).strip()  # "9 (apples)"
    if not NUMBER.fullmatch(answer):
        raise ValueError(f'the answer "{row["Answer"]}" is not one number')
    answer = answer.replace("(", "").replace(")", "")
    return {
        "question": f"{row['Body'].strip()} {row['Question'].strip()}",
        "answer": f"{row['Formula']}\n#### {answer}",
    }


def split_asdiv(row: dict) -> str:
    """A fixed split, 70 % train, 10 % dev and 20 % test, by a hash of the problem's body: questions about one story
    stay together."""
    percent = int.from_bytes(hashlib.sha256(row["Body"].strip().encode()).digest()[:8]) % 100
    return "train.jsonl" if percent < 70 else "dev.jsonl" if percent < 80 else "test.jsonl"


def read_asdiv(path: Path) -> Iterable[tuple[str, dict]]:
    """(file:line, row) of ASDiv.xml; InputError where it is no XML."""
    content, lines = path.read_bytes(), []
    parser = xml.parsers.expat.ParserCreate()

    def note_line(tag: str, attributes: dict) -> None:
        if tag == "Problem":
            lines.append(parser.CurrentLineNumber)

    parser.StartElementHandler = note_line
    try:
        parser.Parse(content, True)
    except xml.parsers.expat.ExpatError as error:
        raise InputError(f"{path}: not XML ({error})") from None
    problems = xml.etree.ElementTree.fromstring(content).iter("Problem")
    rows = [{child.tag: child.text or "" for child in problem} for problem in problems]
    return ((f"{path}:{line}", row) for line, row in zip(lines, rows, strict=True))


def unchanged(row: dict, number: int) -> dict:
    """The row itself: the raw file has the form that is read here."""
    return row


RAW = {
    "gsm8k": Raw(
        {
            f"{split}{kind}.jsonl": (f"{split}{kind}.jsonl",)
            for split in ("train", "test")
            for kind in ("_socratic", "")
        },
        unchanged,
    ),
    "strategyqa": Raw(
        {
            "strategyqa_train.json": ("strategyqa_train.jsonl",),
            "strategyqa_train.jsonl": ("strategyqa_train.jsonl",),
            "strategyqa_dev.jsonl": ("strategyqa_dev.jsonl",),
        },
        convert_strategyqa,
    ),
    "aqua": Raw({f"{split}.json": (f"{split}.jsonl",) for split in ("train", "dev", "test")}, unchanged),
    "du": Raw({"task.json": ("test.jsonl",)}, convert_du, read_du),
    "asdiv": Raw({"ASDiv.xml": ("train.jsonl", "dev.jsonl", "test.jsonl")}, convert_asdiv, read_asdiv, split_asdiv),
}


def convert_file(task: Task, source: Path, targets: list[Path]) -> tuple[list[int], list[str]]:
    """One raw file -> its files for data_loader. Returns the number of rows written into each, and for each other row a
    line with its place and the reason.

    Raises InputError where the file cannot be read, and where no row can be used for one of the targets.
    """
    raw, bad = RAW[task.name], []
    rows: dict[str, list[str]] = {target.name: [] for target in targets}
    for number, (place, row) in enumerate(raw.read(source), 1):
        try:
            given = read_row(row)
            row = raw.convert(given, number)
            parse_row(task, row)
            name = raw.split(given) if raw.split else targets[0].name
        except ValueError as error:
            bad.append(f"{place}: {error}")
            continue
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            bad.append(f"{place}: not such a row ({error!r})")
            continue
        rows[name].append(json.dumps(row, ensure_ascii=False))
    for name, written in rows.items():
        if not written:
            into = f" into {name}" if len(rows) > 1 else ""
            raise InputError(f"{source}: no row could be converted{into} ({bad[0] if bad else 'it has too few rows'})")
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, "\n".join(rows[target.name]) + "\n")
    return [len(rows[target.name]) for target in targets], bad


def convert(tasks: dict[str, Task], task_name: str, source: Path, folder: Path) -> None:
    """Convert a raw file, or all the raw files of a folder, and print the counts and the rows left out.

    Raises InputError for a task without raw files, for other files, and where a result is there already.
    """
    if task_name not in RAW:
        raise InputError(f"--task {task_name}: there are raw files to convert of {', '.join(RAW)}")
    files = RAW[task_name].files
    paths = [source / name for name in files if (source / name).is_file()] if source.is_dir() else [source]
    if not paths or paths[0].name not in files or not paths[0].is_file():
        raise InputError(f"--from {source}: the file or its folder must have {' or '.join(files)}")
    targets = [[folder / name for name in files[path.name]] for path in paths]
    made = [target for of_path in targets for target in of_path]
    if len(set(made)) < len(made):
        raise InputError(f"--from {source}: two files there make the same one of {folder}; name one of them")
    for target in made:
        if target.exists():
            raise InputError(f"{target}: is there already; delete it, or give another --to")
    for path, of_path in zip(paths, targets, strict=True):
        counts, bad = convert_file(tasks[task_name], path, of_path)
        for line in bad:
            print(f"left out: {line}")
        total = sum(counts) + len(bad)
        for target, written in zip(of_path, counts, strict=True):
            print(f"{target}: {written} of {total} rows of {path}")
        if bad and len(counts) > 1:
            print(f"{len(bad)} of {total} rows left out")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; python data_loader.py --task aqua --from PATH --to data/aqua")


def main(argv: list[str], tasks: dict[str, Task]) -> None:
    """The command line of data_loader.py; `tasks`: its TASKS."""
    parser = _Parser(prog="data_loader.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, help=f"one of {', '.join(RAW)}")
    parser.add_argument("--from", required=True, dest="source", type=Path, help="an official raw file, or its folder")
    parser.add_argument("--to", required=True, type=Path, help="folder for the result, for example data/aqua")
    try:
        args = parser.parse_args(argv)
        convert(tasks, args.task, args.source, args.to)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
