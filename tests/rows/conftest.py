"""A checkpoint of each task, trained on its sample."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, write_jsonl

from lta_thinker import train

SHORT = ["--num_thought_tokens", "2", "--batch_size", "2", "--gradient_accumulation_steps", "1", "--max_steps", "2"]


@pytest.fixture(scope="session")
def trained_on(tiny_pair, tmp_path_factory) -> Callable[[str], Path]:
    """A task -> the checkpoint of two steps on it, made once. The hub is out of reach: sample rows stand in for train
    and dev."""

    @functools.cache
    def train_on(task: str) -> Path:
        folder = tmp_path_factory.mktemp(task)
        rows = (ROOT / "data" / task / "sample.jsonl").read_text().splitlines()
        write_jsonl(folder / task / "train.jsonl", rows)
        write_jsonl(folder / task / "dev.jsonl", rows[:4])
        with contextlib.chdir(folder):
            pair = ["--large_model_id", str(tiny_pair / "large"), "--small_model_id", str(tiny_pair / "small")]
            train.run([*pair, *SHORT, "--task_name", task, "--data_dir", str(folder), "--output_name", "x"])
        (checkpoint,) = (folder / "ckpt").iterdir()
        return checkpoint

    return train_on
