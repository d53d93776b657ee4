"""The page of a run: its charts have what the log has, and the step that was chosen; train.py and --plot write it."""

import json
import re
from pathlib import Path

from helpers import line_of, write_evaluation
from test_page import Parts, data_of, tab  # noqa: F401

from lta_thinker import evaluate
from lta_thinker.evaluation.run_page import CHARTS, write_run_page
from lta_thinker.evaluation.runs import Run

LOG = [
    {"step": 1, "sft_loss": 2.0, "loss": 2.5, "balance_align": 0.5, "grad_norm": float("inf")},
    {"step": 2, "sft_loss": 1.0, "loss": 1.5, "balance_align": 0.25, "grad_norm": 3.0},
    {
        "step": 2,
        "eval_sft_loss": 1.5,
        "eval_information": 4.0,
        "eval_information_low": 3.0,
        "eval_information_high": 5.0,
    },
    {"step": 3, "sft_loss": 0.01, "loss": 1.0, "thought_variance_questions": 0.1, "grad_norm": 2.0},
    {"step": 4, "eval_sft_loss": 1.25, "eval_thought_variance_questions": 0.2},
]


def charts_in(path: Path) -> dict[str, dict]:
    return {chart["title"]: chart for chart in data_of(path.read_text(encoding="utf-8"))["charts"]}


def test_charts_have_what_the_log_has(tmp_path):
    """Losses, balance, information and variance are drawn by step, training and dev in one chart, the information with
    its interval, and the chosen step is marked on dev; what is not finite is left out."""
    write_run_page([Run("a", 0, LOG, 4, {})], tmp_path / "run.html")
    charts = charts_in(tmp_path / "run.html")
    curves = {title: [one["points"] for one in chart["series"]] for title, chart in charts.items()}
    assert curves == {
        CHARTS["sft_loss"]: [[[1, 2.0], [2, 1.0], [3, 0.01]], [[2, 1.5], [4, 1.25]]],
        CHARTS["loss"]: [[[1, 2.5], [2, 1.5], [3, 1.0]]],
        CHARTS["information"]: [[[2, 4.0, 3.0, 5.0]]],
        CHARTS["thought_variance_questions"]: [[[3, 0.1]], [[4, 0.2]]],
        CHARTS["balance_align"]: [[[1, 0.5], [2, 0.25]]],
        CHARTS["grad_norm"]: [[[2, 3.0], [3, 2.0]]],
    }
    sft = charts[CHARTS["sft_loss"]]
    assert [(one["name"], one["dashed"], one["chosen"]) for one in sft["series"]] == [
        ("training", False, None),
        ("dev", True, 4),
    ]
    assert sft["log"] and not charts[CHARTS["loss"]]["log"]  # from 0.01 to 2, from 1 to 2.5


def test_training_writes_the_page_of_its_run(trained):
    """train.py leaves run.html beside its log, of the whole log, with its flags; it is made from its own log alone."""
    folder = trained.parent.parent / "results" / "run"
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    best = json.loads((trained / "thoughts.json").read_text())["best"]
    training, dev = charts_in(folder / "run.html")[CHARTS["sft_loss"]]["series"]
    assert training["points"] == [[line["step"], line["sft_loss"]] for line in log if "sft_loss" in line]
    assert dev["points"] and dev["chosen"] == best["step"]
    text = (folder / "run.html").read_text()
    assert f'<th scope="row">chosen step</th><td class="short">{best["step"]}</td>' in re.sub(r"\n", "", text)
    assert '<th scope="row">learning_rate</th><td class="short">0.001</td>' in text


def test_plot_writes_a_page(no_drawing, tmp_path, monkeypatch, capsys):
    """--plot's page has all its runs, each in a colour of its own, and their evaluations with links to their pages."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate("ab"):
        folder = Path("results", name)
        folder.mkdir(parents=True)
        state = {"global_step": 4, "best_global_step": 2 + 2 * i, "log_history": LOG}
        (folder / "trainer_state.json").write_text(json.dumps(state))
        facts = {"name": name, "run": name, "dev": None}
        write_evaluation(Path("results", f"eval-{name}"), [line_of(0, ["18", "7"])], facts, num_thought_tokens=4)
    Path("results/eval-b/report.html").write_text("")
    evaluate.main(["--plot", "a", "b", "--output_dir", "out"])
    assert capsys.readouterr().out.split()[-1] == "out/plot-a-b.html"
    text = Path("out/plot-a-b.html").read_text()
    charts = charts_in(Path("out/plot-a-b.html"))
    series = charts[CHARTS["sft_loss"]]["series"]
    assert [(one["name"], one["colour"], one["chosen"]) for one in series] == [
        *(("a: training", 0, None), ("a: dev", 0, 2)),
        *(("b: training", 1, None), ("b: dev", 1, 4)),
    ]
    assert [given["href"] for tag, given in Parts(text).tags if tag == "a"] == ["../results/eval-b/report.html"]
    assert "maj@k and pass@k, % right" in charts


def test_charts_are_drawn(tab, tmp_path):  # noqa: F811
    """In a browser each chart has a marker at every point and marks the chosen step."""
    path = tmp_path / "run.html"
    write_run_page([Run("a", 0, LOG, 4, {})], path)
    tab.open(path)
    drawn = "[...document.querySelectorAll('.chart > svg')].map(one => one.querySelectorAll('circle').length)"
    assert tab.run(drawn) == [5, 3, 1, 2, 2, 2]
    assert tab.run("[...document.querySelectorAll('.chart text')].filter(one => one.textContent === '★').length") == 2
    left = "[...document.querySelectorAll('.chart > svg text')].map(one => one.getBBox().x)"
    assert min(tab.run(left)) >= 0, "a number beside an axis is cut off"
    assert tab.run("[0.000075, 0.00012346, 0.05, 0].map(shortened)") == ["7.5e-5", "1.235e-4", "0.05", "0"]
    assert tab.errors() == []
