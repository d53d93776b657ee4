"""Rows of a file or of the hub -> Examples.

    row (jsonl, json, csv, parquet, hub) -> question, steps, gold answer, options -> Example

A row that cannot be read is an error with its place (file:line) and the reason.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from lta_thinker.answers import extract_answer
from lta_thinker.answers.number import NUMBER, PLAIN_SPELLINGS
from lta_thinker.common import InputError

LETTERS = "ABCDEFGHIJ"  # of options


SKEWED = 0.8  # share of one letter among the golds of a choice task that is worth a warning


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


@dataclass(frozen=True)
class Fields:
    """Names of a row's fields. Without `steps` they are in `answer`, before "####": the published GSM-style layout."""

    question: str = "question"
    steps: str | None = None
    answer: str = "answer"
    options: str = "options"


@dataclass(frozen=True)
class Task:
    """One task. `sources` of a split: file names in `folders` of --data_dir, at last perhaps the hub's
    "hub:owner/name:config:split"; the first found is read. Without `dev` it is a seeded 5 % of train.

    A row is read by the first of `fields` whose answer it has. `separator` stands between written steps.
    """

    name: str
    answer_type: str
    sources: dict[str, tuple[str, ...]]
    fields: tuple[Fields, ...] = (Fields(),)
    folders: tuple[str, ...] = ()
    separator: str = "\n"
    missing: str = ""  # what to do, or why, where a split is nowhere


@dataclass(frozen=True)
class Split:
    """The examples of one split, and what a report says of them: the source, how many rows it had, how many were bad,
    and a warning ("" for none)."""

    examples: list[Example]
    source: str
    read: int
    bad: int
    warning: str = ""


def read_rows(source: str) -> Iterable[tuple[str, bytes | dict]]:
    """(place, row) of a source: jsonl (lines, unparsed), json (a list, or lines), csv, parquet, or the hub.

    Raises InputError where it cannot be read.
    """
    path, kind = Path(source), Path(source).suffix.lower()
    if source.startswith("hub:"):
        name, config, split = source.split(":")[1:]
        arguments, kwargs = (name, config or None), {"split": split}
    elif not path.is_file():
        raise InputError(f"{path}: no such file")
    elif kind in (".jsonl", ".json"):
        return _read_json_rows(path)
    elif kind == ".csv":
        return _read_csv_rows(path)
    elif kind == ".parquet":
        arguments, kwargs = ("parquet",), {"data_files": str(path), "split": "train"}
    else:
        raise InputError(f"{path}: rows are read from .jsonl, .json, .csv and .parquet files")
    try:
        import datasets  # imported here: machines that only read JSON files need not have it

        rows = datasets.load_dataset(*arguments, **kwargs)
    except Exception as error:  # the hub's clients raise errors of several unrelated libraries
        reason = str(error.__cause__ or error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{source}: cannot be loaded ({reason})") from None
    return ((f"{source}: row {number}", row) for number, row in enumerate(rows, 1))


def _read_json_rows(path: Path) -> Iterable[tuple[str, bytes | dict]]:
    # bytes: a line that is not UTF-8 is a bad row, not the end of the file
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not content.lstrip().startswith(b"["):
        return ((f"{path}:{number}", line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip())
    try:
        return ((f"{path}: row {number}", row) for number, row in enumerate(json.loads(content), 1))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON list ({error})") from None


def _read_csv_rows(path: Path) -> Iterable[tuple[str, dict]]:
    """All cells as they are written: `datasets` makes a number of "007" and nothing of "NA"."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                yield f"{path}:{reader.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}:{reader.line_num}: not csv ({error})") from None


def parse_rows(task: Task, source: str, rows: Iterable[tuple[str, bytes | dict]], skip_bad_rows: bool) -> Split:
    examples, read, bad = [], 0, 0
    for place, row in rows:
        read += 1
        try:
            parsed = parse_row(task, row)
        except ValueError as error:
            if not skip_bad_rows:
                raise InputError(f"{place}: {error}; mend the row, or leave such rows out: --skip_bad_rows") from None
            bad += 1
            continue
        examples.append(Example(read - 1, *parsed))
    if not examples:
        raise InputError(f"{source}: no usable row")
    return Split(examples, source, read, bad, _skew(task, source, examples))


def _skew(task: Task, source: str, examples: list[Example]) -> str:
    if task.answer_type != "choice":
        return ""
    [(letter, count)] = Counter(example.answer for example in examples).most_common(1)
    if len(examples) < 20 or count < SKEWED * len(examples):
        return ""
    return f"{source}: {count} of {len(examples)} golds are option {letter}: always {letter} would look good here"


def parse_row(task: Task, row: bytes | dict) -> tuple[str, tuple[str, ...], str, tuple[str, ...]]:
    """A row -> (question with its options, steps, gold answer, options); ValueError says what is wrong with it."""
    if isinstance(row, bytes):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    fields = next((fields for fields in task.fields if fields.answer in row), task.fields[-1])
    question, final = _text(row, fields.question).strip(), _text(row, fields.answer)
    labels, options = read_options(row.get(fields.options)) if task.answer_type == "choice" else ((), ())
    if fields.steps is None:
        steps, final = _split_solution(final, task)
    else:
        steps, final = _steps(row, fields.steps, task.separator), final.rpartition("####")[2]
    if final.strip() in labels:
        final = LETTERS[labels.index(final.strip())]
    question = with_options(question, options)
    if not is_text("".join([question, *steps, final])):
        raise ValueError("half a character (a lone surrogate)")
    return question, tuple(steps), gold_answer(final, task.answer_type, options), options


def with_options(question: str, options: tuple[str, ...]) -> str:
    """A choice question as it is asked, its options lettered behind it."""
    if not options:
        return question
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, "", "Options:", *lines])


def is_text(text: str) -> bool:
    """Whether a text has no half of a character (a lone surrogate)."""
    return not re.search("[\ud800-\udfff]", text)


def _text(row: dict, field: str) -> str:
    value = row.get(field)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, int | float) and value == value:  # not nan: an empty cell of a table
        value = format(Decimal(repr(value)), "f")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'field "{field}" is missing or not a text')
    return value


def _steps(row: dict, field: str, separator: str) -> list[str]:
    """Written steps; none where the row does not have the field: evaluation needs none."""
    value = row.get(field) or ""
    if isinstance(value, str):
        value = re.split(r"\n\s*\n" if separator == "\n\n" else "\n", value)
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise ValueError(f'field "{field}" is neither a text nor a list of texts')
    return [step.strip() for step in value if step.strip()]


def _split_solution(answer: str, task: Task) -> tuple[list[str], str]:
    """GSM-style "step\\nstep\\n#### answer" -> (steps, answer); the answer alone is one too.

    `<<16-3=13>>` and ` ** ` (socratic sub-question ** step) are mark-up; a line of mark-up alone keeps its inside.
    """
    solution, mark, final = answer.rpartition("####")
    if not mark and "\n" in answer.strip():
        raise ValueError(f'no final answer: no line "#### <{task.answer_type}>"')
    if not final.strip():
        raise ValueError("no final answer: nothing after ####")
    steps = _steps({"steps": solution}, "steps", task.separator)
    if task.answer_type == "number":
        bare = [re.fullmatch(r"<<(.*)>>", step) for step in steps]
        steps = [
            alone[1].strip() if alone else re.sub(r"\s\*\*(?:\s|$)", " ", re.sub(r"<<.*?>>", "", step)).strip()
            for step, alone in zip(steps, bare, strict=True)
        ]
    return [step for step in steps if step], final


def read_options(value) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(labels that the row itself gives, texts without letters) of the options; none where the row has no such field.

    A list of texts, {"A": text, ...}, or {"label": [...], "text": [...]} as several hub tasks have it.
    ValueError says what is wrong with them.
    """
    labels = ()
    if isinstance(value, str) and value.lstrip().startswith("["):  # a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the options are not a JSON list ({error})") from None
    if isinstance(value, dict) and {"label", "text"} <= value.keys():
        labels, value = value["label"], value["text"]
    elif isinstance(value, dict):
        labels, value = list(value), list(value.values())
    if value is None or value == "":
        return (), ()
    if not isinstance(value, list) or not all(isinstance(option, str | int | float) for option in value):
        raise ValueError("the options are not a list of texts")
    if labels and (not isinstance(labels, list) or len(labels) != len(value)):
        raise ValueError("the options' labels are not a list as long as their texts")
    if not 2 <= len(value) <= len(LETTERS):
        raise ValueError(f"{len(value)} options: from 2 to {len(LETTERS)} are supported")
    texts = [str(option).strip() for option in value]
    lettered = [
        re.match(rf"(?:\(?{letter}\s*[).:]\s*)+", text, re.I) for letter, text in zip(LETTERS, texts, strict=False)
    ]
    if all(lettered):
        texts = [text[match.end() :] for text, match in zip(texts, lettered, strict=True)]
    if not all(texts):
        raise ValueError("an option is empty")
    return tuple(map(str, labels or ())), tuple(texts)


def gold_answer(text: str, answer_type: str, options: tuple[str, ...] = ()) -> str:
    """The canonical gold answer that a row's answer says; ValueError where it says none."""
    if answer_type == "boolean":
        text = {"0": "no", "1": "yes"}.get(text.strip(), text)  # as tables say it
    if answer_type == "latex":  # MATH has some of each
        text = re.sub(r"\\boxed\s*([^\s{])", r"\\boxed{\1}", text.replace("\\fbox", "\\boxed"))
    boxed = text if "\\boxed" in text else f"\\boxed{{{text.strip()}}}"
    if answer_type == "number" and boxed is not text:
        plain = text
        for pattern, spelling in PLAIN_SPELLINGS:
            plain = pattern.sub(spelling, plain)
        if len(NUMBER.findall(plain)) > 1:
            raise ValueError(f'no final answer: "{_last_line(text)}" is more than one number')
    answer = extract_answer(boxed, answer_type, options)
    if answer is None:
        raise ValueError(f'no final answer: "{_last_line(text)}" is not a {answer_type} answer')
    return answer


def _last_line(text: str) -> str:
    return text.strip().split("\n")[-1][:60]
