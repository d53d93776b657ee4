"""Reports side by side: two -> their paired difference; several -> a ranked table.

python evaluate.py --compare A/report.json B/report.json
python evaluate.py --rank A/report.json B/report.json C/report.json
"""

from pathlib import Path

import numpy as np

from lta_thinker.answers import answers_equal
from lta_thinker.common import InputError, read_json
from lta_thinker.evaluation.report import (
    ADAPTER_FILES,
    SAMPLES_FILE,
    flatten,
    interval,
    percent,
    read_samples,
    sample_hits,
)

# settings that are about the thoughts: two evaluations may differ in them and still be a fair pair
THOUGHT_SETTINGS = (
    "thought_generator",
    "assistant_model_id",
    "num_thought",
    "num_chains",
    "fingerprints.small",
    "layout.generator",
    "layout.llm.after",
    "prompts.thoughts",
    "prompts.generator",
    ".bin",  # hashes of the weight files
    ".safetensors",
    "/adapter_config.json",
)


def load_report(path: Path) -> dict:
    """A report.json; InputError for what is no report."""
    report = read_json(path)
    needed = {"settings", "num_questions", "vote_accuracy", "maj_at_k", "pass_at_k"}
    if not isinstance(report, dict) or not needed <= report.keys():
        raise InputError(f"{path}: not a report that evaluate.py wrote")
    return report


def read_report(path: Path) -> tuple[dict, list[dict]]:
    """A report.json and the samples behind it. InputError for what is no report."""
    report = load_report(path)
    # the file may hold more questions than the report: those of a longer run in the same folder
    return report, read_samples(path.with_name(SAMPLES_FILE))[: report["num_questions"]]


def asked(records: list[dict]) -> list[tuple]:
    """What two evaluations must have in common to be put side by side."""
    return [(record["index"], record["question"], record["gold"]) for record in records]


def differing(one: dict, other: dict) -> dict[str, list]:
    """{setting: [of one, of the other]} where two reports' settings differ beyond the thoughts."""
    one, other = flatten(one["settings"]), flatten(other["settings"])
    around = [s.get("thought_generator") != "none" and s.get("prompts.thoughts") for s in (one, other)]
    # the suffix begins with the words behind the thoughts, or behind the question where there are none
    ignored = THOUGHT_SETTINGS + ("layout.llm.suffix",) * (around[0] != around[1])
    keys = [key for key in one if key in other and not any(name in key for name in ignored)]
    return {key: [one[key], other[key]] for key in keys if one[key] != other[key]}


def compare(a: str | Path, b: str | Path) -> dict:
    """Paired comparison of two report.json over the same questions, from the samples.jsonl beside them.

    {"num_questions", "titles": [of a, of b], "differ": {setting: [of a, of b]} where they differ beyond the thoughts,
    "sample" and "vote": {"a", "b", "difference": b - a}}, each of the three {"value", "low", "high"}.
    Raises InputError for what is no report, and where the questions differ.
    """
    titles, questions, values, reports = [], [], {"sample": [], "vote": []}, []
    for path in (Path(a), Path(b)):
        report, records = read_report(path)
        settings = report["settings"]
        n, kind = settings["num_thought_tokens"], settings["thought_generator"]
        thoughts = f"{n} thoughts ({kind})" if n else "no thoughts"
        thoughts += ", LoRA" * any(key.endswith(ADAPTER_FILES) for key in settings)
        reports.append(report)
        titles.append(f"{thoughts}, {settings['sampling']['num_return_sequences']} samples")
        questions.append(asked(records))
        kind = settings["answer_type"]
        values["sample"].append(np.array([np.mean(sample_hits(record, kind)) for record in records]))
        values["vote"].append(np.array([float(answers_equal(r["vote"], r["gold"], kind)) for r in records]))
    if questions[0] != questions[1]:
        raise InputError(f"{a} and {b} are not about the same questions: nothing to pair")
    figures = {
        name: {"a": interval(one), "b": interval(other), "difference": interval(other - one)}
        for name, (one, other) in values.items()
    }
    return {"num_questions": len(questions[0]), "titles": titles, "differ": differing(*reports), **figures}


def print_comparison(figures: dict) -> None:
    """The table of `compare`."""
    a, b = figures["titles"]
    print(f"{figures['num_questions']} questions, % right [95 % interval: bootstrap over questions]")
    print(f"  {'':44s} {'one sample':22s} vote")
    for key, title in {"a": f"A: {a}", "b": f"B: {b}", "difference": "B - A, paired"}.items():
        print(f"  {title:44s} {percent(figures['sample'][key]):22s} {percent(figures['vote'][key])}")
    for key, (one, other) in figures["differ"].items():
        print(f"  note: {key} differs: A {one!r}, B {other!r}")


def rank(paths: list[str]) -> list[dict]:
    """Reports of the same questions, the best vote first (ties: the better single sample).

    Raises InputError for what is no report, and where questions or settings differ beyond the thoughts.
    """
    found = [read_report(Path(path)) for path in paths]
    first_report, first_records = found[0]
    for path, (report, records) in zip(paths, found, strict=True):
        if "checkpoint" not in report:
            raise InputError(f"{path}: made by an older evaluate.py; run it again, no question is asked again")
        if asked(records) != asked(first_records):
            raise InputError(f"{paths[0]} and {path} are not about the same questions: nothing to rank")
        for key, (one, other) in differing(first_report, report).items():
            raise InputError(f"{path}: {key} is {other!r}, in {paths[0]} it is {one!r}: no fair ranking")
    reports = [report for report, _ in found]
    return sorted(reports, key=lambda report: [-report[f"{name}_accuracy"]["value"] for name in ("vote", "sample")])


def print_ranking(reports: list[dict]) -> None:
    """The table of `rank`."""
    settings = reports[0]["settings"]
    vote = f"vote of {settings['sampling']['num_return_sequences']}"
    questions = f"{reports[0]['num_questions']} {settings['split']} questions"
    print(f"{questions}, % right [95 % interval: bootstrap over questions]")
    rows = [("", "checkpoint", "step", "thoughts", vote, "one sample", "no answer", "tokens a sample", "dev SFT loss")]
    for place, report in enumerate(reports, 1):
        name, dev = report["checkpoint"]["name"], report["checkpoint"]["dev"] or {}
        accuracies = [percent(report[f"{name}_accuracy"]) for name in ("vote", "sample")]
        shares = f"{report['no_answer']:.1%}", f"{report['tokens_per_sample']:.1f}"
        loss = f"{dev['eval_sft_loss']:.4g}" if "eval_sft_loss" in dev else "-"
        counts = str(dev.get("step", "-")), str(report["settings"]["num_thought_tokens"])
        rows.append((f"{place}.", name, *counts, *accuracies, *shares, loss))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(f"{value:{width}}" for value, width in zip(row, widths, strict=True)).rstrip())
    if len(reports) > 1:
        print(f"note: the best of {len(reports)} is chosen by these figures, so its own are optimistic")
