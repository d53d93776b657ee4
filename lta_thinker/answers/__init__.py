"""Text -> answer, and equality of answers. The vote over several samples is in votes.py.

    extract_answer("So she makes 9 * 2 = $18.00 a day.", "number")   ->  "18"
    answers_equal("3/4", "0.75", "number")                           ->  True

said.py finds where a text says its answer; number.py, word.py and latex.py read what is said there and compare answers
(docs/answers.md). Where it is not clear, there is no answer.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from lta_thinker.answers import latex, number, word
from lta_thinker.answers.said import places
from lta_thinker.answers.verifier import Budget


@dataclass(frozen=True)
class Kind:
    """An answer type's functions.

    read: what stands at a place, which place it is ("box", "mark" or "end", see said.py) and the options -> canonical
    answer; None where there is none, "" for a doubt. key: answers with the same key are equal, without one to none.
    equal: whether two answers of different keys mean the same, within a budget; None where they never do.
    """

    read: Callable[[str, str, tuple[str, ...]], str | None]
    key: Callable[[str], Hashable] = str
    equal: Callable[[str, str, Budget], bool] | None = None


KINDS = {
    "number": Kind(number.read, number.key),
    "choice": Kind(word.read_choice),
    "boolean": Kind(word.read_boolean),
    "latex": Kind(latex.read, latex.key, latex.equal),
}
ANSWER_TYPES = tuple(KINDS)


def extract_answer(text: str, answer_type: str, options: tuple[str, ...] = (), finished: bool = True) -> str | None:
    """The answer that a model's text gives, as a canonical string, or None. Raises ValueError for the answer type.

    `options` of a choice question, without letters: only that many letters are answers, and each text is its letter.
    finished: False for a text that was cut off, which gives only an answer that it has concluded. The time is linear
    in the length of the text.
    """
    read = answer_kind(answer_type).read
    for place, where in places(text, finished):
        found = read(place, where, options)
        if found is not None:
            return found or None
    return None


def answers_equal(a: str | None, b: str | None, answer_type: str, budget: Budget | None = None) -> bool:
    """Whether two answers mean the same. None equals nothing. Raises ValueError for the answer type.

    budget: what hard comparisons (of latex alone) may cost; many comparisons may share one. Works in any thread.
    """
    kind = answer_kind(answer_type)
    if a is None or b is None or kind.key(a) is None:
        return False
    return kind.key(a) == kind.key(b) or bool(kind.equal and kind.equal(a, b, budget or Budget()))


def answer_kind(answer_type: str) -> Kind:
    """The type's functions. Raises ValueError for an unknown type."""
    if answer_type not in KINDS:
        raise ValueError(f"unknown answer type {answer_type!r}: one of {', '.join(ANSWER_TYPES)}")
    return KINDS[answer_type]
