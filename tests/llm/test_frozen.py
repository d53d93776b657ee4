"""The frozen LMs from disk: found, checked, told apart by their weights."""

import copy
import json
import shutil

import pytest
import torch
from helpers import one_line
from safetensors.torch import load_file
from transformers import AutoConfig

from lta_thinker import build, evaluate, train
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS
from lta_thinker.llm import frozen
from lta_thinker.llm.forward import body
from lta_thinker.llm.frozen import (
    LmSource,
    check_vocabulary,
    fingerprint,
    known_states,
    load_config,
    load_frozen_lm,
    weights_hash,
)
from lta_thinker.llm.identity import same_weights
from lta_thinker.rows.layout import Layout


def test_missing_model_names_near_ids():
    """A model id that does not exist is refused in one line that names ids near it."""
    with pytest.raises(InputError) as error:
        load_config(LmSource("Qwen/Qwen3-8B-Instruct", "--large_model_id"))
    one_line(error, "--large_model_id Qwen/Qwen3-8B-Instruct", "near it: Qwen/Qwen3-8B,")


def test_a_known_model_that_is_out_of_reach_is_not_proposed_for_itself():
    """Without a network the default model's line names no other model: its name is not wrong."""
    with pytest.raises(InputError) as error:
        load_config(LmSource("Qwen/Qwen3-8B", "--large_model_id"))
    one_line(error, "--large_model_id Qwen/Qwen3-8B: no such folder here", "hub")
    assert "near it" not in str(error.value)


def test_a_folder_without_a_config_says_so(tmp_path):
    """A folder that is no model's is refused in one line that names the file which is missing."""
    with pytest.raises(InputError) as error:
        load_config(LmSource(str(tmp_path), "--large_model_id"))
    one_line(error, f"--large_model_id {tmp_path}: there is no config.json in this folder")


def test_mistyped_folder_names_near_folder(tiny_pair):
    """A mistyped model folder is refused in one line that names the folder near it."""
    with pytest.raises(InputError) as error:
        load_config(LmSource(str(tiny_pair / "larg"), "--base_model_id"))
    one_line(error, f"no such folder; in {tiny_pair}/ are large, small")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "models/larg",
            ["no such folder; in models/ are large, small", "if it is a hub repository: hf download models/larg"],
        ),
        ("./models/large2", ["no such folder; in models/ are large, small"]),
        ("empty/large", ["no such folder; empty/ has no folders"]),
        ("../no/where", ["no such folder; nor is there ../no/"]),
    ],
)
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(name, parts, tmp_path, monkeypatch):
    """The name of a folder is refused at once, and the folders beside it are named."""
    for folder in ("models/small", "models/large", "empty", "models/.cache"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AutoConfig, "from_pretrained", None)  # it would ask the hub
    with pytest.raises(InputError) as error:
        load_config(LmSource(name, "--large_model_id"))
    one_line(error, f"--large_model_id {name}: ", *parts)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-14B", "mine/cached", "nowhere/large"])
def test_a_folder_with_an_owners_name_hides_no_repository(name, tmp_path, monkeypatch):
    """Repositories of known owners, those in the hub's cache, and those of other owners are the hub's, whatever folders
    are here."""
    for owner in ("Qwen", "mine"):
        (tmp_path / owner / "other").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = {"mine/cached": "config.json"}
    monkeypatch.setattr(frozen, "find_file", lambda model_id, name, local_files_only: found.get(model_id))
    frozen.check_is_there(LmSource(name, "--large_model_id"))


def test_capped_heads_and_broken_files_are_refused(tiny_pair, tmp_path):
    """A model whose head is more than a matrix, and a broken weight file, are refused in one line."""
    shutil.copytree(tiny_pair / "large", tmp_path / "capped")
    config = json.loads((tmp_path / "capped" / "config.json").read_text())
    (tmp_path / "capped" / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 30.0}))
    shutil.copytree(tiny_pair / "large", tmp_path / "cut")
    weights = (tmp_path / "cut" / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(weights[:-100])
    for name, part in (("capped", "final_logit_softcapping"), ("cut", "cannot be loaded")):
        with pytest.raises(InputError) as error:
            load_frozen_lm(LmSource(str(tmp_path / name), "--large_model_id"))
        one_line(error, part, str(tmp_path / name))


def test_stateful_large_lm_is_refused(tiny_pair, tiny_models, gsm8k_data, tmp_path, monkeypatch):
    """A large LM that keeps more than keys and values is refused in one line by both scripts."""
    llm = copy.deepcopy(tiny_models.llm)
    monkeypatch.setattr(build, "load_frozen_lm", lambda source: llm)
    monkeypatch.chdir(tmp_path)
    large = str(tiny_pair / "large")
    training = ["--large_model_id", large, "--thought_generator", "block", "--data_dir", str(gsm8k_data)]
    asked = ["--base_model_id", large, "--thought_generator", "none", "--split", "sample"]
    for stateful, types, told in ((False, ["chunked_attention"], "chunked_attention"), (True, [], "recurrent")):
        llm._is_stateful, llm.config.layer_types = stateful, types
        with pytest.raises(InputError) as error:
            train.run([*training, "--output_name", "x", "--num_thought_tokens", "4"])
        one_line(error, "--large_model_id", told, "not supported in the large LM")
        with pytest.raises(SystemExit) as error:
            evaluate.main([*asked, "--output_dir", str(tmp_path / "out")])
        one_line(error, "--base_model_id", told, "not supported in the large LM")


def test_fingerprint_tells_other_weights(tiny_models, tiny_pair):
    """The fingerprint is the same for the same weights loaded again, and another for other weights."""
    again = load_frozen_lm(LmSource(str(tiny_pair / "large"), "--large_model_id"))
    assert fingerprint(again) == fingerprint(tiny_models.llm)
    again.lm_head.weight.data += 1e-3
    assert fingerprint(again) != fingerprint(tiny_models.llm)
    assert not same_weights(fingerprint(again), fingerprint(tiny_models.llm))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 513), (40, 512), (5, 7, 11)])
def test_fingerprint_sees_every_bit(shape, dtype):
    """Any one value that changes, two that change places and a row that is negated change the fingerprint; an earlier
    version's, of 64 values of each tensor, is still compared."""
    weight = torch.randn(shape, generator=torch.manual_seed(1)).to(dtype)
    before = weights_hash([("a", weight)])
    assert weights_hash([("a", weight.clone())]) == before and weights_hash([("b", weight)]) != before
    assert same_weights(before[:16], before) and same_weights(None, before) and not same_weights("0" * 16, before)
    flat = weight.flatten()
    for i in {0, len(flat) - 1, len(flat) // 2, len(flat) // 3}:
        other = flat.clone()
        other[i] = torch.nextafter(other[i].float(), torch.tensor(9.0)) if dtype == torch.float32 else -other[i]
        assert not same_weights(weights_hash([("a", other.view(shape))]), before)
        swapped = flat.clone()
        swapped[[0, i]] = flat[[i, 0]]
        assert same_weights(weights_hash([("a", swapped.view(shape))]), before) == (swapped.equal(flat))


@pytest.mark.parametrize(
    ("kind", "shards"),  # 0: one file as before torch 1.6
    [(torch.int64, 0), (torch.int64, 1), (torch.int64, 2), (torch.int8, 2), (torch.bool, 1), (torch.complex64, 0)],
)
def test_pickled_weights_of_other_numbers_are_refused(tiny_pair, tmp_path, kind, shards):
    """pytorch_model.bin, whole or in parts, has floating-point numbers as safetensors have; else the library would make
    up some."""
    folder = tmp_path / "large"
    shutil.copytree(tiny_pair / "large", folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()

    def save(tensors):
        names, parts = sorted(tensors), [f"pytorch_model-{i}.bin" for i in range(shards)]
        if shards < 2:
            torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=bool(shards))
            return
        places = {name: parts[i % shards] for i, name in enumerate(names)}
        for part in parts:
            torch.save({name: tensors[name] for name in names if places[name] == part}, folder / part)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))

    save(weights)
    load_frozen_lm(LmSource(str(folder), "--large_model_id"))
    name = "model.layers.1.mlp.up_proj.weight"
    save(weights | {name: (100 * weights[name]).to(kind)})
    said = f"{name} holds {str(kind)[6:]}, not floating-point|{name} is not a plain tensor|cannot be loaded"  # by 4.53
    with pytest.raises(InputError, match=f"--large_model_id .*: (?:{said})"):
        load_frozen_lm(LmSource(str(folder), "--large_model_id"))


def test_config_that_asks_for_tuples_changes_nothing(tiny_pair, tmp_path, tiny_models):
    """An LM whose config.json has "return_dict": false is read as any other."""
    shutil.copytree(tiny_pair / "large", tmp_path / "large")
    config = json.loads((tmp_path / "large" / "config.json").read_text())
    (tmp_path / "large" / "config.json").write_text(json.dumps(config | {"return_dict": False}))
    lm = load_frozen_lm(LmSource(str(tmp_path / "large"), "--base_model_id"))
    assert known_states(lm) == known_states(tiny_models.llm)
    inputs = lm.get_input_embeddings()(torch.arange(4)[None])
    assert body(lm)(inputs_embeds=inputs).last_hidden_state.shape == (1, 4, 32)


def test_tokens_beyond_the_table_are_refused(tiny_models):
    """A special token beyond the embedding table is refused only where the template writes it."""
    tokenizer = copy.deepcopy(tiny_models.llm_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    check_vocabulary(tiny_models.llm, tokenizer, Layout(tokenizer, None, PROMPTS["number"]).llm_ids, "--base_model_id")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|image|>")
    with pytest.raises(InputError, match="token '<.image.>' is beyond the 400 rows"):
        check_vocabulary(
            tiny_models.llm, tokenizer, Layout(tokenizer, None, PROMPTS["number"]).llm_ids, "--base_model_id"
        )
