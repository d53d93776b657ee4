"""What is not finite is named: a frozen LM, the thoughts, a loss, the gradient. The learning rate is blamed only where
it can be at fault."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from helpers import one_line
from safetensors.torch import load_file, save_file

from lta_thinker import model, train
from lta_thinker.common import InputError
from lta_thinker.training import trainer

SLOWER, UNTRAINED = "try a lower --learning_rate", "nothing was trained yet"


@pytest.fixture
def run_on(tiny_pair, flags, tmp_path):
    """Train on a copy of the tiny pair, some of whose weights are NaN -> the error."""

    def run(role: str, tensors: tuple[str, ...], *more: str):
        shutil.copytree(tiny_pair, tmp_path / "pair")
        path = tmp_path / "pair" / role / "model.safetensors"
        weights = load_file(path)
        for name in tensors:
            weights[name][-8:] = math.nan
        save_file(weights, path, metadata={"format": "pt"})
        pair = ["--large_model_id", "pair/large", "--small_model_id", "pair/small"]
        with pytest.raises(InputError) as error:
            train.run([*flags, *pair, "--output_name", "x", *more])
        return error

    return run


HEAD, NORM = ("lm_head.weight",), ("model.norm.weight",)
LMS = {  # what is NaN -> (LM, tensors, flags, what the line says)
    "the LLM's head": ("large", HEAD, [], "step 1: the large LLM's logits (the SFT loss) were not finite"),
    "the small LM": ("small", NORM, ["--k_shot", "4"], "the small LM's states of some rows are not finite"),
    "the small LM, without the file": (
        "small",
        NORM,
        ["--no_thought_cache"],
        "step 1: the small LM's states were not finite",
    ),
    "rows of the LLM's embeddings": (
        "large",
        ("model.embed_tokens.weight",),
        ["--thought_generator", "block"],
        "the weight generator.prior holds values that are not finite; it starts as rows of the large LLM's embedding",
    ),
}


@pytest.mark.parametrize("what", LMS)
def test_frozen_lm_that_is_not_finite_is_named(run_on, what):
    """NaN from a frozen LM is named as such before a checkpoint is written, and no learning rate is advised."""
    role, tensors, more, line = LMS[what]
    error = run_on(role, tensors, *more)
    one_line(error, line)
    assert SLOWER not in str(error.value)
    assert not list(Path("results/x").glob("checkpoint-*")) and not any(Path("ckpt").iterdir())


def nan_from(call, after: int):
    """`call`, whose result is NaN from its call number `after` on."""
    calls = []

    def spoilt(*args, **kwargs):
        calls.append(1)
        result = call(*args, **kwargs)
        if len(calls) <= after:
            return result
        if isinstance(result, dict):
            return {name: value * math.nan for name, value in result.items()}
        if isinstance(result, tuple):
            return tuple(value * math.nan for value in result)
        return result * math.nan

    return spoilt


PLACES = {  # a step has two micro-batches: what is NaN from which call on
    "the thoughts": (model.SmallBlock, "forward", 4, "step 2: the thoughts were not finite, though the small LM's"),
    "the SFT loss": (model, "target_cross_entropy", 2, "step 2: the large LLM's logits (the SFT loss) were not finite"),
    "the align loss": (model, "semantic_alignment", 2, "step 2: the align loss was not finite, though the thoughts"),
    "the focus loss": (model, "reasoning_focus", 2, "step 2: the focus loss was not finite, though the thoughts were"),
    "the gradient": (trainer, "gradient_norms", 1, "step 2: the gradient was not finite, though the losses were"),
}


@pytest.mark.parametrize("what", PLACES)
def test_first_that_is_not_finite_is_named_with_its_step(flags, monkeypatch, what):
    """In training the first quantity that was not finite is named with its step, though the log comes later and all
    that follows is not finite either."""
    place, name, after, line = PLACES[what]
    monkeypatch.setattr(place, name, nan_from(getattr(place, name), after))
    with pytest.raises(InputError) as error:
        train.run([*flags, "--output_name", "x", "--logging_steps", "3", "--k_shot", "16"])
    one_line(error, line, SLOWER)
    assert not list(Path("results/x").glob("checkpoint-*"))


def test_first_step_blames_no_learning_rate(flags, monkeypatch):
    """What is not finite before anything was trained is not the learning rate's fault."""
    monkeypatch.setattr(model, "semantic_alignment", nan_from(model.semantic_alignment, 0))
    with pytest.raises(InputError) as error:
        train.run([*flags, "--output_name", "x"])
    one_line(error, "step 1: the align loss", UNTRAINED)


def test_thoughts_of_the_llm_itself_are_named(flags, monkeypatch):
    """Where the LLM makes the thoughts no other states come before them, and the LLM, which is tuned, is named."""
    make = model.Coconut.forward

    def spoilt(*args):
        thoughts, before = make(*args)
        return thoughts * math.nan, before

    monkeypatch.setattr(model.Coconut, "forward", spoilt)
    coconut = "--thought_generator coconut --tune_base_model --coconut_stages 1 --thoughts_per_step 4"
    coconut += " --max_steps -1 --n_epochs 3 --output_name x"
    alone = "--align_loss_weight 0 --focus_loss_weight 0"
    with pytest.raises(InputError) as error:
        train.run([*flags, *coconut.split(), *alone.split()])
    one_line(error, "step 1: the thoughts, which the LLM makes, were not finite", UNTRAINED)


def test_dev_that_is_not_finite_is_named(flags, monkeypatch):
    """What is not finite on dev alone is named, also with another question's thoughts, and no figure is written."""
    monkeypatch.setattr(model.LatentThoughtModel, "target_losses", nan_from(model.LatentThoughtModel.target_losses, 0))
    with pytest.raises(InputError) as error:
        train.run([*flags, "--output_name", "x", "--max_steps", "1"])
    one_line(error, "the large LLM's logits (the SFT loss) were not finite")
    assert not Path("results/x/dev_losses.jsonl").exists()


def test_nothing_waits_for_the_device_between_logs(flags, monkeypatch):
    """The look at every step's values asks for none of them: the run asks at a log, a dev evaluation, a checkpoint."""
    asked, check = [], trainer.Finite.check
    monkeypatch.setattr(trainer.Finite, "check", lambda self: asked.append(1) or check(self))
    train.run([*flags, "--output_name", "x", "--max_steps", "2", "--logging_steps", "2"])
    assert len(asked) == 4  # the log, before and after the dev evaluation, the checkpoint
    state = json.loads(Path("results/x/trainer_state.json").read_text())
    assert all(torch.isfinite(torch.tensor(value)) for log in state["log_history"] for value in log.values())
