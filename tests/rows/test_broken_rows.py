"""Broken files of rows: every fault is one line with its place, and --skip_bad_rows leaves out rows alone."""

import json
import os
from pathlib import Path

import pytest
from helpers import gsm8k_row

from lta_thinker import data_loader
from lta_thinker.answers import answers_equal
from lta_thinker.common import InputError
from lta_thinker.data_loader import TASKS, OwnTask, load_split, own_task, read_prompts
from lta_thinker.rows.examples import gold_answer, parse_row

GOOD = json.dumps({"question": "How many?", "answer": "7"}).encode()
CSV = b"question,answer\nHow many?,7\n"


def own(path: Path, answer_type: str = "number"):
    return own_task("mine", OwnTask({"test": str(path)}, {}, answer_type))


def load(path: Path, skip: bool = False):
    return load_split(own(path), "test", "data", skip)


def row(question="How many?", answer: object = "7", **more) -> bytes:
    return json.dumps({"question": question, "answer": answer} | more).encode()


def nested(depth: int) -> bytes:
    return b'{"question": ' + b"[" * depth + b"]" * depth + b', "answer": "7"}'


BAD_LINES = {  # a line of jsonl, an element of a JSON list: the reason
    "cut off": (b'{"question": "How', "not JSON"),
    "two in one": (GOOD + GOOD, "not JSON"),
    "no object": (b"[1, 2]", "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "a key twice": (b'{"question": "a", "answer": "1", "answer": "2"}', "'answer' is there twice"),
    "a key twice inside": (b'{"question": "a", "answer": "1", "more": [{"x": 1, "x": 2}]}', "'x' is there twice"),
    "infinite": (row(answer=1).replace(b": 1}", b": 1e999}"), "no finite number"),
    "infinite elsewhere": (row(more=1).replace(b": 1}", b": -1e999}"), "no finite number"),
    "NaN": (row(answer=float("nan")), "no finite number"),
    "Infinity": (row(answer=float("inf")), "no finite number"),
    "nested": (nested(100_000), "nested too deep"),
    "nested a little": (nested(50), '"question" is missing or not a text'),
    "5,000 digits": (b'{"question": "a", "answer": ' + b"1" * 5000 + b"}", "not JSON"),
    "half a character": (row("How \ud800 many?"), "half a character"),
    "half a character in the answer": (row(answer="7 \udfff"), "half a character"),
    "a null character": (row("How \0 many?"), "a null character"),
    "null bytes": (b"\0" * 20, "not JSON"),
    "not UTF-8": (row("How many p\u00e4ns?").replace(b"\\u00e4", b"\xe4"), "not JSON ('utf-8'"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "not JSON"),
    "a byte order mark inside": (b"\xef\xbb\xbf" + GOOD, "not JSON"),
    "white space": (row(" \t\n\u3000\u00a0"), '"question" is missing or not a text'),
    "nothing visible": (row("\u200b\u2060\ufeff\u0007"), '"question" is missing or not a text'),
    "a number for a question": (row(5), '"question" is missing or not a text'),
    "a question of true": (row(True), '"question" is missing or not a text'),
    "no answer": (b'{"question": "How many?"}', '"answer" is missing'),
    "a list for an answer": (row(answer=["7"]), '"answer" is missing or not a text'),
    "two signs": (row(answer="--5"), "not a number answer"),
    "a power": (row(answer="10^6"), "not a number answer"),
    "a difference": (row(answer="x-5"), "not a number answer"),
    "two other signs": (row(answer="+-5"), "not a number answer"),
    "two signs apart": (row(answer="- -5"), "not a number answer"),
    "beyond finite": (row(answer="1e999"), "not a number answer"),
    **{
        f"more than a number, {text}": (row(answer=text), "not a number answer")
        for text in ("<5", "≥ 5", "√4", "5!", "5²", "2π", r"2\pi", "12+", "5M", "$3B", "5 dozen")
    },
    "a version": (row(answer="1.2.3"), "not a number answer"),
    "hexadecimal": (row(answer="0x10"), "not a number answer"),
    "NaN as a text": (row(answer="NaN"), "not a number answer"),
    "inf as a text": (row(answer="-inf"), "not a number answer"),
    "over nothing": (row(answer="3/0"), "not a number answer"),
    "two numbers": (row(answer="3, 4"), "more than one number"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_LINES)
@pytest.mark.parametrize("file", ["lines", "list"])
def test_bad_json_row_is_named_or_left_out(kind, file, tmp_path):
    """A bad row of a jsonl file or of a JSON list is named with its place, or left out and counted. The good ones keep
    their place. (What breaks a list's own syntax is the file's fault, and nothing is left out.)"""
    line, reason = BAD_LINES[kind]
    path = tmp_path / "rows.jsonl"
    if file == "lines":
        path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + line + b"\n" + GOOD)
    else:
        path.write_bytes(b"\xef\xbb\xbf [" + GOOD + b"\n,\n" + line + b",\n " + GOOD + b"]\n")
    with pytest.raises(InputError) as error:
        load(path)
    said = str(error.value)
    assert "\n" not in said and len(said) < 400
    if file == "list" and "not a JSON list" in said:
        assert "rows.jsonl: not a JSON list (" in said
        with pytest.raises(InputError, match="not a JSON list"):
            load(path, skip=True)
        return
    assert f"{path}:3: " in said if file == "lines" else f"{path}: row 2: " in said
    assert reason in said and "--skip_bad_rows" in said
    split = load(path, skip=True)
    assert ([example.index for example in split.examples], split.read, split.bad) == ([0, 2], 3, 1)


BAD_CSV = {  # lines below the header: line of the bad row, the reason, whether it can be left out
    "more cells than the header": (b"How many?,7,8\n", 3, "3 cells, but the header has 2", True),
    "an unquoted comma": (b"Well, how many?,7\n", 3, "3 cells, but the header has 2", True),
    "fewer cells": (b"How many?\n", 3, "1 cells, but the header has 2", True),
    "not UTF-8": (b"How many p\xe4ns?,7\n", 3, "not UTF-8", True),
    "not UTF-8 in a cell of two lines": (b'"How\nmany p\xe4ns?",7\n', 3, "not UTF-8", True),
    "white space": (b'" \t ",7\n', 3, '"question" is missing', True),
    "a null byte": (b"How\0 many?,7\n", 3, "null character", True),
    "an empty answer": (b"How many?,\n", 3, '"answer" is missing', True),
    "two signs": (b"How many?,--5\n", 3, "not a number answer", True),
    "beyond finite": (b"How many?,1e999\n", 3, "not a number answer", True),
    "a quote that does not end": (b'"How many?,7\n', 3, "not csv", False),
    "a quote in a quote": (b'"How "many?",7\n', 3, "not csv", False),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_CSV)
def test_bad_csv_row_is_named_or_left_out(kind, tmp_path):
    """A bad row of a csv file is named with the line on which it begins, or left out; broken quotes are the file's."""
    line, number, reason, skippable = BAD_CSV[kind]
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbf" + CSV + line + b"\nHow many more?,8\n")
    with pytest.raises(InputError) as error:
        load(path)
    assert f"{path}:{number}: " in str(error.value) and reason in str(error.value) and "\n" not in str(error.value)
    if not skippable:
        with pytest.raises(InputError, match=reason):
            load(path, skip=True)
        return
    split = load(path, skip=True)
    assert ([example.index for example in split.examples], split.read, split.bad) == ([0, 2], 3, 1)


def test_long_cells_and_lines_are_read(tmp_path):
    """A question of 300,000 characters is read from csv as from jsonl, and leaves no limit behind."""
    question = "How many? " * 30_000
    (tmp_path / "a.csv").write_text(f"question,answer\n{question},7\n")
    (tmp_path / "a.jsonl").write_bytes(row(question))
    for name in ("a.csv", "a.jsonl"):
        assert load(tmp_path / name).examples[0].question == question.strip()


NO_ROWS = {
    "nothing": ("rows.jsonl", b"", "no usable row"),
    "empty lines": ("rows.jsonl", b"\n \n\n", "no usable row"),
    "an empty list": ("rows.json", b" [ ] \n", "no usable row"),
    "an empty table": ("rows.csv", b"", "no usable row"),
    "a header alone": ("rows.csv", b"question,answer\n", "no usable row"),
    "a name twice": ("rows.csv", b"question,answer,answer\na,1,2\n", "rows.csv:1: the header has 'answer' twice"),
    "a list cut off": ("rows.json", b"[" + GOOD + b", ", "not a JSON list"),
    "a list without commas": ("rows.json", b"[" + GOOD + b" " + GOOD + b"]", "not a JSON list"),
    "a list and more": ("rows.json", b"[" + GOOD + b"] x", "not a JSON list"),
    "a list nested too deep": ("rows.json", b"[" * 100_000, "not a JSON list"),
    "a list that is not UTF-8": ("rows.json", b"[" + GOOD.replace(b"many", b"m\xe4ny") + b"]", "not a JSON list"),
    "no parquet": ("rows.parquet", b"PAR1 no", "cannot be loaded"),
    "an empty parquet": ("rows.parquet", b"", "cannot be loaded"),
    "another kind": ("rows.tsv", b"a\tb", "rows are read from"),
}


@pytest.mark.parametrize("kind", NO_ROWS)
@pytest.mark.parametrize("skip", [False, True])
def test_file_without_rows_is_refused(kind, skip, tmp_path):
    """A file that has no row, or is broken as a whole, is one line with its path, with --skip_bad_rows too."""
    name, content, reason = NO_ROWS[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load(tmp_path / name, skip)
    assert str(tmp_path / name) in str(error.value) and reason in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_what_is_no_file_is_said(name, tmp_path, monkeypatch):
    """A folder, a pipe, a name that is too long and a file that cannot be read are told from one that is missing."""

    def said(path) -> str:
        with pytest.raises(InputError) as error:
            load(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert said(tmp_path / name).endswith(f"{name}: no such file")
    assert said(tmp_path / ("x" * 300 + name)).endswith("cannot be read (File name too long)")
    assert "cannot be read" in said(Path(f"{tmp_path}/\0{name}"))
    (tmp_path / "folder" / name).mkdir(parents=True)
    assert said(tmp_path / "folder" / name).endswith("not a file")
    os.mkfifo(tmp_path / name)
    assert said(tmp_path / name).endswith("not a file")
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(GOOD)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert said(tmp_path / name).endswith("cannot be read (Permission denied)")


def test_unreadable_file_is_not_passed_over(tmp_path, monkeypatch):
    """Where a task's file cannot be read, no other file and not the hub stands in for it."""
    monkeypatch.setattr(
        data_loader.os, "stat", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(InputError, match="train_socratic.jsonl: cannot be read .Permission denied"):
        load_split(TASKS["gsm8k"], "train", str(tmp_path))


OPTIONS = {
    "a label twice": ({"label": ["A", "A"], "text": ["x", "y"]}, "two options have one label"),
    "true": ([True, False], "not a list of texts"),
    "nan": ([1.0, float("nan")], "not a list of texts"),
    "null": (["x", None], "not a list of texts"),
    "a text": ("x or y", "not a list of texts"),
    "a number": (5, "not a list of texts"),
    "nested too deep": ("[" * 100_000, "not a JSON list"),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_wrong_options_are_said(kind):
    """Options that are no texts, or have no labels of their own, are a bad row."""
    options, reason = OPTIONS[kind]
    with pytest.raises(ValueError, match=reason):
        parse_row(TASKS["du"], {"question": "?", "options": options, "answer": "A"})


@pytest.mark.parametrize("steps", [0, False, 3.5, {"a": 1}, [1], ["a", None]])
def test_wrong_steps_are_said(steps):
    """Steps that are no texts are a bad row, those that are false too; an empty cell is no step."""
    with pytest.raises(ValueError, match='"facts" is neither a text'):
        parse_row(TASKS["strategyqa"], {"question": "Is it?", "answer": True, "facts": steps})
    for empty in (None, "", [], float("nan")):
        assert parse_row(TASKS["strategyqa"], {"question": "Is it?", "answer": True, "facts": empty})[1] == ()


def test_prompt_file_is_strict_json(tmp_path):
    """A prompt that is twice in a file is refused, as is a file that is not UTF-8."""
    (tmp_path / "p.json").write_text('{"problem": "{question}", "problem": "Solve {question}"}')
    with pytest.raises(InputError, match="--prompt_file .*'problem' is there twice"):
        read_prompts(str(tmp_path / "p.json"), data_loader.PROMPTS["number"])
    (tmp_path / "p.json").write_bytes(b'{"problem": "\xe4 {question}"}')
    with pytest.raises(InputError, match="--prompt_file .*cannot be read"):
        read_prompts(str(tmp_path / "p.json"), data_loader.PROMPTS["number"])


def test_dev_rows_of_a_file_never_change(tmp_path):
    """The dev rows of a file of 200 are those that they have always been, so that checkpoints stay comparable."""
    (tmp_path / "gsm8k").mkdir()
    rows = "\n".join(json.dumps(gsm8k_row(i)) for i in range(200))
    (tmp_path / "gsm8k" / "train.jsonl").write_text(rows)
    dev = [example.index for example in load_split(TASKS["gsm8k"], "dev", str(tmp_path)).examples]
    assert dev == [42, 59, 70, 72, 85, 97, 98, 141, 147, 176]


@pytest.mark.parametrize(
    ("text", "gold"), [("5 m2", "5"), ("10 cm^3", "10"), ("$-7", "-7"), ("about 1,200.50", "1200.5")]
)
def test_gold_numbers_with_units_are_read(text, gold):
    """A number with its unit is a gold number, also where the unit has a digit of its own."""
    assert answers_equal(gold_answer(text, "number"), gold, "number")
