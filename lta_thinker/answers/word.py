"""Answers of one word, the letter of an option or yes and no: which of those that a text names is its answer.

    read("⟨B⟩, not ⟨C⟩")   ->  "B"          read("⟨B⟩ or ⟨C⟩")   ->  ""

A type (choice.py, boolean.py) has spelled each word that can be an answer as ⟨C⟩, and an option's text as ⟨~C⟩. Those that
are denied, asked, supposed, called wrong or said by others do not count. Of the rest the last one counts that is
concluded ("so ⟨C⟩", "⟨C⟩ is correct"), else one that begins a sentence, else one that is named in the last sentence, an
option's text only at its end or behind "so"; these only where all are the same.
"""

import re
from collections.abc import Callable, Iterator

from lta_thinker.answers.said import CORRECTION, MAX_CONCLUSION, MAX_MARKS, SENTENCE_END, conclusion, is_said

ANSWER = re.compile(r"⟨~?(\w*)⟩(?:(?:[ :.=,(-]|option|choice){0,5}⟨~?\1⟩)*")  # "C) 15 km" is ⟨C⟩ ⟨~C⟩
LETTER = re.compile(r"⟨\w*⟩")  # no option's text
ANOTHER = re.compile(  # "A or B", "A, B", "15 (option C)"
    r"(?:[ ),:=(/&+*-]{0,5}|[\s).…,]{0,5}(?:or|and)\s)(?:(?:option|choice)\s)?[(\[]?"
    r"(?:⟨~?(\w*)⟩|[B-HJ](?![\w'])|A(?![\w']|\s[a-z]))"
)
CLAUSE = re.compile(r"[.!?;:,\n—]|\bbut\b")
DENIED = re.compile(  # in the clause before the answer
    r"\b(?:not|cannot|no|never|neither|nor|if|whether|than|unlike|doubt|eliminate|rules? out|wrong|people|some|others?"
    r"|they|thought|(?<!I )(?:would|could|might|may))\b|n't\b",
    re.IGNORECASE,
)
CALLED_WRONG = re.compile(  # behind the answer
    r"[ )\"':]{0,4}(?:(?P<asked>\?|(?:if|unless|though|would)\b)|(?:,\swhich\s)?"
    r"(?:(?:is|was|are|can|could|does|looks|seems)\b\s?)?(?:\w{2,9}ly\s)?"
    r"(?:(?:not|cannot|\w{2,5}n't|too|out|ruled)\b|wrong|incorrect|false|impossible|eliminated))",
    re.IGNORECASE,
)
CALLED_RIGHT = r"\s(?:is|must be)\s(?:\w{2,8}ly\s)?(?:the\s)?(?:only\s)?(?:correct|right|answer|best)\b"
CONCLUDING = "so|thus|hence|therefore|also|donc|jadi|conclusion|choose|pick|select|with|leav(?:es|ing)"
FILLERS = (
    r"(?:(?:the|answer|option|statement|claim|given|it|it's|that|that's|this|is|must|be|most|clearly|probably|likely|well"
    r"|die|aussage|das|ist|c'est|es|这是)\b[\s:,]{0,3}){0,6}[^\w\n]{0,3}\Z"
)
BEGINS = re.compile(rf"(?:\n|[.!?]\s)[^\w\n]{{0,9}}{FILLERS}", re.IGNORECASE)
CONCLUDES = re.compile(
    rf"(?:\b(?:{CONCLUDING}|match(?:es)?|corresponds? to|I(?:'d| would)? (?:say|think|believe))\b|=>)[\s:,…—-]{{0,3}}"
    + FILLERS,
    re.IGNORECASE,
)
ENDS = re.compile(r"\s?[^\w\s⟨]|\s*(?:\n|\Z)|\s(?:because|since|as|which)\b|" + CALLED_RIGHT)
ENDS_SENTENCE = re.compile(r"(?:\s?[^\W\d]+)?(?:,\snot\b[^.!?\n]{0,50})?(?:[.!?][^\w\s]?(?=\s|\Z)|\s*(?:\n|\Z))")

WRONG, NAMED, BEGUN, CONCLUDED = range(4)  # how a text names an answer


def read(place: str) -> str | None:
    """The answer of the first sentence of a place, spelled; "" for a doubt, or where it is called wrong later."""
    place = place.strip()
    end = len(SENTENCE_END.split(place)[0])
    return _chosen([(how, one) for start, how, one in _named(place, True) if start <= end or how == WRONG])


def read_conclusion(turn: str, spelled: Callable[[str], str], inside: bool) -> str | None:
    """The answer that a text without a box and a mark concludes with; "" for a doubt.

    inside: whether one counts that is only named, in the last sentence.
    """
    text = spelled(CORRECTION.split(turn[-MAX_CONCLUSION:])[-1])
    last = text.rfind(next(conclusion(text), ""))
    return _chosen([(how, one) for start, how, one in _named(text, False) if how != NAMED or inside and start > last])


def _chosen(found: list[tuple[int, str]]) -> str | None:
    for how in (CONCLUDED, BEGUN, NAMED):
        if answers := [one for rank, one in found if rank == how]:
            answer = answers[-1] if how == CONCLUDED or len(set(answers)) == 1 else ""
            return "" if (WRONG, answer) in found else answer
    return None


def _named(text: str, place: bool) -> Iterator[tuple[int, int, str]]:
    """Where and how a text names which answers, "" for a doubt; without those that are denied."""
    text = "\n" + text
    for match in list(ANSWER.finditer(text))[-MAX_MARKS:]:
        before, after = text[max(0, match.start() - 100) : match.start()], text[match.end() : match.end() + 100]
        wrong, another, begins = CALLED_WRONG.match(after), ANOTHER.match(after), BEGINS.search(before)
        concluded = CONCLUDES.search(before) or begins and re.match(CALLED_RIGHT, after)
        answer = "" if another and another[1] != match[1] else match[1]
        if wrong:
            if not wrong["asked"]:
                yield match.start(), WRONG, answer
        elif DENIED.search(CLAUSE.split(before)[-1]) or not is_said(text, match):
            continue
        elif not place and not LETTER.search(match[0]):
            sure = concluded or begins and before.endswith("is ") or ENDS_SENTENCE.match(after)
            yield match.start(), NAMED, answer if sure else ""
        elif concluded:
            yield match.start(), CONCLUDED, answer
        else:
            begins = begins and (place or answer.islower() or match[0].count("⟨") > 1 or ENDS.match(after))
            yield match.start(), BEGUN if begins else NAMED, answer
