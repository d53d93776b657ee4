"""Number answers: the number that a text says, and equality by exact value.

    extract("She sells 9 eggs, so she makes 9 * 2 = $18.00.")  ->  "18"

Of a box or of the words behind a mark (said.py) the answer is the value of arithmetic ("2^5", "\\\\frac{7}{2} = 3.5"),
else the number of the first sentence, without what stands in brackets or behind a comma or "because". Else it is the
last number of the last sentence of the conclusion that has one, where there is a bold one the last of these.
Several numbers ("5 hours and 30 minutes", "2 or 3", "3-5 days") are no answer, unless they are of one value.
Percent signs, currencies and units are dropped: "50%" is 50. Groups and decimals are read as "1,234.5", "1 234,5",
"1.234,50", "12,50" and "1'234"; "80k", "3 million", "1.2e3", "1 1/2", "forty-two" are numbers. List numbers ("2."),
step labels and digits glued to a letter ("x_1", "CO2") are not. More than 100 characters are no number.
Canonical: "18", "-0.5", and "1/3" where decimals do not end. 1/3 is not 0.33.
"""

import re
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

from lta_thinker.answers.arithmetic import value
from lta_thinker.answers.said import CHARACTERS, EMPHASIS, SENTENCE_END, conclusion, said, turn_of

MAX_NUMBER_LENGTH = 100  # characters; more is a model in a loop, not an answer

# The patterns below run over whatever a model samples: none may backtrack over an unbounded stretch.
GROUPED = r"[1-9]\d{0,2}(?:,\d{2,3}){0,9},\d{3}(?!\d)(?:\.\d++)?"
UNSIGNED = (
    rf"(?:{GROUPED}"
    r"|\d{1,3}(?:[ ']\d{3}){1,9}(?!\d)(?:[.,]\d++)?"
    r"|\d{1,3}(?:\.\d{3}){1,9},\d++|\d{1,3}(?:\.\d{3}){2,9}(?![.\d])"
    r"|(?<![\d,])(?:0,\d++|\d++,\d{1,2})(?![\d,])|\d++(?:\.\d++)?|(?<![\w.])\.\d++)"
)
DIGIT = re.compile(r"\d")
RANGE = re.compile(r"\A\s*\d+-\d+\s*\Z")
TRIMMED = re.compile(r"\\text\s?\{[^{}]*\}\Z|[\s.*$\\]+\Z|\A[\s*$:\\]+|\\[()\[\]]")
SCALES = {
    "one": 1,
    "k": 10**3,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![A-Za-z\d)\]}}%])-)? [$€£¥₹]?
    (?<![A-Za-z\d]) (?<!\d\.) (?<![A-Za-z]_)
    (?: (?:(?P<whole>\d++)[ ]{{1,3}})? (?P<top>{UNSIGNED}) [ ]?/[ ]? (?P<bottom>{UNSIGNED})
      | (?P<plain>{UNSIGNED}) (?:[eE](?P<exponent>[-+]?\d++))? )
    (?:(?P<scale>k\b)|\s(?P<word>hundred|thousand|million|billion|trillion)\b)?
    """,
    re.VERBOSE,
)
PLAIN_SPELLINGS = (  # in this order
    (re.compile(r"\{,\}|\\!,?\\!"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;: ]|~|\t"), " "),
    (re.compile(r"\\\$"), "$"),
    (re.compile(r" {2,}"), " "),
    (re.compile(r"\\(?:text\w*|math[a-z]+|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"(?<=\d)\s?(?:\\times|\\cdot|[×*x])\s?10\s?\^\s?\{?([-+]?\d{1,2})\}?"), r"e\1"),
    (re.compile(r"(?<=\d)\s*(?=\\[dtc]?frac)"), " "),
    (
        re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))"),
        lambda m: f"{(m[1] or m[2] or '').strip()}/{(m[3] or m[4] or '').strip()}",
    ),
    (re.compile(r"[\^_]\{[^{}]*\}|\^\s?-?\d+"), ""),
    (re.compile(r"\b(?:Rs\.?|USD|EUR|GBP|INR)\s?(?=[-\d.])"), "$"),
    (re.compile(r"([={(]\s*-)\s+(?=[\d.$])"), r"\1"),  # "= - 3"; elsewhere "- 3" is a bullet or an operator
    (re.compile(r"^[ \t#>-]*\d{1,2}[.)](?=[ \t]+\S)|\bstep\s*\d+", re.IGNORECASE | re.MULTILINE), ""),
)
ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
STATEMENT = re.compile(
    r"\s*(?:(?!,\s(?!and\b|or\b|[-\d$€£¥])|;|\n|[.!?](?:\s|\Z)|\s(?:because|since|from|which|where|not)\b).){1,300}",
    re.DOTALL,
)
WORDS_FIRST = re.compile(r"\s*(?:[^\W\d_]+[',]?\s+){2}")
BULLET = re.compile(r"\A\s*\n\s*[-•]\s")
SIDES = re.compile(r"=|≈|\\approx|\\Rightarrow|→")
SEVERAL = re.compile(
    r"\s(?:hours?|minutes?|days?|weeks?|years?|feet|foot|ft|pounds?|dollars?)\s"
    r"|(?:\s[^\d\W]+){0,2}\s?(?:[-+*/×,]|:(?=\S)|x\b|\b(?:to|and|or|bis|et|und|ou|oder|by|times|plus|minus)\b),?\s?(?:and\s|or\s)?"
)
UNKNOWN = re.compile(
    r"\W*(?:none|unknown|undefined|n/a|(?:be )?(?:determined|found|known))\b|.*not enough|.*(?:cannot|can't) be \w+ed\b",
    re.I,
)
BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
WORDS = {word: i for i, word in enumerate(f"{UNITS} eighteen nineteen".split())}
WORDS |= {word: 10 * i for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_WORD = f"(?:{'|'.join([*WORDS, *SCALES][::-1])})"
IN_WORDS = re.compile(rf"\b{_WORD}(?:(?:-|\s|\sand\s){_WORD}){{0,12}}\b", re.IGNORECASE)


def extract(text: str, finished: bool = True) -> str | None:
    """The canonical number that a text gives as its answer, or None."""
    turn = turn_of(text, finished)
    found = said(turn, read, finished)
    return (read_conclusion(turn) if found is None and finished else found) or None


@lru_cache(2**14)
def key(text: str) -> Fraction | None:
    """The exact value of the number that a text says; None without one."""
    found = read(text)
    return Fraction(found) if found else None


def equal(a: str, b: str, budget=None) -> bool:
    """Whether two texts say numbers of the same exact value. (It costs no budget.)"""
    return key(a) is not None and key(a) == key(b)


def read(place: str, boxed: bool = True) -> str | None:
    """The number of a box, or of the words behind a mark: where a number stands right there, the first one."""
    if not boxed:
        place = BULLET.sub("", place)
        if WORDS_FIRST.match(place):
            return _read_sentences(place.split("\n\n")[0])
        statement = STATEMENT.match(place)
        place = statement[0] if statement else ""
    found = _read(place, first=True)
    return _read(_in_digits(place), first=True) if found is None else found


def _read_sentences(text: str) -> str | None:
    """The number of several sentences: the last one where it is worked out ("=", "so") or no other one is there."""
    found = [(one, number) for one in SENTENCE_END.split(text) if (number := _read(one, first=False)) is not None]
    if not found:
        return _read(_in_digits(text), first=False)
    concluded = re.match(r"\W*(?:so|thus|hence|therefore|in total)\b|[^=]*=", found[-1][0], re.IGNORECASE)
    return found[-1][1] if concluded or found[0][1] == found[-1][1] else ""


def read_conclusion(turn: str) -> str | None:
    """The last number of the last sentence that has one, where there is a bold one the last of these."""
    sentences = list(conclusion(turn)) if DIGIT.search(turn) else [_in_digits(turn)]
    for sentence in sentences:
        for part in (*BOLD.findall(sentence)[::-1], EMPHASIS.sub("", sentence)):
            found = _read(part, first=False)
            if found is not None:
                return found
    return None


def _read(statement: str, first: bool) -> str | None:
    """The number of the last side of "=" that has one: None without a number, "" for several or none that is known."""
    if UNKNOWN.match(statement):
        return ""
    for side in SIDES.split(statement)[::-1]:
        exact = None if RANGE.search(side) else value(TRIMMED.sub("", side))
        if exact is not None:
            return canonical(exact)
        numbers = list(NUMBER.finditer(ASIDE.sub("", plain(side)))) or list(NUMBER.finditer(plain(side)))
        if numbers:
            return _chosen(numbers, first)
    return None


def _chosen(numbers: list[re.Match], first: bool) -> str:
    """The one of several numbers that counts, canonical; "" where none does."""
    found = [_canonical_match(number) for number in numbers]
    text = numbers[0].string
    if len(set(found)) == 1:
        return found[0]
    first = first and not re.search(r"[^\W\d]{2}", text[: numbers[0].start()])
    one, other = (0, 1) if first else (-2, -1)
    between = text[numbers[one].end() : numbers[other].start()]
    return "" if SEVERAL.fullmatch(between) else found[0 if first else -1]


def _canonical_match(number: re.Match) -> str:
    if len(number[0]) > MAX_NUMBER_LENGTH or abs(int(number["exponent"] or 0)) > MAX_NUMBER_LENGTH:
        return ""
    if number["plain"]:
        found = _value(number["plain"]) * Fraction(10) ** int(number["exponent"] or 0)
    elif not _value(number["bottom"]):
        return ""
    else:
        found = _value(number["top"]) / _value(number["bottom"])
        found += int(number["whole"] or 0)
    scale = SCALES[(number["scale"] or number["word"] or "one").lower()]
    return canonical(-found * scale if number["sign"] else found * scale)


def _value(digits: str) -> Fraction:
    """Of an UNSIGNED number."""
    if "," in digits and not re.fullmatch(GROUPED, digits):
        digits = re.sub(r"[ '.]", "", digits).replace(",", ".")
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    return Fraction(re.sub(r"[, ']", "", digits))


def canonical(number: Fraction) -> str:
    """As a whole number, a decimal that ends, or a fraction; "" for more than 100 characters."""
    with localcontext(prec=2 * MAX_NUMBER_LENGTH):
        decimal = Decimal(number.numerator) / Decimal(number.denominator)
    found = f"{decimal:f}" if Fraction(decimal) == number else str(number)
    return found if len(found) <= MAX_NUMBER_LENGTH else ""


def plain(text: str) -> str:
    """A text in the spelling that numbers are read in."""
    text = text.translate(CHARACTERS)
    for pattern, spelling in PLAIN_SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def _in_digits(text: str) -> str:
    """A text with its number words as digits."""

    def number(match: re.Match) -> str:
        total = group = 0
        for word in re.findall(r"[a-z]+", match[0].lower()):
            if word in WORDS:
                group += WORDS[word]
            elif word == "hundred":
                group = max(group, 1) * 100
            elif word in SCALES:
                total, group = total + max(group, 1) * SCALES[word], 0
        return str(total + group)

    return IN_WORDS.sub(number, text)


def value_of(text: str) -> Fraction | None:
    """The value of a text that is only a number."""
    number = NUMBER.fullmatch(plain(text).strip())
    found = _canonical_match(number) if number else ""
    return Fraction(found) if found else None
