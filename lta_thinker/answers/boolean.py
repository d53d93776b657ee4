"""Boolean answers: the "yes" or "no" that a text concludes with, also said as true and false.

    extract("So the answer is no.", "")             ->  "no"
    extract("Is it true? I doubt that it is.", "")  ->  None

"not" turns the words round, "no" before a noun ("no way") and words before a question mark are none, and a doubt ("yes
or no") is no answer. The first of these that says anything gives the answer:
  1. the last box;
  2. the last conclusion: after "answer is", "Answer:" and the like, "the statement is true", "so yes", "wait, no". What
     is denied, another one's, or only so if something were the case concludes nothing, as for choices;
  3. a last sentence that begins with yes or no; else the first word, where no other sentence begins with its opposite,
     the last word is not its opposite, and no "but", true or false follows "it is true" or "it is false"; else the
     last word, yes or no only, after a comma, "say" or the like, and without a denial or an "if" in its sentence.
An answer that is taken back later on ("Wait", "Actually", "No," after yes, a sentence that begins with its opposite) is
none.
"""

import re

from lta_thinker.answers.choice import CORRECTED, MARK, MAX_MARKS, MAX_NAMES, YES_NO_CONCLUSION, is_skipped, words

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
STATEMENT = re.compile(
    r"\b(?:the|this|that)\s(?:statement|claim|assertion|proposition)\s(?=(?:is|must be)\b)", re.IGNORECASE
)
WRONG = re.compile(
    r"[\"')\]]{0,2}\s(?:is|was|would be|seems|(?:only\s)?if|unless|to)\b", re.IGNORECASE
)  # "Yes is wrong", "yes if"
LAST_WORD = re.compile(
    r"(?:[,:;—–-]\s|\b(?:say|lean|towards?|(?:guess|verdict|conclusion|result) is(?: a)?)\s)(?P<nots>)(?P<word>yes|no)"
    r"(?P<rest>\W{0,9})\Z",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"n't\b|\b(?:not|cannot|never|no longer|doubt|far from|neither|nor|hardly|without|instead of|if|whether|unless"
    r"|(?:people|some|others?|they|many|one|you)\s(?:\w{1,9}\s)?(?:say|said|think|claim|argue|believe))\b",
    re.IGNORECASE,
)
BUT = re.compile(r"\b(?:but|however|although|though|except)\b", re.IGNORECASE)


def extract(text: str, box: str) -> str | None:
    """The answer, or None. `box`: what the last box holds. As for choice, an empty string is a doubt."""
    box, text = (YES_OR_NO.sub("", words(one)) for one in (box, text))
    found = _boolean(BOOLEAN.match(box))
    if found is None:
        starts = _answers(BOOLEAN.match(text, start.end()) for start in SENTENCE_START.finditer(text))
        place, found = _concluded(text) or _said(text, starts) or (0, None)
        if found and any(at > place and answer not in ("", found) for at, answer in starts):
            return None
        if found and any(
            found == "yes" or not match[0].lower().endswith("no") for match in CORRECTED.finditer(text, place)
        ):
            return None
    return found or None


def _answers(matches) -> list[tuple[int, str]]:
    """Place and answer of those matches that say one."""
    return [(match.start("word"), answer) for match in matches if (answer := _boolean(match)) is not None]


def _concluded(text: str) -> tuple[int, str] | None:
    matches, stated, concluded = (
        [(mark, BOOLEAN.match(text, mark.end())) for mark in list(pattern.finditer(text))[-most:]]
        for pattern, most in ((MARK, MAX_MARKS), (STATEMENT, MAX_MARKS), (YES_NO_CONCLUSION, MAX_NAMES))
    )
    if len({_boolean(match) for _, match in stated}) == 1:
        matches += stated
    matches += [(mark, match) for mark, match in concluded if match and match["word"].lower() in ("yes", "no")]
    answers = _answers(
        match for mark, match in matches if match and not is_skipped(text, mark.start(), match.end("word"))
    )
    return max(answers) if answers else None


def _said(text: str, starts: list[tuple[int, str]]) -> tuple[int, str] | None:
    """By the last sentence, the first word or the last one."""
    if starts and starts[-1][0] > 9 and not re.search(r"[.!?]\s|\n", text[starts[-1][0] :].strip()):
        return starts[-1]
    first, last = BOOLEAN.match(text), LAST_WORD.search(text, max(0, len(text) - 60))
    if first and first["word"].lower() in ("true", "false"):
        again = first.start("word") > 3 and re.search(r"(?i)\b(?:true|false)\b", text[first.end("word") :])
        if again or BUT.search(text, first.end("word")):
            first = None
    if last and DENIED.search(re.split(r"[.!?\n]", text[max(0, last.start() - 200) : last.start("word")])[-1]):
        last = None
    said = starts + _answers((first, last))
    return said[-1] if len({answer for _, answer in said}) == 1 else None


def _boolean(match: re.Match | None) -> str | None:
    """The answer of a match of BOOLEAN or LAST_WORD; None where the word belongs to a noun or is asked."""
    if not match or WRONG.match(match["rest"]) or re.match(r"[\"')\]]{0,2}\s?\?", match["rest"]):
        return None
    if BOTH_BOOLEANS.match(match["rest"]):
        return ""
    if match["word"].lower() != "yes" and not AFTER_A_BOOLEAN.match(match["rest"]):
        return None
    yes = match["word"].lower() in ("yes", "true")
    return "yes" if yes == (len(re.findall("not|n't", match["nots"].lower())) % 2 == 0) else "no"
