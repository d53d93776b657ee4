"""Report: samples.jsonl -> accuracies with intervals, maj@k, pass@k; two reports -> their paired difference;
several -> a ranked table.

python evaluate.py --compare A/report.json B/report.json
python evaluate.py --rank A/report.json B/report.json C/report.json

"""

import functools
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import accelerate
import numpy as np
import torch
import transformers
from tqdm import tqdm

from lta_thinker.answers import answers_equal, extract_answer, group_answers, maj_at_k, pass_at_k, vote_index
from lta_thinker.data_loader import ROOT, Example, InputError, write_text
from lta_thinker.generation import prompt_batch
from lta_thinker.layout import Layout
from lta_thinker.model import LatentThoughtModel
from lta_thinker.sampling import Sample

SETTINGS_FILE, SAMPLES_FILE, REPORT_FILE = "settings.json", "samples.jsonl", "report.json"
# settings that are about the thoughts: two evaluations may differ in them and still be a fair pair
THOUGHT_SETTINGS = ("thought_generator", "assistant_model_id", "num_thought", "fingerprints.small", "layout.generator")
THOUGHT_SETTINGS += ("num_chains",)
THOUGHT_SETTINGS += ("layout.llm.after", "prompts.thoughts", "prompts.generator")
THOUGHT_SETTINGS += (".bin", ".safetensors", "/adapter_config.json")  # hashes of the weight files
ADAPTER_FILES = ("/adapter_model.safetensors", "/adapter_config.json")
FORMER = {"backend": "hf"}  # what settings meant before they had the key
RESAMPLES = 10_000  # of the bootstrap

# ---------------------------------------------------------------------------------------------------------------------
# Files


def read_json(path: Path) -> dict:
    """A JSON file; InputError when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def sample_record(example: Example, samples: list[Sample], texts: list[str], answer_type: str) -> dict:
    """A line of samples.jsonl; `correct` is the vote's."""
    answers = [extract_answer(text, answer_type, example.options) for text in texts]
    scores = [one.score for one in samples]
    winner, _ = vote_index(group_answers(answers, answer_type), scores)
    vote = None if winner is None else answers[winner]
    return {
        "index": example.index,
        "question": example.question,
        "gold": example.answer,
        "responses": texts,
        "answers": answers,
        "vote": vote,
        "correct": answers_equal(vote, example.answer, answer_type),
        "num_tokens": [one.num_tokens for one in samples],
        "finished": [one.finished for one in samples],
        "scores": scores,
    }


def read_samples(path: Path) -> list[dict]:
    """Lines of a samples file; a last line without its line break was cut off by a kill and is left out."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise InputError(f"{path}:{number}: not JSON; mend the line or delete it") from None
    return records


def merge_samples(folder: Path) -> dict[int, dict]:
    """All ranks' lines by index, put into one samples.jsonl in the order of the questions."""
    files = sorted(folder.glob("samples*.jsonl"))
    records = {record["index"]: record for path in files for record in read_samples(path)}
    records = {index: records[index] for index in sorted(records)}
    write_text(folder / SAMPLES_FILE, "".join(json.dumps(record) + "\n" for record in records.values()))
    for path in files:
        if path.name != SAMPLES_FILE:
            path.unlink()
    return records


def versions() -> dict[str, str]:
    """Of what the figures depend on, this code's own first."""
    libraries = (torch, transformers, accelerate, np)
    own = {"lta_thinker": source_version(), "python": platform.python_version()}
    return own | {library.__name__: library.__version__ for library in libraries}


@functools.cache
def source_version() -> str:
    """The checkout's commit, "-dirty" where files differ from it; without git, the installed package's version."""
    if (ROOT / ".git").exists():
        describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):  # no git, or another user's checkout
            return "a checkout that git does not read"
    try:
        return importlib.metadata.version("lta-thinker")
    except importlib.metadata.PackageNotFoundError:
        return "a copy without git"


def flatten(settings: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def check_folder(folder: Path, settings: dict) -> None:
    """InputError where the folder holds samples made with other values of these settings."""
    if not any(path.stat().st_size for path in folder.glob("samples*.jsonl")):
        return  # a run that ended before its first question does not bind the next one
    if not (folder / SETTINGS_FILE).exists():
        raise InputError(f"{folder}: has samples but no {SETTINGS_FILE}; use another --output_dir")
    there, now = FORMER | flatten(read_json(folder / SETTINGS_FILE)), flatten(settings)
    # an adapter's file is a setting only where there is one
    for key in [*now, *(key for key in there if key.endswith(ADAPTER_FILES))]:
        if there.get(key) != now.get(key):
            raise InputError(
                f"{folder}: its samples were made with {key} = {there.get(key)!r}, now it is {now.get(key)!r}; "
                "use another --output_dir"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def interval(values) -> dict[str, float]:
    """Mean over questions with its 95 % bootstrap interval (questions resampled, the same draws in every call)."""
    values, rng = np.asarray(values, dtype=float), np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def sample_hits(record: dict, answer_type: str) -> list[bool]:
    """Which of a question's samples are right."""
    return [answers_equal(answer, record["gold"], answer_type) for answer in record["answers"]]


@torch.no_grad()
def thought_variance(model: LatentThoughtModel, layout: Layout, examples: list[Example], batch_size: int) -> dict:
    """Variance of all N thoughts made: over questions (mean over chains, slots and features), over a question's slots,
    and over its chains (None with one chain)."""
    device, n = model.llm.get_input_embeddings().weight.device, len(examples)
    total = squares = over_slots = over_chains = 0.0
    for start in tqdm(range(0, n, batch_size), desc="variance of the thoughts", leave=False):
        batch = prompt_batch(layout, examples[start : start + batch_size], device)
        _, thoughts = model.chain_thoughts(batch["question_ids"], batch["question_mask"])
        thoughts = thoughts.double()  # (B, C, N, d)
        total, squares = total + thoughts.sum(0), squares + thoughts.square().sum(0)
        over_slots += thoughts.var(2, correction=0).mean((1, 2)).sum().item() / n
        over_chains += thoughts.var(1, correction=0).mean((1, 2)).sum().item() / n
    figures = {
        "over_questions": (squares / n - (total / n).square()).clamp(min=0).mean().item(),
        "over_slots": over_slots,
    }
    figures["over_chains"] = over_chains if model.design.num_chains > 1 else None
    return figures | {"num_thoughts": model.num_thoughts}


def make_report(records: list[dict], answer_type: str) -> dict:
    """The figures that follow from the samples alone; shares and accuracies are between 0 and 1."""
    hits = [sample_hits(record, answer_type) for record in records]
    scores = [record["scores"] for record in records]
    groups = [group_answers(record["answers"], answer_type) for record in records]
    majorities = np.mean([maj_at_k(*question) for question in zip(groups, hits, scores, strict=True)], axis=0)
    passes = np.mean([pass_at_k(hit) for hit in hits], axis=0)
    return {
        "num_questions": len(records),
        "vote_accuracy": interval([record["correct"] for record in records]),
        "sample_accuracy": interval([np.mean(hit) for hit in hits]),
        "maj_at_k": {str(k): float(value) for k, value in enumerate(majorities, 1)},
        "pass_at_k": {str(k): float(value) for k, value in enumerate(passes, 1)},
        "ties": sum(vote_index(*question)[1] for question in zip(groups, scores, strict=True)),
        "no_answer": float(np.mean([[answer is None for answer in record["answers"]] for record in records])),
        "cut_off": float(np.mean([[not finished for finished in record["finished"]] for record in records])),
        "tokens_per_sample": float(np.mean([record["num_tokens"] for record in records])),
    }


def percent(figure: dict[str, float]) -> str:
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def print_report(report: dict) -> None:
    """The table at the end of an evaluation."""
    samples = report["settings"]["sampling"]["num_return_sequences"]
    speed, variance = report["speed"], report["thought_variance"]
    rows = {
        f"vote of {samples}, % right": percent(report["vote_accuracy"]),
        "one sample, % right": percent(report["sample_accuracy"]),
        "maj@k, %": "  ".join(f"{k}: {100 * value:.1f}" for k, value in report["maj_at_k"].items()),
        "pass@k, %": "  ".join(f"{k}: {100 * value:.1f}" for k, value in report["pass_at_k"].items()),
        "tied votes": report["ties"],
        "samples without an answer": f"{report['no_answer']:.1%}",
        "samples cut off": f"{report['cut_off']:.1%}",
        "tokens a sample": f"{report['tokens_per_sample']:.1f}",
    }
    if speed:
        rows["questions, tokens a second"] = f"{speed['questions']:.2f}, {speed['tokens']:.1f}"
    if variance:
        over = f"{variance['over_questions']:.3g} over questions, {variance['over_slots']:.3g} over slots"
        over += f", {variance['over_chains']:.3g} over chains" if variance["over_chains"] is not None else ""
        rows[f"variance of the {variance['num_thoughts']} thoughts"] = over
    print(f"{report['num_questions']} questions, [95 % intervals: bootstrap over questions]")
    for title, value in rows.items():
        print(f"  {title:28s} {value}")


# ---------------------------------------------------------------------------------------------------------------------
# Reports side by side


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
    one, other = FORMER | flatten(one["settings"]), FORMER | flatten(other["settings"])
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
