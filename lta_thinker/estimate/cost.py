"""What some work takes, counted at PyTorch's dispatcher: live bytes by part, operations, bytes moved, kernels.

    with on_fake_tensors("cuda"):            # shapes and dtypes alone: no memory, no arithmetic, no GPU
        model = ...
        with Counter() as counter:
            counter.hold("LLM", model.parameters())
            model(x).sum().backward()
    counter.cost.peak, counter.cost.operations

It runs the very code of a run, over real tensors as well as over fake ones. What a kernel takes inside itself is not
seen: an allocator's rounding to 512 bytes is counted, its gaps and a library's workspaces are not.
"""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from lta_thinker import losses
from lta_thinker.common import InputError, first_line

ROUNDED_TO = 512  # bytes: PyTorch's allocator on CUDA
ACTIVATIONS = "activations"
READ_BY_ROW = {"embedding", "gather", "index", "index_select"}  # they read what they return, not the whole table
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
aten = torch.ops.aten


@dataclass
class Cost:
    """Of some work: operations (floating-point ones, of matrix products and attention), bytes that its kernels read and
    write, how many kernels it starts, the peak of live bytes, and what that was, by part."""

    operations: float = 0
    moved: int = 0
    kernels: int = 0
    peak: int = 0
    parts: dict[str, int] = field(default_factory=dict)


def _attention_operations(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_operations(grad_out, query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_backward_flop_count(grad_out, query, key, value)


# the CPU's kernels, which fake tensors take: PyTorch's counter knows those of CUDA
CPU_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_operations,
}


@contextlib.contextmanager
def on_fake_tensors(like: str = "cuda", tables: Iterable[dict] = (losses.BLOCK,)) -> Iterator[None]:
    """Within it new tensors have shapes and no memory. They say "cpu", so that it works without a GPU; like: the device
    ("cpu", "cuda") whose way is taken where `tables`, by type of device, say that there are two.

    InputError for what cannot be run without values.
    """
    before = [(table, table["cpu"]) for table in tables]
    for table, _ in before:
        table["cpu"] = table[like]
    try:
        with FakeTensorMode():
            yield
    except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException) as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"--estimate: this model or optimizer looks at values, and here are none ({what})") from None
    finally:
        for table, value in before:
            table["cpu"] = value


class Counter(TorchDispatchMode):
    """Counts all that runs within it; `cost` is what it found so far. New tensors belong to `part`."""

    def __init__(self):
        super().__init__()
        self.cost, self.part = Cost(), ACTIVATIONS
        self._live: dict[int, tuple[str, int]] = {}  # part and bytes, by the address of a storage
        self._now: dict[str, int] = {}  # bytes by part
        self._all = 0
        self._operations = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)

    def __enter__(self):
        self._operations.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._operations.__exit__(*error)

    @contextlib.contextmanager
    def holding(self, part: str) -> Iterator[None]:
        """Within it new tensors belong to that part."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def hold(self, part: str, tensors: Iterable[Tensor]) -> None:
        """These tensors belong to that part; they may have been there before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata in self._live:
                before, size = self._live[storage._cdata]
                self._now[before] -= size
                self._live[storage._cdata] = part, size
                self._now[part] = self._now.get(part, 0) + size
            else:
                self._add(storage, part)
        self._look()

    def restart(self) -> Cost:
        """What was counted so far; from now on it counts anew, with what lives."""
        self.cost.operations = float(self._operations.get_total_flops())
        done, self.cost = self.cost, Cost()
        self._operations.flop_counts.clear()
        self._look()
        return done

    def _add(self, storage: Any, part: str) -> None:
        size = -(-storage.nbytes() // ROUNDED_TO) * ROUNDED_TO
        address = storage._cdata
        self._live[address] = part, size
        self._now[part] = self._now.get(part, 0) + size
        self._all += size
        weakref.finalize(storage, self._remove, address)

    def _remove(self, address: int) -> None:
        part, size = self._live.pop(address)
        self._now[part] -= size
        self._all -= size

    def _look(self) -> None:
        if self._all > self.cost.peak:
            self.cost.peak, self.cost.parts = self._all, {part: size for part, size in self._now.items() if size}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = 0
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._live:
                    self._add(storage, self.part)
                    made += _bytes(tensor)
        self._look()
        name = func._schema.name.rpartition("::")[2]
        if (made or func._schema.is_mutable) and name not in NO_KERNEL:
            self.cost.kernels += 1
            read = made if name in READ_BY_ROW else sum(map(_bytes, tree_leaves((args, kwargs))))
            self.cost.moved += made + read
        return out


def _bytes(value: Any) -> int:
    """A tensor's bytes, of an expanded one those that there are; 0 of anything else."""
    if not isinstance(value, Tensor):
        return 0
    return min(value.numel() * value.element_size(), value.untyped_storage().nbytes())
