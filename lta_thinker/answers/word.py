"""Answers of one word, the letter of an option or yes and no: which of those that a text names it concludes with.

    conclude("Not ⟨B⟩, as it is wet. So it is ⟨C⟩.")   ->  "C"

A type (choice.py, boolean.py) has spelled each word that can be an answer as ⟨C⟩. Those that are denied, asked,
supposed, called wrong or said by others do not count. Of the rest the last one counts that is concluded ("so ⟨C⟩", "⟨C⟩
is correct", a line of its own); else those that begin a sentence; else those that are named elsewhere; these only where
all are the same. Of "⟨A⟩ or ⟨B⟩" neither is an answer.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lta_thinker.answers.said import CORRECTION, MAX_CONCLUSION, MAX_MARKS, SENTENCE_END, conclusion, is_said

ANSWER = re.compile(r"⟨~?(\w*)⟩(?:(?:[ :.=,(-]|option|choice){0,5}⟨~?\1⟩)*")  # "C) 15 km" is ⟨C⟩ ⟨C⟩
ANOTHER = re.compile(
    r"(?:[ ),:=(/&+*-]{0,5}|[\s).…,]{0,5}(?:or|and|nor|oder|ou|o)\b[\s,]{0,2})(?:(?:either|both|option|choice)\s)?[(\[]?⟨~?(\w*)⟩"
)
CLAUSE = re.compile(r"[.!?;:,\n—]|\bbut\b")
DENIED = re.compile(  # in the clause before the answer
    r"\b(?:not|cannot|no|never|neither|nor|if|whether|unless|than|unlike|doubt|eliminates?|rules? out|wrong|people|some"
    r"|others?|they|you|thought|(?<!I )(?:would|could|might|may))\b|n't\b",
    re.IGNORECASE,
)
CALLED_WRONG = re.compile(  # behind the answer
    r"[ )\"':]{0,4}(?:(?P<asked>\?|(?:if|unless|though|would)\b)|(?:,\s(?:which|that)\s)?"
    r"(?:(?:is|was|are|seems|looks|must be|can|could|does)\b\s?)?(?:\w{2,9}ly\s|also\s)?"
    r"(?:(?:not|n't|\w{2,5}n't|cannot|too|out|never)\b|wrong|incorrect|false|impossible|eliminated|invalid|ruled))",
    re.IGNORECASE,
)
FILLERS = (
    r"(?:(?:the|correct|right|final|best|closest|answer|statement|claim|given|c'est|die|aussage|das|es|ist|is|be|well|short|这个说法是|这是|it's|it|that's|that|this|clearly|therefore|thus|hence|indeed|i|we"
    r"|probably|likely|most|simply|no|say|should|must|would|choose|pick|select|go|with|actually|option)\b[\s:,]{0,3}){0,6}"
)
AT_START = re.compile(rf"(?:\n|[.!?]\s)[^\w\n]{{0,9}}{FILLERS}[^\w\n]{{0,3}}\Z", re.IGNORECASE)
AT_END = re.compile(r"\s?[^\w\s⟨]|\s*(?:\n|\Z)|\s(?:because|since|as|which|that)\b")
AT_SENTENCE_END = re.compile(r"(?:\s?[^\W\d]+)?(?:,\snot\b[^.!?\n]{0,50})?(?:[.!?][^\w\s]?(?=\s|\Z)|\s*(?:\n|\Z))")
LETTER = re.compile(r"⟨\w*⟩")  # not an option's text
CONCLUDES = re.compile(
    r"(?:\b(?:so|also|donc|jadi|somit|thus|hence|therefore|finally|conclusion|choose|pick|select|take|with|leav(?:es|ing)|match(?:es)?|rather"
    r"|corresponds? to|I(?:'d|'ll| would| will)? (?:say|think|believe|guess))"
    rf"\b[\s:,…—-]{{0,3}}|=>|→){FILLERS}[^\w\n]{{0,3}}\Z",
    re.IGNORECASE,
)
CALLED_RIGHT = re.compile(
    r"\W{0,3}(?:is|must be)\s(?:\w{2,8}ly\s)?(?:the\s)?(?:only\s|most\s)?(?:correct|right|answer|best)\b"
)


class Named(NamedTuple):
    """An answer that a text names: where, which ("" for a doubt), and how, as below."""

    start: int
    answer: str
    how: int


WRONG, NAMED, BEGINS, CONCLUDED = range(4)


def read(place: str) -> str | None:
    """The answer of the first sentence of a place, spelled; "" where it is called wrong later."""
    place = place.strip()
    end = len(SENTENCE_END.split(place)[0])
    return _chosen([one for one in _named(place, True) if one.start <= end or one.how == WRONG])


def read_conclusion(turn: str, spelled: Callable[[str], str], inside: bool) -> str | None:
    """The answer that a text without a box and a mark concludes with.

    inside: whether one counts that is only named, in the last sentence.
    """
    text = spelled(CORRECTION.split(turn[-MAX_CONCLUSION:])[-1])
    last = text.rfind(next(conclusion(text), ""))
    return _chosen([one for one in _named(text, False) if one.how != NAMED or inside and one.start > last])


def _chosen(found: list[Named]) -> str | None:
    """The last one that is concluded, else the one that begins a sentence, else that is named; "" for several."""
    wrong = {one.answer for one in found if one.how == WRONG}
    for how in (CONCLUDED, BEGINS, NAMED):
        answers = [one.answer for one in found if one.how == how]
        if answers:
            answer = answers[-1] if how == CONCLUDED or len(set(answers)) == 1 else ""
            return "" if answer in wrong else answer
    return None


def _named(text: str, place: bool) -> Iterator[Named]:
    """The answers that a text names, spelled, without those that are denied or in doubt."""
    text = "\n" + text
    for match in list(ANSWER.finditer(text))[-MAX_MARKS:]:
        before, after = text[max(0, match.start() - 100) : match.start()], text[match.end() : match.end() + 100]
        begins, another = AT_START.search(before), ANOTHER.match(after)
        concluded = CONCLUDES.search(before) or begins and CALLED_RIGHT.match(after)
        how, answer = NAMED, "" if another and another[1] != match[1] else match[1]
        if refused := CALLED_WRONG.match(after):
            how = WRONG
        elif not place and not LETTER.search(match[0]):
            if not (concluded or begins and before.endswith(" is ") or AT_SENTENCE_END.match(after)):
                answer = ""
        elif concluded:
            how = CONCLUDED
        elif begins and (place or match[1].islower() or match[0].count("⟨") > 1 or AT_END.match(after)):
            how = BEGINS
        if not (refused and refused["asked"] or how and DENIED.search(CLAUSE.split(before)[-1]) or not is_said(text, match)):
            yield Named(match.start(), answer, how)
