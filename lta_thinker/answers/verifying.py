"""The second process of verifier.py: reads pairs of formulas, a line of JSON each, and answers each with [whether
math-verify says that they are equal, its own seconds]. Imports nothing of this project: it is run by its path."""

import json
import os
import signal
import sys
import time
from functools import lru_cache

PAIR_SECONDS = 1.0  # of this process's own time, for a pair; then it ends
READY = "ready\n"  # its first line


def main() -> None:
    """Answers until there are no more pairs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the first process
    replies = os.fdopen(os.dup(1), "w", encoding="ascii", errors="replace", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    try:
        same = _load()
    except ImportError as error:
        replies.write(f"{error}\n")
        return
    replies.write(READY)
    for line in sys.stdin:
        began = time.process_time()
        _end_after(PAIR_SECONDS)
        equal = same(*json.loads(line))
        _end_after(0)
        replies.write(json.dumps([equal, time.process_time() - began]) + "\n")


def _load():
    from math_verify import LatexExtractionConfig, parse, verify

    @lru_cache(2**10)
    def parsed(formula: str) -> list:
        return parse(f"${formula}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=0)

    def same(a: str, b: str) -> bool:
        try:
            left, right = parsed(a), parsed(b)
            if not left or not right:
                return False
            return verify(left, right, timeout_seconds=None) or verify(right, left, timeout_seconds=None)
        except Exception:  # sympy raises whatever happens in it
            return False

    same(r"\frac{1}{2}", "0.5")  # what the library does once
    return same


def _end_after(seconds: float) -> None:
    """The end of this process after so many seconds of its own time, whatever it does then; 0: no end."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends a process that does not ask for it


if __name__ == "__main__":
    main()
