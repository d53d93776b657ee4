"""Tables of the study, made from the stored runs alone (benchmarks/study/*.jsonl): study.py --report.

Intervals are 95 % bootstrap intervals over seeds and questions (both resampled), differences are paired: the same seed,
the same question.
"""

import functools
from collections import Counter
from collections.abc import Callable

import numpy as np

from benchmarks.study_runs import Study, Wanted, from_digits
from benchmarks.study_worlds import CONTESTANTS, CONTROLS, TUNED, WEIGHTS, Run

RESAMPLES = 10_000
SHORT_TITLES = {  # of the baselines
    "none": "bare LLM",
    "fewshot": "4 examples",
    "prompt": "prompt",
    "softcot": "SoftCoT",
    "small_block-sft": "small_block, SFT alone",
    "lora": "LoRA",
    **{name: CONTESTANTS[name].title for name in CONTROLS},
}
PER_SAMPLE, VOTE = "one sample", "vote"
NO_FIGURE = "–"
ROUNDING = 1e-12  # a variance of equal thoughts may fall short of 0 by so much
VOTES_SHOWN = (1, 2, 3, 5, 10, 20)

# ---------------------------------------------------------------------------------------------------------------------
# Figures


def percent_right(record: dict, label: str) -> dict[str, np.ndarray]:
    """Of an evaluation: share of right samples and whether the vote is right, in % for every question."""
    found = record["evaluations"][label]
    samples = found["sampling"]["num_return_sequences"]
    return {
        PER_SAMPLE: 100 * np.array(from_digits(found["hits"])) / samples,
        VOTE: 100 * np.array(from_digits(found["votes"])),
    }


def stacked(records: list[dict], label: str, name: str) -> np.ndarray:
    """(seeds, questions) in %."""
    return np.stack([percent_right(record, label)[name] for record in records])


@functools.cache
def draws(seeds: int, questions: int) -> tuple[np.ndarray, np.ndarray]:
    """(RESAMPLES, seeds) and, in float32, (RESAMPLES, questions): how often each is drawn, the same in every call."""
    rng = np.random.default_rng(0)
    of_seeds, of_questions = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in (seeds, questions))
    return of_seeds.astype(float), of_questions.astype(np.float32)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of (seeds, questions) and its 95 % interval. Whole numbers (% of 4, 10 or 20 samples) are summed exactly, so
    that no machine's order of summing shows in a rounded figure, in float32 too: the sums are below 2^24."""
    of_seeds, counts = draws(*values.shape)
    if not (values == np.rint(values)).all():
        counts = counts.astype(float)
    means = ((counts @ values.T.astype(counts.dtype)) * of_seeds).sum(1) / values.size
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def with_interval(values: np.ndarray) -> str:
    mean, low, high = interval(values)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def signed_interval(values: np.ndarray) -> str:
    return signed(*interval(values), digits=1)


def signed(mean: float, low: float, high: float, digits: int) -> str:
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def difference(ours: list[dict], theirs: list[dict], label: str, name: str) -> str:
    """Paired, over the seeds that both have."""
    of = {record["seed"]: record for record in theirs}
    pairs = [(record, of[record["seed"]]) for record in ours if record["seed"] in of]
    if not pairs:
        return ""
    a, b = (stacked(list(side), label, name) for side in zip(*pairs, strict=True))
    return signed_interval(a - b)


def mean_of(records: list[dict], *path: str) -> float | None:
    values = []
    for record in records:
        for key in path:
            record = record.get(key) if record is not None else None
        values.append(record)
    return None if None in values else float(np.mean(values))


def formatted(value: float | None, style: str = ".3g") -> str:
    return NO_FIGURE if value is None else f"{value if abs(value) > ROUNDING else 0.0:{style}}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "(not run yet)"
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ---------------------------------------------------------------------------------------------------------------------
# Tables


class Report:
    """What the stored runs of a study say."""

    def __init__(self, study: Study):
        self.study = study

    def records(self, pairs: Wanted, label: str) -> dict[tuple, list[dict]]:
        """{(contestant, options): records over the seeds} of a stage's runs that have the evaluation."""
        found: dict[tuple, list[dict]] = {}
        for run, evaluations in pairs:
            record = self.study.record(run)
            if label in record.get("evaluations", {}) and label in [e.label for e in evaluations]:
                found.setdefault((run.contestant, run.options), []).append(record)
        return found

    def title(self, contestant: str, options: tuple) -> str:
        """The contestant's, and what differs from it; loss weights are given in the order SFT, align, focus."""
        title, changed = CONTESTANTS[contestant].title, dict(options)
        if not changed.keys().isdisjoint(WEIGHTS):
            flags = CONTESTANTS[contestant].flags or {}
            weights = [changed.pop(name, flags.get(name)) for name in WEIGHTS]
            title = f"{title.partition(',')[0]}, weights {', '.join(f'{weight:g}' for weight in weights)}"
        changes = self.changes(tuple(changed.items()))
        return f"{title}; {changes}" if changes else title

    def changes(self, options: tuple) -> str:
        """In words, what besides the learning rate differs from the contestant's plain run."""
        words = []
        for name, value in options:
            if name not in ("learning_rate", "eval_steps"):
                words.append(name.replace("_", " ") + ("" if value is True else f" {value}"))
        return "; ".join(words)

    def tuning(self, pairs: Wanted) -> str:
        """The dev SFT loss of every contestant at every rate."""
        losses = {run: self.study.dev_loss(run) for run, _ in pairs}
        best: dict[str, float] = {}
        for run, loss in losses.items():
            if loss is not None:
                best[run.contestant] = min(loss, best.get(run.contestant, loss))

        def cell(run: Run) -> str:
            text = formatted(losses[run], ".5f")
            return f"**{text}**" if losses[run] == best[run.contestant] else text

        return self.by_rate("dev SFT loss, seed 41", [run for run in losses if run.contestant in best], cell)

    def informations(self, pairs: Wanted) -> str:
        """The information of the thoughts of every contestant that reads the question, at every rate."""
        found = {
            run: information([training]) for run, _ in pairs if (training := self.study.record(run).get("training"))
        }
        silent = {run.contestant for run, told in found.items() if told == NO_FIGURE}
        runs = [run for run in found if run.contestant not in silent]
        return self.by_rate("information of the thoughts, nats an answer, seed 41", runs, lambda run: found[run])

    def by_rate(self, title: str, runs: list[Run], cell: Callable[[Run], str]) -> str:
        """A row for each contestant, a column for each learning rate; cell(run) is the text of a run."""
        by_contestant: dict[str, dict[float, str]] = {}
        for run in runs:
            by_contestant.setdefault(run.contestant, {})[dict(run.options)["learning_rate"]] = cell(run)
        rates = sorted({rate for of_rate in by_contestant.values() for rate in of_rate})
        rows = [
            [CONTESTANTS[name].title, *(of_rate.get(rate, NO_FIGURE) for rate in rates)]
            for name, of_rate in by_contestant.items()
        ]
        return markdown([title, *(f"{rate:g}" for rate in rates)], rows)

    def main(self, pairs: Wanted, label: str, baselines: tuple[str, ...]) -> str:
        """Three tables: accuracies; paired differences to the baselines; what the samples, the training and the
        thoughts were like."""
        accuracies = self.accuracies(pairs, label)
        if not self.by_contestant(pairs, label):
            return accuracies
        return "\n\n".join([accuracies, self.differences(pairs, label, baselines), self.properties(pairs, label)])

    def by_contestant(self, pairs: Wanted, label: str) -> dict[str, list[dict]]:
        return {name: records for (name, _), records in self.records(pairs, label).items()}

    def accuracies(self, pairs: Wanted, label: str) -> str:
        rows = []
        for name, records in self.by_contestant(pairs, label).items():
            cells = [with_interval(stacked(records, label, what)) for what in (PER_SAMPLE, VOTE)]
            seeds = ", ".join(f"{mean:.0f}" for mean in stacked(records, label, PER_SAMPLE).mean(1))
            rows.append([CONTESTANTS[name].title, *cells, seeds])
        return markdown(["% right", PER_SAMPLE, VOTE, "one sample, seed by seed"], rows)

    def differences(self, pairs: Wanted, label: str, baselines: tuple[str, ...]) -> str:
        found, rows = self.by_contestant(pairs, label), []
        for name, records in found.items():
            cells = []
            for baseline in baselines:
                theirs = found.get(baseline, []) if baseline != name else []
                changes = [difference(records, theirs, label, what) for what in (PER_SAMPLE, VOTE)]
                cells.append("<br>".join(changes) if changes[0] else "")
            rows.append([CONTESTANTS[name].title, *cells])
        head = ["difference: one sample, vote", *(f"− {SHORT_TITLES[name]}" for name in baselines)]
        return markdown(head, rows)

    def properties(self, pairs: Wanted, label: str) -> str:
        part, variances = ("evaluations", label), ("questions", "slots", "chains")
        rows = []
        for name, records in self.by_contestant(pairs, label).items():
            seconds = min((r["training"]["seconds"] for r in records if "training" in r), default=None)
            cells = [
                f"{mean_of(records, *part, 'no_answer'):.1%}",
                f"{mean_of(records, *part, 'cut_off'):.1%}",
                f"{mean_of(records, *part, 'tokens_per_sample'):.1f}",
                formatted(mean_of(records, "training", "trained_parameters"), ",.0f"),
                formatted(seconds, ".0f"),
            ]
            for over in variances:
                cells.append(formatted(mean_of(records, *part, "thought_variance", f"over_{over}"), ".2g"))
            rows.append([CONTESTANTS[name].title, *cells])
        head = ["", "no answer", "cut off", "tokens a sample", "trained parameters", "seconds to train (least)"]
        return markdown(head + [f"variance over {over}" for over in variances], rows)

    def ways(self, pairs: Wanted, label: str) -> str:
        """Two tables: accuracies beside what an answer and the training cost; paired differences to the bare LLM, to
        a constant prompt and to Coconut's controls."""
        asked = self.by_contestant(pairs, label)
        baselines = tuple(name for name in ("none", "prompt", *CONTROLS) if name in asked)
        return "\n\n".join([self.costs_of_ways(pairs, label), self.differences(pairs, label, baselines)])

    def costs_of_ways(self, pairs: Wanted, label: str) -> str:
        """A row for each contestant. Seconds a question are of ALONE or FEW_ALONE: one core each."""
        rows = []
        for name, records in self.by_contestant(pairs, label).items():
            evaluations = [pair for record in records for pair in record["evaluations"].items()]
            questions = [told["speed"]["questions"] for asked, told in evaluations if asked.startswith("alone")]
            trainings = [record["training"] for record in records if "training" in record]
            seconds = min((training["seconds"] for training in trainings), default=None)
            rows.append(
                [
                    CONTESTANTS[name].title,
                    str(len(records)),
                    *(with_interval(stacked(records, label, what)) for what in (PER_SAMPLE, VOTE)),
                    f"{mean_of(records, 'evaluations', label, 'tokens_per_sample'):.1f}",
                    formatted(1 / float(np.mean(questions)) if questions else None, ".2f"),
                    formatted(mean_of(records, "training", "trained_parameters"), ",.0f"),
                    formatted(seconds, ".0f"),
                    information(trainings) if trainings else NO_FIGURE,
                ]
            )
        head = ["% right", "seeds", PER_SAMPLE, VOTE, "tokens a sample", "seconds a question", "trained parameters"]
        return markdown([*head, "seconds to train (least)", "information, nats an answer"], rows)

    def dev_figures(self, pairs: Wanted) -> str:
        """A row for each contestant and set of options: what dev says of it."""
        found: dict[tuple, list[Run]] = {}
        for run, _ in pairs:
            if self.study.dev_loss(run) is not None:
                found.setdefault((run.contestant, run.options), []).append(run)
        rows = []
        for (name, options), runs in found.items():
            trainings = [self.study.record(run)["training"] for run in runs]
            rows.append(
                [
                    self.title(name, options),
                    str(len(runs)),
                    formatted(float(np.mean([training["best_sft_loss"] for training in trainings])), ".4f"),
                    self.dev_difference(runs, "prompt"),
                    information(trainings),
                ]
            )
        head = ["", "seeds", "dev SFT loss, nats a token", "− constant prompt of as many steps, nats an answer"]
        return markdown([*head, "information of the thoughts, nats an answer"], rows)

    def dev_difference(self, runs: list[Run], baseline: str) -> str:
        """An answer's loss less the baseline's after as many steps, paired by seed and dev row."""
        pairs = []
        for run in runs:
            as_long = {name: value for name, value in run.options if name in ("max_steps", "eval_steps")}
            its = self.study.record(self.study.tuned(run.world, baseline, run.seed, **as_long)).get("training")
            if run.contestant != baseline and its:
                pairs.append([self.study.record(run)["training"]["dev_losses"], its["dev_losses"]])
        if not pairs:
            return ""
        ours, theirs = np.array(pairs).swapaxes(0, 1)
        return signed(*interval(ours - theirs), digits=2)

    def variants(self, pairs: Wanted, label: str, baseline: str | None = None) -> str:
        """A row for each contestant and set of options, against the contestant's plain run (its learning rate alone) or
        the baseline's run."""
        found = self.records(pairs, label)
        plain_of = {name: records for (name, options), records in found.items() if len(options) == 1}
        if baseline:
            its = next((records for (name, _), records in found.items() if name == baseline), [])
            plain_of = {name: its for name, _ in found if name != baseline}
        than = SHORT_TITLES[baseline] if baseline else "plain"
        head = ["", "seeds", "dev SFT loss", PER_SAMPLE, VOTE, f"− {than}, {PER_SAMPLE}", f"− {than}, {VOTE}"]
        head += ["variance over questions", "over slots"]
        rows = []
        for (name, options), records in found.items():
            plain = plain_of.get(name, []) if len(options) > 1 else []
            changes = [difference(records, plain, label, what) for what in (PER_SAMPLE, VOTE)]
            rows.append(
                [
                    self.title(name, options),
                    str(len(records)),
                    formatted(mean_of(records, "training", "best_sft_loss"), ".5f"),
                    *(with_interval(stacked(records, label, what)) for what in (PER_SAMPLE, VOTE)),
                    *changes,
                    formatted(mean_of(records, "evaluations", label, "thought_variance", "over_questions"), ".2g"),
                    formatted(mean_of(records, "evaluations", label, "thought_variance", "over_slots"), ".2g"),
                ]
            )
        return markdown(head, rows)

    def versus(self, pairs: Wanted, label: str, ours: str, theirs: str) -> str:
        """The paired difference of two contestants under each of the stage's options: one sample, vote."""
        by_changes: dict[str, dict[str, list[dict]]] = {}
        for (name, options), records in self.records(pairs, label).items():
            by_changes.setdefault(self.changes(options), {})[name] = records
        rows = []
        for changes, records in by_changes.items():
            if ours in records and theirs in records:
                cells = [difference(records[ours], records[theirs], label, what) for what in (PER_SAMPLE, VOTE)]
                rows.append([changes or "plain", str(len(records[ours])), *cells])
        title = f"{CONTESTANTS[ours].title} − {CONTESTANTS[theirs].title}"
        return markdown([title, "seeds", PER_SAMPLE, VOTE], rows)

    def labels(self, pairs: Wanted, baseline: str | None = None) -> str:
        """One sample of each run under each of the stage's evaluations; with a baseline also the paired difference."""
        labels = list(dict.fromkeys(e.label for _, evaluations in pairs for e in evaluations))
        by_label = {label: self.records(pairs, label) for label in labels}
        rows = []
        for key in dict.fromkeys(key for found in by_label.values() for key in found):
            cells = [self.cell_of(by_label[label], label, key, baseline) for label in labels]
            rows.append([self.title(*key), *cells])
        return markdown([f"{PER_SAMPLE}, %", *labels], rows)

    def cell_of(self, found: dict[tuple, list[dict]], label: str, key: tuple, baseline: str | None) -> str:
        """A cell of `labels`: one evaluation of the runs under a key of `records`."""
        if key not in found:
            return ""
        cell = with_interval(stacked(found[key], label, PER_SAMPLE))
        if key[0] == baseline:
            return cell
        theirs = [record for (name, _), records in found.items() if name == baseline for record in records]
        change = difference(found[key], theirs, label, PER_SAMPLE)
        return f"{cell}; {change}" if change else cell

    def headroom(self, pairs: Wanted, large: str, small: str) -> str:
        """What each LM of the pair can do alone, and what would be had if for every question the better of the two were
        known: chosen by the samples of one seed, scored on those of the other."""
        by_world: dict[str, list[dict]] = {}
        for run, _ in pairs:
            record = self.study.record(run)
            if {large, small} <= record.get("evaluations", {}).keys():
                by_world.setdefault(run.world, []).append(record)
        rows = []
        for world, records in by_world.items():
            a, b = (stacked(records, label, PER_SAMPLE) for label in (large, small))
            best = np.where(b[::-1] > a[::-1], b, a)  # (seeds, questions)
            rows.append([world, *map(with_interval, (a, b, best)), signed_interval(best - a)])
        return markdown([PER_SAMPLE, "large LM", "small LM", "the better by question", "− large LM"], rows)

    def maj_at_k(self, pairs: Wanted, label: str) -> dict[str, tuple[list, list]]:
        """{title: (numbers of samples, accuracy of their vote in %)}, mean over seeds."""
        lines = {}
        for (name, _), records in self.records(pairs, label).items():
            curves = [record["evaluations"][label]["maj_at_k"] for record in records]
            ks = [int(k) for k in curves[0]]
            lines[CONTESTANTS[name].title] = (ks, [100 * np.mean([curve[str(k)] for curve in curves]) for k in ks])
        return lines

    def votes(self, pairs: Wanted, label: str) -> str:
        shares = self.maj_at_k(pairs, label)
        rows = [[title, *(f"{y[k - 1]:.1f}" for k in VOTES_SHOWN)] for title, (_, y) in shares.items()]
        return markdown(["% right, vote of", *map(str, VOTES_SHOWN)], rows)

    def inside(self, pairs: Wanted) -> str:
        """Of evaluate.py --inspect: scale, nearest words, attention, swapped thoughts."""
        rows = []
        for run, _ in pairs:
            found = self.study.record(run).get("evaluations", {}).get("inspect")
            if found:
                rows.append([CONTESTANTS[run.contestant].title, *inspected(found)])
        head = [
            "",
            "nearest words of the thoughts",
            "norm of a thought / of a row",
            "features outside the table's range",
            "attention by layer, % (uniform)",
        ]
        head += ["greedy, own thoughts, %", "another question's", "mean thought", "zeros"]
        return markdown(head, rows)

    def costs(self, stages: dict) -> str:
        rows, total = [], 0.0
        seen: set[tuple] = set()
        for title, pairs in stages.items():
            seconds = 0.0
            for run, evaluations in pairs:
                record = self.study.record(run)
                parts = {"training": record.get("training")} | record.get("evaluations", {})
                for label in ["training", *(e.label for e in evaluations)]:
                    if parts.get(label) and (run, label) not in seen:
                        seen.add((run, label))
                        seconds += parts[label].get("seconds", 0.0)
            total += seconds
            rows.append([title, f"{seconds / 60:.0f}"])
        rows.append(["all", f"{total / 60:.0f}"])
        return markdown(["stage", "minutes of one process"], rows)


def information(trainings: list[dict]) -> str:
    """The information of the thoughts at the best step, with its interval over dev rows; of several seeds the means."""
    keys = ("eval_information", "eval_information_low", "eval_information_high")
    points = []
    for training in trainings:
        best = next(point for point in training["dev_curve"] if point["step"] == training["best_step"])
        points.append([best.get(key, np.nan) for key in keys])
    means = np.mean(points, axis=0)
    return NO_FIGURE if np.isnan(means).any() else signed(*means, digits=2)


def code(word: str) -> str:
    """A word as it may stand in a cell of a table: no line break, no bar."""
    return repr(word)[1:-1].replace("|", "\\|")


def inspected(found: dict) -> list[str]:
    """The cells of a row of `inside`."""
    table, accuracy = found["table"], found["accuracy"]
    mass, uniform = (100 * np.mean(found["attention"][name], axis=0) for name in ("mass", "uniform"))  # (layers,)
    swaps = [accuracy[name] for name in ("own", "swapped", "mean", "zeros")]
    words = Counter(word for question in found["nearest_words"] for word in question)
    return [
        ", ".join(f"`{code(word)}` {count / words.total():.0%}" for word, count in words.most_common(3)),
        f"{table['thought_norm']['mean'] / table['row_norm']['mean']:.1f}",
        f"{table['outside']:.0%}",
        ", ".join(f"{share:.1f}" for share in mass) + f" ({uniform.mean():.1f})",
        *(formatted(swap and 100 * swap["value"], ".0f") for swap in swaps),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The variance of the thoughts


Points = dict[str, list[tuple[float, float, float]]]


def variance_points(records: list[dict]) -> Points:
    """{contestant: (variance over questions, over slots, one-sample accuracy in %) of its runs on test questions},
    where the LLM is the same in all runs."""
    points: Points = {}
    for record in records:
        label = next((label for label in ("test-x10", "test-x4") if label in record["evaluations"]), None)
        variance = record["evaluations"][label]["thought_variance"] if label else None
        if variance and variance["over_questions"] > ROUNDING and record["contestant"] not in TUNED:
            accuracy = percent_right(record, label)[PER_SAMPLE].mean()
            of_contestant = points.setdefault(record["contestant"].removesuffix("-sft"), [])
            of_contestant.append((variance["over_questions"], variance["over_slots"], accuracy))
    return points


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values at the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def variance_table(points: Points) -> str:
    """Spearman's rank correlation of variance and accuracy within each contestant: scales differ between them."""
    rows = []
    for name, runs in points.items():
        questions, slots, accuracy = (ranks(np.array(column)) for column in zip(*runs, strict=True))
        if len(runs) >= 5 and accuracy.std() > 0:
            correlations = [f"{np.corrcoef(column, accuracy)[0, 1]:+.2f}" for column in (questions, slots)]
            rows.append([name, str(len(runs)), *correlations])
    return markdown(["rank correlation with accuracy", "runs", "variance over questions", "variance over slots"], rows)
