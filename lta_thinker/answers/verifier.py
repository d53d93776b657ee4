"""Equality of two formulas by the math-verify library (sympy), in a process of its own, and what that may cost.

budget = Budget()                        # of one vote, say
budget.same("x^2+2x+1", "(x+1)^2")       ->  True

Sympy can take for ever, and only the end of its process stops it for sure. So it runs in a second process, which is
started by the first comparison that needs it, serves all threads of this one, ends with it, and is started anew where
a comparison took too long. It is a fresh interpreter that imports math-verify alone (verifying.py): nothing is forked.

A pair takes too long after PAIR_SECONDS of the second process's own time, which other programs on the machine do not
lengthen; and what comes when a budget is used up comes too late. Such pairs are unequal, and the budget counts them.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from lta_thinker.answers.verifying import PAIR_SECONDS, READY
from lta_thinker.common import InputError

BUDGET_SECONDS = 5.0  # of all pairs of a vote
WAIT_SECONDS = 60.0  # by the clock: where a system cannot limit a process's own time, or stands still
START_SECONDS = 120.0  # by the clock, for the library's imports


@dataclass
class Budget:
    """What the hard comparisons of one vote, or of one pair of answers, may cost.

    seconds: what is left, of the second process's own time; unsettled: pairs that took too long, or came too late.
    """

    seconds: float = BUDGET_SECONDS
    unsettled: int = 0
    known: dict[tuple[str, str], bool] = field(default_factory=dict)  # a pair costs once

    def same(self, a: str, b: str) -> bool:
        """Whether math-verify says that two formulas are equal, in either order; False where the pair is unsettled."""
        if (a, b) not in self.known:
            equal, seconds = _compared(a, b) if self.seconds > 0 else (None, 0.0)
            self.seconds -= seconds  # also for a pair of another budget, so that no vote hangs on those before it
            self.unsettled += equal is None
            self.known[a, b] = bool(equal)
        return self.known[a, b]


@lru_cache(2**16)
def _compared(a: str, b: str) -> tuple[bool | None, float]:
    """Whether two formulas are equal, None where it took too long, and the seconds that it took."""
    with _lock:
        process = _process if _process and _process.poll() is None else _start()
        began = time.monotonic()
        try:
            reply = _ask(process, json.dumps([a, b]) + "\n", WAIT_SECONDS)
        except BaseException:  # Ctrl-C, say: its answer would be taken for that of the next pair
            _stop()
            raise
        if not reply:
            _stop()
            return None, PAIR_SECONDS if time.monotonic() - began < WAIT_SECONDS else WAIT_SECONDS
    equal, seconds = json.loads(reply)
    return equal, seconds


# ---------------------------------------------------------------------------------------------------------------------
# The second process

_lock = threading.Lock()
_process: subprocess.Popen | None = None


def _start() -> subprocess.Popen:
    """InputError where the second process cannot be started."""
    global _process
    _stop()
    command = [sys.executable, "-P", str(Path(__file__).with_name("verifying.py"))]  # -P: this folder has no libraries
    pipe = subprocess.PIPE
    _process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="ascii")
    reply = _ask(_process, "", START_SECONDS)
    if reply != READY:
        _stop()
        raise InputError(f"{sys.executable}: math-verify cannot be started ({reply.strip() or 'no answer'})")
    return _process


def _ask(process: subprocess.Popen, line: str, seconds: float) -> str:
    """The process's next line, after it was sent this one; empty where it ended, or was ended as it took longer."""
    assert process.stdin and process.stdout
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        process.stdin.write(line)
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:  # it has just ended
        return ""
    finally:
        timer.cancel()


def _stop() -> None:
    """End the second process, if there is one."""
    global _process
    process, _process = _process, None
    if process:
        process.kill()
        with contextlib.suppress(OSError):  # of what it has not read
            process.communicate()


def _forget() -> None:
    """In a fork of this process: the second process is its parent's."""
    global _lock, _process
    _lock, _process = threading.Lock(), None


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
