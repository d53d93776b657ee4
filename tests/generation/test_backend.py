"""--backend vllm as far as no engine is needed: the large LLM's stand-in, flags, folders. The rest: tests/vllm/."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from helpers import PROGRAMS, ROOT, fails
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Gemma3ForCausalLM, Gemma3TextConfig

from lta_thinker import evaluate, train
from lta_thinker.common import InputError
from lta_thinker.evaluation.compare import differing
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.folder import check_folder
from lta_thinker.flags import parse_flags
from lta_thinker.generation.vllm import memory_share, model_length, unpadded
from lta_thinker.llm import files
from lta_thinker.llm.embeddings import load_embeddings, weights_fingerprint
from lta_thinker.llm.frozen import LmSource, check_cache, fingerprint, load_frozen_lm

TOY = ROOT / "toy" / "large"  # bf16 files, tied


def models(folder, dtype: torch.dtype):
    """(the whole LLM, its stand-in)."""
    folder = str(folder)
    whole = load_frozen_lm(LmSource(folder, "--base_model_id", dtype))
    return whole, load_embeddings(LmSource(folder, "--base_model_id", dtype))


@pytest.fixture
def gemma(tmp_path) -> Path:
    """A tiny Gemma 3, whose embedding module scales what it looks up."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    torch.manual_seed(0)
    llm = Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=300, num_attention_heads=2, num_key_value_heads=1, **sizes))
    llm.save_pretrained(tmp_path / "gemma")
    return tmp_path / "gemma"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("which", ["untied, float32", "tied, bfloat16", "gemma"])
def test_stand_in_embeds_as_whole_llm(tiny_pair, gemma, which, dtype):
    """The stand-in embeds tokens as the whole LLM does and holds no other weight. Its files have the fingerprint of the
    loaded weights, in any dtype of either."""
    folder = {"untied, float32": tiny_pair / "large", "tied, bfloat16": TOY, "gemma": gemma}[which]
    whole, embedding = models(folder, dtype)
    ids = torch.arange(0, 300, 7)[None]
    expected = whole.get_input_embeddings()(ids)
    made = embedding.get_input_embeddings()(ids)
    assert torch.equal(made, expected) and made.dtype == embedding.dtype == dtype
    assert weights_fingerprint(LmSource(str(folder), "--base_model_id"), embedding) == fingerprint(whole)
    assert embedding.generation_config.eos_token_id == whole.generation_config.eos_token_id
    assert sum(not weight.is_meta for weight in embedding.parameters()) == 1
    check_cache(embedding, "--base_model_id")


def test_fingerprint_follows_weights_not_shards(tiny_pair, tmp_path):
    """Another weight makes another fingerprint. Splitting the same weights into several files does not."""
    whole, _ = models(tiny_pair / "large", torch.float32)
    whole.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    _, embedding = models(tmp_path / "shards", torch.float32)
    assert weights_fingerprint(LmSource(str(tmp_path / "shards"), "--f"), embedding) == fingerprint(whole)
    path = next((tmp_path / "shards").glob("*-00002-of-*.safetensors"))
    weights = load_file(path)
    save_file({name: weight + 1 for name, weight in weights.items()}, path, metadata={"format": "pt"})
    assert weights_fingerprint(LmSource(str(tmp_path / "shards"), "--f"), embedding) != fingerprint(whole)


def test_unusable_weight_files_are_named(tiny_pair, tmp_path, capsys):
    """Weights under other names have no fingerprint, and a note says so. Missing embeddings, missing files and broken
    files are refused in one line."""
    config = AutoConfig.from_pretrained(tiny_pair / "large")
    config.save_pretrained(tmp_path)
    weights = load_file(tiny_pair / "large" / "model.safetensors")

    def write(rename):
        save_file({rename(name): weight for name, weight in weights.items()}, tmp_path / "model.safetensors")

    write(lambda name: name.replace("q_proj", "query"))
    embedding = load_embeddings(LmSource(str(tmp_path), "--base_model_id"))
    assert weights_fingerprint(LmSource(str(tmp_path), "--base_model_id"), embedding) is None
    assert "no fingerprint" in capsys.readouterr().out
    write(lambda name: name.replace("embed_tokens", "words"))
    with pytest.raises(InputError, match=r"--base_model_id .*: its safetensors have no model\.embed_tokens\.weight"):
        load_embeddings(LmSource(str(tmp_path), "--base_model_id"))
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:100])
    with pytest.raises(InputError, match="--base_model_id .*: model.safetensors is broken"):
        load_embeddings(LmSource(str(tmp_path), "--base_model_id"))
    (tmp_path / "model.safetensors").unlink()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"model.embed_tokens.weight": "gone.safetensors"}}')
    with pytest.raises(InputError, match="--base_model_id .*: no gone.safetensors there, which its index names"):
        load_embeddings(LmSource(str(tmp_path), "--base_model_id"))
    index.write_text("{}")
    with pytest.raises(InputError, match="--base_model_id .*: model.safetensors.index.json is broken"):
        load_embeddings(LmSource(str(tmp_path), "--base_model_id"))
    index.unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="--base_model_id .*: no model.safetensors there; save it as safetensors"):
        load_embeddings(LmSource(str(tmp_path), "--base_model_id"))


def test_weight_file_is_looked_up_once(tiny_pair, monkeypatch):
    """Each file of weights is looked up once: on the hub every look is a request."""
    looks, own = [], files.cached_file
    monkeypatch.setattr(files, "cached_file", lambda *args, **kwargs: (looks.append(args[1]), own(*args, **kwargs))[1])
    llm = load_embeddings(LmSource(str(tiny_pair / "large"), "--f"))
    weights_fingerprint(LmSource(str(tiny_pair / "large"), "--f"), llm)
    assert (
        sum("safetensors" in name for name in looks) == 2 * 3
    )  # the index, whether there is the one file, and the file


def test_engine_gets_memory_that_is_left():
    """vLLM gets the share of a GPU's memory that the thoughts' models leave, and at most 0.92."""
    gib = 2**30
    assert memory_share(75 * gib, 80 * gib) == pytest.approx(0.91)
    assert memory_share(20 * gib, 24 * gib) == 0.75
    assert memory_share(139 * gib, 140 * gib) == 0.92


@pytest.mark.parametrize(
    "flags, environment, message",
    [
        (["--max_model_len", "9"], {}, "--max_model_len is for --backend vllm"),
        (["--tensor_parallel_size", "2"], {}, "--tensor_parallel_size is for --backend vllm"),
        (["--backend", "vllm", "--tensor_parallel_size", "0"], {}, "--tensor_parallel_size 0: must be at least 1"),
        (["--backend", "vllm", "--data_parallel_size", "0"], {}, "--data_parallel_size 0: must be at least 1"),
        (["--backend", "vllm", "--gpu_memory_utilization", "1.5"], {}, "--gpu_memory_utilization 1.5: must be above 0"),
        (["--backend", "vllm", "--inspect", "3"], {}, "--inspect looks into the LLM's own layers"),
        (["--backend", "vllm"], {"WORLD_SIZE": "2"}, "--data_parallel_size K, without torchrun"),
        # neither the ordinary suite nor a user of hf needs vLLM
        (["--backend", "vllm"], {}, "vllm cannot be imported .*; pip install -r requirements-vllm.txt"),
    ],
)
def test_impossible_backend_flags_are_refused(tmp_path, monkeypatch, flags, environment, message):
    """Flags that the backend cannot serve, torchrun with vLLM and a missing vLLM are refused in one line, before
    anything is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "vllm", None)  # not there, whatever is installed
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bare = ["--thought_generator", "none", "--base_model_id", str(TOY), "--task_name", "arithmetic"]
    with pytest.raises(SystemExit, match=message) as stop:
        evaluate.main([*bare, "--data_dir", str(ROOT / "data"), *flags])
    assert "\n" not in str(stop.value.code) and not any(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "batch_size"), [("auto", "64"), ("4", "4")])
def test_engine_makes_its_own_batches(given, batch_size):
    """--batch_size auto has nothing to find out for vLLM: it is how many questions' thoughts are made at a time."""
    flags = ["--thought_generator", "none", "--backend", "vllm", "--batch_size", given]
    assert parse_flags(EvaluationArguments, flags, "evaluate.py").batch_size == batch_size


def test_block_behind_layers_of_the_llm_needs_them(flags):
    """Thoughts of block that read the question through the LLM's first layers are refused with --backend vllm, which
    leaves this process the embedding table alone."""
    train.run(
        [*flags, "--output_name", "x", "--thought_generator", "block", "--max_steps", "1", "--reader_layers", "1"]
    )
    (folder,) = Path("ckpt").iterdir()
    said = fails("--checkpoint", str(folder), "--data_dir", flags[5], "--backend", "vllm", "--output_dir", "out")
    assert "read the question through the LLM's layers; use --backend hf" in said and not Path("out").exists()


def test_folder_keeps_its_backend(tmp_path):
    """A folder begun with one backend is not continued with the other, and a comparison of two reports lists the
    difference."""
    (tmp_path / "samples.jsonl").write_text("{}\n")
    settings = {"seed": 41, "backend": "hf"}

    def check(there: dict, now: str) -> None:
        (tmp_path / "settings.json").write_text(json.dumps(there))
        check_folder(tmp_path, settings | {"backend": now})

    check(settings, "hf")
    with pytest.raises(InputError, match="made with backend = 'hf', now it is 'vllm'"):
        check(settings, "vllm")
    with pytest.raises(InputError, match="made with backend = 'vllm', now it is 'hf'"):
        check(settings | {"backend": "vllm"}, "hf")
    reports = [SimpleNamespace(settings=settings | {"backend": backend}) for backend in ("hf", "vllm")]
    assert differing(*reports) == {"backend": ["hf", "vllm"]}


def test_engine_has_room_for_longest_answer(capsys):
    """The engine's length has room for the longest prompt and answer, up to the model's positions. A shorter answer is
    said, and no room at all is refused."""
    config = AutoConfig.from_pretrained(TOY)
    assert model_length(None, 300, 1000, config) == 1300 and capsys.readouterr().out == ""
    assert model_length(None, 300, 4096, config) == 2048 == config.max_position_embeddings
    assert "ends after 1748 tokens" in capsys.readouterr().out
    assert model_length(320, 300, 1000, config) == 320
    assert "--max_model_len: 320, so an answer behind the longest prompt ends after 20" in capsys.readouterr().out
    for given, longest in ((300, 300), (None, 2048)):
        with pytest.raises(InputError, match="the longest prompt has"):
            model_length(given, longest, 10, config)


def test_prompts_are_unpadded_by_chain():
    """Prompts reach vLLM without padding, grouped by question and chain."""
    mask = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 1], [1, 1, 1]])
    embeddings = torch.arange(24.0).view(4, 3, 2)
    made = list(unpadded({"inputs_embeds": embeddings, "attention_mask": mask}, 2))
    assert [[len(chain) for chain in chains] for chains in made] == [[1, 1], [3, 3]]
    assert torch.equal(made[0][1], embeddings[1, 2:]) and torch.equal(made[1][0], embeddings[2])


def test_processes_of_killed_parent_end():
    """The reaper ends what a killed process had started, grandchildren in sessions of their own too, as vLLM's workers
    are."""
    with subprocess.Popen([sys.executable, str(PROGRAMS / "start_a_sleeper.py")]) as parent:
        reaper = subprocess.Popen([sys.executable, str(ROOT / "lta_thinker/generation/reaper.py"), str(parent.pid)])
        time.sleep(3)
        started = psutil.Process(parent.pid).children(recursive=True)
        assert len(started) == 2 and reaper.poll() is None
        parent.kill()
    assert reaper.wait(timeout=10) == 0
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in started)
