"""The frozen LMs: loading them, what makes one unfit, and how a prompt is read by one.

Shapes: B rows, T columns, P columns of a prefix.
"""

import difflib
import hashlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache

from lta_thinker.data_loader import InputError
from lta_thinker.layout import ChatLayout, encode

DTYPE_ARGUMENT = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
CACHE_BY_LAYERS = Version(transformers.__version__) >= Version("4.56")
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


def check_vocabulary(lm, tokenizer, chat: ChatLayout, flag: str) -> None:
    """InputError where words, or what the chat template writes, lie beyond the LM's embedding table: tokens were added
    without resizing it. Special tokens that nothing writes may (Gemma 3's for images do)."""
    rows, written = lm.get_input_embeddings().num_embeddings, encode(tokenizer, "".join(vars(chat).values()))
    unused = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - set(written)
    for word, i in tokenizer.get_vocab().items():
        if i >= rows and i not in unused:
            name = tokenizer.name_or_path
            raise InputError(
                f"{flag} {name}: token {word!r} is beyond the {rows} rows of its embedding table; resize it"
            )


def decoder(lm):
    """The causal LM without its head."""
    # to transformers 4.53 Gemma 3 is its own base model
    return lm.model if lm.base_model is lm else lm.base_model


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


def position_ids(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, (B, T) from a mask (B, T): padding anywhere shifts nothing."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def attention_mask(lm, mask: Tensor, queries: int) -> Tensor:
    """What the LM's last `queries` columns may attend to, from a padding mask (B, T): the mask itself, or, where the
    library would make no other of it, (B, 1, queries, T) bool. For its own the library reads the mask back from the
    device, which makes the device wait in every pass."""
    config, columns = lm.config.get_text_config(), torch.arange(mask.shape[1], device=mask.device)
    # FSDP2 puts a class of its own before the model's
    own = any("create_causal_mask" in vars(sys.modules[kind.__module__]) for kind in type(decoder(lm)).__mro__)
    if not own or config._attn_implementation != "sdpa" or has_windows(config):
        return mask
    rows = columns[len(columns) - queries :, None]
    # a padding column sees itself: no row of the softmax is empty
    return (((columns <= rows) & (mask[:, None] != 0)) | (columns == rows))[:, None]


def has_windows(config) -> bool:
    """Whether some layers attend to less than all that came before."""
    config = config.to_dict()
    return bool(config.get("sliding_window") or {*(config.get("layer_types") or [])} - {"full_attention"})


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


@torch.no_grad()
def read_prefix(lm, embeddings: Tensor, mask: Tensor) -> DynamicCache:
    """Keys and values of a left-padded prefix, embeddings (B, P, d) and mask (B, P), as constants: what is run behind
    it attends to them and adds nothing to them, however often (gradient checkpointing runs it twice)."""
    # layers with a sliding window keep all columns too: the library's masks hold the window
    cache = DynamicCache()
    decoder(lm)(
        inputs_embeds=embeddings,
        attention_mask=attention_mask(lm, mask, mask.shape[1]),
        position_ids=position_ids(mask),
        past_key_values=cache,
        use_cache=True,
    )

    def update(keys: Tensor, values: Tensor, layer: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        before = (cache.layers[layer].keys, cache.layers[layer].values) if CACHE_BY_LAYERS else cache[layer]
        return torch.cat([before[0], keys], dim=-2), torch.cat([before[1], values], dim=-2)

    cache.update = update
    return cache
