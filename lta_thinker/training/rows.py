"""The rows of a run: examples -> token ids, tokenised once and kept on disk by `datasets`.

The files are in <HF_DATASETS_CACHE>/lta-thinker, memory-mapped when read, and named by a hash of all that decides the
ids: another row, prompt, tokenizer, library or line of layout.py is another file.
"""

import hashlib
import inspect
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from lta_thinker.checkpoint import RowCounts
from lta_thinker.common import InputError, first_line, make_folder
from lta_thinker.data_loader import load_split, without_worked
from lta_thinker.rows import layout as layout_module
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout
from lta_thinker.training.flags import TrainArguments

ROW_NAMES = ("prefix", "suffix", "question", "target", "header", "answer", "steps")  # of Layout.training_rows


@dataclass(frozen=True)
class RunRows:
    """The rows of a run.

    train, dev: sequences of dicts of token ids (token_rows), perhaps with the small LM's states (states.py);
    dev_examples: the examples of the dev rows; widths: for each training row, the columns of the LLM's input (prefix;
    thoughts, suffix and target); counts: by split, "train" and "dev".
    """

    train: Any
    dev: Any
    dev_examples: list[Example]
    widths: list[tuple[int, int]]
    counts: dict[str, RowCounts]


def prepare_rows(args: TrainArguments, layout: Layout) -> RunRows:
    """The rows of a run as token ids. Under torchrun one process a node tokenises, the others read what it has written.

    InputError where a split has no usable row.
    """
    with args.main_process_first(desc="tokenising"):
        train, _, train_counts, train_warning = _prepare_split(args, layout, "train")
        dev, dev_examples, dev_counts, dev_warning = _prepare_split(args, layout, "dev")
    for warning in sorted({train_warning, dev_warning} - {""}):
        print(f"warning: {warning}")
    lengths = zip(train["prefix_length"], train["length"], strict=True)
    widths = [(prefix, args.num_thought_tokens + length - prefix) for prefix, length in lengths]
    return RunRows(train, list(dev), dev_examples, widths, {"train": train_counts, "dev": dev_counts})


def _prepare_split(args: TrainArguments, layout: Layout, name: str):
    """(token rows, their examples, RowCounts, warning) of one split."""
    split = load_split(args.task, name, args.data_dir, args.skip_bad_rows)
    examples = without_worked(split.examples, layout.worked_examples)
    if name == "train" and args.k_shot:
        examples = examples[: args.k_shot]
    if not examples:
        shots = " and --num_fewshot" if layout.worked_examples else ""
        raise InputError(f"{split.source}, {name}: no row is left beside the dev rows{shots}")
    encoded = token_rows(layout, examples, quiet=bool(args.disable_tqdm))
    longest = float("inf") if args.max_len is None else args.max_len - args.num_thought_tokens
    fits = [i for i, length in enumerate(encoded["length"]) if length <= longest]
    if not fits:
        raise InputError(f"{split.source}, {name}, --max_len {args.max_len}: no row is that short")
    steps_field = args.task.fields[0].steps
    if steps_field and not any(example.steps for example in examples):
        raise InputError(f"{split.source}: no row has steps in the field {steps_field} (--steps_field)")
    rows = encoded.select(fits)
    counts = RowCounts(
        source=split.source,
        read=split.read,
        bad=split.bad,
        in_split=len(split.examples),
        too_long=len(examples) - len(fits),
        kept=len(fits),
        sha256=hashlib.sha256("".join(rows["sha256"]).encode()).hexdigest(),
    )
    return rows, [examples[i] for i in fits], counts, split.warning


def token_rows(layout: Layout, examples: list[Example], quiet: bool = True):
    """The rows of layout.training_rows as a datasets.Dataset, read from the cache where it has them.

    Three more columns: `length` and `prefix_length`, the LLM's tokens of the row (without thoughts) and of its prefix,
    and `sha256` of its ids. Raises InputError as layout.training_rows does, and where the cache cannot be made, written
    or read.
    """
    import datasets  # imported here: it takes a while, and --help does not need it
    import datasets.config
    import pyarrow

    if quiet:
        datasets.disable_progress_bars()
    folder, key = Path(datasets.config.HF_DATASETS_CACHE, "lta-thinker"), cache_key(layout, examples)
    make_folder(folder, instead="; HF_DATASETS_CACHE names another")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot be written; HF_DATASETS_CACHE names another")
    ids = [datasets.Value("int32")]
    features = {name: ids for name in ROW_NAMES if name != "steps"}
    features |= {"steps": [ids], "sha256": datasets.Value("string")}
    features |= {name: datasets.Value("int32") for name in ("length", "prefix_length")}
    path = folder / f"{key}.arrow"
    try:
        rows = datasets.Dataset.from_dict({"i": range(len(examples))}).map(
            lambda numbers: _columns(layout, [examples[i] for i in numbers]),
            batched=True,
            input_columns="i",
            remove_columns="i",
            features=datasets.Features(features),
            cache_file_name=str(path),
            new_fingerprint=key,
            desc="tokenising",
        )
    except OSError as error:
        raise InputError(
            f"{path}: cannot be used ({first_line(error)}); HF_DATASETS_CACHE names another folder"
        ) from None
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: cannot be read ({first_line(error):.200}); remove it, it is made again") from None
    if len(rows) != len(examples) or rows.features != datasets.Features(features):
        raise InputError(f"{path}: not the rows that were written there; remove it, it is made again")
    return rows


def _columns(layout: Layout, examples: list[Example]) -> dict[str, list]:
    rows = layout.training_rows(examples)
    # without a generator there is no question for it, and no header and steps
    columns: dict[str, list] = {name: [row.get(name, []) for row in rows] for name in ROW_NAMES}
    columns["prefix_length"] = [len(row["prefix"]) for row in rows]
    columns["length"] = [sum(len(row[name]) for name in ("prefix", "suffix", "target")) for row in rows]
    columns["sha256"] = [hashlib.sha256(json.dumps(row).encode()).hexdigest() for row in rows]
    return columns


def cache_key(layout: Layout, examples: list[Example]) -> str:
    """32 hex digits of all that decides the rows; prompts, date and chat templates are in the texts that the layout has
    rendered."""
    own = layout.generator_tokenizer
    decides: list = [inspect.getsource(module) for module in (layout_module, sys.modules[__name__])]
    decides += [transformers.__version__, tokenizers.__version__]
    decides += [layout.marked.to_str(), layout.llm_tokenizer.split_special_tokens]
    if own is not None:
        decides += [own.backend_tokenizer.to_str(), own.split_special_tokens]
        decides += [layout.generator, layout.openings(examples)]
    decides += [layout.llm, layout.separator, examples]
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:32]
