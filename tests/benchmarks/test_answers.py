"""Agreement of the answers that are read: what counts as right, wrong and none, on own rows; two codes side by side."""

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest
import warm
from helpers import write_jsonl

from benchmarks import answers

CASES = [
    {"text": "So it is \\boxed{18}.", "answer_type": "number", "expected": "18"},
    {"text": "So it is \\boxed{18.0}.", "answer_type": "number", "expected": "18"},
    {"text": "So it is \\boxed{7}.", "answer_type": "number", "expected": "18"},
    {"text": "So it is \\boxed{7}.", "answer_type": "number", "expected": None},
    {"text": "Hm.", "answer_type": "number", "expected": None},
    {"text": "Hm.", "answer_type": "number", "expected": "18"},
    {"text": "\\boxed{B}", "answer_type": "choice", "expected": "B", "options": ["3 km", "4 km"]},
    {"text": "\\boxed{4 km}", "answer_type": "choice", "expected": "A", "options": ["3 km", "4 km"], "policy": True},
    {"text": "\\boxed{x+1}", "answer_type": "latex", "expected": "1+x"},
]
OWN = [
    {"text": "So far 3 eggs and", "answer_type": "number", "expected": None, "finished": False},
    {"text": r"\boxed{x+1}", "answer_type": "latex", "unequal_to": "x-1"},
    {"text": r"\boxed{x+1}", "answer_type": "latex", "unequal_to": "1+x"},
]
# extract_answer of two codes: of the number type alone, it takes the first or the last word
STUB = """
def extract_answer(text, answer_type, options=(){finished}):
    return text.strip(".").split()[{place}]


def answers_equal(a, b, answer_type):
    return a == b
"""


def cells(printed: str) -> dict[tuple[str, str], list[str]]:
    """{(source, type): the cells behind them}."""
    lines = [line for line in printed.splitlines() if " | " in line]
    return {(line[:28].strip(), line[28:37].strip()): line[37:].replace("|", "").split() for line in lines}


def write_code(folder: Path, place: int, finished: str = "") -> None:
    """A package that reads answers as STUB does."""
    for name, text in {
        "__init__.py": "",
        "answers/__init__.py": STUB.format(place=place, finished=finished),
        "rows/__init__.py": "",
        "rows/examples.py": "def gold_answer(text, answer_type, options):\n    return text\n",
    }.items():
        path = folder / "lta_thinker" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> tuple[Path, str]:
    """A folder as ../shared with cases alone, and what is printed of them and of own ones."""
    shared = tmp_path_factory.mktemp("answers") / "shared"
    write_jsonl(shared / "answers" / "cases.jsonl", CASES)
    write_jsonl(shared / "own.jsonl", OWN)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "executable", warm.python())
        answers.main(["--shared", str(shared), "--own", str(shared / "own.jsonl"), "--show", "1"])
    return shared, out.getvalue()


def test_right_wrong_and_none_are_counted(printed):
    """An equal answer is right, another one wrong, as is any where none is expected; none is none where one is. Policy
    cases are counted apart, absent files are named, LaTeX golds stand in every frame and are kept apart."""
    shared, text = printed
    assert f"note: {shared}/data/gsm8k/test.jsonl is not there" in text
    found = cells(text)
    assert found["cases", "number"] == ["6", "50.00", "2", "1"]
    assert found["cases", "choice"] == found["cases", "latex"] == ["1", "100.00", "0", "0"]
    assert found["cases", "all"] == ["8", "62.50", "2", "1"]
    assert found["cases, policy", "choice"] == ["1", "0.00", "1", "0"]
    assert found["golds, \\boxed{X}", "latex"] == ["21", "100.00", "0", "0"]
    assert found["unlike golds", "latex"] == ["210", "100.00", "0", "0"]
    assert "\ncases: wrong: '7', expected '18' (number)\n  \"So it is \\\\boxed{7}.\"" in text
    assert text.count("\ncases: ") == 1


def test_own_cases_may_be_cut_off_or_unlike(printed):
    """Own cases may say that their text was cut off, and which formula an answer must not equal."""
    found = cells(printed[1])
    assert found["own cases", "number"] == ["1", "100.00", "0", "0"]
    assert found["own cases, unlike", "latex"] == ["2", "50.00", "1", "0"]


def test_two_codes_stand_side_by_side(tmp_path, monkeypatch, capsys):
    """--against reads the same rows with the other code, in a process of its own."""
    text = "18 is what is left of 20."
    rows = [{"text": text, "answer_type": "number", "expected": expected} for expected in ("20", "20", "18", None)]
    shared = tmp_path / "shared"
    write_jsonl(shared / "answers" / "cases.jsonl", rows)
    write_code(tmp_path / "now", place=-1)
    (tmp_path / "now" / "data" / "math").mkdir(parents=True)
    (tmp_path / "now" / "data" / "math" / "sample.jsonl").write_text("")
    monkeypatch.setattr(answers, "ROOT", tmp_path / "now")
    monkeypatch.setattr(answers, "export", lambda commit, folder: write_code(folder, place=0))
    answers.main(["--shared", str(shared), "--own", str(shared / "no.jsonl"), "--against", "abc"])
    printed = capsys.readouterr().out
    assert "| before: abc" in printed
    assert cells(printed)["cases", "number"] == ["4", "25.00", "3", "0", "50.00", "2", "0"]


def test_code_is_told_of_cut_texts_where_it_asks(tmp_path):
    """Rows that were cut off are read as such by code that knows `finished`, and by earlier code as any other."""
    rows = [answers.Row("cut", "number", "a b", None, finished=False)]
    for name, parameter, said in (("old", "", ["a", "wrong"]), ("new", ", finished=True", [None, "right"])):
        write_code(tmp_path / name, 0, parameter)
        if parameter:
            path = tmp_path / name / "lta_thinker" / "answers" / "__init__.py"
            path.write_text(path.read_text().replace("split()[0]", "split()[0] if finished else None"))
        assert [list(one) for one in answers.judge_with(tmp_path / name, rows)] == [said]


def test_commit_is_one_that_git_has(tmp_path):
    """--against takes the package out of git; what is no commit is one line."""
    answers.export("HEAD", tmp_path)
    assert (tmp_path / "lta_thinker" / "answers" / "__init__.py").is_file()
    with pytest.raises(SystemExit, match="^error: --against nothing-of-ours: .*"):
        answers.export("nothing-of-ours", tmp_path)


def test_sources_say_what_their_files_say(tmp_path):
    """Each kind of file gives the texts and labels that its rows have."""
    write_jsonl(tmp_path / "a.jsonl", [{"answer": "2+3=<<2+3=5>>5 pens.\nTwice is 10.\n#### 10"}])
    whole, without, cut = answers.read_gsm8k(tmp_path / "a.jsonl")
    assert (without.text, without.expected) == ("2+3=5 pens.\nTwice is 10.", whole.expected) and whole.expected == "10"
    assert (cut.text, cut.expected, cut.finished) == ("2+3=5 pens.\n", None, False)
    write_jsonl(tmp_path / "b.jsonl", [{"facts": "Two is even.", "answer": False}])
    assert [row.expected for row in answers.read_strategyqa(tmp_path / "b.jsonl")] == ["no", None]
    row = {"rationale": "So A", "correct": "A", "options": ["A)3 km", "B)4 km"]}
    write_jsonl(tmp_path / "c.json", [row])
    assert [(row.text, row.expected, row.options) for row in answers.read_aqua(tmp_path / "c.json")] == [
        ("So A", "A", ("3 km", "4 km")),
        ("Answer: 3 km", "A", ("3 km", "4 km")),
    ]
    (tmp_path / "d.json").write_text(json.dumps({"examples": [{"target_scores": {"May 1": 0, "May 2": 1}}]}))
    assert [row.text for row in answers.read_du(tmp_path / "d.json")] == ["Answer: (B)", "Answer: May 2"]
    problems = "".join(
        f"<Problem><Answer>{answer}</Answer><Formula>7+2=9</Formula></Problem>" for answer in ("1,009 (pens)", "9:30")
    )
    (tmp_path / "e.xml").write_text(f"<Set>{problems}</Set>")
    (asdiv,) = answers.read_asdiv(tmp_path / "e.xml")
    assert (asdiv.text, asdiv.expected) == ("7+2=9\nAnswer: 1,009 (pens)", "1,009")


def test_alike_golds_make_no_unlike_pair():
    """Golds that are the same but for spelling are not asked to be kept apart."""
    golds = ["0.5", "\\frac12", "\\frac{1}{2}", "32,348", "32348", "y=2x+3", "2x+3"]
    values = list(map(answers.plain_value, golds))
    assert len(set(values[:3])) == len(set(values[3:5])) == len(set(values[5:])) == 1
    assert len(set(values)) == 3
    assert sum(row.unlike for row in answers.gold_rows(golds)) == 16
