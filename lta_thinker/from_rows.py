"""Training from Python: rows in memory -> a trained model, by train.py's run.

import lta_thinker

rows = [{"question": "Is 7 prime?", "steps": "Only 1 and 7 divide it.", "answer": "yes"}, ...]
model = lta_thinker.train(rows, large="Qwen/Qwen3-8B", small="Qwen/Qwen3-0.6B", output_name="mine",
                          task_name="primes", answer_type="boolean", steps_field="steps")
print(model.solve("Is 9 prime?").answer)
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lta_thinker.api import LatentThoughtModel
from lta_thinker.checkpoint import weights_of
from lta_thinker.common import (
    InputError,
    end_stopped,
    make_folder,
    ranks,
    stopped_by_signals,
    unlock_folders,
    write_text,
)
from lta_thinker.config import flag_of
from lta_thinker.flags import parse_flags
from lta_thinker.train import KEPT, run
from lta_thinker.training.declared import REFUSED
from lta_thinker.training.flags import TrainArguments

Rows = Iterable[Mapping[str, Any]]  # dicts, or a datasets.Dataset


def train(
    rows: Rows | None,
    *,
    large: str,
    small: str | None = None,
    dev: Rows | None = None,
    test: Rows | None = None,
    **flags: Any,
) -> LatentThoughtModel:
    """Train thoughts before a frozen LLM, and load the best weights.

    rows: the training rows, dicts or a datasets.Dataset; None for a task of this project. dev, test: other rows (a
    fixed 5 % of `rows` is held out where there is no dev; test is for a later evaluation of the checkpoint). large,
    small: the LMs, hub ids or folders; small None is train.py's default. flags: of train.py, without dashes;
    output_name names the run's folders in the current one. Rows are a task of your own, which takes task_name (a new
    name) and answer_type.

    The rows are written to results/rows-<digest>.jsonl. Raises InputError, in one line, for whatever is wrong. A signal
    (Ctrl-C, SIGTERM, SIGHUP) stops the training as it stops train.py, with a line and SystemExit, whose code is 128 +
    the signal's number; resume=True goes on.
    """
    if ranks().world > 1:
        raise InputError("lta_thinker.train runs in one process; under torchrun use train.py with --train_file")
    parts = {"train": rows, "dev": dev, "test": test}
    texts = {split: rows_text(part, split) for split, part in parts.items() if part is not None}
    files = {split: rows_file(text) for split, text in texts.items()}
    given = {"large_model_id": large, "small_model_id": small} | flags
    given |= {f"{split}_file": str(path) for split, path in files.items()}
    words = [word for key, value in given.items() for word in flag_of(key, value, "lta_thinker.train")]
    parse_flags(TrainArguments, words, "train.py", REFUSED)  # before anything is written
    for split, path in files.items():
        make_folder(path.parent)
        write_text(path, texts[split])
    try:
        with stopped_by_signals():
            status = run(words)
    except KeyboardInterrupt as stop:
        end_stopped(stop, KEPT)
    finally:
        unlock_folders()
    if status:  # stopped behind a step, which a line has said
        sys.exit(status)
    return LatentThoughtModel.from_pretrained(next(iter(weights_of(str(given["output_name"])))))


def rows_file(text: str) -> Path:
    """Where rows are kept: the checkpoint's task is evaluated with them later."""
    return Path("results", f"rows-{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl")


def rows_text(rows: Rows, split: str) -> str:
    """Rows as lines of JSON. InputError where there are none, for a row that is no dict, or has a value that JSON has
    not."""
    if not isinstance(rows, Iterable):
        raise InputError(f"lta_thinker.train: {split} rows are {rows!r:.40}, not dicts in a list or a datasets.Dataset")
    lines = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"lta_thinker.train: {split} row {number} is of {type(row).__name__}, not a dict")
        try:
            lines.append(json.dumps(dict(row)))
        except (TypeError, ValueError) as error:
            raise InputError(f"lta_thinker.train: {split} row {number}: {error}") from None
    if not lines:
        raise InputError(f"lta_thinker.train: there are no {split} rows")
    return "".join(line + "\n" for line in lines)
