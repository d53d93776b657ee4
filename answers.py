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

choice: "A" to "J". The first of these that says anything gives the answer, and a doubt ("A or B", a letter beyond the
options) is no answer.
  1. the last box: a letter ("C", "c", "(C) 12", "C: 12"), or the text of exactly one option;
  2. the last conclusion: the same after "answer is", "Answer:", "correct option is"; "so (C)", "I choose C", "option C
     is correct". One that is called wrong later on is none;
  3. a last line that is only a letter; one line that begins with "C." or "C)", the first or the last one;
  4. the only one that is named as "(C)" or "option C" and not called wrong.
  "A", "I" and small letters, which are words too, need a bracket, a full stop or the like. Option texts are compared
  without case, spaces, dollar signs and a full stop, numbers by value.

boolean: "yes" or "no", also for true and false; "not" turns them round, and "no" before a noun ("no way") is none.
  1. the last box;
  2. the last conclusion: after "answer is", "Answer:" and the like, or "so yes", "therefore, no";
  3. a last sentence that begins with yes or no; else the first word, where no other sentence begins with its opposite
     and the last word is not its opposite; else the last word.

latex: the last box, what follows "answer is", the last formula, or else the last number: see answers_latex.py.
"""

import itertools
import math
import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache

import numpy as np

import answers_latex

ANSWER_TYPES = ("number", "choice", "boolean", "latex")
MAX_NUMBER_LENGTH = 100  # characters; more is a model in a loop, not an answer
MAX_MARKS = 50  # that are read, from the end of a text; more is a model in a loop
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

WORD_SPELLINGS = (  # for choice and boolean, applied in this order
    (re.compile(r"[’‘]"), "'"),
    (re.compile(r"[“”]"), '"'),
    *2 * ((re.compile(r"\\(?:text\w*|math[a-z]+|mbox)\s*\{([^{}]*)\}"), r"\1"),),  # \textbf{\text{C}}
    (re.compile(r"\*\*\s?\(?([A-Jb-h])\)?[.:]?\s?\*\*"), r"(\1)"),
    (re.compile(r"\\(?:q?quad\b|[,;:! ])|~"), " "),
    (re.compile(r"\\[()\[\]]|\\?\$|[*`_]"), ""),
)
SENTENCE = re.compile(r"\s{0,9}(.{0,300}?)(?=[.!?][^\w\s]{0,4}(?:\s|\Z)|\n|\Z|(?<=.{300}))")
WORD_MARK = re.compile(  # of choice and boolean; "answer D" is one, "answer a question" is none
    r"(?:\b(?:answer|ans)\b\.?(?:\s(?:choice|option|letter)\b)?"
    r"|\b(?:correct|right|best|final)\s(?:option|choice|one|letter|statement)\b)"
    r"(?:\s(?:to|for)\s[^.\n]{1,80}?(?=\s(?:is|=|:)))?(?:(?-i:(?=\.?\s?\(?[A-J]\b))|\s{0,5}(?:(?:is|(?:would|should|must|will)\sbe)\b(?!n't)"
    r"|[:=→–—\n]|-+>?(?=\s)|(?=isn't)))|####",
    re.IGNORECASE,
)
CHOICE = re.compile(
    r"[\s:,=>-]{0,20}(?:(?:the|correct|right|final|best|answer|ans|is|be|it's|it|clearly|therefore|thus|hence|indeed"
    r"|definitely|probably|likely|most|simply|just|either|both)\b[\s:=]{0,5}){0,8}"
    r"(?P<label>(?:option|choice|letter|statement)\b[\s:]{0,3})?(?:[(\[{\"'])?\s?(?P<letter>[A-Ja-j])(?!\w|'\w)"
    r"(?P<close>\s?[)\]}]|[\"'])?(?P<rest>.{0,300})",
    re.IGNORECASE,
)
ANOTHER_CHOICE = re.compile(
    r"\s*(?:,|/|&|\bor\b|\band\b)\s*(?:or\b|and\b)?\s*(?:either\b|both\b|option\b|choice\b)?\s*"
    r"(?:\([A-Ja-j]\)|[B-HJ](?!\w|')|A(?!\w|'|\s[a-z]))"
)
AFTER_A_WORD = re.compile(r"\s*(?:\Z|[.:;,!?](?!\w)|[–—-]\s|(?:because|since|which|as)\b)")  # after "A" and "I"
AFTER_A_SMALL_LETTER = re.compile(r"\s*(?:\Z|[.:!](?!\w))")
AFTER_A_CAPITAL = re.compile(r"(?!\s*(?:[+*/^=<>×÷\\]|-\w))")  # else it is a variable
AFTER_A_CONCLUSION = re.compile(
    r"\s*(?:\Z|[.,;:!](?!\w)|[–—-]\s|is\s(?:the\s)?(?:correct|right|answer|best)|\d|because\b|since\b)"
)
CALLED_WRONG = re.compile(
    r"\s{0,9}(?:(?:is|was|are|seems|looks|must be|can|could|does|would)\b\s?)?(?:\w{2,9}ly\s|also\s|therefore\s){0,2}"
    r"(?:(?:not|n't|\w{2,5}n't|cannot|too|out|never)\b|wrong|incorrect|false|impossible|eliminated|invalid|ruled)",
    re.IGNORECASE,
)
CONCLUSION = re.compile(
    r"\b(?:so|thus|hence|therefore|finally|conclusion|choose|pick|select|go(?:ing)? with|opt for|match(?:es)?"
    r"|corresponds? to)\b[,:]?\s{0,3}(?:(?:it's|it|that's|that|this|must|has|have|to|be|is|i'd|i'll|i|we|would|choose"
    r"|pick|select|go|with|say)\b\s?){0,6}",
    re.IGNORECASE,
)
CALLED_RIGHT = re.compile(
    r"(?<![\w'])(?:(?i:option|choice|statement)\s\(?([A-Ja-j])|\(([A-Ja-j])\)|([A-J]))[).]?\s(?:is|must be|would be)\s"
    r"(?:\w{2,8}ly\s|therefore\s|thus\s|indeed\s)?(?:the\s)?(?:only\s|most\s)?(?:correct|right|answer|best)\b"
)
DOUBTED = re.compile(
    r"\b(?:if|whether|assum\w+|suppose|none|neither|n?or|not|no|never|and|both)\b|n't\b", re.IGNORECASE
)
NAMED = re.compile(r"(?<![\w)\\])\(([A-Ja-j])\)(?!\w)|\b(?i:option|choice)\s(?:\(([A-Ja-j])\)|([A-J])(?!\w|'))")
NOT_BEFORE = re.compile(
    r"(?:\b(?:not|neither|nor|never|than|unlike|except|excluding|rejected|discarded|instead of|ruled? out|"
    r"eliminat\w{1,4})|n't)\s(?:be\s|think\s)?(?:the\s)?(?:(?:answer|correct)\s)?(?:is\s)?\Z",
    re.IGNORECASE,
)
NOT_BUT = re.compile(r"\s*(?:is\s)?not\s(?:option\s|choice\s)?\(?[A-Ja-j]\)?[,;]?\s(?:but|it is|it's)\s(?:rather\s)?")
LONE_LETTER = re.compile(r"\W{0,9}(?:(?:option|choice)\W{1,3})?\(?([A-J])\)?\W{0,9}", re.IGNORECASE)
LINE_LABEL = re.compile(r"^[^\w\n(]{0,9}(?:([A-J])[).]|([B-HJ]):)(?=\s|\Z)", re.MULTILINE)

YES_OR_NO = re.compile(r"\(?\b(?:yes\s?(?:or|/)\s?no|true\s?(?:or|/)\s?false)\b\)?", re.IGNORECASE)  # the instruction's
BOOLEAN = re.compile(
    r"[\s:=>(\"'\[-]{0,20}(?:(?:the|final|correct|answer|is|it's|it|that's|that|this|statement|claim|a|an|definite|clear"
    r"|resounding|simply|just|therefore|thus|so|hence|indeed|definitely|clearly|probably|likely|most|almost|certainly|be"
    r"|would|must)\b[\s,:\"']{0,3}){0,8}(?P<nots>(?:(?:not|isn't|wasn't|cannot be|can't be)\s[\"']?){0,3})"
    r"(?P<word>yes|no|true|false)(?!\w|[-']\w)(?P<rest>.{0,80})",
    re.IGNORECASE,
)
AFTER_A_BOOLEAN = re.compile(  # else it belongs to a noun
    r"""["')\]}]?\s*(?:\Z|[,;!?–—"')\]}:-]|\.(?!\s?\d)|(?:that|because|since|as|for|in|if|when|unless|but|and|so|given|due"""
    r"|under|according|it|he|she|they|you|we|i|there|this|these|those|the|wait|actually)\b)",
    re.IGNORECASE,
)
BOTH_BOOLEANS = re.compile(r"\s*(?:or|and|/|nor)\s*(?:yes|no|true|false)\b", re.IGNORECASE)
SENTENCE_START = re.compile(r"(?:\A|[.!?…][^\w\s]{0,4}\s{1,9}|\n\s{0,9})[^\w\s]{0,5}(?=(?:yes|no)\b)", re.IGNORECASE)
LAST_WORD = re.compile(
    r"(?<!\w)(?<!or )(?<!and )(?<!ly )(?P<nots>(?:not\s|n't\s)?)(?P<word>yes|no|true|false)(?P<rest>\W{0,9})\Z",
    re.IGNORECASE,
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
    """The finders say None for "go on", and an empty string for a doubt, which ends the search."""
    found = _read_choice(_respelled(_last_box(text), WORD_SPELLINGS), options)
    text = _respelled(text, WORD_SPELLINGS)
    for find in (_concluded_choice, _line_choice, _only_choice):
        found = find(text, options) if found is None else found
    return found or None


def _read_choice(text: str, options: tuple[str, ...]) -> str | None:
    """The letter that a text begins with, else the option that its first sentence or the part up to a comma is."""
    match = CHOICE.match(text)
    found = _letter(match, options) if match else None
    if found:
        return found
    sentence = SENTENCE.match(text)[1]
    for part in (sentence, re.split(r",\s|\s(?:because|since|which)\b", sentence)[0]):
        key = _option_key(part)
        same = [i for i, option in enumerate(options) if key != "" and key == _option_key(option)]
        if len(same) == 1:
            return chr(ord("A") + same[0])
    return found


def _letter(match: re.Match, options: tuple[str, ...]) -> str | None:
    """The letter of a match of CHOICE where it stands for an option and not for a word or a variable."""
    letter, rest = match["letter"].upper(), match["rest"]
    place = ord(letter) - ord("A")
    if ANOTHER_CHOICE.match(rest):
        return ""
    if CALLED_WRONG.match(rest):
        return None
    own_text = place < len(options) and _option_key(rest.lstrip(" =:-")) == _option_key(options[place])
    if not (match["close"] or match["label"] or own_text):
        capital = AFTER_A_WORD if letter in "AI" else AFTER_A_CAPITAL
        if not (AFTER_A_SMALL_LETTER if match["letter"].islower() else capital).match(rest):
            return None
    return letter if place < (len(options) or 10) else ""


@lru_cache(2**12)
def _option_key(text: str) -> Fraction | str:
    """Texts with the same key are the same option."""
    text = _respelled(text, WORD_SPELLINGS).strip().rstrip(".,;:!")
    number = _respelled(text, PLAIN_SPELLINGS).strip()
    if NUMBER.fullmatch(number) and (value := _last_number(number)):
        return Fraction(value)
    return re.sub(r"\s", "", text).casefold()


def _concluded_choice(text: str, options: tuple[str, ...]) -> str | None:
    """The last conclusion; a doubt where it is called wrong later."""
    found = [(-1, None)]
    for mark in list(WORD_MARK.finditer(text))[-MAX_MARKS:]:
        after = text[mark.end() : mark.end() + 400]
        if swap := NOT_BUT.match(after):
            after = after[swap.end() :]
        letter = _read_choice(after, options)
        found.append((mark.end(), _only_choice(SENTENCE.match(after)[1], options) if letter is None else letter))
    for mark in CONCLUSION.finditer(text):
        match = CHOICE.match(text, mark.end())
        if match and (match["close"] or match["letter"].isupper()) and AFTER_A_CONCLUSION.match(match["rest"]):
            found.append((mark.end(), _letter(match, options)))
    for match in CALLED_RIGHT.finditer(text):
        clause = re.split(r"[.;:!?\n]", text[max(0, match.start() - 60) : match.start()])[-1]
        if not DOUBTED.search(clause):
            found.append((match.start(), _in_range(match, options)))
    place, letter = max(one for one in found if one[1] is not None or one[0] < 0)
    named = re.finditer(rf"(?<!\w){letter}(?!\w)\)?", text[place + 2 :]) if letter else ()
    return "" if any(CALLED_WRONG.match(text, place + 2 + name.end()) for name in named) else letter


def _line_choice(text: str, options: tuple[str, ...]) -> str | None:
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    lone = LONE_LETTER.fullmatch(lines[-1])
    if lone and (lone[1].isupper() or len(lines) == 1):
        return _in_range(lone, options)
    for line in (lines[0], lines[-1]):
        if LINE_LABEL.match(line) and len({match[0].strip() for match in LINE_LABEL.finditer(text)}) == 1:
            return _letter(CHOICE.match(re.sub(r"\A[^\w(]+", "", line)), options)
    return None


def _only_choice(text: str, options: tuple[str, ...]) -> str | None:
    letters = {
        _in_range(match, options)
        for match in NAMED.finditer(text)
        if not NOT_BEFORE.search(text[max(0, match.start() - 40) : match.start()])
        and not CALLED_WRONG.match(text, match.end())
    }
    return letters.pop() if len(letters) == 1 else None


def _in_range(match: re.Match, options: tuple[str, ...]) -> str:
    """The only letter among a match's groups; empty where there are fewer options."""
    letter = next(group for group in match.groups() if group).upper()
    return letter if ord(letter) - ord("A") < (len(options) or 10) else ""


def _extract_boolean(text: str) -> str | None:
    """As for choice, an empty string is a doubt."""
    box, text = (YES_OR_NO.sub("", _respelled(one, WORD_SPELLINGS)) for one in (_last_box(text), text))
    found = _boolean(BOOLEAN.match(box))
    if found is None:
        matches = [BOOLEAN.match(text, mark.end()) for mark in WORD_MARK.finditer(text)]
        concluded = [BOOLEAN.match(text, mark.end()) for mark in CONCLUSION.finditer(text)]
        matches += [match for match in concluded if match and match["word"].lower() in ("yes", "no")]
        answers = [(match.start(), answer) for match in matches if (answer := _boolean(match)) is not None]
        found = max(answers)[1] if answers else None
    if found is None:
        matches = [BOOLEAN.match(text, start.end()) for start in SENTENCE_START.finditer(text)]
        starts = [(match.start(), answer) for match in matches if (answer := _boolean(match)) is not None]
        if starts and starts[-1][0] and not re.search(r"[.!?]\s|\n", text[starts[-1][0] :].strip()):
            return starts[-1][1] or None
        first, last = BOOLEAN.match(text), LAST_WORD.search(text[-60:])
        said = {answer for _, answer in starts} | {_boolean(first), _boolean(last)} - {None}
        found = said.pop() if len(said) == 1 else None
    return found or None


def _boolean(match: re.Match | None) -> str | None:
    """The answer of a match of BOOLEAN or LAST_WORD; None where the word belongs to a noun."""
    if not match:
        return None
    if BOTH_BOOLEANS.match(match["rest"]):
        return ""
    if match["word"].lower() != "yes" and not AFTER_A_BOOLEAN.match(match["rest"]):
        return None
    yes = match["word"].lower() in ("yes", "true")
    return "yes" if yes == (len(match["nots"].split()) % 2 == 0) else "no"


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
