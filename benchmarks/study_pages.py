"""All tables and plots of the study, and the pages in which they stand: study.py --report."""

import re
from pathlib import Path

from benchmarks import study_plots
from benchmarks.study_report import Report, variance_points, variance_table
from benchmarks.study_runs import Study, Wanted, world_of
from benchmarks.study_worlds import DEFAULT, REAL_WORLDS, SHORT

MARK = "<!-- study: {} -->\n{}\n<!-- end -->"
PAGES = ("docs/results/study.md", "docs/results/real.md", "RESULTS.md")  # every table stands in one of them
AXIS_OF_THOUGHTS = {"xscale": "log", "xticks": [1, 2, 4, 8, 16, 32], "xticklabels": [1, 2, 4, 8, 16, 32]}


def make(study: Study) -> dict[str, str]:
    """{title: Markdown} of whatever has been run; the plots go beside the stored runs."""
    report = Report(study)
    stages = {title: stage() if study.ready(title) else [] for title, stage in study.stages().items()}
    tables = {title: table_of(report, title, pairs) for title, pairs in stages.items()}
    tables["accuracies"] = report.accuracies(stages["main"], study.main_evaluation.label)
    tables["variance"] = variance_table(variance_points(study.records("arithmetic")))
    on_cpus = {title: pairs for title, pairs in stages.items() if world_of(title) not in REAL_WORLDS}
    tables["costs"] = report.costs(on_cpus)
    for name, paint in plots_of(report, stages).items():
        study_plots.draw(study.folder, name, paint)
    return tables


def table_of(report: Report, title: str, pairs: Wanted) -> str:
    """The table of a stage."""
    main_label = report.study.main_evaluation.label
    kind, world = title.partition(" ")[0], world_of(title)
    match kind:
        case "tuning":
            told = [report.tuning(pairs)] + ([report.informations(pairs)] if world in REAL_WORLDS else [])
            return "\n\n".join(told)
        case "main":
            return report.main(pairs, main_label if title == "main" else SHORT.label, world.baselines)
        case "dev":
            return report.dev_figures(pairs)
        case "longer":
            return report.variants(pairs, SHORT.label, "prompt")
        case "tasks":
            return report.labels(pairs)
        case "headroom":
            return report.headroom(pairs, SHORT.label, "small-alone-x4")
        case "ways-tuning":
            return report.tuning(pairs)
        case "ways":
            return report.ways(pairs, main_label)
        case "ways-alone":
            return ""
        case "looks":
            return report.inside(pairs)
        case "transfer":
            return report.labels(pairs, "none")
        case "thoughts":
            return report.labels(pairs)
        case "samples":
            return report.votes(pairs, "test-x20")
        case "steps" | "rows" | "noise":
            best = report.study.best_lta("arithmetic")
            versus = [(best, "softcot"), (DEFAULT, "softcot"), (DEFAULT, best)]
            tables = [report.versus(pairs, SHORT.label, *names) for names in versus]
            return "\n\n".join([report.variants(pairs, SHORT.label), *tables])
        case _:
            return report.variants(pairs, SHORT.label)


def plots_of(report: Report, stages: dict[str, Wanted]) -> dict:
    """{name: function that paints it}, where there is something to paint."""
    main, label, plots = stages["main"], report.study.main_evaluation.label, {}
    if report.records(main, label):
        plots["contestants"] = study_plots.plot_contestants(report, main, label)
        plots["variance"] = study_plots.plot_variance(variance_points(report.study.records("arithmetic")))
    losses = study_plots.loss_lines(report, main)
    if losses:
        plots["leak"] = study_plots.plot_lines(losses, "step", "SFT loss a token", yscale="log")
    votes = report.maj_at_k(stages.get("samples", []), "test-x20")
    if votes:
        ticks = [1, 5, 10, 15, 20]
        plots["samples"] = study_plots.plot_lines(votes, "samples a question", "vote, % right", xticks=ticks)
    counts = study_plots.thoughts_lines(report, stages.get("thoughts", []))
    if counts:
        xlabel, ylabel = "thoughts in evaluation", "one sample, % right"
        plots["thoughts"] = study_plots.plot_lines(counts, xlabel, ylabel, **AXIS_OF_THOUGHTS)
    return plots


def fill(path: Path, tables: dict[str, str]) -> set[str]:
    """Put each table between its marks in a Markdown file; what stands there is replaced. The names of those that
    have no marks there."""
    text, absent = path.read_text(encoding="utf-8"), set()
    for name, table in tables.items():
        between = rf"<!-- study: {re.escape(name)} -->\n.*?<!-- end -->"
        found = re.findall(between, text, flags=re.S)
        if len(found) > 1:
            raise SystemExit(
                f"error: {path}: the mark <!-- study: {name} --> stands there {len(found)} times, not once"
            )
        if found:
            text = text.replace(found[0], MARK.format(name, table))
        else:
            absent.add(name)
    path.write_text(text, encoding="utf-8")
    return absent


def fill_all(root: Path, tables: dict[str, str]) -> None:
    """Every table into the page that has its marks."""
    nowhere = set.intersection(*(fill(root / page, tables) for page in PAGES))
    if nowhere:
        raise SystemExit(f"error: no mark <!-- study: ... --> for {', '.join(sorted(nowhere))} in {' or '.join(PAGES)}")
