"""--regrade: what has changed is printed, the report is a new evaluation's, and the texts are never touched."""

import fcntl
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers import line_of, write_evaluation

from lta_thinker.answers import extract_answer
from lta_thinker.common import versions
from lta_thinker.evaluation import report
from lta_thinker.evaluation.regrade import Pair
from lta_thinker.generation.samplers import Sampler

LINES = [line_of(0, ["18", "18.5", "7"]), line_of(1, ["18.5", "7", None], gold="18.5")]
WRITTEN = {"lta_thinker": "0.1", "torch": "2.4"}  # by these versions


def earlier(text: str, answer_type: str, options: tuple = (), finished: bool = True) -> str | None:
    """An earlier version's extract_answer: it does not read decimals."""
    return None if "." in text.strip().rstrip(".") else extract_answer(text, answer_type, options, finished)


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """The folder of an evaluation that an earlier version has graded."""
    with monkeypatch.context() as patch:
        patch.setattr(report, "extract_answer", earlier)
        patch.setattr(report, "gold_answer", lambda text, *_: f"{text}.0" if text == "18" else text)
        path = write_evaluation(tmp_path / "old", LINES, versions=WRITTEN, split="test")
        report.write_graded(path.with_name("graded.jsonl"), [report.grade(line, "number") for line in LINES])
    return path.parent


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_has_changed_is_printed_and_written(run, old):
    """Each gold answer, vote and sample that changed has a line with the old and the new; report and graded.jsonl are
    those of a new evaluation of these texts; the texts, and what is said of their making, stay. A second time nothing
    changes."""
    before, known = contents(old), json.loads((old / "report.json").read_text())
    printed = run("--regrade", old, data=False).splitlines()
    assert [line.strip() for line in printed[:5]] == [
        f"{old}: 2 questions, 3 samples each",
        "[0] gold 18.0 -> 18",
        "[1] vote 7 (wrong) -> 18.5 (right)",
        "[0.1] none (wrong) -> 18.5 (wrong)  The answer is 18.5.",
        "[1.0] none (wrong) -> 18.5 (right)  The answer is 18.5.",
    ]
    table = [line.split() for line in printed[5:8]]
    assert [(row[-3:], row[-4]) for row in table] == [
        (["of", "2", "changed"], "1"),
        (["of", "6", "changed"], "2"),
        (["of", "6", "changed"], "2"),
    ]
    assert "samples without an answer  50.0%                -> 16.7%" in printed[7]
    assert printed[8:] == ["  graded.jsonl, report.json and report.html are written anew"]

    graded = [report.grade(line, "number") for line in LINES]
    figures = json.loads(json.dumps(asdict(report.make_figures(graded))))
    own = {"versions": versions(), "starts": [WRITTEN], "samples": report.lines_digest(LINES)}
    after = contents(old)
    assert json.loads(after["report.json"]) == known | figures | own
    assert after["graded.jsonl"] == "".join(json.dumps(asdict(one.found)) + "\n" for one in graded)
    assert after.keys() == before.keys() | {"report.html"} and after["samples.jsonl"] == before["samples.jsonl"]
    assert run("--regrade", old, data=False).splitlines()[1:] == ["  nothing has changed, and nothing is written"]
    assert contents(old) == after


def test_evaluation_of_today_is_left_as_it_is(run, checkpoints, monkeypatch):
    """A whole evaluation of these versions is what --regrade makes of its texts; no LM is asked for that."""
    run("--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", "out")
    before = contents(Path("out"))
    monkeypatch.setattr(Sampler, "answers", None)
    assert "nothing has changed" in run("--regrade", "out", data=False)
    assert contents(Path("out")) == before


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (None, "no such file"),
        (['{"answer": "7"}'], "graded.jsonl:1: has no index"),
        (["7"], "graded.jsonl:1: not a JSON object"),
        ([0], "not about the samples of report.json"),
        ([1, 0], "not about the samples of report.json"),
    ],
)
def test_figures_alone_are_compared_without_old_answers(run, old, lines, reason):
    """Where graded.jsonl is absent, of another format or of other samples, one note says it, and the rest is done."""
    path = old / "graded.jsonl"
    whole = path.read_text().splitlines()
    path.unlink()
    if lines is not None:
        path.write_text("".join(f"{whole[line] if isinstance(line, int) else line}\n" for line in lines))
    printed = run("--regrade", old, data=False)
    assert reason in printed and ": only the figures can be compared\n" in printed and "changed" not in printed
    assert "50.0%                -> 16.7%\n" in printed
    assert [json.loads(line)["vote"] for line in path.read_text().splitlines()] == ["18", "18.5"]


def test_lines_that_do_not_say_what_was_right_are_compared(run, old):
    """graded.jsonl of an earlier version has no hits: its answers are compared with its gold answers today."""
    path = old / "graded.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "hits"}) + "\n" for line in lines))
    printed = run("--regrade", old, data=False)
    assert "[1.0] none (wrong) -> 18.5 (right)" in printed and "2 of 6 changed" in printed
    assert '"hits": [true, false, false]' in path.read_text().splitlines()[0]


def test_broken_and_foreign_folders_are_refused(run, old, tmp_path):
    """One line, and nothing is written, not even in a good folder that is named before."""
    before = contents(old)
    bad = write_evaluation(tmp_path / "bad", LINES[:1]).parent
    samples, whole = bad / "samples.jsonl", contents(bad)
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "no", tmp_path / "empty", samples):
        assert run("--regrade", old, folder, data=False) == f"error: {folder}/report.json: no such file"
    for text, reason in (("", "not the samples that"), ("{}\n", "samples.jsonl:1: has no index")):
        samples.write_text(text)
        said = run("--regrade", old, bad, data=False)
        assert said.startswith("error: ") and reason in said and "\n" not in said
    samples.write_text(whole["samples.jsonl"])
    (bad / "report.json").write_text('{"mine": 1}')
    assert "not a report that evaluate.py wrote" in run("--regrade", old, bad, data=False)
    assert contents(old) == before and sorted(contents(bad)) == ["report.json", "samples.jsonl"]


def test_folder_in_which_an_evaluation_writes_is_refused(run, old):
    """The lock of a running evaluation holds --regrade off."""
    before = contents(old)
    with open(old / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = run("--regrade", old, data=False)
    assert said == f"error: {old}: another process is writing here; wait for it"
    assert contents(old) == before | {".lock": ""}


def test_texts_keep_their_versions(run, old):
    """Of a report without starts the texts are of its versions; starts that are there stay."""
    values = json.loads((old / "report.json").read_text())
    assert values["starts"] == []
    run("--regrade", old, data=False)
    assert report.Report.read(old / "report.json").starts == [WRITTEN]
    values = json.loads((old / "report.json").read_text())
    starts = [WRITTEN, {"torch": "2.5"}]
    (old / "report.json").write_text(json.dumps(values | {"starts": starts, "ties": 5}))
    run("--regrade", old, data=False)
    assert report.Report.read(old / "report.json").starts == starts


def test_regrade_runs_alone(run, old, monkeypatch):
    """Under torchrun, and together with --ask, it is refused."""
    assert run("--regrade", old, "--ask", "How many?", data=False).startswith("error: --ask with --regrade")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run("--regrade", old, data=False).startswith("error: --regrade runs in one process")


def test_what_changed_is_shown_with_the_texts_end():
    """A changed answer is printed with both answers and the last 60 characters of its text, on one line."""
    text = "".join(f"word {i}\n" for i in range(40))
    line = Pair("[3.0]", ("7", False), (None, False), text).line()
    assert line == f"[3.0] 7 (wrong) -> none (wrong)  …{' '.join(text.split())[-60:]}"
    assert Pair("[3]", ("7", False), ("8", True)).line() == "[3] 7 (wrong) -> 8 (right)"
