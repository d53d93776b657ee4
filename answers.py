"""Text -> answer, equality of answers, the vote, and the figures made from votes (maj@k, pass@k).

    extract_answer("So she makes 9 * 2 = $18.00 a day.", "number")   ->  "18"
    answers_equal("3/4", "0.75", "number")                           ->  True
    vote(["17", None, "18", "18"], "number")                         ->  "18"

An answer type is one function that finds the answer in a text and one that compares two answers.

number: the first of these that holds a number gives the answer.
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

choice: "A" to "J": the last box, the last conclusion, a line or a name of its own: see answers_choice.py.

boolean: "yes" or "no": the last box, the last conclusion, the first word or the last one: see answers_boolean.py.

latex: the last box, what follows "answer is", the last formula, or else the last number: see answers_latex.py.
"""

import itertools
import math
import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import cache

import numpy as np

from lta_thinker import answers_boolean, answers_choice, answers_latex

ANSWER_TYPES = ("number", "choice", "boolean", "latex")
MAX_NUMBER_LENGTH = 100  # characters; more is a model in a loop, not an answer
MAX_SUBSETS = 2000  # of one size, for maj@k

# The patterns below run over whatever a model samples: none may backtrack over an unbounded stretch.
UNSIGNED = (
    r"(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{2,3}){0,9}[,\u00a0\u2009\u202f]\d{3}(?!\d)|\d++)(?:\.\d++)?|(?<![\w.])\.\d++"
)
NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![A-Za-z\d)\]}}%])-)? [$€£¥₹]?
    (?<![A-Za-z\d]) (?<!\d\.) (?<![A-Za-z]_)
    (?: (?:(?P<whole>\d++)[ \t\u202f]{{1,3}})? (?P<top>{UNSIGNED}) [ \t]?/[ \t]? (?P<bottom>{UNSIGNED})
      | (?P<plain>{UNSIGNED}) (?:[eE](?P<exponent>[-+]?\d{{1,2}}))? )
    """,
    re.VERBOSE,
)
BRACES = re.compile(r"boxed\s*\{|[{}]")
ANSWER_MARK = re.compile(r"answer[*_\s]*(?:is\b|[:=])|####(?=[^A-Za-z\d\n]{0,8}\d)", re.IGNORECASE)
SENTENCE_WITH_NUMBER_FIRST = re.compile(r"[^A-Za-z\d]*\d.*?(?=[.!?][^\w\s]{0,4}(?:\s|\Z)|\n|\Z)")
PLAIN_SPELLINGS = (  # applied in this order
    (re.compile(r"[−–‐‑－]"), "-"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\,"), "\u202f"),
    (re.compile(r"\\\$"), "$"),
    (re.compile(r"\\(?:text\w*|math[a-z]+|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"(?<=\d)\s?(?:\\times|\\cdot|[×*x])\s?10\s?\^\s?\{?([-+]?\d{1,2})\}?"), r"e\1"),
    (re.compile(r"(?<=\d)\s*(?=\\[dtc]?frac|[¼-¾⅐-⅞])"), " "),  # mixed numbers
    (re.compile(r"[¼-¾⅐-⅞]"), lambda m: unicodedata.normalize("NFKC", m[0])),
    (re.compile(r"[⁄∕]"), "/"),
    (
        re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))"),
        lambda m: f"{(m[1] or m[2] or '').strip()}/{(m[3] or m[4] or '').strip()}",
    ),
    (re.compile(r"[\^_]\{[^{}]*\}|\^\s?-?\d+"), ""),
    (re.compile(r"\b(?:Rs\.?|USD|EUR|GBP|INR)\s?(?=[-\d.])"), "$"),
    (re.compile(r"([={(]\s*-)\s+(?=[\d.$])"), r"\1"),  # "= - 3"; elsewhere "- 3" is a bullet or an operator
    (re.compile(r"^[ \t#*>-]*\d{1,2}[.)](?=[ \t]+\S)|\bstep\s*\d+", re.IGNORECASE | re.MULTILINE), ""),
)


def extract_answer(text: str, answer_type: str, options: tuple[str, ...] = ()) -> str | None:
    """The answer that a model's text gives, as a canonical string, or None. Raises ValueError for the answer type.

    `options` of a choice question, without letters: only that many letters are answers, and each text is its letter.
    """
    extract, _ = _kind(answer_type)
    return extract(text, options) if answer_type == "choice" else extract(text)


def answers_equal(a: str | None, b: str | None, answer_type: str) -> bool:
    """Whether two answers mean the same. None equals nothing. Raises ValueError for the answer type."""
    _, equal = _kind(answer_type)
    return a is not None and b is not None and equal(a, b)


def vote(answers: list[str | None], answer_type: str, scores: list[float] | None = None) -> str | None:
    """The answer most samples give, in its first sample's words; None where no sample has one.

    None never votes. Of groups of the same size, the one with the higher mean score wins, then the first seen.
    Raises ValueError for the answer type, or where there is not one score for each answer.
    """
    winner, _ = vote_index(group_answers(answers, answer_type), scores)
    return None if winner is None else answers[winner]


def group_answers(answers: list[str | None], answer_type: str) -> list[int | None]:
    """The group of equal answers that each sample belongs to, counted from 0 as first seen; None has no group.

    Raises ValueError for the answer type.
    """
    _, equal = _kind(answer_type)
    firsts, groups = [], []
    for answer in answers:
        if answer is None:
            groups.append(None)
            continue
        group = next((g for g, first in enumerate(firsts) if equal(first, answer)), len(firsts))
        if group == len(firsts):
            firsts.append(answer)
        groups.append(group)
    return groups


def vote_index(groups: list[int | None], scores: list[float] | None = None) -> tuple[int | None, bool]:
    """The first sample of the group that wins the vote (None without one), and whether the largest groups were tied.

    A tie counts as one even where scores decide it. Raises ValueError where there is not one score for each sample.
    """
    winners, tied = _winners(np.ones((1, len(groups)), dtype=bool), groups, scores)
    return (None if winners[0] < 0 else int(winners[0])), bool(tied[0])


def maj_at_k(groups: list[int | None], correct: list[bool], scores: list[float] | None = None) -> list[float]:
    """For k = 1..N, the share of subsets of k of one question's N samples whose vote is correct.

    `correct` says it of each sample. All subsets count where there are at most 2,000, else 2,000 random ones, the same
    in every call. Raises ValueError where there is not one score, or one `correct`, for each sample.
    """
    if len(correct) != len(groups):
        raise ValueError(f"{len(groups)} samples, but 'correct' for {len(correct)}")
    correct = np.array([*correct, False])  # the last one for winner -1: nobody voted
    n = len(groups)
    return [float(correct[_winners(_subsets(n, k), groups, scores)[0]].mean()) for k in range(1, n + 1)]


def pass_at_k(correct: list[bool]) -> list[float]:
    """For k = 1..N, the chance that one of k of the N samples is correct: 1 - C(N - c, k) / C(N, k), c correct ones."""
    n, wrong = len(correct), len(correct) - sum(correct)
    return [1 - math.comb(wrong, k) / math.comb(n, k) for k in range(1, n + 1)]


def _kind(answer_type: str):
    if answer_type not in KINDS:
        raise ValueError(f"unknown answer type {answer_type!r}: one of {', '.join(ANSWER_TYPES)}")
    return KINDS[answer_type]


@cache
def _subsets(n: int, k: int) -> np.ndarray:
    """Subsets of k of n samples, one a row, as a mask (S, n): all, or MAX_SUBSETS drawn with a fixed seed."""
    if math.comb(n, k) <= MAX_SUBSETS:
        chosen = np.array(list(itertools.combinations(range(n), k)))  # (S, k)
    else:
        chosen = np.random.default_rng((n, k)).random((MAX_SUBSETS, n)).argsort(axis=1)[:, :k]
    members = np.zeros((len(chosen), n), dtype=bool)
    np.put_along_axis(members, chosen, True, axis=1)
    return members


def _winners(
    members: np.ndarray, groups: list[int | None], scores: list[float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """One vote for each row of `members` (S, N): the first sample of the winning group, or -1, and whether tied."""
    if scores is not None and len(scores) != len(groups):
        raise ValueError(f"{len(groups)} samples, but {len(scores)} scores")
    size = (len(members), 1 + max((g for g in groups if g is not None), default=0))  # (S, G)
    counts, totals, first = np.zeros(size, dtype=int), np.zeros(size), np.full(size, len(groups))
    # Sample by sample, not as a matrix product: a group's total must not depend on the other rows, or a tie of scores
    # would be broken by rounding.
    for i, group in enumerate(groups):
        if group is None:
            continue
        here = members[:, i]
        counts[:, group] += here
        first[here, group] = np.minimum(first[here, group], i)
        if scores is not None:
            totals[here, group] += scores[i]
    most = counts.max(axis=1, keepdims=True)
    ahead = counts == most
    tied = ahead.sum(axis=1) > 1
    totals = np.where(ahead, totals, -np.inf)  # of groups of one size, so the higher total is the higher mean
    ahead &= ~(totals < totals.max(axis=1, keepdims=True))  # a score of nan decides nothing
    winners = np.where(ahead, first, len(groups)).min(axis=1)
    return np.where(most[:, 0] > 0, winners, -1), tied


def _extract_number(text: str) -> str | None:
    text = _respelled(text, PLAIN_SPELLINGS)
    found = _last_number(_last_box(text))
    if found is not None:
        return found
    for after in reversed(ANSWER_MARK.split(text)[1:]):
        sentence = SENTENCE_WITH_NUMBER_FIRST.match(after)
        found = _last_number(sentence[0] if sentence else after)
        if found is not None:
            return found
    return _last_number(text)


def _numbers_equal(a: str, b: str) -> bool:
    a, b = _extract_number(a), _extract_number(b)
    return a is not None and b is not None and Fraction(a) == Fraction(b)


def _last_box(text: str) -> str:
    """What the last complete \\boxed{} holds; empty without one."""
    open_braces, last = [], (0, 0)
    for match in BRACES.finditer(text):
        if match[0] != "}":
            open_braces.append(match.end() if match[0] != "{" else None)
        elif open_braces and (start := open_braces.pop()):
            last = (start, match.start())
    return text[slice(*last)]


def _last_number(text: str) -> str | None:
    """The last number of a text in plain spelling, canonical; None without one, or where it has no value (3/0)."""
    matches = list(NUMBER.finditer(text))
    if not matches or len(matches[-1][0]) > MAX_NUMBER_LENGTH:
        return None
    match = matches[-1]
    sign = match["sign"] or ""
    if match["plain"]:
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


def _respelled(text: str, spellings) -> str:
    for pattern, spelling in spellings:
        text = pattern.sub(spelling, text)
    return text


def _extract_choice(text: str, options: tuple[str, ...]) -> str | None:
    return answers_choice.extract(text, _last_box(text), options, _number_value)


def _number_value(text: str) -> Fraction | None:
    """The value of a text that is only a number."""
    number = _respelled(text, PLAIN_SPELLINGS).strip()
    value = _last_number(number) if NUMBER.fullmatch(number) else None
    return Fraction(value) if value else None


def _extract_boolean(text: str) -> str | None:
    return answers_boolean.extract(text, _last_box(text))


def _extract_latex(text: str) -> str | None:
    box = _last_box(text)
    while inner := _last_box(box):
        box = inner
    return answers_latex.extract(text, box, ANSWER_MARK.split(text)[:0:-1]) or _extract_number(text)


KINDS = {
    "number": (_extract_number, _numbers_equal),
    "choice": (_extract_choice, str.__eq__),
    "boolean": (_extract_boolean, str.__eq__),
    "latex": (_extract_latex, answers_latex.equal),
}
