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
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import FiniteSet, I, Or
    from sympy.core.relational import Relational

    # units and names are ours (latex.py): the library would take the variables of "7 ab" for one
    config = LatexExtractionConfig(normalization_config=NormalizationConfig(malformed_operators=True, nits=True))

    @lru_cache(2**10)
    def parsed(formula: str) -> list:
        """With i as the imaginary unit, and "x < 2, x > 3" as one set."""
        found: list = parse(f"${formula}$", extraction_config=[config], parsing_timeout=0)
        found = [
            one if isinstance(one, str) else one.subs({i: I for i in one.free_symbols if str(i) == "i"})
            for one in found
        ]
        if found and isinstance(found[0], FiniteSet) and all(isinstance(part, Relational) for part in found[0]):
            found[0] = Or(*found[0].args).as_set()  # pyright: ignore[reportArgumentType]
        return found

    @lru_cache(2**10)
    def number(formula: str) -> complex | None:
        return _number(parsed(formula))

    def same(a: str, b: str) -> bool:
        try:
            left, right = parsed(a), parsed(b)
            if not left or not right:
                return False
            number_a, number_b = number(a), number(b)
            if number_a is not None and number_b is not None:
                if abs(number_a - number_b) > 1e-6 * max(abs(number_a), abs(number_b)):
                    return False
            return verify(left, right, timeout_seconds=None) or verify(right, left, timeout_seconds=None)
        except Exception:  # sympy raises whatever happens in it
            return False

    same(r"\frac{1}{2}", "0.5")  # what the library does once
    return same


def _number(found: list) -> complex | None:
    """The value of a formula with fixed values for its variables; None where it is no expression."""
    from sympy import Expr, Rational

    if not found or not isinstance(found[0], Expr):
        return None
    values = {name: Rational(3 + sum(map(ord, str(name))) * 7919 % 97, 89) for name in found[0].free_symbols}
    try:
        return complex(found[0].subs(list(values.items())).evalf())
    except Exception:
        return None


def _end_after(seconds: float) -> None:
    """The end of this process after so many seconds of its own time, whatever it does then; 0: no end."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends a process that does not ask for it


if __name__ == "__main__":
    main()
