"""Runs that are looked at: a run's log, the step that dev has chosen, and the reports of its weights in results/.

    runs = read_runs(["first", "results/thoughts-bare/report.json"])

plots.py draws them with matplotlib, run_page.py as a page of a browser.
"""

from dataclasses import dataclass
from pathlib import Path

from lta_thinker.checkpoint import complete_checkpoints
from lta_thinker.common import InputError, counted, read_json
from lta_thinker.evaluation.folder import ADAPTER_FILES
from lta_thinker.evaluation.plan import base_name
from lta_thinker.evaluation.report import REPORT_FILE, Report
from lta_thinker.flags import RUN_NAME

STATE_FILE = "trainer_state.json"  # Trainer's: in a run's folder when it has ended, and in its checkpoints
TITLES = {
    "sft_loss": "SFT loss",
    "align_loss": "semantic alignment loss",
    "focus_loss": "reasoning focus loss",
    "diversity_loss": "diversity loss of the chains",
    "accuracy": "share of right greedy answers",
}


@dataclass
class Run:
    """A run that is drawn.

    number: among those that are drawn; log: Trainer's log_history; best_step: the step that the dev metric has chosen
    so far; reports: by path; named: whether the user has named it, and it is no baseline that was found.
    """

    title: str
    number: int
    log: list[dict]
    best_step: int | None
    reports: dict[Path, Report]
    named: bool = True

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of all log lines that have the key."""
        points = [(line["step"], line[key]) for line in self.log if key in line]
        return [step for step, _ in points], [value for _, value in points]


def newest_state(folder: Path) -> dict | None:
    """Trainer's state with the most steps: the finished run's, or that of the newest complete checkpoint."""
    states = []
    for path in (folder / STATE_FILE, *(one / STATE_FILE for one in complete_checkpoints(folder)[-1:])):
        if path.is_file():
            states.append(read_json(path, finite=False))  # a gradient's norm may be infinite
            if not is_state(states[-1]):
                raise InputError(f"{path}: not a state that train.py wrote")
    return max(states, key=lambda state: state["global_step"], default=None)


def is_state(values) -> bool:
    """Whether these are a Trainer's state, with all that is drawn of it."""
    if not isinstance(values, dict) or not is_number(values.get("global_step")):
        return False
    log = values.get("log_history")
    if not isinstance(log, list) or not all(isinstance(line, dict) and is_number(line.get("step")) for line in log):
        return False
    drawn = [*TITLES, *(f"eval_{name}" for name in TITLES)]
    return all(is_number(line[key]) for line in log for key in drawn if key in line)


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def reports_here() -> dict[Path, Report]:
    """Every report in results/ by its path."""
    found = {}
    for path in sorted(Path("results").rglob(REPORT_FILE)):
        try:
            found[path] = Report.read(path)
        except InputError as error:
            print(f"note: {error}; it is passed over")
    return found


def is_baseline(report: Report, drawn: list[Report]) -> bool:
    """Whether a report is of the LLM of a drawn one, without thoughts and as it is, on the same questions with the same
    sampling."""

    def asked(one: Report) -> tuple:
        settings = one.settings
        llm = base_name(settings["base_model_id"]), settings["dtype"]
        return llm, settings["questions"], one.num_questions, settings["sampling"]

    is_bare = report.settings["thought_generator"] == "none" and not report.checkpoint.run
    changed = (*ADAPTER_FILES, "full_tuning", "num_fewshot")
    as_it_is = not any(key.endswith(changed) for key in report.settings)
    return is_bare and as_it_is and asked(report) in map(asked, drawn)


def read_runs(names: list[str]) -> list[Run]:
    """A Run for each name, which is an --output_name or the path of a report; behind them the baselines in results/.

    Raises InputError for what is neither, for broken files, and where a run has nothing to draw.
    """
    here, runs, drawn = reports_here(), [], set()
    by_run: dict[str, dict[Path, Report]] = {}
    for path, report in here.items():
        if report.checkpoint.run:
            by_run.setdefault(report.checkpoint.run, {})[path] = report
    for name in dict.fromkeys(names):
        folder = Path("results", name)
        if name.endswith(".json"):
            reports = {Path(name): Report.read(Path(name))}
            run = Run(report_title(reports[Path(name)]), len(runs), [], None, reports)
        elif not RUN_NAME.fullmatch(name) or not (folder.is_dir() or name in by_run):
            raise InputError(f"--plot {name}: no such run in results/; a RUN is an --output_name or a report.json")
        else:
            state, reports = newest_state(folder), by_run.get(name, {})
            if not reports and not (state and state["log_history"]):
                raise InputError(f"--plot {name}: nothing to plot yet: nothing logged in {folder}, no report")
            log, best_step = (state["log_history"], state.get("best_global_step")) if state else ([], None)
            run = Run(name, len(runs), log, best_step, reports)
        run.reports = {path: report for path, report in run.reports.items() if path.resolve() not in drawn}
        drawn |= {path.resolve() for path in run.reports}
        if run.log or run.reports:
            runs.append(run)
    compared = [report for run in runs for report in run.reports.values()]
    for path, report in here.items():
        if path.resolve() not in drawn and is_baseline(report, compared):
            runs.append(Run(report_title(report), len(runs), [], None, {path: report}, named=False))
    return runs


def report_title(report: Report) -> str:
    """The title of a report that was given by its path."""
    if report.settings["thought_generator"] == "none":
        return f"{base_name(report.settings['base_model_id'])} without thoughts"
    return report.checkpoint.name


def evaluation_titles(runs: list[Run]) -> dict[Path, str]:
    """A line of the legend for every report; where two would be the same, the report's folder is added."""
    titles = {}
    for run in runs:
        for path, report in run.reports.items():
            settings, dev = report.settings, report.checkpoint.dev or {}
            thoughts = settings["num_thought_tokens"]
            parts = [counted(thoughts, "thought")] if thoughts else []
            parts += [f"step {dev['step']}"] if "step" in dev else []
            parts += [counted(report.num_questions, f"{settings['split']} question")]
            titles[path] = f"{run.title}: {', '.join(parts)}"
    every = list(titles.values())
    return {path: title if every.count(title) == 1 else f"{title} ({path.parent})" for path, title in titles.items()}
