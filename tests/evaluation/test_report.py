"""report.json and --compare: the figures worked out by hand, intervals, questions in pairs."""

import re
import shutil

import numpy as np
import pytest
from helpers import line_of, write_evaluation

from lta_thinker import evaluate
from lta_thinker.common import InputError
from lta_thinker.evaluation import report


def test_report_figures_match_hand_calculation():
    """Accuracies, maj@k, pass@k, ties and shares of four questions are those worked out by hand."""
    records = [
        line_of(0, ["18", "18.0", "7"]),
        line_of(1, ["7", None, None], finished=False),
        line_of(2, ["18", "7", "9"], tokens=8),
        line_of(3, [None, None, None]),
    ]
    assert [(r.vote, r.correct) for r in records] == [("18", True), ("7", False), ("18", True), (None, False)]
    figures = report.make_figures(records, "number")
    assert figures.vote_accuracy.value == figures.maj_at_k["3"] == 0.5
    assert figures.sample_accuracy.value == figures.maj_at_k["1"] == pytest.approx(0.25)
    assert figures.pass_at_k == pytest.approx({"1": 0.25, "2": (1 + 2 / 3) / 4, "3": 0.5})
    assert (figures.ties, figures.no_answer, figures.cut_off) == (1, 5 / 12, 0.25)
    assert figures.tokens_per_sample == pytest.approx(5.75)
    assert figures.vote_accuracy.low < 0.5 < figures.vote_accuracy.high


def test_report_tells_information_of_training(tmp_path, capsys):
    """The report's table has the information of the thoughts where the checkpoint's dev record has it, and no line of
    it where it has not."""
    dev = {"step": 5, "eval_information": 0.4211, "eval_information_low": 0.38, "eval_information_high": 0.4622}
    for i, facts in enumerate([{"step": 5}, None, dev]):
        path = write_evaluation(tmp_path / f"{i}", [line_of(0, ["18"])], {"name": "x", "run": None, "dev": facts})
        report.print_report(report.Report.read(path))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "information" in line]
    assert re.fullmatch(r"  information of the thoughts +0\.421 nats an answer \[0\.38, 0\.462\] \(.*dev.*\)", line)


def test_intervals_cover_as_they_say(monkeypatch):
    """95 % intervals of a mean of 100 coins hold the truth in about 95 of 100 draws."""
    monkeypatch.setattr(report, "RESAMPLES", 1000)
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        figure = report.interval(rng.random(100) < 0.7)
        hits += figure.low <= 0.7 <= figure.high
    assert 88 <= hits <= 99


def test_compare_pairs_the_questions(run, tmp_path):
    """--compare prints both accuracies and B - A with its paired interval, which is much narrower than an unpaired
    one."""
    poor = [line_of(i, ["18", "7"] if i % 2 else ["7", "7"]) for i in range(60)]
    good = [line_of(i, ["18", "18"] if i % 2 else ["18", "7"]) for i in range(60)]
    a = write_evaluation(tmp_path / "a", poor)
    b = write_evaluation(tmp_path / "b", good, num_thought_tokens=2, thought_generator="small_block")
    figures = evaluate.compare(a, b)
    assert vars(figures.sample.difference) == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    assert figures.sample.a.value == 0.25 and figures.vote.difference.value == 0.5
    assert figures.vote.difference.low < 0.5 < figures.vote.difference.high
    printed = run("--compare", a, b, data=False)
    assert "no thoughts, 2 samples" in printed and "2 thoughts (small_block)" in printed
    assert re.search(r"B - A, paired +50\.0 \[50\.0, 50\.0\]", printed)


def test_compare_names_other_settings(run, tmp_path):
    """--compare names the settings that differ beyond the thoughts: such a pair is not a fair one."""
    records = [line_of(i, ["18", "7"]) for i in range(4)]
    a = write_evaluation(tmp_path / "a", records, base_model_id="one")
    b = write_evaluation(tmp_path / "b", records, base_model_id="other", thought_generator="small")
    assert evaluate.compare(a, b).differ == {"base_model_id": ["one", "other"]}
    assert "note: base_model_id differs: A 'one', B 'other'" in run("--compare", a, b, data=False)


def test_compare_refuses_other_questions(run, tmp_path):
    """Reports over other questions, files that are no report and a single report are refused in one line."""
    a = write_evaluation(tmp_path / "a", [line_of(i, ["18", "7"]) for i in range(3)])
    b = write_evaluation(tmp_path / "b", [line_of(i, ["18", "7"], gold="19") for i in range(3)])
    with pytest.raises(InputError, match="not about the same questions"):
        evaluate.compare(a, b)
    (tmp_path / "c").mkdir()
    shutil.copy(a, tmp_path / "c")
    assert "c/samples.jsonl: no such file" in run("--compare", a, tmp_path / "c" / "report.json", data=False)
    assert "samples.jsonl: not JSON" in run("--compare", a, a.with_name("samples.jsonl"), data=False)
    assert run("--compare", a, data=False) == "error: --compare takes two report.json"
