"""Answers of one word, the letter of an option or yes and no: which of those that a text names it concludes with.

    conclude("Not ⟨B⟩, as it is wet. So it is ⟨C⟩.")   ->  "C"

A type (choice.py, boolean.py) has spelled each word that can be an answer as ⟨C⟩. Those that are denied, asked,
supposed, called wrong or said by others do not count. Of the rest the last one counts that is concluded ("so ⟨C⟩", "⟨C⟩
is correct", a line of its own); else those that begin a sentence; else those that are named elsewhere; these only where
all are the same. Of "⟨A⟩ or ⟨B⟩" neither is an answer.
"""

import re
from collections.abc import Callable

from lta_thinker.answers.said import CORRECTION, MAX_CONCLUSION, MAX_MARKS, SENTENCE_END, conclusion, is_said

ANSWER = re.compile(r"⟨~?(\w*)⟩(?:[ :.=,(-]{0,4}⟨~?\1⟩)*")  # "C) 15 km" is ⟨C⟩ ⟨C⟩
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
    r"[\s)\"':]{0,4}(?:(?P<asked>\?|(?:if|unless|though|would)\b)|(?:,\s(?:which|that)\s)?"
    r"(?:(?:is|was|are|seems|looks|must be|can|could|does)\b\s?)?(?:\w{2,9}ly\s|also\s)?"
    r"(?:(?:not|n't|\w{2,5}n't|cannot|too|out|never)\b|wrong|incorrect|false|impossible|eliminated|invalid|ruled))",
    re.IGNORECASE,
)
FILLERS = (
    r"(?:(?:the|correct|right|final|best|closest|answer|statement|claim|die aussage|c'est|is|ist|est|be|it's|it|that's|that|this|clearly|therefore|thus|hence|indeed|i|we"
    r"|probably|likely|most|simply|no|say|should|must|would|choose|pick|select|go|with|actually|option)\b[\s:,]{0,3}){0,6}"
)
BEGINS = re.compile(rf"(?:\n|[.!?]\s)[^\w\n]{{0,9}}{FILLERS}[^\w\n]{{0,3}}\Z", re.IGNORECASE)
CONCLUDES = re.compile(
    r"(?:\b(?:so|also|donc|jadi|somit|thus|hence|therefore|finally|conclusion|choose|pick|select|take|with|leav(?:es|ing)|match(?:es)?|rather"
    r"|corresponds? to|I(?:'d|'ll| would| will)? (?:say|think|believe|guess))"
    rf"\b[\s:,…—-]{{0,3}}|=>|→){FILLERS}[^\w\n]{{0,3}}\Z",
    re.IGNORECASE,
)
CALLED_RIGHT = re.compile(
    r"\W{0,3}(?:is|must be)\s(?:\w{2,8}ly\s)?(?:the\s)?(?:only\s|most\s)?(?:correct|right|answer|best)\b"
)


def read(place: str) -> str | None:
    """The answer of the first sentence of a place, spelled; "" where it is called wrong later."""
    place = place.strip()
    return _conclude(place, -1, len(SENTENCE_END.split(place)[0]))


def read_conclusion(turn: str, spelled: Callable[[str], str], ranks: int = 3) -> str | None:
    """The answer that a text without a box and a mark concludes with."""
    text = spelled(CORRECTION.split(turn[-MAX_CONCLUSION:])[-1])
    last = next(conclusion(text), "")
    return _conclude(text, text.rfind(last), text.rfind(last) + len(last), ranks)


def _conclude(text: str, last: int, end: int, ranks: int = 3) -> str | None:
    """The answer of a text up to an end, spelled; None where it names none, "" for a doubt."""
    text = "\n" + text
    said: tuple[list[str], ...] = [], [], []  # concluded, begins a sentence, named in the last sentence
    wrong = set()
    for match in list(ANSWER.finditer(text))[-MAX_MARKS:]:
        before, after = text[max(0, match.start() - 100) : match.start()], text[match.end() : match.end() + 100]
        if refused := CALLED_WRONG.match(after):
            wrong |= set() if refused["asked"] else {match[1]}
        elif match.start() <= end and not DENIED.search(CLAUSE.split(before)[-1]) and is_said(text, match):
            begins = BEGINS.search(before)
            concluded = CONCLUDES.search(before) or begins and CALLED_RIGHT.match(after)
            is_text = not re.search(r"⟨\w*⟩", match[0]) and not (begins and (last < 0 or re.match(r"[^\w\n]*(?:\n|\Z)", after)))
            another = ANOTHER.match(after)
            if match.start() > last or not is_text and (begins or concluded):
                rank = 2 if is_text else 0 if concluded else 1 if begins else 2
                said[rank].append("" if another and another[1] != match[1] else match[1])
    for rank in said[:ranks]:
        if rank:
            found = rank[-1] if rank is said[0] or len(set(rank)) == 1 else ""
            return "" if found in wrong else found
    return None
