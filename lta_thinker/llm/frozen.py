"""The frozen LMs: loading them, what makes one unfit, and their fingerprints. How they read: forward.py."""

import difflib
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from lta_thinker.common import InputError
from lta_thinker.llm.forward import decoder

DTYPE_ARGUMENT = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
ADAPTER_WEIGHT = re.compile(r"\.lora_[AB]\.default\.")  # as peft names them
KNOWN_MODEL_IDS = [
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-4B",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-4B-Instruct-2507",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.2-1B-Instruct",
]


def _load(loader, model_id: str, flag: str, **kwargs):
    try:
        return loader.from_pretrained(model_id, **kwargs)
    except Exception as error:  # missing, broken and unfit models fail in many ways, from OSError to SafetensorError
        folder = Path(model_id)
        known = KNOWN_MODEL_IDS + [str(path) for path in folder.parent.glob("*/")]
        near = difflib.get_close_matches(model_id, known, n=len(known), cutoff=0.6)
        near = sorted(near, key=lambda name: -len(os.path.commonprefix([name, model_id])))[:3]
        reason = str(error).strip().split("\n")[0]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise InputError(
            f"{flag} {model_id}: no such folder here, and no such hub repository could be read{hint} ({reason})"
            if not folder.is_dir()
            else f"{flag} {model_id}: cannot be loaded ({reason})"
        ) from None


def load_config(model_id: str, flag: str, trust_remote_code: bool = False):
    """Config of a hub id or folder; InputError (one line, with near ids) when there is none, and for a model that
    cannot work, as far as its config says so."""
    config = _load(AutoConfig, model_id, flag, trust_remote_code=trust_remote_code)
    text = config.get_text_config().to_dict()
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
            raise InputError(f"{flag} {model_id}: {reason}")
    return config


def load_tokenizer(model_id: str, flag: str, trust_remote_code: bool = False):
    """Tokenizer of a hub id or folder; InputError when there is none."""
    return _load(AutoTokenizer, model_id, flag, trust_remote_code=trust_remote_code)


def load_frozen_lm(
    model_id: str,
    flag: str,
    dtype: torch.dtype,
    device,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
):
    """A causal LM without gradients and dropout, on `device` ("auto" spreads it over the visible GPUs), with the
    library's choice of an attention or that one (sdpa, flash_attention_2, eager, ...).

    Raises InputError for a missing model, for one that does not read embeddings with a mask and positions (state-space
    models) or does not go on writing from them (some models with images), and for one whose head is more than a matrix
    product.
    """
    load_config(model_id, flag, trust_remote_code)  # refuses what it can before the weights are read
    # placed as it is read, so that no rank holds a whole LLM in host memory
    place = {"device_map": "auto" if device == "auto" else {"": device}}
    if str(device).startswith("cpu"):  # "cpu:0" under torchrun
        place = {}
    arguments = {DTYPE_ARGUMENT: dtype, "trust_remote_code": trust_remote_code, **place}
    if attn_implementation is not None:
        arguments["attn_implementation"] = attn_implementation
    lm = _load(AutoModelForCausalLM, model_id, flag, **arguments)
    needed = [(decoder(lm).forward, name) for name in ("inputs_embeds", "attention_mask", "position_ids")]
    for function, name in [*needed, (lm.prepare_inputs_for_generation, "inputs_embeds")]:
        if name not in inspect.signature(function).parameters:
            raise InputError(f"{flag} {model_id}: {type(lm).__name__}.{function.__name__} takes no {name}")
    if getattr(lm.get_output_embeddings(), "bias", None) is not None:
        raise InputError(f"{flag} {model_id}: its head has a bias; such a head is not supported")
    return lm.requires_grad_(False).eval()


def check_vocabulary(lm, tokenizer, template_text: str, flag: str) -> None:
    """InputError where words, or what the chat template writes (`template_text`), lie beyond the LM's embedding table:
    tokens were added without resizing it. Special tokens that nothing writes may (Gemma 3's for images do)."""
    rows = lm.get_input_embeddings().num_embeddings
    written = tokenizer(template_text, add_special_tokens=False).input_ids
    unused = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - set(written)
    for word, i in tokenizer.get_vocab().items():
        if i >= rows and i not in unused:
            name = tokenizer.name_or_path
            raise InputError(
                f"{flag} {name}: token {word!r} is beyond the {rows} rows of its embedding table; resize it"
            )


def fingerprint(lm, whole: Callable[[Tensor], Tensor] = lambda weight: weight) -> str:
    """A short hash of an LM's own weights (64 values of each tensor, as float32): other weights, other fingerprint. An
    adapter in the LM (tuning.py) changes nothing. `whole`: of a sharded LM, puts a weight together."""
    own = ((name, whole(weight)) for name, weight in lm.named_parameters() if not ADAPTER_WEIGHT.search(name))
    return weights_hash((name.replace(".base_layer.", "."), weight) for name, weight in own)


def weights_hash(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None) -> str:
    """fingerprint of weights by name, as they are in `dtype` (None: in their own)."""
    digest = hashlib.sha256()
    for name, weight in weights:
        flat = weight.detach().flatten()
        values = flat[:: max(1, len(flat) // 64)].to(dtype or flat.dtype)
        digest.update(name.encode() + values.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_cache(lm, flag: str) -> None:
    """InputError for a large LM whose layers remember more of what came before than keys and values of attention, full
    or with a sliding window: the prompt before the thoughts is read once, and its samples go on from there."""
    types = {*(lm.config.get_text_config().to_dict().get("layer_types") or [])} - {
        "full_attention",
        "sliding_attention",
    }
    if lm._is_stateful or types:
        layers = ", ".join(sorted(types)) or "recurrent"
        raise InputError(f"{flag} {lm.config.name_or_path}: its layers ({layers}) are not supported in the large LM")


def load_generation_config(model_id: str, config) -> GenerationConfig:
    """The generation settings a model comes with (hub id or folder); from its config where it has no such file."""
    try:
        return GenerationConfig.from_pretrained(model_id)
    except OSError:
        return GenerationConfig.from_model_config(config)
