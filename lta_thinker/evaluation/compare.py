"""Reports side by side: two -> their paired difference; several -> a ranked table.

python evaluate.py --compare A/report.json B/report.json
python evaluate.py --rank A/report.json B/report.json C/report.json
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lta_thinker.common import InputError, counted, flatten
from lta_thinker.evaluation.intervals import Interval, difference_interval, share_interval
from lta_thinker.evaluation.report import (
    ADAPTER_FILES,
    KNOWN_STATES,
    Graded,
    Report,
    grade,
    lines_digest,
    make_figures,
    mixed_versions,
    version_texts,
)
from lta_thinker.evaluation.samples import SAMPLES_FILE, read_samples
from lta_thinker.llm.identity import same_states, same_weights
from lta_thinker.names import RESUME_FILE

# settings that are about the thoughts: two evaluations may differ in them and still be a fair pair
THOUGHT_SETTINGS = (
    "thought_generator",
    "assistant_model_id",
    "num_thought",
    "num_chains",
    "fingerprints.small",
    "known_states.small",
    "layout.generator",
    "layout.llm.after",
    "prompts.thoughts",
    "prompts.generator",
    ".bin",  # hashes of the weight files
    ".safetensors",
    "/adapter_config.json",
)


@dataclass(frozen=True)
class Evaluated:
    """A report and the lines of samples.jsonl that it is about, their answers found anew."""

    report: Report
    graded: list[Graded]

    @classmethod
    def read(cls, path: Path) -> "Evaluated":
        """report.json and the samples.jsonl beside it. InputError for what is no report, and for other samples."""
        report, samples = Report.read(path), path.with_name(SAMPLES_FILE)
        # a longer run in the same folder may have added questions that the report is not about
        lines, settings = read_samples(samples)[: report.num_questions], report.settings
        questions = {line.index for line in lines}
        counts = {len(line.responses) for line in lines}
        fits = len(questions) == report.num_questions and counts == {settings["sampling"]["num_return_sequences"]}
        if not fits or report.samples not in (None, lines_digest(lines)):
            raise InputError(f"{samples}: not the samples that {path.name} is about; its evaluation makes both anew")
        try:
            return cls(report, [grade(line, settings["answer_type"]) for line in lines])
        except InputError as error:
            raise InputError(f"{samples}: {error}") from None

    @property
    def anew(self) -> Report:
        """The report with its figures made anew."""
        return replace(self.report, **vars(make_figures(self.graded)))

    @property
    def title(self) -> str:
        """The number and kind of its thoughts, of worked examples and of samples."""
        settings = self.report.settings
        num_injected = settings["num_thought_tokens"]
        thoughts = "no thoughts"
        if num_injected:
            thoughts = f"{counted(num_injected, 'thought')} ({settings['thought_generator']})"
        if "num_fewshot" in settings:
            thoughts += f", {counted(settings['num_fewshot'], 'worked example')}"
        # a resume checkpoint without thoughts holds an adapter and nothing else
        adapter_files = ADAPTER_FILES if num_injected else (*ADAPTER_FILES, RESUME_FILE)
        if "full_tuning" in settings:
            thoughts += ", all weights of the LLM trained"
        elif any(key.endswith(adapter_files) for key in settings):
            thoughts += ", LoRA"
        return f"{thoughts}, {counted(settings['sampling']['num_return_sequences'], 'sample')}"

    def check_same_questions(self, path: str | Path, other: "Evaluated", other_path: str | Path) -> None:
        """InputError where another evaluation has other questions or other gold answers."""
        for what, of in (
            ("questions", lambda one: (one.line.index, *one.line.asked)),
            ("gold answers", lambda one: one.gold),
        ):
            if list(map(of, self.graded)) != list(map(of, other.graded)):
                raise InputError(f"{path} and {other_path} are not about the same {what}: nothing to compare")

    @property
    def num_samples(self) -> int:
        return len(self.graded[0].hits)

    def sample_shares(self) -> np.ndarray:
        """For each question the share of right samples, (K,) float64."""
        return np.array([np.mean(one.hits) for one in self.graded])

    def votes(self) -> np.ndarray:
        """For each question whether the vote is right, (K,) float64."""
        return np.array([float(one.correct) for one in self.graded])


def differing(one: Report, other: Report) -> dict[str, list]:
    """{setting: [of one, of the other]} where two reports' settings differ beyond the thoughts."""
    a, b = flatten(one.settings), flatten(other.settings)
    ignored = THOUGHT_SETTINGS
    llms = [settings.get("fingerprints.large") for settings in (a, b)]
    if same_weights(*llms):
        ignored += ("fingerprints.large",) if None in llms else ("fingerprints.large", "base_model_id")  # by any path
    large, dtypes = f"{KNOWN_STATES}.large", (a.get("dtype"), b.get("dtype"))
    if dtypes[0] != dtypes[1] or same_states(a.get(large), b.get(large), str(dtypes[0])):
        ignored += (large,)
    if thoughts_prompt(a) != thoughts_prompt(b):
        # the suffix begins with the words behind the thoughts, or behind the question where there are none
        ignored += ("layout.llm.suffix",)
    if a.get("num_fewshot") != b.get("num_fewshot"):  # the titles say it
        ignored += ("num_fewshot", "worked_examples", "layout.llm.before")
    keys = [key for key in a if key in b and not any(name in key for name in ignored)]
    return {key: [a[key], b[key]] for key in keys if a[key] != b[key]}


def version_notes(one: Report, other: Report) -> list[str]:
    """A line where the texts of two reports were not all written by the same versions."""
    a, b = version_texts(one), version_texts(other)
    names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    notes = [f"{title}: {mixed}" for title, report in (("A", one), ("B", other)) if (mixed := mixed_versions(report))]
    if names:
        of_a, of_b = (", ".join(f"{name} {versions.get(name, 'none')}" for name in names) for versions in (a, b))
        notes.append(f"the two are of other versions: A {of_a}; B {of_b}")
    return notes


def thoughts_prompt(settings: dict) -> str:
    """The part of the prompt that the thoughts stand in, "" without thoughts; settings as `flatten` makes them."""
    return "" if settings.get("thought_generator") == "none" else settings.get("prompts.thoughts", "")


# ---------------------------------------------------------------------------------------------------------------------
# Two reports


@dataclass(frozen=True)
class Paired:
    """An accuracy of two evaluations of the same questions, and their paired difference b - a."""

    a: Interval
    b: Interval
    difference: Interval


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same questions.

    titles: [of a, of b]; differ: {setting: [of a, of b]} where they differ beyond the thoughts; sample, vote: the
    accuracy of one sample and of the vote; notes: lines on the versions that wrote the texts; evaluated: [a, b].
    """

    num_questions: int
    titles: list[str]
    differ: dict[str, list]
    sample: Paired
    vote: Paired
    notes: list[str]
    evaluated: list[Evaluated]

    def rows(self) -> list[list[str]]:
        """The table of A, of B and of B - A: what it is, one sample, the vote."""
        titles = {"a": f"A: {self.titles[0]}", "b": f"B: {self.titles[1]}", "difference": "B - A, paired"}
        return [
            [title, getattr(self.sample, key).percent, getattr(self.vote, key).percent] for key, title in titles.items()
        ]

    def all_notes(self) -> list[str]:
        """What is to be known before the difference is believed."""
        return [f"{key} differs: A {one!r}, B {other!r}" for key, (one, other) in self.differ.items()] + self.notes


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Paired comparison of two report.json over the same questions, from the samples.jsonl beside them.

    Raises InputError for what is no report, and where the questions differ.
    """
    one, other = Evaluated.read(Path(a)), Evaluated.read(Path(b))
    one.check_same_questions(a, other, b)
    samples = min(one.num_samples, other.num_samples)
    return Comparison(
        num_questions=len(one.graded),
        titles=[one.title, other.title],
        differ=differing(one.report, other.report),
        sample=Paired(
            share_interval(one.sample_shares(), one.num_samples),
            share_interval(other.sample_shares(), other.num_samples),
            difference_interval(one.sample_shares(), other.sample_shares(), samples),
        ),
        vote=Paired(
            share_interval(one.votes()),
            share_interval(other.votes()),
            difference_interval(one.votes(), other.votes()),
        ),
        notes=version_notes(one.report, other.report),
        evaluated=[one, other],
    )


def print_comparison(comparison: Comparison) -> None:
    """The table of `compare`."""
    print(f"{counted(comparison.num_questions, 'question')}, % right [95 % interval over questions]")
    has_votes = any(one.num_samples > 1 for one in comparison.evaluated)  # a vote of one is that sample
    for title, sample, vote in (("", "one sample", "vote"), *comparison.rows()):
        print(f"  {title:44s} {sample:22s} {vote if has_votes else ''}".rstrip())
    for note in comparison.all_notes():
        print(f"  note: {note}")


# ---------------------------------------------------------------------------------------------------------------------
# Several reports


def rank(paths: list[str]) -> list[tuple[Path, Evaluated]]:
    """Evaluations of the same questions by the path of their report, its figures made anew, the best vote first (ties:
    the better single sample).

    Raises InputError for what is no report, and where questions or settings differ beyond the thoughts.
    """
    found = [Evaluated.read(Path(path)) for path in paths]
    first = found[0]
    for path, evaluated in zip(paths, found, strict=True):
        first.check_same_questions(paths[0], evaluated, path)
        for key, (value, other) in differing(first.report, evaluated.report).items():
            raise InputError(f"{path}: {key} is {other!r}, in {paths[0]} it is {value!r}: no fair ranking")
    anew = [replace(evaluated, report=evaluated.anew) for evaluated in found]
    by_path = zip(map(Path, paths), anew, strict=True)
    return sorted(by_path, key=lambda one: (-one[1].report.vote_accuracy.value, -one[1].report.sample_accuracy.value))


def ranking_rows(reports: list[Report]) -> list[list[str]]:
    """The table of a ranking, its header first."""
    samples = reports[0].settings["sampling"]["num_return_sequences"]
    vote = [f"vote of {samples}"] if samples > 1 else []  # a vote of one is that sample
    figures = ["one sample", "no answer", "tokens a sample", "dev SFT loss"]
    rows = [["", "checkpoint", "step", "thoughts", *vote, *figures]]
    for place, report in enumerate(reports, 1):
        dev = report.checkpoint.dev or {}
        rows.append(
            [
                f"{place}.",
                report.checkpoint.name,
                str(dev.get("step", "-")),
                str(report.settings["num_thought_tokens"]),
                *([report.vote_accuracy.percent] if vote else []),
                report.sample_accuracy.percent,
                f"{report.no_answer:.1%}",
                f"{report.tokens_per_sample:.1f}",
                f"{dev['eval_sft_loss']:.4g}" if "eval_sft_loss" in dev else "-",
            ]
        )
    return rows


def ranking_notes(reports: list[Report]) -> list[str]:
    """What is to be known before the best of these is believed."""
    names = dict.fromkeys(name for report in reports for name in version_texts(report))
    mixed = [name for name in names if len({version_texts(report).get(name) for report in reports}) > 1]
    notes = []
    if mixed:
        of = ", ".join(mixed)
        notes.append(f"the reports' texts are not all of the same version: {of} (each report has them)")
    if len(reports) > 1:
        notes.append(f"the best of {len(reports)} is chosen by these figures, so its own are optimistic")
    return notes


def print_ranking(reports: list[Report]) -> None:
    """The table of `rank`."""
    questions = counted(reports[0].num_questions, f"{reports[0].settings['split']} question")
    print(f"{questions}, % right [95 % interval over questions]")
    rows = ranking_rows(reports)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(f"{value:{width}}" for value, width in zip(row, widths, strict=True)).rstrip())
    for note in ranking_notes(reports):
        print(f"note: {note}")
