"""evaluate.py --plot: what is drawn is what the logs and the reports say."""

import json
import sys
from pathlib import Path

import pytest

from lta_thinker import evaluate, train
from lta_thinker.checkpoint import NEEDED, write_complete
from lta_thinker.common import InputError
from lta_thinker.evaluation import plots

pytest.importorskip("matplotlib")


def state(steps: int, losses=("sft",), best: int = 20) -> dict:
    """Trainer's state of a run that logs every 10 steps and evaluates every 20."""
    log = []
    for step in range(10, steps + 1, 10):
        log.append({"loss": 1 / step, "step": step} | {f"{name}_loss": 2 / step for name in losses})
        if step % 20 == 0:
            log.append({"eval_loss": 3 / step, "eval_sft_loss": 3 / step, "eval_focus_loss": 1.5, "step": step})
    return {"global_step": steps, "best_global_step": best, "log_history": log}


def report(run: str | None, samples: int = 3, **settings) -> dict:
    settings = {
        **{"thought_generator": "block", "num_thought_tokens": 4, "split": "test", "questions": "0a"},
        **{"base_model_id": "toy/large", "answer_type": "number", "task_name": "arithmetic", "dtype": "float32"},
        **{"sampling": {"num_return_sequences": samples}},
    } | settings
    figures = {str(k): 0.5 + 0.1 * k / max(1, samples / 4) for k in range(1, samples + 1)}
    accuracy = {"value": figures[str(samples)], "low": 0.4, "high": 0.9}
    shares = {"no_answer": 0.0, "cut_off": 0.0, "tokens_per_sample": 5.0, "ties": 0, "unsettled": 0}
    made = {"speed": None, "thought_variance": None, "versions": {}, "wall_seconds": 1.0}
    return {
        **{"num_questions": 12, "vote_accuracy": accuracy, "sample_accuracy": accuracy},
        **(shares | made),
        "maj_at_k": figures,
        "pass_at_k": figures,
        "settings": settings,
        "checkpoint": {"name": "x", "run": run, "dev": {"step": 20} if run else None},
    }


def write(path: str, content: dict | str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def written(monkeypatch, tmp_path) -> list:
    """Every figure that is drawn; the working directory is the test's own."""
    monkeypatch.chdir(tmp_path)
    drawn, own = [], plots.draw_runs
    monkeypatch.setattr(plots, "draw_runs", lambda *args: drawn.append(own(*args)) or drawn[-1])
    return drawn


@pytest.fixture
def figures(written, no_drawing) -> list:
    """As `written`, but the drawings' files are empty: each takes half a second."""
    return written


def lines(figure) -> dict[str, list[tuple]]:
    """{title of a panel: its lines as ([x], [y])}, stars and intervals included."""
    return {
        axes.get_title(): [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
        for axes in figure.axes
    }


def test_plot_shows_log_and_reports(flags, figures, capsys):
    """A run's curves are those of its log, its votes those of its reports, and the chosen step is marked."""
    steps = ["--eval_strategy", "steps", "--eval_steps", "2", "--align_loss_weight", "0"]
    train.run([*flags, "--output_name", "run", *steps])
    (folder,) = Path("ckpt").iterdir()
    shared = ["--data_dir", flags[5], "--num_return_sequences", "3", "--max_new_tokens", "8", "--test_k", "4"]
    evaluate.main(["--checkpoint", str(folder), *shared])
    bare = ["--base_model_id", flags[1], "--thought_generator", "none", "--task_name", "gsm8k"]
    evaluate.main([*bare, *shared, "--output_dir", "bare"])
    capsys.readouterr()
    evaluate.main(["--plot", "run", "bare/report.json"])
    paths = capsys.readouterr().out.split()
    assert paths == [f"results/plot-run-large-without-thoughts.{suffix}" for suffix in ("svg", "png", "html")]

    log = json.loads(Path("results/run/trainer_state.json").read_text())["log_history"]
    best = json.loads((folder / "thoughts.json").read_text())["best"]
    drawn = lines(figures[0])
    for key, title in {"sft_loss": "SFT loss", "focus_loss": "reasoning focus loss"}.items():
        points = [(line["step"], line[key]) for line in log if key in line]
        assert len(points) == 5 and drawn.pop(f"training: {title}") == [tuple(map(list, zip(*points, strict=True)))]
        points = [(line["step"], line[f"eval_{key}"]) for line in log if f"eval_{key}" in line]
        curve, star = drawn.pop(f"dev: {title}")
        assert [step for step, _ in points] == [2, 4, 5] and curve == tuple(map(list, zip(*points, strict=True)))
        assert star == ([best["step"]], [dict(points)[best["step"]]])
    votes = drawn.pop("maj@k, pass@k")
    assert not drawn  # nothing is aligned
    (path,) = Path("results").rglob("report.json")
    for i, found in enumerate(json.loads(Path(path).read_text()) for path in (path, "bare/report.json")):
        assert found["checkpoint"]["run"] == (None if i else "run")
        for name, (ks, values) in zip(
            ("maj_at_k", "pass_at_k"), (line for line in votes if len(line[0]) == 3), strict=False
        ):
            assert ks == [1, 2, 3] and values == pytest.approx([100 * value for value in found[name].values()])
        votes = [line for line in votes if len(line[0]) < 3] + [line for line in votes if len(line[0]) == 3][2:]
    assert [text.get_text() for text in figures[0].legends[0].get_texts() if text.get_text().strip()] == [
        "run",
        "the step that was chosen on dev",
        f"run: 4 thoughts, step {best['step']}, 4 test questions",
        "large without thoughts: 4 test questions",
        "pass@k; bars: the vote's 95 % interval",
    ]


def test_same_runs_plot_same_bytes(written):
    """The same runs give the same files, to the byte: an SVG and a PNG of what was drawn, and a page."""
    write("results/a/trainer_state.json", state(40))
    write("results/eval-a/report.json", report("a"))
    files = []
    for folder in ("one", "other"):
        evaluate.main(["--plot", "a", "--output_dir", folder])
        files.append({path.suffix: path.read_bytes() for path in Path(folder).iterdir()})
    assert len(files[0]) == 3 and files[0] == files[1]
    assert files[0][".svg"].startswith(b"<?xml") and files[0][".png"][1:4] == b"PNG"


def complete(step: int) -> None:
    """The resume checkpoint of run a has all its files."""
    folder = Path(f"results/a/checkpoint-{step}")
    for name in NEEDED:
        if not (folder / name).exists():
            write(str(folder / name), "{}")
    write_complete(folder)


def test_killed_run_is_plotted_from_checkpoint(figures):
    """A killed run is drawn from its newest complete checkpoint, an ended one to its last line."""
    for step in (20, 40, 60):
        write(f"results/a/checkpoint-{step}/trainer_state.json", state(step))
    for number, step in enumerate((20, 40)):
        complete(step)
        evaluate.main(["--plot", "a"])
        assert lines(figures[number])["training: SFT loss"][0][0] == [*range(10, step + 1, 10)]
    write("results/a/trainer_state.json", state(50))
    evaluate.main(["--plot", "a"])
    assert lines(figures[2])["training: SFT loss"][0][0] == [10, 20, 30, 40, 50]
    complete(60)  # it was resumed
    evaluate.main(["--plot", "a"])
    assert lines(figures[3])["training: SFT loss"][0][0] == [10, 20, 30, 40, 50, 60]


def test_reports_belong_to_named_run(figures):
    """A report belongs to the run that it names and is drawn once. Older reports that name none are noted."""
    write("results/a/trainer_state.json", state(40))
    write("results/eval-a/n4/report.json", report("a"))
    write("results/eval-a/n2/report.json", report("a", num_thought_tokens=2))
    write("results/a-other-folder/report.json", report("another"))
    evaluate.main(["--plot", "a", "results/eval-a/n2/report.json"])  # the second is drawn already
    titles = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert [title for title in titles if "thoughts" in title] == [
        "a: 2 thoughts, step 20, 12 test questions",
        "a: 4 thoughts, step 20, 12 test questions",
    ]


def test_many_runs_look_different(figures, capsys):
    """Twelve runs look different, in grey too, and the legend covers no curve. Evaluations that read alike say where
    they are."""
    names = [f"gsm8k-small_block-seed{i}" for i in range(12)]
    for i, name in enumerate(names):
        write(f"results/{name}/trainer_state.json", state(40 + 10 * i, ("sft", "focus") if i == 3 else ("sft",)))
        if i % 2:
            write(f"results/eval-{name}/x3/report.json", report(name))
            write(f"results/eval-{name}/x1/report.json", report(name, samples=1, questions="0b"))
    evaluate.main(["--plot", *names])
    figure = figures[0]
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert len(figure.axes) == 5 and not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert len({(one.get_color(), one.get_marker()) for one in figure.axes[0].get_lines()}) == 12
    assert len({(look["linestyle"], look["marker"]) for look in map(plots.line_style, range(35))}) == 35  # in grey too
    titles = [text.get_text() for text in figure.legends[0].get_texts() if ":" in text.get_text()]
    assert len(titles) == len(set(titles)) == 13  # two evaluations that read alike say where they are
    said = capsys.readouterr().out
    assert f"note: {names[0]}: no report of its weights" in said and "not of the same questions" in said
    assert [len(path) for path in said.split()[-3:-1]] == [len("results/") + 200 + len("-12345678.svg")] * 2


def test_baseline_is_drawn_unasked(figures, capsys):
    """The LLM without thoughts on the same questions with the same sampling is drawn beside a run, and no other one: of
    another LLM, other questions, with an adapter or worked examples, other sampling. The file's name is the run's."""
    bare = {"thought_generator": "none", "num_thought_tokens": 0}
    write("results/eval-a/n4/report.json", report("a"))
    write("results/bare/report.json", report(None, **bare))
    others = ({"base_model_id": "x/other"}, {"questions": "0b"}, {"base_model/adapter_config.json": "0"})
    for i, other in enumerate((*others, {"num_fewshot": 2}, {"sampling": {"num_return_sequences": 3, "seed": 7}})):
        write(f"results/other{i}/report.json", report(None, **bare | other))
    evaluate.main(["--plot", "a"])
    titles = [text.get_text() for text in figures[0].legends[0].get_texts()][:-1]
    assert titles == ["a: 4 thoughts, step 20, 12 test questions", "large without thoughts: 12 test questions"]
    assert capsys.readouterr().out.split() == [f"results/plot-a.{suffix}" for suffix in ("svg", "png", "html")]
    evaluate.main(["--plot", "a", "results/bare/report.json"])  # named, it is drawn once
    assert len(figures[1].legends[0].get_texts()) == 3


def test_every_point_has_a_marker(figures):
    """A marker stands at every logged step, of a long run too."""
    write("results/a/trainer_state.json", state(400))
    evaluate.main(["--plot", "a"])
    lines = [line for axes in figures[0].axes for line in axes.get_lines()]
    assert len(lines) == 3 and all(line.get_markevery() is None and line.get_marker() in "o*" for line in lines)


FOREIGN = ["{}", "[]", "7", "", '{"a": NaN}', "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "\ud83d", '"\\ud800"']
FOREIGN += [json.dumps(report("a") | wrong) for wrong in ({"checkpoint": 5}, {"maj_at_k": {"x": 1}}, {"settings": {}})]


@pytest.mark.parametrize("content", FOREIGN, ids=range(len(FOREIGN)))
def test_broken_foreign_report_is_skipped(figures, capsys, content):
    """A broken report in another folder is passed over with a note."""
    write("results/a/trainer_state.json", state(20))
    Path("results/other").mkdir()
    Path("results/other/report.json").write_text(content, errors="surrogatepass")
    evaluate.main(["--plot", "a"])
    printed = capsys.readouterr().out
    assert printed.startswith("note: results/other/report.json: ") and "; it is passed over\n" in printed


@pytest.mark.parametrize(
    "log",
    [7, [7], [{}], [{"step": "1"}], [{"step": 1, "sft_loss": "low"}], [{"step": 1, "eval_sft_loss": None}]]
    + [[{"step": 1, "eval_accuracy": [1]}], [{"step": None, "sft_loss": 1.0}], {"step": 1}, "log"],
    ids=str,
)
def test_foreign_states_are_one_line(figures, log):
    """A trainer_state.json with anything but steps and numbers in what is drawn is refused in one line."""
    write("results/a/trainer_state.json", {"global_step": 5, "log_history": log})
    with pytest.raises(SystemExit) as error:
        evaluate.main(["--plot", "a"])
    assert str(error.value) == "error: results/a/trainer_state.json: not a state that train.py wrote"


def test_report_alone_plots_its_votes(figures):
    """A report alone gives a plot of its votes, also where its run is gone."""
    evaluate.main(["--plot", write("x/report.json", report(None, thought_generator="none", num_thought_tokens=0))])
    assert [axes.get_title() for axes in figures[0].axes] == ["maj@k, pass@k"]
    evaluate.main(["--plot", write("y/report.json", report("gone", samples=1))])
    assert lines(figures[1])["maj@k, pass@k"][0] == ([1], [60.0])
    two = [write(f"v{i}/report.json", report(f"gone{i}")) for i in range(3)]
    evaluate.main(["--plot", *two])
    (bars,) = [[bar[0].get_xdata()[0] for bar in axes.containers] for axes in figures[-1].axes]
    most = len(report(None)["maj_at_k"])  # each report has a bar of its own right of the curves, as far from the next
    steps = [round(right - left, 6) for left, right in zip([most, *bars], bars, strict=False)]
    assert len(bars) == 3 and 0 < steps[1] == steps[2] < steps[0], steps
    for samples, ticks in ((1, [1]), (3, [1, 2, 3]), (25, [*range(2, 26, 2)])):
        evaluate.main(["--plot", write(f"z{samples}/report.json", report("gone", samples=samples))])
        assert figures[-1].axes[0].get_xticks().tolist() == ticks


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nix"], "--plot nix: no such run in results/; a RUN is an --output_name or a report.json"),
        (["../a"], "--plot ../a: no such run"),
        (["empty"], "--plot empty: nothing to plot yet: nothing logged in results/empty, no report"),
        (["silent"], "--plot silent: nothing to plot yet: nothing logged in results/silent, no report"),
        (["a", "none.json"], "none.json: no such file"),
        (["a", "broken.json"], "broken.json: not JSON"),
        (["a", "other.json"], "other.json: not a report that evaluate.py wrote"),
        (["b"], "results/b/trainer_state.json: not a state that train.py wrote"),
        (["a", "--output_dir", "broken.json"], "broken.json: cannot be written to"),
    ],
)
def test_impossible_plots_are_refused(figures, names, message):
    """Runs that do not exist or logged nothing, files that are no report, and a folder that cannot be written to are
    refused in one line."""
    write("results/a/trainer_state.json", state(20))
    write("results/b/trainer_state.json", "{}")
    write("broken.json", "{")
    write("other.json", "{}")
    write("results/silent/trainer_state.json", '{"global_step": 5, "log_history": []}')
    Path("results/empty").mkdir()
    with pytest.raises(SystemExit) as error:
        evaluate.main(["--plot", *names])
    assert str(error.value).startswith(f"error: {message}") and "\n" not in str(error.value)
    assert not list(Path().rglob("plot-*"))


def test_missing_matplotlib_says_what_to_install(monkeypatch):
    """Without matplotlib one line says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="^matplotlib is needed for the drawings of --plot: pip install matplotlib$"):
        plots.plot_runs(["a"], None)
