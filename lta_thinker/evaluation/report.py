"""Report: samples.jsonl -> accuracies with intervals, maj@k, pass@k. Reports side by side: compare.py.

settings.json    all that decides the texts; a folder is only continued with the same
samples.jsonl    a line a question (SampleLine), as soon as it is done; several ranks write one file each
report.json      the figures (Report)
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import maj_at_k, pass_at_k, vote
from lta_thinker.common import InputError, flatten, read_json, read_record, write_json, write_text
from lta_thinker.generation.prompts import collapsed
from lta_thinker.generation.samplers import Answer

SETTINGS_FILE, SAMPLES_FILE, REPORT_FILE = "settings.json", "samples.jsonl", "report.json"
ADAPTER_FILES = ("/adapter_model.safetensors", "/adapter_config.json")
SHOT_SETTINGS = ("num_fewshot", "worked_examples")  # their number, the digest of their texts
RESAMPLES = 10_000  # of the bootstrap

# ---------------------------------------------------------------------------------------------------------------------
# samples.jsonl


@dataclass(frozen=True)
class SampleLine:
    """A line of samples.jsonl: a question and of each sample its text, its answer, its number of tokens, whether it
    ended by itself, and its mean log-probability a token. `correct`: whether the vote is right."""

    index: int
    question: str
    gold: str
    responses: list[str]
    answers: list[str | None]
    vote: str | None
    correct: bool
    num_tokens: list[int]
    finished: list[bool]
    scores: list[float]

    def hits(self, answer_type: str) -> list[bool]:
        """Which of the samples are right."""
        return [answers_equal(answer, self.gold, answer_type) for answer in self.answers]


def sample_line(answer: Answer, answer_type: str) -> SampleLine:
    """The line of an answered question."""
    example, scores = answer.request.example, [sample.score for sample in answer.samples]
    answers = [extract_answer(text, answer_type, example.options) for text in answer.texts]
    winner = vote(answers, answer_type, scores).answer
    return SampleLine(
        index=example.index,
        question=example.question,
        gold=example.answer,
        responses=answer.texts,
        answers=answers,
        vote=winner,
        correct=answers_equal(winner, example.answer, answer_type),
        num_tokens=[sample.num_tokens for sample in answer.samples],
        finished=[sample.finished for sample in answer.samples],
        scores=scores,
    )


def read_samples(path: Path) -> list[SampleLine]:
    """The lines of a samples file, without a last line that was cut off by a kill."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    samples = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
        except ValueError:
            raise InputError(f"{path}:{number}: not JSON; mend the line or delete it") from None
        samples.append(read_record(SampleLine, values, f"{path}:{number}"))
    return samples


def merge_samples(folder: Path) -> dict[int, SampleLine]:
    """Put the lines of all ranks into one samples.jsonl, in the order of the questions; returns them by index."""
    files = sorted(folder.glob("samples*.jsonl"))
    lines = {line.index: line for path in files for line in read_samples(path)}
    lines = {index: lines[index] for index in sorted(lines)}
    write_text(folder / SAMPLES_FILE, "".join(json.dumps(asdict(line)) + "\n" for line in lines.values()))
    for path in files:
        if path.name != SAMPLES_FILE:
            path.unlink()
    return lines


def check_folder(folder: Path, settings: dict) -> None:
    """InputError where the folder holds samples made with other values of these settings."""
    if not any(path.stat().st_size for path in folder.glob("samples*.jsonl")):
        return  # no question was answered yet: the next run may have other settings
    if not (folder / SETTINGS_FILE).exists():
        raise InputError(f"{folder}: has samples but no {SETTINGS_FILE}; use another --output_dir")
    before, now = flatten(read_json(folder / SETTINGS_FILE)), flatten(settings)
    # an adapter's file is a setting only where there is one, distinct_slot_ids where it is true, and worked examples
    # where there are some
    optional = (*ADAPTER_FILES, "distinct_slot_ids", *SHOT_SETTINGS)
    optional_before = [key for key in before if key.endswith(optional)]
    for key in [*now, *optional_before]:
        if before.get(key) != now.get(key):
            raise InputError(
                f"{folder}: its samples were made with {key} = {before.get(key)!r}, now it is {now.get(key)!r}; "
                "use another --output_dir"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Figures


@dataclass(frozen=True)
class Interval:
    """A mean over questions with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        value, low, high = 100 * self.value, 100 * self.low, 100 * self.high
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def nats(value: float, low: float, high: float) -> str:
    """A mean over questions in nats an answer with its interval, as text."""
    return f"{value:.3g} nats an answer [{low:.3g}, {high:.3g}]"


def interval(values) -> Interval:
    """The mean of `values`, one a question, with its 95 % bootstrap interval: questions are resampled, with the same
    draws in every call."""
    values, rng = np.asarray(values, dtype=float), np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


@dataclass(frozen=True)
class Figures:
    """The figures that need only the samples. Shares and accuracies are from 0 to 1.

    maj_at_k, pass_at_k: by k as a string, from "1". ties: tied votes. no_answer, cut_off: shares of the samples.
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


@dataclass(frozen=True)
class Report(Figures):
    """report.json: the figures, and what they were made with.

    speed: questions and tokens a second in this call, None where it answered none; thought_variance: figures of
    ThoughtVariance and num_thoughts, None without thoughts; checkpoint: its name, its run and its dev losses.
    """

    speed: dict[str, float] | None
    thought_variance: dict | None
    checkpoint: dict
    settings: dict
    versions: dict[str, str]
    wall_seconds: float

    @classmethod
    def read(cls, path: Path) -> "Report":
        """A report.json; InputError for what is no report."""
        values = read_json(path)
        if not isinstance(values, dict) or not {"settings", "num_questions", "vote_accuracy"} <= values.keys():
            raise InputError(f"{path}: not a report that evaluate.py wrote")
        return read_record(cls, values, str(path))

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


def make_figures(lines: list[SampleLine], answer_type: str) -> Figures:
    """The figures of the questions on these lines."""
    hits = [line.hits(answer_type) for line in lines]
    votes = [vote(line.answers, answer_type, line.scores) for line in lines]
    by_question = zip(votes, hits, lines, strict=True)
    majorities = np.mean([maj_at_k(result.groups, right, line.scores) for result, right, line in by_question], axis=0)
    passes = np.mean([pass_at_k(right) for right in hits], axis=0)
    return Figures(
        num_questions=len(lines),
        vote_accuracy=interval([line.correct for line in lines]),
        sample_accuracy=interval([np.mean(right) for right in hits]),
        maj_at_k={str(k): float(value) for k, value in enumerate(majorities, 1)},
        pass_at_k={str(k): float(value) for k, value in enumerate(passes, 1)},
        ties=sum(result.tied for result in votes),
        no_answer=float(np.mean([[answer is None for answer in line.answers] for line in lines])),
        cut_off=float(np.mean([[not finished for finished in line.finished] for line in lines])),
        tokens_per_sample=float(np.mean([line.num_tokens for line in lines])),
    )


def print_report(report: Report) -> None:
    """The table at the end of an evaluation."""
    samples = report.settings["sampling"]["num_return_sequences"]
    speed, variance = report.speed, report.thought_variance
    rows = {
        f"vote of {samples}, % right": report.vote_accuracy.percent,
        "one sample, % right": report.sample_accuracy.percent,
        "maj@k, %": "  ".join(f"{k}: {100 * value:.1f}" for k, value in report.maj_at_k.items()),
        "pass@k, %": "  ".join(f"{k}: {100 * value:.1f}" for k, value in report.pass_at_k.items()),
        "tied votes": report.ties,
        "samples without an answer": f"{report.no_answer:.1%}",
        "samples cut off": f"{report.cut_off:.1%}",
        "tokens a sample": f"{report.tokens_per_sample:.1f}",
    }
    if speed:
        rows["questions, tokens a second"] = f"{speed['questions']:.2f}, {speed['tokens']:.1f}"
    if variance:
        over = f"{variance['over_questions']:.3g} over questions, {variance['over_slots']:.3g} over slots"
        if variance["over_chains"] is not None:
            over += f", {variance['over_chains']:.3g} over chains"
        rows[f"variance of the {variance['num_thoughts']} thoughts"] = over
        reads_question = report.settings["thought_generator"] != "prompt"
        if reads_question and "num_questions" in variance and collapsed(variance):
            rows["collapsed"] = "the thoughts are the same for every question"
    dev = report.checkpoint["dev"] or {}
    if "eval_information" in dev:
        value, low, high = (dev[f"eval_information{end}"] for end in ("", "_low", "_high"))
        rows["information of the thoughts"] = f"{nats(value, low, high)} (of training, on dev; normal interval)"
    print(f"{report.num_questions} questions, [95 % intervals: bootstrap over questions]")
    for title, value in rows.items():
        print(f"  {title:28s} {value}")
