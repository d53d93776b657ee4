"""Boolean answers: the "yes" or "no" that a text concludes with, also said as true and false, and in other languages.

    extract_answer("So the answer is no.", "boolean")              ->  "no"
    extract_answer("Is it true? I doubt that it is.", "boolean")   ->  None

A box, or the words behind a mark, begin with the word, or with "it is", "the statement is" and the like before it;
"not" turns the word round. Else the conclusion is "the statement is true", "so yes", "I'd say no"; else a last sentence
that begins with yes or no, or a first one where no other begins with its opposite; else a last sentence that is "it is
true", ends in ", yes", or says that something could not be. "No" before a noun ("no way"), a word before a question
mark, "yes or no", and "yes" that others say or that an "if" goes with are none.
"""

import re

from lta_thinker.answers.choice import words
from lta_thinker.answers.said import MAX_MARKS, SENTENCE_END, conclusion, is_said

_YES = "yes|ja|oui|sí|sim|ya|да|是的|是|对|はい"
_NO = "no|nein|non|não|tidak|bukan|нет|不是|否|不对|いいえ"
_TRUE = "true|correct|wahr|vrai|benar|正确"
_FALSE = "false|incorrect|wrong|falsch|faux|salah|错误"
_NOT = r"(?P<nots>(?:(?:not|isn't|wasn't|cannot be|can't be)\s[\"']?){0,3})"
BOOLEAN = re.compile(
    r"[\s:=>(\"'\[.,-]{0,20}(?:(?:the|final|correct|answer|is|it's|it|that's|that|this|statement|claim|an?|definite|clear"
    r"|simply|just|therefore|thus|so|hence|indeed|definitely|clearly|probably|likely|most|almost|certainly|be|would|must"
    rf"|actually)\b[\s,:\"']{{0,3}}){{0,8}}{_NOT}(?P<word>{_NO}|{_FALSE}|{_YES}|{_TRUE})(?![a-z0-9_à-ü]|[-']\w)(?P<rest>.{{0,80}})",
    re.IGNORECASE,
)
NO_NOUN = re.compile(  # else "no" belongs to a noun
    r"""["')\]}]?\s*(?:\Z|[,;!–—"')\]}:-]|\.(?!\s?\d)|(?:that|because|since|as|for|in|when|but|and|so|given|due|under"""
    r"|according|it|he|she|they|you|we|i|there|this|these|those|the|wait|actually)\b)",
    re.IGNORECASE,
)
IN_DOUBT = re.compile(r"[\"')\]]{0,2}(?:\s?\?|\s(?:is|was|would be|seems|(?:only\s)?if|unless|to)\b)", re.IGNORECASE)
BOTH = re.compile(r"\s*(?:or|and|/|nor)\s*(?:yes|no|true|false)\b", re.IGNORECASE)
CONCLUDING = re.compile(
    r"\b(?:so|thus|hence|therefore|finally|I(?:'d|'ll| would| will)? (?:say|think|believe|guess)|(?:guess|verdict) is"
    r"|(?P<statement>(?:the|this|that)\s(?:statement|claim|assertion|proposition)(?=\s(?:is|must be)\b)))"
    r"\b[,:;.!…—-]{0,3}\s{0,3}",
    re.IGNORECASE,
)
STARTS = re.compile(rf"\W*(?=(?:{_NO}|{_YES})(?![a-z0-9_]|[-']\w))", re.IGNORECASE)
LAST_WORD = re.compile(r"\A.*[,:;—-]\s(?=(?:yes|no)\W{0,9}\Z)", re.IGNORECASE | re.DOTALL)
UNSURE = re.compile(
    r"\b(?:but|however|although|except|never|doubt|nor|if|whether|people|some|others|they)\b", re.IGNORECASE
)
COULD_NOT = re.compile(
    r"\W*(?:(?:therefore|thus|so)\b.{0,80}?\b(?:could|would|can)(?:\s?not|n't)|(?:probably|likely) not)\b", re.I
)


def read(place: str, boxed: bool = True) -> str | None:
    """The answer that a place begins with."""
    return _boolean(BOOLEAN.match(words(place)))


def read_conclusion(text: str) -> str | None:
    """The answer that a text without a box and a mark concludes with; "" for a doubt."""
    text = words(text)
    concluded = [
        (mark["statement"], found)
        for mark in list(CONCLUDING.finditer(text))[-MAX_MARKS:]
        if is_said(text, mark) and (found := _boolean(BOOLEAN.match(text, mark.end()))) is not None
    ]
    if concluded:
        statement, found = concluded[-1]
        return "" if statement and len({one for _, one in concluded}) > 1 else found
    sentences = [one for one in SENTENCE_END.split(text) if one.strip()]
    begun = [found for one in sentences if STARTS.match(one) and (found := read(one)) is not None]
    if begun and (STARTS.match(sentences[-1]) or len(set(begun)) == 1):
        return begun[-1]
    last = next(conclusion(text), "")
    if begun or UNSURE.search(last):
        return None
    found = _boolean(BOOLEAN.match(LAST_WORD.sub("", last)))
    return "no" if found is None and COULD_NOT.match(last) else found


def _boolean(match: re.Match | None) -> str | None:
    """The answer of a match of BOOLEAN; None where the word belongs to a noun or is in doubt."""
    if not match or IN_DOUBT.match(match["rest"]):
        return None
    word = match["word"].lower()
    if BOTH.match(match["rest"]):
        return ""
    if word != "yes" and not NO_NOUN.match(match["rest"]):
        return None
    turned = len(re.findall("not|n't", match["nots"].lower())) % 2 == 1
    return "yes" if (word in f"{_YES}|{_TRUE}".split("|")) != turned else "no"
