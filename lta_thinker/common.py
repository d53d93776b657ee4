"""What every room needs: the error for bad input, files written all or nothing, versions, the ranks of this run."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

CHECKOUT = Path(__file__).resolve().parent.parent  # of an installed package: site-packages


class InputError(Exception):
    """Something that the user gave is wrong: the message is the one line that says what, where and what to do."""


# ---------------------------------------------------------------------------------------------------------------------
# Files


def write_text(path: Path, text: str) -> None:
    """The whole file or, when killed, none of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, value) -> None:
    """As write_text, indented."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path):
    """What a JSON file holds; InputError when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise InputError(f"{path}: not JSON ({error})") from None


def read_record(kind: Any, values, where: str):
    """An instance of the dataclass `kind` from a JSON object: each field is checked against its type, in nested
    dataclasses too.

    Other keys are passed over. InputError for a missing or wrong value; its message begins with `where` and names the
    key.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: not a JSON object")
    types, given = get_type_hints(kind), {}
    for field in fields(kind):
        if field.name not in values:
            if field.default is MISSING and field.default_factory is MISSING:
                raise InputError(f"{where}: has no {field.name}")
            continue
        given[field.name] = _read_value(types[field.name], values[field.name], f"{where}: {field.name}")
    return kind(**given)


def _read_value(wanted, value, where: str):
    """A value of a JSON file as the type `wanted` (a class, a union of them, list[...] or dict[str, ...])."""
    choices = get_args(wanted) if get_origin(wanted) is UnionType else (wanted,)
    for choice in choices:
        origin, inner = get_origin(choice) or choice, get_args(choice)
        if is_dataclass(choice) and isinstance(value, dict):
            return read_record(choice, value, where)
        if origin is dict and isinstance(value, dict) and inner:
            return {key: _read_value(inner[1], item, f"{where}.{key}") for key, item in value.items()}
        if origin is list and isinstance(value, list) and inner:
            return [_read_value(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
        if choice is Any:
            return value
        if isinstance(value, bool):  # Python counts it as an int
            fits = origin is bool
        else:
            fits = isinstance(value, (int, float) if origin is float else origin)  # JSON may write 1.0 as 1
        if fits:
            return value
    names = ["null" if choice is NoneType else getattr(choice, "__name__", str(choice)) for choice in choices]
    raise InputError(f"{where}: is {value!r:.60}, not {' or '.join(names)}")


def sha256_of(path: Path) -> str:
    """Digest of a file; InputError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def make_folder(folder: Path, instead: str = "") -> None:
    """Make a folder and those above it; InputError where that cannot be done. `instead` ends its message: what to do
    then."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made here ({error.strerror}){instead}") from None


def flatten(settings: dict, prefix: str = "") -> dict:
    """Nested settings as one level: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def first_line(error: Exception) -> str:
    """The first line of an error's message; the error's class where there is no message."""
    return str(error).strip().split("\n")[0] or type(error).__name__


# ---------------------------------------------------------------------------------------------------------------------
# Ranks


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run, as torchrun numbers them; rank 0 of 1 without torchrun.

    rank, world: this process's number and how many there are; in_node, node_size: the same among the processes of this
    machine.
    """

    rank: int
    world: int
    in_node: int
    node_size: int
    under_torchrun: bool

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0

    @property
    def speaks(self) -> bool:
        """Whether this process prints errors: one process on each machine does."""
        return self.in_node == 0


def ranks() -> Ranks:
    """The ranks of this process, from torchrun's environment variables."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    numbers = [int(os.environ.get(name, default)) for name, default in names.items()]
    return Ranks(*numbers, under_torchrun="LOCAL_RANK" in os.environ)


# ---------------------------------------------------------------------------------------------------------------------
# Versions


def versions() -> dict[str, str]:
    """Versions of what the figures depend on: this code's own first, then Python's and the libraries'."""
    import accelerate  # imported here: these take seconds
    import numpy
    import torch
    import transformers

    own = {"lta_thinker": source_version(), "python": platform.python_version()}
    return own | {library.__name__: library.__version__ for library in (torch, transformers, accelerate, numpy)}


@functools.cache
def source_version() -> str:
    """The checkout's commit, "-dirty" where files differ from it; without git, the installed package's version."""
    if (CHECKOUT / ".git").exists():
        describe = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):  # no git, or another user's checkout
            return "a checkout that git does not read"
    try:
        return importlib.metadata.version("lta-thinker")
    except importlib.metadata.PackageNotFoundError:
        return "a copy without git"
