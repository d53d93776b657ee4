"""A model folder is whole or refused: its weights, its generation settings, its tokenizer. Ranks that load in turn."""

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
import transformers
from helpers import ROOT, fails, one_line, pair_flags
from packaging.version import Version
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from lta_thinker import train
from lta_thinker.common import InputError, Ranks
from lta_thinker.llm import sharding
from lta_thinker.llm.embeddings import load_embeddings
from lta_thinker.llm.frozen import (
    LmSource,
    fingerprint,
    load_frozen_lm,
    load_generation_config,
    load_tokenizer,
    num_positions,
)
from lta_thinker.llm.lora import Lora, inject, write_adapter

NORM, LAYER = "model.norm.weight", "model.layers.1."


def change_config(**values):
    def change(folder: Path):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def change_weights(change):
    def write(folder: Path):
        path = folder / "model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path, metadata={"format": "pt"})

    return write


MISFITS = {  # what is done to a model's folder: what is said
    "one tensor fewer": (change_weights(lambda state: state.pop(NORM)), f"its weights have no {NORM};"),
    "one tensor more": (
        change_weights(lambda state: state.update({"model.extra": torch.zeros(2)})),
        "its weights have the unknown model.extra;",
    ),
    "a layer more": (change_config(num_hidden_layers=3, layer_types=["full_attention"] * 3), "have no model.layers.2."),
    "a layer fewer": (change_config(num_hidden_layers=1, layer_types=["full_attention"]), f"have the unknown {LAYER}"),
    "biases": (change_config(attention_bias=True), "have no model.layers.0.self_attn."),
    "a head of its own": (change_config(tie_word_embeddings=False), None),
    "whole numbers": (
        change_weights(lambda state: state.update({NORM: state[NORM].long()})),
        NORM if Version(transformers.__version__) >= Version("5") else "While copying the parameter",
    ),
    "two tables for one": (
        change_weights(lambda state: state.update({"lm_head.weight": state["model.embed_tokens.weight"] + 1})),
        "config.json says that they are one (tie_word_embeddings)",
    ),
    "a size in words": (change_config(max_position_embeddings="many"), "max_position_embeddings"),
    "no positions": (change_config(max_position_embeddings=0), "max_position_embeddings is 0, not a number above 0"),
    "another shape": (change_weights(lambda state: state.update({NORM: torch.ones(3)})), "shape"),
}


@pytest.mark.parametrize("case", MISFITS)
@pytest.mark.parametrize("load", [load_frozen_lm, load_embeddings])
def test_misfitting_weights_are_refused(tiny_pair, tmp_path, case, load):
    """Weights that lack tensors of the LM in config.json, or have others, are refused in one line that names the
    first, of the large LLM and of an engine's embeddings alone."""
    change, said = MISFITS[case]
    name = "small" if case in ("a head of its own", "two tables for one") else "large"  # the small one's head is tied
    shutil.copytree(tiny_pair / name, tmp_path / "lm")
    change(tmp_path / "lm")
    if load is load_embeddings and case == "another shape":
        pytest.skip("only the engine reads the shapes of what it runs")
    if load is load_embeddings and case == "whole numbers":
        said = f"{NORM} holds I64, not floating-point numbers"
    with pytest.raises(InputError) as error:
        load(LmSource(str(tmp_path / "lm"), "--base_model_id"))
    one_line(error, f"--base_model_id {tmp_path / 'lm'}: ", said or "its weights have no lm_head.weight;")


@pytest.mark.parametrize("role", ["large", "small"])
def test_both_scripts_refuse_misfits(flags, tiny_pair, trained, gsm8k_data, tmp_path, role):
    """Training and evaluation refuse them for both LMs, and write nothing."""
    shutil.copytree(tiny_pair / role, tmp_path / role)
    change_weights(lambda state: state.pop(NORM))(tmp_path / role)
    wrong = [*flags, f"--{role}_model_id", str(tmp_path / role), "--output_name", "wrong"]
    with pytest.raises(InputError, match=f"--{role}_model_id .*: its weights have no {NORM};"):
        train.run(wrong)
    assert not Path("ckpt/wrong").exists()
    flag = {"large": "--base_model_id", "small": "--assistant_model_id"}[role]
    said = fails("--checkpoint", trained, flag, tmp_path / role, "--data_dir", gsm8k_data, "--output_dir", "out")
    assert f"{flag} {tmp_path / role}: its weights have no {NORM};" in said
    assert not Path("out/samples.jsonl").exists()


@pytest.mark.parametrize("name", ["large", "small"])
def test_toy_pair_is_whole(name):
    """Tied heads and buffers are nothing that is missing."""
    source = LmSource(str(ROOT / "toy" / name), "--base_model_id")
    assert fingerprint(load_frozen_lm(source)) and load_embeddings(source)


def test_old_buffers_may_be_there(tiny_pair, tmp_path):
    """Weights may have the rotary frequencies of old checkpoints."""
    shutil.copytree(tiny_pair / "large", tmp_path / "lm")
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    change_weights(lambda state: state.update(old))(tmp_path / "lm")
    for load in (load_frozen_lm, load_embeddings):
        load(LmSource(str(tmp_path / "lm"), "--base_model_id"))


BROKEN_SETTINGS = {
    "not JSON": ("{", "not JSON"),
    "empty": ("", "not JSON"),
    "a list": ("[]", "not a JSON object"),
    "zero penalty": ('{"repetition_penalty": 0}', "repetition_penalty is 0"),
    "negative penalty": ('{"repetition_penalty": -1.2}', "repetition_penalty is -1.2"),
    "temperature in words": ('{"temperature": "hot"}', "temperature"),
    "NaN": ('{"temperature": NaN}', ""),
    "infinite": ('{"temperature": 1e999}', ""),
    "negative temperature": ('{"temperature": -0.5, "do_sample": true}', "temperature"),
    "top_p above 1": ('{"top_p": 1.5, "do_sample": true}', "top_p"),
    "half a candidate": ('{"top_k": 2.5, "do_sample": true}', "top_k"),
    "true": ('{"min_p": true}', "min_p is True"),
    "end beyond the vocabulary": ('{"eos_token_id": 400}', "eos_token_id has 400"),
    "one of the ends negative": ('{"eos_token_id": [2, -1]}', "eos_token_id has -1"),
    "end in words": ('{"eos_token_id": "<|im_end|>"}', "eos_token_id"),
}


@pytest.mark.parametrize("case", BROKEN_SETTINGS)
def test_broken_generation_settings_are_refused(tiny_pair, tmp_path, case):
    """A broken generation_config.json, and values that cannot be, are refused in one line with file and key."""
    text, said = BROKEN_SETTINGS[case]
    shutil.copytree(tiny_pair / "large", tmp_path / "lm")
    path = tmp_path / "lm" / "generation_config.json"
    path.write_text(text)
    for load in (load_frozen_lm, load_embeddings):
        with pytest.raises(InputError) as error:
            load(LmSource(str(tmp_path / "lm"), "--base_model_id"))
        one_line(error, "generation_config.json", said)
    bare = ["--base_model_id", tmp_path / "lm", "--thought_generator", "none", "--split", "sample"]
    assert str(path) in fails(*bare, "--output_dir", tmp_path / "out")


def test_config_is_checked_without_generation_settings(tiny_pair, tmp_path):
    """Where there is no generation_config.json, the same holds for the config's own settings."""
    shutil.copytree(tiny_pair / "large", tmp_path / "lm")
    (tmp_path / "lm" / "generation_config.json").unlink()
    config = load_frozen_lm(LmSource(str(tmp_path / "lm"), "")).config
    config.eos_token_id = [2, 4000]
    with pytest.raises(
        InputError, match=r"its config.json: eos_token_id has 4000, not a token of the 400 in the vocab"
    ):
        load_generation_config(str(tmp_path / "lm"), config)


def test_model_without_tokenizer_is_refused(tiny_pair, tmp_path):
    """A model folder without the files of a tokenizer is refused in one line."""
    shutil.copytree(tiny_pair / "large", tmp_path / "lm")
    for path in (tmp_path / "lm").iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            path.unlink()
    with pytest.raises(InputError) as error:
        load_tokenizer(LmSource(str(tmp_path / "lm"), "--large_model_id"))
    one_line(error, f"--large_model_id {tmp_path / 'lm'}: ")


def test_empty_ids_are_refused(flags, trained):
    """An empty id is no id, and no other model is taken for it."""
    for name in ("large", "small"):
        with pytest.raises(InputError, match=f"--{name}_model_id is empty"):
            train.run([*flags, f"--{name}_model_id", "", "--output_name", "x"])
    for name in ("--base_model_id", "--assistant_model_id"):
        assert f"{name} '': nothing in it; give it a value" in fails("--checkpoint", trained, name, "")


def test_small_lms_weights_are_known(trained, tiny_pair, tmp_path, gsm8k_data):
    """Thoughts run with the small LM's weights that they were trained with, and no others."""
    shutil.copytree(tiny_pair / "small", tmp_path / "small")
    change_weights(lambda state: state[NORM].mul_(1.5))(tmp_path / "small")
    large, _ = pair_flags(tiny_pair)[1::2]
    models = ["--base_model_id", large, "--assistant_model_id", tmp_path / "small"]
    said = fails("--checkpoint", trained, *models, "--data_dir", gsm8k_data, "--output_dir", tmp_path / "out")
    assert f"{tmp_path / 'small'}: not the weights that these thoughts were trained with" in said


@pytest.mark.parametrize(
    "rope, positions",
    [
        (None, 64),
        ({"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}, 256),
        ({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, 128),
    ],
)
def test_positions_count_the_ropes_factor(rope, positions):
    """An LM has the positions of its config, times the factor of a rope that stretches them."""
    assert num_positions(LlamaConfig(max_position_embeddings=64, rope_scaling=rope)) == positions


def test_ranks_load_in_turn(monkeypatch):
    """With --shard_llm the ranks of a node load one after the other, so that the host holds one whole LM at a time."""
    world, loading, most, loaded = 3, [0], [0], []
    barrier, here = threading.Barrier(world), threading.local()

    def load(source):
        loading[0] += 1
        most[0] = max(most[0], loading[0])
        loaded.append(here.rank)
        for _ in range(1000):  # other ranks would come in between
            threading.Event().wait(0)
        return torch.nn.Linear(1, 1)

    def shard(lm, mesh):
        loading[0] -= 1

    monkeypatch.setattr(sharding, "ranks", lambda: Ranks(here.rank, world, here.rank, world, True))
    monkeypatch.setattr(sharding, "shard_mesh", lambda device: None)
    monkeypatch.setattr(sharding, "load_frozen_lm", load)
    monkeypatch.setattr(sharding, "shard_layers", shard)
    monkeypatch.setattr(sharding.dist, "barrier", lambda: barrier.wait())

    def run(rank):
        here.rank = rank
        sharding.load_sharded(LmSource("x", "--large_model_id"))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [0, 1, 2] and most == [1]


def test_adapters_names_have_an_order(tiny_pair, tmp_path):
    """The names in an adapter's config stand in order, though peft keeps them in a set: a report knows an adapter by
    its files' digests."""
    names = "v_proj,q_proj,o_proj,k_proj,up_proj,down_proj,gate_proj"
    lm = load_frozen_lm(LmSource(str(tiny_pair / "large"), "--large_model_id"))
    write_adapter(tmp_path, inject(lm, Lora(target=names).config("large"), "--lora_target"))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(names.split(","))
