"""Boolean answers: the "yes" or "no" that a text concludes with, also said as true and false, and in other languages.

    extract_answer("So the answer is no.", "boolean")              ->  "no"
    extract_answer("Is it true? I doubt that it is.", "boolean")   ->  None

"not" turns a word round. "No" before a noun ("no wings") is none, nor is "it is true that", which concedes. word.py
says which of the words counts.
"""

import re

from lta_thinker.answers import word
from lta_thinker.answers.choice import words

_YES = (
    "yes|yep|yeah|true|correct|ja|wahr|richtig|oui|vrai|sí|verdader[oa]|sim|ya|benar|да|верно|是的|是|对的?|正确|肯定的?"
    "|はい|正しい|네|예"
)
_NO = (
    "no way|nope|no|false|incorrect|wrong|(?:probably|definitely|certainly|absolutely) not|not (?:necessarily|really)"
    "|nein|falsch|non|faux|fausse|fals[oa]|não|tidak|bukan|salah|нет|неверно|不是的?|不能|否|否定的?|不对|不正确|错误的?|いいえ"
    "|아니(?:요|오)"
)
WORD = re.compile(  # "no" not before a noun
    r"(?<![^\W是])(?<!\w['-])(?P<nots>(?:(?:not|isn't|wasn't|nicht|cannot be|can't be)\s[\"']?){0,3})"
    rf"(?:(?P<yes>{_YES})|{_NO})(?=[\"'\])}}」]{{0,2}}(?:\s?\Z|\s?[,;:!?/…–—\n]|\s-\s|\.(?!\s?\d)|です"
    r"|\s(?:that|because|since|as|but|and|or|so|it|he|she|they|you|we|i|there|this|these|those|the|wait)\b))",
    re.IGNORECASE,
)


QUOTED = re.compile(r'"[^"\n]{1,200}\s[^"\n]{1,200}"')  # "Max is red" is false.


def read_place(place, boxed) -> str | None:
    """The answer of the first sentence of a place."""
    return word.read(spelled(place))


def read_conclusion(turn: str) -> str | None:
    """The answer that a text without a box and a mark concludes with; "" for a doubt."""
    return word.read_conclusion(turn, spelled)


def spelled(text: str) -> str:
    """A text with ⟨yes⟩ and ⟨no⟩ for the words that may be its answer."""
    return WORD.sub(_yes_or_no, "\n" + QUOTED.sub("it", words(text)))


def _yes_or_no(match: re.Match) -> str:
    if match["yes"] and not match["nots"] and match.string.startswith(" that", match.end()):
        return match[0]
    turned = len(re.findall("not|n't|nicht", match["nots"].lower())) % 2 == 1
    return "⟨yes⟩" if bool(match["yes"]) != turned else "⟨no⟩"


def read(place, where, options):
    
    if where == "end":
        return read_conclusion(place)
    return read_place(place, where == "box")
