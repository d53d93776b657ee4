r"""LaTeX answers: the formula that a text says, its canonical string, and equality, the hard cases by verifier.py.

    extract(r"So it is \boxed{\dfrac{1}{2}}.")                  ->  r"\frac{1}{2}"
    equal(r"\frac{1}{2}", "0.5", Budget())                      ->  True

A box says the formula. Else it is the formula between dollar signs that a sentence begins with, the one right behind
its last "is", or its last one, but for a number behind that; of a sentence behind a mark (said.py), which is a formula
without dollar signs or at most five words, all. Formulas joined by commas, "and" or "or" are one list.
Canonical strings are LaTeX without dollar signs, sizes, spacing, fonts, colours, degree signs and digit groups.

Equality, the first of these that applies:
  1. A unit, a base, or the things that are counted, at the end count only where both have one: 5 cm is 5, but not 5
     km; 21_5 is 21, but not 21_6. Percent signs are dropped: 50\% is 50, not 0.5.
  2. Arithmetic has its exact value (arithmetic.py): 1/3 is not 0.333333. Names before "=" are dropped: "x = 5" is 5.
  3. Lists ("1, 2", "1 or 2", "3 \pm 1") and sets have no order; tuples and intervals do, with their brackets. A list is
     a tuple where the order is the same: "3, 4" is (3, 4). "x = 3, y = 4" is (3, 4).
  4. "m + n = 25" and "\cos 2x = 1" are 25 and 1. An equation to be solved ("3x = 6", "x + y = 0") is no number.
  5. Words are equal by their letters and digits.
  6. The math-verify library decides. What takes it too long is unequal.
"""

import re
from fractions import Fraction
from functools import lru_cache

from lta_thinker.answers import number
from lta_thinker.answers.arithmetic import value
from lta_thinker.answers.said import MAX_CONCLUSION, conclusion
from lta_thinker.answers.verifier import Budget

MAX_LENGTH = 500  # characters; more is a model in a loop, not an answer
MAX_WORDS = 5
MAX_PARTS = 20  # of a list; longer ones are compared by letter

FORMULA = re.compile(
    r"\$\$[^$]{1,1000}\$\$|\$(?:[^$\\\n]|\\.){1,500}\$|\\\([^\n]{1,500}?\\\)|\\\[.{1,1000}?\\\]", re.DOTALL
)
JOINT = re.compile(  # $2$ or $3$
    r"(?:\$|\\\))\s*(?:,|;|,?\s?(?:\b(?:and|or|und|oder|et|ou|y|o)\b)|和|或)\s*(?:\$|\\\()"
)
SENTENCE_END = re.compile(r"[.?](?:\s|\Z)|\n")  # no "!": 5! + 3
IS = re.compile(r"\b(?:is|be|are|equals|ist|est|es|adalah)\b|是")
AFTERTHOUGHT = re.compile(r",?\s\(?(?:which|because|since|where|as|when|with|so)\b.*", re.DOTALL)
DISPLAY = re.compile(r"(?<=\\\[|\$\$)[ \t]{0,9}\n[ \t]{0,9}|[ \t]{0,9}\n[ \t]{0,9}(?=\\\]|\$\$)")

_COMMANDS = {  # what is written for what
    "": r"\left \right \big \Big \bigl \bigr \! \$ $ \underline \pmb \boldsymbol \bm \mathbf \mathit \mathsf \fbox",
    " ": r"\displaystyle \textstyle \bf \rm \it \large \Large \huge \quad \qquad \( \) \[ \] \, \; \: \> ~",
    r"\text": r"\mathrm \mathnormal \textbf \textit \textrm \textnormal \mbox \operatorname",
    r"\frac": r"\dfrac \tfrac \cfrac",
    r"\le ": r"\leq \leqslant <=",
    r"\ge ": r"\geq \geqslant >=",
    r"\emptyset": r"\varnothing",
    "(": r"\langle",
    ")": r"\rangle",
}
COMMANDS = {name: written for written, names in _COMMANDS.items() for name in names.split()}
_DEGREES = r"(?:\^\s?\{?\s?\\circ\s?\}?|°|\\degree(?![a-z]))"
SPELLINGS = (  # in this order
    (re.compile(r"(?<=\d)(?:\s?,?\\!\s?|\{,\}|\\[, ]|~)(?=\d{3}(?!\d))"), ""),  # 11,\! 111
    (re.compile(r"\\(?:text)?color\s?\{[^{}]*\}"), ""),
    (re.compile(r"\\(?:[a-zA-Z]+|[^a-zA-Z])|[<>]=|[$~]"), lambda match: COMMANDS.get(match[0], match[0])),
    (re.compile(r"(?<!\\)\\\s|\s+"), " "),
    (re.compile(r"(?<![\d,.(\[{])([1-9]\d{0,2}(?:,\d{3})+)(?!\d|,\S)"), lambda match: match[1].replace(",", "")),
    (re.compile(rf"(\\(?:sin|cos|tan)[^°]{{0,20}}?\d)\s?{_DEGREES}"), r"\1\\cdot\\frac{\\pi}{180}"),
    (re.compile(rf"{_DEGREES}\s?([CF])\b"), r"\\text{\1}"),
    (re.compile(_DEGREES), ""),
    (re.compile(r"(?<![\\a-zA-Z])(pi|sqrt|sin|cos|tan|log|ln)(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"\\sqrt\s?(?:\(([^()]{1,50})\)|(\d+))"), r"\\sqrt{\1\2}"),
    (re.compile(r"[\s.,;:\\]+\Z|\A[\s:]+|\A\\text\{\s*\(?[A-J]\)\s*\}\s*(?=\S)"), ""),  # \textbf{(C)} 12
    (re.compile(r"\A\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}\Z"), r"\1"),
    (re.compile(r"\A\\text\{\s*([^{}]*?)[\s.]*\}\Z"), r"\1"),
)
NAMED = re.compile(  # f^{-1}(x) = ..., \angle ABC = ..., x \in ..., \text{The answer is } ...
    r"\s*(?:(?>(?!\\(?:in|approx|le|ge|ne)(?![a-z]))\\[a-zA-Z]++|[a-zA-Z{}|'\s]|_(?:\{[^{}]*\}|\w)|\^\{-1\}"
    r"|[(\[][\w,\s]*[)\]])++(?:=|\\in(?![a-z])|\\approx)|\\text\{[^{}]*(?:[:=]|\bis)\s*\})\s*(?=\S)"
)
EQUALS = re.compile(r"=(?![^{}()]*[})])")  # not that of \sum_{k=1} and P(X = 1)
SIDES = re.compile(r"[<>=]|\\(?:le|ge|ne)(?![a-z])")
OR = re.compile(r"(?:,\s?)?(?:\\text\s?\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)")
RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|cup|cap|setminus|mathbb)(?![a-zA-Z])")
_UNITS = """mm:millimeter cm:centimeter km:kilometer m:meter in:inch inche:inch feet:foot ft:foot yd:yard mi:mile
    l:liter ml:milliliter kg:kilogram g:gram lb:pound oz:ounce s:second sec:second min:minute hr:hour h:hour
    mph:mile/hour metre:meter centimetre:centimeter per:/ square:2 sq:2 cubic:3 cu:3 unit: degree: percent: text:"""
UNITS = {short: name for short, _, name in (pair.partition(":") for pair in _UNITS.split())}
_NO_UNIT = r"(?!\s*(?:hundred|thousand|\w*illion|dozen|half|[ap]\.?m\.?)\b)"
UNIT = re.compile(
    rf"(?:(?<=[\d}})!])|(?<=\\pi))(?:\s*\\text\s?\{{{_NO_UNIT}[^{{}}]*\}}|_\{{?\d+\}}?"
    rf"|\s+{_NO_UNIT}(?:(?:mm|cm|km|kg|ft|lb|oz|m/s|[a-z]{{3,}}\b)[a-z /]*))\s*(?:\^\s?\{{?\s?[23]\s?\}}?)?\Z",
    re.IGNORECASE,
)
WORDS = re.compile(r"(?<![\\a-zA-Z])(?<!begin\{)(?<!end\{)[a-zA-Z]{3,}|\\text|\d:\d\d\b|\d\s?[ap]\.?m\b")


def read(place: str, boxed: bool) -> str | None:
    """The formula of a box, or of the words behind a mark."""
    place = place.lstrip(" \n*:_>")
    if boxed or FORMULA.match(place):
        return canonical(place) if boxed else _said(place)
    sentence = SENTENCE_END.split(place)[0]
    words = AFTERTHOUGHT.sub("", IS.split(sentence)[-1]).strip(" *")
    if FORMULA.search(words):
        return _said(sentence)
    return canonical(words) if len(WORDS.findall(words)) <= MAX_WORDS else None


def read_conclusion(turn: str) -> str | None:
    """The formula or number of the last sentence that has one."""
    found = (_said(sentence.lstrip()) for sentence in conclusion(DISPLAY.sub(" ", turn[-MAX_CONCLUSION:])))
    return next(filter(None, found), None) or number.read_conclusion(turn)


def _said(sentence: str) -> str | None:
    """The formula that a sentence begins with, or that stands right behind "is", else the last formula or number."""
    sentence = JOINT.sub(", ", sentence)
    for text in (sentence, IS.split(sentence)[-1].lstrip()):
        if formula := FORMULA.match(text):
            return canonical(formula[0])
    formulas = list(FORMULA.finditer(sentence))
    after = sentence[formulas[-1].end() :] if formulas else sentence
    found = number.read_conclusion(after) if re.search(r"\d", after) else None
    return found or (canonical(formulas[-1][0]) if formulas else None)


def canonical(formula: str) -> str | None:
    """A formula, lightly cleaned; None where nothing is left of it, or too much."""
    if len(formula) > 2 * MAX_LENGTH:
        return None
    for pattern, spelling in SPELLINGS:
        formula = pattern.sub(spelling, formula)
    formula = formula.strip()
    return formula if formula.strip("{} ") and len(formula) <= MAX_LENGTH else None


def key(formula: str) -> tuple[Fraction | str, str]:
    """A number's value, else the formula; and its unit. Answers with the same key are equal."""
    formula, unit = form(formula)
    exact = value(formula)
    return formula if exact is None else exact, unit


@lru_cache(2**14)
def form(formula: str) -> tuple[str, str]:
    """A formula without spaces and names in front of it, and the name of its unit or base."""
    formula = OR.sub(", ", canonical(formula) or formula).strip()
    while (name := NAMED.match(formula)) and not SIDES.search(formula, name.end()):
        formula = formula[name.end() :]
    formula = next(filter(str.strip, formula.split(r"\approx")), "")  # 2\sqrt{3} \approx 3.46
    formula = re.sub(r"\s?\\?%\Z", "", formula.strip())
    unit = UNIT.search(formula)
    formula = formula[: unit.start()] if unit else formula
    first, *others = EQUALS.split(formula)
    if (NAMED.match(formula) or value(first)) and None not in map(value, others):  # x = 5 + 6 = 11
        formula = [first, *others][-1]
    return re.sub(r"(?<![a-zA-Z])\s+|\s+(?![a-zA-Z])", "", formula), _name(unit[0].lower()) if unit else ""


def _name(unit: str) -> str:
    """The same for all spellings of a unit; empty for "units" and "degrees"."""
    words = [word if word in UNITS else word.removesuffix("s") for word in re.findall(r"[a-z]+|/|\d+", unit)]
    return " ".join(sorted(filter(None, (UNITS.get(word, word) for word in words))))


def equal(a: str, b: str, budget: Budget) -> bool:
    """Whether two canonical strings mean the same; False where that takes too long to say, which the budget counts."""
    (form_a, unit_a), (form_b, unit_b) = form(a), form(b)
    value_a, value_b = value(form_a), value(form_b)
    if unit_a and unit_b and unit_a != unit_b:
        return False
    if form_a == form_b or value_a is not None and value_b is not None:
        return form_a == form_b or value_a == value_b
    list_a, list_b = _list(form_a), _list(form_b)
    if list_a and list_b:
        return _lists_equal(list_a, list_b, budget)
    sides_a, sides_b = EQUALS.split(form_a), EQUALS.split(form_b)
    if (len(sides_a) > 1) != (len(sides_b) > 1):
        if "=" in a and "=" in b:  # y = 2x and 2x - y = 0
            return budget.same(*sorted((a, b)))
        (other,), (*left, right) = sorted((sides_a, sides_b), key=len)
        return _is_said_of("=".join(left), right) and equal(right, other, budget)
    if WORDS.search(form_a) or WORDS.search(form_b):
        return _letters(form_a) == _letters(form_b)
    if (list_a or list_b) and not RELATION.search(form_a + form_b):
        return False
    return budget.same(*sorted((form_a, form_b)))


def _is_said_of(left: str, right: str) -> bool:
    """Whether "left = right" says a number, and is no equation to be solved."""
    several = re.search(r"[\\|(\[]", left) or len(set(re.findall("[a-zA-Z]", left))) > 1
    return bool(several) and value(left) is None and bool(value(right))


def _letters(text: str) -> str:
    return re.sub(r"\\text|[\W_]", "", text).casefold()


@lru_cache(2**14)
def _list(formula: str) -> tuple[str, list[str]] | None:
    """The brackets and the parts of a tuple, an interval or a set; no brackets for a list. None for all else."""
    if formula.count(r"\pm") == 1:
        return "", [formula.replace(r"\pm", sign) for sign in "+-"]
    inner = re.fullmatch(r"\\?([(\[{])(.*?)\\?([)\]}])", formula)
    brackets, parts = (inner[1] + inner[3], _split(inner[2])) if inner else ("", [])
    if not parts:
        brackets, parts = "", _split(formula)
    names = [name[0] for part in parts if (name := NAMED.match(part))]
    if len(names) == len(parts) == len(set(names)):  # x = 3, y = 4
        brackets, parts = "()", sorted(parts)
    return (brackets, parts) if len(parts) > 1 else None


def _split(formula: str) -> list[str]:
    """At the commas outside of brackets; nothing where a bracket closes that has not been opened."""
    parts, depth = [""], 0
    for char in formula:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return []
        if char in ",;" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts if all(parts) else []


def _lists_equal(a: tuple[str, list[str]], b: tuple[str, list[str]], budget: Budget) -> bool:
    (brackets_a, parts_a), (brackets_b, parts_b) = a, b
    brackets = {brackets_a, brackets_b}
    if len(brackets) > 1 and brackets not in ({"", "()"}, {"", "{}"}) or not len(parts_a) == len(parts_b) <= MAX_PARTS:
        return False
    if not brackets <= {"", "{}"}:
        return all(equal(one, other, budget) for one, other in zip(parts_a, parts_b, strict=True))
    left = list(parts_b)
    for one in parts_a:
        same = next((other for other in left if equal(one, other, budget)), None)
        if same is None:
            return False
        left.remove(same)
    return True
