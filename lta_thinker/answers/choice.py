"""Choice answers: the letter "A" to "J" that a text concludes with.

    extract_answer("So (B) fails. The answer is (C).", "choice")               ->  "C"
    extract_answer("The answer is 18 km.", "choice", ("6 km", "18 km"))        ->  "B"

A box, or the words behind a mark, say a letter ("C", "c", "(C) 12", "C: 12"), or the text of exactly one option; of an
option with a unit the number is enough. Else the conclusion is the last of "so (C)", "I choose C", "C is correct"; else
a last line that is only a letter, or one line that begins with "C." or "C)", the first or the last one; else the only
option that is named as "(C)" or "option C", or that the text ends with.
"A or B", a letter beyond the options or beside another option's text ("15 (option C)"), and one that is called wrong
later are no answer. "A", "I" and small letters, which are words too, need a bracket, a full stop or the like.
"""

import re

from lta_thinker.answers.number import plain, value_of
from lta_thinker.answers.said import CORRECTION, MAX_MARKS, is_said

SPELLINGS = (  # in this order
    (re.compile(r"\*\*\s?\(?([A-J])\)?[.:]?\s?\*\*"), r"(\1)"),
    *2 * ((re.compile(r"\\(?:text\w*|math[a-z]+|mbox)\s*\{([^{}]*)\}"), r"\1"),),  # \textbf{\text{C}}
    (re.compile(r"\\(?:q?quad\b|[,;:! ])|~"), " "),
    (re.compile(r"\\[()\[\]]|\\?\$|[*`_]|<[^<>]{1,20}>"), ""),
)
SENTENCE = re.compile(r"\s*(.{0,300}?)(?=[.!?][^\w\s]{0,4}(?:\s|\Z)|\n|\Z|(?<=.{300}))")
FILLERS = (
    r"(?:(?:the|correct|right|final|best|closest|answer|is|be|it's|it|that's|this|clearly|therefore|thus|hence|indeed|i|we"
    r"|probably|likely|most|simply|leaving|no|say|should|must|would|choose|pick|select|go|with|actually|rather|opsi)\b"
    r"[\s:=,]{0,5}){0,8}"
)
CHOICE = re.compile(
    rf"[\s:,=>.-]{{0,20}}{FILLERS}(?P<label>(?:option|choice|letter|statement|opsi)\b[\s:]{{0,3}})?[(\[{{\"']?\s?"
    r"(?P<letter>[A-Ja-j])(?![a-zA-Z0-9_]|'\w)(?P<close>\s?[)\]}]|[\"'])?(?P<rest>.{0,300})",
    re.IGNORECASE,
)
ANOTHER = re.compile(  # "A or B", "A) 12 B) 15 C) 18"
    r"\s*(?:,|/|&|\bor\b|\band\b)\s*(?:or\b|and\b)?\s*(?:either\b|both\b|option\b|choice\b)?\s*"
    r"(?:\([A-Ja-j]\)|[B-HJ](?!\w|')|A(?!\w|'|\s[a-z]))|.{0,100}\s[B-J][).]\s.{0,100}\s[C-J][).]\s"
)
AT_AN_END = re.compile(r"\s*(?:\Z|[.:;,!?](?!\w)|[–—-]\s|(?:because|since|which|as)\b)")
AFTER_A_SMALL_LETTER = re.compile(r"\s*(?:\Z|[.:!](?!\w))")
NO_VARIABLE = re.compile(r"(?!\s*(?:[+*/^=<>\\]|-\w))")
CALLED_WRONG = re.compile(
    r"\s{0,9}(?:,\s(?:which|that)\s)?(?:(?:is|was|are|seems|looks|must be|can|could|does|would)\b\s?)?"
    r"(?:\w{2,9}ly\s|also\s)?"
    r"(?:(?:not|n't|\w{2,5}n't|cannot|too|out|never)\b|wrong|incorrect|false|impossible|eliminated|invalid|ruled)",
    re.IGNORECASE,
)
CONCLUDING = re.compile(
    r"\b(?:so|thus|hence|therefore|finally|conclusion|choose|pick|select|(?<=we )take|(?<=I )take|go(?:ing)? with"
    r"|match(?:es)?|corresponds? to|wait|rather|(?:it|that|this)(?:'s| is| should be| must be)"
    r"|I(?:'d|'ll| would| will)? (?:say|think|believe|guess)|no(?=[,.:;!…—-]))\b[,:;.!…—-]{0,3}\s{0,3}",
    re.IGNORECASE,
)
CALLED_RIGHT = re.compile(
    r"(?:(?<![\w'])(?i:option|choice|statement|answer)\s\(?([A-Ja-j])|(?<![\w'])\(([A-Ja-j])\)|(?:\A|[.,;:!?\n(\"]\s{0,3}"
    r"|\b(?i:so|thus|hence|therefore|then|that|think|believe|clearly|and|but|only)\s)([A-J]))[).]?\s(?:is|must be)\s"
    r"(?:\w{2,8}ly\s|thus\s|indeed\s)?(?:the\s)?(?:only\s|most\s)?(?:correct|right|answer|best)\b"
    r"(?=\s?(?:[^\w\s]|\Z)|\s(?:answer|option|choice|one|because|as)\b|\n)"
)
DOUBTED = re.compile(r"\b(?:if|whether|assum\w+|none|neither|n?or|not|no|never|both)\b|n't\b", re.IGNORECASE)
NAMED = re.compile(r"(?<![\w)\\])\(([A-Ja-j])\)(?!\w)|\b(?i:option|choice)\s(?:\(([A-Ja-j])\)|([A-J])(?!\w|'))")
LONE_LETTER = re.compile(r"\W{0,9}(?:(?:option|choice)\W{1,3})?\(?([A-J])\)?\W{0,9}", re.IGNORECASE)
LABEL = re.compile(r"[^\w\n(]{0,9}(?:[A-J]\)|[A-Jb-j]\.\s|[B-HJ]:|[A-J]\s-\s|[A-J]\s*\Z)")
NOT_BUT = re.compile(r"\s*(?:is\s)?not\s(?:option\s|choice\s)?\(?[A-Ja-j]\)?[,;]?\s(?:but|it is|it's)\s")


class Options:
    """The options of a question, as keys: texts with the same key are the same option."""

    def __init__(self, options: tuple[str, ...]):
        self.letters = "ABCDEFGHIJ"[: len(options) or 10]
        self.keys = [self.key(option) for option in options]
        self.numbers = [self.key(words(option).split(" ")[0]) for option in options]  # of "15 km": 15

    def key(self, text: str):
        text = plain(words(text)).strip().rstrip(".,;:!")
        value = value_of(text)
        return re.sub(r"\s", "", text).casefold() if value is None else value

    def letter(self, text: str) -> str | None:
        """The letter of the option whose text or number this is; None where it is no option's, or that of several."""
        key = self.key(text[:1000])
        for keys in (self.keys, [] if isinstance(key, str) else self.numbers):
            same = [i for i, one in enumerate(keys) if key != "" and key == one]
            if same:
                return self.letters[same[0]] if len(same) == 1 else None
        return None

    def known(self, match: re.Match) -> str:
        """The letter in one of a match's groups; empty where there are fewer options."""
        letter = next(filter(None, match.groups())).upper()
        return letter if letter in self.letters else ""


def words(text: str) -> str:
    """A text without LaTeX and Markdown around its words."""
    for pattern, spelling in SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def read(place: str, boxed: bool, options: Options) -> str | None:
    """The letter that a place begins with, else the option that its first sentence is, or alone names."""
    place = NOT_BUT.sub("", words(place), count=1)
    match = CHOICE.match(place)
    found = _letter(match, options) if match else None
    if match and found:
        return "" if _called_wrong(found, place[match.end("letter") :]) else found
    sentence = SENTENCE.match(place)[1]  # pyright: ignore[reportOptionalSubscript]  (it matches every text)
    named = _only_named(sentence, options)
    for part in (sentence, re.split(r",\s|\s\(|\s(?:because|since|which)\b", sentence)[0]):
        if same := options.letter(part):
            return same if named in (None, same) else ""
    return named if found is None else found


def read_conclusion(text: str, options: Options) -> str | None:
    """The letter that a text without a box and a mark concludes with."""
    text = words(text)
    for find in (_concluded, _line, _only_named):
        found = find(text, options)
        if found is not None:
            return found
    return None


def _letter(match: re.Match, options: Options) -> str | None:
    """The letter of a match of CHOICE where it stands for an option and not for a word or a variable."""
    letter, rest = match["letter"].upper(), match["rest"]
    if ANOTHER.match(rest):
        return ""
    if CALLED_WRONG.match(rest) or rest.lstrip(" )\"'").startswith("?"):
        return None
    text = rest.lstrip(" .)]:=-(")
    same = options.letter(re.sub(r"[)\]]+\Z", "", SENTENCE.match(text)[1]))  # pyright: ignore[reportOptionalSubscript]
    if same and same != letter and options.key(text) not in options.keys[ord(letter) - ord("A") :][:1]:
        return ""
    if not (match["close"] or match["label"] or same):
        capital = AT_AN_END if letter in "AI" else NO_VARIABLE
        if not (AFTER_A_SMALL_LETTER if match["letter"].islower() else capital).match(rest):
            return None
    return letter if letter in options.letters else ""


def _called_wrong(letter: str, text: str) -> bool:
    return any(CALLED_WRONG.match(text, name.end()) for name in re.finditer(rf"(?<!\w){letter}(?!\w)\)?", text))


def _concluded(text: str, options: Options) -> str | None:
    """The last of "so (C)", "it is C", "C is correct"; a doubt where "wait" or "C is wrong" follows."""
    found = [(-1, "")]
    for mark in list(CONCLUDING.finditer(text))[-MAX_MARKS:]:
        match = CHOICE.match(text, mark.end())
        if match and (match["close"] or match["letter"].isupper()) and is_said(text, mark):
            if AT_AN_END.match(match["rest"]) or re.match(r"\s*\d", match["rest"]):
                found.append((mark.end(), _letter(match, options) or ""))
    for match in list(CALLED_RIGHT.finditer(text))[-MAX_MARKS:]:
        clause = re.split(r"[.;:!?\n]", text[max(0, match.start() - 60) : match.start() + 1])[-1]
        if not DOUBTED.search(clause) and is_said(text, match):
            found.append((match.start(), options.known(match)))
    place, letter = max(found)
    if place < 0:
        return None
    doubted = CORRECTION.search(text, place + 1) or letter and _called_wrong(letter, text[place + 2 :])
    return "" if doubted else letter


def _line(text: str, options: Options) -> str | None:
    """The option that the text is, the letter that its last line is, or that one line of it, at an end, begins with."""
    if whole := options.letter(text):
        return whole
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    lone = LONE_LETTER.fullmatch(lines[-1])
    if lone and (lone[1].isupper() or len(lines) == 1):
        return options.known(lone)
    labelled = [line for line in lines if LABEL.match(line)]
    if len({line.strip()[:2] for line in labelled}) == 1 and labelled[0] in (lines[0], lines[-1]):
        match = CHOICE.match(labelled[0].lstrip(" \t#>•-"))
        return _letter(match, options) if match else None
    return None


def _only_named(text: str, options: Options) -> str | None:
    """The only option that is named and not called wrong; without a named one, that which a text ends with."""
    named = [match for match in list(NAMED.finditer(text))[-MAX_MARKS:] if is_said(text, match)]
    letters = {options.known(match) for match in named if not CALLED_WRONG.match(text, match.end())}
    sentence = re.split(r"[.!?\n]", text.rstrip(" .!\n")[-200:])[-1]
    denied = re.search(r"\b(?:not|never|nor|than|unlike)\b|n't\b", sentence, re.IGNORECASE)
    last = text[-100:].split()[-1:] if not letters and not denied and len(LABEL.findall(text[-2000:])) < 2 else []
    if last and len(last[0]) > 3:
        return options.letter(last[0].rstrip(".!"))
    return letters.pop() if len(letters) == 1 else None
