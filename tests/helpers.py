"""What several test files use: paths, the tiny models and their tokenizers, rows, flags, and what a run leaves."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import warm
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from lta_thinker import evaluate, train
from lta_thinker.checkpoint import TrainingRecord
from lta_thinker.data_loader import PROMPTS
from lta_thinker.evaluation.report import CheckpointFacts, Report, grade, make_figures
from lta_thinker.evaluation.samples import SampleLine, sample_line
from lta_thinker.generation.prompts import Request, make_requests
from lta_thinker.generation.samplers import Answer, TransformersSampler
from lta_thinker.generation.sampling import Sample
from lta_thinker.llm.frozen import fingerprint
from lta_thinker.losses import Objective
from lta_thinker.model import GENERATORS, LatentThoughtModel, Models
from lta_thinker.rows.batch import PromptCollator, TrainingCollator
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import DATE_STRING, Layout, pad_token_id
from lta_thinker.weights import ATT_FILE, PARAMS_FILE

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"  # not in the repository: tests that read it skip where it is absent
PROGRAMS = ROOT / "tests" / "programs"  # that tests start
TOY = {name: str(ROOT / "toy" / name) for name in ("large", "small")}
TOY_DATA = ("--data_dir", str(ROOT / "data"), "--task_name", "arithmetic", "--max_new_tokens", "96")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}  # of a process that a test starts
N = 4  # thoughts
D_LARGE, D_SMALL, D_FF = 32, 16, 64  # of the tiny pair
EXAMPLES = [
    Example(0, "Mia has 12 pens and buys 7 more. How many has she?", ("12 + 7 = 19 pens.", "So she has 19."), "19"),
    Example(1, "How many?", (), "3"),
    Example(2, "Tom reads 8 pages a day for 5 days.", ("He reads 8 * 5 = 40 pages.",), "40"),
]

# ---------------------------------------------------------------------------------------------------------------------
# Tokenizers and models

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
TEMPLATES = ROOT / "tests" / "templates"
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
    legacy and gemma put <s> before a text unless they are told not to.
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
    if kind in ("legacy", "gemma"):
        start = [("<s>", tokenizer.token_to_id("<s>"))]
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", special_tokens=start)
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
        own = {"none": None, **dict.fromkeys(("block", "prompt", "coconut"), self.llm_tokenizer)}
        reads_prompt = kind == "coconut"
        return Layout(
            self.llm_tokenizer, own.get(kind, self.small_tokenizer), PROMPTS["number"], reads_prompt=reads_prompt
        )

    def models(self, kind: str, **kwargs) -> Models:
        """A fresh model (as `model` makes it), its LLM and its layout."""
        model = None if kind == "none" else self.model(kind, **kwargs)
        return Models(self.llm, model, self.layout_for(kind))

    def model(self, kind: str, num_thoughts: int = 4, seed: int = 0, weights: dict | None = None, **kwargs):
        """A fresh LatentThoughtModel with a seeded random generator (its prior too) over the shared frozen LMs."""
        torch.manual_seed(seed)
        small_lm = self.small_lm if GENERATORS[kind].uses_small_lm else None
        slot_id = pad_token_id(self.layout_for(kind).generator_tokenizer)
        objective = Objective(weights or {"sft": 0.33, "align": 0.33, "focus": 0.33, "diversity": 0.0})
        model = LatentThoughtModel(kind, self.llm, small_lm, num_thoughts, slot_id, objective, **kwargs)
        if kind == "small_block":
            torch.nn.init.normal_(model.generator.prior)
        return model


def record_of(model, **known) -> TrainingRecord:
    """thoughts.json of a model, as little as evaluation needs, over what is `known`."""
    record = {
        "thought_generator": model.kind,
        "num_thoughts": model.num_thoughts,
        "sizes": model.sizes,
        "design": model.design,
        "large_model_id": "large",
        "small_model_id": "small" if model.generator.uses_small_lm else None,
        "prompts": PROMPTS["number"],
        "special_tokens_in_text": False,
        "date_string": DATE_STRING,
        "task_name": "gsm8k",
        "answer_type": "number",
        "dtype": "float32",
        "fingerprints": [lm and fingerprint(lm) for lm in model.frozen],
    }
    return TrainingRecord(**record | known)


# ---------------------------------------------------------------------------------------------------------------------
# Rows and batches


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


def training_batch(tiny_models, kind, examples=EXAMPLES, steps=True):
    layout = tiny_models.layout_for(kind)
    return TrainingCollator(layout, steps)([layout.training(example) for example in examples])


def prompt_batch(tiny_models, kind, examples=EXAMPLES):
    layout = tiny_models.layout_for(kind)
    return PromptCollator(layout)([layout.prompt(example.question) for example in examples])


def sampled(models: Models, examples, settings, batch_size: int, num_injected: int | None = None):
    """(example, samples, texts) of a TransformersSampler, as they are done."""
    sampler = TransformersSampler(models, settings, batch_size, num_injected)
    for answer in sampler.answers(make_requests(models.layout, examples)):
        yield answer.request.example, answer.samples, answer.texts


def evaluation_thoughts(model, batch):
    model.eval()
    with torch.no_grad():
        return model.thoughts(batch["question_ids"], batch["question_mask"])


def one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in parts), message


def plain_z(model, kind, tokens, slots):
    """z at every column of one unpadded row, written out: (T, d_large)."""
    generator, tokens = model.generator, torch.tensor([tokens + [model.slot_ids[0]] * (N if slots else 0)])
    llm, small_lm = model.frozen
    x = llm.get_input_embeddings()(tokens) if kind == "block" else small_lm.model(tokens).last_hidden_state
    if kind != "block":
        x = generator.projection(x)
    if slots and kind != "small":
        x = torch.cat([x[:, :-N], generator.prior[None] + (x[:, -N:] if kind == "small_block" else 0)], dim=1)
    if kind != "small":
        x = generator.block(x, torch.ones_like(tokens), torch.arange(tokens.shape[1])[None])
    return generator.projection(x)[0] if kind == "block" else x[0]


# ---------------------------------------------------------------------------------------------------------------------
# Runs of train.py


def train_flags(pair: Path, data: Path) -> list[str]:
    """Flags of a short run of train.py, but for --output_name."""
    return [
        *("--large_model_id", str(pair / "large"), "--small_model_id", str(pair / "small")),
        *("--data_dir", str(data), "--task_name", "gsm8k", "--num_thought_tokens", "4", "--batch_size", "2"),
        *("--gradient_accumulation_steps", "2", "--learning_rate", "1e-3", "--max_steps", "5", "--warmup_ratio", "0"),
        *("--logging_steps", "1", "--disable_tqdm", "True"),
        *("--sft_loss_weight", "0.33", "--align_loss_weight", "0.33", "--focus_loss_weight", "0.33"),
    ]


def weights(name: str) -> dict[str, torch.Tensor]:
    """All trained tensors of a finished run."""
    (folder,) = Path("ckpt").glob(f"{name}-*")
    files = [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.bin"))]
    return {f"{i}.{key}": value for i, file in enumerate(files) for key, value in file.items()}


def meta(name: str) -> dict:
    (path,) = Path("ckpt").glob(f"{name}-*/thoughts.json")
    return json.loads(path.read_text())


def assert_close(a: str, b: str, tolerance: float):
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for key in left:
        torch.testing.assert_close(left[key], right[key], atol=tolerance, rtol=0)


def logs(name: str) -> list[dict]:
    """Log history of a run's newest resume checkpoint."""
    newest = train.newest_checkpoint(Path("results") / name)
    return json.loads((newest / "trainer_state.json").read_text())["log_history"]


def cut_at(step: int) -> None:
    """As if run a (training/conftest.py) had been killed after that checkpoint."""
    for folder in Path("results/a").glob("checkpoint-*"):
        if int(folder.name.split("-")[1]) > step:
            shutil.rmtree(folder)
    shutil.rmtree("ckpt")


def same_as(ended: Path) -> bool:
    """Whether run a here has the weights of the uncut one, to the bit, its choice and its dev losses."""
    with contextlib.chdir(ended):
        whole, choice = weights("a"), [meta("a")[key] for key in ("dev", "dev_curve", "best")]
    here = weights("a")
    losses = [Path(folder, "results/a/dev_losses.jsonl").read_bytes() for folder in (ended, ".")]
    return (
        whole.keys() == here.keys()
        and all(torch.equal(whole[name], here[name]) for name in whole)
        and choice == [meta("a")[key] for key in ("dev", "dev_curve", "best")]
        and losses[0] == losses[1]
    )


def files_and_times(*folders: str) -> dict:
    paths = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def two_ranks(program: Path, *flags: str) -> str:
    """Run a program in two processes that see torchrun's variables, without torchrun (test_scale.py has the tests with
    it) -> what both have printed. Both must end well."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [warm.python(), program, *flags],
            env=ENVIRONMENT | variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = "".join(rank.communicate()[0] for rank in ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    return printed


# ---------------------------------------------------------------------------------------------------------------------
# Runs of evaluate.py, and a cache of the hub


def pair_flags(tiny_pair) -> list[str]:
    return ["--base_model_id", str(tiny_pair / "large"), "--assistant_model_id", str(tiny_pair / "small")]


def published(folder: Path, d_in: int, block: bool) -> list[str]:
    """Weights with the published names and shapes and nothing else -> the flags that name them."""
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape):
        return torch.randn(shape, generator=generator)

    folder.mkdir()
    torch.save({"weight": tensor(D_LARGE, d_in), "bias": tensor(D_LARGE)}, folder / PARAMS_FILE)
    if not block:
        return ["--params_file_name", str(folder / PARAMS_FILE)]
    state = {
        "self_attn.in_proj_weight": tensor(3 * D_LARGE, D_LARGE),
        "self_attn.in_proj_bias": tensor(3 * D_LARGE),
        "self_attn.out_proj.weight": tensor(D_LARGE, D_LARGE),
        "self_attn.out_proj.bias": tensor(D_LARGE),
        "linear1.weight": tensor(D_FF, D_LARGE),
        "linear1.bias": tensor(D_FF),
        "linear2.weight": tensor(D_LARGE, D_FF),
        "linear2.bias": tensor(D_LARGE),
        "norm1.weight": tensor(D_LARGE),
        "norm2.weight": tensor(D_LARGE),
    }
    torch.save(state, folder / ATT_FILE)
    return ["--params_file_name", str(folder / PARAMS_FILE), "--att_file_name", str(folder / ATT_FILE)]


def line_of(index: int, answers: list, gold: str = "18", tokens: int = 5, finished: bool = True) -> SampleLine:
    """A line of samples.jsonl whose samples say these numbers; None: none."""
    example = Example(index, f"Question {index}?", (), gold)
    samples = [Sample([], tokens, finished, -0.5) for _ in answers]
    texts = [f"The answer is {answer}.\n" if answer else "Hm." for answer in answers]
    return sample_line(Answer(Request(example, {}), samples, texts))


def write_evaluation(
    folder: Path, lines: list[SampleLine], checkpoint: dict | None = None, versions: dict | None = None, **settings
) -> Path:
    """samples.jsonl and report.json of an evaluation with these lines -> the report's path."""
    settings = {
        "answer_type": "number",
        "base_model_id": "large",
        "dtype": "float32",
        "num_thought_tokens": 0,
        "questions": "",
        "sampling": {"num_return_sequences": len(lines[0].responses)},
        "split": "dev",
        "task_name": "gsm8k",
        "thought_generator": "none",
    } | settings
    made = vars(make_figures([grade(line, "number") for line in lines]))
    own = {"speed": None, "thought_variance": None, "versions": versions or {}, "wall_seconds": 1.0}
    folder.mkdir(parents=True)
    (folder / "samples.jsonl").write_text("".join(line.json() for line in lines))
    facts = CheckpointFacts(**checkpoint or {"name": folder.name, "run": None, "dev": None})
    Report(**made, **own, settings=settings, checkpoint=facts).write(folder / "report.json")
    return folder / "report.json"


def fails(*flags: str) -> str:
    """The error line of evaluate.py."""
    with pytest.raises(SystemExit) as stop:
        evaluate.main([str(flag) for flag in flags])
    assert "\n" not in stop.value.code
    return stop.value.code


def ranked(printed: str) -> list[list[str]]:
    """The cells of a table's rows, without their places."""
    rows = re.findall(r"^  \d+\. +(.*)$", printed, re.MULTILINE)
    return [re.split(r"  +", row.strip()) for row in rows]


def cache_with(trained: Path, folder: Path, hub_id: str) -> Path:
    """A cache as huggingface_hub keeps it, with the checkpoint as the repository's only commit."""
    commit, repository = "0123456789" * 4, folder / f"models--{hub_id.replace('/', '--')}"
    shutil.copytree(trained, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return folder
