"""LaTeX answers: the formula in a text, its canonical string, and equality by the math-verify library.

    extract(text, r"\\dfrac{1}{2}.", [])     ->  r"\\frac{1}{2}"
    equal(r"\\frac{1}{2}", "0.5")            ->  True

Where the formula is: the first of these that holds one.
  1. the last complete box;
  2. after the last answer mark: the formulas between dollar signs right there ("$3$ and $5$" is "3, 5"), else the last
     one of the sentence, else the sentence itself where it has a digit or is of 1 to 5 words ("the answer is Evelyn");
  3. the last formula between dollar signs, \\( \\) or \\[ \\].
Canonical strings are LaTeX without dollar signs, \\left, \\right, spacing, fonts, a unit or full stop at the end, and
digit groups: "\\frac{1}{2}", "1000", "(0,\\infty)", "x = 5", "50\\%". A sum that is only worked out ("9 \\cdot 2 = 18")
is its result; "\\text{Evelyn}" is "Evelyn". More than 500 characters are no answer.

Equality: by letter, without spaces; words of three letters or more only so (without case); whole numbers by value; all
else as math-verify sees it, in either order of the two, since it lets "x=5" be 5 as a target only. That means: 50\\% is
50 and 0.5, decimals count to six places (1/3 is 0.333333, not 0.33), (1,2) is a pair and an open interval, sets have no
order, "x=5" is not "y=5". Bases count only where both are written: 25_8 is 25 and not 25_9.
"""

import logging
import re
from functools import lru_cache

MAX_LENGTH = 500  # characters; more is a model in a loop, not an answer
MAX_WORDS = 5
TIMEOUT = 2  # seconds, of a parse and of a comparison

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
    (re.compile(r"\^\s?\{?\s?(?:\\circ|°)\s?\}?|°|\\degree(?![a-zA-Z])"), ""),
    (re.compile(r"(?<!\\)%"), r"\\%"),
    (re.compile(r"[(\[]?\s?\\begin\{(?:[pb]?matrix|array\}\{[^{}]{0,50})\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{(?:[pb]?matrix|array)\}\s?[)\]]?"), r"\\end{pmatrix}"),
    (re.compile(r"[\s.,;:]+\Z|\A\s+"), ""),
    (re.compile(r"(?:(?<=[\d})])|(?<=pi)|(?<=pi )|(?<=\\%))\s?\\text\{[^{}]*\}(?:\^\{?\d\}?)?\Z"), ""),  # a unit
    (re.compile(r"(?<=\d) [a-zA-Z]{2,30}(?: [a-zA-Z]{1,30}){0,3}\Z"), ""),  # a unit
    (re.compile(r" (?=[)\]])"), ""),
    (re.compile(r"\A\\text\{\s*([^{}]*?)[\s.]*\}\Z"), r"\1"),
    (re.compile(r"[\s.,;:]+\Z|\A\s+"), ""),
)
GROUPED = re.compile(r"-?\d{1,3}(?:[, ]\d{3}){1,9}(?:\.\d+)?")
WORKED_OUT = re.compile(r"(?:[\d\s.+*/^(){}-]|\\(?:cdot|times|div|frac|sqrt)(?![a-zA-Z]))+=")
WORDS = re.compile(r"(?<![\\a-zA-Z])(?<!begin\{)(?<!end\{)[a-zA-Z]{3,}")
BASE = re.compile(r"[\dA-F]+_\{?(\d+)\}?")


def extract(text: str, box: str, after_marks: list[str]) -> str | None:
    """The canonical string of a text's answer, or None. `after_marks`: what follows each answer mark, last first."""
    if found := canonical(box):
        return found
    for after in after_marks:
        if found := _after_mark(after[:1000]):
            return found
    formulas = [match[match.lastgroup] for match in FORMULA.finditer(text)]
    return canonical(formulas[-1]) if formulas else None


def _after_mark(text: str) -> str | None:
    formulas = []
    text = text.lstrip(" \n*:_")
    while match := FORMULA.match(text):
        formulas.append(match[match.lastgroup])
        text = text[match.end() :]
        joint = LIST.match(text)
        if not joint:
            break
        text = text[joint.end() :]
    if formulas:
        return canonical(", ".join(formulas))
    sentence = SENTENCE.match(text)
    sentence = sentence[1] if sentence else ""
    if formulas := [match[match.lastgroup] for match in FORMULA.finditer(sentence)]:
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


def equal(a: str, b: str) -> bool:
    """Whether two canonical strings mean the same; False where that takes too long to say.

    Main thread only: math-verify's time-out is an alarm signal (one that the caller has set is lost), and elsewhere it
    raises ValueError.
    """
    a, b = sorted(re.sub(r"(?<![a-zA-Z])\s+|\s+(?![a-zA-Z])", "", one) for one in (a, b))
    if a == b:
        return True
    if a.isdecimal() and b.isdecimal():
        return int(a) == int(b)
    if WORDS.search(a) or WORDS.search(b):
        return a.casefold() == b.casefold()
    bases = [BASE.fullmatch(one) for one in (a, b)]
    if all(bases) and bases[0][1] != bases[1][1]:
        return False
    return _verified(a, b)


@lru_cache(2**16)
def _verified(a: str, b: str) -> bool:
    from math_verify import verify  # a second of imports, which no other answer type needs

    a, b = _parsed(a), _parsed(b)
    return verify(a, b, timeout_seconds=TIMEOUT) or verify(b, a, timeout_seconds=TIMEOUT)


@lru_cache(2**14)
def _parsed(formula: str) -> list:
    from math_verify import LatexExtractionConfig, parse

    for name in ("math_verify.parser", "math_verify.grader"):  # they warn of every time-out
        logging.getLogger(name).setLevel(logging.ERROR)
    return parse(f"${formula}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=TIMEOUT)
