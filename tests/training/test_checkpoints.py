"""What a resume checkpoint must have, and what a run goes on from."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import cut_at, files_and_times, meta, one_line, same_as, weights

from lta_thinker import train
from lta_thinker.checkpoint import (
    COMPLETE,
    META_FILE,
    NEEDED,
    RESUME_FILE,
    beside,
    check_resume_checkpoint,
    fault_of,
    write_complete,
)
from lta_thinker.common import InputError
from lta_thinker.flags import parse_flags
from lta_thinker.training import folders, trainer
from lta_thinker.training.flags import TrainArguments

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


OTHERS = {  # a key of a checkpoint's thoughts.json -> its change, what is said
    "fingerprints": (lambda both: ["0" * 32, both[1]], "large: not the weights"),
    "known_states": (lambda both: [both[0], "1" + both[1]], "small: its weights are those of the training, what it"),
    "tokens": (lambda both: [both[0], "0" * 16], "small: not the tokenizer or chat template"),
    "flags": (lambda flags: flags | {"learning_rate": 0.5}, "is of a run that was started with learning_rate = 0.5"),
    "rows": (
        lambda rows: rows | {"dev": rows["dev"] | {"sha256": "0" * 64}},
        "is of a run that was started with dev_sha256",
    ),
}


@pytest.mark.parametrize(
    ("key", "step"),
    [("fingerprints", 8), ("fingerprints", 12), ("known_states", 12), ("tokens", 8), ("flags", 12), ("rows", 8)],
)
def test_checkpoint_of_other_lms_or_of_another_run_is_not_gone_on_from(there, key, step):
    """A run goes on with the LMs, the flags and the rows of its checkpoint alone, also where only ckpt/ is left to
    write; else the record of its weights would lie."""
    cut_at(step)
    folder, (change, said) = Path(f"results/a/checkpoint-{step}"), OTHERS[key]
    record = json.loads((folder / META_FILE).read_text())
    (folder / META_FILE).write_text(json.dumps(record | {key: change(record[key])}))
    write_complete(folder)
    with pytest.raises(InputError) as error:
        train.run(there)
    one_line(error, "--resume: ", said)
    assert not Path("ckpt").exists() or not list(Path("ckpt").iterdir())


def test_run_that_began_with_weights_goes_on(flags, ended, tmp_path):
    """A run that was started from weights is gone on with, with their flags or without, and its record names them.
    Other weights than those are refused."""
    (given,) = (ended / "ckpt").iterdir()
    files = [
        "--params_file_name",
        str(given / "projection.bin"),
        "--att_file_name",
        str(given / "TransformerBlock.bin"),
    ]
    flags += ["--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "1", "--gradient_accumulation_steps", "1"]
    flags += ["--output_name", "a"]
    train.run([*flags, *files])
    whole, record, (final,) = weights("a"), meta("a"), Path("ckpt").iterdir()
    for again in ([], files):
        shutil.rmtree("results/a/checkpoint-2")
        shutil.rmtree(final)
        train.run([*flags, *again, "--resume"])
        now = weights("a")
        assert now.keys() == whole.keys() and all(torch.equal(now[name], whole[name]) for name in whole)
        assert meta("a")["flags"] == record["flags"] and record["flags"]["params_file_name"] == files[1]
        train.run([*flags, *again, "--resume"])  # it has ended
    with pytest.raises(InputError, match="params_file_name = .*projection.bin, not other.bin"):
        train.run([*flags, files[0], "other.bin", *files[2:], "--resume"])


def test_only_files_of_this_program_are_replaced_or_removed(there, ended):
    """A copy beside ckpt/NAME, notes in it and files beside the kept states stay, whatever they are called."""
    cut_at(12)
    (final,) = (ended / "ckpt").iterdir()
    mine = [f"ckpt/{final.name}.old/notes.txt", f"ckpt/{final.name}.partial/notes.txt"]
    mine += [
        "results/a/states-mine-node-notes.txt",
        "results/a/states-of-node.md",
        "results/a/states-x-node0/notes.txt",
    ]
    for name in mine:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("mine")
    here = Path("ckpt", final.name)
    assert train.run(there) == 0 and (here / "projection.bin").read_bytes() == (final / "projection.bin").read_bytes()
    assert all(Path(name).read_text() == "mine" for name in mine)
    (here / "notes.txt").write_text("mine")
    (here / "projection.bin").unlink()
    with pytest.raises(InputError, match="has notes.txt in it, which would be lost; move it away"):
        train.run(there)
    assert (here / "notes.txt").read_text() == "mine"


def test_damaged_checkpoint_is_named_and_the_one_before_gone_on_from(there, ended, capsys):
    """A run whose newest checkpoint is damaged goes on from the one before, says so, and ends with the same weights."""
    cut_at(12)
    Path("results/a/checkpoint-12/optimizer.pt").unlink()
    assert train.run(there) == 0
    note = "note: results/a/checkpoint-12/optimizer.pt: no such file; the checkpoint had it when it was written"
    printed = capsys.readouterr().out
    assert printed.count(f"{note}; going on from results/a/checkpoint-8\n") == 1 and printed.count("note: ") == 1
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
    """ckpt/.NAME.old without ckpt/NAME is weights that are there already."""
    shutil.rmtree("results")
    (final,) = Path("ckpt").iterdir()
    final.rename(beside(final, "old"))
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


def test_dev_losses_are_a_checkpoints(there):
    """Of dev_losses.jsonl the lines up to the checkpoint's step count: none of a fresh run, none without a file."""
    args = parse_flags(TrainArguments, there, "train.py")
    assert {*folders.read_dev_losses(args, Path("results/a/checkpoint-8"))} == {4, 8}
    assert folders.read_dev_losses(args, None) == {}
    Path("results/a/dev_losses.jsonl").unlink()
    assert folders.read_dev_losses(args, Path("results/a/checkpoint-8")) == {}
