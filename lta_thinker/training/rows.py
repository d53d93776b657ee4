"""Preprocessing: the examples of a run -> rows of token ids, tokenised once and kept on disk by `datasets`.

The files are in <HF_DATASETS_CACHE>/lta-thinker, memory-mapped when read, and named by a hash of all that decides the
ids: another row, prompt, tokenizer, library or line of layout.py is another file.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import tokenizers
import transformers

from lta_thinker.common import InputError
from lta_thinker.data_loader import load_split
from lta_thinker.rows import layout as layout_module
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout
from lta_thinker.training.flags import TrainArguments


def prepare_rows(args: TrainArguments, layout: Layout):
    """Training rows (datasets.Dataset) and dev rows (list), see token_rows, the dev examples, and counts of what was
    read, kept and dropped.

    Under torchrun one process a node tokenises, the others read what it has written.
    """
    with args.main_process_first(desc="tokenising"):
        return _prepare_rows(args, layout)


def _prepare_rows(args: TrainArguments, layout: Layout):
    counts, rows, kept, warnings = {}, {}, {}, set()
    for name in ("train", "dev"):
        split = load_split(args.task, name, args.data_dir, args.skip_bad_rows)
        examples = split.examples[: args.k_shot or None] if name == "train" else split.examples
        if not examples:
            raise InputError(f"{split.source}, {name}: no row is left beside the dev rows")
        encoded = token_rows(layout, examples, quiet=args.disable_tqdm)
        longest = float("inf") if args.max_len is None else args.max_len - args.num_thought_tokens
        fits = [i for i, length in enumerate(encoded["length"]) if length <= longest]
        if not fits:
            raise InputError(f"{split.source}, {name}, --max_len {args.max_len}: no row is that short")
        kept[name], rows[name] = [examples[i] for i in fits], encoded.select(fits)
        counts[name] = {"source": split.source, "read": split.read, "bad": split.bad, "in_split": len(split.examples)}
        warnings |= {split.warning} - {""}
        steps_field = args.task.fields[0].steps
        if steps_field and not any(example.steps for example in examples):
            raise InputError(f"{split.source}: no row has steps in the field {steps_field} (--steps_field)")
        digest = hashlib.sha256("".join(rows[name]["sha256"]).encode()).hexdigest()
        counts[name] |= {"too_long": len(examples) - len(fits), "kept": len(fits), "sha256": digest}
    for warning in warnings:
        print(f"warning: {warning}")
    return rows["train"], list(rows["dev"]), kept["dev"], counts


def token_rows(layout: Layout, examples: list[Example], quiet: bool = True):
    """The rows of layout.training_rows as a datasets.Dataset, read from the cache where they are there.

    Columns more: `length` and `prefix_length`, the LLM's tokens of the row (without thoughts) and of its prefix, and
    `sha256` of its ids. Raises InputError as layout.training_rows does, and where the cache cannot be made.
    """
    import datasets  # imported here: it takes a while, and --help does without it

    if quiet:
        datasets.disable_progress_bars()
    folder, key = Path(datasets.config.HF_DATASETS_CACHE, "lta-thinker"), cache_key(layout, examples)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); HF_DATASETS_CACHE names another") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot be written; HF_DATASETS_CACHE names another")
    ids = [datasets.Value("int32")]
    features = {name: ids for name in ("prefix", "suffix", "question", "target", "header", "answer")}
    features |= {"steps": [ids], "sha256": datasets.Value("string")}
    features |= {name: datasets.Value("int32") for name in ("length", "prefix_length")}
    return datasets.Dataset.from_dict({"i": range(len(examples))}).map(
        lambda numbers: _columns(layout, [examples[i] for i in numbers]),
        batched=True,
        input_columns="i",
        remove_columns="i",
        features=datasets.Features(features),
        cache_file_name=str(folder / f"{key}.arrow"),
        new_fingerprint=key,
        desc="tokenising",
    )


def _columns(layout: Layout, examples: list[Example]) -> dict[str, list]:
    rows = layout.training_rows(examples)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["prefix_length"] = [len(row["prefix"]) for row in rows]
    columns["length"] = [sum(len(row[name]) for name in ("prefix", "suffix", "target")) for row in rows]
    columns["sha256"] = [hashlib.sha256(json.dumps(row).encode()).hexdigest() for row in rows]
    return columns


def cache_key(layout: Layout, examples: list[Example]) -> str:
    """32 hex digits of all that decides the rows; prompts, date and chat templates are in what the layout rendered."""
    own = layout.generator_tokenizer
    decides = [Path(module.__file__).read_text(encoding="utf-8") for module in (layout_module, sys.modules[__name__])]
    decides += [transformers.__version__, tokenizers.__version__]
    decides += [layout.marked.to_str(), layout.llm_tokenizer.split_special_tokens]
    decides += [own.backend_tokenizer.to_str(), own.split_special_tokens]
    decides += [layout.llm, layout.generator, layout.separator, examples]
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:32]
