"""The frozen LMs: loading them, what makes one unfit, and which one it is. How they read: forward.py.

source = LmSource("Qwen/Qwen3-8B", "--large_model_id", torch.bfloat16, "cuda")
llm, tokenizer = load_frozen_lm(source), load_tokenizer(source)
"""

import contextlib
import difflib
import hashlib
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from huggingface_hub.utils import validate_repo_id
from packaging.version import Version
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from lta_thinker.common import InputError, first_line, ranks, read_json
from lta_thinker.llm.files import WeightFiles, find_file, has_safetensors, pickled_dtypes
from lta_thinker.llm.forward import body, first_layers
from lta_thinker.llm.standin import ASSUMPTION, stand_in_tokenizer
from lta_thinker.progress import has_bars

MOST_FOLDERS = 6  # that are named where one is not there
DTYPE_ARGUMENT = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
ADAPTER_WEIGHT = re.compile(r"\.lora_[AB]\.default\.")  # as peft names them
KNOWN_MODEL_IDS = """
    Qwen/Qwen3-8B Qwen/Qwen3-4B Qwen/Qwen3-1.7B Qwen/Qwen3-0.6B Qwen/Qwen3-4B-Instruct-2507 Qwen/Qwen2.5-7B-Instruct
    Qwen/Qwen2.5-1.5B-Instruct meta-llama/Llama-3.1-8B-Instruct meta-llama/Llama-3.2-1B-Instruct
""".split()


@dataclass(frozen=True)
class LmSource:
    """An LM to load: a hub id or a folder, the flag that named it (for messages), and how it is loaded.

    device: "auto" spreads it over the visible GPUs. attn_implementation: sdpa, flash_attention_2, eager, ...; None is
    the library's choice. num_layers: how many of its first layers are kept (None: all). empty: it is made from its
    config.json alone, and no weights are read (--estimate).
    """

    model_id: str
    flag: str
    dtype: torch.dtype = torch.float32
    device: str | torch.device = "cpu"
    trust_remote_code: bool = False
    attn_implementation: str | None = None
    num_layers: int | None = None
    empty: bool = False

    def __post_init__(self):
        """InputError for an empty id."""
        if not self.model_id.strip():
            raise InputError(f"{self.flag} {self.model_id!r}: no name; a hub id or a folder")

    @property
    def name(self) -> str:
        """The flag and the model, as messages begin."""
        return f"{self.flag} {self.model_id}"


CONFIG_NUMBERS = """
    hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size max_position_embeddings
    rms_norm_eps
""".split()
LOADED = {AutoConfig: "config", AutoTokenizer: "tokenizer", AutoModelForCausalLM: "weights"}


@contextlib.contextmanager
def library_bars() -> Iterator[None]:
    """Within it the library's own bars are where ours are: in a terminal, of one process."""
    shown = transformers.logging.is_progress_bar_enabled()
    if shown and not (has_bars() and ranks().is_first):
        transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.logging.enable_progress_bar()


def check_is_there(source: LmSource) -> None:
    """InputError, before the hub is asked, for the name of a folder that is not there: one that no repository can
    have (./x, ../x, /x/y), or x/y where x is a folder here, but for known owners and what is in the hub's cache."""
    name, folder = source.model_id, Path(source.model_id)
    if "/" not in name or folder.exists():
        return
    try:
        validate_repo_id(name)
        may_be_on_hub = True
    except ValueError:
        may_be_on_hub = False
    if may_be_on_hub:
        owners = {known.split("/")[0] for known in KNOWN_MODEL_IDS}
        is_known = name.split("/")[0] in owners or find_file(name, CONFIG_NAME, local_files_only=True)
        if is_known or not folder.parent.is_dir():
            return
    there = [path.name for path in folder.parent.glob("*/") if not path.name.startswith(".")]
    there.sort(key=lambda own: -difflib.SequenceMatcher(None, own, folder.name).ratio())
    listed = f"in {folder.parent}/ are {', '.join(there[:MOST_FOLDERS])}{', ...' if len(there) > MOST_FOLDERS else ''}"
    if not there:
        listed = f"{folder.parent}/ has no folders" if folder.parent.is_dir() else f"nor is there {folder.parent}/"
    hint = f"; if it is a hub repository: hf download {name}" if may_be_on_hub else ""
    raise InputError(f"{source.name}: no such folder; {listed}{hint}")


def _load(loader, source: LmSource, **kwargs):
    check_is_there(source)
    try:
        with library_bars():
            return loader.from_pretrained(source.model_id, trust_remote_code=source.trust_remote_code, **kwargs)
    except Exception as error:  # missing, broken and unfit models fail in many ways, from OSError to SafetensorError
        reason = first_line(error)
        if reason.endswith(":"):  # the reason itself is on the next lines
            reason = " ".join(str(error).split())[:200]
        if isinstance(error, KeyError):
            reason = f"there is no {reason}"
        folder = Path(source.model_id)
        if folder.is_dir() and loader is AutoConfig and not (folder / CONFIG_NAME).exists():
            raise InputError(f"{source.name}: there is no {CONFIG_NAME} in this folder") from None
        if folder.is_dir():
            raise InputError(f"{source.name}: cannot be loaded ({LOADED[loader]}: {reason})") from None
        near = near_ids(source.model_id)
        hint = f"; near it: {', '.join(near)}" if near else ""
        what = f"no such folder here, and no such hub repository could be read{hint} ({reason})"
        raise InputError(f"{source.name}: {what}") from None


def near_ids(model_id: str) -> list[str]:
    """Up to three known ids and folders whose names are like this one, the most similar first; none for a known id."""
    if model_id in KNOWN_MODEL_IDS:
        return []
    known = KNOWN_MODEL_IDS + [str(path) for path in Path(model_id).parent.glob("*/")]
    near = difflib.get_close_matches(model_id, known, n=len(known), cutoff=0.6)
    return sorted(near, key=lambda name: -len(os.path.commonprefix([name, model_id])))[:3]


def load_config(source: LmSource):
    """The LM's config; InputError when there is none (with near ids), and for a model whose config says that it cannot
    work."""
    config = _load(AutoConfig, source)
    text = config.get_text_config().to_dict()
    for name in CONFIG_NUMBERS:
        value = text.get(name)
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise InputError(f"{source.name}: its config.json: {name} is {value!r:.60}, not a number above 0")
    for name in ("rope_parameters", "rope_scaling"):
        if not isinstance(text.get(name), dict | None):
            raise InputError(f"{source.name}: its config.json: {name} is {text[name]!r:.60}, not an object")
    for wrong, reason in (
        (config.is_encoder_decoder, "an encoder-decoder model is not supported, only causal LMs"),
        (text.get("hidden_size_per_layer_input"), "its layers read input_ids (hidden_size_per_layer_input)"),
        (text.get("hidden_size") is None, "its config has no hidden_size"),
        (text.get("intermediate_size") is None, "its config has no intermediate_size"),
        (text.get("final_logit_softcapping") is not None, "its head is more than a matrix (final_logit_softcapping)"),
        (text.get("logit_scale") is not None, "its head is more than a matrix (logit_scale)"),
        (text.get("logits_scaling") not in (None, 1), "its head is more than a matrix (logits_scaling)"),
    ):
        if wrong:
            raise InputError(f"{source.name}: {reason}")
    return config


def load_tokenizer(source: LmSource):
    """The LM's tokenizer; InputError when there is none. An empty LM may have none: then it is a stand-in."""
    try:
        tokenizer = _load(AutoTokenizer, source)
        # transformers 5 makes one without words where a folder has no file of it
        if len(tokenizer.get_vocab()) <= len(tokenizer.added_tokens_decoder):
            raise InputError(f"{source.name}: no tokenizer there; it belongs to the model's files")
    except InputError:
        if not source.empty:
            raise
    else:
        longest = tokenizer.model_max_length  # the library compares it with a text's length
        if not isinstance(longest, (int, float)):
            raise InputError(f"{source.name}: tokenizer_config.json: model_max_length: is {longest!r}, not a number")
        return tokenizer
    load_config(source)  # an LM that is not here at all has no stand-in either
    print(f"note: {source.name}: {ASSUMPTION}")
    return stand_in_tokenizer()


def num_positions(config) -> int | None:
    """How many columns an LM can read, from its config; None where that does not say it."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}  # before transformers 5
    kind = rope.get("rope_type", rope.get("type"))
    if positions and kind in ("linear", "dynamic", "yarn"):  # "llama3" and "longrope" count their factor in
        original = rope.get("original_max_position_embeddings") or positions
        positions = max(positions, int(original * rope.get("factor", 1)))
    return positions


# ---------------------------------------------------------------------------------------------------------------------
# Generation settings

# key of a generation_config.json: lowest and highest value, whether it is whole
GENERATION_LIMITS = {
    "temperature": (0, math.inf, False),
    "top_p": (0, 1, False),
    "top_k": (0, math.inf, True),
    "min_p": (0, 1, False),
    "repetition_penalty": (1e-3, 1e9, False),
}


def load_generation_config(model_id: str, config) -> GenerationConfig:
    """The generation settings of a model (hub id or folder); from its config where it has no such file.

    Raises InputError, with the file and the key, for a broken file and for values that cannot be.
    """
    path, folder = find_file(model_id, GENERATION_CONFIG_NAME), Path(model_id, GENERATION_CONFIG_NAME)
    if path is None and folder.is_dir():
        raise InputError(f"{folder}: a folder, not a file")
    if path is None:
        own, where = GenerationConfig.from_model_config(config), f"{model_id}: its config.json"
    else:
        where, values = path, read_json(Path(path))
        if not isinstance(values, dict):
            raise InputError(f"{path}: not a JSON object")
        try:
            own = GenerationConfig.from_dict(values)
        except Exception as error:  # it checks some values, in several ways
            raise InputError(f"{path}: not generation settings ({first_line(error)})") from None
    check_generation_config(own, where, config.get_text_config().vocab_size)
    return own


def check_generation_config(own: GenerationConfig, where: str, vocab_size: int) -> None:
    """InputError, with `where` and the key, for settings of a model that cannot be."""
    for key, (low, high, whole) in GENERATION_LIMITS.items():
        value = getattr(own, key, None)
        if value is None:
            continue
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high or math.isinf(value):
            kind = "a whole number" if whole else "a number"
            limits = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            raise InputError(f"{where}: {key} is {value!r:.60}, not {kind} {limits}")
    ends = own.eos_token_id
    for end in ends if isinstance(ends, list) else [] if ends is None else [ends]:
        if not isinstance(end, int) or isinstance(end, bool) or not 0 <= end < vocab_size:
            raise InputError(
                f"{where}: eos_token_id has {end!r:.60}, not a token of the {vocab_size:,} in the vocabulary"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Weights

FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors call them
# what weights can do, and the library's list of such tensors
LOADING_FAULTS = {
    "have no": "missing_keys",
    "have the unknown": "unexpected_keys",
    "have another shape of": "mismatched_keys",
}


def load_frozen_lm(source: LmSource):
    """A causal LM without gradients and dropout.

    Raises InputError for a missing model, for one whose weights are not all there or not all used, for one that does
    not read embeddings with a mask and positions (state-space models) or does not generate from them (some models with
    images), for one whose head is more than a matrix product, and for broken generation settings.
    """
    config = load_config(source)  # unfit models are refused before their weights are read
    generation_config = load_generation_config(source.model_id, config)
    if source.empty:
        return check_reads(source, empty_lm(source, config), generation_config)
    arguments: dict[str, Any] = {DTYPE_ARGUMENT: source.dtype, "output_loading_info": True}
    if Version(transformers.__version__) >= Version("5"):
        arguments["ignore_mismatched_sizes"] = True  # check_loaded names them, and its own error does not
    if not str(source.device).startswith("cpu"):  # "cpu:0" under torchrun
        # placed while it is read, so that no rank holds a whole LLM in host memory
        arguments["device_map"] = "auto" if source.device == "auto" else {"": source.device}
    if source.attn_implementation is not None:
        arguments["attn_implementation"] = source.attn_implementation
    loaded: Any = _load(AutoModelForCausalLM, source, **arguments)
    lm, found = loaded
    check_loaded(source, found, dict(lm.named_parameters()))
    if has_safetensors(source):
        check_files(source, WeightFiles(source), lm)
    else:
        check_dtypes(source, pickled_dtypes(source), lm)
    return check_reads(source, lm, generation_config)


def empty_lm(source: LmSource, config):
    """The LM of a config, its weights as the library makes new ones: of fake tensors no memory is taken."""
    arguments: dict[str, Any] = {DTYPE_ARGUMENT: source.dtype, "trust_remote_code": source.trust_remote_code}
    if source.attn_implementation is not None:
        arguments["attn_implementation"] = source.attn_implementation
    try:
        lm = AutoModelForCausalLM.from_config(config, **arguments)
    except (ImportError, ValueError) as error:  # no such attention here, or no such model
        raise InputError(f"{source.name}: cannot be made from its config ({first_line(error)})") from None
    return lm


def check_reads(source: LmSource, lm, generation_config: GenerationConfig):
    """load_frozen_lm's loaded LM as it is used; InputError for one that does not read embeddings or whose head is more
    than a matrix product."""
    lm.generation_config = generation_config
    for part in (lm.config, lm.config.get_text_config()):
        part.return_dict = True  # what is read of an LM's output is read by its name
    needed = [(body(lm).forward, name) for name in ("inputs_embeds", "attention_mask", "position_ids")]
    for function, name in [*needed, (lm.prepare_inputs_for_generation, "inputs_embeds")]:
        if name not in inspect.signature(function).parameters:
            raise InputError(f"{source.name}: {type(lm).__name__}.{function.__name__} takes no {name}")
    if getattr(lm.get_output_embeddings(), "bias", None) is not None:
        raise InputError(f"{source.name}: its head has a bias; such a head is not supported")
    if source.num_layers is not None:
        body(lm).layers = first_layers(lm, source.num_layers).layers
    return lm.requires_grad_(False).eval()


def check_loaded(source: LmSource, found: dict, weights: dict[str, Tensor]) -> None:
    """InputError where a model's files lack tensors of the LM, or have unknown ones or ones of other shapes (found: the
    library's loading info), and where a weight is no plain tensor in memory."""
    for what, key in LOADING_FAULTS.items():
        # transformers 5 has shapes beside the names of mismatched ones
        check_names(source, what, {name if isinstance(name, str) else name[0] for name in found[key]})
    for name, weight in weights.items():
        if weight.is_meta:
            why = "its file lacks it, or the LM does not fit on the visible GPUs"
            raise InputError(f"{source.name}: {name} is not in memory: {why}")
        if weight.layout != torch.strided or weight.is_complex():
            raise InputError(f"{source.name}: {name} is not a plain tensor of real numbers")


def check_files(source: LmSource, files: WeightFiles, lm) -> None:
    """InputError where a weight of the LM is no floating-point number in its file (the library would make it one), and
    where a head that the config ties to the embedding table has other values. A quantised LM is not looked at."""
    if hasattr(lm.config, "quantization_config"):
        return
    tables = {id(lm.get_input_embeddings().weight), id(lm.get_output_embeddings().weight)}
    both = []
    for name, weight in lm.named_parameters(remove_duplicate=False):
        if name not in files.places:
            continue
        if files.dtype(name) not in FLOATS:
            raise InputError(f"{source.name}: {name} holds {files.dtype(name)}, not floating-point numbers")
        if id(weight) in tables:
            both.append(name)
    tied = lm.config.get_text_config().tie_word_embeddings
    if tied and len(both) == 2 and not torch.equal(files[both[0]], files[both[1]]):
        why = "config.json says that they are one (tie_word_embeddings)"
        raise InputError(f"{source.name}: {both[0]} and {both[1]} differ, and {why}")


def check_dtypes(source: LmSource, dtypes: dict[str, torch.dtype], lm) -> None:
    """check_files for weights that are no safetensors: InputError where one is no floating-point number in its file."""
    for name, _ in lm.named_parameters(remove_duplicate=False):
        if name in dtypes and not dtypes[name].is_floating_point and not hasattr(lm.config, "quantization_config"):
            kind = str(dtypes[name]).removeprefix("torch.")
            raise InputError(f"{source.name}: {name} holds {kind}, not floating-point numbers")


def check_names(source: LmSource, what: str, names: set[str]) -> None:
    """InputError where there are such names: "its files `what` NAME"."""
    if names:
        first, *others = sorted(names)
        more = f" and {len(others)} more" if others else ""
        raise InputError(f"{source.name}: its weights {what} {first}{more}; they are not what its config.json says")


def check_vocabulary(lm, tokenizer, written: Iterable[int], flag: str) -> None:
    """InputError where words, or `written` tokens (of what the chat template writes), are beyond the LM's embedding
    table: tokens were added without resizing it. Special tokens that nothing writes may be beyond it (Gemma 3's for
    images are)."""
    rows = lm.get_input_embeddings().num_embeddings
    unused = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - set(written)
    for word, i in tokenizer.get_vocab().items():
        if i >= rows and i not in unused:
            what = f"token {word!r} is beyond the {rows} rows of its embedding table; resize it"
            raise InputError(f"{flag} {tokenizer.name_or_path}: {what}")


def check_cache(lm, flag: str) -> None:
    """InputError for a large LLM with layers other than attention, full or with a sliding window. Their state is more
    than keys and values, and the cache of the prefix holds only those."""
    types = set(lm.config.get_text_config().to_dict().get("layer_types") or [])
    others = types - {"full_attention", "sliding_attention"}
    if lm._is_stateful or others:
        layers = ", ".join(sorted(others)) or "recurrent"
        raise InputError(f"{flag} {lm.config.name_or_path}: its layers ({layers}) are not supported in the large LM")


# ---------------------------------------------------------------------------------------------------------------------
# Which LM it is


WORDS_IN_ROW = 512  # of the table that a weight's bits are read as


def fingerprint(lm, whole: Callable[[Tensor], Tensor] = lambda weight: weight) -> str:
    """A hash of an LM's own weights (weights_hash). An adapter in the LM (lora.py) changes nothing. `whole`: puts a
    weight of a sharded LM together."""
    own = ((name, whole(weight)) for name, weight in lm.named_parameters() if not ADAPTER_WEIGHT.search(name))
    return weights_hash((name.replace(".base_layer.", "."), weight) for name, weight in own)


@torch.no_grad()
def known_states(lm) -> str:
    """Of an LM's last states for 64 fixed tokens one number a token, as text. They show what its config.json says and
    no weight does: the rotary base, the norms' epsilon, the activation. An adapter in the LM changes them."""
    embed, config = lm.get_input_embeddings(), lm.config.get_text_config()
    columns = torch.arange(min(64, num_positions(config) or 64), device=embed.weight.device)
    tokens = columns * (embed.num_embeddings - 1) // len(columns)
    mask = torch.ones_like(columns)[None]
    states = body(lm)(
        inputs_embeds=embed(tokens[None]), attention_mask=mask, position_ids=columns[None], use_cache=False
    )[0][0]
    features = torch.arange(len(states), device=states.device)
    picked = states[features, features * states.shape[1] // len(states)]
    return " ".join(f"{number:.4g}" for number in picked.tolist())


def weights_hash(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None) -> str:
    """32 hex digits: the fingerprint of weights by name, as they are in `dtype` (None: in their own). The first 16, all
    that earlier versions had, are of 64 values of each tensor; the last 16 of every bit."""
    few, all_bits = hashlib.sha256(), hashlib.sha256()
    for name, weight in weights:
        flat = weight.detach().to(dtype or weight.dtype).flatten()
        few.update(name.encode() + flat[:: max(1, len(flat) // 64)].float().cpu().numpy().tobytes())
        all_bits.update(name.encode() + b"".join(part.cpu().numpy().tobytes() for part in sums_of_bits(flat)))
    return few.hexdigest()[:16] + all_bits.hexdigest()[:16]


def sums_of_bits(flat: Tensor) -> Iterator[Tensor]:
    """The bits of a tensor (n,) as a table of 64-bit words: the sums of its rows and of its columns, int64, which wrap
    round. They are exact, in whatever order they are added, and nearly as fast as the memory."""
    octets = flat.view(torch.uint8)
    words = F.pad(octets, (0, -len(octets) % (8 * WORDS_IN_ROW))).view(torch.int64).view(-1, WORDS_IN_ROW)
    yield words.sum(1)
    yield words.sum(0)
