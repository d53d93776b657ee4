"""Standardized states: what they take from the small LM's states, and the training rows that their figures are of."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import EXAMPLES, N, prompt_batch

import lta_thinker
from lta_thinker import train
from lta_thinker.data_loader import TASKS, load_split
from lta_thinker.model import Design, StandardizedStates


@pytest.mark.parametrize("kind", ["small_block", "small"])
@pytest.mark.parametrize("chains", [1, 2])
def test_standardized_states_have_nothing_in_common(tiny_models, kind, chains):
    """What a generator reads of standardized states has mean 0 and deviation 1 over the rows that they are fitted to:
    of the questions' tokens, and at each slot of each chain. Padding counts nowhere."""
    model = tiny_models.model(kind, design=Design(standardize_states=True, num_chains=chains))
    batch = prompt_batch(tiny_models, kind)
    model.fit_states([batch])
    read, states = [], model.generator.states
    states.register_forward_hook(lambda module, args, out: read.append(out))
    with torch.no_grad():
        model.eval().chain_thoughts(batch["question_ids"], batch["question_mask"])
    mask = batch["question_mask"].repeat_interleave(chains, dim=0).bool()
    tokens, slots = read[0][:, :-N][mask], read[0][:, -N:].unflatten(0, (3, chains))
    for values in (tokens, slots):
        mean, spread = values.mean(0), values.flatten(0, -2).square().mean(0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-3, rtol=0)
        torch.testing.assert_close(spread, torch.ones_like(spread), atol=1e-3, rtol=0)
    fitted = {name: value.clone() for name, value in states.named_buffers()}
    model.fit_states([prompt_batch(tiny_models, kind, [example]) for example in EXAMPLES])
    for name, value in states.named_buffers():
        torch.testing.assert_close(value, fitted[name], atol=1e-4, rtol=1e-3)


def test_features_that_never_differ_become_zero():
    """A feature that is the same everywhere but for rounding is 0 in standardized states, not noise over nothing."""
    states = StandardizedStates(2, num_slots=1)
    values = torch.tensor([[1e3, 1.0], [1e3, 3.0]])
    rounded = torch.tensor([[1e3, 1.0], [torch.nextafter(torch.tensor(1e3), torch.tensor(2e3)), 3.0]])
    states.fit(rounded, rounded[:, None])
    assert states(rounded[None], None, num_slots=0)[..., 0].abs().max() == 0
    assert states(rounded[:, None], None, num_slots=1)[..., 0].abs().max() == 0
    states.fit(values, values[:, None])
    assert states(values[None], None, num_slots=0).tolist() == [[[0.0, -1.0], [0.0, 1.0]]]
    assert states(values[:, None], None, num_slots=1).tolist() == [[[0.0, -1.0]], [[0.0, 1.0]]]


def test_standardized_states_are_fitted_to_training_rows(flags):
    """--standardize_states: the figures in projection.bin are those of the first training rows' tokens and slots, of a
    plain loop over the rows. A resumed run keeps them."""
    flags = [*flags, "--output_name", "run", "--standardize_states"]
    flags += ["--max_steps", "1", "--eval_strategy", "steps", "--eval_steps", "1", "--gradient_accumulation_steps", "1"]
    train.run(flags)
    (folder,) = Path("ckpt").iterdir()
    models = lta_thinker.LatentThoughtModel.from_pretrained(folder).models
    rows = [models.layout.training(row) for row in load_split(TASKS["gsm8k"], "train", flags[5]).examples]
    small_lm, pad, n = models.thoughts.small_lm, models.thoughts.slot_ids[0], models.thoughts.num_thoughts
    with torch.no_grad():
        alone = [small_lm.model(torch.tensor([row["question"] + [pad] * n])).last_hidden_state[0] for row in rows]
    tokens, slots = torch.cat([states[:-n] for states in alone]), torch.stack([states[-n:] for states in alone])
    found = torch.load(folder / "projection.bin")
    torch.testing.assert_close(found["states.mean"], tokens.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(found["states.scale"], 1 / tokens.std(0, correction=0), atol=0, rtol=1e-3)
    torch.testing.assert_close(found["states.slot_mean"], slots.mean(0), atol=1e-5, rtol=0)
    spread = (slots - slots.mean(0)).flatten(0, 1).square().mean(0).sqrt()
    torch.testing.assert_close(found["states.slot_scale"], 1 / spread, atol=0, rtol=1e-3)
    shutil.rmtree(folder)
    train.run([*flags, "--resume"])
    again = torch.load(folder / "projection.bin")
    assert all(torch.equal(value, again[name]) for name, value in found.items())
