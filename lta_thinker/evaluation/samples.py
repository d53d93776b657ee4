"""samples.jsonl: a line for each answered question, with what was written and nothing that was made of it.

    line = sample_line(answer)                                # of a sampler
    lines = merge_samples(folder, examples, num_samples=10)   # {index: line}, of all files that ranks have written

A line that is not this question's, or not whole, is never used: it is set aside, and its question is asked again.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lta_thinker.common import InputError, parse_json, read_record, write_text, writing
from lta_thinker.rows.examples import Example

if TYPE_CHECKING:
    from lta_thinker.generation.samplers import Answer  # it imports torch, which reading lines does not need

SAMPLES_FILE = "samples.jsonl"
SET_ASIDE_FILE = "samples.set-aside.jsonl"  # lines that cannot be used, as they were
RANK_FILE = re.compile(r"samples\.rank(0|[1-9][0-9]*)\.jsonl")  # while several ranks write


@dataclass(frozen=True, kw_only=True)
class SampleLine:
    """A line of samples.jsonl: a question as it was asked, the gold answer in the row's words, and of each sample its
    text, its number of tokens, whether it ended by itself, and its mean log-probability a token. options: None in a
    line of an earlier version."""

    index: int
    question: str
    options: list[str] | None = None
    gold: str
    responses: list[str]
    num_tokens: list[int]
    finished: list[bool]
    scores: list[float]

    @property
    def asked(self) -> tuple:
        """What makes it this question's line. (The gold answer does not: it decides no text.)"""
        return self.question, tuple(self.options or ())

    def json(self) -> str:
        """The line as it is written. InputError where a score is not finite."""
        try:
            return json.dumps(asdict(self), allow_nan=False) + "\n"
        except ValueError:
            raise InputError(f"question {self.index}: the log-probabilities of its samples are not finite") from None


def asked_of(example: Example) -> tuple:
    """SampleLine.asked of the example's line."""
    return example.question, example.options


def gold_of(example: Example) -> str:
    """The example's gold answer in the row's words."""
    return example.reference or example.answer


def sample_line(answer: "Answer") -> SampleLine:
    """The line of an answered question."""
    example = answer.request.example
    return SampleLine(
        index=example.index,
        question=example.question,
        options=list(example.options),
        gold=gold_of(example),
        responses=answer.texts,
        num_tokens=[sample.num_tokens for sample in answer.samples],
        finished=[sample.finished for sample in answer.samples],
        scores=[sample.score for sample in answer.samples],
    )


def append_line(path: Path, line: SampleLine) -> None:
    """Put a line behind those of a samples file: it is on disk when this returns. InputError where there is no room."""
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(line.json())


def parse_line(line: bytes, where: str) -> SampleLine:
    """A line's values, checked; InputError, which begins with `where`, for what is not as sample_line makes it."""
    values = read_line(SampleLine, line, where)
    lists = {name: len(getattr(values, name)) for name in ("responses", "num_tokens", "finished", "scores")}
    if len(set(lists.values())) > 1 or not values.responses:
        counts = ", ".join(f"{count} {name}" for name, count in lists.items())
        raise InputError(f"{where}: not one of each for a sample ({counts})")
    if min(values.num_tokens) < 0:
        raise InputError(f"{where}: num_tokens: {min(values.num_tokens)} is below 0")
    return values


def read_line(kind: Any, line: bytes, where: str):
    """An instance of the dataclass `kind` from a line of JSON; InputError, which begins with `where`, for what is
    none."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise InputError(f"{where}: not UTF-8 text") from None
    return read_record(kind, parse_json(text, where), where)


def read_lines(path: Path) -> list[bytes]:
    """A file's lines, without a last one that was cut off by a kill. InputError where it cannot be read."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def read_samples(path: Path) -> list[SampleLine]:
    """The lines of a samples file. InputError for one that is not whole, with its number."""
    return [parse_line(line, f"{path}:{number}") for number, line in enumerate(read_lines(path), 1)]


def sample_files(folder: Path) -> list[Path]:
    """The files in which this program keeps a folder's lines; others of similar names are the user's."""
    ranks = [path for path in folder.glob("samples.rank*.jsonl") if RANK_FILE.fullmatch(path.name)]
    return [path for path in (folder / SAMPLES_FILE, *sorted(ranks)) if path.is_file()]


def merge_samples(folder: Path, examples: Sequence[Example], num_samples: int) -> dict[int, SampleLine]:
    """Put the lines of all ranks into one samples.jsonl, in the order of the questions; returns them by index.

    examples: all that may have been asked. A line of another question, or with another number of samples, or broken, is
    moved to SET_ASIDE_FILE; one printed line counts them, another one the gold answers that the rows have otherwise by
    now: theirs are taken. InputError where a file cannot be read or written.
    """
    by_index, files = {example.index: asked_of(example) for example in examples}, sample_files(folder)
    golds, corrected = {example.index: gold_of(example) for example in examples}, 0
    lines, reasons, set_aside = {}, [], []
    for path in files:
        for number, raw in enumerate(read_lines(path), 1):
            try:
                line = parse_line(raw, f"{path}:{number}")
                check_line(line, by_index, num_samples, f"{path}:{number}")
                corrected += line.gold != golds[line.index]
                lines[line.index] = replace(line, gold=golds[line.index])
            except InputError as error:
                reasons.append(str(error))
                set_aside.append(raw + b"\n")
    if set_aside:
        kept = folder / SET_ASIDE_FILE
        with writing(kept), open(kept, "ab") as file:
            file.writelines(set_aside)
        several = f" (and {len(reasons) - 1} more such lines)" if len(reasons) > 1 else ""
        print(f"note: {reasons[0]}{several}: set aside in {kept.name}; what is missing is asked again")
    if corrected:
        print(f"note: {corrected} answered questions have another gold answer in the rows by now, which is taken")
    lines = {index: lines[index] for index in sorted(lines)}
    write_text(folder / SAMPLES_FILE, "".join(line.json() for line in lines.values()))
    for path in files:
        if path.name != SAMPLES_FILE:
            path.unlink()
    return lines


def check_line(line: SampleLine, by_index: dict[int, tuple], num_samples: int, where: str) -> None:
    """InputError where a line is not that of the question with its index, or has another number of samples."""
    if line.index not in by_index:
        raise InputError(f"{where}: there is no question {line.index}")
    for name, here, there in zip(("question", "options"), line.asked, by_index[line.index], strict=True):
        if here != there:
            raise InputError(f"{where}: its {name} is not that of question {line.index}")
    if len(line.responses) != num_samples:
        raise InputError(f"{where}: {len(line.responses)} samples, not {num_samples}")
