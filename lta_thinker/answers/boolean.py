r"""Boolean answers: the "yes" or "no" that a text concludes with, also said as true and false, and in other languages.

    extract("So the answer is no.")                    ->  "no"
    extract("Is it true? I doubt that it is.")         ->  None

A box, or the words behind a mark (said.py), begin with the word, or with "it is", "the statement is" and the like
before it; "not" and "incorrect" turn the words round. Else the conclusion is "the statement is true", "so yes", "I'd
say no"; else a last or a first sentence that begins with yes or no, where no other one begins with its opposite; else
a last word after a comma; else a last sentence with "therefore" and "could not". "No" before a noun ("no way"), a word
before a question mark, and "yes or no" are none, nor is a word that others say or that an "if" goes with.
"""

import re

from lta_thinker.answers.choice import words
from lta_thinker.answers.said import CORRECTION, EMPHASIS, MAX_MARKS, SENTENCE_END, conclusion, is_said, said, turn_of

YES = {
    "yes",
    "true",
    "correct",
    "right",
    "ja",
    "oui",
    "sí",
    "si",
    "sim",
    "ya",
    "是",
    "是的",
    "对",
    "正确",
    "はい",
    "да",
    "wahr",
    "vrai",
    "verdadero",
    "benar",
}
NO = {
    "no",
    "false",
    "incorrect",
    "wrong",
    "nein",
    "non",
    "não",
    "tidak",
    "bukan",
    "不是",
    "否",
    "不",
    "错",
    "错误",
    "いいえ",
    "нет",
    "falsch",
    "faux",
    "falso",
    "salah",
}
YES_OR_NO = re.compile(r"\(?\b(?:yes\s?(?:or|/)\s?no|true\s?(?:or|/)\s?false)\b\)?", re.IGNORECASE)  # the instruction's
_WORDS = "|".join(sorted(YES | NO, key=len, reverse=True))
BOOLEAN = re.compile(
    r"[\s:=>(\"'\[.,-]{0,20}(?:(?:the|final|correct|answer|is|it's|it|that's|that|this|statement|claim|a|an|definite|clear"
    r"|resounding|simply|just|therefore|thus|so|hence|indeed|definitely|clearly|probably|likely|most|almost|certainly|be"
    r"|would|must|actually)\b[\s,:\"']{0,3}){0,8}(?P<nots>(?:(?:not|isn't|wasn't|cannot be|can't be)\s[\"']?){0,3})"
    rf"(?P<word>{_WORDS})(?![a-z0-9_à-ü]|[-']\w)(?P<rest>.{{0,80}})",
    re.IGNORECASE,
)
NO_NOUN = re.compile(
    r"""["')\]}]?\s*(?:\Z|[,;!?–—"')\]}:-]|\.(?!\s?\d)|(?:that|because|since|as|for|in|if|when|unless|but|and|so|given|due"""
    r"|under|according|it|he|she|they|you|we|i|there|this|these|those|the|wait|actually)\b)",
    re.IGNORECASE,
)
BOTH = re.compile(r"\s*(?:or|and|/|nor)\s*(?:yes|no|true|false)\b", re.IGNORECASE)
ASKED_OR_DENIED = re.compile(
    r"[\"')\]]{0,2}(?:\s?\?|\s(?:is|was|would be|seems|(?:only\s)?if|unless|to)\b)", re.IGNORECASE
)
CONCLUDING = re.compile(
    r"\b(?:so|thus|hence|therefore|finally|conclusion|I(?:'d|'ll| would| will)? (?:say|think|believe|guess)"
    r"|(?:guess|verdict|conclusion) is|(?P<statement>(?:the|this|that)\s(?:statement|claim|assertion|proposition)(?=\s(?:is|must be)\b)))"
    r"\b[,:;.!…—-]{0,3}\s{0,3}(?:(?:i|we|would|say|it|is|must|be|a)\b,?\s?){0,4}",
    re.IGNORECASE,
)
STARTS = re.compile(
    rf"\W*(?P<nots>)(?P<word>yes|no|不是|是的|是|nein|ja|oui|non|tidak|ya)(?![a-z0-9_]|[-']\w)(?P<rest>.{{0,80}})",
    re.IGNORECASE,
)
LAST_WORD = re.compile(r"[,:;—-]\s(?P<nots>)(?P<word>yes|no)(?P<rest>\W{0,9})\Z", re.IGNORECASE)
BUT = re.compile(r"\b(?:but|however|although|though|except)\b", re.IGNORECASE)
SAID_BY_OTHERS = re.compile(
    r"n't\b|\b(?:not|cannot|never|no longer|doubt|neither|nor|hardly|without|instead of|if|whether|unless"
    r"|(?:people|some|others?|they|many|one|you)\s(?:\w{1,9}\s)?(?:say|said|think|claim|argue|believe))\b",
    re.IGNORECASE,
)
CANNOT = re.compile(r"\W*(?:therefore|thus|so|hence)\b.{0,80}?\b(?:could|would|can)(?:\s?not|n't)\b", re.IGNORECASE)
PROBABLY = re.compile(r"\W*(?:probably|likely|certainly|definitely|of course|absolutely|surely)\snot\W*", re.IGNORECASE)


def extract(text: str, finished: bool = True) -> str | None:
    """The answer that a text concludes with, or None."""
    turn = turn_of(text, finished)
    found = said(turn, read, finished)
    if found is None and finished:
        found = read_conclusion(words(EMPHASIS.sub("", YES_OR_NO.sub("", turn))))
    return found or None


def read(place: str, boxed: bool) -> str | None:
    """The answer that a place begins with."""
    return _boolean(BOOLEAN.match(YES_OR_NO.sub("", words(place))))


def read_conclusion(text: str) -> str | None:
    """The answer that a text without a box and a mark concludes with."""
    concluded = [
        (mark["statement"], found)
        for mark in list(CONCLUDING.finditer(text))[-MAX_MARKS:]
        if is_said(text, mark) and (found := _boolean(BOOLEAN.match(text, mark.end()))) is not None
    ]
    if concluded:
        statement, found = concluded[-1]
        return "" if statement and len({one for _, one in concluded}) > 1 else found
    sentences = [one.strip() for one in SENTENCE_END.split(text) if one.strip()]
    begun = [found for one in sentences if (found := _boolean(STARTS.match(one))) is not None]
    if begun and (STARTS.match(sentences[-1]) or len(set(begun)) == 1):
        return begun[-1]
    last = next(conclusion(text), "")
    word, whole = LAST_WORD.search(last), BOOLEAN.match(last)
    if word and SAID_BY_OTHERS.search(last[: word.start("word")]) or whole and BUT.search(last):
        return None
    if (found := _boolean(word) or _boolean(whole)) is not None:
        return None if begun and begun[-1] != found else found
    return "no" if not begun and (CANNOT.match(last) or PROBABLY.fullmatch(last)) else None


def _boolean(match: re.Match | None) -> str | None:
    """The answer of a match of BOOLEAN or LAST_WORD; None where the word belongs to a noun or is asked."""
    if not match or ASKED_OR_DENIED.match(match["rest"]):
        return None
    if BOTH.match(match["rest"]):
        return ""
    if match["word"].lower() != "yes" and not NO_NOUN.match(match["rest"]):
        return None
    return (
        "yes"
        if (match["word"].lower() in YES) == (len(re.findall("not|n't|cannot", match["nots"].lower())) % 2 == 0)
        else "no"
    )
