"""Going on: a run that has ended, one that has only to write, a full disk, the lock."""

import errno
import fcntl
import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import cut_at, files_and_times, logs, meta, one_line, same_as
from transformers.trainer_callback import TrainerState

from lta_thinker import train
from lta_thinker.checkpoint import COMPLETE, complete_checkpoints
from lta_thinker.common import InputError
from lta_thinker.flags import parse_flags
from lta_thinker.training import folders, trainer

NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


# ---------------------------------------------------------------------------------------------------------------------
# The end of a run


def test_ended_run_that_is_resumed_changes_nothing(there, capsys, monkeypatch):
    """--resume after the last step says that the run has ended, exits with 0 and writes nothing, also where the resume
    checkpoints were cleared away. Other flags than the run's are refused."""
    monkeypatch.setattr(train, "build_models", lambda *_: pytest.fail("an LM was loaded"))
    before = files_and_times("results", "ckpt")
    assert train.run(there) == 0
    assert "this run has ended, and its weights are in ckpt/a-" in capsys.readouterr().out
    assert files_and_times("results", "ckpt") == before
    with pytest.raises(InputError, match="started with learning_rate = 0.001, not 0.002"):
        train.run([*there, "--learning_rate", "2e-3"])
    shutil.rmtree("results")
    assert train.run(there) == 0 and not Path("results").exists()


def test_run_that_was_killed_before_its_weights_only_writes_them(there, ended, capsys, monkeypatch):
    """A run that was killed between its last step and ckpt/ trains no step when it is resumed: it writes the weights of
    the best step."""
    cut_at(12)
    monkeypatch.setattr(trainer.ThoughtTrainer, "training_step", lambda *_: pytest.fail("a step was trained"))
    assert train.run(there) == 0
    assert "all steps of this run are done; what is left is to write ckpt/a-" in capsys.readouterr().out
    assert same_as(ended) and json.loads(Path("results/a/trainer_state.json").read_text())["global_step"] == 12
    assert len(json.loads(Path("results/a/flags.json").read_text())["starts"]) == 1


def test_last_checkpoint_stays_until_the_weights_are_written(long_flags, monkeypatch):
    """With --save_total_limit 1 and the best weights early, a run that ends before ckpt/ is written has its last
    checkpoint: --resume trains no step."""
    long_flags += ["--save_total_limit", "1", "--max_steps", "3", "--eval_steps", "1"]
    figures = iter([1.0, 2.0, 3.0])
    log = trainer.ThoughtTrainer.log

    def worse(self, metrics, *rest):
        if "eval_sft_loss" in metrics:
            metrics["eval_sft_loss"] = next(figures)
        log(self, metrics, *rest)

    with monkeypatch.context() as patch, pytest.raises(InputError, match="killed"):
        patch.setattr(trainer.ThoughtTrainer, "log", worse)
        patch.setattr(train, "save_best", lambda *_: (_ for _ in ()).throw(InputError("killed")))
        train.run(long_flags)
    assert [path.name for path in complete_checkpoints(Path("results/a"))] == ["checkpoint-1", "checkpoint-3"]
    monkeypatch.setattr(trainer.ThoughtTrainer, "training_step", lambda *_: pytest.fail("a step was trained"))
    assert train.run([*long_flags, "--resume"]) == 0 and meta("a")["best"]["step"] == 1


@pytest.mark.parametrize("limit, kept, left", [(2, {4, 20}, [4, 20]), (3, {4, 20}, [4, 16, 20]), (1, {4, 20}, [4, 20])])
def test_limit_counts_the_best_checkpoint(tmp_path, limit, kept, left):
    """--save_total_limit K keeps K checkpoints, however old the best is, and at least the best and the newest."""
    for step in (4, 8, 12, 16, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    folders.forget_checkpoints(tmp_path, limit, kept)
    assert sorted(int(path.name[11:]) for path in tmp_path.iterdir()) == left


def test_weights_that_were_damaged_in_ckpt_are_written_again(there, ended, capsys):
    """Weights in ckpt/ that are not those that were written there are no end of a run."""
    path = next(Path("ckpt").glob("a-*/projection.bin"))
    path.write_bytes(path.read_bytes()[:-1])
    assert train.run(there) == 0
    assert "projection.bin: not the file that thoughts.json was written with" in capsys.readouterr().out
    assert same_as(ended)


def test_last_step_is_evaluated_whatever_eval_delay_says(flags):
    """--eval_delay beyond the end leaves one dev evaluation, of the last step, and its weights are saved."""
    train.run([*flags, "--output_name", "late", "--eval_delay", "1000", "--max_steps", "2"])
    assert meta("late")["best"]["step"] == 2 and [point["step"] for point in meta("late")["dev_curve"]] == [2]


# ---------------------------------------------------------------------------------------------------------------------
# A full disk, a read-only place, names that are too long, another run


def refusing(call, after: int, error: Exception):
    """`call`, which raises `error` from its call number `after` on."""
    calls = []

    def refuse(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise error
        return call(*args, **kwargs)

    return refuse


BROKEN_WRITE = RuntimeError(
    "[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0"
)
WRITES = {  # what fails -> from which call on, with which error
    "weights": (safetensors.torch, "save_file", 0, safetensors.SafetensorError("I/O error: No space left on device")),
    "optimizer": (torch, "save", 1, BROKEN_WRITE),
    "state": (TrainerState, "save_to_json", 0, NO_ROOM),
    "thoughts.json": (trainer.TrainingRecord, "write", 0, NO_ROOM),
    "complete": (trainer, "write_complete", 0, NO_ROOM),
    "dev losses": (trainer, "write_text", 0, InputError("results/a/dev_losses.jsonl: cannot be written (No room)")),
}


@pytest.mark.parametrize("what", WRITES)
def test_full_disk_keeps_what_is_complete(there, ended, monkeypatch, what):
    """Where a checkpoint cannot be written to its end, one line says so, the checkpoint before it is whole and nothing
    half-written is left. After room was made the run goes on and ends with the same weights."""
    cut_at(8)
    with monkeypatch.context() as full:
        place, name, after, error = WRITES[what]
        full.setattr(place, name, refusing(getattr(place, name), after, error))
        with pytest.raises(InputError) as raised:
            train.run(there)
    one_line(raised, "results/a/", "cannot be written (")
    complete = [path.name for path in complete_checkpoints(Path("results/a"))]
    assert complete == sorted(path.name for path in Path("results/a").glob("checkpoint-*"))
    assert complete == ["checkpoint-4", "checkpoint-8"] and not list(Path().rglob("*.partial"))
    assert train.run(there) == 0 and same_as(ended)


def test_full_disk_at_the_end_leaves_only_the_writing(there, ended, monkeypatch):
    """Weights that could not be written into ckpt/ are written by --resume."""
    cut_at(12)
    with monkeypatch.context() as full:
        full.setattr(torch, "save", refusing(torch.save, 1, BROKEN_WRITE))
        with pytest.raises(InputError) as raised:
            train.run(there)
    one_line(raised, "ckpt/a-", "cannot be written (", "make room, and --resume writes them")
    assert not any(Path("ckpt").iterdir())
    assert train.run(there) == 0 and same_as(ended)


def test_place_that_cannot_be_written_is_known_before_training(long_flags, monkeypatch):
    """A read-only ckpt/ or results/, and a name that is too long for a folder, end the run before an LM is loaded."""
    monkeypatch.setattr(train, "build_models", lambda *_: pytest.fail("an LM was loaded"))
    make = Path.mkdir

    def read_only(place):
        def refuse(path, *args, **kwargs):
            if path.parent.name == place:
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            make(path, *args, **kwargs)

        return refuse

    for place, named in (("ckpt", "ckpt/a-"), ("results", "results/a"), ("a", "results/a/")):
        with monkeypatch.context() as patch, pytest.raises(InputError) as error:
            patch.setattr(Path, "mkdir", read_only(place))
            train.run(long_flags)
        one_line(error, named, "Read-only file system")
    for name in ("x" * 230, "x" * 300, "\u540d" * 80):
        with pytest.raises(InputError, match="--output_name: [0-9]+ bytes too long"):
            train.run([*long_flags, "--output_name", name])
    with monkeypatch.context() as patch, pytest.raises(InputError, match="File name too long"):
        patch.setattr(folders, "LONGEST_NAME", 1000)  # a file system that takes more
        make_name = "x" * 215
        train.run([*long_flags, "--output_name", make_name])
    assert not list(Path().rglob("*.partial")) and not list(Path().rglob("*.json"))


def test_run_that_another_process_writes_is_refused(long_flags, there):
    """Two runs of one --output_name: the second says who is there, whether it starts or goes on."""
    cut_at(8)
    folders.lock_folder.__globals__["_held"].pop(Path("results/a").resolve(), None)
    with open("results/a/.lock", "w") as file:
        file.write("process 7 on here, since yesterday,\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        before = files_and_times("results", "ckpt") if Path("ckpt").exists() else files_and_times("results")
        with pytest.raises(InputError) as error:
            train.run(there)
        one_line(error, "results/a: process 7 on here, since yesterday, is writing here", "another --output_name")
        assert files_and_times("results") == {k: v for k, v in before.items() if k.parts[0] == "results"}


# ---------------------------------------------------------------------------------------------------------------------
# Signals, rows that make no step, a log off its grid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_run_with_a_checkpoint(there, ended, monkeypatch, capsys, number):
    """Ctrl-C and SIGHUP end a run as SIGTERM does: the step is finished and saved, and one line says how to go on.
    Resumed, the run ends with the same weights."""
    cut_at(8)
    monkeypatch.setattr(sys, "argv", ["train.py", *there])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        raising_at(patch, 10, [number])
        train.main()
    assert stop.value.code == 128 + number
    line = f"stopped by {number.name} after step 10: --resume goes on from results/a/checkpoint-10\n"
    assert line in capsys.readouterr().out
    assert train.run(there) == 0 and same_as(ended)


def test_second_interrupt_stops_at_once(long_flags, monkeypatch, capsys):
    """A second Ctrl-C stops a run in the middle of its step, with one line; what was saved is kept."""
    monkeypatch.setattr(sys, "argv", ["train.py", *long_flags, "--eval_steps", "1"])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        raising_at(patch, 2, [signal.SIGINT, signal.SIGINT])
        train.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"stopped by SIGINT: {train.KEPT}"
    assert train.newest_checkpoint(Path("results/a")).name == "checkpoint-1"


def raising_at(patch, step: int, numbers: list[int]) -> None:
    """These signals while that step is made."""
    compute = trainer.ThoughtTrainer.compute_loss

    def send(self, *args, **kwargs):
        if self.state.global_step == step - 1:
            for number in numbers:
                signal.raise_signal(number)
        return compute(self, *args, **kwargs)

    patch.setattr(trainer.ThoughtTrainer, "compute_loss", send)


def test_rows_that_make_no_step_are_refused(flags, monkeypatch):
    """--dataloader_drop_last with a batch larger than the rows would save untrained weights as the best."""
    monkeypatch.setattr(train, "build_models", lambda *_: pytest.fail("an LM was loaded"))
    with pytest.raises(InputError, match="--dataloader_drop_last: the 38 training rows do not fill"):
        train.run([*flags, "--output_name", "x", "--dataloader_drop_last", "True", "--batch_size", "39"])
    args = parse_flags(train.TrainArguments, [*flags, "--output_name", "x", "--dataloader_drop_last"], "train.py")
    train.check_some_step(args, 2)


def test_log_off_its_grid_has_the_losses_of_its_steps(there):
    """A run that goes on between two log lines, at other --logging_steps, logs the mean of each loss over the steps
    since then."""
    each = {log["step"]: log for log in logs("a") if "loss" in log}
    cut_at(8)
    train.run([*there, "--logging_steps", "5"])
    (ten,) = [log for log in logs("a") if "loss" in log and log["step"] > 8]
    assert ten["step"] == 10
    for name in ("loss", "sft_loss", "align_loss", "focus_loss"):
        assert ten[name] == pytest.approx((each[9][name] + each[10][name]) / 2, abs=1e-4)
