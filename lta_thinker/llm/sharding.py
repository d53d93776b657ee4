"""--shard_llm: the frozen LLM's layers spread over the GPUs of a node, by PyTorch's FSDP2 (torch.distributed.fsdp).

A rank holds a part of every layer. A layer is gathered before it runs, and freed after it. The rest (embedding table,
last norm, head) is whole on every rank. The LLM is frozen, so no gradient is sent; the generator stays in DDP and its
checkpoints are the same files.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from packaging.version import Version
from torch import Tensor, nn

from lta_thinker.common import InputError, ranks
from lta_thinker.llm.forward import body
from lta_thinker.llm.frozen import LmSource, load_frozen_lm

# PyTorch's sharding is imported where it is used: it takes a second

OLDEST_TORCH = "2.7"  # fully_shard's ignored_params


def check_can_shard(world_size: int) -> None:
    """InputError for an old torch, a process without torchrun, or nodes with different numbers of processes."""
    if Version(torch.__version__) < Version(OLDEST_TORCH):
        raise InputError(f"--shard_llm needs torch {OLDEST_TORCH} or newer, this is {torch.__version__}")
    here = ranks()
    if not here.under_torchrun:
        raise InputError("--shard_llm shares the LLM among torchrun's processes: torchrun --nproc_per_node=GPUS")
    if here.in_node >= here.node_size or world_size % here.node_size:
        raise InputError(
            f"--shard_llm needs as many processes on every node and LOCAL_WORLD_SIZE, how many (now {here.node_size} "
            f"of {world_size}): start them by torchrun"
        )


def shard_mesh(device_type: str):
    """The DeviceMesh of the ranks that share an LLM: those of a node, which have the fastest links. All ranks where
    every node has one."""
    from torch.distributed.device_mesh import init_device_mesh

    world, in_node = dist.get_world_size(), ranks().node_size
    if in_node == 1:
        return init_device_mesh(device_type, (world,))
    return init_device_mesh(device_type, (world // in_node, in_node), mesh_dim_names=("node", "gpu"))["gpu"]


def load_sharded(source: LmSource) -> nn.Module:
    """The frozen LM with its layers sharded, on the source's device. A collective: all ranks call it. Those of a node
    take turns, so that the host's memory holds one whole LM at a time.

    Raises InputError where the LM has no `layers`.
    """
    mesh, here = shard_mesh(torch.device(source.device).type), ranks()
    lm: Any = None
    for turn in range(here.node_size):
        if turn == here.in_node:
            lm = load_frozen_lm(replace(source, device="cpu"))
            shard_layers(lm, mesh)
            lm.to(source.device)
        dist.barrier()
    return lm


def whole_tensor(weight: Tensor) -> Tensor:
    """A whole weight of a sharded LM. A collective: all ranks call it for the same weights, in one order."""
    from torch.distributed.tensor import DTensor

    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def parameters_here(lm: nn.Module) -> int:
    """How many of an LM's parameters this rank holds."""
    from torch.distributed.tensor import DTensor

    return sum(w.to_local().numel() if isinstance(w, DTensor) else w.numel() for w in lm.parameters())


def shard_layers(lm: nn.Module, mesh) -> None:
    """Shard an LM's layers over the mesh, in place."""
    from torch.distributed.fsdp import fully_shard  # of the torch that check_can_shard asks for

    base = body(lm)
    if not isinstance(getattr(base, "layers", None), nn.ModuleList):
        raise InputError(f"--shard_llm: {type(base).__name__} has no `layers` to shard")
    for layer in base.layers:
        fully_shard(layer, mesh=mesh)
    # a root over the layers, with no parameters of its own: it gathers one layer while the one before it runs
    sharded = {weight for layer in base.layers for weight in layer.parameters()}
    fully_shard(base, mesh=mesh, ignored_params=set(base.parameters()) - sharded)
