r"""Number answers: the number that a text says, and equality by exact value.

    extract_answer("She sells 9 eggs, so she makes 9 * 2 = $18.00.", "number")  ->  "18"

A box, or the first sentence behind a mark, says the value of arithmetic ("2^5", "\frac{7}{2} = 3.5"), else the number
that stands right there. Where words stand first, and in the conclusion, the last number of the last sentence that has
one counts, a bold one before others. Brackets are asides. Several numbers ("5 hours and 30 minutes", "2 or 3",
"3-5 days") are no answer, unless they are of one value.
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
from lta_thinker.answers.said import CHARACTERS, EMPHASIS, SENTENCE_END, conclusion

MAX_NUMBER_LENGTH = 100  # characters; more is a model in a loop, not an answer

SCALES = {"k": 10**3, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_DECIMAL = r"(?:\d++(?:\.\d++)?|(?<![\w.])\.\d++)"
NUMBER = re.compile(
    r"(?P<sign>(?<![A-Za-z\d)\]}%])-)?[$€£¥₹]?(?<![A-Za-z\d])(?<!\d\.)(?<![A-Za-z]_)"
    rf"(?P<digits>(?:\d{{1,3}}[ ])?{_DECIMAL}[ ]?/[ ]?{_DECIMAL}|{_DECIMAL}(?:[eE][-+]?\d++)?)"
    rf"(?:[ ]?(?P<scale>(?<=\d)k|(?<=[ ])(?:{'|'.join(SCALES)}))\b)?"
)
SPELLINGS = (  # in this order
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\!|\\(?=\$)"), ""),
    (re.compile(r"\\text\w*\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[,;: ]|~|[ \t]+"), " "),
    (
        re.compile(  # digit groups: 1,234 and 12,34,567; 1 234 and 1'234; 1.234,5 and 1.234.567
            r"(?<![\d.,])(?:[1-9]\d{0,2}(?:,\d{2,3}){0,9},\d{3}(?!\d)|\d{1,3}(?:[ ']\d{3}){1,9}(?!\d)"
            r"|\d{1,3}(?:\.\d{3}){1,9}(?=,\d)|\d{1,3}(?:\.\d{3}){2,9}(?![\d.]))"
        ),
        lambda match: re.sub(r"\D", "", match[0]),
    ),
    (re.compile(r"(?<![\d,])(0(?=,\d++(?![\d,]))|\d++(?=,\d{1,2}(?![\d,]))),"), r"\1."),  # 12,50
    (re.compile(r"(?<=\d)\s?(?:\\times|\\cdot|[*x])\s?10\s?\^\s?\{?([-+]?\d{1,2})\}?"), r"e\1"),
    (re.compile(r"\\[dtc]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))"), r" \1\2/\3\4"),
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?|(?<=[A-Za-z)°])\s?[\^_](?:\{[^{}]*\}|\s?-?\d+)"), ""),
    (re.compile(r"\b(?:Rs\.?|USD|EUR|GBP|INR)\s?(?=[-\d.])"), "$"),
    (re.compile(r"(?<![\d)])(?<![\d)]\s)\b(?:minus|negative)\s+(?=[\d.$€£])", re.IGNORECASE), "-"),
    (re.compile(r"([={(]\s*-)\s+(?=[\d.$])"), r"\1"),  # "= - 3"; elsewhere "- 3" is a bullet or an operator
    (re.compile(r"^[ \t#>-]*\d{1,2}[.)](?=[ \t]+\S)|\bstep\s*\d+", re.IGNORECASE | re.MULTILINE), ""),
)
POWER = re.compile(r"\d\s?\^")
ASIDE = re.compile(r"\([^()]*\)")
FIRST_SENTENCE = re.compile(
    r"(?:\s*\n\s*[-•]\s)?(\s*(?:(?!,\s(?!and\b|or\b|[-\d$])|;|\n|[.!?](?:\s|\Z)|\s(?:because|since|from|which|not)\b).){1,300})",
    re.DOTALL,
)
WORDS_FIRST = re.compile(r"\s*(?:[^\W\d_]+[',]?\s+){2}")
WORKED_OUT = re.compile(r"\W*(?:so|thus|hence|therefore|in total)\b|[^=]*=", re.IGNORECASE)
SIDES = re.compile(r"=|\\approx|\\Rightarrow|→")
SEVERAL = re.compile(  # between two numbers
    r"\s(?:hours?|minutes?|days?|weeks?|years?|feet|foot|pounds?|dollars?)\s|%?(?:\s[^\d\W]+){0,2}\s?"
    r"(?:[-+*/,]|\\times|:(?=\S)|x\b|\b(?:to|and|or|bis|und|oder|et|ou|by|times|plus|minus)\b),?\s?(?:and\s|or\s)?"
)
UNKNOWN = re.compile(r"\W*(?:none|unknown|undefined|be \w+ed|be found|n/a)\b|.*(?:not enough|can(?:no|')t be)\b", re.I)
BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
WORDS = {word: i for i, word in enumerate(f"{_ONES} eighteen nineteen".split())}
WORDS |= {word: 10 * i for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_WORD = f"(?:{'|'.join([*WORDS, *SCALES][::-1])})"
PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fifth": 5, "fifths": 5}
PART_IN_WORDS = re.compile(rf"\b({'|'.join([*WORDS][::-1])})[ -]({'|'.join(PARTS)})\b", re.IGNORECASE)
IN_WORDS = re.compile(rf"\b{_WORD}(?:(?:-|\s|\sand\s){_WORD}){{0,12}}\b", re.IGNORECASE)


@lru_cache(2**14)
def key(text: str) -> Fraction | None:
    """The exact value of the number that a text says; None without one."""
    found = read(text)
    return Fraction(found) if found else None


def equal(a: str, b: str, budget=None) -> bool:
    """Whether two texts say numbers of the same exact value. (It costs no budget.)"""
    return key(a) is not None and key(a) == key(b)


def read(place: str, boxed: bool = True) -> str | None:
    """The number of a box, or of the words behind a mark."""
    if not boxed and WORDS_FIRST.match(place):
        return _read_sentences(place.split("\n\n")[0])
    sentence = None if boxed else FIRST_SENTENCE.match(place)
    place = sentence[1] if sentence else place
    found = _read(place, first=True)
    return _read(_in_digits(place), first=True) if found is None else found


def read_conclusion(turn: str) -> str | None:
    """The last number of the last sentence that has one, a bold one before others."""
    for sentence in conclusion(turn) if re.search(r"\d", turn) else [_in_digits(turn)]:
        for part in (*BOLD.findall(sentence)[::-1], EMPHASIS.sub("", sentence)):
            found = _read(part, first=False)
            if found is not None:
                return found
    return None


def _read_sentences(text: str) -> str | None:
    """The number of several sentences: the last one where it is worked out ("=", "so") or no other one is there."""
    found = [(one, number) for one in SENTENCE_END.split(text) if (number := _read(one, first=False)) is not None]
    if not found:
        return _read(_in_digits(text), first=False)
    return found[-1][1] if WORKED_OUT.match(found[-1][0]) or found[0][1] == found[-1][1] else ""


def _read(sentence: str, first: bool) -> str | None:
    """The number of the last side of "=" that has one: None without a number, "" for several or an unknown one."""
    if UNKNOWN.match(sentence):
        return ""
    for side in SIDES.split(sentence)[::-1]:
        exact = value(side.strip(" \n*:$").rstrip("."))
        if exact is not None and not re.search(r"\d-\d", side):
            return canonical(exact)
        side = plain(side)
        if POWER.search(side):
            return ""
        numbers = list(NUMBER.finditer(ASIDE.sub("", side))) or list(NUMBER.finditer(side))
        if numbers:
            return _chosen(numbers, first)
    return None


def _chosen(numbers: list[re.Match], first: bool) -> str:
    """Of several numbers the one that counts: the first one where it stands right there, else the last one."""
    found, text = [_canonical(number) for number in numbers], numbers[0].string
    if len(set(found)) == 1:
        return found[0]
    first = first and not re.search(r"[^\W\d]{2}", text[: numbers[0].start()])
    one, other = numbers[:2] if first else numbers[-2:]
    return "" if SEVERAL.fullmatch(text[one.end() : other.start()]) else found[0 if first else -1]


def _canonical(number: re.Match) -> str:
    found = value(number["digits"])
    scale = SCALES[number["scale"]] if number["scale"] else 1
    return "" if found is None else canonical(found * scale * (-1 if number["sign"] else 1))


def canonical(number: Fraction) -> str:
    """As a whole number, a decimal that ends, or a fraction; "" for more than 100 characters."""
    with localcontext(prec=2 * MAX_NUMBER_LENGTH):
        decimal = Decimal(number.numerator) / Decimal(number.denominator)
    found = f"{decimal:f}" if Fraction(decimal) == number else str(number)
    return found if len(found) <= MAX_NUMBER_LENGTH else ""


def plain(text: str) -> str:
    """A text in the spelling that numbers are read in."""
    text = text.translate(CHARACTERS)
    for pattern, spelling in SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def value_of(text: str) -> Fraction | None:
    """The value of a text that is only a number."""
    number = NUMBER.fullmatch(plain(text).strip())
    return key(text) if number else None


def _in_digits(text: str) -> str:
    """A text with its number words as digits."""
    text = PART_IN_WORDS.sub(lambda match: f"{WORDS[match[1].lower()]}/{PARTS[match[2].lower()]}", text)
    text = re.sub(r"\band a half\b", "1/2", text, flags=re.IGNORECASE)

    def number(match: re.Match) -> str:
        total = group = 0
        for word in re.findall(r"[a-z]+", match[0].lower()):
            group = group + WORDS.get(word, 0) if word not in SCALES else max(group, 1) * SCALES[word]
            if SCALES.get(word, 0) > 100:
                total, group = total + group, 0
        return str(total + group)

    return IN_WORDS.sub(number, text)
