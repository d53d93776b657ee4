"""Runs commands, each with its log, at most one at a time on each place: a GPU, or a slot of the CPU.

checkpoints.py, paper.py and study.py use it. A command has a process group of its own, and whatever ends the main
program ends these groups too:

    stop_on_signals()
    with Runner(["0", "1"]) as runner:
        for item, result in runner.each(work, items):    # work(item, place) calls runner.run(Command(...))
            ...
"""

import contextlib
import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lta_thinker.names import CARD_NAMES

SECONDS_TO_END = 60  # from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Command:
    """Its output goes to the end of the log. The environment is this program's own, with these changes."""

    arguments: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a command ended: why it failed (None where it did not), and what it printed."""

    failure: str | None
    output: str


class Runner:
    """Runs commands on places. Leaving its `with` block by an exception ends what is running."""

    def __init__(self, places: Iterable[str] = ("",)):
        self.free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for place in places:
            self.free.put(place)
        self.pool = ThreadPoolExecutor(self.free.qsize())
        self.running: set[subprocess.Popen] = set()
        self.lock = threading.Lock()
        self.stopped = False

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is not None:
            self.stop()
        self.pool.shutdown()

    def each(self, work: Callable[[Any, str], Any], items: Iterable) -> Iterator[tuple[Any, Any]]:
        """Call work(item, place) for every item, in their order, as soon as a place is free. Yields (item, result) in
        the order in which they end."""

        def at_a_place(item):
            place = self.free.get()
            try:
                return work(item, place)
            finally:
                self.free.put(place)

        futures = {self.pool.submit(at_a_place, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()

    def run(self, command: Command) -> Ended:
        """Run a command to its end. Called by a worker thread: no signal interrupts those."""
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with open(command.log, "ab") as log:
            log.write(f"$ {shlex.join(command.arguments)}\n".encode())
            log.flush()
            start = log.tell()
            with self.lock:
                if self.stopped:
                    return Ended("stopped", "")
                child = subprocess.Popen(
                    command.arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | command.environment,
                    start_new_session=True,
                )
                self.running.add(child)
            code = child.wait()
            self.running.discard(child)
        with open(command.log, "rb") as log:
            log.seek(start)
            output = log.read().decode(errors="replace")
        return Ended(why_failed(code, output), output)

    def stop(self) -> None:
        """End every running command with its group, and start no other. SIGTERM first; SIGKILL after a minute or at a
        second interrupt."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            self.stopped = True
        children = list(self.running)
        try:
            signal_groups(children, signal.SIGTERM)  # torchrun passes it on and waits for its ranks
            for child in children:
                child.wait(SECONDS_TO_END)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            signal_groups(children, signal.SIGKILL)


def signal_groups(children: list[subprocess.Popen], number: int) -> None:
    for child in children:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.killpg(child.pid, number)


def why_failed(code: int, output: str) -> str | None:
    """None after exit status 0; else the signal, or the last line that says what was wrong."""
    if code == 0:
        return None
    if code < 0:
        return f"killed by signal {-code}"
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]  # torchrun writes many lines after it
    return (errors or lines or ["no output"])[-1]


def stop_on_signals() -> None:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt(the signal's number), but not under nohup."""

    def stop(number, _):
        raise KeyboardInterrupt(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def visible_card() -> str | None:
    """The name in CARD_NAMES of the first visible GPU; None where there is none or another."""
    if not shutil.which("nvidia-smi"):
        return None
    found = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return next((name for name in CARD_NAMES if name.upper() in found.stdout), None)
