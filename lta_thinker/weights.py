"""A generator's trained weights: reading them, which generator they belong to, whether they fit, putting them in.

projection.bin, TransformerBlock.bin (published names and shapes, float32), or in a resume checkpoint model.safetensors
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lta_thinker.common import InputError
from lta_thinker.model import GENERATORS, PUBLISHED_DESIGN, Design, LatentThoughtModel, Sizes

PARAMS_FILE, ATT_FILE = "projection.bin", "TransformerBlock.bin"


class GeneratorWeights(NamedTuple):
    """The tensors of the two files by name; None for no such file."""

    projection: dict[str, Tensor] | None  # with the figures of standardized states
    block: dict[str, Tensor] | None  # with the prior, or the marks


def read_weights(path: str | Path, flag: str) -> dict[str, Tensor]:
    """A file of plain tensors (torch.load, weights_only) as float32; InputError when it is missing or anything else."""
    try:
        with open(path, "rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{flag} {path}: no such file") from None
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot be read ({error.strerror})") from None
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # on other files the reader fails in a dozen ways, from RuntimeError to struct.error
        raise InputError(f"{flag} {path}: not a PyTorch file of plain tensors") from None
    items = weights.items() if isinstance(weights, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in items):
        raise InputError(f"{flag} {path}: not a state dict")
    return as_float32(weights, f"{flag} {path}")


def as_float32(weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights as float32; InputError for tensors that are not plain: of integers or complex numbers, sparse, quantised,
    or without values (meta)."""
    for name, value in weights.items():
        kind = str(value.dtype).removeprefix("torch.")
        plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
        if not plain or not value.is_floating_point():
            what = kind if plain else f"{kind}, sparse, quantised or without values"
            raise InputError(f"{where}: tensor {name} is {what}, not plain floating-point numbers")
    return {name: value.float() for name, value in weights.items()}


def read_resume_weights(path: Path) -> GeneratorWeights:
    """What the two .bin files hold, from a resume checkpoint's model.safetensors. InputError when it is missing or
    broken."""
    try:
        state = {name: value for name, value in load_file(path).items() if not name.startswith("adapters.")}
        state = as_float32(state, str(path))
        return split_state({name.removeprefix("generator."): value for name, value in state.items()})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not readable ({error})") from None


def split_state(state: dict[str, Tensor]) -> GeneratorWeights:
    """A generator's state_dict split as its two files have it: the projection with the figures of standardized states,
    the block with the prior."""
    of_projection = ("projection.", "states.")
    projection = {name.removeprefix("projection."): v for name, v in state.items() if name.startswith(of_projection)}
    block = {name.removeprefix("block."): v for name, v in state.items() if not name.startswith(of_projection)}
    return GeneratorWeights(projection or None, block or None)


def infer_generator(weights: GeneratorWeights, d_small: int, d_large: int) -> str:
    """Which generator published weights (no thoughts.json) belong to, from the files and the projection's input size.

    InputError where the sizes leave it open or fit nothing.
    """
    projection, block = weights
    if block is not None and "marks" in block:
        raise InputError(
            "--att_file_name: the marks of coconut, whose thoughts the tuned LLM makes: --checkpoint FOLDER"
        )
    if projection is None:
        if block is not None and block.keys() == {"prior"}:
            return "prompt"
        raise InputError("--att_file_name needs --params_file_name: these weights belong to a projection")
    if "weight" not in projection or projection["weight"].ndim != 2:
        raise InputError("--params_file_name: not a projection (a Linear's `weight` and `bias`)")
    d_in = projection["weight"].shape[1]
    if block is None and d_in == d_large != d_small:
        raise InputError(
            f"--att_file_name: no {ATT_FILE}; this projection takes the large LLM's {d_in} features, so it is of block"
        )
    if block is None:
        return "small"
    if d_small == d_large == d_in:
        raise InputError(
            f"--thought_generator is needed: both LMs have hidden size {d_in}, so the files fit block and small_block"
        )
    if d_in not in (d_small, d_large):
        raise InputError(
            f"--params_file_name: its projection takes {d_in} features; the small LM has {d_small}, the large {d_large}"
        )
    return "block" if d_in == d_large else "small_block"


def check_weights(
    kind: str,
    sizes: Sizes,
    weights: GeneratorWeights,
    design: Design = PUBLISHED_DESIGN,
    names: tuple[str, str] = ("--params_file_name", "--att_file_name"),
) -> None:
    """InputError in one line where weights do not fit the generator; needs no LM. The key `prior` is optional, except
    in a prompt, which has nothing else. names: of the projection's weights and the block's, for the message."""
    with torch.device("meta"):
        generator = GENERATORS[kind](sizes, design)
    files = ((names[0], PARAMS_FILE, weights.projection), (names[1], ATT_FILE, weights.block))
    for (flag, file, given), wanted in zip(files, split_state(generator.state_dict()), strict=True):
        if given is None and wanted is None:
            continue
        if given is None or wanted is None:
            needed = "takes no" if wanted is None else "needs"
            raise InputError(f"{flag}: the generator {kind} {needed} {file}")
        if "prior" not in given and generator.has_block:
            wanted.pop("prior", None)
        for name in sorted(wanted.keys() ^ given.keys()):
            raise InputError(f"{flag}: {'no' if name in wanted else 'unknown'} tensor {name} for the generator {kind}")
        for name, tensor in wanted.items():
            if not given[name].isfinite().all():
                raise InputError(f"{flag}: tensor {name} holds values that are not finite")
            if (name.endswith("weight") or kind == "prompt") and not given[name].any():
                raise InputError(f"{flag}: tensor {name} holds nothing but zeros")
            if tensor.shape != given[name].shape:
                got, need = tuple(given[name].shape), tuple(tensor.shape)
                raise InputError(f"{flag}: tensor {name} is {got}, the generator {kind} of these models has {need}")


def load_weights(model: LatentThoughtModel, weights: GeneratorWeights) -> None:
    """Put weights that have passed check_weights into the model's generator; without `prior` its initial rows stay."""
    state: dict[str, Any] = {}
    for name, value in (weights.projection or {}).items():
        state[name if name.startswith("states.") else f"projection.{name}"] = value
    for name, value in (weights.block or {}).items():
        state[name if name in ("prior", "marks") else f"block.{name}"] = value
    if model.generator.has_prior and "prior" not in state:
        print(f"note: no learnable prior in {ATT_FILE}; the slots keep the generator's initial rows")
        state["prior"] = model.generator.prior
    model.generator.load_state_dict(state)
