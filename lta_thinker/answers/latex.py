"""LaTeX answers: the formula in a text, its canonical string, and equality, the hard cases by verifier.py.

    extract(text, r"\\dfrac{1}{2}.", [])     ->  r"\\frac{1}{2}"
    equal(r"\\frac{1}{2}", "0.5")            ->  True

Where the formula is: the first of these that holds one.
  1. the last complete box;
  2. after the last answer mark: the formulas between dollar signs right there ("$3$ and $5$" is "3, 5"), else the last
     one of the sentence, else the sentence itself where it has a digit or is of 1 to 5 words ("the answer is Evelyn");
  3. the last formula between dollar signs, \\( \\) or \\[ \\] in the last 20,000 characters.
Canonical strings are LaTeX without dollar signs, \\left, \\right, spacing, fonts, degree signs, a full stop at the end
and digit groups: "\\frac{1}{2}", "1000", "(0,\\infty)", "x = 5", "50\\%", "5\\text{ cm}". A sum that is only worked out
("9 \\cdot 2 = 18") is its result; "\\text{Evelyn}" is "Evelyn". More than 500 characters are no answer.

Equality, the first of these that applies:
  1. Units at the end (UNITS; "square", "cubic", "per") count only where both have one: 5 cm is 5, but not 5 km. So do
     the things that a plain number counts in \\text{ eggs}. Other words ("12 million", "10 am") stay, and texts with a
     word of three letters, a clock time or a difference in case only are compared by letter, words without case.
     Percent signs are dropped: 50\\% is 50 and not 0.5.
  2. "x = 5" is "5", for any bare variable or tuple of them; other equations ("f(3) = 4") are equal only to equations,
     where the differences of their sides are equal. "x = 1 or x = 2" is "1, 2"; "x = 1, y = 2" is not.
  3. Lists ("1, 2", "1 and 2", "3 \\pm 1") and sets have no order; tuples, points and intervals do, with their brackets,
     and are no lists. Numbers with a base ("25_8") are equal only to the same number with the same base.
  4. Whole numbers, decimals, fractions and mixed numbers are equal by exact value: 1/3 is not 0.333333.
  5. Formulas whose values differ by more than a millionth, with fixed values for variables, or are too large are
     unequal; for the rest the math-verify library decides, in either order of the two: roots and \\pi count to six
     decimal places. What takes it too long is unequal (verifier.py).
"""

import cmath
import math
import re
from fractions import Fraction
from functools import lru_cache

from lta_thinker.answers.verifier import Budget

MAX_LENGTH = 500  # characters; more is a model in a loop, not an answer
MAX_TAIL = 20_000  # characters at a text's end in which a formula is looked for without a box or a mark
MAX_WORDS = 5
MAX_PARTS = 20  # of a list; longer ones are compared by letter

FORMULA = re.compile(
    r"\$\$(?P<a>[^$]{1,1000})\$\$|\$(?P<b>(?:[^$\\\n]|\\.){1,500})\$|\\\((?P<c>[^\n]{1,500}?)\\\)"
    r"|\\\[(?P<d>.{1,1000}?)\\\]",
    re.DOTALL,
)
SENTENCE = re.compile(r"[\s*:]{0,9}(.{0,300}?)[*_]{0,3}(?=[.!?](?:[^\w$]|\Z)|\n|\Z|(?<=.{300}))")
LIST = re.compile(r"\s*(?:,|;|\band\b|\bor\b|,\s?and\b)\s*")
SPELLINGS = (  # applied in this order
    (re.compile(r"\\?\$|(?<!\\)\\[()\[\]]"), " "),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"∅|\\varnothing(?![a-zA-Z])|\\\{\s?\\\}"), r"\\emptyset "),
    (re.compile(r"×"), r"\\times "),
    (re.compile(r"÷"), r"\\div "),
    (re.compile(r"(?<![\\a-zA-Z])(?:infinity|∞)"), r"\\infty "),
    (re.compile(r"∪"), r"\\cup "),
    (re.compile(r"≤|\\leq(?:slant)?(?![a-zA-Z])"), r"\\le "),
    (re.compile(r"≥|\\geq(?:slant)?(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"(?:√|(?<![\\a-zA-Z])sqrt)\s?(?:\(([^()]{1,50})\)|(\d+))"), lambda m: rf"\sqrt{{{m[1] or m[2]}}}"),
    (re.compile(r"π|(?<![\\a-zA-Z])pi(?![a-zA-Z])"), r"\\pi "),
    (re.compile(r"(?<![\\a-zA-Z])(sin|cos|tan|log|ln)(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"(?<=\d)(?:\\,|\\!|\{,\}|,\\!|~|\\ )(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\(?:left|right)(?![a-zA-Z])\.?|\\[bB]igg?[lr]?(?![a-zA-Z])|\\displaystyle|\\!"), ""),
    (re.compile(r"(?<!\\)\\(?:[,;:> ]|q?quad(?![a-zA-Z]))|~|\s+"), " "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\frac\s?(\d)\s?(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\(?:math(?:rm|bf|it|sf)|boldsymbol|bm|text[a-z]{2}|mbox|operatorname)\s?\{"), r"\\text{"),
    (re.compile(r"\\sqrt\s?(\d+)"), r"\\sqrt{\1}"),
    (re.compile(r"(?:\^\s?\{?\s?(?:\\circ|°)\s?\}?|°|\\degree(?![a-zA-Z]))\s?(?:\\text\{\s?)?([CF])\b\}?"), r" °\1"),
    (re.compile(r"\^\s?\{?\s?(?:\\circ|°)\s?\}?|°(?![CF])|\\degree(?![a-zA-Z])"), ""),
    (re.compile(r"(?<!\\)%"), r"\\%"),
    (re.compile(r"[(\[]?\s?\\begin\{(?:[pb]?matrix|array\}\{[^{}]{0,50})\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{(?:[pb]?matrix|array)\}\s?[)\]]?"), r"\\end{pmatrix}"),
    (re.compile(r"[\s.,;:]+\Z|\A\s+"), ""),
    (re.compile(r" (?=[)\]])"), ""),
    (re.compile(r"\A\\text\{\s*([^{}]*?)[\s.]*\}\Z"), r"\1"),
    (re.compile(r"[\s.,;:]+\Z|\A\s+"), ""),
)
GROUPED = re.compile(r"-?\d{1,3}(?:[, ]\d{3}){1,9}(?:\.\d+)?")
WORKED_OUT = re.compile(r"(?:[\d\s.+*/^(){}-]|\\(?:cdot|times|div|frac|sqrt)(?![a-zA-Z]))+=")
_UNITS = """millimeter millimetre mm; centimeter centimetre cm; decimeter dm; kilometer kilometre km; meter metre m;
    inch inche in; foot feet ft; yard yd; mile mi; liter litre l; milliliter millilitre ml; gallon; quart; pint; cup;
    kilogram kg; milligram mg; gram g; pound lb; ounce oz; ton tonne; second sec s; minute min; hour hr h; day; week;
    month; year; dollar usd; cent; euro eur; rupee inr; mph; °c; °f; degree; radian rad; unit"""
UNITS = {word: names.split()[0] for names in _UNITS.split(";") for word in names.split()}
POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
UNIT = re.compile(
    r"(?:(?<=[\d})])|(?<=\\pi))\s?(?=\\text|[a-zA-Z°])((?:\\text\{[^{}]*\}|[a-zA-Z°/.^{} 23])+)\Z|\s?\\text\{[^{}]*\}\Z"
)
COUNTED = re.compile(
    r"(.*[\d}])\s?\\text\{\s?+(?!(?:hundred|thousand|[mbtr]+illion|dozen|half|percent|[ap]\.?m\.?)\b)[a-z ]{2,40}\}",
    re.IGNORECASE,
)
PERCENT = re.compile(r"\s?(?:\\%|percent|\\text\{\s?percent\s?\})\Z")
CLOCK = re.compile(r"\d:\d")
AND = re.compile(r"(?:,\s?)?(?:\\text\s?\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)")
RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|cup|cap|setminus)(?![a-zA-Z])")
NAME = r"(?:[a-zA-Z]|\\(?!pi)[a-z]{2,7})"
BARE = re.compile(rf"{NAME}|\({NAME}(?:,{NAME}){{1,5}}\)")
PLAIN = re.compile(r"(-?)(?:(\d*)\\frac\{(-?\d+)\}\{(-?\d+)\}|(\d+)/(\d+)|(\d+\.?\d*|\.\d+))")
_LETTERS = [*map(chr, range(65, 91)), *map(chr, range(97, 123))]
_LETTERS += [rf"\{name}" for name in "alpha beta gamma delta theta lambda mu phi rho sigma omega".split()]
VALUES = {letter: complex(0.5 + math.sqrt(i + 2) % 1) for i, letter in enumerate(_LETTERS)}
VALUES |= {"i": 1j, "e": complex(math.e), r"\pi": complex(math.pi)}
TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\[a-zA-Z]+|\S")
WORDS = re.compile(r"(?<![\\a-zA-Z])(?<!begin\{)(?<!end\{)[a-zA-Z]{3,}")
BASE = re.compile(r"[\dA-F]+_\{?(\d+)\}?")


def extract(text: str, box: str, after_marks: list[str]) -> str | None:
    """The canonical string of a text's answer, or None. `after_marks`: what follows each answer mark, last first."""
    if found := canonical(box):
        return found
    for after in after_marks:
        if found := _after_mark(after[:1000]):
            return found
    start = max(0, len(text) - MAX_TAIL)
    start = max(start, text.find("\n", start))  # not inside a formula: no short one has two lines
    formulas = [_inside(match) for match in FORMULA.finditer(text, start if len(text) > MAX_TAIL else 0)]
    return canonical(formulas[-1]) if formulas else None


def _inside(match: re.Match) -> str:
    """The formula in a match of FORMULA, without its dollar signs or brackets."""
    assert match.lastgroup
    return match[match.lastgroup]


def _after_mark(text: str) -> str | None:
    formulas = []
    text = text.lstrip(" \n*:_")
    while match := FORMULA.match(text):
        formulas.append(_inside(match))
        text = text[match.end() :]
        joint = LIST.match(text)
        if not joint:
            break
        text = text[joint.end() :]
    if formulas:
        return canonical(", ".join(formulas))
    sentence = SENTENCE.match(text)
    sentence = sentence[1] if sentence else ""
    if formulas := [_inside(match) for match in FORMULA.finditer(sentence)]:
        return canonical(formulas[-1])
    short = len(sentence.split()) <= MAX_WORDS
    return canonical(sentence) if short else None


def canonical(formula: str) -> str | None:
    """A formula, lightly cleaned; None where nothing is left of it, or too much."""
    if len(formula) > 2 * MAX_LENGTH:
        return None
    for pattern, spelling in SPELLINGS:
        formula = pattern.sub(spelling, formula)
    if GROUPED.fullmatch(formula):
        formula = re.sub("[, ]", "", formula)
    while "," not in formula and (worked_out := WORKED_OUT.match(formula)):
        formula = formula[worked_out.end() :].strip()
    return formula if formula.strip("{} ") and r"\boxed" not in formula and len(formula) <= MAX_LENGTH else None


def equal(a: str, b: str, budget: Budget) -> bool:
    """Whether two canonical strings mean the same; False where that takes too long to say, which the budget counts."""
    value_a, value_b = _whole_value(a), _whole_value(b)
    if value_a is not None and value_b is not None and _differ(value_a, value_b):
        return False
    (a, unit_a), (b, unit_b) = sorted((_without_unit(a), _without_unit(b)))
    for number, other in ((a, b), (b, a)):
        if _plain(number) is not None and (counted := COUNTED.fullmatch(other)):
            return _equal(number, counted[1], budget)
    return not (unit_a and unit_b and unit_a != unit_b) and _equal(a, b, budget)


def key(formula: str) -> Fraction | None:
    """The value of a plain number without a unit: such answers are equal if their values are. None for all else."""
    formula, unit = _without_unit(formula)
    return None if unit else _plain(_right_side(formula))


@lru_cache(2**14)
def _whole_value(formula: str) -> complex | None:
    """The finite value of an answer that is nothing but one formula; None for all else. It decides most comparisons."""
    base, unit = _without_unit(formula)
    formula = _right_side(base)
    other = (WORDS.search, CLOCK.search, BASE.search, RELATION.search, COUNTED.fullmatch)
    if unit or "=" in formula or _parts(formula) or any(is_it(one) for is_it in other for one in (base, formula)):
        return None
    value = _value(formula)
    return value if value is not None and cmath.isfinite(value) else None


def _differ(a: complex, b: complex) -> bool:
    return abs(a - b) > 1e-6 * max(abs(a), abs(b))


@lru_cache(2**14)
def _without_unit(formula: str) -> tuple[str, str]:
    """A formula without the unit at its end, and the unit's name; empty without one."""
    formula = PERCENT.sub("", formula)
    match = UNIT.search(formula, max(0, len(formula) - 80))
    if not match or not match.start():
        return formula, ""
    short = "/" in match[0] or "\\text" in match[0]  # else "5 m" is a product
    name, power = [], ""
    for word in re.findall(r"°?[a-z]+|[23/]", match[0].replace("\\text", "").lower()):
        base = UNITS.get(word) or UNITS.get(word.removesuffix("s"))
        if word in POWERS:
            power = POWERS[word]
        elif word in ("per", "/") or word in "23" and name:
            name.append("/" if word == "per" else word)
        elif base and (short or len(word) > 1):
            name += [base, power] if power else [base]
            power = ""
        else:
            return formula, ""
    return (formula[: match.start()].strip(), "" if "unit" in name else " ".join(name)) if name else (formula, "")


def _equal(a: str, b: str, budget: Budget) -> bool:
    """Of formulas without units."""
    a, b = sorted((_right_side(a), _right_side(b)))
    if a == b:
        return True
    parts_a, parts_b = _parts(a), _parts(b)
    if parts_a and parts_b:
        return _parts_equal(*parts_a, *parts_b, budget)
    if (parts_a or parts_b) and not RELATION.search(a + b):
        return False
    plain_a, plain_b = _plain(a), _plain(b)
    if plain_a is not None and plain_b is not None:
        return plain_a == plain_b
    words = WORDS.search(a) or WORDS.search(b)
    if words or a.casefold() == b.casefold():
        return bool(words) and a.casefold() == b.casefold()
    if any(pattern.search(one) for pattern in (CLOCK, BASE) for one in (a, b)):
        return False
    if a.count("=") == b.count("=") == 1:
        (left, right), (left_b, right_b) = a.split("="), b.split("=")
        difference = f"{left}-({right})"
        others = (f"{left_b}-({right_b})", f"{right_b}-({left_b})")
        return any(_verified(difference, other, budget) for other in others)
    return a.count("=") == b.count("=") and _verified(a, b, budget)


@lru_cache(2**14)
def _right_side(formula: str) -> str:
    """A formula without spaces, "x =" in front of it or "= x" after it, and brackets around all of it."""
    formula = re.sub(r"\\text\{\s*([^{}]*?)\s*\}", r" \1", AND.sub(", ", formula)).strip()
    if GROUPED.fullmatch(formula):
        formula = re.sub("[, ]", "", formula)
    elif re.search(r",\s", formula):  # "1,000, 2,000"
        formula = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", formula)
    formula = re.sub(r"(?<![a-zA-Z])\s+|\s+(?![a-zA-Z])", "", formula)
    formula = re.sub(r"(?<=[_^])\{(\w)\}", r"\1", formula)
    sides = formula.split("=")
    bare = [BARE.fullmatch(side) for side in sides]
    if len(sides) == 2 and any(bare):
        formula = "=".join(sorted(sides)) if all(bare) else sides[0] if bare[1] else sides[1]
    if formula[:1] == "(" and formula[-1:] == ")" and not re.search(r"[(),]", formula[1:-1]):
        formula = formula[1:-1]
    return formula.removeprefix("+")


@lru_cache(2**14)
def _parts(formula: str) -> tuple[str, list[str]] | None:
    """The brackets and the parts of a tuple or an interval; no brackets for a list or a set. None for all else."""
    parts = _split(formula)
    if "" in parts:  # "[0,1)" is fine, "1,)" is not
        return None
    if len(parts) == 1 and formula.startswith("\\{") and formula.endswith("\\}"):
        return "", _split(formula[2:-2])
    if len(parts) == 1 and formula[:1] in ("(", "[") and formula[-1:] in (")", "]"):
        inner = _split(formula[1:-1])
        if len(inner) > 1 and "" not in inner:
            return formula[0] + formula[-1], inner
    if len(parts) > 1:
        variables = {part.split("=")[0] if part.count("=") == 1 else "" for part in parts}
        return "", [part.split("=")[-1] for part in parts] if len(variables) == 1 else parts
    if formula.count(r"\pm") == 1:
        return "", [formula.replace(r"\pm", sign).removeprefix("+") for sign in "+-"]
    return None


def _split(formula: str) -> list[str]:
    """At the commas outside of brackets. An empty part says that a bracket closes which has not been opened."""
    parts, depth = [""], 0
    for char in formula:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return ["", formula]
        if char in ",;" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _parts_equal(brackets_a: str, parts_a: list[str], brackets_b: str, parts_b: list[str], budget: Budget) -> bool:
    if brackets_a != brackets_b or not len(parts_a) == len(parts_b) <= MAX_PARTS:
        return False
    if brackets_a:
        return all(_equal_part(a, b, budget) for a, b in zip(parts_a, parts_b, strict=True))
    left = list(parts_b)
    for a in parts_a:
        same = next((b for b in left if _equal_part(a, b, budget)), None)
        if same is None:
            return False
        left.remove(same)
    return True


def _equal_part(a: str, b: str, budget: Budget) -> bool:
    """With its variable: of "x=1,y=2" and "x=2,y=1" no part is equal."""
    names = [one.split("=")[0] if "=" in one else "" for one in (a, b)]
    return names[0] == names[1] and _equal(a, b, budget)


@lru_cache(2**14)
def _plain(formula: str) -> Fraction | None:
    """The value of a whole number, a decimal, a fraction or a mixed number."""
    match = PLAIN.fullmatch(formula)
    if not match:
        return None
    sign, whole, top, bottom, top_2, bottom_2, number = match.groups()
    top, bottom = int(top or top_2 or 0), int(bottom or bottom_2 or 1)
    if not bottom:
        return None
    value = Fraction(number.rstrip(".")) if number else int(whole or 0) + Fraction(top, bottom)
    return -value if sign else value


def _verified(a: str, b: str, budget: Budget) -> bool:
    value_a, value_b = _value(a), _value(b)
    if value_a is not None and value_b is not None:
        if not (cmath.isfinite(value_a) and cmath.isfinite(value_b)):
            return False
        if _differ(value_a, value_b):
            return False
    return budget.same(a, b)


@lru_cache(2**14)
def _value(formula: str) -> complex | None:
    """With fixed values for variables; infinite where it is too large, None where this reader does not know it."""
    tokens = [token for token in TOKEN.findall(formula) if token not in (r"\left", r"\right")]
    try:
        value = _sum(tokens[::-1], "")
    except OverflowError:
        return complex(math.inf)
    except (ValueError, IndexError, ZeroDivisionError, RecursionError):
        return None
    return None if cmath.isnan(value) else value


def _sum(tokens: list[str], end: str) -> complex:
    """Reads, from the end of `tokens`, up to `end`, and removes it. Raises ValueError for what it does not know."""
    value, sign = 0, 1
    while True:
        while tokens and tokens[-1] in "+-":
            sign *= -1 if tokens.pop() == "-" else 1
        value += sign * _product(tokens)
        sign = 1
        if not tokens and not end:
            return value
        if tokens[-1] == end:
            tokens.pop()
            return value
        if tokens[-1] not in "+-":
            raise ValueError(tokens[-1])


def _product(tokens: list[str]) -> complex:
    value, unclear, divided = _power(tokens), False, False
    while tokens and tokens[-1] not in "+-)]}":
        sign = tokens.pop() if tokens[-1] in ("*", "/", r"\cdot", r"\times", r"\div") else ""
        if not sign and (divided or tokens[-1] == r"\frac" or tokens[-1][0] in "0123456789."):
            unclear = True  # "1/2x" and "2\frac{1}{2}"
        divided = divided or sign == "/"
        factor = _power(tokens)
        value = value / factor if sign in ("/", r"\div") else value * factor
    if unclear:
        raise ValueError("a mixed number, or what is divided")
    return value


def _power(tokens: list[str]) -> complex:
    value = _atom(tokens)
    while tokens and tokens[-1] == "!":
        tokens.pop()
        value = complex(math.gamma(value.real + 1))
    if tokens and tokens[-1] == "^":
        tokens.pop()
        exponent = _sum(tokens, "}") if tokens[-1] == "{" and tokens.pop() else _atom(tokens)
        value = complex(value) ** exponent
    return value


def _atom(tokens: list[str]) -> complex:
    token = tokens.pop()
    if token[0].isdigit() or token[0] == ".":
        return complex(token)
    if token in ("(", "{"):
        return _sum(tokens, {"(": ")", "{": "}"}[token])
    if token in (r"\frac", r"\binom"):
        a, b = _group(tokens), _group(tokens)
        if token == r"\binom":
            return complex(math.exp(math.lgamma(a.real + 1) - math.lgamma(b.real + 1) - math.lgamma((a - b).real + 1)))
        return a / b
    if token == r"\sqrt":
        degree = 2
        if tokens[-1] == "[":
            tokens.pop()
            degree = _sum(tokens, "]").real
        inside = _group(tokens)
        odd = degree % 2 == 1 and inside.imag == 0 and inside.real < 0
        return -((-inside) ** (1 / degree)) if odd else inside ** (1 / degree)
    if token in VALUES:
        return VALUES[token]
    raise ValueError(token)


def _group(tokens: list[str]) -> complex:
    if tokens.pop() != "{":
        raise ValueError("no group")
    return _sum(tokens, "}")
