"""Old evaluations graded anew: answers and figures by today's code, and what has changed. No LM is loaded.

python evaluate.py --regrade results/A results/B

samples.jsonl is only read; graded.jsonl, report.json and report.html beside it are written anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lta_thinker.answers import answers_equal
from lta_thinker.common import InputError, counted, lock_folder, versions, write_text
from lta_thinker.evaluation.compare import Evaluated
from lta_thinker.evaluation.page import PAGE_FILE, page_text, report_page
from lta_thinker.evaluation.report import (
    GRADED_FILE,
    REPORT_FILE,
    Found,
    Graded,
    Report,
    lines_digest,
    make_figures,
    write_graded,
)
from lta_thinker.evaluation.samples import read_line, read_lines

ANSWER_WIDTH, TEXT_WIDTH = 40, 60  # of what is printed of an answer, and of a text, its end


@dataclass(frozen=True)
class Regraded:
    """An evaluation before and now. found: what graded.jsonl says, None where it cannot be compared; why: for that
    reason; page: report.html now."""

    folder: Path
    before: Report
    now: Report
    found: list[Found] | None
    why: str
    graded: list[Graded]
    page: str

    @property
    def is_changed(self) -> bool:
        """Whether anything that is written would be another."""
        path, found = self.folder / PAGE_FILE, [one.found for one in self.graded]
        has_page = path.is_file() and path.read_bytes() == self.page.encode()
        return self.before != self.now or self.found != found or not has_page


def regrade(folders: Sequence[str]) -> None:
    """Grade evaluations anew, print what has changed, and write it. All are read before the first is written.

    Raises InputError for what is no evaluation, where samples and report do not fit each other, and where another
    process writes in a folder.
    """
    used = versions()
    for one in [read_folder(Path(folder), used) for folder in folders]:
        print_regraded(one)
        if one.is_changed:
            write_graded(one.folder / GRADED_FILE, one.graded)
            one.now.write(one.folder / REPORT_FILE)
            write_text(one.folder / PAGE_FILE, one.page)
            print(f"  {GRADED_FILE}, {REPORT_FILE} and {PAGE_FILE} are written anew")


def read_folder(folder: Path, used: dict[str, str]) -> Regraded:
    """A folder's evaluation, graded anew by code of these versions. The folder is kept for this process.

    InputError as `regrade` has it.
    """
    Report.read(folder / REPORT_FILE)  # nothing is locked where there is none
    lock_folder(folder, instead="; wait for it")
    evaluated = Evaluated.read(folder / REPORT_FILE)
    before, graded = evaluated.report, evaluated.graded
    now = replace(
        before,
        **vars(make_figures(graded)),
        versions=used,
        starts=before.starts or [before.versions],  # an earlier version's report: one version wrote texts and figures
        samples=lines_digest([one.line for one in graded]),
    )
    try:
        found, why = read_found(folder / GRADED_FILE, graded, before.settings["answer_type"]), ""
    except InputError as error:
        found, why = None, str(error)
    page = page_text(report_page(Evaluated(now, graded), folder))
    return Regraded(folder, before, now, found, why, graded, page)


def read_found(path: Path, graded: Sequence[Graded], answer_type: str) -> list[Found]:
    """The lines of graded.jsonl. InputError where there is none, or one of another format or of other samples.

    Where a line does not say which samples are right, today's comparison with its gold answer does.
    """
    found = []
    for number, line in enumerate(read_lines(path), 1):
        one = read_line(Found, line, f"{path}:{number}")
        hits = [answers_equal(answer, one.gold, answer_type) for answer in one.answers]
        found.append(replace(one, hits=hits) if one.hits is None else one)
    shapes = [(one.index, len(one.answers), len(one.hits)) for one in found]
    if shapes != [(one.line.index, len(one.answers), len(one.hits)) for one in graded]:
        raise InputError(f"{path}: not about the samples of {REPORT_FILE}")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# What has changed


@dataclass(frozen=True)
class Pair:
    """An answer before and now, each with whether it is right. place: [question] of a vote, [question.sample] of a
    sample; text: that of a sample."""

    place: str
    before: tuple[str | None, bool]
    now: tuple[str | None, bool]
    text: str = ""

    @property
    def is_changed(self) -> bool:
        return self.before != self.now

    def line(self) -> str:
        """The pair as it is printed: [3.0] 7 (wrong) -> 18 (right)  …the text's end."""
        sides = [f"{shown(answer)} ({'right' if hit else 'wrong'})" for answer, hit in (self.before, self.now)]
        words = " ".join(self.text.split())
        end = words if len(words) <= TEXT_WIDTH else f"…{words[-TEXT_WIDTH:]}"
        return f"{self.place} {' -> '.join(sides)}  {end}".rstrip()


def shown(answer: str | None) -> str:
    """An answer on one line, cut to a width."""
    words = "none" if answer is None else " ".join(answer.split())
    return words if len(words) <= ANSWER_WIDTH else f"{words[:ANSWER_WIDTH]}…"


def vote_pairs(found: Sequence[Found], graded: Sequence[Graded]) -> list[Pair]:
    """Every vote before and now."""
    return [
        Pair(f"[{old.index}] vote", (old.vote, old.correct), (new.vote.answer, new.correct))
        for old, new in zip(found, graded, strict=True)
    ]


def sample_pairs(found: Sequence[Found], graded: Sequence[Graded]) -> list[Pair]:
    """Every sample's answer before and now."""
    pairs = []
    for old, new in zip(found, graded, strict=True):
        before, now = zip(old.answers, old.hits or [], strict=True), zip(new.answers, new.hits, strict=True)
        for i, (one, other, text) in enumerate(zip(before, now, new.line.responses, strict=True)):
            pairs.append(Pair(f"[{old.index}.{i}]", one, other, text))
    return pairs


def print_regraded(one: Regraded) -> None:
    """Each gold answer, vote and sample that has changed, and the figures before and now."""
    samples = one.now.settings["sampling"]["num_return_sequences"]
    print(f"{one.folder}: {counted(one.now.num_questions, 'question')}, {counted(samples, 'sample')} each")
    if not one.is_changed:
        print("  nothing has changed, and nothing is written")
        return
    if one.found is None:
        print(f"  note: {one.why}: only the figures can be compared")
        print_figures(one, ["", "", ""])
    else:
        print_answers(one, one.found)


def print_answers(one: Regraded, found: Sequence[Found]) -> None:
    """Gold answers, votes and samples that have changed, and the figures with how many these are."""
    for old, new in zip(found, one.graded, strict=True):
        if old.gold != new.gold:
            print(f"  [{old.index}] gold {shown(old.gold)} -> {shown(new.gold)}")
    votes, samples = vote_pairs(found, one.graded), sample_pairs(found, one.graded)
    for pair in (*votes, *samples):
        if pair.is_changed:
            print(f"  {pair.line()}")
    without = [(pair.before[0] is None) != (pair.now[0] is None) for pair in samples]
    counts = ([pair.is_changed for pair in votes], [pair.is_changed for pair in samples], without)
    print_figures(one, [f"{sum(count)} of {len(count)} changed" for count in counts])


def print_figures(one: Regraded, changed: Sequence[str]) -> None:
    """The figures before and now, and behind each how many answers have changed."""
    titles = ("vote, % right", "one sample, % right", "samples without an answer")
    for title, before, now, count in zip(titles, figures(one.before), figures(one.now), changed, strict=True):
        print(f"  {title:26s} {before:20s} -> {now:20s} {count}".rstrip())


def figures(report: Report) -> list[str]:
    """What print_figures prints of a report."""
    return [report.vote_accuracy.percent, report.sample_accuracy.percent, f"{report.no_answer:.1%}"]
