"""What every room needs: the error for bad input, how a script ends, files written all or nothing, strict JSON, the
lock of a folder, the ranks of this run, versions."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

CHECKOUT = Path(__file__).resolve().parent.parent  # of an installed package: site-packages


class InputError(Exception):
    """Something that the user gave is wrong: the message is the one line that says what, where and what to do."""


# ---------------------------------------------------------------------------------------------------------------------
# The end of a script

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_program(run: Callable[[list[str]], int | None], argv: list[str], kept: str) -> int | None:
    """run(argv), its exit status. What the user or the machine can mend ends the process with one line on stderr, from
    one process on each machine: an InputError; an OSError of a named file, or of a disk without room; SIGINT, SIGTERM
    and SIGHUP. `kept` says what is there after a stop, and how to go on."""
    try:
        ranks()
    except InputError as error:  # which process this is cannot be told, so each says it
        sys.exit(f"error: {error}")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed (>&-)
            setattr(sys, name, open(os.devnull, "w"))
    try:
        with stopped_by_signals():
            status = run(argv)
            sys.stdout.flush()
            return status
    except InputError as error:
        end_with(f"error: {error}")
    except KeyboardInterrupt as stop:
        end_stopped(stop, kept)
    except BrokenPipeError:  # the reader of the output, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        name = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        end_with(f"error: {name}{error.strerror}" + (f"; {kept}" if error.errno in NO_ROOM else ""))
    except MemoryError:
        end_with("error: out of memory: try a smaller --batch_size")
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error):  # torch's
            end_with("error: out of memory: try a smaller --batch_size")
        if type(error).__name__ != "OutOfMemoryError":  # torch's; torch itself is not imported here
            raise
        process = ranks()
        where = f"process {process.rank}: " if process.world > 1 else ""  # it may be that of one alone
        remedy = "a smaller --batch_size; in training with more --gradient_accumulation_steps, or "
        sys.exit(f"error: {where}out of GPU memory ({first_line(error)}): try {remedy}--gradient_checkpointing")
    finally:
        unlock_folders()


def end_with(line: str) -> NoReturn:
    """Exit with status 1, after this line where this process speaks."""
    sys.exit(line if ranks().speaks else 1)


def end_stopped(stop: KeyboardInterrupt, kept: str) -> NoReturn:
    """Exit behind a signal, as stopped_by_signals raises it, with 128 + its number, after a line where this process
    speaks. kept: what is there now, and how to go on."""
    number = signal.Signals(stop.args[0] if stop.args else signal.SIGINT)
    if ranks().speaks:
        print(f"stopped by {number.name}: {kept}", file=sys.stderr)
    sys.exit(128 + number)


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within it the signals of STOPS raise KeyboardInterrupt(the signal's number), but for those that are ignored (as
    SIGHUP is under nohup)."""

    def stop(number, _):
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in STOPS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------------------------------------------------------------
# Files


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within it an OSError is an InputError that names `path`."""
    try:
        yield
    except OSError as error:
        what = "make room, and run the same command again" if error.errno in NO_ROOM else "nothing was written there"
        raise InputError(f"{path}: cannot be written ({error.strerror}); {what}") from None


def write_text(path: Path, text: str) -> None:
    """The whole file or, whatever happens, none of it: the file that was there stays. InputError where it cannot be
    written."""
    partial = path.with_name(path.name + ".partial")
    with writing(path):
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except BaseException:  # a signal too
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, value) -> None:
    """As write_text, indented. InputError where a number in it is not finite."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError:
        wrong = [name for name, number in flatten({"": value}).items() if not _is_finite(number)]
        raise InputError(f"{path}: not written, {', '.join(wrong)[:200]} would not be finite") from None
    write_text(path, text + "\n")


def _is_finite(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


DEEPEST = 100  # levels of JSON; what is read here has less than ten


def parse_json(text: str, where: str, finite: bool = True):
    """The value of a JSON text. InputError, which begins with `where`, for what is none: besides what Python refuses
    also a key that is twice in an object, text that is not Unicode (half a surrogate pair), and, if `finite`, numbers
    that are not finite."""
    number = _number if finite else float
    try:
        value = json.loads(text, parse_float=number, parse_constant=number, object_pairs_hook=_each_once)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        if _is_deep(value):
            raise RecursionError
        return value
    except RecursionError:
        raise InputError(f"{where}: not JSON (nested too deep to be read)") from None
    except UnicodeEncodeError:
        raise InputError(f"{where}: half a character (lone surrogates)") from None
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error})") from None


def _is_deep(value) -> bool:
    """Whether a value is nested deeper than functions that call themselves should follow: how deep JSON may be is
    another number in every Python."""
    level = [value]
    for _ in range(DEEPEST):
        inside = [item for item in level if isinstance(item, dict | list)]
        level = [child for item in inside for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def _number(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word:.40} is no finite number")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r:.40} is there twice")
    return values


def read_json(path: Path, finite: bool = True):
    """What a JSON file holds; InputError when it is missing or broken (parse_json)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: not UTF-8 text") from None
    return parse_json(text, str(path), finite)


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


LONGEST_NAME = 200  # bytes of a file's name that is made of others: 255 is what file systems take


def shortened(name: str) -> str:
    """A file's name that file systems take; a digest tells two long ones apart."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name.encode()[:LONGEST_NAME].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


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


LOCK_FILE = ".lock"
_held = {}  # {folder: the open file of this process's lock, with which it ends}


def lock_folder(folder: Path, instead: str = "") -> None:
    """Keep the folder for this process until run_program or the process ends, however it ends. InputError, which says
    who holds it, where another process does; `instead` ends its message."""
    folder = folder.resolve()
    if folder in _held:
        return
    path = folder / LOCK_FILE
    file = open(path, "a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).strip() or "another process"
        raise InputError(f"{folder}: {holder} is writing here{instead}") from None
    except OSError as error:  # some clusters' file systems have no locks
        print(f"note: {folder} cannot be locked ({error.strerror}); start no other run in it")
        return
    if os.fstat(file.fileno()).st_nlink == 0:  # its holder has just ended and taken it away
        file.close()
        return lock_folder(folder, instead)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},\n")
    file.flush()
    _held[folder] = file


def unlock_folders() -> None:
    """Give back what lock_folder has kept."""
    while _held:
        folder, file = _held.popitem()
        with file:
            (folder / LOCK_FILE).unlink(missing_ok=True)


def flatten(settings: dict, prefix: str = "") -> dict:
    """Nested settings as one level: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def counted(count: int, noun: str) -> str:
    """A number and what is counted, in its plural but for one: 1 GPU, 2 GPUs, 2 micro-batches."""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"


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


UNSET = "torchrun sets this environment variable; without torchrun: unset"


def ranks() -> Ranks:
    """The ranks of this process, from torchrun's environment variables. InputError for one that is no such number."""
    numbers = {}
    for name, least in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}.items():
        text = os.environ.get(name, str(least))
        if not text.isdecimal() or int(text) < least:
            raise InputError(f"{name}={text}: not a whole number from {least} on; {UNSET} {name}")
        numbers[name] = int(text)
    if numbers["RANK"] >= numbers["WORLD_SIZE"]:
        what = f"RANK={numbers['RANK']}: not below WORLD_SIZE={numbers['WORLD_SIZE']}"
        raise InputError(f"{what}; {UNSET} RANK")
    return Ranks(*numbers.values(), under_torchrun="LOCAL_RANK" in os.environ)


def check_can_meet() -> None:
    """InputError where WORLD_SIZE says that this is one of several processes, and what torchrun sets besides is not
    there: they could not meet."""
    world = ranks().world
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if not os.environ.get(name)]
    if world > 1 and missing:
        how = f"torchrun --nproc_per_node={world} starts {world} processes; for one: unset WORLD_SIZE"
        raise InputError(f"WORLD_SIZE={world}, but {', '.join(missing)} not set: {how}")


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
