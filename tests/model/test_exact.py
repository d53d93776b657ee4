"""What makes a training step fast changes neither its losses nor its gradients: against the plain path, row by row."""

import errno
import functools
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate.data_loader import SeedableRandomSampler
from helpers import EXAMPLES, meta, plain_z, training_batch, weights
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from lta_thinker import train
from lta_thinker.common import Ranks
from lta_thinker.llm.frozen import LmSource, load_frozen_lm
from lta_thinker.losses import Objective, reasoning_focus, semantic_alignment
from lta_thinker.model import GENERATORS, Design, LatentThoughtModel
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.training import states, trainer

KINDS = [name for name, generator in GENERATORS.items() if not generator.thinks_in_llm]  # test_families.py
SMALL = [name for name, generator in GENERATORS.items() if generator.uses_small_lm]


@functools.cache
def loaded(path, dtype):
    return load_frozen_lm(LmSource(str(path), "", dtype))


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def plain_losses(model, layout, examples, steps):
    """Sums of the losses, each row alone: no padding, no cache, all columns, the library's loss over all logits."""
    sums, llm = Counter(), model.llm
    embed = llm.get_input_embeddings()
    for row in (layout.training(example) for example in examples):
        question = row["question"]
        if model.generator.reads_question:
            z = plain_z(model, model.kind, question, slots=True)
            thoughts, z_question = z[-model.num_thoughts :], z[len(question) - 1]
        else:
            thoughts = model.generator.prior
        prompt = [embed(torch.tensor(row["prefix"])), thoughts.to(llm.dtype), embed(torch.tensor(row["suffix"]))]
        inputs = torch.cat([*prompt, embed(torch.tensor(row["target"]))])[None]
        before = inputs.shape[1] - len(row["target"])
        labels = torch.tensor([[-100] * before + row["target"]])
        sums["sft"] += llm(inputs_embeds=inputs, labels=labels).loss * len(row["target"])
        if model.generator.reads_question:
            sums["align"] += semantic_alignment(z_question[None], thoughts[None]).sum()
        if steps and row["steps"] and model.generator.reads_question:
            z = plain_z(model, model.kind, question + sum(row["steps"], row["header"]), slots=False)
            ends = torch.tensor([len(step) for step in row["steps"]]).cumsum(0) + len(question + row["header"]) - 1
            answer = embed(torch.tensor(row["answer"])).float().mean(0)
            valid = torch.ones(1, len(ends), dtype=torch.bool)
            sums["focus"] += reasoning_focus(z_question[None], z[ends][None], valid, answer[None], 0.1).sum()
    return dict(sums)


def gradients(model, sums):
    trained = list(model.parameters())
    found = torch.autograd.grad(sum(sums.values()), trained, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


@pytest.mark.parametrize(
    ("kept", "steps", "dtype"),  # every pair of two values
    [(False, True, torch.float32), (False, False, torch.bfloat16), (True, True, torch.bfloat16)]
    + [(True, False, torch.float32)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_match_plain_path(tiny_models, tiny_pair, kind, kept, steps, dtype):
    """Losses and gradients of a step are those of the plain path: each row alone, no padding, no cache, all columns.
    That holds with kept states too."""
    if kept and kind not in SMALL:
        pytest.skip("this generator has no small LM whose states could be kept")
    lms = [loaded(tiny_pair / name, dtype) for name in ("large", "small")]
    weights = {"sft": 1.0, "align": float(kind != "prompt"), "focus": float(steps and kind != "prompt")}
    arguments = (kind, lms[0], lms[1] if kind in SMALL else None, 4, 0, Objective(weights | {"diversity": 0.0}))
    torch.manual_seed(0)
    model = LatentThoughtModel(*arguments).train()
    if kind == "small_block":
        torch.nn.init.normal_(model.generator.prior)
    batch = training_batch(tiny_models, kind, steps=steps)
    if kept:
        batch["thought_states"], of_steps = model.states(batch)
        batch |= {"step_states": of_steps} if steps else {}
        model.frozen[1].forward = model.frozen[1].model.forward = None  # whoever calls it fails
    sums = model(**batch)
    if kept:
        del model.frozen[1].forward, model.frozen[1].model.forward
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        expected = plain_losses(model, tiny_models.layout_for(kind), EXAMPLES, steps)
    bar = 1e-5 if dtype == torch.float32 else 2e-2
    assert sums.keys() == expected.keys()
    for name in sums:
        assert relative(sums[name], expected[name]) < bar, name
    assert relative(gradients(model, sums), gradients(model, expected)) < bar


class Calls(TorchDispatchMode):
    """Counts the operators that run, by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function.overloadpacket)] += 1
        return function(*args, **(kwargs or {}))


def calls_of_a_step(model, batch):
    model.zero_grad(set_to_none=True)
    with Calls() as calls:
        sum(model(**batch).values()).backward()
    return calls.counts


# on a GPU each of these makes the processor wait for the device
READS_BACK = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique", "item")


@pytest.mark.parametrize("kind", KINDS)
def test_step_has_no_loop_over_rows(tiny_models, kind):
    """A step runs the same operators for 4 rows and for 16, and none that reads a value back from the device."""
    weights = {"sft": 1.0, "align": float(kind != "prompt"), "focus": float(kind != "prompt"), "diversity": 0.0}
    model = tiny_models.model(kind, weights=weights).train()
    few = calls_of_a_step(model, training_batch(tiny_models, kind, [*EXAMPLES, EXAMPLES[0]]))
    many = calls_of_a_step(model, training_batch(tiny_models, kind, [*EXAMPLES, EXAMPLES[0]] * 4))
    assert few == many and sum(few.values()) > 100
    assert not [name for name in few if name.removeprefix("aten.") in READS_BACK]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_step_never_waits_for_gpu(tiny_models, tiny_pair, kind):
    """On a GPU a step runs without one synchronisation."""
    lms = [load_frozen_lm(LmSource(str(tiny_pair / name), "", torch.bfloat16, "cuda")) for name in ("large", "small")]
    weights = {"sft": 1.0, "align": float(kind != "prompt"), "focus": float(kind != "prompt"), "diversity": 0.0}
    model = LatentThoughtModel(kind, lms[0], lms[1] if kind in SMALL else None, 4, 0, Objective(weights)).cuda().train()
    batch = {name: value.cuda() for name, value in training_batch(tiny_models, kind).items()}
    sum(model(**batch).values()).backward()  # libraries set themselves up
    try:
        torch.cuda.set_sync_debug_mode("error")
        sum(model(**batch).values()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_prefix_is_read_once_without_gradients(tiny_models):
    """The LLM reads the prefix once, without gradients, and then the thoughts and the suffix with them."""
    model, passes = tiny_models.model("block").train(), []
    layer = model.llm.model.layers[0]
    hook = layer.register_forward_pre_hook(lambda _, args: passes.append((args[0].shape[1], torch.is_grad_enabled())))
    batch = training_batch(tiny_models, "block")
    model(**batch)
    hook.remove()
    assert passes == [(batch["prefix_ids"].shape[1], False), (4 + batch["suffix_ids"].shape[1], True)]


def test_ranks_send_only_trained_gradients(tiny_models):
    """Ranks send each other the gradients of the generator in float32, and nothing else."""
    model, sent = tiny_models.model("small_block").train(), []
    assert not list(model.buffers())  # they would be sent in every forward pass

    def count(_, bucket):
        sent.append(bucket.buffer().numel() * bucket.buffer().element_size())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        wrapped = DistributedDataParallel(model)
        wrapped.register_comm_hook(None, count)
        sum(wrapped(**training_batch(tiny_models, "small_block")).values()).backward()
    finally:
        dist.destroy_process_group()
    assert sum(sent) == sum(p.numel() * 4 for p in model.generator.parameters())


# ---------------------------------------------------------------------------------------------------------------------
# Rows of similar length


def test_sorting_by_length_keeps_step_rows():
    """Sorting rows by length within a step keeps the rows of each step and of the epoch."""
    lengths = [(7 * i) % 23 + 5 for i in range(50)]
    for epoch in (0, 1):
        plain, inner = (SeedableRandomSampler(lengths, data_seed=3) for _ in range(2))
        sampler = trainer.ByLengthWithinSteps(inner, lengths, step_rows=8)
        plain.set_epoch(epoch)
        sampler.set_epoch(epoch)
        expected, order = [*plain], [*sampler]
        assert sorted(order) == [*range(50)] and len(sampler) == 50
        for start in range(0, 50, 8):
            step = order[start : start + 8]
            assert sorted(step) == sorted(expected[start : start + 8])
            assert [lengths[row] for row in step] == sorted((lengths[row] for row in step), reverse=True)


def test_sorting_lowers_the_padding_share(flags, capsys):
    """The padding share is the one worked out by hand, and sorting rows by length lowers it."""
    widths = [(2, 3), (4, 3), (1, 10), (2, 2)]
    assert trainer.padding_share(widths, [0, 1, 2, 3], 2) == pytest.approx(1 - 27 / (2 * 7 + 2 * 12))
    train.run([*flags, "--output_name", "shares", "--max_steps", "1"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "padding:" in line]
    ours, random = (float(share) for share in re.findall(r"([\d.]+)%", line))
    assert 0 < ours < random


# ---------------------------------------------------------------------------------------------------------------------
# The small LM's states


TWICE = ("--max_steps", "-1", "--n_epochs", "2", "--k_shot", "4")  # an epoch is a step


@pytest.fixture
def small_lm_calls(monkeypatch):
    """Rows that the small LM read, pass by pass, in runs of this process."""
    rows, read = [], LatentThoughtModel._read
    monkeypatch.setattr(
        LatentThoughtModel, "_read", lambda self, ids, mask: (rows.append(len(ids)), read(self, ids, mask))[1]
    )
    return rows


@pytest.mark.parametrize("kind", SMALL)
def test_kept_states_train_same_weights(flags, capsys, small_lm_calls, kind):
    """Kept states of the small LM train the weights that states made anew in every step train, and each row is read
    once. A finished run leaves no file of them."""
    argv = [*flags, *TWICE, "--thought_generator", kind]
    train.run([*argv, "--output_name", "kept"])
    read, told = sum(small_lm_calls), capsys.readouterr().out
    assert read == 2 * (4 + 2), "each row once before its slots and once before its steps"
    assert "states-train-node0.bin" in told and " GB while the run lasts" in told
    assert not list(Path("results/kept").glob("states-*")), "a finished run leaves none behind"
    train.run([*argv, "--output_name", "anew", "--no_thought_cache"])
    assert sum(small_lm_calls) == read + 2 * 2 * (4 + 2), "two epochs"
    kept, anew = weights("kept"), weights("anew")
    # the keys' bias changes nothing in a softmax: its gradient is rounding alone, which Adam makes large
    for name in (name for name in kept if not name.endswith("in_proj_bias")):
        torch.testing.assert_close(kept[name], anew[name], atol=1e-6, rtol=1e-5)
    curves = [[point["eval_loss"] for point in meta(name)["dev_curve"]] for name in ("kept", "anew")]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_states_read_once_are_not_kept(flags, capsys):
    """States that are read only once, or that differ from step to step, are not kept."""
    flags += [*TWICE, "--output_name", "unkept"]

    def kept(*more):
        return states.can_keep_states(train.parse_flags(train.TrainArguments, [*flags, *more], "train.py"), num_rows=4)

    once = ["--max_steps", "1"]
    assert kept() and not kept(*once) and not kept("--n_epochs", "1")
    assert not kept("--num_thought_chains", "2") and not kept("--thoughts_see_steps")
    train.run([*flags, *once])
    assert "states-train" not in capsys.readouterr().out


def keep(tiny_models, folder, digest="1", here=Ranks(0, 1, 0, 1, False), **model):  # noqa: B008
    layout = tiny_models.layout_for("small_block")
    rows = [layout.training(example) for example in EXAMPLES]
    collator, path = TrainingCollator(layout, steps=True), folder / "states-train-node0.bin"
    return states.keep_states(tiny_models.model("small_block", **model), rows, digest, collator, path, here, quiet=True)


def test_states_serve_same_model_and_rows(tiny_models, tmp_path, small_lm_calls):
    """States on disk serve the same model and rows again. Unfinished or cut files, other rows and another model make
    them anew."""
    keep(tiny_models, tmp_path)
    assert sum(small_lm_calls) == 6
    again = keep(tiny_models, tmp_path)
    assert sum(small_lm_calls) == 6, "a run that goes on computes nothing anew"
    (tmp_path / "states-train-node0.json").unlink()  # killed while they were made
    assert torch.equal(keep(tiny_models, tmp_path).store, again.store) and sum(small_lm_calls) == 12
    with open(tmp_path / "states-train-node0.bin", "r+b") as file:
        file.truncate(100)
    assert torch.equal(keep(tiny_models, tmp_path).store, again.store) and sum(small_lm_calls) == 18
    keep(tiny_models, tmp_path, digest="2")
    keep(tiny_models, tmp_path, digest="2", num_thoughts=3)
    assert sum(small_lm_calls) == 30
    keep(tiny_models, tmp_path, digest="2", num_thoughts=3, design=Design(distinct_slot_ids=True))
    assert sum(small_lm_calls) == 36


def test_states_are_the_rows_own(tiny_models, tmp_path):
    """The states kept for a row are those that the small LM makes for this row alone."""
    kept, model = keep(tiny_models, tmp_path), tiny_models.model("small_block")
    for i, example in enumerate(EXAMPLES):
        thoughts, of_steps = model.states(training_batch(tiny_models, "small_block", [example]))
        torch.testing.assert_close(kept[i]["thought_states"], thoughts[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(kept[i]["step_states"], of_steps[0], atol=1e-5, rtol=0)


def test_node_processes_fill_one_file(tiny_models, tmp_path, monkeypatch, small_lm_calls):
    """The processes of a node fill one file together, and each row is read by one of them."""
    monkeypatch.setattr(states, "ROWS_AT_ONCE", 1)
    (tmp_path / "alone").mkdir()
    expected, meet = keep(tiny_models, tmp_path / "alone"), threading.Barrier(2)

    def together(here):
        meet.wait()
        return here

    monkeypatch.setattr(states, "on_all_ranks", together)
    both = [Ranks(rank, 2, rank, 2, True) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(keep, tiny_models, tmp_path, here=here) for here in both]
        found = [future.result(timeout=60) for future in futures]
    assert all(torch.equal(kept.store, expected.store) for kept in found)
    assert len(small_lm_calls) == 2 * 6, "each row was read by one of them"


@pytest.mark.parametrize("after", [0, 1], ids=["at once", "half-way"])
def test_full_disk_keeps_no_states(tiny_models, tmp_path, monkeypatch, capsys, after):
    """Where the disk has no room, or not for all of a file, a line says so, no states are kept and no file is left."""

    def full(path, mode):
        if after:
            Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(states, "open", full, raising=False)
    assert isinstance(keep(tiny_models, tmp_path), list) and not list(tmp_path.iterdir())
    assert "no room" in capsys.readouterr().out
