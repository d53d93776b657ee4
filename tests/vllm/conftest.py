"""Of the tests on a real vLLM engine: thoughts that were trained for the toy pair for a few steps."""

import os
from pathlib import Path

import pytest
from helpers import TOY, TOY_DATA


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Thoughts of two chains, made by train.py in 30 steps."""
    from lta_thinker import train

    folder, before = tmp_path_factory.mktemp("train"), os.getcwd()
    os.chdir(folder)
    lms = ("--large_model_id", TOY["large"], "--small_model_id", TOY["small"])
    run = "--output_name vllm --num_thought_tokens 4 --num_thought_chains 2 --batch_size 8 --max_steps 30"
    run += " --gradient_accumulation_steps 1 --learning_rate 2e-3 --k_shot 300 --disable_tqdm True"
    train.run([*lms, *TOY_DATA[:4], *run.split()])
    os.chdir(before)
    [made] = (folder / "ckpt").iterdir()
    return made
