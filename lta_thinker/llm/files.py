"""A model's safetensors: which tensors they have, and the tensors themselves, memory-mapped.

files = WeightFiles(source)
files.places.keys(), files["model.norm.weight"]
"""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils.hub import cached_file

from lta_thinker.common import InputError, read_json

if TYPE_CHECKING:
    from lta_thinker.llm.frozen import LmSource


def has_safetensors(source: "LmSource") -> bool:
    """Whether the model's weights are safetensors."""
    return any(find_file(source.model_id, name) for name in (SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME))


def find_file(model_id: str, name: str, local_files_only: bool = False) -> str | None:
    """The path of a file of a model (hub id or folder), None where it has none. local_files_only: the hub is not asked,
    only its cache."""
    try:
        return cached_file(model_id, name, local_files_only=local_files_only)
    except OSError:  # no such file
        return None


def pickled_dtypes(source: "LmSource") -> dict[str, torch.dtype]:
    """The dtype of each tensor in the model's pytorch_model.bin, or in the files of its index; empty without one."""
    index = find_file(source.model_id, WEIGHTS_INDEX_NAME)
    names = set(read_json(Path(index))["weight_map"].values()) if index else {WEIGHTS_NAME}
    dtypes = {}
    for path in filter(None, (find_file(source.model_id, name) for name in sorted(names))):
        is_zip = zipfile.is_zipfile(path)  # not before torch 1.6, and then it cannot be mapped
        tensors = torch.load(path, map_location="meta", weights_only=True, mmap=is_zip)
        dtypes |= {name: tensor.dtype for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    return dtypes


class WeightFiles:
    """A model's safetensors, in a folder or on the hub: name -> tensor, memory-mapped."""

    def __init__(self, source: "LmSource"):
        """Raises InputError where the model has no safetensors, or a broken index."""
        self.source, self.opened = source, {}
        try:
            index = find_file(source.model_id, SAFE_WEIGHTS_INDEX_NAME)
            if index is not None:
                self.places = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
                if not all(isinstance(name, str) for pair in self.places.items() for name in pair):
                    raise ValueError("its weight_map is not names of files by names of tensors")
                return
            single = find_file(source.model_id, SAFE_WEIGHTS_NAME)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{source.name}: {SAFE_WEIGHTS_INDEX_NAME} is broken ({error})") from None
        if single is None:
            raise InputError(
                f"{source.name}: no {SAFE_WEIGHTS_NAME} there; save it as safetensors (save_pretrained does)"
            )
        self.places = dict.fromkeys(self._open(SAFE_WEIGHTS_NAME).keys(), SAFE_WEIGHTS_NAME)

    def _open(self, name: str):
        """A file, opened once: each search for a file of a hub model is a request."""
        if name not in self.opened:
            path = find_file(self.source.model_id, name)
            if path is None:
                raise InputError(f"{self.source.name}: no {name} there, which its index names")
            try:
                self.opened[name] = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise InputError(f"{self.source.name}: {name} is broken ({error})") from None
        return self.opened[name]

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._open(self.places[name]).get_tensor(name)
        except SafetensorError as error:
            raise InputError(f"{self.source.name}: {self.places[name]} is broken ({error})") from None

    def dtype(self, name: str) -> str:
        """The dtype of a tensor as its file has it: "BF16", "I64", ..."""
        try:
            return self._open(self.places[name]).get_slice(name).get_dtype()
        except SafetensorError as error:
            raise InputError(f"{self.source.name}: {self.places[name]} is broken ({error})") from None
