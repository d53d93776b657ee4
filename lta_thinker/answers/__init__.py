"""Text -> answer, and equality of answers. The vote over several samples is in votes.py.

    extract_answer("So she makes 9 * 2 = $18.00 a day.", "number")   ->  "18"
    answers_equal("3/4", "0.75", "number")                           ->  True

An answer type is a module with one function that finds the answer in a text and one that compares two answers:
number.py, choice.py, boolean.py, latex.py. Their docstrings say how in full.
"""

from collections.abc import Callable

from lta_thinker.answers import boolean, choice, latex, number

ANSWER_TYPES = ("number", "choice", "boolean", "latex")


def extract_answer(text: str, answer_type: str, options: tuple[str, ...] = ()) -> str | None:
    """The answer that a model's text gives, as a canonical string, or None. Raises ValueError for the answer type.

    `options` of a choice question, without letters: only that many letters are answers, and each text is its letter.
    """
    extract, _ = answer_kind(answer_type)
    return extract(text, options) if answer_type == "choice" else extract(text)


def answers_equal(a: str | None, b: str | None, answer_type: str) -> bool:
    """Whether two answers mean the same. None equals nothing. Raises ValueError for the answer type."""
    _, equal = answer_kind(answer_type)
    return a is not None and b is not None and equal(a, b)


def answer_kind(answer_type: str) -> tuple[Callable, Callable]:
    """The type's two functions: text -> answer, and equality. Raises ValueError for an unknown type."""
    if answer_type not in KINDS:
        raise ValueError(f"unknown answer type {answer_type!r}: one of {', '.join(ANSWER_TYPES)}")
    return KINDS[answer_type]


def _extract_choice(text: str, options: tuple[str, ...]) -> str | None:
    return choice.extract(text, number.last_box(text), options, number.value_of)


def _extract_boolean(text: str) -> str | None:
    return boolean.extract(text, number.last_box(text))


def _extract_latex(text: str) -> str | None:
    box = number.last_box(text)
    while inner := number.last_box(box):
        box = inner
    said = number.ANSWER_MARK.split(text)[:0:-1]  # what follows each "answer is", the last one first
    return latex.extract(text, box, said) or number.extract(text)


KINDS = {
    "number": (number.extract, number.equal),
    "choice": (_extract_choice, str.__eq__),
    "boolean": (_extract_boolean, str.__eq__),
    "latex": (_extract_latex, latex.equal),
}
