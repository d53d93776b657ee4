"""How far something is: a bar in a terminal, a plain line every so often in a file or a pipe.

with Progress("questions", total=600) as progress:
    for ...:
        progress.update(note="vote 49.5 %")
        say("a line above the bar")
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

EVERY = 30.0  # seconds between two plain lines
INDENT = " " * 15  # of the parts of a line that stand below it
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"

Item = TypeVar("Item")


def say(line: str) -> None:
    """Print a line on stdout at once; a bar on the same terminal stands below it."""
    with tqdm.external_write_mode(file=sys.stdout):
        print(line, flush=True)


def in_terminal(line: str) -> str:
    """A line whose parts are two spaces apart, as stdout shows it: in a terminal that is too narrow for it, its last
    parts stand below, indented."""
    if not sys.stdout.isatty():
        return line
    first, *parts = line.split("  ")
    lines, width = [first], shutil.get_terminal_size().columns
    for part in parts:
        if len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"{INDENT}{part}")
    return "\n".join(lines)


def has_bars() -> bool:
    """Whether somebody sees bars, which are drawn on stderr."""
    return sys.stderr.isatty()


def duration(seconds: float) -> str:
    """0:07, 1:03, 2:00:05, 3 d 04:10."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """How many of `total` are done, and how long the rest takes at the mean speed since the start.

    what: of the bar and the lines; done: what was done before the start; quiet: no bar and no lines; lines: whether
    there are plain lines where a bar is not all that is seen; clock: seconds.
    """

    def __init__(
        self,
        what: str,
        total: int,
        done: int = 0,
        quiet: bool = False,
        lines: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.what, self.total, self.done, self.before, self.clock = what, total, done, done, clock
        self.start = self.told = clock()
        self.lines = lines and not quiet and not (has_bars() and sys.stdout.isatty())
        hidden = quiet or not has_bars()
        self.bar = tqdm(
            total=total, initial=done, desc=what, bar_format=BAR, disable=hidden, leave=False, dynamic_ncols=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self.clock() - self.start

    @property
    def eta(self) -> str:
        """How long the rest takes; "?" before anything is done."""
        done_here = self.done - self.before
        return duration(self.seconds / done_here * (self.total - self.done)) if done_here else "?"

    def update(self, count: int = 1, note: str = "") -> None:
        """So many more are done. note: what else is worth knowing now."""
        self.done += count
        notes, eta = [note] if note else [], f"ETA {self.eta}"
        self.bar.set_postfix_str("  ".join([eta, *notes]), refresh=False)  # what has no room is cut off at its end
        self.bar.update(count)
        if self.lines and self.done < self.total and self.clock() - self.told >= EVERY:
            self.told = self.clock()
            say("  ".join([f"{self.what} {self.done:,}/{self.total:,}", *notes, eta]))

    def close(self) -> None:
        self.bar.close()


def track(items: Iterable[Item], what: str, total: int, quiet: bool = False) -> Iterator[Item]:
    """The items, with the progress of those that were worked on."""
    with Progress(what, total, quiet=quiet) as progress:
        for item in items:
            yield item
            progress.update()
