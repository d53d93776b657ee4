"""Fixtures of training: a run named a, whose steps are known, and a folder in which it has ended."""

import contextlib
import shutil
from pathlib import Path

import pytest
from helpers import train_flags

from lta_thinker import train

STEPS = ["--max_steps", "12", "--eval_strategy", "steps", "--eval_steps", "4", "--save_total_limit", "9"]
STEPS += ["--gradient_accumulation_steps", "1"]  # transformers 4.53 resumes no epoch that ends in a shorter step


@pytest.fixture
def long_flags(flags):
    """A run named a: 12 steps of 8 an epoch by a schedule that is not linear, a checkpoint every 4."""
    return [*flags, "--k_shot", "16", "--lr_scheduler_type", "cosine", *STEPS, "--output_name", "a"]


@pytest.fixture(scope="session")
def ended(tiny_pair, gsm8k_data, tmp_path_factory) -> Path:
    """The folder in which such a run has ended."""
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
