"""Going on: what a checkpoint must have, a run that has ended, one that has only to write, a full disk, the lock."""

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
from helpers import logs, meta, one_line, weights
from transformers.trainer_callback import TrainerState

from lta_thinker import train
from lta_thinker.checkpoint import (
    COMPLETE,
    META_FILE,
    NEEDED,
    RESUME_FILE,
    check_resume_checkpoint,
    complete_checkpoints,
    fault_of,
)
from lta_thinker.common import InputError
from lta_thinker.flags import parse_flags
from lta_thinker.training import folders, trainer

STEPS = ["--max_steps", "12", "--eval_strategy", "steps", "--eval_steps", "4", "--save_total_limit", "9"]
STEPS += ["--gradient_accumulation_steps", "1"]  # transformers 4.53 resumes no epoch that ends in a shorter step
NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def long_flags(flags):
    """A run named a: 12 steps of 8 an epoch by a schedule that is not linear, a checkpoint every 4."""
    return [*flags, "--k_shot", "16", "--lr_scheduler_type", "cosine", *STEPS, "--output_name", "a"]


@pytest.fixture(scope="session")
def ended(tiny_pair, gsm8k_data, tmp_path_factory) -> Path:
    """The folder in which such a run has ended."""
    import contextlib

    from helpers import train_flags

    folder = tmp_path_factory.mktemp("ended")
    more = ["--k_shot", "16", "--lr_scheduler_type", "cosine", *STEPS, "--output_name", "a"]
    with contextlib.chdir(folder):
        train.run([*train_flags(tiny_pair, gsm8k_data), *more])
    return folder


@pytest.fixture
def there(ended, long_flags, tmp_path):
    """The current folder is a copy of that one -> the flags of the run."""
    for name in ("results", "ckpt"):
        shutil.copytree(ended / name, tmp_path / name)
    return [*long_flags, "--resume"]


def cut_at(step: int) -> None:
    """As if run a had been killed after that checkpoint."""
    for folder in Path("results/a").glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > step:
            shutil.rmtree(folder)
    shutil.rmtree("ckpt")


def files_and_times(*folders: str) -> dict:
    paths = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def same_as(ended: Path) -> bool:
    """Whether run a here has the weights of the uncut one, to the bit, its choice and its dev losses."""
    import contextlib

    with contextlib.chdir(ended):
        whole, choice = weights("a"), [meta("a")[key] for key in ("dev", "dev_curve", "best")]
    here = weights("a")
    losses = [Path(folder, "results/a/dev_losses.jsonl").read_bytes() for folder in (ended, ".")]
    return (
        whole.keys() == here.keys()
        and all(torch.equal(whole[name], here[name]) for name in whole)
        and choice == [meta("a")[key] for key in ("dev", "dev_curve", "best")]
        and losses[0] == losses[1]
    )


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
    long_flags += ["--save_total_limit", "1"]
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
    assert [path.name for path in complete_checkpoints(Path("results/a"))] == ["checkpoint-4", "checkpoint-12"]
    monkeypatch.setattr(trainer.ThoughtTrainer, "training_step", lambda *_: pytest.fail("a step was trained"))
    assert train.run([*long_flags, "--resume"]) == 0 and meta("a")["best"]["step"] == 4


@pytest.mark.parametrize("limit, kept, left", [(2, {4, 20}, [4, 20]), (3, {4, 20}, [4, 16, 20]), (1, {4, 20}, [4, 20])])
def test_limit_counts_the_best_checkpoint(tmp_path, limit, kept, left):
    """--save_total_limit K keeps K checkpoints, however old the best is, and at least the best and the newest."""
    for step in (4, 8, 12, 16, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    trainer.forget_checkpoints(tmp_path, limit, kept)
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
# What a checkpoint must have

FAULTS = {
    "lost": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "another of the same size": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", [*NEEDED, "rng_state.pth"])
@pytest.mark.parametrize("fault", FAULTS)
def test_checkpoint_that_lost_a_file_is_not_complete(there, name, fault):
    """A checkpoint is complete where all is there that was written; else the file is named, and it is not gone on
    from."""
    cut_at(12)
    for step in (4, 8, 12):
        FAULTS[fault](Path(f"results/a/checkpoint-{step}", name))
    with pytest.raises(InputError) as error:
        train.run(there)
    one_line(error, "--resume: no complete checkpoint in results/a", f"results/a/checkpoint-12/{name}: ")


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"files": 5}', '{"files": {}}', '{"files": {"optimizer.pt": {}}}', "[" * 10**5]
)
def test_record_of_a_checkpoint_that_says_nothing_is_none(there, text):
    """`complete` itself must be what train.py writes: without it, or with another, nothing is known to be there."""
    path = Path("results/a/checkpoint-12", COMPLETE)
    path.unlink() if text is None else path.write_text(text)
    fault = fault_of(path.parent)
    assert fault.startswith(str(path)) and "\n" not in fault
    with pytest.raises(InputError):
        check_resume_checkpoint(path.parent)
    assert train.newest_checkpoint(Path("results/a")).name == "checkpoint-8"


@pytest.mark.parametrize("name", NEEDED)
def test_record_without_a_file_that_is_needed_is_refused(there, name):
    """`complete` names all that every resume checkpoint has; an evaluation asks for the two files that it reads."""
    path = Path("results/a/checkpoint-12", COMPLETE)
    files = json.loads(path.read_text())["files"]
    path.write_text(json.dumps({"files": {other: files[other] for other in files if other != name}}))
    assert fault_of(path.parent) == f"{path}: names no {name}, which every resume checkpoint has"
    if name in (RESUME_FILE, META_FILE):
        with pytest.raises(InputError, match=f"names no {name}"):
            check_resume_checkpoint(path.parent, to_evaluate=True)
    else:
        check_resume_checkpoint(path.parent, to_evaluate=True)


def test_damaged_checkpoint_is_named_and_the_one_before_gone_on_from(there, ended, capsys):
    """A run whose newest checkpoint is damaged goes on from the one before, says so, and ends with the same weights."""
    cut_at(8)
    Path("results/a/checkpoint-8/optimizer.pt").unlink()
    assert train.run(there) == 0
    note = "note: results/a/checkpoint-8/optimizer.pt: no such file; the checkpoint had it when it was written"
    assert capsys.readouterr().out.count(f"{note}; going on from results/a/checkpoint-4\n") == 1
    assert same_as(ended)


def test_best_checkpoint_that_is_lost_is_not_replaced_by_the_last(there, monkeypatch):
    """Without the best checkpoint so far a run is not gone on from: its end would have other weights."""
    cut_at(12)
    best = json.loads(Path("results/a/checkpoint-12/trainer_state.json").read_text())["best_global_step"]
    shutil.rmtree(f"results/a/checkpoint-{best}")
    newest = train.newest_checkpoint(Path("results/a"))
    assert newest is None or json.loads((newest / "trainer_state.json").read_text())["best_global_step"] != best


@pytest.mark.parametrize("name", ["rng_state.pth", "optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_evaluation_asks_for_what_it_reads(there, name):
    """A checkpoint that lost what only training reads is evaluated; so is one of an earlier version, with an empty
    `complete`. Weights that are not those that were written are refused."""
    folder = Path("results/a/checkpoint-12")
    Path(folder, name).unlink()
    check_resume_checkpoint(folder, to_evaluate=True)
    path = folder / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(InputError, match="model.safetensors: not the file that was written"):
        check_resume_checkpoint(folder, to_evaluate=True)
    (folder / COMPLETE).write_text("")
    check_resume_checkpoint(folder, to_evaluate=True)


def test_run_of_an_earlier_version_is_refused_in_words(there):
    """--resume says of checkpoints with an empty `complete` whose they are, and what to do."""
    cut_at(12)
    for path in Path("results/a").glob("checkpoint-*/complete"):
        path.write_text("")
    with pytest.raises(InputError) as error:
        train.run(there)
    one_line(
        error, "checkpoint-12/complete: empty, of an earlier version of train.py", "weights in ckpt/ go on to work"
    )


def test_fresh_run_removes_what_a_killed_one_left_and_nothing_else(long_flags, monkeypatch):
    """A fresh run removes its own half-written checkpoints. A folder of another program, or a link, is refused, and
    stays."""
    foreign, own = Path("results/a/checkpoint-7"), Path("results/a/checkpoint-8")
    own.mkdir(parents=True)
    for name in (folders.WRITING, "model.safetensors"):
        (own / name).touch()
    Path("results/a/checkpoint-9").mkdir()  # killed before it was marked
    Path("elsewhere").mkdir()
    Path("elsewhere/weights").touch()
    for make in (
        lambda: shutil.copytree("elsewhere", foreign),
        lambda: foreign.symlink_to(Path("elsewhere").resolve()),
    ):
        make()
        with pytest.raises(InputError) as error:
            train.run(long_flags)
        one_line(error, "results/a/checkpoint-7: not this run's; use another --output_name")
        assert Path(foreign, "weights").exists() and own.exists()
        foreign.unlink() if foreign.is_symlink() else shutil.rmtree(foreign)
    monkeypatch.setattr(trainer.ThoughtTrainer, "train", lambda *_, **__: (_ for _ in ()).throw(InputError("here")))
    with pytest.raises(InputError, match="here"):
        train.run(long_flags)
    assert not list(Path("results/a").glob("checkpoint-*"))


def test_checkpoint_that_is_a_link_is_left_alone(there, ended):
    """A checkpoint's folder that is a link is none: what it leads to stays as it is, also where its turn to be removed
    or written comes."""
    cut_at(8)
    shutil.copytree("results/a/checkpoint-4", "elsewhere")
    before = files_and_times("elsewhere")
    for step in (2, 12):
        Path(f"results/a/checkpoint-{step}").symlink_to(Path("elsewhere").resolve())
    assert train.run([*there, "--save_total_limit", "1"]) == 0
    assert same_as(ended) and files_and_times("elsewhere") == before


def test_fresh_run_sees_weights_that_a_kill_left_between_two_renames(there):
    """ckpt/NAME.old without ckpt/NAME is weights that are there already."""
    shutil.rmtree("results")
    (final,) = Path("ckpt").iterdir()
    final.rename(f"{final}.old")
    with pytest.raises(InputError, match=r"\.old is there already: --resume goes on"):
        train.run(there[:-1])


def test_fresh_run_does_not_start_over_a_damaged_one(there):
    """Without --resume a run does not begin where checkpoints are, damaged or not."""
    cut_at(12)
    for path in Path("results/a").glob("checkpoint-*/optimizer.pt"):
        path.unlink()
    with pytest.raises(InputError, match="results/a/checkpoint-12 is there already: --resume goes on"):
        train.run(there[:-1])


def test_large_file_of_another_model_is_named_when_it_is_read(there, monkeypatch):
    """A file without a digest, of the right size but of another model, is one line when the library reads it."""
    cut_at(8)
    monkeypatch.setattr("lta_thinker.checkpoint.SMALL", 0)
    for name in ("optimizer.pt", "model.safetensors"):
        path = Path("results/a/checkpoint-8", name)
        whole = path.read_bytes()
        path.write_bytes(bytes(len(whole)))
        record = json.loads((path.parent / COMPLETE).read_text())
        for facts in record["files"].values():
            facts["sha256"] = None
        (path.parent / COMPLETE).write_text(json.dumps(record))
        with pytest.raises(InputError) as error:
            train.run(there)
        one_line(error, f"results/a/checkpoint-8: its {name}", "cannot be gone on from")
        path.write_bytes(whole)


SETTINGS = {
    "{": "flags.json: not JSON",
    "[]": "flags.json: not a JSON object",
    "{}": "flags.json: has no starts",
    '{"starts": []}': "flags.json: has no start",
    '{"starts": 5}': "flags.json: starts: is 5, not list",
    '{"starts": [{"versions": {"torch": 2}, "flags": {}}]}': "flags.json: starts[0]: versions.torch: is 2, not str",
    '{"starts": [{"versions": {}, "flags": {}}]}': "flags.json: has no ",
}


@pytest.mark.parametrize("text", SETTINGS)
def test_foreign_flags_of_a_run_are_named(there, text):
    """flags.json that train.py did not write is named before anything is loaded."""
    cut_at(8)
    Path("results/a/flags.json").write_text(text)
    with pytest.raises(InputError) as error:
        train.run(there)
    one_line(error, SETTINGS[text])


@pytest.mark.parametrize("line", ["x", "5", '{"step": 1}', '{"step": "1", "nats": []}', '{"step": 1, "nats": [NaN]}'])
def test_foreign_dev_losses_are_named(there, line):
    """A line of dev_losses.jsonl that train.py did not write is named by its number before anything is loaded."""
    cut_at(8)
    with open("results/a/dev_losses.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError) as error:
        train.run(there)
    one_line(error, "results/a/dev_losses.jsonl:4: ", "remove it")


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
    "weights": (safetensors.torch, "save_file", 1, safetensors.SafetensorError("I/O error: No space left on device")),
    "optimizer": (torch, "save", 5, BROKEN_WRITE),
    "state": (TrainerState, "save_to_json", 1, NO_ROOM),
    "thoughts.json": (trainer.TrainingRecord, "write", 1, NO_ROOM),
    "complete": (trainer, "write_complete", 1, NO_ROOM),
    "dev losses": (trainer, "write_text", 1, InputError("results/a/dev_losses.jsonl: cannot be written (No room)")),
}


@pytest.mark.parametrize("what", WRITES)
def test_full_disk_keeps_what_is_complete(long_flags, ended, monkeypatch, what):
    """Where a checkpoint cannot be written to its end, one line says so, the checkpoint before it is whole and nothing
    half-written is left. After room was made the run goes on and ends with the same weights."""
    with monkeypatch.context() as full:
        place, name, after, error = WRITES[what]
        full.setattr(place, name, refusing(getattr(place, name), after, error))
        with pytest.raises(InputError) as raised:
            train.run(long_flags)
    one_line(raised, "results/a/", "cannot be written (")
    complete = [path.name for path in complete_checkpoints(Path("results/a"))]
    assert complete and complete == sorted(path.name for path in Path("results/a").glob("checkpoint-*"))
    assert complete[-1] != "checkpoint-12" and not list(Path().rglob("*.partial"))
    assert train.run([*long_flags, "--resume"]) == 0 and same_as(ended)


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
def test_signal_ends_a_run_with_a_checkpoint(long_flags, ended, monkeypatch, capsys, number):
    """Ctrl-C and SIGHUP end a run as SIGTERM does: the step is finished and saved, and one line says how to go on.
    Resumed, the run ends with the same weights."""
    monkeypatch.setattr(sys, "argv", ["train.py", *long_flags])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        raising_at(patch, 6, [number])
        train.main()
    assert stop.value.code == 128 + number
    line = f"stopped by {number.name} after step 6: --resume goes on from results/a/checkpoint-6\n"
    assert line in capsys.readouterr().out
    assert train.run([*long_flags, "--resume"]) == 0 and same_as(ended)


def test_second_interrupt_stops_at_once(long_flags, monkeypatch, capsys):
    """A second Ctrl-C stops a run in the middle of its step, with one line; what was saved is kept."""
    monkeypatch.setattr(sys, "argv", ["train.py", *long_flags])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        raising_at(patch, 6, [signal.SIGINT, signal.SIGINT])
        train.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"stopped by SIGINT: {train.KEPT}"
    assert train.newest_checkpoint(Path("results/a")).name == "checkpoint-4"


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


def test_log_off_its_grid_has_the_losses_of_its_steps(long_flags, monkeypatch):
    """A run that goes on between two log lines logs the mean of each loss over the steps since then."""
    train.run([*long_flags, "--output_name", "each"])
    long_flags += ["--logging_steps", "5"]
    with monkeypatch.context() as patch:
        raising_at(patch, 8, [signal.SIGTERM])
        train.run(long_flags)
    train.run([*long_flags, "--resume"])
    each = {log["step"]: log for log in logs("each") if "loss" in log}
    (ten,) = [log for log in logs("a") if "loss" in log and log["step"] == 10]
    for name in ("loss", "sft_loss", "align_loss", "focus_loss"):
        assert ten[name] == pytest.approx((each[9][name] + each[10][name]) / 2, abs=1e-4)
