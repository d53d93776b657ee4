"""Fixtures of the whole suite: two tiny random Qwen3 models on disk, the same loaded, and a small GSM8K data folder."""

import contextlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
CACHE = tempfile.TemporaryDirectory()  # of rows as token ids: not the user's own, and gone after the session
os.environ["HF_DATASETS_CACHE"] = CACHE.name
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"  # not in the repository: tests that read it skip where it is absent
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402
import torch  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

from lta_thinker.model import GENERATORS  # noqa: E402

torch.set_num_threads(1)

# ChatML with Qwen3's empty thought block where enable_thinking is false
CHAT_TEMPLATE = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and enable_thinking is defined and not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

SENTENCES = [
    "Mia has 12 red pens and buys 7 more, so she has 12 + 7 = 19 pens.",
    "A baker sells 30 rolls in the morning and 45 in the afternoon. How many rolls did he sell?",
    "Solve the problem step by step and put the final answer in \\boxed{}.",
    "Problem: Tom reads 8 pages a day for 5 days. Hint: he reads 8 * 5 = 40 pages.",
    "The answer is \\boxed{40}.",
    "Read the problem and prepare hints for solving it.",
    "user assistant system think",
]


def byte_level_tokenizer(vocab_size: int, single_digits: bool, sentences: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ChatML's special tokens, trained on `sentences`."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if single_digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sentences, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


# name of a template: (its text, its end of turn). Our own are minimal ones in the manner of a family; None: no template
TEMPLATES = Path(__file__).resolve().parent / "templates"
OWN_TEMPLATES = {"qwen3": (CHAT_TEMPLATE, "<|im_end|>"), "plain": (None, "")} | {
    name: ((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"), end)
    for name, end in {
        "qwen2": "<|im_end|>",
        "llama3": "<|eot_id|>",
        "gemma3": "<end_of_turn>",
        "phi3": "<|end|>",
        "mistral": "[/INST]",
    }.items()
}
MARKS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
MARKS += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
MARKS_WITH_SPACE = ["<|user|>", "<|assistant|>", "<|end|>"]  # Phi 3's take the white space after them
TOKENIZER_KINDS = ("byte_level", "legacy", "metaspace", "gemma")


def family_tokenizer(kind: str, template: str | None, eos: str = "</s>") -> PreTrainedTokenizerFast:
    """A tokenizer trained on SENTENCES, with every family's special tokens.

    byte_level: Qwen, Llama 3. With "\u2581" for spaces and bytes for unknown characters: legacy puts one before every
    text and after every special token (Llama 2, Phi 3), metaspace before the text alone (Mistral), gemma nowhere.
    """
    trainer = {"vocab_size": 400, "min_frequency": 1, "show_progress": False}
    digits = pre_tokenizers.Digits(individual_digits=True)
    if kind == "byte_level":
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([digits, byte_level]), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(initial_alphabet=alphabet, **trainer))
    else:
        words = Tokenizer(models.BPE())
        words.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.Metaspace()])
        words.train_from_iterator(SENTENCES, trainers.BpeTrainer(**trainer))
        learnt = json.loads(words.to_str())["model"]
        vocab, merges = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), *learnt["vocab"]], map(tuple, learnt["merges"])
        ids = {token: i for i, token in enumerate(vocab)}
        tokenizer = Tokenizer(models.BPE(ids, list(merges), unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        space = normalizers.Replace(" ", "\u2581")
        if kind == "metaspace":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            prepend = [normalizers.Prepend("\u2581")] if kind == "legacy" else []
            tokenizer.normalizer = normalizers.Sequence([*prepend, space])
        strip = [decoders.Strip(" ", 1, 0)] if kind != "gemma" else []
        parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False, rstrip=True) for mark in MARKS_WITH_SPACE])
    special = {"bos_token": "<s>", "eos_token": eos, "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template, clean_up_tokenization_spaces=False, **special
    )


def save_tiny_model(folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int, **sizes) -> None:
    """A random float32 Qwen3 with `tokenizer` in `folder`; weights so large that what it reads changes what it says."""
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 1024, "initializer_range": 0.2}
    config = Qwen3Config(bos_token_id=None, **ends, **sizes)
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    model.get_input_embeddings().weight.data[tokenizer.pad_token_id].normal_()  # made as zeros, which would hide faults
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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


@dataclass(frozen=True)
class TinyModels:
    """The loaded pair (frozen, float32, CPU), its tokenizers, and what the tests build from them."""

    llm: torch.nn.Module
    small_lm: torch.nn.Module
    llm_tokenizer: PreTrainedTokenizerFast
    small_tokenizer: PreTrainedTokenizerFast
    layout: object  # layout.Layout of small_block and small

    def layout_for(self, kind: str):
        """layout.Layout of a generator kind, or of `none`."""
        from lta_thinker.data_loader import PROMPTS
        from lta_thinker.rows.layout import Layout

        own = {"none": None, "block": self.llm_tokenizer, "prompt": self.llm_tokenizer}
        return Layout(self.llm_tokenizer, own.get(kind, self.small_tokenizer), PROMPTS["number"])

    def model(self, kind: str, num_thoughts: int = 4, seed: int = 0, **kwargs):
        """A fresh LatentThoughtModel with a seeded random generator (its prior too) over the shared frozen LMs."""
        from lta_thinker.model import LatentThoughtModel
        from lta_thinker.rows.layout import pad_token_id

        torch.manual_seed(seed)
        small_lm = self.small_lm if GENERATORS[kind].uses_small_lm else None
        slot_id = pad_token_id(self.layout_for(kind).generator_tokenizer)
        weights = {"sft": 0.33, "align": 0.33, "focus": 0.33, "diversity": 0.0}
        model = LatentThoughtModel(kind, self.llm, small_lm, num_thoughts, slot_id, **{"weights": weights} | kwargs)
        if kind == "small_block":
            torch.nn.init.normal_(model.generator.prior)
        return model


@pytest.fixture(scope="session")
def tiny_models(tiny_pair) -> TinyModels:
    """The tiny pair loaded once for the session: nothing in it may be changed by a test."""
    from lta_thinker.data_loader import PROMPTS
    from lta_thinker.llm.frozen import load_frozen_lm, load_tokenizer
    from lta_thinker.rows.layout import Layout

    large, small = str(tiny_pair / "large"), str(tiny_pair / "small")
    tokenizers = load_tokenizer(large, "--large_model_id"), load_tokenizer(small, "--small_model_id")
    return TinyModels(
        load_frozen_lm(large, "--large_model_id", torch.float32, "cpu"),
        load_frozen_lm(small, "--small_model_id", torch.float32, "cpu"),
        *tokenizers,
        Layout(*tokenizers, PROMPTS["number"]),
    )


@pytest.fixture(params=[name for name, generator in GENERATORS.items() if generator.reads_question])
def kind(request) -> str:
    """Every thought generator that reads the question."""
    return request.param


def gsm8k_row(i: int) -> dict:
    """Row i of a small set in GSM8K's socratic layout; one or two steps, an answer of one to four digits."""
    a, b = 3 + i, 2 + i * i
    steps = [f"How many in both boxes? ** Both boxes hold {a} + {b} = <<{a}+{b}={a + b}>>{a + b} pens."]
    question = f"Box {i} holds {a} pens and the next one {b} pens. How many pens are there?"
    total = a + b
    if i % 2:
        question = question.replace("there?", "left when 2 are lost?")
        steps.append(f"How many are left? ** {total} - 2 = <<{total}-2={total - 2}>>{total - 2} are left.")
        total -= 2
    return {"question": question, "answer": "\n".join([*steps, f"#### {total:,}"])}


def write_jsonl(path: Path, rows: list) -> None:
    """Rows as JSON lines (a str is written as it is)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def gsm8k_data(tmp_path_factory) -> Path:
    """A --data_dir with gsm8k/train_socratic.jsonl (40 rows) and gsm8k/test_socratic.jsonl (12 other rows)."""
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "gsm8k" / "train_socratic.jsonl", [gsm8k_row(i) for i in range(40)])
    write_jsonl(folder / "gsm8k" / "test_socratic.jsonl", [gsm8k_row(i) for i in range(40, 52)])
    return folder


def train_flags(pair: Path, data: Path) -> list[str]:
    """Flags of a short run of train.py, but for --output_name."""
    return [
        *("--large_model_id", str(pair / "large"), "--small_model_id", str(pair / "small")),
        *("--data_dir", str(data), "--task_name", "gsm8k", "--num_thought_tokens", "4", "--batch_size", "2"),
        *("--gradient_accumulation_steps", "2", "--learning_rate", "1e-3", "--max_steps", "5", "--warmup_ratio", "0"),
        *("--logging_steps", "1", "--disable_tqdm", "True"),
        *("--sft_loss_weight", "0.33", "--align_loss_weight", "0.33", "--focus_loss_weight", "0.33"),
    ]


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
