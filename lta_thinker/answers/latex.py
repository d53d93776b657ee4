r"""LaTeX answers: the formula that a text says, its canonical string, and equality, the hard cases by verifier.py.

    read(r" $\dfrac{1}{2}$, as $x = 1$.", boxed=False)    ->  r"\frac{1}{2}"
    equal(r"\frac{1}{2}", "0.5", Budget())               ->  True

A box says the formula. Else a sentence says the one between dollar signs that it begins with, or that stands behind its
last "is", or its last formula or number; behind a mark also one without dollar signs, or five words.
"""

import re
from functools import lru_cache

from lta_thinker.answers import number
from lta_thinker.answers.number import value
from lta_thinker.answers.said import MAX_CONCLUSION, conclusion, spelled
from lta_thinker.answers.verifier import Budget

MAX_LENGTH = 500  # characters; more is a model in a loop, not an answer
MAX_WORDS = 5

FORMULA = re.compile(r"\$\$[^$]{1,999}\$\$|\$(?:[^$\\\n]|\\.){1,500}\$|\\\(.{1,500}?\\\)|\\\[.{1,999}?\\\]", re.S)
JOINT = re.compile(r"(?:\$|\\\))\s*(?:[,;和或]|,?\s(?:and|or|und|oder|et|ou|y|o)\s)\s*(?:\$|\\\()")  # $2$ or $3$
SENTENCE_END = re.compile(r"[.?](?:\s|\Z)|(?<!\\)(?<!\\begin\{[pbv]matrix\})\n(?!\\end)")  # no "!": 5! + 3
NO_END = re.compile(r"([!?.])\s*([^\w\s]{0,4})\s+")  # of a sentence: 5! + 3
IS = re.compile(r"(?<!which )\b(?:is|be|are|equals|ist|est|es|adalah)\b(?![^{}]*\})|是")
BARE = re.compile(r"[\\^=_()]|\d[a-z]")  # what a formula without dollar signs has: x^2 - 4x, y = 4, (2, -3)
NOT_BARE = re.compile(r"\$|(?<![\\a-zA-Z])[A-Za-z]{2}|\\(?:boxed|text)")
AFTERTHOUGHT = re.compile(r",?\s\(?(?:which|because|since|where|as|at|for|when|with|so)\b.*")  # 7, since $3+4=7$

ALIASES = {r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\varnothing": r"\emptyset", r"\langle": "(", r"\rangle": ")"}
ALIASES |= {r"\neq": r"\ne", "!=": r"\ne "}
_DEGREES = r"(?:\^\s?\{?\s?\\circ\s?\}?|°|\\degree(?![a-z]))"
SPELLINGS = (  # in this order
    (r"(?<=\d)(?:\s?,?\\!\s?|\{,\}|\\[, ]|~)(?=\d{3}(?!\d))", ""),  # 11,\! 111
    # Sizes, fonts, colours and spacing; \mathrm{cm} is \text{cm}
    (r"\\(?:left|right|[bB]igg?[lr]?|underline|pmb|bm|boldsymbol|fbox|math(?:bf|it|sf))(?![a-zA-Z])", ""),
    (r"\\(?:(?:display|text)style|bf|rm|it|[lL]arge|huge|(?:text)?color\s?\{[^{}]*\})(?![a-zA-Z])", ""),
    (r"(?<!\\)\\[()\[\],;:>!\s]|\\?\$|\\q?quad(?![a-zA-Z])|~|\s+", " "),
    (r"\\(?:math(?:rm|normal)|text[a-z]{2,6}|mbox|operatorname)(?=\s?\{)", r"\\text"),
    (r"\\(?:[dt]frac|varnothing|[lr]angle|neq)(?![a-zA-Z])|(?<=\s)!=", lambda m: ALIASES[m[0]]),
    (r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\S|[^(\[{]*[)\]}])", lambda m: m[0].replace(",", "")),
    (rf"(\\(?:sin|cos|tan)[^°]{{0,20}}?\d)\s?{_DEGREES}", r"\1\\cdot\\frac{\\pi}{180}"),  # \sin 30^\circ
    (rf"{_DEGREES}\s?([CF])\b", r"\\text{\1}"),  # 25^\circ C
    (_DEGREES, ""),
    (r"(?<![\\a-zA-Z])(pi|sqrt|sin|cos|tan|log|ln)(?![a-zA-Z])", r"\\\1"),  # sqrt(3)/2
    (r"\\sqrt\s?(?:\(([^()]{1,50})\)|(\d+))", r"\\sqrt{\1\2}"),  # \sqrt13
    (r"(?<=[\d}])\s?\\approx.*|\A\s*\\approx", ""),  # \sqrt{2} \approx 1.41
    (r"[\s.,;:\\%]+\Z|\A[\s:]+|\A\\text\{\s*\(?[A-J]\)\s*\}\s*(?=\S)", ""),  # \textbf{(C)} 12
    (r"\A\\text\{\s*([^{}]*?)[\s.]*\}\Z", r"\1"),  # \text{14 cm}
)
NAMED = re.compile(  # f^{-1}(x) = ..., \angle ABC = ..., (x, y) = ..., \text{The answer is } ...
    r"\s*(?:(?>\\[a-zA-Z]++|[a-zA-Z{}|'\s]|_(?:\{[^{}]*\}|\w)|\^\{-1\}|[(\[][\w,\s]*[)\]])++="
    r"|\\text\{[^{}]*(?:[:=]|\bis)\s*\})\s*(?=\S)"
)
EQUALS = re.compile(r"(?<![<>])=(?![^{}()]*[})])")  # not that of \sum_{k=1} and P(X = 1)
COMMA = re.compile(  # between the parts of a list; also 2 \text{ and } 3
    r"[,;]?\s?(?:\\text\s?\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)|[,;](?![^(\[{]*[)\]}])"
)
BARE_LIST = re.compile(rf"(?!\().*?(?:{COMMA.pattern})")
TUPLE = re.compile(r"\([^()\[\]]*,[^()\[\]]*\)")
WORDS = re.compile(r"(?<![\\a-zA-Z])(?<!begin\{)(?<!end\{)[a-zA-Z]{3,}|\\text|\d:\d\d\b|\d\s?[ap]\.?m\b")
UNIT = re.compile(  # 12 million and 10 a.m. have none
    r"(?i)(?:(?<=[\d})!])|(?<=\\pi))(?!\s*(?:\\text\{\s*)?(?:hundred|thousand|\w*illion|dozen|half|[ap]\.?m\b))(?:_\{?\d+\}?"
    r"|\s*\\text\{[^{}]*\}|\s+(?:[ckm]m|kg|ft|lb|oz|m/s|[a-z]{3,})\b[a-z /]*)\s*(?:\^\s?\{?\s?[23]\s?\}?)?\Z"
)
_UNITS = """mm:millimeter cm:centimeter km:kilometer m:meter inche:inch in:inch feet:foot ft:foot mi:mile kg:kilogram
    g:gram lb:pound s:second min:minute hr:hour h:hour per:/ square:2 sq:2 cubic:3 unit: degree: text:"""
UNITS = {short: name for short, _, name in (pair.partition(":") for pair in _UNITS.split())}


def read(place: str, where: str, options: tuple[str, ...] = ()) -> str | None:
    """The formula of a box, of the words behind a mark, or of the last sentence that has one; or that one's number."""
    if where == "box":
        return canonical(place)
    if where == "end":
        end = FORMULA.sub(lambda m: NO_END.sub(r"\1\2", m[0]).replace("\n", " "), place[-MAX_CONCLUSION:])
        return next(filter(None, map(_said, conclusion(end))), None)
    place = place.lstrip(" \n*:_>")
    if not FORMULA.match(place):
        place = AFTERTHOUGHT.sub("", IS.split(SENTENCE_END.split(place)[0])[-1]).strip(" *")
    if FORMULA.search(place):
        return _said(place)
    return canonical(place) if len(WORDS.findall(place)) <= MAX_WORDS else None


def _said(sentence: str) -> str | None:
    """The first formula, or the one right behind "is", or the last formula, or the number behind that; without dollar
    signs what stands behind "is" or a colon, where that is a formula."""
    bare = re.split(r":\s", IS.split(sentence)[-1])[-1]
    if BARE.search(bare) and not (NOT_BARE.search(bare) or FORMULA.search(sentence)):
        return canonical(bare)
    sentence = JOINT.sub(", ", sentence).lstrip()
    first = FORMULA.match(sentence) or FORMULA.match(IS.split(sentence)[-1].lstrip())
    formulas = [one for one in FORMULA.finditer(sentence) if not re.fullmatch(r"\W*[a-zA-Z]\W*", one[0])]  # not $n$
    after = sentence[formulas[-1].end() :] if formulas else sentence
    if not first and re.search(r"\d", after) and (found := number.read(after, "end")):
        return found
    return canonical((first or formulas[-1])[0]) if first or formulas else None


def canonical(formula: str) -> str | None:
    """A formula without dollar signs, sizes, fonts, colours, degree and percent signs, digit groups; None for nothing
    or too much."""
    if len(formula) > 2 * MAX_LENGTH:
        return None
    formula = spelled(formula, SPELLINGS).strip()
    return formula if formula.strip("{} ") and len(formula) <= MAX_LENGTH else None


@lru_cache(2**14)
def key(formula: str) -> tuple[str, str]:
    """A number's value, else the formula without spaces and names in front of it, of words the letters; and the name of
    its unit or base. Answers with the same key are equal."""
    parts = COMMA.split(canonical(formula) or formula)
    if formula.count(r"\pm") == 1 and len(parts) == 1:
        parts = [parts[0].replace(r"\pm", sign) for sign in "+-"]
    names = [NAMED.match(part) for part in parts]
    parts = [EQUALS.split(part[len(name[0]) :])[-1] if name else part for name, part in zip(names, parts, strict=True)]
    named = {"".join(name[0].split()): part for name, part in zip(names, parts, strict=True) if name}
    if len(named) == len(parts) > 1:  # y = 4, x = 3
        formula = f"({','.join(part for _, part in sorted(named.items()))})"
    else:
        formula = ",".join(parts) if len({value(part) or part for part in parts}) > 1 else parts[0]  # 0.5 or 1/2
    unit = UNIT.search(formula.rstrip())
    formula = formula[: unit.start()] if unit else formula
    if WORDS.search(formula):
        formula = re.sub(r"\\text|[\s{}().,;!'\"]", "", formula).casefold()
    words = re.findall(r"[a-z]+|/|\d+", unit[0].lower()) if unit else []
    words = (UNITS.get(word, UNITS.get(word.removesuffix("s"), word.removesuffix("s"))) for word in words)
    formula = re.sub(r"(?<![a-zA-Z])\s+|\s+(?![a-zA-Z])", "", formula)
    exact = value(formula)
    return formula if exact is None else number.canonical(exact) or formula, " ".join(sorted(filter(None, words)))


def equal(a: str, b: str, budget: Budget) -> bool:
    """Whether two canonical strings mean the same; False where that takes too long to say, which the budget counts."""
    a, b = sorted((a, b))
    (one, unit), (other, other_unit) = key(a), key(b)
    if unit and other_unit and unit != other_unit:
        return False
    values = value(one), value(other)
    if one == other or None not in values:
        return one == other or values[0] == values[1]
    if WORDS.search(f"{one} {other}"):
        return False
    if EQUALS.search(one + other):
        if "=" in a and "=" in b:  # y = 2x and 2x - y = 0
            return budget.same(a, b)
        one, other = _stated(one), _stated(other)
        return not EQUALS.search(one + other) and equal(one, other, budget)
    lists = [sorted(map(str, map(key, COMMA.split(text)))) for text in (one, other)]
    if any(len(set(parts)) < len(parts) for parts in lists):  # 1,1,2 is no set
        return lists[0] == lists[1]
    if TUPLE.fullmatch(one) or TUPLE.fullmatch(other):
        if r"\{" in (one[:2], other[:2]):
            return False
        one, other = (f"({text})" if BARE_LIST.match(text) else text for text in (one, other))  # 3, 4 and (3, 4)
    return budget.same(one.replace(",", ", "), other.replace(",", ", "))  # "100,200" is one number to the library


def _stated(formula: str) -> str:
    """The number that an equation states ("m + n = 25", "3! = 6"); the formula of one to be solved ("3x = 6")."""
    left, _, right = formula.rpartition("=")
    exact, letters = value(right), set(re.findall("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", left)))
    function, multiple = re.search(r"\\(?!frac|sqrt|pi)", left), re.search(r"\d[a-zA-Z]", left)
    to_solve = not exact or "," in left or not function and (len(letters) == 1 or multiple)
    return formula if exact is None or letters and to_solve else right
