"""Pages of a browser: report.html, an evaluation with its figures, its settings and each question with its samples;
and several evaluations of the same questions side by side (--compare, --rank).

    write_page(folder / PAGE_FILE, report_page(Evaluated(report, graded), folder))
    path = write_comparison(compare(a, b), [a, b], folder=None)

One file that opens from disk and loads nothing. page.html, a template of jinja2 (which comes with torch and with
transformers), has the tables; page.css and page.js are put into it. The questions are one block of JSON, of which
page.js draws what is looked at. The same evaluation gives the same bytes.
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from lta_thinker.common import counted, flatten, make_folder, read_json, read_record, shortened, write_text
from lta_thinker.evaluation.compare import Comparison, Evaluated, ranking_notes, ranking_rows
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.report import INSPECTION_FILE, Graded, Report, figure_rows, mixed_versions, version_texts

PAGE_FILE = "report.html"
MOST_TEXT = 100_000_000  # characters of samples on a page: what a browser still opens
MARKING = (
    "Marked is the last place where the answer's text stands in the sample: a search for its letters. What the answer "
    "was read from may be another place."
)

# ---------------------------------------------------------------------------------------------------------------------
# What is on a page


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first one of a row its title; links: a row's address, None for none; folded: shown when it is
    asked for."""

    heading: str
    header: list[str]
    rows: list[list[str]]
    links: list[str | None] = field(default_factory=list)
    folded: bool = False


@dataclass(frozen=True)
class Series:
    """A curve: points (x, y) or (x, y, low, high); colour: a number; chosen: the x that is marked."""

    name: str
    points: list[tuple[float, ...]]
    colour: int = 0
    dashed: bool = False
    chosen: int | None = None


@dataclass(frozen=True)
class Chart:
    """Curves over an x of this name; log: of the y axis."""

    title: str
    x: str
    series: list[Series]
    log: bool = False


@dataclass(frozen=True)
class Page:
    """All that a page shows. names: of the evaluations whose samples `questions` has, as questions_of makes them."""

    title: str
    lead: str
    notes: list[str]
    tables: list[Table]
    charts: list[Chart]
    names: list[str] = field(default_factory=list)
    questions: list[dict] = field(default_factory=list)
    answer_type: str = ""


# ---------------------------------------------------------------------------------------------------------------------
# The file


def write_page(path: Path, page: Page) -> None:
    """The page as one HTML file, all or nothing. InputError where it cannot be written."""
    write_text(path, page_text(page))


def page_text(page: Page) -> str:
    """The page's HTML. No text of the data is HTML there: tables are escaped, and the JSON has no `<`."""
    data = {
        "charts": [asdict(chart) for chart in page.charts],
        "names": page.names,
        "questions": page.questions,
        "answer_type": page.answer_type,
        "marking": MARKING,
    }
    # no "</script>" or "<!--" of a text ends the block: "<" is an escape in it
    block = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    template, parts = _template()
    text = template.render(page=page, data=Markup(block), **parts) + "\n"
    return text.encode(errors="replace").decode()  # the name of a file need not be Unicode


@cache
def _template() -> tuple[jinja2.Template, dict[str, Any]]:
    """page.html, and what stands in every page: style and script, and their hashes, which alone the page may run."""
    here, parts = Path(__file__).parent, {}
    for name, file in (("style", "page.css"), ("script", "page.js")):
        text = (here / file).read_text(encoding="utf-8")
        parts[name] = Markup(text)
        parts[f"{name}_hash"] = "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html"), parts


# ---------------------------------------------------------------------------------------------------------------------
# Questions


def longest_text(several: Sequence[Evaluated]) -> tuple[int, list[str]]:
    """How many characters of a sample's text, its last, have room on a page, and the note that says so where some text
    is longer."""
    lengths = [len(text) for one in several for graded in one.graded for text in graded.line.responses]
    if sum(lengths) <= MOST_TEXT:
        return max(1, *lengths), []
    longest = MOST_TEXT // len(lengths)
    return longest, [f"of each text the last {longest:,} characters are here, and all of it is in samples.jsonl"]


def questions_of(several: Sequence[Evaluated], longest: int, words: dict[int, list] | None = None) -> list[dict]:
    """What page.js shows of each question: its texts once, and a side for each evaluation of it.

    several: of the same questions; longest: characters of a sample's text, its last, 0 for no texts; words: the
    thoughts' nearest words by question.
    """
    questions = []
    for graded in zip(*(one.graded for one in several), strict=True):
        line = graded[0].line
        question = {
            "number": line.index,
            "question": line.question,
            "options": line.options or [],
            "gold": graded[0].gold,
            "reference": line.gold,
            "sides": [side_of(one, longest) for one in graded],
        }
        if words and line.index in words:
            question["words"] = words[line.index]
        questions.append(question)
    return questions


def side_of(graded: Graded, longest: int) -> dict:
    """An evaluation's samples of a question, its vote and its grades."""
    line = graded.line
    texts = [text if len(text) <= longest else f"…{text[-longest:]}" for text in line.responses]
    return {
        "vote": graded.vote.answer,
        "winner": graded.vote.winner,
        "correct": graded.correct,
        "tied": graded.vote.tied,
        "answers": graded.answers,
        "groups": graded.vote.groups,
        "hits": list(map(int, graded.hits)),
        "texts": texts if longest else None,
        "tokens": line.num_tokens,
        "finished": list(map(int, line.finished)),
        "scores": [round(score, 4) for score in line.scores],
    }


@dataclass(frozen=True)
class NearWord:
    """Of a word in inspection.json, what is read here."""

    word: str
    cosine: float


@dataclass(frozen=True)
class Inspected:
    """Of inspection.json, what is read here: the nearest words of each thought of each question."""

    questions: list[int]
    nearest_words: list[list[list[NearWord]]]


def read_words(folder: Path) -> dict[int, list[list[str]]]:
    """The nearest words of each thought by question, of the folder's inspection.json; none where there is none.

    InputError where it is none that --inspect wrote.
    """
    path = folder / INSPECTION_FILE
    if not path.is_file():
        return {}
    found = read_record(Inspected, read_json(path), str(path))
    return {
        index: [[f"{near.word!r} {near.cosine:.2f}" for near in slot] for slot in slots]
        for index, slots in zip(found.questions, found.nearest_words, strict=False)
    }


# ---------------------------------------------------------------------------------------------------------------------
# Figures and settings


def votes_chart(reports: dict[str, Report]) -> Chart:
    """maj@k of the reports, by the names of these, and of one or two pass@k; the vote of all samples with its
    interval."""
    series = []
    for colour, (name, report) in enumerate(reports.items()):
        vote, before = report.vote_accuracy, f"{name}: " if name else ""
        for key, title in (("maj_at_k", "maj@k"), ("pass_at_k", "pass@k"))[: 2 if len(reports) < 3 else 1]:
            curve: list[tuple[float, ...]] = [(int(k), 100 * value) for k, value in getattr(report, key).items()]
            if key == "maj_at_k":
                curve[-1] = (*curve[-1], 100 * vote.low, 100 * vote.high)
            series.append(Series(before + title, curve, colour, dashed=key == "pass_at_k"))
    return Chart("maj@k and pass@k, % right" if len(reports) < 3 else "maj@k, % right", "k samples", series)


def shown(value) -> str:
    """A setting as it is shown."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def chosen_settings(report: Report) -> dict[str, str]:
    """The settings that are flags of evaluate.py and not their defaults."""
    defaults = {one.name: one.default for one in fields(EvaluationArguments)}
    chosen = {}
    for key, value in flatten(report.settings).items():
        name = key.rpartition(".")[2]
        if key in (name, f"sampling.{name}") and name in defaults and value != defaults[name]:
            chosen[name] = shown(value)
    return chosen


def asked_text(report: Report) -> str:
    """How many questions a report is about, and which."""
    settings = report.settings
    return f"{counted(report.num_questions, settings['split'] + ' question')} of {settings['task_name']}"


def report_page(evaluated: Evaluated, folder: Path) -> Page:
    """The page of one evaluation, whose files are in `folder`."""
    report, settings = evaluated.report, evaluated.report.settings
    mixed = mixed_versions(report)
    longest, notes = longest_text([evaluated])
    figures = {name: value for name, value in figure_rows(report).items() if "@k" not in name}
    made = {f"texts: {name}": text for name, text in version_texts(report).items()}
    made |= {f"answers and figures: {name}": text for name, text in report.versions.items()}
    return Page(
        title=report.checkpoint.name,
        lead=f"{asked_text(report)}, {evaluated.title}. In brackets: 95 % intervals over questions.",
        notes=[mixed, *notes] if mixed else notes,
        tables=[
            Table("Figures", [], list(map(list, figures.items()))),
            Table("Settings that are not the flags' defaults", [], list(map(list, chosen_settings(report).items()))),
            Table("All settings", [], [[key, shown(value)] for key, value in flatten(settings).items()], folded=True),
            Table("Versions", [], list(map(list, made.items())), folded=True),
        ],
        charts=[votes_chart({"": report})],
        names=[""],
        questions=questions_of([evaluated], longest, read_words(folder)),
        answer_type=settings["answer_type"],
    )


# ---------------------------------------------------------------------------------------------------------------------
# Evaluations side by side


def union(columns: Sequence[dict[str, str]]) -> list[list[str]]:
    """A row for each key that some column has, with the columns' values."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return [[key, *(column.get(key, "-") for column in columns)] for key in keys]


def name_of(path: Path) -> str:
    """What an evaluation is called in a page's name: its folder, below a checkpoint's with that one."""
    folder = path.resolve().parent
    return f"{folder.parent.name}-{folder.name}" if folder.parent.name.startswith("eval-") else folder.name


def link_to(path: Path, folder: Path) -> str | None:
    """The address of the page beside a report.json, from a page in `folder`; None where there is none."""
    page = path.with_name(PAGE_FILE)
    return quote(os.path.relpath(page.resolve(), folder.resolve())) if page.is_file() else None


def page_path(kind: str, paths: Sequence[Path], output_dir: str | None) -> Path:
    """Where the page of --compare or --rank (`kind`) of these reports goes: into `output_dir`, None for results/."""
    folder = Path(output_dir or "results")
    make_folder(folder, instead="; use another --output_dir")
    return folder / f"{shortened('-'.join([kind, *map(name_of, paths)]))}.html"


def write_comparison(comparison: Comparison, paths: Sequence[Path], output_dir: str | None) -> Path:
    """The page of --compare of the reports at `paths`; returns where it is. InputError where it cannot be written."""
    path = page_path("compare", paths, output_dir)
    settings = comparison.evaluated[0].report.settings
    reports = dict(zip("AB", (one.anew for one in comparison.evaluated), strict=True))
    longest, notes = longest_text(comparison.evaluated)
    figures = [{key: text for key, text in figure_rows(one).items() if "@k" not in key} for one in reports.values()]
    page = Page(
        title=f"{reports['A'].checkpoint.name} and {reports['B'].checkpoint.name}",
        lead=f"{asked_text(reports['A'])}, % right. In brackets: 95 % intervals over questions.",
        notes=comparison.all_notes() + notes,
        tables=[
            Table(
                "The difference, question by question",
                ["", "one sample", "vote"],
                comparison.rows(),
                [*(link_to(one, path.parent) for one in paths), None],
            ),
            Table("Figures", ["", *reports], union(figures)),
            Table(
                "Settings that are not the flags' defaults",
                ["", *reports],
                union([chosen_settings(one) for one in reports.values()]),
            ),
        ],
        charts=[votes_chart(reports)],
        names=list(reports),
        questions=questions_of(comparison.evaluated, longest),
        answer_type=settings["answer_type"],
    )
    write_page(path, page)
    return path


def write_ranking(ranked: Sequence[tuple[Path, Evaluated]], output_dir: str | None) -> Path:
    """The page of --rank, with every vote and without the texts, which the evaluations' own pages have; returns where
    it is. InputError where it cannot be written."""
    path = page_path("rank", sorted(one for one, _ in ranked), output_dir)  # one page, whoever is the best
    evaluated = [one for _, one in ranked]
    reports = [one.report for one in evaluated]
    header, *rows = ranking_rows(reports)
    settings = reports[0].settings
    names = [row[0].rstrip(".") for row in rows]
    page = Page(
        title=f"{len(reports)} evaluations, the best vote first",
        lead=f"{asked_text(reports[0])}, % right. In brackets: 95 % intervals over questions. "
        "The texts are in the evaluations' own pages.",
        notes=ranking_notes(reports),
        tables=[Table("The ranking", header, rows, [link_to(one, path.parent) for one, _ in ranked])],
        charts=[votes_chart(dict(zip(names, reports, strict=True)))],
        names=names,
        questions=questions_of(evaluated, longest=0),
        answer_type=settings["answer_type"],
    )
    write_page(path, page)
    return path
