"""Choice answers: the letter "A" to "J" that a text concludes with.

    extract("So (B) fails. The answer is (C).", "", (), number)    ->  "C"
    extract("The answer is 18 km.", "", ("6", "18 km"), number)    ->  "B"

The first of these that says anything gives the answer, and a doubt is no answer: "A or B", a letter beyond the options,
a letter beside another option's text ("15 (option C)").
  1. the last box: a letter ("C", "c", "(C) 12", "C: 12"), or the text of exactly one option;
  2. the last conclusion: the same after "answer is", "Answer:", "correct option is"; "so (C)", "I choose C", "it is C",
     "No, C", "option C is correct". A wrong, a denied or another one's answer ("a common wrong answer is A", "I don't
     think it is A", "some say it is A"), "A?" and "if ... would be A" conclude nothing. One that is called wrong later
     on, or that "Wait", "Actually" or "No," follows without a new one, is none;
  3. a text that is only an option's; a last line that is only a letter; one line that begins with "C." or "C)", the
     first or the last one;
  4. the only one that is named as "(C)" or "option C" and not called wrong.
"A", "I" and small letters, which are words too, need a bracket, a full stop or the like. Option texts are compared
without case, spaces, dollar signs and a full stop, numbers by value. A number is never an option's place.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from lta_thinker.answers.number import respelled

MAX_MARKS = 50  # conclusions that are read, from the end of a text; more is a model in a loop
MAX_NAMES = 500  # the same, of the options that it names

SPELLINGS = (  # for choice and boolean, applied in this order, each where one of the characters is in the text
    ("’‘", re.compile(r"[’‘]"), "'"),
    ("“”", re.compile(r"[“”]"), '"'),
    ("：", re.compile(r"："), ": "),
    ("<'\"", re.compile(r"<answer>|[\"']answer[\"']\s?:", re.IGNORECASE), "\nanswer: "),
    ("<", re.compile(r"</answer>", re.IGNORECASE), "\n"),
    *2 * (("\\", re.compile(r"\\(?:text\w*|math[a-z]+|mbox)\s*\{([^{}]*)\}"), r"\1"),),  # \textbf{\text{C}}
    ("*", re.compile(r"\*\*\s?\(?([A-Jb-h])\)?[.:]?\s?\*\*"), r"(\1)"),
    ("\\~", re.compile(r"\\(?:q?quad\b|[,;:! ])|~"), " "),
    ("\\$*`_", re.compile(r"\\[()\[\]]|\\?\$|[*`_]"), ""),
)
SENTENCE = re.compile(r"\s{0,9}(.{0,300}?)(?=[.!?][^\w\s]{0,4}(?:\s|\Z)|\n|\Z|(?<=.{300}))")
MARK = re.compile(  # of choice and boolean; "answer D" is one, "answer a question" is none
    r"(?:\b(?:answer|ans)\b\.?(?:\s(?:choice|option|letter)\b)?"
    r"|\b(?:correct|right|best|final)\s(?:option|choice|one|letter|statement)\b)"
    r"(?:\s(?:to|for)\s[^.\n]{1,80}?(?=\s(?:is|=|:)))?(?:(?-i:(?=\.?\s?\(?[A-J]\b))|\s{0,5}(?:(?:is|(?:would|should|must|will)\sbe)\b(?!n't)"
    r"|[:=→–—\n]|-+>?(?=\s)|(?=isn't)))|####",
    re.IGNORECASE,
)
CHOICE = re.compile(
    r"[\s:,=>-]{0,20}(?:(?:the|correct|right|final|best|answer|ans|is|be|it's|it|clearly|therefore|thus|hence|indeed"
    r"|definitely|probably|likely|most|simply|just|either|both)\b[\s:=]{0,5}){0,8}"
    r"(?P<label>(?:option|choice|letter|statement)\b[\s:]{0,3})?(?:[(\[{\"'])?\s?(?P<letter>[A-Ja-j])(?!\w|'\w)"
    r"(?P<close>\s?[)\]}]|[\"'])?(?P<rest>.{0,300})",
    re.IGNORECASE,
)
ANOTHER_CHOICE = re.compile(
    r"\s*(?:,|/|&|\bor\b|\band\b)\s*(?:or\b|and\b)?\s*(?:either\b|both\b|option\b|choice\b)?\s*"
    r"(?:\([A-Ja-j]\)|[B-HJ](?!\w|')|A(?!\w|'|\s[a-z]))"
)
AFTER_A_WORD = re.compile(r"\s*(?:\Z|[.:;,!?](?!\w)|[–—-]\s|(?:because|since|which|as)\b)")  # after "A" and "I"
AFTER_A_SMALL_LETTER = re.compile(r"\s*(?:\Z|[.:!](?!\w))")
AFTER_A_CAPITAL = re.compile(r"(?!\s*(?:[+*/^=<>×÷\\]|-\w))")  # else it is a variable
_AT_AN_END = r"(?=\s?(?:[^\w\s]|\Z)|\s(?:answer|option|choice|one|because|since|as|and|given|here)\b|\n)"
AFTER_A_CONCLUSION = re.compile(
    r"\s*(?:\Z|[.,;:!](?!\w)|[–—-]\s|\d|because\b|since\b)|\sis\s(?:the\s)?(?:correct|right|answer|best)\b" + _AT_AN_END
)
CALLED_WRONG = re.compile(
    r"\s{0,9}(?:,\s(?:which|that)\s)?"
    r"(?:(?:is|was|are|seems|looks|must be|can|could|does|would)\b\s?)?(?:\w{2,9}ly\s|also\s|therefore\s){0,2}"
    r"(?:(?:not|n't|\w{2,5}n't|cannot|too|out|never)\b|wrong|incorrect|false|impossible|eliminated|invalid|ruled)",
    re.IGNORECASE,
)
_CONCLUDING = (
    r"so|thus|hence|therefore|finally|conclusion|choose|pick|select|(?<=we )take|(?<=I )take|go(?:ing)? with|opt for"
    r"|match(?:es)?|corresponds? to|wait|actually|rather|hmm+|oops|sorry|(?:it|that|this)(?:'s| is| should be| must be)"
    r"|I(?:'d|'ll| would| will)? (?:say|think|believe|guess)"
)
_FILLING = (
    r"it's|it|that's|that|this|must|should|has|have|to|be|is|i'd|i'll|i|we|would|choose|pick|select|take|go|with|say|wait"
    r"|actually|rather"
)
_STOPS = r"\b[,:;.!…—-]{0,3}\s{0,3}"
CONCLUSION = re.compile(
    rf"\b(?:{_CONCLUDING}|no(?=[,.:;!…—-])){_STOPS}(?:(?:{_FILLING}|no)\b,?\s?){{0,6}}", re.IGNORECASE
)
YES_NO_CONCLUSION = re.compile(rf"\b(?:{_CONCLUDING}){_STOPS}(?:(?:{_FILLING})\b,?\s?){{0,6}}", re.IGNORECASE)
CALLED_RIGHT = re.compile(
    r"(?:(?<![\w'])(?i:option|choice|statement|answer)\s\(?([A-Ja-j])|(?<![\w'])\(([A-Ja-j])\)"
    r"|(?:\A|[.,;:!?\n(\"]\s{0,3}|\b(?:so|So|thus|Thus|hence|Hence|therefore|Therefore|then|that|think|believe|clearly|and"
    r"|only|Only)\s)([A-J]))[).]?\s(?:is|must be|would be)\s(?:\w{2,8}ly\s|therefore\s|thus\s|indeed\s)?(?:the\s)?"
    r"(?:only\s|most\s)?(?:correct|right|answer|best)\b" + _AT_AN_END
)
DOUBTED = re.compile(
    r"\b(?:if|whether|assum\w+|suppose|none|neither|n?or|not|no|never|and|both)\b|n't\b", re.IGNORECASE
)
NAMED = re.compile(r"(?<![\w)\\])\(([A-Ja-j])\)(?!\w)|\b(?i:option|choice)\s(?:\(([A-Ja-j])\)|([A-J])(?!\w|'))")
SKIPPED = re.compile(  # right before a conclusion or a name
    r"(?:\b(?:wrong|incorrect|false|second.best|tempting|typical|common|another|other|if|whether|unless|suppose|assum\w{1,3}|not|doubt"
    r"|neither|nor|never|than|unlike|except|excluding|rejected|discarded|instead of|ruled? out|eliminat\w{1,4}"
    r"|thought|said|guessed|assumed|believed|claimed|suggested|(?:people|some|others?|they|many|one|you|who|key|book)\s"
    r"(?:\w{4,12}\s)?(?:says?|thinks?|claims?|argues?|believes?|guess|assumes?|gives))|n't)[\s:]{1,3}"
    r"(?:(?:be|think|believe|say|sure|see|why|how|that|whether|if|the|our|my|your|a|an|as|case|true|correct|right|final|best"
    r"|possible|wrong|incorrect|only|answers?|options?|choices?|is|was|are|it's|it|to)[\s:]{1,3}){0,8}\Z"
    r"|\b(?:people|students|some|others?|they|many|one|you|who)\s(?:(?:may|might|would|could|will|often)\s)?\Z",
    re.IGNORECASE,
)
IF = re.compile(r"\b(?:if|were|had|unless)\b", re.IGNORECASE)
WOULD = re.compile(r"\b(?:would|could|might|otherwise)\b", re.IGNORECASE)
CORRECTED = re.compile(  # after a conclusion
    r"[.!?…;,\n—–-][\s\"')\]]{0,5}(?:(?:but|oh|um|and|hmm)[,.…]{0,3}\s)?(?:wait|hmm+|oops|hold on|scratch that|sorry"
    r"|no(?=\s?[,.:;!…—–-])|(?:that|this)(?:'s| is| was) (?:wrong|incorrect|not right)|I (?:made|was wrong))\b"
    r"|[.!?…\n]\s{0,5}(?:but\s)?actually\b",
    re.IGNORECASE,
)
ARTICLE = re.compile(
    r"\(?A\)?\s(?!(?:is|was|as|since|because|gives?|matches|seems|looks|must|and|or|with|for|here|by)\b)[a-z]"
)
LISTED = re.compile(r"\b[B-J][).]\s.{0,100}?\b[C-J][).]\s")  # "A) 12 B) 15 C) 18"
NOT_BUT = re.compile(r"\s*(?:is\s)?not\s(?:option\s|choice\s)?\(?[A-Ja-j]\)?[,;]?\s(?:but|it is|it's)\s(?:rather\s)?")
LONE_LETTER = re.compile(r"\W{0,9}(?:(?:option|choice)\W{1,3})?\(?([A-J])\)?\W{0,9}", re.IGNORECASE)
LINE_LABEL = re.compile(r"^[^\w\n(]{0,9}(?:([A-J])[).]|([B-HJ]):)(?=\s|\Z)", re.MULTILINE)


class Options:
    """The options of a question, as keys: texts with the same key are the same option."""

    def __init__(self, options: tuple[str, ...], number: Callable[[str], Fraction | None]):
        self.number = number
        self.keys = [self.key(option) for option in options]

    def key(self, text: str) -> Fraction | str:
        text = words(text).strip().rstrip(".,;:!")
        value = self.number(text)
        return re.sub(r"\s", "", text).casefold() if value is None else value

    def letter(self, text: str) -> str | None:
        """The letter of the option whose text this is; None where it is no option's, or that of several."""
        if len(text) > 1000:
            return None
        key = self.key(text)
        same = [i for i, one in enumerate(self.keys) if key != "" and key == one]
        return chr(ord("A") + same[0]) if len(same) == 1 else None


def extract(text: str, box: str, options: tuple[str, ...], number: Callable[[str], Fraction | None]) -> str | None:
    """The letter, or None. `box`: what the last box holds; `number`: the value of a text that is only a number.

    The finders return None where the next one is to search, and an empty string for a doubt, which ends the search.
    """
    known = Options(options, number)
    text, found = words(text), _read_choice(words(box), known)
    for find in (_concluded_choice, _line_choice, _only_choice):
        found = find(text, known) if found is None else found
    return found or None


def words(text: str) -> str:
    """A text without LaTeX and Markdown around its words."""
    return respelled(text, SPELLINGS)


def _sentence(text: str) -> str:
    """The first sentence, up to 300 characters of it."""
    match = SENTENCE.match(text)
    assert match  # it matches every text
    return match[1]


def _read_choice(text: str, options: Options) -> str | None:
    """The letter that a text begins with, else the option that its first sentence or the part up to a comma is."""
    match = CHOICE.match(text)
    found = _letter(match, options) if match else None
    if found:
        return found
    sentence = _sentence(text)
    for part in (sentence, re.split(r",\s|\s\(|\s(?:because|since|which)\b", sentence)[0]):
        if same := options.letter(part):
            return "" if _only_choice(sentence, options) not in (None, same) else same
    return found


def _letter(match: re.Match, options: Options) -> str | None:
    """The letter of a match of CHOICE where it stands for an option and not for a word or a variable."""
    letter, rest = match["letter"].upper(), match["rest"]
    place = ord(letter) - ord("A")
    if ANOTHER_CHOICE.match(rest):
        return ""
    if LISTED.search(rest):
        return ""
    if CALLED_WRONG.match(rest) or rest.lstrip(" )\"'").startswith("?"):
        return None
    same = options.letter(re.sub(r"\A[\s.,:;=([-]+|[)\]]+\Z", "", _sentence(rest.lstrip(" .)]:"))))
    own_text = place < len(options.keys) and options.key(rest.lstrip(" =:-")) == options.keys[place]
    if same and same != letter and not own_text:
        return ""
    if not (match["close"] or match["label"] or own_text):
        capital = AFTER_A_WORD if letter in "AI" else AFTER_A_CAPITAL
        if not (AFTER_A_SMALL_LETTER if match["letter"].islower() else capital).match(rest):
            return None
    return letter if place < (len(options.keys) or 10) else ""


def _concluded_choice(text: str, options: Options) -> str | None:
    """The last conclusion; a doubt where it is called wrong later."""
    found: list[tuple[int, str | None]] = [(-1, None)]
    for mark in list(MARK.finditer(text))[-MAX_MARKS:]:
        if is_skipped(text, mark.start(), mark.end()):
            continue
        after = text[mark.end() : mark.end() + 400]
        if swap := NOT_BUT.match(after):
            after = after[swap.end() :]
        letter = _read_choice(after, options)
        found.append((mark.end(), _only_choice(_sentence(after), options) if letter is None else letter))
    pairs = [(mark, CHOICE.match(text, mark.end())) for mark in CONCLUSION.finditer(text)]
    pairs = [(mark, match) for mark, match in pairs if match and AFTER_A_CONCLUSION.match(match["rest"])]
    for mark, match in pairs[-MAX_MARKS:]:
        capital = match["close"] or match["letter"].isupper()
        if capital and not is_skipped(text, mark.start(), match.end("letter")):
            found.append((mark.end(), _letter(match, options)))
    for match in list(CALLED_RIGHT.finditer(text))[-MAX_MARKS:]:
        clause = re.split(r"[.;:!?\n]", text[max(0, match.start() - 60) : match.start() + 1])[-1]
        if not DOUBTED.search(clause) and not is_skipped(text, match.start(), match.end()):
            found.append((match.start(), _in_range(match, options)))
    place, letter = max(one for one in found if one[1] is not None or one[0] < 0)
    if not letter:
        return letter
    named = re.finditer(rf"(?<!\w){letter}(?!\w)\)?", text[place + 2 :])
    wrong = any(CALLED_WRONG.match(text, place + 2 + name.end()) for name in named)
    return "" if wrong or CORRECTED.search(text, place + 1) else letter


def is_skipped(text: str, start: int, end: int) -> bool:
    """Whether what a text says from start to end is denied, another one's, or only so if something were the case."""
    if SKIPPED.search(text[max(0, start - 80) : start]):
        return True
    before = re.split(r"[.!?\n]", text[max(0, start - 150) : start])[-1]
    sentence = before + re.split(r"[.!?\n]", text[start : end + 150].lstrip(".!?\n"))[0]
    return bool(IF.search(sentence) and WOULD.search(sentence))


def _line_choice(text: str, options: Options) -> str | None:
    if whole := options.letter(text):
        return whole
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    lone = LONE_LETTER.fullmatch(lines[-1])
    if lone and (lone[1].isupper() or len(lines) == 1):
        return _in_range(lone, options)
    for line in (lines[0], lines[-1]):
        if LINE_LABEL.match(line) and len({match[0].strip() for match in LINE_LABEL.finditer(text)}) == 1:
            match = CHOICE.match(re.sub(r"\A[^\w(]+", "", line))
            assert match  # the line begins with a letter of LINE_LABEL
            return _letter(match, options)
    return None


def _only_choice(text: str, options: Options) -> str | None:
    letters = {
        _in_range(match, options)
        for match in list(NAMED.finditer(text))[-MAX_NAMES:]
        if not is_skipped(text, match.start(), match.end())
        and not CALLED_WRONG.match(text, match.end())
        and not ARTICLE.match(text, match.start())
    }
    return letters.pop() if len(letters) == 1 else None


def _in_range(match: re.Match, options: Options) -> str:
    """The only letter among a match's groups; empty where there are fewer options."""
    letter = next(group for group in match.groups() if group).upper()
    return letter if ord(letter) - ord("A") < (len(options.keys) or 10) else ""
