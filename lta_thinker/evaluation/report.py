"""Report: samples.jsonl -> answers -> accuracies with intervals, maj@k, pass@k. Reports side by side: compare.py.

Answers are found in the stored texts, and compared with the reference's, by the code that makes the report: one version
for all of them, whatever wrote the texts. graded.jsonl has a line a question with what was found.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from lta_thinker.answers import ANSWER_TYPES, answers_equal, extract_answer
from lta_thinker.answers.verifier import Budget
from lta_thinker.answers.votes import Vote, maj_at_k, pass_at_k, vote
from lta_thinker.common import InputError, counted, read_json, read_record, write_json, write_text
from lta_thinker.evaluation.intervals import Interval, nats, share_interval
from lta_thinker.evaluation.samples import SampleLine
from lta_thinker.generation.collapse import collapsed
from lta_thinker.rows.examples import gold_answer

REPORT_FILE, GRADED_FILE = "report.json", "graded.jsonl"
INSPECTION_FILE = "inspection.json"  # of --inspect (inspection.py)
KNOWN_STATES = "known_states"  # the setting: of the LMs by role, Models.known_states
ADAPTER_FILES = ("/adapter_model.safetensors", "/adapter_config.json")  # ends of settings: an adapter's files

# ---------------------------------------------------------------------------------------------------------------------
# Answers


@dataclass(frozen=True, kw_only=True)
class Found:
    """A line of graded.jsonl: a question, its gold answer, and of each sample its answer and whether that is right
    (hits: None in a line of an earlier version); the vote's answer, and whether that is right."""

    index: int
    question: str
    gold: str
    answers: list[str | None]
    hits: list[bool] | None = None
    vote: str | None
    correct: bool


@dataclass(frozen=True)
class Graded:
    """A line of samples.jsonl with its answers. gold: the reference's, canonical; hits: which samples are right;
    correct: whether the vote is; unsettled: comparisons of formulas that took too long (answers/verifier.py)."""

    line: SampleLine
    gold: str
    answers: list[str | None]
    vote: Vote
    hits: list[bool]
    correct: bool
    unsettled: int

    @property
    def found(self) -> Found:
        """Its line of graded.jsonl."""
        return Found(
            index=self.line.index,
            question=self.line.question,
            gold=self.gold,
            answers=self.answers,
            hits=self.hits,
            vote=self.vote.answer,
            correct=self.correct,
        )


def grade(line: SampleLine, answer_type: str) -> Graded:
    """The line's answers and its vote. InputError where the reference's answer is none of this type."""
    if answer_type == "choice" and line.options is None:
        raise InputError(f"question {line.index}: an earlier version's line, without the options; evaluate again")
    options = tuple(line.options or ())
    try:
        gold = gold_answer(line.gold, answer_type, options)
    except ValueError as error:
        raise InputError(f"question {line.index}: its reference has {error}") from None
    texts = zip(line.responses, line.finished, strict=True)
    answers = [extract_answer(text, answer_type, options, finished) for text, finished in texts]
    # each answer that differs has a budget of its own against the gold one: no answer's grade hangs on the others
    budgets = {answer: Budget() for answer in answers}
    right = {answer: answers_equal(answer, gold, answer_type, budget) for answer, budget in budgets.items()}
    of_vote = Budget()
    result = vote(answers, answer_type, line.scores, of_vote)
    unsettled = sum(budget.unsettled for budget in (of_vote, *budgets.values()))
    correct = result.answer is not None and right[result.answer]
    return Graded(line, gold, answers, result, [right[answer] for answer in answers], correct, unsettled)


def write_graded(path: Path, graded: Sequence[Graded]) -> None:
    """graded.jsonl, all or nothing."""
    write_text(path, "".join(json.dumps(asdict(one.found)) + "\n" for one in graded))


# ---------------------------------------------------------------------------------------------------------------------
# Figures


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The figures that need only the samples. Shares and accuracies are from 0 to 1.

    maj_at_k, pass_at_k: by k as a string, from "1". ties: tied votes. no_answer, cut_off: shares of the samples.
    unsettled: comparisons of formulas that took too long and count as unequal.
    """

    num_questions: int
    vote_accuracy: Interval
    sample_accuracy: Interval
    maj_at_k: dict[str, float]
    pass_at_k: dict[str, float]
    ties: int
    no_answer: float
    cut_off: float
    tokens_per_sample: float
    unsettled: int = 0


def make_figures(graded: Sequence[Graded]) -> Figures:
    """The figures of these questions."""
    lines = [one.line for one in graded]
    majorities = np.mean([maj_at_k(one.vote.groups, one.hits, one.line.scores) for one in graded], axis=0)
    passes = np.mean([pass_at_k(one.hits) for one in graded], axis=0)
    return Figures(
        num_questions=len(lines),
        vote_accuracy=share_interval([one.correct for one in graded]),
        sample_accuracy=share_interval([np.mean(one.hits) for one in graded], len(lines[0].responses)),
        maj_at_k={str(k): float(value) for k, value in enumerate(majorities, 1)},
        pass_at_k={str(k): float(value) for k, value in enumerate(passes, 1)},
        ties=sum(one.vote.tied for one in graded),
        no_answer=float(np.mean([[answer is None for answer in one.answers] for one in graded])),
        cut_off=float(np.mean([[not finished for finished in line.finished] for line in lines])),
        tokens_per_sample=float(np.mean([line.num_tokens for line in lines])),
        unsettled=sum(one.unsettled for one in graded),
    )


# ---------------------------------------------------------------------------------------------------------------------
# report.json


@dataclass(frozen=True)
class CheckpointFacts:
    """The weights that a report is about: their name, and the run and dev losses of their training, where known."""

    name: str
    run: str | None
    dev: dict[str, float] | None


@dataclass(frozen=True)
class KnownSampling:
    """Of a report's settings.sampling, what is read again."""

    num_return_sequences: int


@dataclass(frozen=True)
class KnownSettings:
    """Of a report's settings, what is read again."""

    thought_generator: str
    base_model_id: str
    num_thought_tokens: int
    task_name: str
    split: str
    questions: str
    answer_type: str
    dtype: str
    sampling: KnownSampling


@dataclass(frozen=True)
class KnownVariance:
    """Of a report's thought_variance, what is read again. An earlier version's has less, and is not shown."""

    over_questions: float
    over_slots: float
    over_chains: float | None
    mean_square: float
    num_questions: int
    num_thoughts: int


VARIANCE_KEYS = {one.name for one in fields(KnownVariance)}


@dataclass(frozen=True, kw_only=True)
class Report(Figures):
    """report.json: the figures, and what they were made with.

    speed: questions and tokens a second in this call, None where it answered none; thought_variance: figures of
    ThoughtVariance and num_thoughts, None without thoughts; versions: of what found the answers and made the figures;
    starts: of what wrote the texts, one for each start with others than the one before; samples: digest of the lines
    that the figures are of.
    """

    speed: dict[str, float] | None
    thought_variance: dict | None
    checkpoint: CheckpointFacts
    settings: dict
    versions: dict[str, str]
    wall_seconds: float
    starts: list[dict[str, str]] = field(default_factory=list)
    samples: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Report":
        """A report.json; InputError for what is no report."""
        values = read_json(path)
        if not isinstance(values, dict) or not {"settings", "num_questions", "vote_accuracy"} <= values.keys():
            raise InputError(f"{path}: not a report that evaluate.py wrote")
        report = read_record(cls, values, str(path))
        known = read_record(KnownSettings, report.settings, f"{path}: settings")
        variance = report.thought_variance or {}
        if variance.keys() >= VARIANCE_KEYS:
            read_record(KnownVariance, variance, f"{path}: thought_variance")
        accuracies = (report.vote_accuracy, report.sample_accuracy)
        ks = [str(k) for k in range(1, known.sampling.num_return_sequences + 1)]
        good = {
            "num_questions": report.num_questions >= 1,
            "settings: answer_type": known.answer_type in ANSWER_TYPES,
            "settings: num_thought_tokens": known.num_thought_tokens >= 0,
            "vote_accuracy or sample_accuracy": all(0 <= a.low <= a.value <= a.high <= 1 for a in accuracies),
            "maj_at_k or pass_at_k": list(report.maj_at_k) == list(report.pass_at_k) == ks != [],
        }
        for name, holds in good.items():
            if not holds:
                raise InputError(f"{path}: its {name} is not what evaluate.py writes")
        return report

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


def lines_digest(lines: Sequence[SampleLine]) -> str:
    """Report.samples."""
    return hashlib.sha256("".join(line.json() for line in lines).encode()).hexdigest()


def version_texts(report: Report) -> dict[str, str]:
    """{library: versions that wrote the report's texts, the first start's first}."""
    starts = report.starts or [report.versions]
    names = dict.fromkeys(name for start in starts for name in start)
    return {name: ", then ".join(dict.fromkeys(start.get(name, "none") for start in starts)) for name in names}


def mixed_versions(report: Report) -> str | None:
    """What says that the texts were not written by one version; None where they were."""
    mixed = [f"{name} {text}" for name, text in version_texts(report).items() if ", then " in text]
    return f"the texts are of several versions: {'; '.join(mixed)}" if mixed else None


VOTE_TITLE, SAMPLE_TITLE = "vote of {}, % right", "one sample, % right"
SPEED_TITLE, INFORMATION_TITLE = "questions, tokens a second", "information of the thoughts"


def figure_rows(report: Report) -> dict[str, str]:
    """The report's figures as they are shown, by their titles."""
    samples = report.settings["sampling"]["num_return_sequences"]
    speed, variance = report.speed, report.thought_variance
    rows = {SAMPLE_TITLE: report.sample_accuracy.percent}
    if samples > 1:  # a vote of one is that sample
        rows = {VOTE_TITLE.format(samples): report.vote_accuracy.percent} | rows
        rows |= {
            "maj@k, %": "  ".join(f"{k}: {100 * value:.1f}" for k, value in report.maj_at_k.items()),
            "pass@k, %": "  ".join(f"{k}: {100 * value:.1f}" for k, value in report.pass_at_k.items()),
            "tied votes": str(report.ties),
        }
    rows |= {
        "samples without an answer": f"{report.no_answer:.1%}",
        "samples cut off": f"{report.cut_off:.1%}",
        "tokens a sample": f"{report.tokens_per_sample:.1f}",
    }
    if report.unsettled:
        rows["comparisons given up"] = f"{report.unsettled}: these formulas took too long, and count as unequal"
    if speed and speed.keys() >= {"questions", "tokens"}:
        rows[SPEED_TITLE] = f"{speed['questions']:.2f}, {speed['tokens']:.1f}"
    if variance and variance.keys() >= VARIANCE_KEYS:
        over = f"{variance['over_questions']:.3g} over questions, {variance['over_slots']:.3g} over slots"
        if variance["over_chains"] is not None:
            over += f", {variance['over_chains']:.3g} over chains"
        count = variance["num_thoughts"]
        rows["variance of the thought" if count == 1 else f"variance of the {count} thoughts"] = over
        reads_question = report.settings["thought_generator"] != "prompt"
        if reads_question and collapsed(variance):
            rows["collapsed"] = "the thoughts are the same for every question"
    if information := information_text(report.checkpoint.dev or {}):
        rows[INFORMATION_TITLE] = f"{information} (of training, on dev; normal interval)"
    return rows


def information_text(dev: dict[str, float]) -> str | None:
    """The information of the thoughts with its interval from the dev figures of a training; None where they have
    none."""
    keys = [f"eval_information{end}" for end in ("", "_low", "_high")]
    return nats(*(dev[key] for key in keys)) if all(key in dev for key in keys) else None


def print_report(report: Report) -> None:
    """The table at the end of an evaluation."""
    print(f"{counted(report.num_questions, 'question')}, [95 % intervals over questions]")
    for title, value in figure_rows(report).items():
        print(f"  {title:28s} {value}")
    if mixed := mixed_versions(report):
        print(f"note: {mixed}")
