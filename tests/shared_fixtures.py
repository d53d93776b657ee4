"""Fixtures of the whole suite: two tiny random Qwen3 models on disk, the same loaded, and a small GSM8K data folder."""

import contextlib
import gc
from pathlib import Path

import pytest
import torch
from helpers import (
    SENTENCES,
    TinyModels,
    byte_level_tokenizer,
    gsm8k_row,
    save_tiny_model,
    train_flags,
    write_jsonl,
)

from lta_thinker.model import GENERATORS

torch.set_num_threads(1)


def pytest_collection_finish():
    """The garbage collector, which Trainer calls in each run, need not look through all objects of the libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_folder():
    """A test that leaves the session in its own folder is at fault, not one that finds no folder later."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory) -> Path:
    """Folder with `large/` (d 32, untied head) and `small/` (d 16, tied): tiny Qwen3 models, own tokenizers."""
    folder = tmp_path_factory.mktemp("tiny_pair")
    shape = {"head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    large = byte_level_tokenizer(400, True, SENTENCES)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "tie_word_embeddings": False}
    save_tiny_model(folder / "large", large, seed=1, **sizes, **shape)
    small = byte_level_tokenizer(350, False, SENTENCES[::-1])
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "tie_word_embeddings": True}
    save_tiny_model(folder / "small", small, seed=2, **sizes, **shape)
    return folder


@pytest.fixture(scope="session")
def tiny_models(tiny_pair) -> TinyModels:
    """The tiny pair loaded once for the session: nothing in it may be changed by a test."""
    from lta_thinker.data_loader import PROMPTS
    from lta_thinker.llm.frozen import LmSource, load_frozen_lm, load_tokenizer
    from lta_thinker.rows.layout import Layout

    large, small = str(tiny_pair / "large"), str(tiny_pair / "small")
    tokenizers = (
        load_tokenizer(LmSource(large, "--large_model_id")),
        load_tokenizer(LmSource(small, "--small_model_id")),
    )
    return TinyModels(
        load_frozen_lm(LmSource(large, "--large_model_id")),
        load_frozen_lm(LmSource(small, "--small_model_id")),
        *tokenizers,
        Layout(*tokenizers, PROMPTS["number"]),
    )


@pytest.fixture(params=[name for name, generator in GENERATORS.items() if generator.has_z])
def kind(request) -> str:
    """Every thought generator that makes z of the question. Coconut: test_families.py."""
    return request.param


@pytest.fixture(scope="session")
def gsm8k_data(tmp_path_factory) -> Path:
    """A --data_dir with gsm8k/train_socratic.jsonl (40 rows) and gsm8k/test_socratic.jsonl (12 other rows)."""
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "gsm8k" / "train_socratic.jsonl", [gsm8k_row(i) for i in range(40)])
    write_jsonl(folder / "gsm8k" / "test_socratic.jsonl", [gsm8k_row(i) for i in range(40, 52)])
    return folder


@pytest.fixture
def flags(tiny_pair, gsm8k_data, tmp_path, monkeypatch):
    """Flags of a short run of train.py; the run's folders are made in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return train_flags(tiny_pair, gsm8k_data)


@pytest.fixture(scope="session")
def trained(tiny_pair, gsm8k_data, tmp_path_factory) -> Path:
    """What train.py left in ckpt/ after five steps; the run's resume checkpoint is ../../results/run/checkpoint-5."""
    from lta_thinker import train

    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        train.run([*train_flags(tiny_pair, gsm8k_data), "--output_name", "run"])
    (checkpoint,) = (folder / "ckpt").iterdir()
    return checkpoint
