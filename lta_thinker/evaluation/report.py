"""Report: samples.jsonl -> accuracies with intervals, maj@k, pass@k. Two reports side by side: compare.py."""

import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import group_answers, maj_at_k, pass_at_k, vote_index
from lta_thinker.common import InputError, read_json, write_text
from lta_thinker.generation.samplers import prompt_batch
from lta_thinker.generation.sampling import Sample
from lta_thinker.model import LatentThoughtModel
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout

SETTINGS_FILE, SAMPLES_FILE, REPORT_FILE = "settings.json", "samples.jsonl", "report.json"
ADAPTER_FILES = ("/adapter_model.safetensors", "/adapter_config.json")
RESAMPLES = 10_000  # of the bootstrap

# ---------------------------------------------------------------------------------------------------------------------
# Files


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
    there, now = flatten(read_json(folder / SETTINGS_FILE)), flatten(settings)
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
