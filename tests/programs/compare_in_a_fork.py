"""Compares formulas before a fork, and then in both processes; each prints what it found."""

import os

from lta_thinker.answers import answers_equal

answers_equal("x^2+4x+4", "(x+2)^2", "latex")
child = os.fork()
if child:
    os.waitpid(child, 0)
PAIRS = [("x^2+2x+1", "(x+1)^2"), ("x^2+2x+1", "(x+1)^3"), ("x^2+6x+9", "(x+3)^2")]
print([answers_equal(a, b, "latex") for a, b in PAIRS], flush=True)
