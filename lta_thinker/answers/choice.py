"""Choice answers: the letter "A" to "J" that a text concludes with.

    extract("So (B) fails. The answer is (C).")                  ->  "C"
    extract("The answer is 18 km.", options=("6 km", "18 km"))   ->  "B"

A box, or the words behind a mark (said.py), say a letter ("C", "c", "(C) 12", "C: 12") or the text of exactly one
option; of an option with a unit the number is enough. Else the conclusion is the last of "so (C)", "I choose C", "it
is C", "option C is correct"; else a line that is only a letter, or the first or last one where it begins with "C." or
"C)", else the only option that is named as "(C)" or "option C" or by its text, and is not called wrong.
"A or B", a letter beyond the options or beside another option's text ("15 (option C)"), and one that is called wrong
later are no answer. "A", "I" and small letters, which are words too, need a bracket, a full stop or the like.
"""

import re

from lta_thinker.answers.number import plain, value_of
from lta_thinker.answers.said import CHARACTERS, CORRECTION, MAX_CONCLUSION, MAX_MARKS, is_said, said, turn_of

SPELLINGS = (  # in this order
    (re.compile(r"\*\*\s?\(?([A-J])\)?[.:]?\s?\*\*"), r"(\1)"),
    *2 * ((re.compile(r"\\(?:text\w*|math[a-z]+|mbox)\s*\{([^{}]*)\}"), r"\1"),),  # \textbf{\text{C}}
    (re.compile(r"\\(?:q?quad\b|[,;:! ])|~"), " "),
    (re.compile(r"\\[()\[\]]|\\?\$|[*`_]|<[^<>]{1,20}>"), ""),
)
SENTENCE = re.compile(r"\s*(.{0,300}?)(?=[.!?][^\w\s]{0,4}(?:\s|\Z)|\n|\Z|(?<=.{300}))")
FILLERS = (
    r"(?:(?:the|correct|right|final|best|closest|answer|ans|is|be|it's|it|that's|clearly|therefore|thus|hence|indeed"
    r"|probably|likely|most|simply|leaving|no|should|must|actually|rather|opsi|pilihan)\b[\s:=,]{0,5}){0,8}"
)
CHOICE = re.compile(
    rf"[\s:,=>.-]{{0,20}}{FILLERS}(?P<label>(?:option|choice|letter|statement)\b[\s:]{{0,3}})?(?P<open>[(\[{{\"'])?\s?"
    r"(?P<letter>[A-Ja-j])(?!\w|'\w)(?P<close>\s?[)\]}]|[\"'])?(?P<rest>.{0,300})",
    re.IGNORECASE,
)
ANOTHER = re.compile(
    r"\s*(?:,|/|&|\bor\b|\band\b)\s*(?:or\b|and\b)?\s*(?:either\b|both\b|option\b|choice\b)?\s*"
    r"(?:\([A-Ja-j]\)|[B-HJ](?!\w|')|A(?!\w|'|\s[a-z]))|.{0,100}\s[B-J][).]\s.{0,100}\s[C-J][).]\s"
)
NO_VARIABLE = re.compile(r"(?!\s*(?:[+*/^=<>×÷\\]|-\w))")
AT_AN_END = re.compile(r"\s*(?:\Z|[.:;,!?](?!\w)|[–—-]\s|(?:because|since|which|as)\b)")  # after "A" and "I"
CLOSES = re.compile(rf"{AT_AN_END.pattern}|\s*\d")
AFTER_A_SMALL_LETTER = re.compile(r"\s*(?:\Z|[.:!](?!\w))")
CALLED_WRONG = re.compile(
    r"\s{0,9}(?:,\s(?:which|that)\s)?(?:(?:is|was|are|seems|looks|must be|can|could|does|would)\b\s?)?"
    r"(?:\w{2,9}ly\s|also\s|therefore\s){0,2}"
    r"(?:(?:not|n't|\w{2,5}n't|cannot|too|out|never)\b|wrong|incorrect|false|impossible|eliminated|invalid|ruled)",
    re.IGNORECASE,
)
CONCLUDING = re.compile(
    r"\b(?:so|thus|hence|therefore|finally|conclusion|choose|pick|select|(?<=we )take|(?<=I )take|go(?:ing)? with"
    r"|opt for|match(?:es)?|corresponds? to|wait|rather|(?:it|that|this)(?:'s| is| should be| must be)"
    r"|I(?:'d|'ll| would| will)? (?:say|think|believe|guess)|no(?=[,.:;!…—-]))\b[,:;.!…—-]{0,3}\s{0,3}"
    r"(?:(?:it's|it|that's|that|this|must|should|be|is|i|we|would|choose|pick|select|take|go|with|say|no|actually)\b,?\s?){0,6}",
    re.IGNORECASE,
)
CALLED_RIGHT = re.compile(
    r"(?:(?<![\w'])(?i:option|choice|statement|answer)\s\(?([A-Ja-j])|(?<![\w'])\(([A-Ja-j])\)"
    r"|(?:\A|[.,;:!?\n(\"]\s{0,3}|\b(?:so|So|thus|Thus|hence|Hence|therefore|Therefore|then|that|think|believe|clearly|and"
    r"|but|But|only|Only)\s)([A-J]))[).]?\s(?:is|must be|would be)\s(?:\w{2,8}ly\s|thus\s|indeed\s)?(?:the\s)?"
    r"(?:only\s|most\s)?(?:correct|right|answer|best)\b(?=\s?(?:[^\w\s]|\Z)|\s(?:answer|option|choice|one|because|as)\b|\n)"
)
DOUBTED = re.compile(
    r"\b(?:if|whether|assum\w+|suppose|none|neither|n?or|not|no|never|and|both)\b|n't\b", re.IGNORECASE
)
NAMED = re.compile(r"(?<![\w)\\])\(([A-Ja-j])\)(?!\w)|\b(?i:option|choice)\s(?:\(([A-Ja-j])\)|([A-J])(?!\w|'))")
LONE_LETTER = re.compile(r"\W{0,9}(?:(?:option|choice)\W{1,3})?\(?([A-J])\)?\W{0,9}", re.IGNORECASE)
LABEL = re.compile(r"[^\w\n(]{0,9}(?:[A-J]\)|[A-J]\.\s|[b-j]\.\s|[B-HJ]:|[A-J]\s-\s|[A-J]\s*\Z)")
NOT_BUT = re.compile(r"\s*(?:is\s)?not\s(?:option\s|choice\s)?\(?[A-Ja-j]\)?[,;]?\s(?:but|it is|it's)\s(?:rather\s)?")


class Options:
    """The options of a question, as keys: texts with the same key are the same option."""

    def __init__(self, options: tuple[str, ...]):
        self.keys = [self.key(option) for option in options]
        self.letters = "ABCDEFGHIJ"[: len(options) or 10]
        numbers = [re.match(r"\S*\d\S*(?=\s)", words(option)) for option in options]
        self.numbers = [value_of(number[0]) if number else None for number in numbers]

    def key(self, text: str):
        text = words(text.translate(CHARACTERS)).strip().rstrip(".,;:!")
        value = value_of(text)
        return re.sub(r"\s", "", text).casefold() if value is None else value

    def letter(self, text: str) -> str | None:
        """The letter of the option whose text this is; None where it is no option's, or that of several."""
        if len(text) > 1000:
            return None
        key = self.key(text)
        for keys in (self.keys, self.numbers):
            same = [i for i, one in enumerate(keys) if key != "" and key == one]
            if same:
                return self.letters[same[0]] if len(same) == 1 else None
        return None

    def known(self, letter: str) -> str:
        """A letter in upper case; empty where there are fewer options."""
        return letter.upper() if letter.upper() in self.letters else ""


def extract(text: str, finished: bool = True, options: tuple[str, ...] = ()) -> str | None:
    """The letter that a text concludes with, or None."""
    turn, known = turn_of(text, finished), Options(options)
    found = said(turn, lambda place, boxed: read(words(place), known), finished)
    if found is None and finished:
        found = read_conclusion(words(turn), known)
    return found or None


def words(text: str) -> str:
    """A text without LaTeX and Markdown around its words."""
    for pattern, spelling in SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def read(place: str, options: Options) -> str | None:
    """The letter that a place begins with, else the option that its first sentence is, or alone names."""
    if swap := NOT_BUT.match(place):
        place = place[swap.end() :]
    match = CHOICE.match(place)
    found = _letter(match, options) if match else None
    if found:
        assert match
        wrong = re.finditer(rf"(?<!\w){found}(?!\w)\)?", place[match.end("letter") :])
        return "" if any(CALLED_WRONG.match(one.string, one.end()) for one in wrong) else found
    sentence = SENTENCE.match(place)[1]
    for part in (sentence, re.split(r",\s|\s\(|\s(?:because|since|which)\b", sentence)[0]):
        if same := options.letter(part):
            return same if _only_named(sentence, options) in (None, same) else ""
    return _only_named(sentence, options) if found is None else found


def _letter(match: re.Match, options: Options) -> str | None:
    """The letter of a match of CHOICE where it stands for an option and not for a word or a variable."""
    letter, rest = match["letter"].upper(), match["rest"]
    place = ord(letter) - ord("A")
    if ANOTHER.match(rest):
        return ""
    if CALLED_WRONG.match(rest) or rest.lstrip(" )\"'").startswith("?"):
        return None
    text = rest.lstrip(" .)]:=-(")
    same = options.letter(re.sub(r"[)\]]+\Z", "", SENTENCE.match(text)[1]))
    own_text = place < len(options.keys) and options.key(text) == options.keys[place]
    if same and same != letter and not own_text:
        return ""
    if not (match["close"] or match["label"] or own_text or same == letter):
        plain_letter = AT_AN_END if letter in "AI" else NO_VARIABLE
        if not (AFTER_A_SMALL_LETTER if match["letter"].islower() else plain_letter).match(rest):
            return None
    return options.known(letter)


def read_conclusion(text: str, options: Options) -> str | None:
    """The letter that a text without a box and a mark concludes with."""
    for find in (_concluded, _line, _only_named):
        found = find(text, options)
        if found is not None:
            return found
    return None


def _concluded(text: str, options: Options) -> str | None:
    """The last of "so (C)", "it is C", "C is correct"; a doubt where "wait" or "it is wrong" follows."""
    found = []
    for mark in list(CONCLUDING.finditer(text))[-MAX_MARKS:]:
        match = CHOICE.match(text, mark.end())
        if match and (match["close"] or match["letter"].isupper()) and CLOSES.match(match["rest"]):
            if is_said(text, mark) and (letter := _letter(match, options)) is not None:
                found.append((mark.end(), letter))
    for match in list(CALLED_RIGHT.finditer(text))[-MAX_MARKS:]:
        clause = re.split(r"[.;:!?\n]", text[max(0, match.start() - 60) : match.start() + 1])[-1]
        if not DOUBTED.search(clause) and is_said(text, match):
            found.append((match.start(), options.known(next(filter(None, match.groups())))))
    if not found:
        return None
    place, letter = max(found)
    wrong = letter and re.search(rf"(?<!\w){letter}\)?{CALLED_WRONG.pattern}", text[place + 2 :], re.IGNORECASE)
    return "" if wrong or CORRECTION.search(text, place + 1) else letter


def _line(text: str, options: Options) -> str | None:
    if whole := options.letter(text):
        return whole
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    lone = LONE_LETTER.fullmatch(lines[-1])
    if lone and (lone[1].isupper() or len(lines) == 1):
        return options.known(lone[1])
    labelled = [line for line in lines if LABEL.match(line)]
    if len({line.strip()[:2] for line in labelled}) == 1 and labelled[0] in (lines[0], lines[-1]):
        match = CHOICE.match(labelled[0].lstrip(" \t#>•*-"))
        return _letter(match, options) if match else None
    return None


def _only_named(text: str, options: Options) -> str | None:
    letters = {
        options.known(next(filter(None, match.groups())))
        for match in list(NAMED.finditer(text))[-MAX_MARKS:]
        if is_said(text, match) and not CALLED_WRONG.match(text, match.end())
    }
    last = re.split(r"[\s]", text.strip().rstrip(".!"))[-1]
    if not letters and (same := options.letter(last)) and len(last) > 3:
        return same
    return letters.pop() if len(letters) == 1 else None
