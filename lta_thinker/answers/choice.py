"""Choice answers: the letter "A" to "J" that a text concludes with.

    extract_answer("So (B) fails. The answer is (C).", "choice")               ->  "C"
    extract_answer("The answer is 18 km.", "choice", ("6 km", "18 km"))        ->  "B"

A letter is "(C)", "option C", a line "c" or "C. 12 km", or a capital between words as below and a full stop or the like.
The text of exactly one option is its letter, and so is its number, where it is a number with a unit. word.py says which
of the letters counts. A letter beyond the options, or beside another option's text ("15 (option C)"), is a doubt.
"""

import re

from lta_thinker.answers import word
from lta_thinker.answers.number import value_of
from lta_thinker.answers.said import CHARACTERS

SPELLINGS = (  # in this order
    (re.compile(r"\*\*\s?\(?([A-J])\)?[.:]?\s?\*\*"), r"(\1)"),
    *2 * ((re.compile(r"\\(?:text\w*|math[a-z]+|mbox|boxed)\s*\{([^{}]*)\}|<([A-J])>|\{(,)\}"), r"\1\2\3"),),
    (re.compile(r"\\(?:q?quad\b|[,;:! ])|~"), " "),
    (re.compile(r"\\[()\[\]]|\\?\$|[*`_]|<[^<>]{1,20}>"), ""),
)
_BEFORE = (
    r"is|be|to|with|as|so|thus|hence|therefore|then|and|or|n?either|nor|not|but|than|out|pick|choose|select|take|say|think"
    r"|believe|it's|that|leav(?:es|ing)|only|clearly|us|es|est|ist|é|è|adalah|la|le|el|der|die|rather|eliminate|thought|from"
)
_BEHIND = (
    r"\W*\Z|[.:;,!?](?!\w)|\s*[\n(]|\s[–—-]\s|\s?[^\x00-\x7f]|\s(?:because|since|which|as|though|and|or|nor"
    r"|(?:is|must be)\s(?:\w{2,8}ly\s)?(?:the\s)?(?:only\s|most\s)?(?:correct|right|answer|best))\b"
)
LETTERS = tuple(  # in this order
    re.compile(rf"(?P<before>{before})(?P<letter>{letter}){behind}", re.ASCII)
    for before, letter, behind in (
        # a line "C", or one that begins with "C)", "b.", "C:", "C - "
        (r"\n[^\w\n(]{0,9}", r"[A-Ja-j](?=[^\w\n]*(?:\n|\Z)|\)\s)|[A-Jb-j](?=\.\s|:\s)|[A-J](?=\s-\s)", r"\)?"),
        # option (c), 选项C
        (r"(?i:\b(?:option|choice|letter|statement|opsi|lettre|alternativa|answer|antwort)[\s:]{1,2}|[选選]|[項项肢])[(\"']?", r"[A-Ja-j](?![\w'])", r"[)\"']?"),
        (r"(?<![\w)\\])[(\[{\"']", "[A-Ja-j]", r"[)\]}\"'](?!\w)"),  # (c)
        (r"\s", "[A-J]", r"\)"),  # C) 12
        (r"(?<=\s)", "[A-HJ]", r"(?=,?\s(?:and|or|nor)\s[A-J]\b(?!'))"),
        (rf"\b(?i:{_BEFORE})\s|(?<=[^\w \t'\\^⟨+*/<-])\s?", "[A-HJ]", rf"(?={_BEHIND})"),  # it is C.
        (r"⟨\w?⟩(?:,?\s(?:and|or|nor)\s|,\s|\s?[/&]\s?)", "[B-HJ]", r"(?![\w']|\sis\b)"),  # A or B
    )
)
LISTED = re.compile(r"⟨A⟩[^⟨⟩]{1,200}⟨B⟩[^⟨⟩]{1,200}⟨C⟩[^\n]*(?:\n\W{0,9}⟨[D-J]⟩[^\n]*)*")
NUMBER = re.compile(r"(?<![\w⟨.,/-])-?\d[\d.,/]*")
WITH_UNIT = re.compile(rf"[^\w-]?({NUMBER.pattern})[^\d()]*")


class Options:
    """The options of a question: spells what names one in a text."""

    def __init__(self, options: tuple[str, ...]):
        self.letters = "ABCDEFGHIJ"[: len(options) or 10]
        options = tuple(words(option.translate(CHARACTERS)) for option in options)
        texts = ["".join(option.casefold().rstrip(" .,;:!").split()) for option in options]
        numbers = [value_of(match[1]) if (match := WITH_UNIT.fullmatch(one)) else None for one in options]
        self.texts = {text: i for i, text in enumerate(texts) if texts.count(text) == 1 and not re.fullmatch(r"\D?", text)}
        self.numbers = {value: i for i, value in enumerate(numbers) if numbers.count(value) == 1 and value is not None}
        longest_first = (r"\s*".join(map(re.escape, text)) for text in sorted(self.texts, key=len, reverse=True))
        self.pattern = re.compile(rf"(?<![\w.,⟨-])(?:{'|'.join(longest_first)})(?![\w⟩]|[.,]\d)", re.IGNORECASE)

    def spelled(self, text: str) -> str:
        """A text with ⟨C⟩ for all that names the option C, and ⟨⟩ for a letter beyond the options."""
        text = "\n" + words(text)
        for pattern in LETTERS:
            text = pattern.sub(self._letter, text)
        text = LISTED.sub("", text)
        if self.texts:
            text = self.pattern.sub(self._text, text)
        return NUMBER.sub(self._number, text) if self.numbers else text

    def _letter(self, match: re.Match) -> str:
        letter = match["letter"].upper()
        return f"{match['before']}⟨{letter if letter in self.letters else ''}⟩"

    def _text(self, match: re.Match) -> str:
        return f"⟨~{self.letters[self.texts[''.join(match[0].casefold().split())]]}⟩"

    def _number(self, match: re.Match) -> str:
        number = match[0].rstrip(".,/")
        value = value_of(number)
        return f"⟨~{self.letters[self.numbers[value]]}⟩{match[0][len(number):]}" if value in self.numbers else match[0]


def words(text: str) -> str:
    """A text without LaTeX and Markdown around its words."""
    for pattern, spelling in SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def read(place: str, boxed: bool, options: Options) -> str | None:
    """The letter that the first sentence of a place names."""
    return word.read(options.spelled(place))


def read_conclusion(turn: str, options: Options) -> str | None:
    """The letter that a text without a box and a mark concludes with."""
    return word.read_conclusion(turn, options.spelled)
