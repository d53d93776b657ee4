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
import gc
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
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lta_thinker import losses
from lta_thinker.common import InputError, first_line

ROUNDED_TO = 512  # bytes: PyTorch's allocator on CUDA
ACTIVATIONS = "activations"
READ_BY_ROW = {"embedding", "gather", "index", "index_select"}  # they read what they return, not the whole table
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


@dataclass
class Cost:
    """Of some work: operations (floating-point ones, of matrix products and attention), bytes that its kernels read and
    write, how many kernels it starts, the peak of live bytes, and what that was, by part."""

    operations: float = 0
    moved: int = 0
    kernels: int = 0
    peak: int = 0
    parts: dict[str, int] = field(default_factory=dict)


def _attention(query, key, value, *args, **kwargs) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(gradient, query, key, value, *args, **kwargs) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


aten: Any = torch.ops.aten
# operations of a call, by operator: PyTorch's formulas (those of its FlopCounterMode), which lack the CPU's attention,
# and that is what fake tensors take
FORMULAS: dict[Any, Any] = dict(flop_registry) | {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
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

    def __enter__(self):
        gc.freeze()  # what is there already need not be looked through at every restart
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        gc.unfreeze()

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

    def live(self, part: str) -> int:
        """Bytes of a part that live now."""
        return self._now.get(part, 0)

    def restart(self) -> Cost:
        """What was counted so far; from now on it counts anew, with what lives."""
        gc.collect()  # a prefix's cache refers to itself, and would live on for a while
        done, self.cost = self.cost, Cost()
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
        kwargs = kwargs or {}
        out, made = func(*args, **kwargs), 0
        for tensor in _tensors((out,)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._live:
                self._add(storage, self.part)
                made += _bytes(tensor)
        self._look()
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.cost.operations += formula(*args, **kwargs, out_val=out)
        name = func._schema.name.rpartition("::")[2]
        if (made or func._schema.is_mutable) and name not in NO_KERNEL:
            self.cost.kernels += 1
            read = made if name in READ_BY_ROW else sum(map(_bytes, _tensors((*args, *kwargs.values()))))
            self.cost.moved += made + read
        return out


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operator's arguments or results, and in their lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _bytes(tensor: Tensor) -> int:
    """A tensor's bytes, of an expanded one those that there are."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
