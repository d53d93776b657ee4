"""Plots: runs side by side, their losses by step and the accuracy of their votes.

    python evaluate.py --plot RUN [RUN ...]

A RUN is train.py's --output_name (the log of its training, and every report of its weights in results/) or the path of
one report.json. The evaluations in results/ of the same questions by the LLM without thoughts are drawn beside it.
plot_runs writes an SVG and a PNG (needs matplotlib), and a page of a browser.
"""

from itertools import cycle
from pathlib import Path

from lta_thinker.common import InputError, shortened
from lta_thinker.evaluation.report import Report
from lta_thinker.evaluation.run_page import write_run_page
from lta_thinker.evaluation.runs import TITLES, Run, evaluation_titles, read_runs

# a run's colour, line and marker: colours that the colour-blind can distinguish (Okabe and Ito); lines and markers for
# prints in grey. 6 colours, 5 lines and 7 markers in turn make 210 runs that look different
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7")
LINES = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (2.5, 1.5)), (0, (9, 2, 1.5, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FILLS = ("full", "none", "left", "right", "top", "bottom")  # of the markers, for a run's evaluations


def line_style(i: int) -> dict:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)], "marker": MARKERS[i % len(MARKERS)]}


def load_matplotlib(flag: str):
    """The library; InputError where it is missing."""
    try:
        import matplotlib.figure
        import matplotlib.lines
    except ImportError:
        raise InputError(f"matplotlib is needed for the drawings of {flag}: pip install matplotlib") from None
    return matplotlib


# ---------------------------------------------------------------------------------------------------------------------
# The drawing


def plot_runs(names: list[str], output_dir: str | None) -> list[Path]:
    """Draw the runs (names or paths of reports) into `output_dir` (None: results/); returns the paths of both drawings
    and of the page.

    Raises InputError without matplotlib, and as read_runs does.
    """
    matplotlib = load_matplotlib("--plot")
    runs = read_runs(names)
    notes = [f"{run.title}: no report of its weights in results/, so no maj@k" for run in runs if not run.reports]
    asked = {(report.settings["questions"], report.num_questions) for run in runs for report in run.reports.values()}
    if len(asked) > 1:
        notes.append(
            "the evaluations are not of the same questions: their curves are not to be compared point by point"
        )
    for note in notes:
        print(f"note: {note}")
    folder = Path(output_dir or "results")
    stem = shortened("-".join(["plot", *(run.title.replace(" ", "-") for run in runs if run.named)]))
    paths = [folder / f"{stem}.svg", folder / f"{stem}.png"]
    with matplotlib.rc_context({"font.size": 9, "axes.titlesize": 10, "svg.hashsalt": "plot"}):
        figure = draw_runs(matplotlib, runs)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written to ({error.strerror}); use another --output_dir") from None
    page = folder / f"{stem}.html"
    write_run_page(runs, page, notes)
    return [*paths, page]


def draw_runs(matplotlib, runs: list[Run]):
    """A Figure: a row with training and dev for the SFT loss and for every other loss that some run has, a panel with
    the dev accuracy where some run has one, and beside them maj@k."""
    has_logs, has_reports = any(run.log for run in runs), any(run.reports for run in runs)
    rows = [name for name in TITLES if any(run.curve(name)[0] for run in runs) or (name == "sft_loss" and has_logs)]
    rows += ["accuracy"] if any(run.curve("eval_accuracy")[0] for run in runs) else []
    legends = [legend_of_losses(matplotlib, runs)] if has_logs else []
    legends += [legend_of_evaluations(matplotlib, runs)] if has_reports else []
    lines, columns = max(map(len, legends)), 2 * has_logs + has_reports
    size = (max(5.6, 4.4 * columns), 3.3 * max(1, len(rows)) + 0.19 * lines)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    grid, first = figure.add_gridspec(max(1, len(rows)), columns), None
    for row, name in enumerate(rows):
        for column, key in enumerate((name, f"eval_{name}")):
            if any(run.curve(key)[0] for run in runs):
                axes = figure.add_subplot(grid[row, column], sharex=first)
                axes.set_title(f"{('training', 'dev')[column]}: {TITLES[name]}")
                draw_curves(axes, runs, key)
                first = first or axes
    if has_reports:
        draw_votes(figure.add_subplot(grid[:2, -1]), runs)
    # a legend is filled column by column: the shorter column ends in empty lines
    blank = matplotlib.lines.Line2D([], [], linestyle="none", label=" ")
    handles = [handle for legend in legends for handle in legend + [blank] * (lines - len(legend))]
    figure.legend(handles=handles, ncols=len(legends), loc="outside lower center", frameon=False, handlelength=4)
    return figure


def draw_curves(axes, runs: list[Run], key: str) -> None:
    """One key of the log by step; on dev curves a star at the step whose weights were chosen."""
    drawn = []
    for run in runs:
        steps, values = run.curve(key)
        if not steps:
            continue
        axes.plot(steps, values, **line_style(run.number), markersize=4, linewidth=1.2)
        drawn += values
        if key.startswith("eval_") and run.best_step in steps:
            at = steps.index(run.best_step)
            star = {"marker": "*", "markersize": 13, "markeredgecolor": "black", "markeredgewidth": 0.7}
            axes.plot(steps[at], values[at], color=line_style(run.number)["color"], **star, linestyle="none", zorder=5)
    if min(drawn) > 0 and max(drawn) > 20 * min(drawn):
        axes.set_yscale("log")
    axes.set_xlabel("optimiser step")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)


def evaluations(runs: list[Run]) -> list[tuple[Path, Report, dict]]:
    """(path, report, style) of all reports, in the order of the runs."""
    return [
        (path, report, line_style(run.number) | {"fillstyle": fill, "markerfacecoloralt": "white", "markersize": 5})
        for run in runs
        for (path, report), fill in zip(run.reports.items(), cycle(FILLS), strict=False)
    ]


def draw_votes(axes, runs: list[Run]) -> None:
    """maj@k over k of every report and, right of the curves, the vote with its interval; pass@k thin and dotted."""
    found = evaluations(runs)
    most = max(len(report.maj_at_k) for _, report, _ in found)
    apart = max(0.05, 0.025 * most)
    for i, (_, report, style) in enumerate(found, 1):
        thin = {"color": style["color"], "linestyle": ":", "linewidth": 0.9}
        for curve, look in ((report.maj_at_k, style | {"linewidth": 1.2}), (report.pass_at_k, thin)):
            axes.plot([int(k) for k in curve], [100 * share for share in curve.values()], **look)
        vote = report.vote_accuracy
        value, low, high = 100 * vote.value, 100 * vote.low, 100 * vote.high
        bar = style | {"linestyle": "none", "markersize": 4, "capsize": 2}
        axes.errorbar(most + (i + 0.4) * apart, value, [[value - low], [high - value]], **bar)
    axes.set(title="maj@k, pass@k", xlabel="k samples", ylabel="right, %")
    axes.set_xlim(0.5, max(most + 0.5, most + (len(found) + 1.4) * apart))
    axes.set_xticks(range(max(1, most // 10), most + 1, max(1, most // 10)))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)


def legend_of_losses(matplotlib, runs: list[Run]) -> list:
    """Legend entries of the panels of the log."""
    line = matplotlib.lines.Line2D
    entries = [line([], [], **line_style(run.number), markersize=4, label=run.title) for run in runs if run.log]
    star = {"marker": "*", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": "black"}
    return [*entries, line([], [], linestyle="none", **star, label="the step that was chosen on dev")]


def legend_of_evaluations(matplotlib, runs: list[Run]) -> list:
    """Legend entries of the panel of the votes."""
    titles, line = evaluation_titles(runs), matplotlib.lines.Line2D
    entries = [line([], [], **style, label=titles[path]) for path, _, style in evaluations(runs)]
    thin = line([], [], color="0.3", linestyle=":", linewidth=0.9, label="pass@k; bars: the vote's 95 % interval")
    return [*entries, thin]
