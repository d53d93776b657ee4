"""report.json and --compare: the figures worked out by hand, intervals, questions in pairs."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from helpers import line_of, write_evaluation

from lta_thinker.answers import verifier
from lta_thinker.common import InputError
from lta_thinker.evaluation import report
from lta_thinker.evaluation.compare import compare


def test_report_figures_match_hand_calculation():
    """Accuracies, maj@k, pass@k, ties and shares of four questions are those worked out by hand."""
    records = [
        line_of(0, ["18", "18.0", "7"]),
        line_of(1, ["7", None, None], finished=False),
        line_of(2, ["18", "7", "9"], tokens=8),
        line_of(3, [None, None, None]),
    ]
    graded = [report.grade(line, "number") for line in records]
    assert [(one.vote.answer, one.correct) for one in graded] == [
        ("18", True),
        ("7", False),
        ("18", True),
        (None, False),
    ]
    figures = report.make_figures(graded)
    assert figures.vote_accuracy.value == figures.maj_at_k["3"] == 0.5
    assert figures.sample_accuracy.value == figures.maj_at_k["1"] == pytest.approx(0.25)
    assert figures.pass_at_k == pytest.approx({"1": 0.25, "2": (1 + 2 / 3) / 4, "3": 0.5})
    assert (figures.ties, figures.no_answer, figures.cut_off) == (1, 5 / 12, 0.25)
    assert figures.tokens_per_sample == pytest.approx(5.75)
    assert figures.vote_accuracy.low < 0.5 < figures.vote_accuracy.high


def test_comparisons_that_took_too_long_are_counted(tmp_path, capsys, monkeypatch):
    """What the vote and the grades do not settle is counted, a pair once, and the report says it. No answer's grade
    hangs on the others: a right answer behind hard wrong ones is right, as often as it is given."""
    hard = [rf"$\boxed{{\int x^{k} dx}}$" for k in range(2, 12)]
    right = r"$\boxed{\frac{\sqrt2}{2}}$"
    slow = lambda a, b: (None, 3.0) if "int" in a + b else (True, 3.0)  # noqa: E731
    monkeypatch.setattr(verifier, "_compared", slow)
    line = replace(line_of(0, ["18"] * 14), gold=r"\frac1{\sqrt2}", responses=[*hard, *(4 * [right])])
    graded = report.grade(line, "latex")
    assert graded.hits == 10 * [False] + 4 * [True] and graded.correct
    assert graded.unsettled >= 10
    assert report.make_figures([graded, graded]).unsettled == 2 * graded.unsettled
    path = write_evaluation(tmp_path / "0", [line_of(0, ["18"])])
    for count in (0, 7):
        report.print_report(replace(report.Report.read(path), unsettled=count))
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "given up" in line]
    assert "7: these formulas took too long" in told


def test_right_formula_is_right_however_often_it_is_given():
    """A hundred equal answers cost what one costs, by the library itself."""
    line = replace(line_of(0, ["18"] * 100), gold="1-\\cos^2 x", responses=100 * [r"$\boxed{\sin^2 x}$"])
    graded = report.grade(line, "latex")
    assert graded.correct and all(graded.hits) and graded.unsettled == 0


def test_report_tells_information_of_training(tmp_path, capsys):
    """The report's table has the information of the thoughts where the checkpoint's dev record has it, and no line of
    it where it has not."""
    dev = {"step": 5, "eval_information": 0.4211, "eval_information_low": 0.38, "eval_information_high": 0.4622}
    for i, facts in enumerate([{"step": 5}, None, dev]):
        path = write_evaluation(tmp_path / f"{i}", [line_of(0, ["18"])], {"name": "x", "run": None, "dev": facts})
        report.print_report(report.Report.read(path))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "information" in line]
    assert re.fullmatch(r"  information of the thoughts +0\.421 nats an answer \[0\.38, 0\.462\] \(.*dev.*\)", line)


def test_compare_pairs_the_questions(run, tmp_path):
    """--compare prints both accuracies and B - A with its paired interval, which is much narrower than an unpaired
    one."""
    poor = [line_of(i, ["18", "7"] if i % 2 else ["7", "7"]) for i in range(60)]
    good = [line_of(i, ["18", "18"] if i % 2 else ["18", "7"]) for i in range(60)]
    a = write_evaluation(tmp_path / "a", poor)
    b = write_evaluation(tmp_path / "b", good, num_thought_tokens=2, thought_generator="small_block")
    figures = compare(a, b)
    difference = figures.sample.difference
    assert difference.value == 0.5 and 0.35 < difference.low < 0.5 < difference.high < 0.65
    assert figures.sample.a.value == 0.25 and figures.vote.difference.value == 0.5
    assert figures.vote.difference.low < 0.5 < figures.vote.difference.high
    printed = run("--compare", a, b, data=False)
    assert "no thoughts, 2 samples" in printed and "2 thoughts (small_block)" in printed
    assert re.search(r"B - A, paired +50\.0 \[3\d\.\d, 5\d\.\d\]", printed)


def test_report_prints_its_figures(tmp_path, capsys):
    """The printed table has the figures of the report, in per cent."""
    path = write_evaluation(tmp_path / "a", [line_of(0, ["18", "7"]), line_of(1, ["18", "18"])])
    made = report.Report.read(path)
    report.print_report(made)
    printed = {line[2:30].strip(): line[31:] for line in capsys.readouterr().out.splitlines()[1:]}
    for title, shares in (("maj@k, %", made.maj_at_k), ("pass@k, %", made.pass_at_k)):
        assert printed[title] == "  ".join(f"{k}: {100 * share:.1f}" for k, share in shares.items())
    assert printed["maj@k, %"] == "1: 75.0  2: 100.0" and printed["tied votes"] == "1"
    assert printed["vote of 2, % right"] == made.vote_accuracy.percent
    assert printed["one sample, % right"] == made.sample_accuracy.percent


@pytest.mark.parametrize(
    ("kind", "spread", "questions", "told"),
    [("small", 0.0, 3, True), ("small", 0.5, 3, False), ("small", 0.0, 1, False), ("prompt", 0.0, 3, False)],
)
def test_report_tells_collapsed_thoughts(tmp_path, capsys, kind, spread, questions, told):
    """Thoughts that are the same for every question are told, but for a prompt, which is meant to be so."""
    path = write_evaluation(tmp_path / "a", [line_of(0, ["18"])], thought_generator=kind)
    variance = {"over_questions": spread, "over_slots": 0.1, "over_chains": None, "mean_square": 1.0}
    variance |= {"num_questions": questions, "num_thoughts": 4}
    report.print_report(replace(report.Report.read(path), thought_variance=variance))
    assert ("the thoughts are the same for every question" in capsys.readouterr().out) == told


def test_compare_names_other_settings(run, tmp_path):
    """--compare names the settings that differ beyond the thoughts: such a pair is not a fair one."""
    records = [line_of(i, ["18", "7"]) for i in range(4)]
    a = write_evaluation(tmp_path / "a", records, base_model_id="one")
    b = write_evaluation(tmp_path / "b", records, base_model_id="other", thought_generator="small")
    assert compare(a, b).differ == {"base_model_id": ["one", "other"]}
    assert "note: base_model_id differs: A 'one', B 'other'" in run("--compare", a, b, data=False)
    same = {"fingerprints": {"large": "0" * 16}}  # one LLM, by two paths
    c = write_evaluation(tmp_path / "c", records, base_model_id="one", **same)
    d = write_evaluation(tmp_path / "d", records, base_model_id="../one", **same)
    assert compare(c, d).differ == {}
    for number, (text, differ) in enumerate((("1 2.001", 0), ("1 2.2", 1), (5, 1), (None, 0))):
        known = ({"known_states": {"large": one, "small": one}} for one in ("1 2", text))
        places = (tmp_path / f"{name}{number}" for name in "ef")
        pair = [write_evaluation(place, records, **more) for place, more in zip(places, known, strict=True)]
        assert list(compare(*pair).differ) == ["known_states.large"] * differ


def test_compare_refuses_other_questions(run, tmp_path):
    """Reports over other questions, files that are no report and a single report are refused in one line."""
    a = write_evaluation(tmp_path / "a", [line_of(i, ["18", "7"]) for i in range(3)])
    b = write_evaluation(tmp_path / "b", [line_of(i, ["18", "7"], gold="19") for i in range(3)])
    with pytest.raises(InputError, match="not about the same gold answers"):
        compare(a, b)
    (tmp_path / "c").mkdir()
    shutil.copy(a, tmp_path / "c")
    assert "c/samples.jsonl: no such file" in run("--compare", a, tmp_path / "c" / "report.json", data=False)
    assert "samples.jsonl: not JSON" in run("--compare", a, a.with_name("samples.jsonl"), data=False)
    assert run("--compare", a, data=False) == "error: --compare takes two evaluations, each a report.json or its folder"


def test_compare_knows_its_report_beside_longer_samples(tmp_path):
    """Of samples that a longer run has added to, the report's own are compared; where they are no longer those that the
    report was made of, one line says so."""
    lines = [line_of(i, ["18", "7"]) for i in range(3)]
    a, b = (write_evaluation(tmp_path / name, lines[:2]) for name in "ab")
    values = json.loads(a.read_text())
    a.write_text(json.dumps(values | {"samples": report.lines_digest(lines[:2])}))
    (tmp_path / "a" / "samples.jsonl").write_text("".join(line.json() for line in lines))
    figures = compare(a, b)
    assert figures.num_questions == 2 and figures.sample.difference.value == 0
    for wrong in ([lines[0], line_of(1, ["18", "18"]), lines[2]], [lines[1], lines[0]], lines[:1]):
        (tmp_path / "a" / "samples.jsonl").write_text("".join(line.json() for line in wrong))
        with pytest.raises(InputError, match="a/samples.jsonl: not the samples that report.json is about"):
            compare(a, b)


FOREIGN = {
    "no report": ({"settings": None}, "settings: is None, not dict"),
    "settings of something else": ({"settings": {"a": 1}}, "settings: has no thought_generator"),
    "an answer type of its own": ({"settings.answer_type": 5}, "answer_type: is 5, not str"),
    "an unknown answer type": ({"settings.answer_type": "poem"}, "its settings: answer_type is not what"),
    "fewer thoughts than none": ({"settings.num_thought_tokens": -1}, "its settings: num_thought_tokens is not what"),
    "sampling that is a text": ({"settings.sampling": "much"}, "sampling: is 'much', not"),
    "no samples": ({"settings.sampling": {"num_return_sequences": 0}}, "its maj_at_k or pass_at_k is not what"),
    "no questions": ({"num_questions": 0}, "its num_questions is not what"),
    "an accuracy above 1": (
        {"vote_accuracy": {"value": 7, "low": 0, "high": 9}},
        "its vote_accuracy or sample_accuracy",
    ),
    "an interval upside down": ({"sample_accuracy": {"value": 0.5, "low": 0.9, "high": 0.1}}, "its vote_accuracy or"),
    "an interval of texts": ({"vote_accuracy": {"value": "a", "low": 0, "high": 1}}, "value: is 'a', not float"),
    "letters for k": ({"maj_at_k": {"one": 0.5}}, "its maj_at_k or pass_at_k is not what"),
    "k from 0": ({"pass_at_k": {"0": 0.5, "1": 0.5}}, "its maj_at_k or pass_at_k is not what"),
    "a checkpoint that is a text": ({"checkpoint": "mine"}, "checkpoint: is 'mine', not"),
    "dev losses that are texts": (
        {"checkpoint": {"name": "x", "run": "r", "dev": {"eval_sft_loss": "low"}}},
        "dev.eval_sft_loss: is 'low', not float",
    ),
    "starts that are none": ({"starts": [1]}, "starts[0]: is 1, not dict"),
}


@pytest.mark.parametrize("command", ["--plot", "--rank", "--compare"])
@pytest.mark.parametrize(("changes", "reason"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_reports_are_one_line(run, tmp_path, command, changes, reason):
    """What is wrong in a report.json is named in one line, whatever reads it."""
    pytest.importorskip("matplotlib")
    path = write_evaluation(tmp_path / "a", [line_of(0, ["18"])])
    values = json.loads(path.read_text())
    for name, value in changes.items():
        place = values["settings"] if name.startswith("settings.") else values
        place[name.removeprefix("settings.")] = value
    path.write_text(json.dumps(values))
    said = run(command, *[path] * (2 if command == "--compare" else 1), data=False)
    assert said.startswith(f"error: {path}: ") and reason in said and "\n" not in said
