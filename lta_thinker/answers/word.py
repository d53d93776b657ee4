"""Answers of one word, the letter of an option or yes and no: which of those that a text names is its answer.

    read("⟨B⟩, not ⟨C⟩")   ->  "B"          read("⟨B⟩ or ⟨C⟩")   ->  ""

A type (choice.py, boolean.py) has spelled each word that can be an answer as ⟨C⟩, and an option's text as ⟨~C⟩. Those
that are denied, asked, supposed, called wrong or said by others do not count. Of the rest the last one counts that is
concluded ("so ⟨C⟩"), else one that begins a sentence, else one that is named in the last sentence, an option's text
only at its end or behind "so"; these only where all are the same. A yes or no that is only named does not count.
"""

import re
from collections.abc import Callable

from lta_thinker.answers.said import CORRECTION, MAX_CONCLUSION, MAX_MARKS, SENTENCE_END, conclusion

ANSWER = re.compile(r"⟨~?(\w*)⟩(?:(?:[ :.=,()-]|option|choice){0,5}⟨~?\1⟩)*")  # also "C) 15 km": ⟨C⟩) ⟨~C⟩
LETTER = re.compile(r"⟨\w*⟩")  # not ⟨~C⟩
ANOTHER = re.compile(  # behind the answer: "A or B", "A, B", "Yes... or no", "15 (option C)"
    r"(?:[ ),:=(/&+*-]{0,5}|[\s).…,]{0,5}(?:or|and)\s)(?:option\s)?(?:⟨~?(\w*)⟩|[A-HJ](?![\w']))"
)
CLAUSE = re.compile(r"[.!?;:,\n—]|(?<!anything )\bbut\b")
DENIED = re.compile(  # in the clause before the answer: "not B but C", "if it is C", "people say B", "it might be B"
    r"\b(?:not|cannot|no|never|neither|nor|if|whether|than|unlike|doubt|eliminate|rules? out|wrong|people|some|others?"
    r"|they|thought|anything but|(?<!I )(?:would|could|might|may))\b|n't\b",
    re.IGNORECASE,
)
CALLED_WRONG = re.compile(  # behind the answer: "A is clearly wrong", "A, which is too small", "yes, if", "yes?"
    r"[ )\"':]{0,4}(?:\?|(?:if|unless|though|would)\b|(?:,\swhich\s)?"
    r"(?:(?:is|was|are|can|could|does|looks|seems)\b\s?)?(?:\w{2,9}ly\s)?"
    r"(?:(?:not|never|cannot|\w{2,5}n't|too|out|ruled)\b|wrong|incorrect|false|impossible|eliminated))",
    re.IGNORECASE,
)
CALLED_RIGHT = r"\s(?:is|must be)\s(?:\w{2,8}ly\s)?(?:the\s)?(?:only\s)?(?:correct|right|answer|best)\b"
CONCLUDING = "so|thus|hence|therefore|also|donc|jadi|conclusion|choose|pick|select|go(?:ing)? with|leav(?:es|ing)"
FILLERS = (  # "The answer is most likely"; not "partially true"
    r"(?:(?:the|answer|option|choice|statement|claim|given|it|it's|that|that's|this|is|must|be|most|a|definite|clear|well"
    r"|in short|however|but|verdict|(?!part)\w{2,12}ly|die|aussage|das|ist|c'est|es|这是)\b[\s:,]{0,3}){0,6}"
    r"[^\w\n]{0,3}\Z"
)
BEGINS = re.compile(rf"(?:\n|[.!?]\s)[^\w\n]{{0,9}}{FILLERS}", re.IGNORECASE)
CONCLUDES = re.compile(
    rf"\b(?:{CONCLUDING}|match(?:es)?|corresponds to|I(?:'d| would)? (?:say|think|believe))\b[\s:,…—-]{{0,3}}{FILLERS}",
    re.IGNORECASE,
)
ENDS = re.compile(  # behind a letter that begins a sentence: "C", "C) 15 km", "C, because"; not "Option A says 8 km"
    rf"\s?[^\w\s⟨]|\s*(?:\n|\Z)|\s(?:because|since|as|which)\b|{CALLED_RIGHT}"
)
ENDS_SENTENCE = re.compile(  # behind an option's text: "it is 20 dollars.", "it is Venus, not Mars."
    r"(?:\s?[^\W\d]+)?(?:,\snot\b[^.!?\n]{0,50})?(?:[.!?][^\w\s]?(?=\s|\Z)|\s*(?:\n|\Z))"
)


def read(place: str) -> str | None:
    """The answer of the first sentence of a place, spelled; "" for a doubt."""
    return _answer(SENTENCE_END.split(place.strip())[0])


def read_conclusion(turn: str, spelled: Callable[[str], str]) -> str | None:
    """The answer that a text without a box and a mark concludes with; "" for a doubt."""
    text = spelled(CORRECTION.split(turn[-MAX_CONCLUSION:])[-1])
    return _answer(text, text.rfind(next(conclusion(text), "")))


def _answer(text: str, last: int = -1) -> str | None:
    """The answer that counts of those that a place names, or a whole text whose last sentence begins at `last`."""
    text, place = "\n" + text, last < 0
    concluded, begun, named, sure = [], [], [], False
    for match in list(ANSWER.finditer(text))[-MAX_MARKS:]:
        before, after = text[max(0, match.start() - 100) : match.start()], text[match.end() : match.end() + 100]
        if DENIED.search(CLAUSE.split(before)[-1]) or CALLED_WRONG.match(after):
            continue
        another, concludes, begins = ANOTHER.match(after), CONCLUDES.search(before), BEGINS.search(before)
        answer = "" if another and another[1] != match[1] else match[1]
        yes_or_no = match[1] in ("yes", "no")
        if not place and not LETTER.search(match[0]):
            said = concludes or begins and before.endswith("is ") or ENDS_SENTENCE.match(after)
            named += [answer] if match.start() > last else []
            sure = sure or bool(said)
        elif concludes:
            concluded.append(answer)
        elif begins and (place or yes_or_no or match[0].count("⟨") > 1 or ENDS.match(after)):
            begun.append(answer)
        elif match.start() > last and not yes_or_no:
            named.append(answer)
            sure = True
    found = concluded[-1:] or begun or (named if sure else [""] * len(named))
    return None if not found else found[0] if len(set(found)) == 1 else ""
