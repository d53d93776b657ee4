"""The frozen small LM's states of all rows: computed once, kept in a memory-mapped file, read every epoch.

    results/<output_name>/states-<split>-node<k>.bin     the states, row after row, in the LM's dtype
    results/<output_name>/states-<split>-node<k>.json    what they were made from; written when they are complete

k: the rank of the node's first process. (Nodes may have different numbers of processes.)

The small LM reads a question's turn, the slots' tokens and the written steps. None of these changes while the generator
is trained. The processes of a node share one file, and each fills its part.
"""

import json
import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from lta_thinker.common import NO_ROOM, InputError, Ranks, read_json, write_text
from lta_thinker.llm.frozen import fingerprint
from lta_thinker.model import KINDS, LatentThoughtModel
from lta_thinker.progress import track
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.training.flags import TrainArguments

STATES_FILE = re.compile(r"states-(?:train|dev)-node\d+\.(?:bin|json)")
ROWS_AT_ONCE = 32
ROWS_TO_FIT = 256  # training rows whose states say what all questions have in common
ZEROS = 1 << 24  # bytes written at a time


class RowsWithStates(torch.utils.data.Dataset):
    """Rows (Layout.training) and their states: row | {"thought_states": (Q + N, d_small), "step_states": (T, d_small)},
    step_states where the collator makes steps. `store`: all states, (columns of all rows, d_small), mapped from the
    file by map_file()."""

    def __init__(self, rows: Sequence[dict], num_thoughts: int, collator: TrainingCollator, d: int, dtype: torch.dtype):
        self.rows, self.collator, self.d, self.dtype = rows, collator, d, dtype
        self.widths = []  # (Q + N, T) of each row
        for row in rows:
            steps = len(row["header"]) + sum(map(len, row["steps"])) if collator.steps else 0
            self.widths.append((len(row["question"]) + num_thoughts, steps))
        self.starts = [0, *accumulate(map(sum, self.widths))]

    @property
    def size(self) -> int:
        """Numbers in the file."""
        return self.starts[-1] * self.d

    def map_file(self, path: Path) -> None:
        """Map the file that holds the states."""
        self.path = path
        self.store = torch.from_file(str(path), shared=True, size=self.size, dtype=self.dtype).view(-1, self.d)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "store"}

    def __setstate__(self, state: dict) -> None:
        """In a DataLoader's worker: the same file, mapped again."""
        self.__dict__ |= state
        self.map_file(self.path)

    def __len__(self) -> int:
        return len(self.rows)

    def states(self, i: int) -> tuple[Tensor, Tensor]:
        """Views of row i's states in the file."""
        thoughts, steps = self.store[self.starts[i] : self.starts[i + 1]].split(self.widths[i])
        return thoughts, steps

    def __getitem__(self, i: int) -> dict:
        thoughts, steps = self.states(i)
        row = self.rows[i] | {"thought_states": thoughts}
        return row | {"step_states": steps} if self.collator.steps else row


def can_keep_states(args: TrainArguments, num_rows: int) -> bool:
    """Whether the small LM's states of a row are always the same, and read more than once."""
    processes = args.gpus or args.world_size
    step_rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    epochs = args.max_steps * step_rows / num_rows if args.max_steps > 0 else args.num_train_epochs
    always_the_same = args.num_thought_chains == 1 and not args.thoughts_see_steps and not args.tune_assistant_model
    uses_small_lm = KINDS[args.thought_generator].uses_small_lm
    return args.thought_cache and uses_small_lm and always_the_same and epochs > 1


def fit_states(model: LatentThoughtModel, rows: Sequence[dict], collator: TrainingCollator) -> None:
    """Standardize the small LM's states by the first ROWS_TO_FIT of the training rows. All ranks do the same."""
    device = model.small_lm.get_input_embeddings().weight.device
    first = [rows[i] for i in range(min(ROWS_TO_FIT, len(rows)))]
    batches = (collator(first[start : start + ROWS_AT_ONCE]) for start in range(0, len(first), ROWS_AT_ONCE))
    model.fit_states({name: value.to(device) for name, value in batch.items()} for batch in batches)


def keep_states(
    model: LatentThoughtModel,
    rows: Sequence[dict],
    rows_sha256: str,
    collator: TrainingCollator,
    path: Path,
    process: Ranks,
    quiet: bool,
) -> Any:
    """`rows` with the small LM's states from the file `path` (RowsWithStates), or unchanged where the disk has no room.

    The file is made where it is missing, half-filled, or of another model or other rows (rows_sha256: their digest).
    All ranks call this together; each process of a node fills its part. Prints the size of the file before it is made.
    InputError where the states are not finite.
    """
    d = model.small_lm.config.get_text_config().hidden_size
    kept = RowsWithStates(rows, model.num_thoughts, collator, d, model.small_lm.dtype)
    size_in_bytes = kept.size * kept.dtype.itemsize
    key, key_path = states_key(model, rows_sha256, collator), path.with_suffix(".json")
    has_file = path.is_file() and path.stat().st_size == size_in_bytes
    complete = on_all_ranks(has_file and _made_from(key_path) == key)
    what = "are there already" if complete else "are computed once (--no_thought_cache: every step)"
    cost = f"{size_in_bytes / 1e9:.2f} GB while the run lasts"
    print(f"  {path}: the small LM's states of {len(rows)} rows, {cost}, {what}", flush=True)
    makes_file = not complete and process.in_node == 0
    has_room = True
    if makes_file:
        key_path.unlink(missing_ok=True)
        has_room = take_room(path, size_in_bytes)
    if not on_all_ranks(has_room):
        print(f"note: {path.parent} has no room for them; the small LM runs in every step")
        if makes_file:
            path.unlink(missing_ok=True)
        return rows
    kept.map_file(path)
    are_finite = complete or fill(kept, model, process, quiet)
    if not on_all_ranks(are_finite):  # all parts are filled now
        why = "its weights or its dtype (--bf16) are at fault"
        raise InputError(f"{path}: the small LM's states of some rows are not finite: {why}")
    if makes_file:
        write_text(key_path, json.dumps(key) + "\n")
    return kept


def _made_from(key_path: Path):
    """What a file of states was made from; None where that does not stand there, or not as JSON."""
    try:
        return read_json(key_path)
    except InputError:
        return None


def states_key(model: LatentThoughtModel, rows_sha256: str, collator: TrainingCollator) -> dict:
    """All that decides the states, as a JSON object."""
    return {
        "rows": rows_sha256,
        "small_lm": fingerprint(model.small_lm),
        "dtype": str(model.small_lm.dtype),
        "num_thoughts": model.num_thoughts,
        "slot_id": model.slot_ids[0],
        "distinct_slot_ids": model.design.distinct_slot_ids,
        "steps": collator.steps,
    }


def fill(kept: RowsWithStates, model: LatentThoughtModel, process: Ranks, quiet: bool) -> bool:
    """Compute this process's part of its node's file: every node_size-th batch, rows of similar length together.
    Returns whether all of it is finite."""
    device = model.small_lm.get_input_embeddings().weight.device
    by_length = sorted(range(len(kept)), key=lambda i: -sum(kept.widths[i]))
    starts = range(process.in_node * ROWS_AT_ONCE, len(kept), process.node_size * ROWS_AT_ONCE)
    are_finite = True
    for start in track(starts, "small LM's states", len(starts), quiet):
        group = by_length[start : start + ROWS_AT_ONCE]
        batch = kept.collator([kept.rows[i] for i in group])
        batch = {name: value.to(device) for name, value in batch.items()}
        thoughts, steps = (states.cpu() for states in model.states(batch))
        are_finite &= bool(thoughts.isfinite().all() and steps.isfinite().all())
        for i, of_thoughts, of_steps in zip(group, thoughts, steps, strict=True):
            stored_thoughts, stored_steps = kept.states(i)
            stored_thoughts.copy_(of_thoughts[len(of_thoughts) - len(stored_thoughts) :])  # left-padded
            stored_steps.copy_(of_steps[: len(stored_steps)])
    return are_finite


def on_all_ranks(value: bool) -> bool:
    """Whether `value` is true on all ranks; waits for all of them."""
    return all(gather_object([value]))


def take_room(path: Path, size: int) -> bool:
    """Write a file of `size` zero bytes; False where the disk has no room. Without this, a full disk would crash the
    process later, when it writes into the mapped file."""
    try:
        with open(path, "wb") as file:
            for start in range(0, size, ZEROS):
                file.write(bytes(min(ZEROS, size - start)))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return False
    return True


def forget_states(folder: Path) -> None:
    """Remove a finished run's files."""
    for path in folder.glob("states-*-node*"):
        if STATES_FILE.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
