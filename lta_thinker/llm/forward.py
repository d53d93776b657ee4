"""How a prompt is read by a frozen LM: masks, positions, and the prefix that is read once.

Shapes: B rows, T columns, P columns of a prefix.
"""

import sys

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import DynamicCache

CACHE_BY_LAYERS = Version(transformers.__version__) >= Version("4.56")


def body(lm):
    """The causal LM without its head."""
    # in transformers 4.53 Gemma 3 is its own base model
    return lm.model if lm.base_model is lm else lm.base_model


def position_ids(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, (B, T) from a mask (B, T): padding anywhere shifts nothing."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def attention_mask(lm, mask: Tensor, queries: int) -> Tensor:
    """What the LM's last `queries` columns may attend to, from a padding mask (B, T): the mask itself, or, where the
    library would make no other of it, (B, 1, queries, T) bool. For its own the library reads the mask back from the
    device, which makes the device wait in every pass."""
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
    """Keys and values of a left-padded prefix, embeddings (B, P, d) and mask (B, P), as constants: what is run behind
    it attends to them and adds nothing to them, however often (gradient checkpointing runs it twice)."""
    # layers with a sliding window keep all columns too: the library's masks hold the window
    cache = DynamicCache()
    body(lm)(
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
