"""What every room needs: the error for bad input, files written all or nothing, versions."""

import functools
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent  # installed, it is site-packages


class InputError(Exception):
    """Something that the user gave is wrong: the message is the one line that says what, where and what to do."""


def write_text(path: Path, text: str) -> None:
    """The whole file or, when killed, none of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> dict:
    """A JSON file; InputError when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def versions() -> dict[str, str]:
    """Of what the figures depend on, this code's own first."""
    import accelerate  # imported here: they take seconds
    import numpy
    import torch
    import transformers

    libraries = (torch, transformers, accelerate, numpy)
    own = {"lta_thinker": source_version(), "python": platform.python_version()}
    return own | {library.__name__: library.__version__ for library in libraries}


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
