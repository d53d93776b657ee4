"""A run's folders: who may write in them, what is there, and whether it is this run's.

    results/<output_name>/             checkpoint-STEP, flags.json, dev_losses.jsonl, states-*, trainer_state.json
    ckpt/<output_name>-.../            the best weights, written once, when the last step is done

Rank 0 looks and decides for all ranks, under the lock of results/<output_name>.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list

from lta_thinker.checkpoint import (
    COMPLETE,
    DEV_LOSSES_FILE,
    META_FILE,
    STATE_FILE,
    TrainingRecord,
    beside,
    complete_checkpoints,
    fault_of,
    step_folders,
    step_of,
    written_checkpoints,
)
from lta_thinker.common import (
    InputError,
    lock_folder,
    make_folder,
    parse_json,
    ranks,
    read_json,
    read_record,
    versions,
    write_json,
    writing,
)
from lta_thinker.training.declared import TrainFlags
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.rows import RunRows

FLAGS_FILE = "flags.json"
WRITING = ".writing"  # in a resume checkpoint of this program until `complete` is there
LONGEST_NAME = 255  # bytes of a file's name
T = TypeVar("T")


def from_first_rank(decide: Callable[[], T]) -> T:
    """What `decide` gives on rank 0, on all ranks; an InputError there is one on all. A collective."""
    process = ranks()
    if process.world == 1:
        return decide()
    outcome: list[Any] = [None, None]
    if process.is_first:
        try:
            outcome[0] = decide()
        except (InputError, OSError) as error:
            outcome[1] = str(error)
    value, fault = broadcast_object_list(outcome)
    if fault is not None:
        raise InputError(fault)
    return value


# ---------------------------------------------------------------------------------------------------------------------
# What is there


def final_folder(args: TrainArguments) -> Path:
    """ckpt/<output_name>-<task>-<generator>-<epochs>-<N>-<large>-<small>/; InputError where the name is too long."""
    large = Path(os.path.abspath(args.large_model_id)).name  # also of "." and "../llm"
    small = Path(os.path.abspath(args.small_model_id)).name if args.spec.small else "none"
    kind, n = args.thought_generator, args.num_thought_tokens
    name = f"{args.output_name}-{args.task_name}-{kind}-{args.num_train_epochs:g}-{n}-{large}-{small}"
    over = len(os.fsencode(beside(Path(name), "partial").name)) - LONGEST_NAME
    if over > 0:
        raise InputError(
            f"--output_name: {over} bytes too long, the folder in ckpt/ would be {name:.40}...-{name[-40:]}"
        )
    return Path("ckpt") / name


def newest_checkpoint(run: Path) -> Path | None:
    """The newest resume checkpoint of a run that can be gone on from: it and the best one before it are complete."""
    complete = complete_checkpoints(run)
    steps = [None, *map(step_of, complete)]  # None: before the first dev evaluation there is no best
    usable = [folder for folder in complete if read_json(folder / STATE_FILE).get("best_global_step") in steps]
    return usable[-1] if usable else None


def is_at_last_step(checkpoint: Path) -> bool:
    """Whether nothing is left to train after a complete checkpoint."""
    state = read_json(checkpoint / STATE_FILE)
    return state["global_step"] >= state["max_steps"]


def check_run_folders(args: TrainArguments, final: Path) -> Path | None:
    """The checkpoint to resume from, or None for a fresh run. InputError where the folders and --resume disagree."""
    run, newest = args.run_folder, newest_checkpoint(args.run_folder)
    if not args.resume:
        old = beside(final, "old")  # a kill came between save_checkpoint's two renames
        there = [*written_checkpoints(run), *(path for path in (old, final) if path.exists())]
        if there:
            raise InputError(f"{there[-1]} is there already: --resume goes on, another --output_name starts afresh")
        links = [path for path in run.glob("checkpoint-*") if path.is_symlink()]
        for folder in [*links, *step_folders(run)]:
            if folder.is_symlink() or not is_half_written(folder):
                raise InputError(f"{folder}: not this run's; use another --output_name")
        return None
    if newest is None:
        raise InputError("; ".join([f"--resume: no complete checkpoint in {run}", *passed_over(run, newest)[-1:]]))
    return newest


def passed_over(run: Path, newest: Path | None) -> list[str]:
    """Why a run does not go on from its checkpoints behind the newest one that it can go on from, a line each."""
    later = [folder for folder in written_checkpoints(run) if newest is None or step_of(folder) > step_of(newest)]
    return [fault_of(folder) or f"{folder}: the best checkpoint before it is not complete" for folder in later]


def finished_run(args: TrainArguments, final: Path) -> TrainingRecord | None:
    """thoughts.json of a run whose weights stand whole in ckpt/; None where they do not."""
    if not (args.resume and (final / META_FILE).is_file()):
        return None
    try:
        record = TrainingRecord.read(final)
        record.check_files(final)
    except InputError as error:
        print(f"note: {error}; the weights are written again")
        return None
    if record.run != args.output_name:
        raise InputError(f"{final}: of another run, {record.run}; another --output_name starts afresh")
    return record if record.best is not None else None


def look_at_run(args: TrainArguments, final: Path) -> TrainingRecord | None:
    """What finished_run finds; where it finds none, InputError as check_run_folders: before an LM is loaded."""
    finished = finished_run(args, final)
    if not finished:
        check_run_folders(args, final)
    return finished


# ---------------------------------------------------------------------------------------------------------------------
# Taking them


def take_run_folders(args: TrainArguments, final: Path) -> Path | None:
    """Make the run's folders and keep them for this process; see that they can be written to, so that no error waits
    for the last epoch. Returns what check_run_folders does, now that nobody else can change it."""
    for folder in (args.run_folder, final.parent):
        make_folder(folder)
    lock_folder(args.run_folder, "; wait for it, or give another --output_name")
    checkpoint = check_run_folders(args, final)
    for fault in passed_over(args.run_folder, checkpoint) if checkpoint else ():
        print(f"note: {fault}; going on from {checkpoint}")
    for folder in (args.run_folder / "checkpoint", final):
        try_to_write(folder)
    return checkpoint


def try_to_write(folder: Path) -> None:
    """InputError where `folder` could not be written: a read-only place, a name that is too long, a full disk."""
    probe = beside(folder, "partial")
    shutil.rmtree(probe, ignore_errors=True)
    try:
        with writing(folder):
            probe.mkdir()
            (probe / META_FILE).write_text("{}\n")
    finally:
        shutil.rmtree(probe, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------------------
# The folder of a resume checkpoint


def begin_checkpoint(folder: Path) -> None:
    """Mark a resume checkpoint's folder, perhaps a new one, as this program's before it is filled. A link is replaced,
    and what it leads to stays."""
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WRITING).touch()
    (folder / COMPLETE).unlink(missing_ok=True)  # a run that was resumed may come here again


def is_half_written(folder: Path) -> bool:
    """Whether a folder of step_folders is a checkpoint that this program began and did not end, or has begun to
    remove."""
    return not (folder / COMPLETE).exists() and ((folder / WRITING).exists() or not any(folder.iterdir()))


def remove_checkpoint(folder: Path) -> None:
    """Remove a resume checkpoint; where that is cut off, what is left is half-written."""
    begin_checkpoint(folder)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != WRITING:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def forget_checkpoints(run: Path, limit: int | None, kept: set[int]) -> None:
    """Remove a run's oldest checkpoints until `limit` are left, but for those of the steps in `kept`; and what is
    half-written there."""
    written = written_checkpoints(run)
    removable = [folder for folder in written if step_of(folder) not in kept]
    over = 0 if limit is None else max(0, len(written) - max(limit, len(kept)))
    for folder in [*filter(is_half_written, step_folders(run)), *removable[:over]]:
        remove_checkpoint(folder)


# ---------------------------------------------------------------------------------------------------------------------
# Whether it is this run: flags.json


@dataclass(frozen=True)
class Start:
    """One start of a run: versions, and the flags that may differ between its starts."""

    versions: dict[str, str]
    flags: dict[str, Any]


@dataclass(frozen=True)
class Starts:
    """What flags.json has beside the flags and digests that must stay the same."""

    starts: list[Start]


def run_settings(args: TrainArguments, rows: RunRows) -> dict:
    """What is stored with a run, and must be the same when it is resumed."""
    return args.resolved() | {f"{split}_sha256": counts.sha256 for split, counts in rows.counts.items()}


def read_settings(args: TrainArguments, rows: RunRows) -> dict:
    """flags.json of a run that is resumed; InputError where it is none."""
    path = args.run_folder / FLAGS_FILE
    values = read_json(path)
    if not read_record(Starts, values, str(path)).starts:
        raise InputError(f"{path}: has no start")
    for name in run_settings(args, rows).keys() - TrainArguments.__dataclass_fields__.keys():
        if name not in values:
            raise InputError(f"{path}: has no {name}, which train.py writes")
    return values


def check_same_run(args: TrainArguments, rows: RunRows, before: dict, where: str = "this run was started") -> None:
    """InputError where a resumed run has other flags or rows than `before`, those that it was started with (rows may
    change on disk). The weights that a run began with need not be given again: it has its own."""
    now = run_settings(args, rows)
    before.setdefault("coconut_stages", 0)  # declared as None, which is settled as 0 or 3
    for name in TrainFlags.__annotations__:  # what the train.py that began the run did not have yet was off
        off = False if isinstance(now.get(name), bool) else TrainArguments.__dataclass_fields__[name].default
        before.setdefault(name, off)
    for name in now:
        if name in ("params_file_name", "att_file_name") and now[name] is None:
            continue
        if name in before and before[name] != now[name]:
            raise InputError(f"--resume: {where} with {name} = {before[name]}, not {now[name]}")


def check_same_as_record(args: TrainArguments, rows: RunRows, record: TrainingRecord, where: str) -> None:
    """check_same_run by a thoughts.json of the run, `where`."""
    digests = {f"{split}_sha256": counts.sha256 for split, counts in (record.rows or {}).items()}
    check_same_run(args, rows, (record.flags or {}) | digests, f"{where} is of a run that was started")


def note_other_versions(before: dict) -> None:
    """Print a line for each version that differs from that of the run's last start."""
    last = before["starts"][-1]["versions"]
    for name, version in versions().items():
        if last.get(name, version) != version:
            print(f"note: this run came here with {name} {last[name]}, and goes on with {version}")


def record_start(args: TrainArguments, rows: RunRows, starts: list[dict]) -> None:
    """Write into the run's folder what is needed to repeat it: what decides its weights, and for each start (`starts`:
    those before) the versions and the flags that may differ. A fresh run removes what a killed one has left there."""
    start = {"versions": versions(), "flags": args.free()}
    write_json(args.run_folder / FLAGS_FILE, run_settings(args, rows) | {"starts": [*starts, start]})
    if not starts:
        for folder in filter(is_half_written, step_folders(args.run_folder)):
            remove_checkpoint(folder)
        (args.run_folder / DEV_LOSSES_FILE).unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# dev_losses.jsonl


@dataclass(frozen=True)
class DevLosses:
    """A line of dev_losses.jsonl: the SFT loss of every dev row's target after a step, in nats."""

    step: int
    nats: list[float]


def read_dev_losses(args: TrainArguments, checkpoint: Path | None) -> dict[int, DevLosses]:
    """The lines of dev_losses.jsonl up to the checkpoint's step, by step; none of a fresh run. InputError for a line
    that train.py did not write."""
    path, found = args.run_folder / DEV_LOSSES_FILE, {}
    remedy = "the run goes on without this file, remove it"
    if checkpoint is None or not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            read = read_record(DevLosses, parse_json(line, f"{path}:{number}"), f"{path}:{number}")
            if read.step <= step_of(checkpoint):
                found[read.step] = read
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; {remedy}") from None
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from None
    return found
