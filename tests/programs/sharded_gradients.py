"""Of two ranks: a sharded LLM has half of every layer, and gradients through it are those of the whole one, to the bit.

torchrun --nproc_per_node=2 sharded_gradients.py FOLDER_OF_AN_LM
"""

import functools
import gc
import sys

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from lta_thinker.llm.forward import attention_mask, body, read_behind, read_prefix
from lta_thinker.llm.frozen import LmSource, fingerprint, load_frozen_lm
from lta_thinker.llm.sharding import load_sharded, whole_tensor


def main():
    source = LmSource(sys.argv[1], "--large_model_id")
    whole, sharded = load_frozen_lm(source), load_sharded(source)
    assert fingerprint(whole) == fingerprint(sharded, whole_tensor)
    for one, other in zip(body(whole).layers.parameters(), body(sharded).layers.parameters(), strict=True):
        assert isinstance(other, DTensor) and 2 * other.to_local().numel() == one.numel() and not other.requires_grad
    torch.manual_seed(dist.get_rank())
    x, mask = torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.long)
    mask[1, :2] = 0
    assert attention_mask(sharded, mask, 5).equal(attention_mask(whole, mask, 5))  # of our own making for both
    for recomputed in (False, True):
        grads = []
        for lm in (whole, sharded):
            if recomputed:
                for layer in body(lm).layers:
                    layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
            thoughts = x[:, 4:].clone().requires_grad_()
            states, _ = read_behind(lm, thoughts, mask, read_prefix(lm, x[:, :4], mask[:, :4]))
            states.square().sum().backward()
            grads.append(thoughts.grad)
        assert grads[0].abs().max() > 0 and torch.equal(*grads)


dist.init_process_group("gloo")
main()
gc.collect()
dist.destroy_process_group()
