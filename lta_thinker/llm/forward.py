"""How a frozen LM reads a prompt: masks, positions, and the prefix that is read once.

Shapes: B rows, T columns, P columns of a prefix.
"""

import copy
import sys
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn
from transformers import DynamicCache

from lta_thinker.common import InputError

CACHE_BY_LAYERS = Version(transformers.__version__) >= Version("4.56")


def body(lm) -> Any:
    """The causal LM without its head."""
    # in transformers 4.53 Gemma 3 is its own base model
    return lm.model if lm.base_model is lm else lm.base_model


def first_layers(lm, count: int) -> Any:
    """The LM's body with its first `count` layers and its last norm, sharing their weights. InputError for an LM whose
    body has no `layers`."""
    whole = body(lm)
    if not isinstance(getattr(whole, "layers", None), nn.ModuleList):
        raise InputError(f"--reader_layers: {type(whole).__name__} has no `layers` to choose from")
    part = copy.copy(whole)
    part.__dict__.pop("forward", None)  # a hook's, which would run the whole body
    part._modules = whole._modules | {"layers": whole.layers[:count]}
    return part


def position_ids(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, (B, T) from a mask (B, T): padding anywhere shifts nothing."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def attention_mask(lm, mask: Tensor, queries: int) -> Tensor:
    """What the LM's last `queries` columns may attend to, from a padding mask (B, T).

    Returns the mask that the library would make, (B, 1, queries, T) bool, where it is the plain causal one with sdpa;
    else the padding mask itself. The library would read the padding mask back from the GPU in every pass and so wait.
    """
    config, columns = lm.config.get_text_config(), torch.arange(mask.shape[1], device=mask.device)
    # FSDP2 puts a class of its own before the model's
    plain = any("create_causal_mask" in vars(sys.modules[kind.__module__]) for kind in type(body(lm)).__mro__)
    if not plain or config._attn_implementation != "sdpa" or has_windows(config):
        return mask
    rows = columns[len(columns) - queries :, None]
    # a padding column sees itself: no row of the softmax is empty
    return (((columns <= rows) & (mask[:, None] != 0)) | (columns == rows))[:, None]


def has_windows(config) -> bool:
    """Whether some layers attend to less than all that came before."""
    config = config.to_dict()
    other_layers = set(config.get("layer_types") or []) - {"full_attention"}
    return bool(config.get("sliding_window") or other_layers)


@torch.no_grad()
def read_prefix(lm, embeddings: Tensor, mask: Tensor) -> DynamicCache:
    """Keys and values of a left-padded prefix, embeddings (B, P, d) and mask (B, P), as a cache that stays constant:
    what is run behind the prefix attends to it and adds nothing to it (gradient checkpointing runs it twice)."""
    # layers with a sliding window keep all columns too: the library's masks apply the window
    cache: Any = DynamicCache()
    body(lm)(
        inputs_embeds=embeddings,
        attention_mask=attention_mask(lm, mask, mask.shape[1]),
        position_ids=position_ids(mask),
        past_key_values=cache,
        use_cache=True,
    )

    def update(keys: Tensor, values: Tensor, layer: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if CACHE_BY_LAYERS:
            before_keys, before_values = cache.layers[layer].keys, cache.layers[layer].values
        else:
            before_keys, before_values = cache[layer]
        return torch.cat([before_keys, keys], dim=-2), torch.cat([before_values, values], dim=-2)

    cache.update = update
    return cache
