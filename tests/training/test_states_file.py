"""The file of the small LM's states: a half-filled or foreign one is never read, and every node has its own."""

import errno
import functools
import json
import math
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import EXAMPLES, one_line

from lta_thinker import train
from lta_thinker.common import InputError, Ranks
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.training import states

ALONE = Ranks(0, 1, 0, 1, False)


@pytest.fixture
def keep(tiny_models, tmp_path, monkeypatch):
    """Keep the states of EXAMPLES -> (the rows, how many batches were computed)."""
    computed, fill = [], states.fill
    monkeypatch.setattr(states, "fill", lambda *args: computed.append(1) or fill(*args))
    layout = tiny_models.layout_for("small_block")
    rows = [layout.training(example) for example in EXAMPLES]

    def keep(change=lambda model: None, digest="1"):
        model = tiny_models.model("small_block")
        change(model)
        path, collator = tmp_path / "states-train-node0.bin", TrainingCollator(layout, steps=True)
        kept = states.keep_states(model, rows, digest, collator, path, ALONE, quiet=True)
        return kept, len(computed)

    return keep


def test_other_slot_token_makes_other_states(keep):
    """The token that the small LM reads at the slots decides the states: with another one they are made anew."""
    first, _ = keep()
    first = first.store.clone()
    other, count = keep(lambda model: model.slot_ids.__setitem__(0, 5))
    assert count == 2 and not torch.equal(first, other.store)


def test_half_filled_file_is_no_file_of_the_run_before(keep, monkeypatch):
    """A run that is killed while it fills the file of another run leaves none that could be taken for that run's."""
    whole = keep()[0].store.clone()

    def killed(kept, *_):
        kept.store.zero_()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(states, "fill", killed)
        keep(digest="2")
    again, count = keep()
    assert torch.equal(again.store, whole) and count == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": "1"}', "\x00", "[" * 10**5])
def test_foreign_key_makes_states_anew(keep, tmp_path, text):
    """What stands beside the states and is not their key makes them anew; it is no error."""
    whole = keep()[0].store.clone()
    (tmp_path / "states-train-node0.json").write_text(text)
    again, count = keep()
    assert count == 2 and torch.equal(again.store, whole)
    assert json.loads((tmp_path / "states-train-node0.json").read_text())["rows"] == "1"


def test_states_that_are_not_finite_are_refused_once(keep, monkeypatch):
    """States that are not finite are refused when they are made, and are not there for the next start."""

    def spoil(model):
        make = model.states
        model.states = lambda batch: tuple(one * math.nan for one in make(batch))

    for _ in range(2):
        with pytest.raises(InputError) as error:
            keep(spoil)
        one_line(error, "states-train-node0.bin: the small LM's states of some rows are not finite")
    assert keep()[1] == 3


def test_key_that_cannot_be_written_is_one_line(keep, tmp_path, monkeypatch):
    """A disk that is full after the states were written leaves no key, so that they are not taken for whole."""

    def full(path, text, **_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(InputError) as error:
        patch.setattr(Path, "write_text", full)
        keep()
    one_line(error, "states-train-node0.json: cannot be written (No space left on device)")
    assert not (tmp_path / "states-train-node0.json").exists()


@pytest.mark.parametrize("sizes", [[1], [2, 2], [1, 3], [3, 1, 2]])
def test_processes_of_a_node_share_a_file_and_nodes_do_not(monkeypatch, sizes):
    """Nodes may have different numbers of processes: those of one node have one file, and no two nodes the same."""
    paths = {}
    monkeypatch.setattr(train, "keep_states", lambda *args: paths.setdefault(args[5], set()).add(args[4]))
    monkeypatch.setattr(train, "replace", lambda rows, **kept: rows)
    args = SimpleNamespace(disable_tqdm=True, run_folder=Path("results/x"))
    rows = SimpleNamespace(counts={"train": SimpleNamespace(sha256="")}, train=[])
    first, of_nodes = 0, []
    for size in sizes:
        for in_node in range(size):
            here = Ranks(first + in_node, sum(sizes), in_node, size, True)
            monkeypatch.setattr(train, "ranks", functools.partial(Ranks, *astuple(here)))
            train.with_states(args, None, rows, {"train": None})
        of_nodes.append(set.union(*(paths[one] for one in paths if first <= one.rank < first + size)))
        first += size
    assert [len(files) for files in of_nodes] == [1] * len(sizes)
    assert len(set.union(*of_nodes)) == len(sizes)


@pytest.mark.parametrize("size", [0, 5, states.ZEROS, states.ZEROS + 3])
def test_room_is_taken_to_the_byte(tmp_path, size):
    """The file is as large as its states: another size would be filled anew at every start."""
    assert states.take_room(tmp_path / "states.bin", size) and (tmp_path / "states.bin").stat().st_size == size


@pytest.mark.parametrize(("steps", "kept"), [(5, False), (6, True), (0, True)])
def test_states_are_kept_where_rows_are_read_again(steps, kept):
    """Within one epoch of steps every row is read once, and nothing is kept: 5 steps of 4 rows are 20 rows."""
    args = SimpleNamespace(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, gpus=None, world_size=1, max_steps=steps,
        num_train_epochs=2, num_thought_chains=1, thoughts_see_steps=False, tune_assistant_model=False,
        thought_generator="small_block",
        thought_cache=True,
    )  # fmt: skip
    assert train.can_keep_states(args, num_rows=20) is kept
