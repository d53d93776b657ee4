"""The page of a run: its curves by step, the step that dev has chosen, its flags, and the evaluations of its weights.

    write_run_page(read_runs(["first"]), path)      # evaluate.py --plot first
    write_run_page([Run(...)], path)                # train.py, at its end: results/first/run.html

Training and dev of a figure are one chart. What the log does not have is not there.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from lta_thinker.common import InputError, flatten, read_json
from lta_thinker.evaluation.page import Chart, Page, Series, Table, link_to, shown, union, votes_chart, write_page
from lta_thinker.evaluation.runs import TITLES, Run, evaluation_titles, is_number

RUN_PAGE_FILE = "run.html"
FLAGS_FILE = "flags.json"  # of train.py, in the run's folder
CHARTS = {
    **TITLES,
    "loss": "weighted sum of the losses",
    "information": "information of the thoughts, nats an answer",
    "thought_variance_questions": "variance of the thoughts over questions",
    "thought_variance_slots": "variance of the thoughts over slots",
    "thought_variance_chains": "variance of the thoughts over chains",
    "balance_align": "balance: factor of the alignment loss",
    "balance_focus": "balance: factor of the focus loss",
    "balance_diversity": "balance: factor of the diversity loss",
    "grad_norm": "norm of the gradient",
    "learning_rate": "learning rate",
}


def points_of(run: Run, key: str) -> list[tuple[float, ...]]:
    """(step, value) of each line of the log with the key, with the interval where it has one. What is not finite (a
    gradient's norm may be infinite) is left out."""
    points = []
    for line in run.log:
        values = [line[name] for name in (key, f"{key}_low", f"{key}_high") if name in line]
        if key in line and all(is_number(value) and math.isfinite(value) for value in values):
            points.append((line["step"], *values))
    return points


def charts_of(runs: Sequence[Run]) -> list[Chart]:
    """A chart for each of CHARTS that some run has logged: its training and, dashed, its dev curve."""
    charts = []
    for key, title in CHARTS.items():
        series = []
        for run in runs:
            before = f"{run.title}: " if len(runs) > 1 else ""
            for part, name in (("training", key), ("dev", f"eval_{key}")):
                if points := points_of(run, name):
                    chosen = run.best_step if part == "dev" else None
                    series.append(Series(before + part, points, run.number, part == "dev", chosen))
        if series:
            values = [point[1] for one in series for point in one.points]
            charts.append(Chart(title, "optimiser step", series, log=0 < 20 * min(values) < max(values)))
    return charts


def facts_of(run: Run) -> dict[str, str]:
    """What the log says of the run and of the step that was chosen."""
    facts = {"last step": str(max(line["step"] for line in run.log))}
    if run.best_step is not None:
        facts["chosen step"] = str(run.best_step)
        lines = [line for line in run.log if line["step"] == run.best_step]
        dev = {key: value for line in lines for key, value in line.items() if key.startswith("eval_")}
        for key, title in CHARTS.items():
            if is_number(dev.get(f"eval_{key}")):
                facts[f"dev: {title}"] = f"{dev[f'eval_{key}']:.4g}"
    return facts


def flags_of(run: Run) -> dict[str, str]:
    """The flags of a run, as train.py has written them; none where there is no such file. InputError where it is
    broken."""
    path = Path("results", run.title, FLAGS_FILE)
    if not path.is_file():
        return {}
    flags = read_json(path)
    if not isinstance(flags, dict):
        raise InputError(f"{path}: not the flags of a run of train.py")
    return {key: shown(value) for key, value in flatten(flags).items()}


def write_run_page(runs: Sequence[Run], path: Path, notes: Sequence[str] = ()) -> None:
    """The page of these runs, with notes at its top. InputError where it cannot be written, or flags.json is broken."""
    logged, titles = [run for run in runs if run.log], evaluation_titles(list(runs))
    reports = {one: report for run in runs for one, report in run.reports.items()}
    header, tables = ["", *(run.title for run in logged)], []
    if logged:
        tables.append(Table("Steps", header, union(list(map(facts_of, logged)))))
    if reports:
        rows = [[titles[one], of.sample_accuracy.percent, of.vote_accuracy.percent] for one, of in reports.items()]
        links = [link_to(one, path.parent) for one in reports]
        tables.append(Table("Evaluations, % right", ["", "one sample", "vote"], rows, links))
    if logged:
        tables.append(Table("Flags", header, union(list(map(flags_of, logged))), folded=True))
    charts = charts_of(logged)
    if reports:
        charts.append(votes_chart({titles[one]: report for one, report in reports.items()}))
    page = Page(
        title=" and ".join(run.title for run in runs if run.named),
        lead="Training and dev by optimiser step; where values differ widely, the axis is logarithmic. In brackets: "
        "95 % intervals over questions.",
        notes=list(notes),
        tables=tables,
        charts=charts,
    )
    write_page(path, page)
