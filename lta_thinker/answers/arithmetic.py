r"""The exact value of a formula that is only arithmetic, without a library.

value(r"\frac{3!}{2^{2}}")   ->  Fraction(3, 2)
"""

import ast
import math
import operator
import re
from fractions import Fraction
from functools import lru_cache

MAX_LENGTH = 300  # characters of a formula
MAX_BITS = 10_000  # of a power


def _root(match: re.Match) -> str:
    root = math.isqrt(int(match[1]))
    return f"({root})" if root**2 == int(match[1]) else match[0]


SPELLINGS = (  # LaTeX as Python's grammar has it, with whole numbers alone, in this order
    (re.compile(r"\\[,; ]"), ""),
    *2 * ((re.compile(r"\\[dtc]?frac\s*(\{[^{}]*\})?\s*(\d)"), r"\\frac\1{\2}"),),  # \frac12
    (re.compile(r"(?<![\d./^])(\d+)(?: +(\d+)\s?/\s?(\d+)(?![\d./])|\s*\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\})"), r"(\1+\2\4/\3\5)"),
    (  # 0.1\overline{6}
        re.compile(r"(\d*\.(\d*))\\overline\{(\d+)\}"),
        lambda match: f"({match[1]}0+{match[3]}/{'9' * len(match[3])}{'0' * len(match[2])})",
    ),
    (re.compile(r"(\d*)\.(\d+)"), lambda match: f"({match[1]}{match[2]}/1{'0' * len(match[2])})"),
    (re.compile(r"(?<=[\d)])[eE]([-+]?\d{1,3})(?!\d)"), r"*10**(\1)"),
    (re.compile(r"(?<!\d)(\d{1,3})\s*!"), lambda match: str(math.factorial(int(match[1])))),
    (re.compile(r"\\sqrt\s*\{(\d+)\}"), _root),
    (re.compile(r"\\[dtc]?frac\s*(?=\{)|(?<=\d)\.(?!\d)"), ""),
    (re.compile(r"\}\s*\{"), ")/("),
    (re.compile(r"\\(?:cdot|times)(?![a-zA-Z])"), "*"),
    (re.compile(r"(?<!\d)0+(?=\d)"), ""),  # 007
)
PYTHON = str.maketrans({"{": "(", "}": ")", "^": "**"})
ARITHMETIC = re.compile(r"(?!.*\d/\d+/)[\d\s+*/()-]*\d[\d\s+*/()-]*")  # no date
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@lru_cache(2**14)
def value(formula: str) -> Fraction | None:
    """The value of numbers with + - * / ^ !, fractions, mixed numbers and square roots; None where it is not rational,
    is not only arithmetic or is too large."""
    if len(formula) > MAX_LENGTH:
        return None
    for pattern, spelling in SPELLINGS:
        formula = pattern.sub(spelling, formula)
    formula = formula.strip().translate(PYTHON)
    try:
        return _evaluate(ast.parse(formula, mode="eval").body) if ARITHMETIC.fullmatch(formula) else None
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _evaluate(node: ast.expr) -> Fraction:
    """Raises ValueError for what has no rational value."""
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -_evaluate(part)
        case ast.UnaryOp(op=ast.UAdd(), operand=part):
            return _evaluate(part)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _evaluate(left), _evaluate(right)
            if not isinstance(op, ast.Pow):
                return OPERATORS[type(op)](a, b)
            bits = max(a.numerator.bit_length(), a.denominator.bit_length())
            if b.denominator == 1 and abs(b) * bits <= MAX_BITS:
                return a**b.numerator
    raise ValueError("not rational, or not arithmetic")
