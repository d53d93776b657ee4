"""Tables and plots of the study, from the JSON files alone: `python benchmarks/study.py --report`.

Intervals are 95 % bootstrap intervals over seeds and questions (both resampled), differences are paired: the same seed,
the same question.
"""

import functools
import re
from collections import Counter
from pathlib import Path

import numpy as np

RESAMPLES = 10_000
BASELINES = {"none": "bare LLM", "prompt": "prompt", "softcot": "SoftCoT", "small_block-sft": "small_block, SFT alone"}
MARK = "<!-- study: {} -->\n{}\n<!-- end -->"
PER_SAMPLE, VOTE = "one sample", "vote"
ROUNDING = 1e-12  # a variance of equal thoughts may fall short of 0 by so much
VOTES_SHOWN = (1, 2, 3, 5, 10, 20)

# ---------------------------------------------------------------------------------------------------------------------
# Figures


def right(record: dict, label: str) -> dict[str, np.ndarray]:
    """Of an evaluation: share of right samples and whether the vote is right, in % for every question."""
    found = record["evaluations"][label]
    samples = found["sampling"]["num_return_sequences"]
    return {
        PER_SAMPLE: 100 * np.array(found["hits"]) / samples,
        VOTE: 100 * np.array([float(v) for v in found["votes"]]),
    }


def stacked(records: list[dict], label: str, name: str) -> np.ndarray:
    """(seeds, questions) in %."""
    return np.stack([right(record, label)[name] for record in records])


@functools.cache
def draws(seeds: int, questions: int) -> tuple[np.ndarray, np.ndarray]:
    """(RESAMPLES, seeds) and (RESAMPLES, questions): how often each is drawn, the same in every call."""
    rng = np.random.default_rng(0)
    return tuple(rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float) for n in (seeds, questions))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of (seeds, questions) and its 95 % interval. Whole numbers (% of 4, 10 or 20 samples) are summed exactly, so
    that no machine's order of summing shows in a rounded figure."""
    of_seeds, of_questions = draws(*values.shape)
    means = ((of_questions @ values.T) * of_seeds).sum(1) / values.size
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def told(values: np.ndarray) -> str:
    mean, low, high = interval(values)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def signed(values: np.ndarray) -> str:
    mean, low, high = interval(values)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def difference(ours: list[dict], theirs: list[dict], label: str, name: str) -> str:
    """Paired, over the seeds that both have."""
    of = {record["seed"]: record for record in theirs}
    pairs = [(record, of[record["seed"]]) for record in ours if record["seed"] in of]
    if not pairs:
        return ""
    a, b = (stacked(list(side), label, name) for side in zip(*pairs, strict=True))
    return signed(a - b)


def mean_of(records: list[dict], *path: str) -> float | None:
    values = []
    for record in records:
        for key in path:
            record = record.get(key) if record is not None else None
        values.append(record)
    return None if None in values else float(np.mean(values))


def shown(value: float | None, style: str = ".3g") -> str:
    return "–" if value is None else f"{value if abs(value) > ROUNDING else 0.0:{style}}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "(not run yet)"
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ---------------------------------------------------------------------------------------------------------------------
# Tables


class Report:
    """What a study's files say; `study` and `contestants` are those of benchmarks/study.py."""

    def __init__(self, study, contestants: dict):
        self.study, self.contestants = study, contestants

    def have(self, pairs: list, label: str) -> dict[tuple, list[dict]]:
        """{(contestant, options): records over the seeds} of a stage's runs that have the evaluation."""
        found: dict[tuple, list[dict]] = {}
        for run, evaluations in pairs:
            record = self.study.record(run)
            if label in record.get("evaluations", {}) and label in [e.label for e in evaluations]:
                found.setdefault((run.contestant, run.options), []).append(record)
        return found

    def title(self, contestant: str, options: tuple) -> str:
        """The contestant's, and what differs from it; loss weights are given in the order SFT, align, focus."""
        title, changed = self.contestants[contestant][0], dict(options)
        weights = [changed.pop(f"{name}_loss_weight", None) for name in ("sft", "align", "focus")]
        if None not in weights:
            title = f"{title.partition(',')[0]}, weights {', '.join(f'{weight:g}' for weight in weights)}"
        return "; ".join([title, *filter(None, [self.changes(tuple(changed.items()))])])

    def changes(self, options: tuple) -> str:
        """In words, what besides the learning rate differs from the contestant's plain run."""
        told = [
            name.replace("_", " ") + ("" if value is True else f" {value}")
            for name, value in options
            if name not in ("learning_rate", "eval_steps")
        ]
        return "; ".join(told)

    def tuning(self, pairs: list) -> str:
        losses: dict[str, dict[float, float]] = {}
        for run, _ in pairs:
            record = self.study.record(run)
            if "training" in record:
                losses.setdefault(run.contestant, {})[dict(run.options)["learning_rate"]] = record["training"][
                    "best_sft_loss"
                ]
        rates = sorted({rate for of in losses.values() for rate in of})
        rows = []
        for name, of in losses.items():
            best = min(of.values())
            cells = [f"**{of[r]:.5f}**" if of.get(r) == best else shown(of.get(r), ".5f") for r in rates]
            rows.append([self.contestants[name][0], *cells])
        return markdown(["dev SFT loss, seed 41", *(f"{rate:g}" for rate in rates)], rows)

    def main(self, pairs: list, label: str) -> str:
        """Three tables: accuracies; paired differences; what the samples, the training and the thoughts were like."""
        found = {name: records for (name, _), records in self.have(pairs, label).items()}
        accuracies, differences, more, part = [], [], [], ("evaluations", label)
        variances = ("over_questions", "over_slots", "over_chains")
        for name, records in found.items():
            title = self.contestants[name][0]
            seeds = ", ".join(f"{mean:.0f}" for mean in stacked(records, label, PER_SAMPLE).mean(1))
            accuracies.append([title, *(told(stacked(records, label, what)) for what in (PER_SAMPLE, VOTE)), seeds])
            others = [found.get(baseline, []) if name != baseline else [] for baseline in BASELINES]
            cells = [[difference(records, other, label, what) for other in others] for what in (PER_SAMPLE, VOTE)]
            differences.append([title, *(f"{one}<br>{vote}" if one else "" for one, vote in zip(*cells, strict=True))])
            seconds = min((r["training"]["seconds"] for r in records if "training" in r), default=None)
            more.append(
                [
                    title,
                    f"{mean_of(records, *part, 'no_answer'):.1%}",
                    f"{mean_of(records, *part, 'tokens_per_sample'):.1f}",
                    shown(mean_of(records, "training", "trained_parameters"), ",.0f"),
                    shown(seconds, ".0f"),
                    *(shown(mean_of(records, *part, "thought_variance", key), ".2g") for key in variances),
                ]
            )
        heads = [["% right", PER_SAMPLE, VOTE, "one sample, seed by seed"]]
        heads += [["difference: one sample, vote", *(f"− {title}" for title in BASELINES.values())]]
        heads += [["", "no answer", "tokens a sample", "trained parameters", "seconds to train (least)"]]
        heads[2] += [f"variance over {what}" for what in ("questions", "slots", "chains")]
        tables = [markdown(head, rows) for head, rows in zip(heads, (accuracies, differences, more), strict=True)]
        return "\n\n".join(tables if accuracies else tables[:1])

    def variants(self, pairs: list, label: str) -> str:
        """A row for each contestant and set of options, against the contestant's plain run: its learning rate alone."""
        found = self.have(pairs, label)
        plain_of = {name: records for (name, options), records in found.items() if len(options) == 1}
        head = ["", "seeds", "dev SFT loss", PER_SAMPLE, VOTE, f"− plain, {PER_SAMPLE}", f"− plain, {VOTE}"]
        head += ["variance over questions", "over slots"]
        rows = []
        for (name, options), records in found.items():
            plain = plain_of.get(name, []) if len(options) > 1 else []
            changes = [difference(records, plain, label, what) for what in (PER_SAMPLE, VOTE)]
            rows.append(
                [
                    self.title(name, options),
                    str(len(records)),
                    shown(mean_of(records, "training", "best_sft_loss"), ".5f"),
                    *(told(stacked(records, label, what)) for what in (PER_SAMPLE, VOTE)),
                    *changes,
                    shown(mean_of(records, "evaluations", label, "thought_variance", "over_questions"), ".2g"),
                    shown(mean_of(records, "evaluations", label, "thought_variance", "over_slots"), ".2g"),
                ]
            )
        return markdown(head, rows)

    def versus(self, pairs: list, label: str, ours: str, theirs: str) -> str:
        """The paired difference of two contestants under each of the stage's options: one sample, vote."""
        of: dict[str, dict[str, list[dict]]] = {}
        for (name, options), records in self.have(pairs, label).items():
            of.setdefault(self.changes(options), {})[name] = records
        rows = [
            [changes or "plain", str(len(records[ours]))]
            + [difference(records[ours], records[theirs], label, what) for what in (PER_SAMPLE, VOTE)]
            for changes, records in of.items()
            if {ours, theirs} <= records.keys()
        ]
        title = f"{self.contestants[ours][0]} − {self.contestants[theirs][0]}"
        return markdown([title, "seeds", PER_SAMPLE, VOTE], rows)

    def labels(self, pairs: list, baseline: str | None = None) -> str:
        """One sample of each run under each of the stage's evaluations; with a baseline also the paired difference."""
        labels = list(dict.fromkeys(e.label for _, evaluations in pairs for e in evaluations))
        of = {label: self.have(pairs, label) for label in labels}
        rows = []
        for key in dict.fromkeys(key for found in of.values() for key in found):
            cells = []
            for label in labels:
                records = of[label].get(key, [])
                cells.append(told(stacked(records, label, PER_SAMPLE)) if records else "")
                theirs = [r for (name, _), rs in of[label].items() if name == baseline != key[0] for r in rs]
                if change := difference(records, theirs, label, PER_SAMPLE):
                    cells[-1] += f"; {change}"
            rows.append([self.title(*key), *cells])
        return markdown([f"{PER_SAMPLE}, %", *labels], rows)

    def headroom(self, pairs: list, large: str, small: str) -> str:
        """What each LM of the pair can do alone, and what would be had if for every question the better of the two were
        known: chosen by the samples of one seed, scored on those of the other."""
        of: dict[str, list[dict]] = {}
        for run, _ in pairs:
            record = self.study.record(run)
            if {large, small} <= record.get("evaluations", {}).keys():
                of.setdefault(run.world, []).append(record)
        rows = []
        for world, records in of.items():
            a, b = (stacked(records, label, PER_SAMPLE) for label in (large, small))
            best = np.where(b[::-1] > a[::-1], b, a)  # (seeds, questions)
            rows.append([world, *map(told, (a, b, best)), signed(best - a)])
        return markdown([PER_SAMPLE, "large LM", "small LM", "the better by question", "− large LM"], rows)

    def maj_at_k(self, pairs: list, label: str) -> dict[str, tuple[list, list]]:
        """{title: (numbers of samples, accuracy of their vote in %)}, mean over seeds."""
        lines = {}
        for (name, _), records in self.have(pairs, label).items():
            curves = [record["evaluations"][label]["maj_at_k"] for record in records]
            ks = [int(k) for k in curves[0]]
            lines[self.contestants[name][0]] = (ks, [100 * np.mean([curve[str(k)] for curve in curves]) for k in ks])
        return lines

    def votes(self, pairs: list, label: str) -> str:
        shares = self.maj_at_k(pairs, label)
        rows = [[title, *(f"{y[k - 1]:.1f}" for k in VOTES_SHOWN)] for title, (_, y) in shares.items()]
        return markdown(["% right, vote of", *map(str, VOTES_SHOWN)], rows)

    def inside(self, pairs: list) -> str:
        """Of evaluate.py --inspect: scale, nearest words, attention, swapped thoughts."""
        rows = []
        for run, _ in pairs:
            found = self.study.record(run).get("evaluations", {}).get("inspect")
            if found:
                rows.append([self.contestants[run.contestant][0], *inspected(found)])
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


def code(word: str) -> str:
    """A word as it may stand in a cell of a table: no line break, no bar."""
    return repr(word)[1:-1].replace("|", "\\|")


def inspected(found: dict) -> list[str]:
    """The cells of a row of `inside`."""
    table, accuracy = found["table"], found["accuracy"]
    mass, uniform = (100 * np.mean(found["attention"][name], axis=0) for name in ("mass", "uniform"))  # (layers,)
    swaps = [accuracy[name] for name in ("own", "swapped", "mean", "zeros")]
    words = Counter(slot[0]["word"] for question in found["nearest_words"] for slot in question)
    return [
        ", ".join(f"`{code(word)}` {count / words.total():.0%}" for word, count in words.most_common(3)),
        f"{table['thought_norm']['mean'] / table['row_norm']['mean']:.1f}",
        f"{table['outside']:.0%}",
        ", ".join(f"{share:.1f}" for share in mass) + f" ({uniform.mean():.1f})",
        *(shown(swap and 100 * swap["value"], ".0f") for swap in swaps),
    ]


def fill(path: Path, tables: dict[str, str]) -> None:
    """Put each table between its marks in a Markdown file; what stands there is replaced."""
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        text, count = re.subn(
            rf"<!-- study: {re.escape(name)} -->\n.*?<!-- end -->",
            lambda _, name=name, table=table: MARK.format(name, table),
            text,
            flags=re.S,
        )
        if count != 1:
            raise SystemExit(f"error: {path}: the mark <!-- study: {name} --> stands there {count} times, not once")
    path.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Plots: black and white, so lines differ in style and marks, bars in hatching


STYLES = [("black", "-", "o"), ("0.45", "--", "s"), ("black", ":", "^"), ("0.65", "-.", "D")]
MARKS = "os^DvxP"


def draw(folder: Path, name: str, paint, size=(7.2, 4.0)) -> None:
    """An SVG whose bytes follow from what is painted."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"font.size": 10, "svg.hashsalt": "study", "axes.grid": True}
    matplotlib.rcParams |= {"grid.color": "0.9", "axes.axisbelow": True, "legend.framealpha": 1.0}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    paint(axes)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def plot_contestants(report: Report, pairs: list, label: str):
    """Bars of one sample and of the vote, with intervals."""

    def paint(axes):
        found = report.have(pairs, label)
        names = [report.contestants[name][0] for name, _ in found]
        for i, (what, colour, hatch) in enumerate(((PER_SAMPLE, "white", "///"), (VOTE, "0.6", ""))):
            figures = [interval(stacked(records, label, what)) for records in found.values()]
            means, lows, highs = zip(*figures, strict=True)
            errors = [np.subtract(means, lows), np.subtract(highs, means)]
            rows = np.arange(len(names)) + 0.2 * (2 * i - 1)
            axes.barh(
                rows, means, 0.38, xerr=errors, color=colour, edgecolor="black", hatch=hatch, capsize=2, label=what
            )
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="right answers, % (95 % interval over seeds and questions)", xlim=(0, 102))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return paint


def plot_lines(lines: dict[str, tuple[list, list]], xlabel: str, ylabel: str, **axis):
    """{title: (x, [(mean, low, high)] or [y])}."""

    def paint(axes):
        for (title, (x, y)), (colour, dash, mark) in zip(lines.items(), STYLES, strict=False):
            y = np.array(y, dtype=float)
            if y.ndim == 1:
                axes.plot(x, y, color=colour, linestyle=dash, label=title)
                continue
            errors = [y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]]
            axes.errorbar(x, y[:, 0], errors, color=colour, linestyle=dash, marker=mark, capsize=3, label=title)
        axes.set(xlabel=xlabel, ylabel=ylabel, **axis)
        axes.legend()

    return paint


def thoughts_lines(report: Report, pairs: list) -> dict:
    """One sample over n in evaluation, a line for each N in training."""
    lines = {}
    for made in (4, 8, 16, 32):
        x, y = [], []
        for n in (1, 2, 4, 8, 16, 32):
            for (_, options), records in report.have(pairs, f"n{n}-x4").items():
                if dict(options).get("num_thought_tokens", 8) == made:
                    x.append(n)
                    y.append(interval(stacked(records, f"n{n}-x4", PER_SAMPLE)))
        if x:
            lines[f"trained with {made}"] = (x, y)
    return lines


def loss_lines(report: Report, pairs: list) -> dict:
    """Training and dev SFT loss with and without the steps in view, mean over seeds."""
    lines = {}
    for name in ("small_block-sft", "leak"):
        records = [report.study.record(run).get("training") for run, _ in pairs if run.contestant == name]
        records = [record for record in records if record]
        if not records:
            return {}
        title = "steps seen" if name == "leak" else "steps not seen"
        curves = [np.array(record["curve"]) for record in records]
        lines[f"training, {title}"] = (curves[0][:, 0], np.mean([curve[:, 1] for curve in curves], axis=0))
        dev = [[point["eval_sft_loss"] for point in record["dev_curve"]] for record in records]
        lines[f"dev, {title}"] = ([point["step"] for point in records[0]["dev_curve"]], np.mean(dev, axis=0))
    return lines


def variance_points(records: list[dict]) -> dict[str, list[tuple[float, float, float]]]:
    """{contestant: (variance over questions, over slots, one-sample accuracy in %) of its runs on test questions}."""
    points: dict[str, list] = {}
    for record in records:
        label = next((label for label in ("test-x10", "test-x4") if label in record["evaluations"]), None)
        variance = label and record["evaluations"][label]["thought_variance"]
        if variance and variance["over_questions"] > ROUNDING:
            accuracy = right(record, label)[PER_SAMPLE].mean()
            of = points.setdefault(record["contestant"].removesuffix("-sft"), [])
            of.append((variance["over_questions"], variance["over_slots"], accuracy))
    return points


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, equal values at the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]


def variance_table(points: dict) -> str:
    """Spearman's rank correlation of variance and accuracy within each contestant: scales differ between them."""
    rows = []
    for name, of in points.items():
        columns = [ranks(np.array(column)) for column in zip(*of, strict=True)]
        if len(of) >= 5 and columns[2].std() > 0:
            both = [f"{np.corrcoef(column, columns[2])[0, 1]:+.2f}" for column in columns[:2]]
            rows.append([name, str(len(of)), *both])
    return markdown(["rank correlation with accuracy", "runs", "variance over questions", "variance over slots"], rows)


def plot_variance(points: dict):
    def paint(axes):
        for (name, of), mark in zip(points.items(), MARKS, strict=False):
            x, _, y = zip(*of, strict=True)
            colour = {"c": "black"} if mark == "x" else {"facecolors": "none", "edgecolors": "black"}
            axes.scatter(x, y, marker=mark, label=name, **colour)
        axes.set(xscale="log", xlabel="variance of the thoughts over questions", ylabel="one sample, % right")
        axes.legend()

    return paint


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def make(study, contestants: dict, main_label: str, short_label: str) -> dict[str, str]:
    """{title: Markdown} of whatever has been run, and the plots beside the JSON; the labels are those of the main
    table's evaluation and of the others'."""
    on, label = Report(study, contestants), short_label if study.quick else main_label
    stages = {title: stage() if study.ready(title) else [] for title, stage in study.stages().items()}
    tables, plots = {}, {}
    for title, pairs in stages.items():
        if title.startswith("tuning"):
            tables[title] = on.tuning(pairs)
        elif title.startswith("main"):
            tables[title] = on.main(pairs, label if title == "main" else short_label)
        elif title == "headroom":
            tables[title] = on.headroom(pairs, short_label, "small-alone-x4")
        elif title.startswith("looks"):
            tables[title] = on.inside(pairs)
        elif title == "transfer":
            tables[title] = on.labels(pairs, "none")
        elif title == "thoughts":
            tables[title] = on.labels(pairs)
        elif title == "samples":
            tables[title] = on.votes(pairs, "test-x20")
        else:
            tables[title] = on.variants(pairs, short_label)
        if title in ("steps", "rows"):
            best = study.best_lta("arithmetic")
            tables[title] += "\n\n" + on.versus(pairs, short_label, best, "softcot")
    tables["costs"] = on.costs(stages)
    main, right = stages["main"], "one sample, % right"
    if on.have(main, label):
        plots["contestants"] = plot_contestants(on, main, label)
        points = variance_points(study.records("arithmetic"))
        plots["variance"] = plot_variance(points)
        tables["variance"] = variance_table(points)
    if lines := loss_lines(on, main):
        plots["leak"] = plot_lines(lines, "step", "SFT loss a token", yscale="log")
    if lines := on.maj_at_k(stages.get("samples", []), "test-x20"):
        plots["samples"] = plot_lines(lines, "samples a question", "vote, % right", xticks=[1, 5, 10, 15, 20])
    if lines := thoughts_lines(on, stages.get("thoughts", [])):
        axis = {"xscale": "log", "xticks": [1, 2, 4, 8, 16, 32], "xticklabels": [1, 2, 4, 8, 16, 32]}
        plots["thoughts"] = plot_lines(lines, "thoughts in evaluation", right, **axis)
    for name, paint in plots.items():
        draw(study.folder, name, paint)
    return tables
