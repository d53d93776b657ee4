"""The model card (README.md) of a checkpoint: what thoughts.json says of its training and a report of its evaluation.

No figure of an evaluation without its report; the same files give the same text.
"""

import re
from pathlib import Path

from huggingface_hub import ModelCardData

from lta_thinker.data_loader import TASKS
from lta_thinker.evaluation.compare import compare, read_report
from lta_thinker.evaluation.report import percent

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
PAPER = "[arXiv 2509.12875](https://arxiv.org/abs/2509.12875)"


def model_card(meta: dict, name: str, report: str | Path | None = None, baseline: str | Path | None = None) -> str:
    """The card of the weights that `meta` (thoughts.json) belongs to, to be loaded as `name`.

    report, baseline: report.json of evaluate.py, of these weights and of what they are compared with, beside the
    samples.jsonl of both. Raises InputError for what is no report, and where the two asked other questions.
    """
    large, task = meta["large_model_id"], meta["task_name"]
    state = "has an adapter in base_model/, but is" if "base_model" in meta.get("tuned", {}) else "is frozen and"
    parts = [
        f"---\n{card_data(meta).to_yaml()}\n---",
        f"# Latent thoughts for {large} ({task})",
        f"A trained thought generator of LTA-Thinker ({PAPER}). From a question it makes {meta['num_thoughts']} latent "
        "thoughts, vectors in the embedding space of a large LLM, which stand in that LLM's prompt. The LLM itself "
        f"{state} not in here: it is loaded as `{large}`, or from where `base_model_id=` says.",
        f"""```python
from lta_thinker import LatentThoughtModel

model = LatentThoughtModel.from_pretrained({name!r})
print(model.solve("A pen costs 3 and a book 7. How much are two pens and a book?", num_samples=10).answer)
```""",
        "## Training",
        table(training_facts(meta)),
    ]
    if report is not None:
        parts += ["## Evaluation", evaluation(report, baseline)]
    return "\n\n".join(parts) + "\n"


def is_on_hub(model_id: str) -> bool:
    """Whether a model id is one for others too, and not a folder of here."""
    return bool(HUB_ID.fullmatch(model_id)) and not Path(model_id).is_dir()


def card_data(meta: dict) -> ModelCardData:
    """The card's header; a folder is no base model that others could look up."""
    large, name = meta["large_model_id"], meta["task_name"]
    base = {"base_model": large, "base_model_relation": "adapter"} if is_on_hub(large) else {}
    sources = [meta["rows"]["train"]["source"]] if "rows" in meta else []
    sources += TASKS[name].sources.get("train", ()) if name in TASKS else ()
    datasets = [source.split(":")[1] for source in sources if source.startswith("hub:")][:1]
    tags = ["latent-thoughts", "reasoning", f"task:{name}"]
    more = {"datasets": datasets} if datasets else {}
    return ModelCardData(library_name="lta-thinker", pipeline_tag="text-generation", tags=tags, **base, **more)


def table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {title} | {value} |" for title, value in rows.items())])


def training_facts(meta: dict) -> dict[str, str]:
    """Rows of the card's table on the training; those that this thoughts.json says something of."""
    small, chains = meta["small_model_id"], meta.get("design", {}).get("num_chains", 1)
    tuned = {role: "LoRA adapter" for role in meta.get("tuned", {})}
    facts = {
        f"large LLM, {tuned.get('base_model', 'frozen')}": f"`{meta['large_model_id']}`",
        f"small LM, {tuned.get('assistant_model', 'frozen')}": f"`{small}`" if small else "none",
        "thought generator": f"`{meta['thought_generator']}`",
        "thoughts": f"{meta['num_thoughts']}" + (f" in each of {chains} chains" if chains > 1 else ""),
        "task": f"{meta['task_name']} (answers: {meta['answer_type']})",
        "dtype": meta["dtype"],
    }
    if "rows" in meta:
        facts["rows"] = ", ".join(f"{count['kept']:,} of {split}" for split, count in meta["rows"].items())
    if "loss_weights" in meta:
        facts["loss weights"] = ", ".join(f"{name} {w:g}" for name, w in meta["loss_weights"].items() if w)
    if "flags" in meta:
        flags = meta["flags"]
        names = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size")
        batch, accumulation, ranks = (flags[name] for name in names)
        facts["learning rate"] = f"{flags['learning_rate']:g}"
        facts["rows a step"] = f"{batch * accumulation * ranks}"
        facts["seed"] = f"{flags['seed']}"
    if "dev" in meta:
        dev = meta["dev"]
        facts["these weights"] = f"after step {dev['step']} (epoch {dev['epoch']:.2f})"
        facts["dev losses"] = ", ".join(
            f"{key.removeprefix('eval_').removesuffix('_loss')} {value:.4g}"
            for key, value in dev.items()
            if key.endswith("_loss") and key != "eval_loss"
        )
    if "best" in meta:
        facts["chosen by"] = f"the best dev {meta['best']['metric']}, of {len(meta['dev_curve'])} dev evaluations"
    if "versions" in meta:
        facts["made with"] = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    return facts


def evaluation(path: str | Path, baseline: str | Path | None) -> str:
    """The figures of a report, beside those of a baseline."""
    report, _ = read_report(Path(path))
    settings = report["settings"]
    sampling = settings["sampling"]
    figures = {"": ("one sample", f"vote of {sampling['num_return_sequences']}")}
    row = tuple(percent(report[f"{name}_accuracy"]) for name in ("sample", "vote"))
    thoughts = f"with {settings['num_thought_tokens']} thoughts"
    notes = []
    if baseline is None:
        figures[thoughts] = row
    else:
        paired = compare(baseline, path)
        titles = {"a": f"compared with: {paired['titles'][0]}", "b": thoughts, "difference": "difference, paired"}
        for key, title in titles.items():
            figures[title] = tuple(percent(paired[name][key]) for name in ("sample", "vote"))
        notes = [f"{key}: {one!r} there, {other!r} here" for key, (one, other) in paired["differ"].items()]
    head, *lines = [f"| {title} | {one} | {vote} |" for title, (one, vote) in figures.items()]
    asked = f"{report['num_questions']} {settings['split']} questions of {settings['task_name']}"
    facts = {
        "sampling": ", ".join(f"{name} {value}" for name, value in sampling.items()),
        "samples without an answer, cut off": f"{report['no_answer']:.1%}, {report['cut_off']:.1%}",
        "tokens a sample": f"{report['tokens_per_sample']:.1f}",
        "dtype": settings["dtype"],
        "made with": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    }
    if notes:
        facts["the two differ beyond the thoughts"] = "; ".join(notes)
    text = f"{asked}, % right with 95 % intervals (bootstrap over questions):"
    return "\n\n".join([text, "\n".join([head, "| --- | --- | --- |", *lines]), table(facts)])
