"""Number answers: finding the one that a text says, and equality.

The first of these that holds a number gives the answer.
  1. the last complete `\\boxed{}` (one that is cut off is no box);
  2. after the last "answer is", "answer:", "answer =" or "#### 18": where a number stands right there, the last number
     of that sentence ("The answer is 9 * 2 = 18. I used 2 steps." is 18), else the last number after it;
  3. the last number of the text, list numbers ("2. Multiply") and step labels ("Step 2") aside.
Everywhere the last number counts: nothing is evaluated. Percent signs, currencies and units are dropped ("50%" is 50,
"$2 million" is 2). Commas and thin spaces group digits where they can ("1,000"), and else part a list ("3,4"). "1e3",
"3 \\times 10^8" and mixed numbers ("2 1/2") are read; exponents, indices and digits glued to a letter ("cm^2", "x_1",
"CO2") are not. A minus counts only where it cannot be an operator, a range or a bullet. Dates, clock times and ratios
are just their numbers. Canonical strings: "18", "-0.5" or "-3/4": decimals stay decimals, without idle zeros;
fractions stay fractions, in lowest terms. Equality is by exact value: 3/4 is 0.75, and 1/3 is not 0.33.
"""

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

MAX_NUMBER_LENGTH = 100  # characters; more is a model in a loop, not an answer


# The patterns below run over whatever a model samples: none may backtrack over an unbounded stretch.
UNSIGNED = (
    r"(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{2,3}){0,9}[,\u00a0\u2009\u202f]\d{3}(?!\d)|\d++)(?:\.\d++)?|(?<![\w.])\.\d++"
)


NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![A-Za-z\d)\]}}%])-)? [$€£¥₹]?
    (?<![A-Za-z\d]) (?<!\d\.) (?<![A-Za-z]_)
    (?: (?:(?P<whole>\d++)[ \t\u202f]{{1,3}})? (?P<top>{UNSIGNED}) [ \t]?/[ \t]? (?P<bottom>{UNSIGNED})
      | (?P<plain>{UNSIGNED}) (?:[eE](?P<exponent>[-+]?\d++))? )
    """,
    re.VERBOSE,
)


FRACTIONS = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"


DIGIT = re.compile(r"\d")


BRACES = re.compile(r"boxed\s*\{|[{}]")


ANSWER_MARK = re.compile(r"answer[*_\s]*(?:is\b|[:=])|####(?=[^A-Za-z\d\n]{0,8}\d)", re.IGNORECASE)


SENTENCE_WITH_NUMBER_FIRST = re.compile(r"[^A-Za-z\d]*\d.*?(?=[.!?][^\w\s]{0,4}(?:\s|\Z)|\n|\Z)")


PLAIN_SPELLINGS = (  # applied in this order, each where one of the characters is in the text
    ("−–‐‑－", re.compile(r"[−–‐‑－]"), "-"),
    ("{", "{,}", ","),
    ("\\", r"\!", ""),
    ("\\", r"\,", "\u202f"),
    ("\\", r"\$", "$"),
    ("\\", re.compile(r"\\(?:text\w*|math[a-z]+|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    ("^", re.compile(r"(?<=\d)\s?(?:\\times|\\cdot|[×*x])\s?10\s?\^\s?\{?([-+]?\d{1,2})\}?"), r"e\1"),
    ("\\", re.compile(r"(?<=\d)\s*(?=\\[dtc]?frac)"), " "),  # mixed numbers
    (FRACTIONS, re.compile(r"(?<=\d)\s*(?=[¼-¾⅐-⅞])"), " "),
    *((sign, sign, unicodedata.normalize("NFKC", sign)) for sign in FRACTIONS),
    ("⁄∕", re.compile(r"[⁄∕]"), "/"),
    (
        "\\",
        re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))"),
        lambda m: f"{(m[1] or m[2] or '').strip()}/{(m[3] or m[4] or '').strip()}",
    ),
    ("^_", re.compile(r"[\^_]\{[^{}]*\}|\^\s?-?\d+"), ""),
    ("RDPI", re.compile(r"\b(?:Rs\.?|USD|EUR|GBP|INR)\s?(?=[-\d.])"), "$"),
    ("-", re.compile(r"([={(]\s*-)\s+(?=[\d.$])"), r"\1"),  # "= - 3"; elsewhere "- 3" is a bullet or an operator
    (".)pP", re.compile(r"^[ \t#*>-]*\d{1,2}[.)](?=[ \t]+\S)|\bstep\s*\d+", re.IGNORECASE | re.MULTILINE), ""),
)


def extract(text: str) -> str | None:
    """The canonical number that a text gives as its answer, or None."""
    text = plain(text)
    found = _last_number(last_box(text))
    if found is not None:
        return found
    for after in after_marks(text):
        sentence = SENTENCE_WITH_NUMBER_FIRST.match(after)
        found = _last_number(sentence[0] if sentence else after)
        if found is not None:
            return found
    return _last_number(text)


def after_marks(text: str) -> list[str]:
    """What follows each "answer is" and the like, up to the next one; the last one first."""
    return ANSWER_MARK.split(text)[:0:-1] if "####" in text or "answer" in text.lower() else []


@lru_cache(2**14)
def key(text: str) -> Fraction | None:
    """The exact value of the number that a text gives; None without one."""
    found = extract(text)
    return None if found is None else Fraction(found)


def equal(a: str, b: str, budget=None) -> bool:
    """Whether two texts give numbers of the same exact value. (It costs no budget.)"""
    return key(a) is not None and key(a) == key(b)


def last_box(text: str, innermost: bool = False) -> str:
    """What the last complete \\boxed{} holds; empty without one. innermost: of boxes in boxes, the last one inside."""
    open_braces, boxes = [], [(0, 0)]  # boxes: in the order in which they close
    for match in BRACES.finditer(text):
        if match[0] != "}":
            open_braces.append(match.end() if match[0] != "{" else None)
        elif open_braces and (start := open_braces.pop()):
            boxes.append((start, match.start()))
    last = len(boxes) - 1
    while innermost and boxes[last - 1][0] > boxes[last][0]:
        last -= 1
    return text[slice(*boxes[last])]


def _last_number(text: str) -> str | None:
    """The last number of a text in plain spelling, canonical; None without one, or where it has no value (3/0)."""
    matches = list(NUMBER.finditer(text)) if DIGIT.search(text) else []
    if not matches or len(matches[-1][0]) > MAX_NUMBER_LENGTH:
        return None
    match = matches[-1]
    sign = match["sign"] or ""
    if match["plain"]:
        if abs(int(match["exponent"] or 0)) > MAX_NUMBER_LENGTH:
            return None
        value = Decimal(sign + _digits(match["plain"]) + "e" + (match["exponent"] or "0"))
        found = f"{value:f}" if value else "0"
        found = found.rstrip("0").rstrip(".") if "." in found else found
    else:
        top, bottom = Fraction(_digits(match["top"])), Fraction(_digits(match["bottom"]))
        if not bottom:
            return None
        value = top / bottom
        if match["whole"] and top < bottom:
            value += int(match["whole"])
        elif match["whole"]:  # "16 48/2" is two numbers, and the sign is the first one's
            sign = ""
        found = str(-value if sign else value)
    return found if len(found) <= MAX_NUMBER_LENGTH else None


def _digits(number: str) -> str:
    return re.sub(r"[^\d.]", "", number)


def plain(text: str) -> str:
    """A text in the spelling that numbers are read in."""
    return respelled(text, PLAIN_SPELLINGS)


def respelled(text: str, spellings) -> str:
    """A text after (characters, pattern or words, spelling), each where it has one of the characters."""
    for characters, pattern, spelling in spellings:
        if any(character in text for character in characters):
            text = text.replace(pattern, spelling) if isinstance(pattern, str) else pattern.sub(spelling, text)
    return text


def value_of(text: str) -> Fraction | None:
    """The value of a text that is only a number."""
    number = plain(text).strip()
    value = _last_number(number) if NUMBER.fullmatch(number) else None
    return Fraction(value) if value else None
