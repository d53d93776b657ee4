"""The rows of a run: examples -> token ids, tokenised once and kept on disk by `datasets`.

The files are in <HF_DATASETS_CACHE>/lta-thinker, memory-mapped when read, and named by a hash of all that decides the
ids: another row, prompt, tokenizer, library or line of layout.py is another file.
"""

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from lta_thinker.build import check_context, reader_config
from lta_thinker.checkpoint import RowCounts
from lta_thinker.common import InputError, first_line, make_folder
from lta_thinker.data_loader import load_split, without_worked
from lta_thinker.llm.frozen import num_positions
from lta_thinker.progress import has_bars
from lta_thinker.rows import layout as layout_module
from lta_thinker.rows import tokens as tokens_module
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout
from lta_thinker.training.curriculum import Form, StagedRows
from lta_thinker.training.flags import TrainArguments

LENGTHS = {  # columns with how many tokens these parts of a row have; steps_length has the steps' too
    "length": ("prefix", "suffix", "target"),
    "prefix_length": ("prefix",),
    "prompt_length": ("prefix", "suffix"),
    "question_length": ("question",),
    "steps_length": ("header",),
}
ROW_NAMES = ("prefix", "suffix", "question", "target", "header", "answer", "steps")  # of Layout.training_rows


@dataclass(frozen=True)
class RunRows:
    """The rows of a run.

    train, dev: sequences of dicts of token ids (token_rows), perhaps with the small LM's states (states.py);
    dev_examples: the examples of the dev rows; widths: for each training row, the columns of the LLM's input (prefix;
    thoughts, suffix and target); counts: by split, "train" and "dev". Of several forms (curriculum.py) train and widths
    have each row in all forms, one form behind the other, and dev in the last. num_train: rows of an epoch; steps: how
    many each of them has.
    """

    train: Any
    dev: Any
    dev_examples: list[Example]
    widths: list[tuple[int, int]]
    counts: dict[str, RowCounts]
    num_train: int
    steps: list[int]


def prepare_rows(args: TrainArguments, layout: Layout) -> RunRows:
    """The rows of a run as token ids. Under torchrun one process a node tokenises, the others read what it has written.

    InputError where a split has no usable row.
    """
    with args.main_process_first(desc="tokenising"):
        forms = args.curriculum.forms
        train, examples, train_counts, train_warning = _prepare_split(args, layout, "train", forms)
        dev, dev_examples, dev_counts, dev_warning = _prepare_split(args, layout, "dev", forms[-1:])
    for warning in sorted({train_warning, dev_warning} - {""}):
        print(f"warning: {warning}")
    lengths = zip(train["prefix_length"], train["length"], _between(args, forms, len(examples)), strict=True)
    widths = [(prefix, between + length - prefix) for prefix, length, between in lengths]
    counts, steps = {"train": train_counts, "dev": dev_counts}, [len(example.steps) for example in examples]
    staged = StagedRows(train, args.curriculum) if len(forms) > 1 else train
    return RunRows(staged, list(dev), dev_examples, widths, counts, len(examples), steps)


def _between(args: TrainArguments, forms: Sequence[Form], rows: int) -> list[int]:
    """Columns between prefix and suffix, thoughts and marks, of each of `rows` rows in each form."""
    return [form.thoughts + args.spec.num_marks for form in forms for _ in range(rows)]


def _prepare_split(args: TrainArguments, layout: Layout, name: str, forms: Sequence[Form]):
    """(token rows, their examples, RowCounts, warning) of one split, the rows in each form, one form behind the
    other."""
    split = load_split(args.task, name, args.data_dir, args.skip_bad_rows)
    examples = without_worked(split.examples, layout.worked_examples)
    if name == "train" and args.k_shot:
        examples = examples[: args.k_shot]
    if not examples:
        shots = " and --num_fewshot" if layout.worked_examples else ""
        raise InputError(f"{split.source}, {name}: no row is left beside the dev rows{shots}")
    if not any(example.steps for example in examples):
        if steps_field := args.task.fields[0].steps:
            raise InputError(f"{split.source}: no row has steps in the field {steps_field} (--steps_field)")
        if len(forms) > 1:
            other = "--coconut_stages 0 --answer_only trains without"
            raise InputError(f"{split.source}: no row has steps, which --coconut_stages replaces one by one; {other}")
    tell_of_names(layout, examples, name)
    in_forms, count = [form.of(example) for form in forms for example in examples], len(examples)
    encoded = token_rows(layout, in_forms, quiet=bool(args.disable_tqdm) or not has_bars())
    columns = [a + b for a, b in zip(encoded["length"], _between(args, forms, count), strict=True)]
    longest = float("inf") if args.max_len is None else args.max_len
    fits = [i for i in range(count) if max(columns[i::count]) <= longest]
    if not fits:
        raise InputError(f"{split.source}, {name}, --max_len {args.max_len}: no row is that short")
    fits_in_forms = [form * count + i for form in range(len(forms)) for i in fits]
    places = [f"{split.source}: row {example.index + 1}" for _ in forms for example in examples]
    check_lengths(args, layout, encoded, columns, fits_in_forms, places)
    rows = encoded.select(fits_in_forms)
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


def tell_of_names(layout: Layout, examples: list[Example], split: str) -> None:
    """Print how many rows have names of the LLM's special tokens in them, which are read as text."""
    if layout.names_in_text:
        return
    pattern = layout.llm_encoder.pattern
    found = [set(pattern.findall("\n".join([one.question, *one.steps, one.answer]))) for one in examples]
    names = sorted(set.union(*found))
    if names:
        what = f"{sum(map(bool, found))} {split} rows have names of special tokens ({', '.join(names)[:80]})"
        print(f"note: {what}; they are read as text (--special_tokens_in_text reads them as the tokens)")


def check_lengths(
    args: TrainArguments, layout: Layout, encoded, columns: list[int], fits: list[int], places: list[str]
) -> None:
    """InputError where a row (of those that fit --max_len) is longer than the positions of an LM that reads it.
    columns: of the LLM; places: for the message; both of all rows."""
    llm_config, small_config = args.spec.load_configs()
    reader, whose = reader_config(args.spec, llm_config, small_config)
    n, sees_steps = args.num_thought_tokens, args.thoughts_see_steps
    prompts, questions, steps = (list(encoded[name]) for name in ("prompt_length", "question_length", "steps_length"))
    longest, positions = max(fits, key=columns.__getitem__), num_positions(llm_config)
    remedy = f"; --max_len {positions} leaves longer rows out, and counts them"
    check_context(layout, llm_config, columns[longest], places[longest], remedy=remedy)
    if args.best_metric == "accuracy" or args.log_texts:  # answers are written
        longest = max(fits, key=prompts.__getitem__)
        asked = n + args.spec.num_marks + prompts[longest]
        check_context(layout, llm_config, asked, places[longest], args.max_new_tokens)
    if reader is not None:
        columns = [
            question + (n + step if sees_steps else max(n, step))
            for question, step in zip(questions, steps, strict=True)
        ]
        longest, remedy = max(fits, key=columns.__getitem__), "; --max_len leaves long rows out, and counts them"
        check_context(layout, reader, columns[longest], places[longest], remedy=remedy, whose=whose)


def token_rows(layout: Layout, examples: list[Example], quiet: bool = True):
    """The rows of layout.training_rows as a datasets.Dataset, read from the cache where it has them.

    More columns: `length`, `prefix_length` and `prompt_length`, the LLM's tokens of the row (without thoughts), of its
    prefix and of its prompt; `question_length` and `steps_length` (with the header), of what the generator reads; and
    `sha256` of its ids. Raises InputError as layout.training_rows does, and where the cache cannot be made.
    """
    import datasets  # imported here: it takes a while, and --help does not need it
    import datasets.config

    if quiet:
        datasets.disable_progress_bars()
    folder, key = Path(datasets.config.HF_DATASETS_CACHE, "lta-thinker"), cache_key(layout, examples)
    make_folder(folder, instead="; HF_DATASETS_CACHE names another")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot be written; HF_DATASETS_CACHE names another")
    ids = [datasets.Value("int32")]
    features = {name: ids for name in ROW_NAMES if name != "steps"}
    features |= {"steps": [ids], "sha256": datasets.Value("string")}
    features |= {name: datasets.Value("int32") for name in LENGTHS}
    file = folder / f"{key}.arrow"
    if file.exists() and not _is_whole(file, len(examples)):
        file.unlink()  # cut off: it is made again
    try:
        return datasets.Dataset.from_dict({"i": range(len(examples))}).map(
            lambda numbers: _columns(layout, [examples[i] for i in numbers]),
            batched=True,
            input_columns="i",
            remove_columns="i",
            features=datasets.Features(features),
            cache_file_name=str(file),
            new_fingerprint=key,
            desc="tokenising",
        )
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({first_line(error)}); HF_DATASETS_CACHE names another") from None


def _is_whole(file: Path, rows: int) -> bool:
    """Whether a file of the cache can be read, and has as many rows."""
    import datasets

    try:
        return len(datasets.Dataset.from_file(str(file))) == rows
    except Exception:  # of Arrow, of several kinds
        return False


def _columns(layout: Layout, examples: list[Example]) -> dict[str, list]:
    rows = layout.training_rows(examples)
    # without a generator there is no question for it, and no header and steps
    columns: dict[str, list] = {name: [row.get(name, []) for row in rows] for name in ROW_NAMES}
    for name, parts in LENGTHS.items():
        columns[name] = [sum(len(row.get(part, [])) for part in parts) for row in rows]
    columns["steps_length"] = [
        length + sum(map(len, row.get("steps", []))) for length, row in zip(columns["steps_length"], rows, strict=True)
    ]
    columns["sha256"] = [hashlib.sha256(json.dumps(row).encode()).hexdigest() for row in rows]
    return columns


def cache_key(layout: Layout, examples: list[Example]) -> str:
    """32 hex digits of all that decides the rows; prompts, date and chat templates are in the texts that the layout has
    rendered."""
    own = layout.generator_tokenizer
    decides: list = [inspect.getsource(module) for module in (layout_module, tokens_module, sys.modules[__name__])]
    decides += [transformers.__version__, tokenizers.__version__]
    decides += [layout.llm_encoder.backend.to_str(), layout.names_in_text, layout.reads_prompt]
    if own is not None:
        decides += [layout.generator_encoder.backend.to_str(), layout.generator, layout.openings(examples)]
    decides += [layout.llm, layout.separator, examples]
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:32]
