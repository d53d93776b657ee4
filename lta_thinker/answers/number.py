r"""Number answers: the number that a text says, its exact value, and the exact value of arithmetic.

    extract_answer("She sells 9 eggs, so she makes 9 * 2 = $18.00.", "number")  ->  "18"
    value(r"\frac{3!}{2^{2}}")                                                 ->  Fraction(3, 2)

A box, or the first sentence behind a mark, says the value of its arithmetic, or the number that stands right there or
right behind the last "=". Of several numbers in another sentence the one counts that was worked out last in the text,
or stands behind the verb; of joined ones none. Canonical: "18", "-0.5", and "1/3" where decimals do not end.
"""

import ast
import math
import operator
import re
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

from lta_thinker.answers.said import CHARACTERS, EMPHASIS, SENTENCE_END, conclusion, spelled

MAX_NUMBER_LENGTH = 100  # characters; more is a model in a loop, not an answer

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
WORDS = {word: i for i, word in enumerate(f"{_ONES} seventeen eighteen nineteen".split())}
WORDS |= {word: 10 * i for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
SCALES = {"k": 10**3, "K": 10**3, "M": 10**6, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
PARTS = {"half": 2, "third": 3, "quarter": 4, "fifth": 5}
_WORD = f"(?:{'|'.join([*WORDS, 'hundred', 'thousand', 'million', 'billion'][::-1])})"
_IN_WORDS = rf"{_WORD}(?:(?:-|\s|\sand\s){_WORD})*\b"
IN_WORDS = re.compile(rf"(?i)\b{_IN_WORDS}")
AT_END = re.compile(rf"(?i)(?<!\d\s)\b(?!one\b|hundred|thousand|million|billion){_IN_WORDS}(?=\W*\Z)")
PART_IN_WORDS = re.compile(rf"\b({'|'.join(WORDS)}|and a)[ -]({'|'.join(PARTS)})s?\b", re.IGNORECASE)

_DECIMAL = r"(?:\d++(?:\.\d++)?|(?<![\w.])\.\d++)"
NUMBER = re.compile(
    r"(?P<sign>(?<![A-Za-z\d)\]}%])-)?[$€£¥₹]?(?<![A-Za-z\d])(?<!\d\.)(?<![A-Za-z]_)"
    rf"(?P<digits>(?:\d{{1,3}}[ ])?{_DECIMAL}[ ]?/[ ]?{_DECIMAL}|{_DECIMAL}(?:[eE][-+]?\d++)?)"
    rf"(?:[ ]?(?P<scale>(?<=\d)[kKM]|(?<=[ ])(?:{'|'.join(SCALES)}))\b)?"
)
GROUPS = (  # 1,234 and 12,34,567; 1 234; 1'234; 1.234,5; 1.234.567; 1.234 with a currency that is so written
    r"(?i)(?<![\d.,])(?:[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}(?!\d)|\d{1,3}(?:[ ']\d{3})+(?!\d)|\d{1,3}(?:\.\d{3})+(?=,\d)"
    r"|\d{1,3}(?:\.\d{3}){2,}(?!\.?\d)|(?:(?<=€)|(?<=€ )|(?<=Rp)|(?<=Rp ))\d{1,3}\.\d{3}(?!\d)"
    r"|\d{1,3}\.\d{3}(?=\s?(?:€|euro|rupiah|reais|pesos)))"
)
SPELLINGS = (  # in this order
    (r"\{,\}", ","),  # 1{,}234
    (r"\\!|\\(?=\$)", ""),  # 1,\!234; \$5
    (r"\\text\w*\s*\{([^{}]*)\}", r" \1 "),  # \text{Change: }-3
    (r"\\[,;: ]|~|[ \t]+", " "),  # 2\,500
    (GROUPS, lambda match: re.sub(r"\D", "", match[0])),
    (r"(?<![\d,])(\d++),(?=\d{1,2}(?![\d,]))", r"\1."),  # 12,50
    (r"(?<=\d)\s?(?:\\times|\\cdot|[*x])\s?10\s?\^\s?\{?([-+]?\d{1,2})\}?", r"e\1"),  # 3 x 10^8
    (r"\\[dtc]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))", r" \1\2/\3\4"),  # \frac12 cup
    (r"\^\s?\{?\s?\\circ\s?\}?|(?<=[A-Za-z)}°])\s?[\^_](?:\{[^{}]*\}|\s?-?\d+)", ""),  # 90^\circ; cm^2
    (r"\bRs\.?\s?(?=\d)", "$"),
    (r"(?i)(?<![\d)])(?<![\d)]\s)\b(?:minus|negative)\s+(?=[\d.$€£])", "-"),  # negative $20
)
ASIDE = re.compile(r"\([^()]*\)")
SIDES = re.compile(r"=|\\approx|→|\brounds?(?:\s\w+)?\sto\b")
WORKED_OUT = re.compile(r"\d[^=]*=[^=]*\d[^=]*\Z")  # 3 boxes * 4 = 12 pens
WORDS_FIRST = re.compile(r"\s*(?:[^\W\d_]+[',]?\s+){2}")
VERB = re.compile(  # the number behind the last one is said: "In 2030, she will be 27", "not 5 but 7"
    r"(?s).*(?:\b(?:is|are|was|were|be|equals?|ha[sd]|have|needs?|takes?|gets?|gives?|costs?|makes?|earns?|pays?|so|but|ist|est"
    r"|es|adalah)\b|[是为は])"
)
JOINED = re.compile(  # between two numbers: "2 or 3", "3-5", "5 hours 30 minutes", "3:5"
    r"%?(?:\s[^\d\W]+){0,2}\s?(?:[-+*/,x:]|\\times|\b(?:to|and|or|und|oder|bis|et|ou)\b)[\s,]*(?:(?:and|or)\s)?"
    r"|\s?(?:hours?|h|minutes?|min|days?|weeks?|years?|feet|foot|ft|pounds?)\s"
)
REFUSAL = re.compile(
    r"(?i)\b(?:can(?:no|')t|cannot|unable to|not possible to|impossible to)\s(?:be\s)?(?:\w+ly\s)?(?:determine|answer"
    r"|calculate|said?|say|know|tell|solve|find|found|compute)|\bnot\s(?:\w+\s)?enough\s(?:information|data|detail)|\A\W*(?:none|unknown|undefined)\b"
)
EXCLAIMED = re.compile(
    r"(?<=\d)!+(?=[^\w\s]{0,3}\s*(?:[^\w\s]{0,4}\s*(?:\n|\Z)|[A-Z]))"
)  # "It is 5! Great"; not "5! = 120"
BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")


def read(place: str, where: str, options: tuple[str, ...] = ()) -> str | None:
    """The number of a box, of the first sentence behind a mark, or of the last sentence that has one. Where words stand
    behind the mark, as in a solution, the end of that has to say the same."""
    if where == "box":
        return _read(_in_digits(place), first=True)
    place = EXCLAIMED.sub(".", place)
    if where == "mark":
        found = _read(_in_digits(SENTENCE_END.split(place.strip())[0]), first=True)
        solution = place.strip().split("\n\n")[0]
        concluded = read(solution, "end") if WORDS_FIRST.match(place) else found
        return concluded if concluded == found or "=" in solution else ""
    worked_out = _read(place.rpartition("=")[2], first=True) if WORKED_OUT.search(place) else None
    for sentence in conclusion(place):
        for part in (*BOLD.findall(sentence)[::-1], EMPHASIS.sub("", sentence)):
            found = _read(_in_digits(part), False, worked_out)
            if found is not None:
                return found
    return None


def _read(sentence: str, first: bool, worked_out: str | None = None) -> str | None:
    """The number of the last side of "=" that has one: None without a number, "" for a doubt. first: that which stands
    right there counts, else the one behind the last verb; of arithmetic's last side always the first one."""
    if REFUSAL.search(sentence):
        return ""
    sides = SIDES.split(sentence)
    while sides:
        side = sides.pop()
        exact = value(side.strip(" \n*:$").rstrip("."))
        if exact is not None and not re.search(r"\d-\d", side):
            return canonical(exact)
        text = plain(side)
        numbers = list(NUMBER.finditer(ASIDE.sub("", text))) or list(NUMBER.finditer(text))
        if numbers:
            return _chosen(numbers, first or bool(WORKED_OUT.search(sentence)), worked_out)
    return None


def _chosen(numbers: list[re.Match], first: bool, worked_out: str | None) -> str:
    """Of several numbers the first one behind the verb; "" where none is, or two are joined."""
    found, text, start = [_canonical(number) for number in numbers], numbers[0].string, 0
    if len(set(found)) == 1:
        return found[0]
    if not first or re.search(r"[^\W\d]{2}", text[: numbers[0].start()]):
        verb = VERB.match(text, 0, numbers[-1].start())
        start = verb.end() if verb else len(text)
    chosen = [i for i, number in enumerate(numbers) if number.start() >= start][:2]
    if worked_out in found:
        return worked_out if not chosen or found[chosen[0]] == worked_out else ""
    joined = len(chosen) == 2 and JOINED.fullmatch(text[numbers[chosen[0]].end() : numbers[chosen[1]].start()])
    return found[chosen[0]] if chosen and not joined else ""


def _canonical(number: re.Match) -> str:
    found = value(number["digits"])
    if found is None or number.string[number.end() :].lstrip()[:1] == "^":
        return ""
    return canonical(found * SCALES.get(number["scale"], 1) * (-1 if number["sign"] else 1))


def canonical(number: Fraction) -> str:
    """As a whole number, a decimal that ends, or a fraction; "" for more than 100 characters."""
    with localcontext(prec=2 * MAX_NUMBER_LENGTH):
        decimal = Decimal(number.numerator) / Decimal(number.denominator)
    found = f"{decimal:f}" if Fraction(decimal) == number else str(number)
    return found if len(found) <= MAX_NUMBER_LENGTH else ""


def plain(text: str) -> str:
    """A text in the spelling that numbers are read in."""
    return spelled(text.translate(CHARACTERS), SPELLINGS)


@lru_cache(2**14)
def key(text: str) -> Fraction | None:
    """The exact value of the number that a text says; None without one."""
    found = read(text, "box")
    return Fraction(found) if found else None


def value_of(text: str) -> Fraction | None:
    """The value of a text that is only a number."""
    return key(text) if NUMBER.fullmatch(plain(text).strip()) else None


def _in_digits(text: str) -> str:
    """A text with its number words as digits, at its end alone where it has digits: "three and a half" is "3 1/2"."""
    if re.search(r"\d", text):
        return AT_END.sub(_whole, text)
    text = PART_IN_WORDS.sub(lambda part: f"{WORDS.get(part[1].lower(), 1)}/{PARTS[part[2].lower()]}", text)
    return IN_WORDS.sub(_whole, text)


def _whole(words: re.Match) -> str:
    total = group = 0
    for word in re.findall(r"[a-z]+", words[0].lower()):
        group = max(group, 1) * SCALES[word] if word in SCALES else group + WORDS.get(word, 0)
        if SCALES.get(word, 0) > 100:
            total, group = total + group, 0
    return str(total + group)


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic

MAX_FORMULA = 300  # characters of a formula
MAX_BITS = 10_000  # of a power


def _root(match: re.Match) -> str:
    root = math.isqrt(int(match[1]))
    return f"({root})" if root**2 == int(match[1]) else match[0]


PYTHON_SPELLINGS = (  # LaTeX as Python's grammar has it, with whole numbers alone
    (r"\\[,; ]", ""),
    *2 * ((r"\\[dtc]?frac\s*(\{[^{}]*\})?\s*(\d)", r"\\frac\1{\2}"),),  # \frac12
    (r"(?<![\d./^])(\d+) +(\d+)\s?/\s?(\d+)(?![\d./])", r"(\1+\2/\3)"),  # 1 1/2
    (r"(?<![\d./^])(\d+)\s*\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r"(\1+\2/\3)"),
    (  # 0.1\overline{6}
        r"(\d*\.(\d*))\\overline\{(\d+)\}",
        lambda match: f"({match[1]}0+{match[3]}/{'9' * len(match[3])}{'0' * len(match[2])})",
    ),
    (r"(\d*)\.(\d+)", lambda match: f"({match[1]}{match[2]}/1{'0' * len(match[2])})"),
    (r"(?<=[\d)])[eE]([-+]?\d{1,3})(?!\d)", r"*10**(\1)"),
    (r"(?<!\d)(\d{1,3})\s*!", lambda match: str(math.factorial(int(match[1])))),
    (r"\\sqrt\s*\{(\d+)\}", _root),
    (r"\}\s*\{", ")/("),
    (r"(?<![/^])(?<![/^]\s)\\[dtc]?frac\s*(?=\{)|(?<=\d)\.(?!\d)", ""),
    (r"\\(?:cdot|times)(?![a-zA-Z])", "*"),
    (r"(?<!\d)0+(?=\d)", ""),  # 007
)
BRACES = str.maketrans({"{": "(", "}": ")", "^": "**"})
ARITHMETIC = re.compile(r"(?!.*\d/\d+/)[\d\s+*/()-]*\d[\d\s+*/()-]*")  # no date
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@lru_cache(2**14)
def value(formula: str) -> Fraction | None:
    """The value of numbers with + - * / ^ !, fractions, mixed numbers and square roots; None where it is not rational,
    is not only arithmetic or is too large."""
    if len(formula) > MAX_FORMULA:
        return None
    formula = spelled(formula, PYTHON_SPELLINGS).strip().translate(BRACES)
    try:
        return _evaluate(ast.parse(formula, mode="eval").body) if ARITHMETIC.fullmatch(formula) else None
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _evaluate(node: ast.expr) -> Fraction:
    """Raises ValueError for what has no rational value."""
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=part):
            return -_evaluate(part)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _evaluate(left), _evaluate(right)
            if not isinstance(op, ast.Pow):
                return OPERATORS[type(op)](a, b)
            bits = max(a.numerator.bit_length(), a.denominator.bit_length())
            if b.denominator == 1 and abs(b) * bits <= MAX_BITS:
                return a**b.numerator
    raise ValueError("not rational, or not arithmetic")
