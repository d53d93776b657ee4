"""What both scripts say at their start and end: what is loaded, which flags are given, what to type next.

Nothing here imports torch: the first word is printed before the imports, which take seconds.
"""

import dataclasses
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lta_thinker.common import ranks
from lta_thinker.usage import flag_name, groups_of

UNSAID = {"verbose", "config"}  # flags that are not told; what a --config holds is
MOST_LINES = 5  # of flags, at the start


def last_value(words: Sequence[str], name: str) -> str | None:
    """The value of a flag on a command line, the last where it is there several times."""
    value = None
    for word, behind in zip(words, [*words, ""][1:], strict=True):
        own, given, inside = word.partition("=")
        if own.replace("-", "_") == f"__{name}":
            value = inside if given else behind
    return value


def first_word(script: str, what: str) -> None:
    """Say what the program is about to do, from one process of a run."""
    if ranks().is_first:
        print(f"{script}: loading torch and transformers, then {what}", flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# Flags that are not at their defaults


def departures(args: Any) -> dict[str, Any]:
    """{name: value} of the flags of a dataclass that are not at their defaults, without passwords: in the order of
    --help, the library's last."""
    own = [field.name for members in groups_of(type(args)).values() for field in members]
    fields = {field.name: field for field in dataclasses.fields(args) if field.init}
    found = {}
    for name in dict.fromkeys([*own, *fields]):
        field, value = fields[name], getattr(args, name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value == default or _is_empty(value) and _is_empty(default):
            continue
        if name not in UNSAID and not name.endswith("token"):
            found[name] = value
    return found


def _is_empty(value: Any) -> bool:
    """Whether a flag of this value is as one that was not given: the library's parser makes one of these of another. 0
    is a value."""
    return value is None or value is False or value in ("", "no")


def flag_words_of(args: Any, values: dict[str, Any]) -> list[list[str]]:
    """These flags as a command line has them, each with its value."""
    fields = {field.name: field for field in dataclasses.fields(args)}
    flags = []
    for name, value in values.items():
        switch = isinstance(fields[name].default, bool)
        if switch and value != fields[name].default:
            flags.append([flag_name(fields[name])])
        else:
            values_of = value if isinstance(value, list) else [value]
            flags.append([flag_name(fields[name]), *map(_text_of, values_of)])
    return flags


def _text_of(value: Any) -> str:
    """A flag's value as it is typed; a number in its shortest form that is the same number."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def departure_lines(args: Any, found: dict[str, Any]) -> list[str]:
    """The flags of `found` in MOST_LINES lines; those that have no room are counted."""
    width = min(120, shutil.get_terminal_size(fallback=(120, 40)).columns)
    lines, words = [], [shlex.join(flag) for flag in flag_words_of(args, found)]
    while words and len(lines) < MOST_LINES:
        last = len(lines) == MOST_LINES - 1
        line, room = " ", width - len(f" ({len(words)} more: --verbose)") * last
        while words and (line == " " or len(line) + 1 + len(words[0]) <= room):
            line += f" {words.pop(0)}"
        lines.append(line)
    if words:
        lines[-1] += f" ({len(words)} more: --verbose)"
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# Disk, and the next command


def disk_line(*folders: Path) -> str:
    """Where a run writes, and how much room there is."""
    there = next(path for path in (folders[0], *folders[0].absolute().parents) if path.exists())
    return f"  disk: {', '.join(map(str, folders))}; {shutil.disk_usage(there).free / 1e9:.1f} GB are free"


def command(script: str, words: Sequence[str]) -> str:
    """A command line of "train.py" or "evaluate.py", of the installed package's command where that is running."""
    installed = Path(sys.argv[0]).name.startswith("lta-")
    program = f"lta-{script.removesuffix('.py')}" if installed else f"python {script}"
    return f"{program} {shlex.join(words)}"
