"""Ends with 1 where reading an answer has imported sympy."""

import sys

from lta_thinker import answers

answers.extract_answer("$x$", "latex")
sys.exit("sympy" in sys.modules)
