r"""LaTeX answers: the formula that a text says, its canonical string, and equality, the hard cases by verifier.py.

    extract(r"So it is \boxed{\dfrac{1}{2}}.")                  ->  r"\frac{1}{2}"
    equal(r"\frac{1}{2}", "0.5", Budget())                      ->  True

A box says the formula; several boxes of one conclusion ("\boxed{2} or \boxed{3}") are a list. Behind a mark (said.py)
it is the formulas between dollar signs right there, else the sentence, behind its last "is", where that is a formula
or at most five words. Else the last formula or bold number of the conclusion counts.
Canonical strings are LaTeX without dollar signs, sizes, spacing, fonts, colours, degree signs and digit groups. A sum
that is only worked out ("9 \cdot 2 = 18") is its result, "2\sqrt{3} \approx 3.46" is what stands before it. More than
500 characters are no answer.

Equality, the first of these that applies:
  1. A unit, a base, or the things that are counted, at the end count only where both have one: 5 cm is 5, but not 5
     km; 21_5 is 21, but not 21_6. Percent signs are dropped: 50\% is 50, not 0.5.
  2. Arithmetic has its exact value (arithmetic.py): 1/3 is not 0.333333. Words are equal by their letters and digits.
  3. "x = 5", "f'(x) = 5" and "\text{Area} = 5" are 5; so is "P(X > 2) = 5", with arithmetic on the right. An equation
     with other sides ("x + y = 5") is equal to none but equations.
  4. Lists ("1, 2", "1 or 2", "3 \pm 1") and sets have no order; tuples and intervals do, with their brackets. A list is
     a tuple where the order is the same: "3, 4" is (3, 4).
  5. The math-verify library decides. What takes it too long is unequal.
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
    r"\$\$([^$]{1,1000})\$\$|\$((?:[^$\\\n]|\\.){1,500})\$|\\\(([^\n]{1,500}?)\\\)|\\\[(.{1,1000}?)\\\]", re.S
)
JOINT = re.compile(r"\s*(?:,|;|,?\s?(?:\b(?:and|or|und|oder|et|ou|y|o)\b)|和|或)\s*")
SENTENCE = re.compile(r"\s*((?:\\begin\{.*?\\end\{[a-z]+\}|.){0,400}?)[\s*]*(?=[.?](?:\s|\Z)|\n|\Z|(?<=.{400}))", re.S)
IS = re.compile(r"\b(?:is|be|are|equals|ist|est|es|adalah)\b|是")
AFTERTHOUGHT = re.compile(
    r",?\s(?:which|because|since|where|as|when|with|so)\b.*|\s\([^()]*(?<![\\a-zA-Z])[a-zA-Z]{3}[^()]*\)\Z", re.S
)
DISPLAY = re.compile(r"(?<=\\\[|\$\$)[ \t]{0,9}\n[ \t]{0,9}|[ \t]{0,9}\n[ \t]{0,9}(?=\\\]|\$\$)")
SPELLINGS = (  # in this order
    (re.compile(r"(?<=\d)(?:\s?,?\\!\s?|\{,\}|\\[, ]|~)(?=\d{3}(?!\d))"), ""),
    (re.compile(r"\\(?:left|right|middle|[bB]igg?[lr]?)(?![a-zA-Z])\.?|\\!|\\(?:text)?color\s?\{[^{}]*\}"), ""),
    (re.compile(r"\\(?:underline|pmb|boldsymbol|bm|math(?:bf|it|sf|bb)|fbox)(?=\s?\{)"), ""),
    (re.compile(r"\\(?:(?:display|text)style|bf|rm|it|large|Large|huge|q?quad)(?![a-zA-Z])"), " "),
    (re.compile(r"\\?\$|(?<!\\)\\[()\[\],;:> *]|~|\s+"), " "),
    (re.compile(r"\\(?:math(?:rm|normal)|text[a-z]{2,6}|mbox|operatorname)\s?\{"), r"\\text{"),
    (re.compile(r"(?<![\\a-zA-Z])inf(?:inity)?(?![a-z])|\+\s?\\infty"), r"\\infty "),
    (re.compile(r"<=|\\leq(?:slant)?(?![a-zA-Z])"), r"\\le "),
    (re.compile(r">=|\\geq(?:slant)?(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"(?<![\\a-zA-Z])(pi|sqrt|sin|cos|tan|log|ln)(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"\\sqrt\s?(?:\(([^()]{1,50})\)|(\d+))"), r"\\sqrt{\1\2}"),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\langle(?![a-zA-Z])"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"\^\s?\{?\s?(?:\\circ|°)\s?\}?|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"°\s?(?:\\text\{\s?)?([CF])\b\}?"), r"\\text{ deg\1}"),
    (re.compile(r"(\\(?:sin|cos|tan).*?\d)\s?°"), r"\1\\cdot\\frac{\\pi}{180}"),
    (re.compile(r"°"), ""),
    (re.compile(r"[(\[]?\s?\\begin\{(?:[pbv]?matrix|array\}\s?\{[^{}]{0,50})\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{(?:[pbv]?matrix|array)\}\s?[)\]]?"), r"\\end{pmatrix}"),
    (re.compile(r"[\s.,;:\\]+\Z|\A[\s:]+|\A\\text\{\s*\(?[A-J]\)\s*\}\s*(?=\S)"), ""),
    (re.compile(r"\A\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}\Z"), r"\1"),
    (re.compile(r"\A\\text\{\s*([^{}]*?)\s*\}\Z"), r"\1"),
    (re.compile(r" (?=[ )\]])|(?<=[(\[]) |[\s.,;:]+\Z|\A\s+"), ""),
)
GROUPED = re.compile(r"\A-?\d{1,3}(?:,\d{3}){1,9}(?![\d,])")
NAME = (
    r"(?:\\angle\s*)?(?:\{?\\?[a-zA-Z]+\}?(?:'|\^\{-1\})*(?:_\{?\w+\}?)?(?:\([\w,\s]*\))?|\\frac\{d\w?\}\{d\w\}"
    r"|\\text\{[^{}]*\}|\([a-z](?:,\s?[a-z])+\))"
)
NAMED = re.compile(rf"\s*(?:{NAME}\s*(?:=|\\in(?![a-z])|\\approx)|\\text\{{[^{{}}]*[:=]\s*\}})\s*(?=\S)")
SIDES = re.compile(r"[<>=]|\\(?:le|ge|ne)(?![a-z])")
OR = re.compile(r"(?:,\s?)?(?:\\text\s?\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)")
RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|cup|cap|setminus)(?![a-zA-Z])")
_UNITS = """mm:millimeter cm:centimeter dm:decimeter km:kilometer m:meter in:inch inches:inch ft:foot feet:foot yd:yard
    mi:mile l:liter ml:milliliter kg:kilogram mg:milligram g:gram lb:pound lbs:pound oz:ounce s:second sec:second
    min:minute hr:hour h:hour mph:mile/hour cents:cent metre:meter centimetre:centimeter
    kilometre:kilometer litre:liter"""
UNITS = {short: name for short, _, name in (pair.partition(":") for pair in _UNITS.split())}
_SCALES = r"(?!\s*(?:hundred|thousand|[mbtr]+illion|dozen|half|percent|[ap]\.?m\.?)\b)"
UNIT = re.compile(
    rf"(?:(?<=[\d}})!])|(?<=\\pi))(?:\s*\\text\s?\{{{_SCALES}([^{{}}]*)\}}"
    rf"|\s+{_SCALES}((?:mm|cm|km|kg|ft|lb|oz|m/s|[a-z]{{3,}}\b)[a-z /]*))\s*"
    r"(?:\^\s?\{?\s?([23])\s?\}?)?\s*\Z",
    re.IGNORECASE,
)
POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
BASE = re.compile(r"([\dA-F]*\d[\dA-F]*)_\{?(\d+)\}?")
LETTER = re.compile(r"\(?[a-zA-Z]\)?")
PERCENT = re.compile(r"\s?(?:\\?%|percent|\\text\{\s?percent\s?\})\Z")
WORDS = re.compile(r"(?<![\\a-zA-Z])(?<!begin\{)(?<!end\{)[a-zA-Z]{3,}|\\text|\d:\d\d\b|\d\s?[ap]\.?m\b")


def read(place: str, boxed: bool) -> str | None:
    """The formula of a box, or of the words behind a mark."""
    if boxed:
        return canonical(place)
    sentence = place.lstrip(" \n*:_>")
    if not FORMULA.match(sentence):
        whole = SENTENCE.match(sentence)
        sentence = AFTERTHOUGHT.sub("", IS.split(whole[1])[-1]).strip() if whole else ""
    formulas = list(FORMULA.finditer(sentence))
    if formulas:
        at_start = FORMULA.match(sentence)
        return _joined(sentence, formulas, 0 if at_start else len(formulas) - 1)
    return canonical(sentence) if len(WORDS.findall(sentence)) <= MAX_WORDS else None


def read_conclusion(turn: str) -> str | None:
    """The last formula or number of the last sentence that has one."""
    for sentence in conclusion(DISPLAY.sub(" ", turn[-MAX_CONCLUSION:])):
        formulas = [match for match in FORMULA.finditer(sentence) if not re.fullmatch(r"\W*[a-zA-Z]\W*", match[0])]
        after = sentence[formulas[-1].end() :] if formulas else sentence
        if re.search(r"\d", after) and (found := number.read_conclusion(after)):
            return found
        if formulas:
            first = len(formulas) - 1
            while first and JOINT.fullmatch(sentence[formulas[first - 1].end() : formulas[first].start()]):
                first -= 1
            return _joined(sentence, formulas, first)
    return number.read_conclusion(turn)


def _joined(text: str, formulas: list[re.Match], first: int) -> str | None:
    """The formula number `first` of a text, and those that follow it behind commas or "and", as a list."""
    last = first + 1
    while last < len(formulas) and JOINT.fullmatch(text[formulas[last - 1].end() : formulas[last].start()]):
        last += 1
    return canonical(", ".join("".join(match.groups("")) for match in formulas[first:last]))


def canonical(formula: str) -> str | None:
    """A formula, lightly cleaned; None where nothing is left of it, or too much."""
    if len(formula) > 2 * MAX_LENGTH:
        return None
    for pattern, spelling in SPELLINGS:
        formula = pattern.sub(spelling, formula)
    one, *others = re.split(r"\\text\s?\{\s*or\s*\}|\bor\b", formula)
    if others and value(one) is not None and all(value(other) == value(one) for other in others):
        formula = one.strip()
    if re.search(r",\s", formula):  # "1,000, 2,000"
        formula = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", formula)
    if grouped := GROUPED.match(formula):
        formula = grouped[0].replace(",", "") + formula[grouped.end() :]
    exact, approx, rough = formula.partition(r"\approx")
    if approx:
        formula = rough.strip() if NAMED.match(formula) or not exact.strip() else exact.strip()
    name = NAMED.match(formula)
    *worked_out, result = formula[name.end() if name else 0 :].split("=")
    if worked_out and all(value(side) is not None for side in (*worked_out, result)):
        formula = (name[0] if name else "") + result.strip()
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
    formula = PERCENT.sub("", formula)
    if base := BASE.fullmatch(formula):
        return base[1], f"base {base[2]}"
    unit = UNIT.search(formula)
    return (_tidy(formula[: unit.start()]), _unit(unit)) if unit else (_tidy(formula), "")


def _unit(match: re.Match) -> str:
    """The name of a unit, the same for all its spellings; empty for "units" and "degrees"."""
    words = re.findall(r"[a-z]+|/", re.sub(r"\bper\b", "/", (match[1] or match[2]).lower()))
    power = next((POWERS[word] for word in words if word in POWERS), match[3] or "")
    names = [UNITS.get(word) or UNITS.get(word.removesuffix("s")) or word.removesuffix("s") for word in words]
    names = [name for name in names if name not in POWERS and name not in ("unit", "degree")]
    return " ".join(names) + power if names else ""


def _tidy(formula: str) -> str:
    formula = re.sub(r"(?<![a-zA-Z])\s+|\s+(?![a-zA-Z])", "", formula)
    formula = re.sub(r"(?<=[_^])\{(\w)\}", r"\1", formula).removeprefix("+")
    if formula[:1] == "(" and formula[-1:] == ")" and not re.search(r"[(),]", formula[1:-1]):
        formula = formula[1:-1]
    return formula


def equal(a: str, b: str, budget: Budget) -> bool:
    """Whether two canonical strings mean the same; False where that takes too long to say, which the budget counts."""
    (form_a, unit_a), (form_b, unit_b) = form(a), form(b)
    if unit_a and unit_b and unit_a != unit_b:
        return False
    return _equal(form_a, form_b, budget) or a.count("=") == b.count("=") == 1 and budget.same(*sorted((a, b)))


def _equal(a: str, b: str, budget: Budget) -> bool:
    """Of formulas without units and names."""
    a, b = sorted((a, b))
    value_a, value_b = value(a), value(b)
    if a == b or value_a is not None and value_b is not None:
        return a == b or value_a == value_b
    if WORDS.search(a) or WORDS.search(b) or (LETTER.fullmatch(a) and LETTER.fullmatch(b)):
        return _letters(a) == _letters(b)
    list_a, list_b = _list(a), _list(b)
    if list_a and list_b:
        return _lists_equal(list_a, list_b, budget)
    if ("=" in a) != ("=" in b):
        equation, other = (a, b) if "=" in a else (b, a)
        left, _, right = equation.rpartition("=")
        names = re.search(r"[\\|(\[]", left) and not re.search(r"\d[a-zA-Z]", left)  # no "x + y = 3", no "3x = 6"
        is_value = bool(names) and value(left) is None and value(right) is not None
        return is_value and _equal(right, other, budget)
    if (list_a or list_b) and not RELATION.search(a + b):
        return False
    return budget.same(a, b)


def _letters(text: str) -> str:
    return re.sub(r"\\text|[\W_]", "", text).casefold()


@lru_cache(2**14)
def _list(formula: str) -> tuple[str, tuple[str, ...]] | None:
    """The brackets and the parts of a tuple, an interval or a set; no brackets for a list. None for all else."""
    if formula.count(r"\pm") == 1:
        return "", tuple(formula.replace(r"\pm", sign).removeprefix("+") for sign in "+-")
    brackets = formula[:1] + formula[-1:] if formula[:1] in "([" and formula[-1:] in ")]" else ""
    if formula.startswith(r"\{") and formula.endswith(r"\}"):
        brackets, parts = "{}", _split(formula[2:-2])
    else:
        parts = _split(formula[1:-1] if brackets else formula)
    if brackets and "" in parts and brackets != "{}":  # "(1,2),(3,4)"
        brackets, parts = "", _split(formula)
    if "" in parts or len(parts) == 1 and brackets != "{}":
        return None
    names = {name[0] if (name := NAMED.match(part)) else "" for part in parts}
    return brackets, tuple(part.split("=")[-1] for part in parts) if len(names) == 1 else tuple(parts)


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


def _lists_equal(a: tuple[str, tuple[str, ...]], b: tuple[str, tuple[str, ...]], budget: Budget) -> bool:
    brackets, (parts_a, parts_b) = {a[0], b[0]}, (a[1], b[1])
    named = [any(NAMED.match(part) for part in parts) for parts in (parts_a, parts_b)]
    ordered = not brackets <= {"", "{}"} or named[0] != named[1]
    if len(brackets) > 1 and brackets not in ({"", "()"}, {"", "{}"}) or not len(parts_a) == len(parts_b) <= MAX_PARTS:
        return False
    if ordered:
        return all(_equal_part(one, other, budget) for one, other in zip(parts_a, parts_b, strict=True))
    left = list(parts_b)
    for one in parts_a:
        same = next((other for other in left if _equal_part(one, other, budget)), None)
        if same is None:
            return False
        left.remove(same)
    return True


def _equal_part(a: str, b: str, budget: Budget) -> bool:
    """Of parts of lists, with their names where both have one: of "x=1,y=2" and "x=2,y=1" no part is equal."""
    (name_a, _, a), (name_b, _, b) = (part.rpartition("=") for part in (a, b))
    if name_a and name_b and name_a != name_b:
        return False
    return equal(a, b, budget)
