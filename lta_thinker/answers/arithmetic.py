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

SPELLINGS = (  # LaTeX as Python's grammar has it, in this order; \frac{1}{2} is frac(1)(2)
    (re.compile(r"\\[,; ]"), ""),
    *2 * ((re.compile(r"\\[dtc]?frac\s*(\{[^{}]*\})?\s*(\d)"), r"\\frac\1{\2}"),),  # \frac12
    (re.compile(r"(?<![\d.])(\d+)\s*\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}"), r"(\1+\2/\3)"),
    (re.compile(r"(?<![\d./^])(\d+) +(\d+)\s?/\s?(\d+)(?![\d./])"), r"(\1+\2/\3)"),
    (  # 0.1\overline{6}
        re.compile(r"(\d*\.(\d*))\\overline\{(\d+)\}"),
        lambda match: f"({match[1]}0+{match[3]}/{'9' * len(match[3])}{'0' * len(match[2])})",
    ),
    (re.compile(r"(\d+)\s*!"), r" fact(\1)"),
    (re.compile(r"\\[dtc]?(frac|sqrt)\s*(?=\{)"), r" \1"),
    (re.compile(r"\\(?:cdot|times)(?![a-zA-Z])"), "*"),
    (re.compile(r"(?<![\d.])0+(?=\d)"), ""),  # 007
)
PYTHON = str.maketrans({"{": "(", "}": ")", "^": "**"})
ARITHMETIC = re.compile(r"(?!.*\d/\d+/)(?:[\d\s.+*/()-]|frac|sqrt|fact|(?<=\d)[eE](?=[-+]?\d{1,3}(?!\d)))+")  # no date
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@lru_cache(2**14)
def value(formula: str) -> Fraction | None:
    """The value of numbers with + - * / ^ !, fractions, mixed numbers and square roots; None where it is not rational,
    is not only arithmetic or is too large."""
    if len(formula) > MAX_LENGTH or not re.search(r"\d", formula):
        return None
    for pattern, spelling in SPELLINGS:
        formula = pattern.sub(spelling, formula)
    formula = formula.strip().translate(PYTHON)
    try:
        return _evaluate(ast.parse(formula, mode="eval").body, formula) if ARITHMETIC.fullmatch(formula) else None
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _evaluate(node: ast.expr, source: str) -> Fraction:
    """Raises ValueError for what has no rational value."""
    match node:
        case ast.Constant():
            return Fraction(ast.get_source_segment(source, node) or "")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=part):
            return _evaluate(part, source) * (-1 if isinstance(sign, ast.USub) else 1)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = _evaluate(left, source), _evaluate(right, source)
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if exponent.denominator == 1 and abs(exponent) * bits <= MAX_BITS:
                return base**exponent.numerator
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_evaluate(left, source), _evaluate(right, source))
        case ast.Call(func=ast.Call(func=ast.Name(id="frac"), args=[top]), args=[bottom]):
            return _evaluate(top, source) / _evaluate(bottom, source)
        case ast.Call(func=ast.Name(id="sqrt"), args=[part]):
            square = _evaluate(part, source)
            root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
            if root**2 == square:
                return root
        case ast.Call(func=ast.Name(id="fact"), args=[ast.Constant(value=int(number))]) if number <= 1000:
            return Fraction(math.factorial(number))
    raise ValueError("not rational, or not arithmetic")
