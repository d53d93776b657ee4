"""Plots of the study: black and white, so lines differ in style and marks, bars in hatching."""

from pathlib import Path

import numpy as np

from benchmarks.study_report import PER_SAMPLE, VOTE, Points, Report, interval, stacked
from benchmarks.study_runs import Wanted
from benchmarks.study_worlds import CONTESTANTS

STYLES = [("black", "-", "o"), ("0.45", "--", "s"), ("black", ":", "^"), ("0.65", "-.", "D")]
MARKS = "os^DvxP"


def draw(folder: Path, name: str, paint, size=(7.2, 4.0)) -> None:
    """An SVG whose bytes follow from what is painted."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"font.size": 10, "svg.hashsalt": "study", "axes.grid": True}
    matplotlib.rcParams |= {"grid.color": "0.9", "axes.axisbelow": True, "legend.framealpha": 1.0}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    paint(axes)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def plot_contestants(report: Report, pairs: Wanted, label: str):
    """Bars of one sample and of the vote, with intervals."""

    def paint(axes):
        found = report.records(pairs, label)
        names = [CONTESTANTS[name].title for name, _ in found]
        for i, (what, colour, hatch) in enumerate(((PER_SAMPLE, "white", "///"), (VOTE, "0.6", ""))):
            figures = [interval(stacked(records, label, what)) for records in found.values()]
            means, lows, highs = zip(*figures, strict=True)
            errors = [np.subtract(means, lows), np.subtract(highs, means)]
            rows = np.arange(len(names)) + 0.2 * (2 * i - 1)
            axes.barh(
                rows, means, 0.38, xerr=errors, color=colour, edgecolor="black", hatch=hatch, capsize=2, label=what
            )
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="right answers, % (95 % interval over seeds and questions)", xlim=(0, 102))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return paint


def plot_lines(lines: dict[str, tuple[list, list]], xlabel: str, ylabel: str, **axis):
    """{title: (x, [(mean, low, high)] or [y])}."""

    def paint(axes):
        for (title, (x, y)), (colour, dash, mark) in zip(lines.items(), STYLES, strict=False):
            y = np.array(y, dtype=float)
            if y.ndim == 1:
                axes.plot(x, y, color=colour, linestyle=dash, label=title)
                continue
            errors = [y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]]
            axes.errorbar(x, y[:, 0], errors, color=colour, linestyle=dash, marker=mark, capsize=3, label=title)
        axes.set(xlabel=xlabel, ylabel=ylabel, **axis)
        axes.legend()

    return paint


def thoughts_lines(report: Report, pairs: Wanted) -> dict:
    """One sample over n in evaluation, a line for each N in training."""
    lines = {}
    for made in (4, 8, 16, 32):
        x, y = [], []
        for n in (1, 2, 4, 8, 16, 32):
            for (_, options), records in report.records(pairs, f"n{n}-x4").items():
                if dict(options).get("num_thought_tokens", 8) == made:
                    x.append(n)
                    y.append(interval(stacked(records, f"n{n}-x4", PER_SAMPLE)))
        if x:
            lines[f"trained with {made}"] = (x, y)
    return lines


def loss_lines(report: Report, pairs: Wanted) -> dict:
    """Training and dev SFT loss with and without the steps in view, mean over seeds."""
    lines = {}
    for name in ("small_block-sft", "leak"):
        records = [report.study.record(run).get("training") for run, _ in pairs if run.contestant == name]
        records = [record for record in records if record]
        if not records:
            return {}
        title = "steps seen" if name == "leak" else "steps not seen"
        curves = [np.array(record["curve"]) for record in records]
        lines[f"training, {title}"] = (curves[0][:, 0], np.mean([curve[:, 1] for curve in curves], axis=0))
        dev = [[point["eval_sft_loss"] for point in record["dev_curve"]] for record in records]
        lines[f"dev, {title}"] = ([point["step"] for point in records[0]["dev_curve"]], np.mean(dev, axis=0))
    return lines


def plot_variance(points: Points):
    def paint(axes):
        for (name, runs), mark in zip(points.items(), MARKS, strict=False):
            x, _, y = zip(*runs, strict=True)
            colour = {"c": "black"} if mark == "x" else {"facecolors": "none", "edgecolors": "black"}
            axes.scatter(x, y, marker=mark, label=name, **colour)
        axes.set(xscale="log", xlabel="variance of the thoughts over questions", ylabel="one sample, % right")
        axes.legend()

    return paint
