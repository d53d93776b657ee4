"""The exact value of a formula that is only arithmetic, without a library.

value(r"\\frac{3!}{2^{2}}")   ->  Fraction(3, 2)
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
    (re.compile(r"\\(?:left|right|,|!|;|:|\s)|\\?\$|\s+\Z"), ""),
    (re.compile(r"\\[dtc]?frac(?![a-zA-Z])\s*(\d)(?=\s*[\d{])"), r"\\frac{\1}"),
    (re.compile(r"\\[dtc]?frac(?![a-zA-Z])\s*(\{[^{}]*\})\s*(\d)"), r"\\frac\1{\2}"),
    (re.compile(r"\\[dtc]?frac\s*\{"), r"\\frac{"),
    (re.compile(r"\\sqrt\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\d.])(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}"), r"(\1+\2/\3)"),
    (re.compile(r"(?<![\d./^])(\d+) (\d+)\s?/\s?(\d+)(?![\d./])"), r"(\1+\2/\3)"),
    (re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}"), lambda m: _repeating(*m.groups())),
    (re.compile(r"(\d+|\(\d+\))\s*!"), r"fact(\1)"),
    (re.compile(r"\\(frac|sqrt|binom)"), r" \1"),
    (re.compile(r"\\(?:cdot|times|ast)(?![a-zA-Z])|[×·]"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])|[÷]"), "/"),
    (re.compile(r"\^"), "**"),
    (re.compile(r"\{"), "("),
    (re.compile(r"\}"), ")"),
    (re.compile(r"([\d)])\s+(?=frac|sqrt|binom|fact)|(\))\s*(?=\d)|(\d)(?=\()"), r"\1\2\3*"),
    (re.compile(r"(?<![\d.])0+(?=\d)"), ""),
)
ARITHMETIC = re.compile(r"(?:[\d\s.+*/()\[\]-]|frac|sqrt|binom|fact|(?<=\d)[eE](?=[-+]?\d{1,3}(?!\d)))+")
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@lru_cache(2**14)
def value(formula: str) -> Fraction | None:
    """The value of numbers with + - * / ^ !, fractions, mixed numbers, roots and binomials; None where it is not
    rational, is not only arithmetic or is too large."""
    if len(formula) > MAX_LENGTH or not re.search(r"\d", formula) or re.search(r"\d/\d+/", formula):
        return None
    for pattern, spelling in SPELLINGS:
        formula = pattern.sub(spelling, formula)
    formula = formula.strip()
    if not ARITHMETIC.fullmatch(formula):
        return None
    try:
        return _evaluate(ast.parse(formula, mode="eval").body, formula)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _evaluate(node: ast.expr, source: str) -> Fraction:
    """Raises ValueError for what has no rational value."""

    def of(part: ast.expr) -> Fraction:
        return _evaluate(part, source)

    match node:
        case ast.Constant():
            return Fraction(ast.get_source_segment(source, node) or "")
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -of(part)
        case ast.UnaryOp(op=ast.UAdd(), operand=part):
            return of(part)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(of(left), of(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](of(left), of(right))
        case ast.Call(func=ast.Call(func=ast.Name(id="frac"), args=[top]), args=[bottom]):
            return of(top) / of(bottom)
        case ast.Call(func=ast.Call(func=ast.Name(id="binom"), args=[n]), args=[k]):
            return Fraction(math.comb(_small(of(n)), _small(of(k))))
        case ast.Call(func=ast.Subscript(value=ast.Name(id="sqrt"), slice=degree), args=[part]):
            return _power(of(part), 1 / of(degree))
        case ast.Call(func=ast.Name(id="sqrt"), args=[part]):
            return _power(of(part), Fraction(1, 2))
        case ast.Call(func=ast.Name(id="fact"), args=[part]):
            return Fraction(math.factorial(_small(of(part))))
    raise ValueError("not arithmetic")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    top, degree = exponent.numerator, exponent.denominator
    if degree > 1:
        base = _root(base, degree)
    if abs(top) * max(base.numerator.bit_length(), base.denominator.bit_length()) > MAX_BITS:
        raise ValueError("too large")
    return base**top


def _root(number: Fraction, degree: int) -> Fraction:
    if number < 0 and degree % 2:
        return -_root(-number, degree)
    if number < 0:
        raise ValueError("not real")
    root = Fraction(round(number.numerator ** (1 / degree)), round(number.denominator ** (1 / degree)))
    if root**degree != number:
        raise ValueError("not rational")
    return root


def _small(number: Fraction) -> int:
    if number.denominator > 1 or not 0 <= number <= 1000:
        raise ValueError("no small whole number")
    return int(number)


def _repeating(whole: str, fixed: str, period: str) -> str:
    """0.1\\overline{6} as a fraction."""
    nines = int("9" * len(period) + "0" * len(fixed))
    return f"({int(whole + fixed + period) - int(whole + fixed or 0)}/{nines})"
