"""How a frozen LM reads a prompt: masks, positions, and the prefix that is read once.

Shapes: B rows, T columns, P columns of a prefix.
"""

import copy
import sys
from collections.abc import Sequence
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


KeysAndValues = Sequence[tuple[Tensor, Tensor]]  # of each layer, (B, H, T, D) both


def read_behind(lm, embeddings: Tensor, mask: Tensor, before: KeysAndValues = ()) -> tuple[Tensor, KeysAndValues]:
    """Read columns behind others that were read already: embeddings (B, T, d), the mask of all columns (B, P + T), and
    keys and values `before` at the first P of them -> the last hidden states (B, T, d), and keys and values of all
    P + T columns. `before` stays as it is, so gradient checkpointing may run a layer twice."""
    # layers with a sliding window keep all columns too: the library's masks apply the window
    cache: Any = DynamicCache()
    for layer, (keys, values) in enumerate(before):
        cache.update(keys[:1, :1, :, :1].detach(), values[:1, :1, :, :1].detach(), layer)  # asked for its length alone
    after: dict[int, tuple[Tensor, Tensor]] = {}

    def update(keys: Tensor, values: Tensor, layer: int, *args, **kwargs) -> tuple[Tensor, Tensor]:
        parts = [*before[layer : layer + 1], (keys, values)]
        after[layer] = torch.cat([part[0] for part in parts], dim=-2), torch.cat([part[1] for part in parts], dim=-2)
        return after[layer]

    cache.update = update
    out = body(lm)(
        inputs_embeds=embeddings,
        attention_mask=attention_mask(lm, mask, embeddings.shape[1]),
        position_ids=position_ids(mask)[:, -embeddings.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )
    return out.last_hidden_state, list(after.values())


@torch.no_grad()
def read_prefix(lm, embeddings: Tensor, mask: Tensor) -> KeysAndValues:
    """Keys and values of a left-padded prefix, embeddings (B, P, d) and mask (B, P)."""
    return read_behind(lm, embeddings, mask)[1]
