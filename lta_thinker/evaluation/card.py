"""The model card (README.md) of a checkpoint: what thoughts.json says of its training and a report of its evaluation.

No figure of an evaluation without its report; the same files give the same text.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from lta_thinker.checkpoint import NUMBERS, TrainingRecord
from lta_thinker.common import counted
from lta_thinker.data_loader import TASKS
from lta_thinker.evaluation.compare import compare
from lta_thinker.evaluation.report import (
    INFORMATION_TITLE,
    SAMPLE_TITLE,
    SPEED_TITLE,
    VOTE_TITLE,
    Report,
    figure_rows,
    information_text,
    mixed_versions,
)

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
PAPER = "[arXiv 2509.12875](https://arxiv.org/abs/2509.12875)"
COCONUT = "[arXiv 2412.06769](https://arxiv.org/abs/2412.06769)"


def model_card(
    record: TrainingRecord, name: str, report: str | Path | None = None, baseline: str | Path | None = None
) -> str:
    """The card of the weights that `record` (thoughts.json) belongs to, to be loaded as `name`.

    report, baseline: report.json of evaluate.py, of these weights and of what they are compared with, beside the
    samples.jsonl of both. Raises InputError for what is no report, and where the two asked other questions.
    """
    large, task = record.large_model_id, record.task_name
    tuned = (record.tuned or {}).get("base_model")
    state = "is frozen and" if tuned is None else "has an adapter in base_model/, but is"
    if tuned and tuned.full:
        state = "was trained too, and all its weights are in base_model/; as it was before it is"
    maker = f"A trained thought generator of LTA-Thinker ({PAPER})"
    if record.thought_generator == "coconut":
        maker = f"Coconut ({COCONUT}), trained with LTA-Thinker"
    what = (
        f"{maker}. From a question it makes {record.num_thoughts} latent thoughts, vectors in the embedding space of a "
        "large LLM, which stand in that LLM's prompt. The LLM itself "
        f"{state} not in here: it is loaded as `{large}`, or from where `base_model_id=` says."
    )
    if record.thought_generator == "none":
        trained = "All weights" if tuned and tuned.full else "A LoRA adapter"
        what = (
            f"{trained} of `{large}` (base_model/), trained without "
            f"latent thoughts: a baseline for those of LTA-Thinker ({PAPER}). The LLM as it was is not in here."
        )
    parts = [
        f"---\n{card_data(record).to_yaml()}\n---",
        f"# Latent thoughts for {large} ({task})",
        what,
        f"""```python
from lta_thinker import LatentThoughtModel

model = LatentThoughtModel.from_pretrained({name!r})
print(model.solve("A pen costs 3 and a book 7. How much are two pens and a book?", num_samples=10).answer)
```""",
        "## Training",
        table(training_facts(record)),
    ]
    if report is not None:
        parts += ["## Evaluation", evaluation(report, baseline)]
    return "\n\n".join(parts) + "\n"


def is_on_hub(model_id: str) -> bool:
    """Whether a model id looks like a hub's and is no folder."""
    return bool(HUB_ID.fullmatch(model_id)) and not Path(model_id).is_dir()


def card_data(record: TrainingRecord) -> ModelCardData:
    """The card's header. An LLM in a folder is not named in it: others could not look it up."""
    large, name = record.large_model_id, record.task_name
    base: dict[str, Any] = {"base_model": large, "base_model_relation": "adapter"} if is_on_hub(large) else {}
    sources = [record.rows["train"].source] if record.rows else []
    sources += TASKS[name].sources.get("train", ()) if name in TASKS else ()
    datasets = [source.split(":")[1] for source in sources if source.startswith("hub:")][:1]
    if datasets:
        base["datasets"] = datasets
    tags = ["latent-thoughts", "reasoning", f"task:{name}"]
    return ModelCardData(library_name="lta-thinker", pipeline_tag="text-generation", tags=tags, **base)


def table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {title} | {value} |" for title, value in rows.items())])


def training_facts(record: TrainingRecord) -> dict[str, str]:
    """{title: value} of the card's table on the training, without what this thoughts.json does not say."""
    kinds = {True: "all weights trained", False: "LoRA adapter"}
    tuned = {role: kinds[lora.full] for role, lora in (record.tuned or {}).items()}
    small = f"`{record.small_model_id}`" if record.small_model_id else "none"
    chains = f" in each of {record.design.num_chains} chains" if record.design.num_chains > 1 else ""
    facts = {
        f"large LLM, {tuned.get('base_model', 'frozen')}": f"`{record.large_model_id}`",
        f"small LM, {tuned.get('assistant_model', 'frozen')}": small,
        "thought generator": f"`{record.thought_generator}`",
        "thoughts": f"{record.num_thoughts}{chains}",
        "task": f"{record.task_name} (answers: {record.answer_type})",
        "dtype": record.dtype,
    }
    if record.rows:
        facts["rows"] = ", ".join(f"{count.kept:,} of {split}" for split, count in record.rows.items())
    if record.worked_examples:
        facts["worked examples in the prompt"] = f"{len(record.worked_examples)}"
    if record.loss_weights:
        facts["loss weights"] = ", ".join(f"{name} {w:g}" for name, w in record.loss_weights.items() if w)
    if record.flags and all(name in record.flags for name in NUMBERS):
        batch, accumulation, world, learning_rate, seed = (record.flags[name] for name in NUMBERS)
        facts["learning rate"] = f"{learning_rate:g}"
        facts["rows a step"] = f"{int(batch or 0) * int(accumulation or 0) * int(world or 0)}"
        facts["seed"] = f"{seed}"
    if record.dev:
        facts["these weights"] = f"after step {record.dev['step']} (epoch {record.dev['epoch']:.2f})"
        losses = {key: value for key, value in record.dev.items() if key.endswith("_loss") and key != "eval_loss"}
        facts["dev losses"] = ", ".join(
            f"{key.removeprefix('eval_').removesuffix('_loss')} {value:.4g}" for key, value in losses.items()
        )
        if "eval_accuracy" in record.dev:
            facts["dev accuracy, greedy"] = f"{record.dev['eval_accuracy']:.4g}"
        if information := information_text(record.dev):
            facts[INFORMATION_TITLE] = f"{information} (on dev; normal interval)"
    if record.best and record.dev_curve:
        facts["chosen by"] = f"the best dev {record.best.metric}, of {len(record.dev_curve)} dev evaluations"
    if record.versions:
        facts["made with"] = listed(record.versions)
    return facts


def listed(values: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def evaluation(path: str | Path, baseline: str | Path | None) -> str:
    """The figures of a report, beside those of a baseline."""
    report = Report.read(Path(path))
    settings, sampling = report.settings, report.settings["sampling"]
    rows = {"": ("one sample", f"vote of {sampling['num_return_sequences']}")}
    thoughts, notes = f"with {counted(settings['num_thought_tokens'], 'thought')}", []
    if baseline is None:
        rows[thoughts] = (report.sample_accuracy.percent, report.vote_accuracy.percent)
    else:
        paired = compare(baseline, path)
        titles = {"a": f"compared with: {paired.titles[0]}", "b": thoughts, "difference": "difference, paired"}
        for key, title in titles.items():
            rows[title] = (getattr(paired.sample, key).percent, getattr(paired.vote, key).percent)
        notes = [f"{key}: {before!r} there, {now!r} here" for key, (before, now) in paired.differ.items()]
        notes += paired.notes
    head, *lines = [f"| {title} | {sample} | {vote} |" for title, (sample, vote) in rows.items()]
    # the two accuracies are in the table, the information in that of the training; a speed is of one machine
    elsewhere = {VOTE_TITLE.format(sampling["num_return_sequences"]), SAMPLE_TITLE, INFORMATION_TITLE, SPEED_TITLE}
    facts = {title: value for title, value in figure_rows(report).items() if title not in elsewhere}
    facts |= {"sampling": listed(sampling), "dtype": settings["dtype"], "made with": listed(report.versions)}
    if mixed := mixed_versions(report):
        facts["note"] = mixed
    if notes:
        facts["the two differ beyond the thoughts"] = "; ".join(notes)
    asked = f"{counted(report.num_questions, settings['split'] + ' question')} of {settings['task_name']}"
    text = f"{asked}, % right with 95 % intervals over questions:"
    return "\n\n".join([text, "\n".join([head, "| --- | --- | --- |", *lines]), table(facts)])
