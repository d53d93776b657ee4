"""Choice answers: the letter "A" to "J" that a text concludes with.

    extract_answer("So (B) fails. The answer is (C).", "choice")               ->  "C"
    extract_answer("The answer is 18 km.", "choice", ("6 km", "18 km"))        ->  "B"

A letter is "(C)", "option c", a line "c" or "C. 12 km", or a capital between certain words and an end or a comma. An
option's text, or its number without a unit, is its letter where no other option has it. word.py says which of these
counts. A letter beyond the options, or beside another option's text ("15 (option C)"), is a doubt.
"""

import re

from lta_thinker.answers import word
from lta_thinker.answers.number import value_of
from lta_thinker.answers.said import CHARACTERS

SPELLINGS = (  # in this order
    (re.compile(r"\*\*\s?\(?([A-J])\)?[.:]?\s?\*\*"), r"(\1)"),  # I would say **C** here
    (re.compile(r"\\[dtc]?frac\{(\d+)\}\{(\d+)\}"), r"\1/\2"),  # of options like "1/2"
    (re.compile(r"\\(?:text\w*|math[a-z]+)\s*\{([^{}]*)\}|<([A-J])>|\{(,)\}"), r"\1\2\3"),
    (re.compile(r"\\[()\[\]]|\\?\$|[*`_⟨⟩]|<[^<>]{1,20}>"), ""),
)
_BEFORE = rf"{word.CONCLUDING}|is|be|as|than|not|but|out|say|think|it's|\w{{2,12}}ly|us|es|est|ist|é|è|adalah|la|le|el"
_BEHIND = rf"\W*\Z|[.:;,!?](?!\w)|\s*[\n(]|\s?[^\x00-\x7f]|\s(?:because|since|which|as|and|or)\b|{word.CALLED_RIGHT}"
_LABEL = r"\b(?i:option|choice|letter|opción|lettre|alternativa|answer|antwort)[\s:]{1,2}|[选選項项肢]"
LETTERS = [
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"(\n[^\w\n(]{0,9})([A-Ja-j](?=[^\w\n]*(?:\n|\Z)|\)\s)|[A-Jb-j](?=[.:]\s))",  # a line "c", "c) 12", "c. 12"
        rf"((?:{_LABEL})[(\"']?)([A-Ja-j])(?![\w'])",  # option (c), 选项C
        r"((?<![\w)\\]))(?:[(\[{]|[\"'](?=[A-J]))([A-Ja-j])[)\]}\"'](?!\w)",  # (c)
        r"(\s)([A-J])(?=\))",  # C) 12
        rf"(\b(?i:{_BEFORE})\s|(?<=[^\w \t'\\^⟨+*/<-])\s?)([A-HJ])(?={_BEHIND})",  # it is C.
    )
]
# The options said again are no answers: "A) 12 B) 15 C) 18", also a line each; not "A fails. B is right. C fails."
_LISTED = r"\W{1,3}(?:[^⟨⟩.!?]|[.!?](?!\s)){1,100}"
LISTED = re.compile(rf"⟨A⟩{_LISTED}⟨B⟩{_LISTED}⟨C⟩[^\n]*(?:\n\W{{0,9}}⟨[D-J]⟩[^\n]*)*")
NUMBER = r"(?<![\w⟨.,/-])-?\d+(?:[.,/]\d+)*"
WITH_UNIT = re.compile(rf"(?:\w\s?=\s?)?({NUMBER})\s?([^\W\d]?)[^\d()]*")


class Options:
    """The options of a question: spells what names one in a text."""

    def __init__(self, options: tuple[str, ...]):
        self.letters = "ABCDEFGHIJ"[: len(options) or 10]
        texts = [words(option.translate(CHARACTERS)).rstrip(" .,;:!") for option in options]
        numbers = [WITH_UNIT.fullmatch(text) for text in texts]
        found = list(zip(self.letters, texts, numbers, strict=False))
        keys = {(_key(text), letter) for letter, text, _ in found}
        keys |= {(_key(number[1]), letter) for letter, _, number in found if number}
        self.keys = {key: letter for key, letter in keys if sum(key == other for other, _ in keys) == 1}
        self.units = {letter: number[2].casefold() for letter, _, number in found if number}
        patterns = [r"\s*".join(map(re.escape, "".join(text.split()))) for text in texts if text[1:]]
        named = "|".join(sorted(patterns, key=len, reverse=True)) or "(?!)"
        self.named = re.compile(
            rf"(?<![\w.,⟨-])(?:{named})(?![\w⟩]|[.,/]\d)|({NUMBER})(?=\s?([^\W\d]?))", re.IGNORECASE
        )

    def spelled(self, text: str) -> str:
        """A text with ⟨C⟩ for each letter that names the option C, ⟨⟩ for one beyond the options, ⟨~C⟩ for its text."""
        text = "\n" + words(text)
        for pattern in LETTERS:
            text = pattern.sub(self._letter, text)
        text = LISTED.sub("", text)
        return self.named.sub(self._text, text) if self.keys else text

    def _letter(self, match: re.Match) -> str:
        letter = match[2].upper()
        return f"{match[1]}⟨{letter if letter in self.letters else ''}⟩"

    def _text(self, match: re.Match) -> str:
        letter = self.keys.get(_key(match[0]), "")
        unit = self.units.get(letter)
        other_unit = match[2] and unit and match[2].casefold() != unit
        return f"⟨~{letter}⟩" if letter and not other_unit else match[0]


def words(text: str) -> str:
    """A text without LaTeX and Markdown around its words."""
    for pattern, spelling in SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def _key(text: str) -> str:
    """The same for two spellings of an option."""
    value = value_of(text)
    return "".join(text.casefold().split()) if value is None else str(value)


def read_place(place, boxed, options) -> str | None:
    """The letter that the first sentence of a place names."""
    return word.read(options.spelled(place))


def read_conclusion(turn: str, options: Options) -> str | None:
    """The letter that a text without a box and a mark concludes with."""
    return word.read_conclusion(turn, options.spelled)


def read(place, where, options):
    options = Options(options)
    if where == "end":
        return read_conclusion(place, options)
    return read_place(place, where == "box", options)
