"""What the benchmarks run on: pairs of models by shape, rows, memory and speed of the machine.

tiny   the toy pair in toy/, its own rows
cpu    a random Qwen3-shaped pair: large 8 layers, d 512 (103 M); small 4 layers, d 256 (42 M); vocabulary 151,936
8b     the true shapes of Qwen3-8B and Qwen3-0.6B, random weights made on the device

Rows of the last two are GSM8K's test rows where --data_dir has them (gsm8k/test_socratic.jsonl), else this project's
own sample. Their tokenizer is a byte-level BPE with single digits, trained on these rows: a row has about as many
tokens as Qwen's makes of it.
"""

import argparse
import ctypes
import gc
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast, Qwen3Config  # noqa: E402

from lta_thinker.data_loader import TASKS, load_split  # noqa: E402
from lta_thinker.llm.frozen import DTYPE_ARGUMENT, LmSource, load_frozen_lm, load_tokenizer  # noqa: E402
from lta_thinker.rows.examples import Example  # noqa: E402

VOCABULARY = 151_936
QWEN3 = {"model_type": "qwen3", "rope_theta": 1e6, "max_position_embeddings": 40960, "bos_token_id": None}


def sizes(layers: int, d: int, d_ff: int, heads: int, kv_heads: int, head_dim: int, tied: bool) -> dict:
    return {
        "num_hidden_layers": layers,
        "hidden_size": d,
        "intermediate_size": d_ff,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "tie_word_embeddings": tied,
    }


SHAPES = {  # (large, small)
    "cpu": (sizes(8, 512, 1536, 8, 4, 64, True), sizes(4, 256, 768, 4, 2, 64, True)),
    "8b": (sizes(36, 4096, 12288, 32, 8, 128, False), sizes(28, 1024, 3072, 16, 8, 128, True)),
}


@dataclass(frozen=True)
class Pair:
    """Frozen LMs and their tokenizers; small_lm None where it was not asked for."""

    llm: torch.nn.Module
    small_lm: torch.nn.Module | None
    llm_tokenizer: PreTrainedTokenizerFast
    small_tokenizer: PreTrainedTokenizerFast


def rows_source(shape: str, data_dir: str) -> str:
    """Where benchmark_rows come from, in words."""
    if shape == "tiny":
        return "arithmetic, test"
    return "gsm8k, test" if (Path(data_dir) / "gsm8k" / "test_socratic.jsonl").is_file() else "gsm8k, our own sample"


def benchmark_rows(shape: str, count: int, data_dir: str = "data") -> list[Example]:
    """The first `count` examples of a shape's rows, over again from the first where there are fewer."""
    if shape == "tiny":
        examples = load_split(TASKS["arithmetic"], "test", str(ROOT / "data")).examples
    else:
        split = "test" if rows_source(shape, data_dir) == "gsm8k, test" else "sample"
        examples = load_split(TASKS["gsm8k"], split, data_dir).examples
    return [examples[i % len(examples)] for i in range(count)]


def bpe_tokenizer(texts: list[str], chat_template: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        min_frequency=3,
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = chat_template
    return fast


def random_lm(shape: dict, vocabulary: int, dtype: torch.dtype, device: str, attention: str):
    """A frozen Qwen3 with random weights, made on the device in `dtype`."""
    config = Qwen3Config(**QWEN3, **shape, vocab_size=vocabulary, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(0)
    with torch.device(device):
        lm = AutoModelForCausalLM.from_config(config, attn_implementation=attention, **{DTYPE_ARGUMENT: dtype})
    lm.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0)
    return lm.requires_grad_(False).eval()


def load_pair(
    shape: str,
    dtype: torch.dtype,
    device: str,
    need_small: bool = True,
    data_dir: str = "data",
    vocabulary: int = VOCABULARY,
    attention: str = "sdpa",
) -> Pair:
    """The models of a shape; `vocabulary` rows in the embedding tables of the random ones; `attention`: the library's
    attn_implementation."""
    toy = [
        LmSource(str(ROOT / "toy" / name), "--shape", dtype=dtype, device=device, attn_implementation=attention)
        for name in ("large", "small")
    ]
    tokenizers = [load_tokenizer(source) for source in toy]
    if shape == "tiny":
        lms = [load_frozen_lm(source) for source in toy[: 1 + need_small]]
    else:
        rows = benchmark_rows(shape, 1319, data_dir)
        texts = ["\n".join([row.question, *row.steps, row.answer]) for row in rows]
        tokenizers = [bpe_tokenizer(texts, tokenizers[0].chat_template)] * 2
        lms = [random_lm(sizes, vocabulary, dtype, device, attention) for sizes in SHAPES[shape][: 1 + need_small]]
    return Pair(lms[0], lms[1] if need_small else None, *tokenizers)


# ---------------------------------------------------------------------------------------------------------------------
# Flags of both benchmarks


def positive(text: str) -> int:
    """An argparse type."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: a whole number above 0")
    return int(text)


def flags(doc: str, known: Sequence[str] = ("tiny", *SHAPES)) -> argparse.ArgumentParser:
    """A parser with the flags that the benchmarks share. known: the shapes that this one has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=known, default="cpu")
    parser.add_argument("--batch_size", type=positive, default=4, help="rows or questions at a time")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 for tiny, else bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data_dir", default="data", help="folder with gsm8k/test_socratic.jsonl, for real rows")
    parser.add_argument("--out", type=Path, help="write the JSON object there too")
    return parser


def read_flags(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """What was given; one line and exit status 2 for what cannot be run or written at the end."""
    args = parser.parse_args(argv)
    args.dtype = args.dtype or ("float32" if args.shape == "tiny" else "bfloat16")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is visible")
    if not Path(args.data_dir).is_dir():
        parser.error(f"--data_dir {args.data_dir}: no such folder")
    if args.out and not args.out.parent.is_dir():
        parser.error(f"--out {args.out}: no folder {args.out.parent}")
    return args


# ---------------------------------------------------------------------------------------------------------------------
# The machine


def matrix_rate(dtype: torch.dtype, device: str, size: int) -> float:
    """Operations a second of a (size x size) matrix product in `dtype`: the best of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(seconds_of(lambda: a @ b, device) for _ in range(10))
    return 2 * size**3 / best


def seconds_of(work, device: str) -> float:
    """Wall seconds of work(), with all that it started on the device."""
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def start_peak(device: str) -> None:
    """Forget the peak of memory so far, and give back what is free."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS


def memory(device: str) -> tuple[int, int]:
    """(now, peak since start_peak) in bytes: of the process on a CPU (Linux), allocated by torch on CUDA."""
    if device != "cpu":
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))


def machine(device: str) -> str:
    """The device in words."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads of {platform.processor() or platform.machine()}"
