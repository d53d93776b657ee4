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
from lta_thinker.answers.word import CALLED_RIGHT, CONCLUDING

SPELLINGS = (  # in this order
    (re.compile(r"\*\*\s?\(?([A-J])\)?[.:]?\s?\*\*"), r"(\1)"),
    (re.compile(r"\\(?:text\w*|math[a-z]+|boxed)\s*\{([^{}]*)\}|<([A-J])>|\{(,)\}"), r"\1\2\3"),
    (re.compile(r"\\[dtc]?frac\{(\d+)\}\{(\d+)\}"), r"\1/\2"),
    (re.compile(r"\\[()\[\]]|\\?\$|[*`_]|<[^<>]{1,20}>"), ""),
)
_BEFORE = rf"{CONCLUDING}|is|be|as|than|not|but|out|say|think|it's|clearly|us|es|est|ist|é|è|adalah|la|le|el"
LETTERS = tuple(  # in this order
    re.compile(rf"(?P<before>{before})(?P<letter>{letter}){behind}", re.ASCII)
    for before, letter, behind in (
        # a line "C", or one that begins with "C)", "b.", "C:"
        (r"\n[^\w\n(]{0,9}", r"[A-Ja-j](?=[^\w\n]*(?:\n|\Z)|\)\s)|[A-Jb-j](?=[.:]\s)", r"\)?"),
        # option (c), 选项C
        (
            r"(?:(?i:\b(?:option|choice|letter|lettre|alternativa|answer|antwort)[\s:]{1,2})|[选選項项肢])[(\"']?",
            r"[A-Ja-j](?![\w'])",
            r"[)\"']?",
        ),
        (r"(?<![\w)\\])[(\[{\"']", "[A-Ja-j]", r"[)\]}\"'](?!\w)"),  # (c)
        (r"\s", "[A-J]", r"\)"),  # C) 12
        (  # it is C.
            rf"\b(?i:{_BEFORE})\s|(?<=[^\w \t'\\^⟨+*/<-])\s?",
            "[A-HJ]",
            rf"(?=\W*\Z|[.:;,!?](?!\w)|\s*[\n(]|\s?[^\x00-\x7f]|\s(?:because|since|which|as|and|or)\b|{CALLED_RIGHT})",
        ),
    )
)
LISTED = re.compile(r"⟨A⟩[^⟨⟩]{1,200}⟨B⟩[^⟨⟩]{1,200}⟨C⟩[^\n]*(?:\n\W{0,9}⟨[D-J]⟩[^\n]*)*")
NUMBER = r"(?<![\w⟨.,/-])-?\d+(?:[.,/]\d+)*"
WITH_UNIT = re.compile(rf"(?:\w\s?=\s?)?({NUMBER})\s?([^\W\d]?)[^\d()]*")


class Options:
    """The options of a question: spells what names one in a text."""

    def __init__(self, options: tuple[str, ...]):
        self.letters = "ABCDEFGHIJ"[: len(options) or 10]
        texts = [words(option.translate(CHARACTERS)).rstrip(" .,;:!") for option in options]
        numbers = {i: number for i, text in enumerate(texts) if (number := WITH_UNIT.fullmatch(text))}
        keys = [(_key(text), i) for i, text in enumerate(texts)] + [(_key(numbers[i][1]), i) for i in numbers]
        self.keys = {key: self.letters[i] for key, i in keys if all(j == i for other, j in keys if other == key)}
        self.units = {self.letters[i]: number[2].casefold() for i, number in numbers.items()}
        patterns = [
            r"\s*".join(map(re.escape, "".join(text.split()))) for text in sorted(texts, key=len)[::-1] if text[1:]
        ]
        self.pattern = re.compile(
            rf"(?<![\w.,⟨-])(?:{'|'.join([*patterns, '(?!)'])})(?![\w⟩]|[.,/]\d)|(?P<number>{NUMBER})(?=\s?([^\W\d]?))",
            re.IGNORECASE,
        )

    def spelled(self, text: str) -> str:
        """A text with ⟨C⟩ for each letter that names the option C, ⟨⟩ for one beyond the options, ⟨~C⟩ for its text."""
        text = "\n" + words(text)
        for pattern in LETTERS:
            text = pattern.sub(self._letter, text)
        text = LISTED.sub("", text)
        return self.pattern.sub(self._text, text) if self.keys else text

    def _letter(self, match: re.Match) -> str:
        letter = match["letter"].upper()
        return f"{match['before']}⟨{letter if letter in self.letters else ''}⟩"

    def _text(self, match: re.Match) -> str:
        letter = self.keys.get(_key(match[0]), "")
        units = {self.units.get(letter), match[2].casefold()} - {""} if match["number"] else ()
        return f"⟨~{letter}⟩" if letter and len(units) < 2 else match[0]


def _key(text: str) -> str:
    """The same for two spellings of an option."""
    value = value_of(text)
    return "".join(text.casefold().split()) if value is None else str(value)


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
