"""Rows of a file or of the hub -> Examples.

    row (jsonl, json, csv, parquet, hub) -> question, steps, gold answer, options -> Example

A row that cannot be read is an error with its place (file:line) and the reason; --skip_bad_rows leaves it out. What
cannot be read row by row (a file that is unreadable, a JSON list or csv that is broken) is an error in any case.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from lta_thinker.answers import extract_answer
from lta_thinker.answers.number import NUMBER, plain
from lta_thinker.common import InputError, first_line, parse_json

LETTERS = "ABCDEFGHIJ"  # of options
SKEWED = 0.8  # a warning from this share of one letter among the gold answers of a choice task


@dataclass(frozen=True)
class Example:
    """One question with its written solution. index: of its row in the source, from 0; answer: the canonical gold
    answer; options: of a choice question, without letters (`question` has them too); reference: what `answer` was made
    of, in the row's words."""

    index: int
    question: str
    steps: tuple[str, ...]
    answer: str
    options: tuple[str, ...] = ()
    reference: str = ""


@dataclass(frozen=True)
class Fields:
    """Names of a row's fields. Where `steps` is None, the steps are in `answer`, before "####", as in GSM8K."""

    question: str = "question"
    steps: str | None = None
    answer: str = "answer"
    options: str = "options"


@dataclass(frozen=True)
class Task:
    """One task.

    sources: by split, names of files in `folders` of --data_dir; the last may be "hub:owner/name:config:split". The
    first that is found is read. Without `dev` the dev split is a seeded 5 % of train.
    fields: a row is read by the first whose answer it has. separator: stands between written steps.
    missing: what to do, or why, where a split has no file.
    """

    name: str
    answer_type: str
    sources: dict[str, tuple[str, ...]]
    fields: tuple[Fields, ...] = (Fields(),)
    folders: tuple[str, ...] = ()
    separator: str = "\n"
    missing: str = ""


@dataclass(frozen=True)
class Split:
    """The examples of one split, and what a report says of them: the source, the number of rows that were read and of
    bad ones among them, and a warning ("" for none)."""

    examples: list[Example]
    source: str
    read: int
    bad: int
    warning: str = ""


Row = bytes | dict | ValueError  # unparsed JSON, a row, or the reason why there is none


def read_rows(source: str) -> Iterable[tuple[str, Row]]:
    """(place, row) of a source: jsonl (lines, unparsed), json (a list, or lines), csv, parquet, or the hub.

    Raises InputError where it cannot be read.
    """
    path, kind = Path(source), Path(source).suffix.lower()
    arguments: dict[str, Any]
    if source.startswith("hub:"):
        name, config, split = source.split(":")[1:]
        arguments = {"path": name, "name": config or None, "split": split}
    elif kind in (".jsonl", ".json", ".csv"):
        content = _content(path)
        return _read_csv_rows(path, content) if kind == ".csv" else _read_json_rows(path, content)
    elif kind == ".parquet":
        _content(path, 1)
        arguments = {"path": "parquet", "data_files": str(path), "split": "train"}
    else:
        raise InputError(f"{path}: rows are read from .jsonl, .json, .csv and .parquet files")
    try:
        import datasets  # imported here: it takes a while, and files of JSON and csv do not need it

        rows = datasets.load_dataset(**arguments)
    except Exception as error:  # the hub's clients raise errors of several unrelated libraries
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise InputError(f"{source}: cannot be loaded ({first_line(cause)})") from None
    return ((f"{source}: row {number}", row) for number, row in enumerate(rows, 1))


def _content(path: Path, size: int = -1) -> bytes:
    """A file's first `size` bytes, or all, without UTF-8's byte order mark; InputError where it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file")
        with open(path, "rb") as file:
            content = file.read(size)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a null character in the name
        raise InputError(f"{str(path)!r}: cannot be read ({error})") from None
    return content.removeprefix(b"\xef\xbb\xbf")


def _read_json_rows(path: Path, content: bytes) -> Iterable[tuple[str, bytes]]:
    # bytes: a line that is not UTF-8 is a bad row, not the end of the file
    if not content.lstrip().startswith(b"["):
        return ((f"{path}:{number}", line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip())
    try:
        rows = list(_split_list(content.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON list ({error})") from None
    return ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


def _split_list(text: str) -> Iterator[bytes]:
    """The elements of a JSON list, unparsed: a bad one is a bad row. ValueError where it is no list."""
    space, decoder = re.compile(r"[ \t\r\n]*"), json.JSONDecoder()

    def skip_space(at: int) -> int:
        match = space.match(text, at)
        assert match  # it matches everywhere
        return match.end()

    at = skip_space(skip_space(0) + 1)
    more = not text.startswith("]", at)
    while more:
        _, end = decoder.raw_decode(text, at)
        yield text[at:end].encode()
        at = skip_space(end)
        more = text.startswith(",", at)
        if more:
            at = skip_space(at + 1)
        elif not text.startswith("]", at):
            raise json.JSONDecodeError("no comma after an element", text, at)
    if skip_space(at + 1) < len(text):
        raise json.JSONDecodeError("something after the list", text, at + 1)


def _read_csv_rows(path: Path, content: bytes) -> Iterator[tuple[str, dict | ValueError]]:
    """All cells as texts: `datasets` would read "007" as the number 7, and "NA" as a missing value."""
    csv.field_size_limit(max(len(content), csv.field_size_limit()))
    # bytes that are no UTF-8 become lone surrogates, so that only their rows are bad
    reader = csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline=""), strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}:{line}: not csv ({error})") from None
        if cells is None:
            return
        if not cells:  # an empty line
            continue
        if not header:
            header = cells
            twice = [name for name, count in Counter(header).items() if count > 1 and name]
            if twice:
                raise InputError(f"{path}:{line}: the header has {twice[0]!r:.60} twice")
        elif len(cells) != len(header):
            yield f"{path}:{line}", ValueError(f"{len(cells)} cells, but the header has {len(header)}")
        elif not is_text("".join(cells)):
            yield f"{path}:{line}", ValueError("not UTF-8 text")
        else:
            yield f"{path}:{line}", dict(zip(header, cells, strict=True))


def read_row(row: Row) -> dict:
    """A row as an object. Raises ValueError with the reason where it is none."""
    if isinstance(row, ValueError):
        raise row
    if isinstance(row, bytes):
        try:
            row = parse_json(row.decode("utf-8"), "")
        except UnicodeDecodeError as error:
            raise ValueError(f"not JSON ({error})") from None
        except InputError as error:
            raise ValueError(str(error).removeprefix(": ")) from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    return row


def parse_rows(task: Task, source: str, rows: Iterable[tuple[str, Row]], skip_bad_rows: bool) -> Split:
    """(place, row) of read_rows -> the examples of a split.

    Raises InputError with the place and the reason for a bad row, unless `skip_bad_rows` counts and leaves out such
    rows, and where no row can be used.
    """
    examples, read, bad = [], 0, 0
    for place, row in rows:
        read += 1
        try:
            parsed = parse_whole_row(task, row)
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
    """A warning where nearly all gold answers of a choice task are one letter, else ""."""
    if task.answer_type != "choice":
        return ""
    [(letter, count)] = Counter(example.answer for example in examples).most_common(1)
    if len(examples) < 20 or count < SKEWED * len(examples):
        return ""
    return f"{source}: {count} of {len(examples)} golds are option {letter}: always {letter} would look good here"


def parse_row(task: Task, row: Row) -> tuple[str, tuple[str, ...], str, tuple[str, ...]]:
    """A row -> (question with its options, steps, gold answer, options). Raises ValueError with the reason for a bad
    row."""
    return parse_whole_row(task, row)[:4]


def parse_whole_row(task: Task, row: Row) -> tuple[str, tuple[str, ...], str, tuple[str, ...], str]:
    """As parse_row, and last what the gold answer was made of, in the row's words."""
    row = read_row(row)
    fields = next((fields for fields in task.fields if fields.answer in row), task.fields[-1])
    question, final = row.get(fields.question), _answer(row, fields.answer)
    if not isinstance(question, str) or not is_visible(question):
        raise ValueError(f'field "{fields.question}" is missing or not a text')
    labels, options = read_options(row.get(fields.options)) if task.answer_type == "choice" else ((), ())
    if fields.steps is None:
        steps, final = _split_solution(final, task)
    else:
        steps, final = _steps(row.get(fields.steps), fields.steps, task.separator), final.rpartition("####")[2]
    if final.strip() in labels:
        final = LETTERS[labels.index(final.strip())]
    question = with_options(question.strip(), options)
    whole = "".join([question, *steps, final])
    if not is_text(whole):
        raise ValueError("half a character (a lone surrogate)")
    if "\0" in whole:
        raise ValueError("a null character")
    return question, tuple(steps), gold_answer(final, task.answer_type, options), options, final


def with_options(question: str, options: tuple[str, ...]) -> str:
    """A choice question with its lettered options behind it."""
    if not options:
        return question
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, "", "Options:", *lines])


def is_text(text: str) -> bool:
    """Whether a text has no lone surrogate (half of a character, which cannot be encoded)."""
    return not re.search("[\ud800-\udfff]", text)


def is_visible(text: str) -> bool:
    """Whether anything of a text can be seen: not only white space, control characters and the like."""
    return any(char.isprintable() and not char.isspace() for char in text)


def _answer(row: dict, field: str) -> str:
    value = row.get(field)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    text = _written(value)
    if text is None or not text.strip():
        raise ValueError(f'field "{field}" is missing or not a text')
    return text


def _written(value) -> str | None:
    """A text, or a number as it is written without an exponent; None for anything else (nan: an empty cell)."""
    if isinstance(value, str):
        return value
    number = isinstance(value, int) and not isinstance(value, bool) or isinstance(value, float) and math.isfinite(value)
    return format(Decimal(repr(value)), "f") if number else None


def _steps(value: Any, field: str, separator: str) -> list[str]:
    """Written steps, of a text or a list of texts; none where the field is empty (evaluation needs no steps)."""
    if value is None or value != value:  # nan: an empty cell of a table
        return []
    if isinstance(value, str):
        value = re.split(r"\n\s*\n" if separator == "\n\n" else "\n", value)
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise ValueError(f'field "{field}" is neither a text nor a list of texts')
    return [step.strip() for step in value if step.strip()]


def _split_solution(answer: str, task: Task) -> tuple[list[str], str]:
    """GSM-style "step\\nstep\\n#### answer" -> (steps, answer). A text of one line without "####" is an answer alone.

    `<<16-3=13>>` and ` ** ` (socratic sub-question ** step) are mark-up and are removed; of a line that is only
    `<<16-3=13>>`, the inside stays.
    """
    solution, mark, final = answer.rpartition("####")
    if not mark and "\n" in answer.strip():
        raise ValueError(f'no final answer: no line "#### <{task.answer_type}>"')
    if not final.strip():
        raise ValueError("no final answer: nothing after ####")
    steps = _steps(solution, "steps", task.separator)
    if task.answer_type == "number":
        steps = [_without_markup(step) for step in steps]
    return [step for step in steps if step], final


def _without_markup(step: str) -> str:
    if alone := re.fullmatch(r"<<(.*)>>", step):
        return alone[1].strip()
    return re.sub(r"\s\*\*(?:\s|$)", " ", re.sub(r"<<.*?>>", "", step)).strip()


def read_options(value) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A row's options -> (the row's own labels, texts without letters); both empty where the row has no such field.

    value: a list of texts (or its JSON), {"A": text, ...}, or {"label": [...], "text": [...]} as in several hub tasks.
    Raises ValueError with the reason for anything else.
    """
    labels: Any = ()
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
    given = [_written(option) for option in value] if isinstance(value, list) else [None]
    texts = [text.strip() for text in given if text is not None]
    if len(texts) < len(given):
        raise ValueError("the options are not a list of texts")
    if labels and (not isinstance(labels, list) or len(labels) != len(texts)):
        raise ValueError("the options' labels are not a list as long as their texts")
    labels = tuple(map(str, labels or ()))
    if len(set(labels)) < len(labels):
        raise ValueError("two options have one label")
    if not 2 <= len(texts) <= len(LETTERS):
        raise ValueError(f"{len(texts)} options: from 2 to {len(LETTERS)} are supported")
    prefixes = [rf"\A(?:\(?{letter}\s*[).:]\s*)+" for letter in LETTERS[: len(texts)]]
    without = [re.sub(prefix, "", text, flags=re.IGNORECASE) for prefix, text in zip(prefixes, texts, strict=True)]
    if all(text != bare for text, bare in zip(texts, without, strict=True)):
        texts = without
    if not all(map(is_visible, texts)):
        raise ValueError("an option is empty")
    return labels, tuple(texts)


MORE_THAN_A_NUMBER = re.compile(  # "<5", "√4", "5!", "5²", "2π", "12+", "5M", "5 dozen"
    r"[<>≤≥√]\s?\$?\d|\d\s?(?:[!²³π√<>≤≥]|\\pi\b|\+(?!\s?\d)|[KMB]\b|(?:dozen|score|gross)s?\b)"
)


def gold_answer(text: str, answer_type: str, options: tuple[str, ...] = ()) -> str:
    """The canonical gold answer in a row's answer; ValueError where there is none."""
    if answer_type == "boolean":
        text = {"0": "no", "1": "yes"}.get(text.strip(), text)  # as tables have it
    if answer_type == "latex":  # MATH has \boxed 2 and \fbox{2} too
        text = re.sub(r"\\boxed\s*([^\s{])", r"\\boxed{\1}", text.replace("\\fbox", "\\boxed"))
    boxed = text if "\\boxed" in text else f"\\boxed{{{text.strip()}}}"
    if answer_type == "number" and boxed is not text:
        spelt = plain(text)
        numbers = list(NUMBER.finditer(spelt))
        marred = re.search(r"\d\s*\^", text) or MORE_THAN_A_NUMBER.search(text)
        if marred or len(numbers) == 1 and _is_part(spelt, numbers[0]):
            raise ValueError(f'no final answer: "{_last_line(text)}" is not a number answer')
        if len(numbers) > 1:
            raise ValueError(f'no final answer: "{_last_line(text)}" is more than one number')
    answer = extract_answer(boxed, answer_type, options)
    if answer is None:
        raise ValueError(f'no final answer: "{_last_line(text)}" is not a {answer_type} answer')
    return answer


def _is_part(text: str, number: re.Match) -> bool:
    """Whether there are more digits or signs than a number has read: "--5", "x-5", "1.2.3", "0x10". "5 m2" is one."""
    before, after = text[: number.start()], re.sub(r"\s[^\W\d_]+\d\b", " ", text[number.end() :])
    signs = before[len(before.rstrip("+- ")) :] + (number["sign"] or "")
    glued = signs.strip() and before.rstrip("+-")[-1:].isalpha()
    return bool(glued or re.search(r"\d", before + after)) or signs.count("-") + signs.count("+") > 1


def _last_line(text: str) -> str:
    return text.strip().split("\n")[-1][:60]
