"""Checkpoints on disk: the trained weights, and what evaluation must know of them. Checks whether weights fit.

ckpt/NAME                      projection.bin, TransformerBlock.bin (published names and shapes, float32), thoughts.json
                               where LMs are tuned also the folders base_model, assistant_model (llm/lora.py)
results/RUN/checkpoint-STEP    to resume from: model.safetensors and the rest of Trainer's, thoughts.json, `complete`

Both say themselves what belongs to them: thoughts.json has the digests of its weight files, `complete` the sizes of all
files and the digests of those that are not large. What was lost, cut or exchanged since is refused by its name.
"""

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from lta_thinker.answers import ANSWER_TYPES
from lta_thinker.common import InputError, first_line, read_json, read_record, sha256_of, write_json
from lta_thinker.data_loader import PLACEHOLDERS, OwnTask
from lta_thinker.llm.identity import Identity
from lta_thinker.llm.lora import ROLES, Adapter, AllWeights, Lora, write_adapter
from lta_thinker.losses import AlignForm
from lta_thinker.model import KINDS, PUBLISHED_DESIGN, Design, LatentThoughtModel, Sizes
from lta_thinker.names import MAX_BLOCKS, META_FILE, RESUME_FILE
from lta_thinker.rows.layout import WorkedExample
from lta_thinker.weights import ATT_FILE, PARAMS_FILE, split_state

CARD_FILE = "README.md"
CHECKPOINT_FILES = {PARAMS_FILE, ATT_FILE, META_FILE, CARD_FILE, *ROLES}  # of a folder in ckpt/, save_pretrained's too
COMPLETE = "complete"  # without `complete`, writing was cut off
STATE_FILE = "trainer_state.json"  # Trainer's: steps, best step, log
NEEDED = (RESUME_FILE, "optimizer.pt", "scheduler.pt", STATE_FILE, META_FILE)  # of every resume checkpoint
NUMBERS = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "learning_rate", "seed")  # flags
MOST_NAMES = 12  # of runs in a message
SMALL = 2**24  # bytes: `complete` has a digest of every file up to this size
DEV_LOSSES_FILE = "dev_losses.jsonl"  # in a run's folder: a line a dev evaluation, the SFT loss of every row
CHECKPOINT_NAME = re.compile(r"checkpoint-\d+")  # Trainer's, of the folder
TORCH_WRITER = ("inline_container", "PytorchStreamWriter", "cannot be opened")  # in the errors of a failing torch.save


# ---------------------------------------------------------------------------------------------------------------------
# thoughts.json


@dataclass(frozen=True)
class RowCounts:
    """How many rows of a split were read, left out and kept, and the digest of the kept rows' token ids. in_split: with
    the worked examples of --num_fewshot."""

    source: str
    read: int
    bad: int
    in_split: int
    too_long: int
    kept: int
    sha256: str


@dataclass(frozen=True)
class Best:
    """How weights were chosen: the dev metric and its value, step and epoch."""

    metric: str
    value: float
    step: int
    epoch: float


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """thoughts.json: what evaluation must know of a training, and where the weights come from.

    sizes, design, prompts, worked_examples (--num_fewshot), date_string, dtype, fingerprints (of the large LLM and the
    small LM), special_tokens_in_text and tuned (LoRA's flags by role) decide the thoughts and the prompts. own_task:
    the flags of a task of the user's own. rows: counts and digests of the training and dev rows. dev: step, epoch and
    dev losses of these weights; dev_curve: the same of all dev evaluations so far; best: how these weights were chosen.
    large_model_path, small_model_path: where the LM's folder was, an absolute path; None for an id of the hub. files:
    the sha256 of the weight files beside it, by name. tokens: digests of the tokenizers with their chat templates
    (Layout.digests). known_states: what the LMs compute (llm/frozen.py). Fields with a default may be missing:
    evaluation works without.
    """

    thought_generator: str
    num_thoughts: int
    sizes: Sizes
    design: Design = PUBLISHED_DESIGN
    large_model_id: str
    small_model_id: str | None
    large_model_path: str | None = None
    small_model_path: str | None = None
    prompts: dict[str, str]
    worked_examples: list[WorkedExample] | None = None
    special_tokens_in_text: bool
    date_string: str
    task_name: str
    own_task: OwnTask | None = None
    answer_type: str
    loss_weights: dict[str, float] | None = None
    focus_temperature: float | None = None
    align: AlignForm | None = None
    thoughts_see_steps: bool = False
    tuned: dict[str, Lora] | None = None
    dtype: str
    fingerprints: list[str | None]
    tokens: list[str | None] | None = None
    known_states: list[str | None] | None = None
    seed: int | None = None
    versions: dict[str, str] | None = None
    flags: dict[str, str | int | float | bool | None] | None = None
    rows: dict[str, RowCounts] | None = None
    dev: dict[str, float] | None = None
    dev_curve: list[dict[str, float]] | None = None
    best: Best | None = None
    files: dict[str, str] | None = field(default=None, compare=False)

    @property
    def run(self) -> str | None:
        """The training's --output_name, None where the flags are not recorded."""
        name = (self.flags or {}).get("output_name")
        return None if name is None else str(name)

    @property
    def writes_steps(self) -> bool:
        """Whether the LLM was trained to write the steps before the answer (in the last of several stages)."""
        flags = self.flags or {}
        return not (flags.get("answer_only") or flags.get("coconut_stages"))

    @property
    def lms(self) -> list[Identity]:
        """What tells the large LLM and the small LM apart from others."""
        states, tokens = self.known_states or [None, None], self.tokens or [None, None]
        return [Identity(*facts) for facts in zip(self.fingerprints, states, tokens, strict=True)]

    @classmethod
    def read(cls, folder: Path) -> "TrainingRecord":
        """The record in a checkpoint's folder; InputError when it is missing, broken, or not what train.py writes."""
        path = folder / META_FILE
        record = read_record(cls, read_json(path), str(path))
        wrong = record._what_is_wrong()
        if wrong:
            raise InputError(f"{path}: {wrong}")
        return record

    def _what_is_wrong(self) -> str | None:
        """A value that has its type and yet is none that train.py writes."""
        design, flags = self.design, self.flags or {}
        points = [self.dev or {"step": 0, "epoch": 0}, *(self.dev_curve or [])]
        counts = [design.num_chains, design.num_blocks, 1 if design.reader_layers is None else design.reader_layers + 1]
        counts += [lora.r for lora in (self.tuned or {}).values()]
        counts += [1 if self.thought_generator == "none" else self.num_thoughts]
        for wrong, what in (
            (self.thought_generator not in KINDS, f"{self.thought_generator} is no thought generator"),
            (len(self.fingerprints) != 2, "its fingerprints are not two, of the large LLM and of the small LM"),
            (len(self.tokens or [None, None]) != 2, "its tokens are not two, of the large LLM and of the small LM"),
            (len(self.known_states or [None, None]) != 2, "its known_states are not two, of the LLM and the small LM"),
            (self.prompts.keys() != PLACEHOLDERS.keys(), f"its prompts are not {', '.join(PLACEHOLDERS)}"),
            (
                any(text.count(PLACEHOLDERS[name]) != 1 for name, text in self.prompts.items()),
                "a prompt lacks its place",
            ),
            (self.dtype not in ("float32", "bfloat16"), f"its dtype is {self.dtype}, not one that train.py writes"),
            (not set(self.tuned or {}) <= set(ROLES), "its `tuned` is not what train.py writes"),
            (self.answer_type not in ANSWER_TYPES, f"its answer_type is {self.answer_type!r:.40}, which there is not"),
            (design.projection not in (None, "before", "after"), f"its projection is {design.projection!r:.40}"),
            (
                min(counts) < 1 or max(counts) >= 2**31 or design.num_blocks > MAX_BLOCKS,
                "its numbers are not those of a generator",
            ),
            (any(not {"step", "epoch"} <= point.keys() for point in points), "a dev point has no step or no epoch"),
            (self.rows is not None and self.rows.keys() != {"train", "dev"}, "its rows are not those of train and dev"),
            (any(isinstance(flags.get(name), str | None) for name in NUMBERS if name in flags), "a flag is no number"),
        ):
            if wrong:
                return what
        return None

    def find_model(self, role: str, flag: str) -> str | None:
        """The id of the "large" or the "small" LM as it is found from the current folder: as it was given, unless that
        was a folder which now lies at its absolute path alone. InputError, which names `flag`, where it was a folder
        and is at neither place."""
        given, path = getattr(self, f"{role}_model_id"), getattr(self, f"{role}_model_path")
        if given is None or path is None or os.path.abspath(given) == path:
            return given
        if os.path.isdir(path):
            return path
        if os.path.isdir(given):
            return given
        raise InputError(f"{path}: no such folder; it was the {role} LM of this training, {flag} says where it is now")

    def check_files(self, folder: Path) -> None:
        """InputError where a weight file in the checkpoint's folder is not the one that the record was written with."""
        for name, digest in (self.files or {}).items():
            path = folder / name
            if not path.is_file():
                raise InputError(f"{path}: no such file; the checkpoint had it when it was written")
            if sha256_of(path) != digest:
                raise InputError(f"{path}: not the file that {META_FILE} was written with (another sha256)")

    def write(self, folder: Path) -> None:
        """Write it into a folder, all or nothing. A field that may be missing and is None is left out."""
        values = asdict(self)
        for item in fields(self):
            if item.default is None and item.name != "own_task" and values[item.name] is None:
                del values[item.name]
        write_json(folder / META_FILE, values)


# ---------------------------------------------------------------------------------------------------------------------
# Folders


@contextlib.contextmanager
def writing_folder(folder: Path, half_written: Path, instead: str) -> Iterator[None]:
    """Within it a write that fails is an InputError that names `folder` and ends with `instead`, and the folder
    `half_written` is removed. (On a full disk torch and safetensors raise errors of their own.)"""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, InputError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in TORCH_WRITER):
            raise
        shutil.rmtree(half_written, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise InputError(f"{folder}: cannot be written ({reason:.300}){instead}") from None


def save_checkpoint(
    folder: Path, model: LatentThoughtModel, record: TrainingRecord, instead: str = "; what was there stays"
) -> None:
    """Write the generator's files, the adapters and thoughts.json with their digests into `folder`, in place of what it
    has: all or nothing (rename at the end). InputError, which ends with `instead`, where it cannot be written, and
    where other things in it would be lost."""
    partial, old = beside(folder, "partial"), beside(folder, "old")
    if others := foreign_files(folder):
        raise InputError(f"{folder}: has {others[0]} in it, which would be lost; move it away")
    with writing_folder(folder, partial, instead):
        if old.exists() and not folder.exists():  # a kill came between the two renames below
            os.replace(old, folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = {name: value.detach().cpu().clone() for name, value in model.generator.state_dict().items()}
        for name, state in zip((PARAMS_FILE, ATT_FILE), split_state(weights), strict=True):
            if state:
                torch.save(state, partial / name)
        for role, adapter in model.adapters.items():
            assert isinstance(adapter, Adapter | AllWeights)
            write_adapter(partial / role, adapter)
        replace(record, files={name: sha256_of(path) for name, path in files_of(partial).items()}).write(partial)
        try:
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)  # a killed run may have left one
                os.replace(folder, old)
            os.replace(partial, folder)
        except BaseException:  # a signal too
            if old.exists() and not folder.exists():
                os.replace(old, folder)
            raise
    shutil.rmtree(old, ignore_errors=True)


def beside(folder: Path, end: str) -> Path:
    """The name of a folder while it is written (partial) or replaced (old): one that no copy of a user's has."""
    return folder.with_name(f".{folder.name}.{end}")


def foreign_files(folder: Path) -> list[str]:
    """The names of what is in a folder and no part of a checkpoint, without those that begin with a dot."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if name not in CHECKPOINT_FILES and name[0] != "."]


def files_of(folder: Path) -> dict[str, Path]:
    """The files in a folder and those below it, by their name from it; without those that a system or a file browser
    leaves there, whose names begin with a dot."""
    names = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name.as_posix(): path for name, path in names.items() if not any(part[0] == "." for part in name.parts)}


@dataclass(frozen=True)
class WrittenFile:
    """A file of a resume checkpoint as it was written: its bytes, and its digest where it is not large."""

    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Written:
    """`complete`: the files of a resume checkpoint by name."""

    files: dict[str, WrittenFile]


def write_complete(folder: Path) -> None:
    """Record that a resume checkpoint is written to its end, and what it has."""
    (folder / COMPLETE).unlink(missing_ok=True)
    files = {}
    for name, path in files_of(folder).items():
        size = path.stat().st_size
        files[name] = WrittenFile(size, sha256_of(path) if size <= SMALL else None)
    write_json(folder / COMPLETE, asdict(Written(files)))


def is_resume_checkpoint(folder: Path) -> bool:
    """Whether Trainer wrote the folder, or began to; it may have been copied to another name."""
    return any((folder / name).is_file() for name in (COMPLETE, STATE_FILE, "optimizer.pt", "scheduler.pt")) or (
        (folder / RESUME_FILE).is_file() and (folder / META_FILE).is_file()
    )


def check_resume_checkpoint(folder: Path, to_evaluate: bool = False) -> None:
    """InputError where a resume checkpoint was not written to its end, or where a file of it was lost, cut or exchanged
    since. to_evaluate: only the files that evaluation reads; one of an earlier version, which does not say, passes."""
    path = folder / COMPLETE
    if not path.is_file() and any(folder.glob("checkpoint-*/")):
        what = f"a run's folder; one of its checkpoint-N is meant, or its name alone, {folder.name}: its best weights"
        raise InputError(f"{folder}: {what}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; the checkpoint was cut off while it was written")
    if path.stat().st_size == 0:
        if to_evaluate:
            return
        why = "empty, of an earlier version of train.py, which this run is to be finished with"
        raise InputError(f"{path}: {why}; weights in ckpt/ go on to work")
    written = read_record(Written, read_json(path), str(path)).files
    needed = (RESUME_FILE, META_FILE) if to_evaluate else NEEDED
    for name in needed:
        if name not in written:
            raise InputError(f"{path}: names no {name}, which every resume checkpoint has")
    for name in needed if to_evaluate else written:
        file, facts = folder / name, written[name]
        if not file.is_file():
            raise InputError(f"{file}: no such file; the checkpoint had it when it was written")
        if file.stat().st_size != facts.size:
            raise InputError(f"{file}: has {file.stat().st_size:,} bytes, it had {facts.size:,} when it was written")
        if facts.sha256 is not None and sha256_of(file) != facts.sha256:
            raise InputError(f"{file}: not the file that was written (another sha256)")


def fault_of(folder: Path) -> str | None:
    """What check_resume_checkpoint finds; None where it finds nothing."""
    try:
        check_resume_checkpoint(folder)
    except InputError as error:
        return str(error)


def step_folders(run: Path) -> list[Path]:
    """The folders checkpoint-STEP in results/<output_name>/, complete or not, by step; a link is none."""
    folders = [path for path in run.glob("checkpoint-*/") if CHECKPOINT_NAME.fullmatch(path.name)]
    return sorted((path for path in folders if not path.is_symlink()), key=step_of)


def written_checkpoints(run: Path) -> list[Path]:
    """The resume checkpoints in results/<output_name>/ that were written to their end, by step. They may have lost a
    file since."""
    return [folder for folder in step_folders(run) if (folder / COMPLETE).exists()]


def complete_checkpoints(run: Path) -> list[Path]:
    """Those of written_checkpoints that still have all that was written."""
    return [folder for folder in written_checkpoints(run) if fault_of(folder) is None]


def step_of(folder: Path) -> int:
    """The optimiser step of a folder checkpoint-STEP."""
    return int(folder.name.split("-")[1])


def run_checkpoints(output_name: str) -> list[Path]:
    """A run's weights, by step: its resume checkpoints that were written to their end, and its folder in ckpt/ where
    that step has none. InputError where there are none. (One that lost a file since is among them: its evaluation says
    so.)"""
    run = Path("results", output_name)
    by_step = {step_of(folder): folder for folder in written_checkpoints(run)}
    for folder, record in weights_of(output_name).items():
        if record.best is not None:
            by_step.setdefault(record.best.step, folder)
    if not by_step:
        what = "no complete checkpoint in it" if run.is_dir() else "no such run"
        raise InputError(f"{run}: {what}, and none of its weights in ckpt/; a run is train.py's --output_name")
    return [by_step[step] for step in sorted(by_step)]


# ---------------------------------------------------------------------------------------------------------------------
# By name


def best_weights(pattern: str = "*") -> dict[Path, TrainingRecord]:
    """The folders in ckpt/ (those whose names are of the pattern) with their thoughts.json, the newest first; without
    links, and without those of other programs."""
    found = {}
    for path in Path("ckpt").glob(f"{pattern}/{META_FILE}"):
        with contextlib.suppress(InputError):
            if not path.parent.is_symlink():
                found[path.parent] = TrainingRecord.read(path.parent)
    return dict(sorted(found.items(), key=lambda item: -(item[0] / META_FILE).stat().st_mtime))


def weights_of(run: str) -> dict[Path, TrainingRecord]:
    """Those of best_weights that the run with this --output_name has written; copies under other names are none."""
    return {path: record for path, record in best_weights(f"{glob.escape(run)}-*").items() if record.run == run}


def find_checkpoint(name: str) -> Path | None:
    """The folder of the checkpoint of that name: a folder itself, else the weights in ckpt/ of the run with this
    --output_name; None where it is neither. InputError for a run whose weights are in several folders, or in none."""
    folder = Path(name)
    if is_resume_checkpoint(folder) or any((folder / file).is_file() for file in (META_FILE, PARAMS_FILE, ATT_FILE)):
        return folder
    if folder.name == name:
        found, written = list(weights_of(name)), written_checkpoints(Path("results", name))
        if len(found) > 1:
            raise InputError(f"{name}: a run with weights in {len(found)} folders: {', '.join(map(str, found))}")
        if written and not found:
            raise InputError(f"{name}: this run has no weights in ckpt/ yet; its last checkpoint is {written[-1]}")
        if found:
            return found[0]
    return folder if folder.is_dir() else None


def known_runs() -> str:
    """What a message says of the runs whose weights are in ckpt/, the newest first."""
    names = list(dict.fromkeys(record.run or folder.name for folder, record in best_weights().items()))
    if not names:
        return "there are no weights in ckpt/ here"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"in ckpt/ there are {', '.join(names[:MOST_NAMES])}{more}"
