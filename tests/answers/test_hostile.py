"""What answers/ promises of hostile texts: every extraction is linear in the text, whatever a model repeats."""

import random
import time

import pytest

from lta_thinker.answers import ANSWER_TYPES, extract_answer

PIECES = (
    "\\boxed{", "\\boxed{}", "\\boxed{\\boxed{5}", "boxed ", "{", "}", "(", "[", "$", "$$", "\\$", "\\(", "\\[",
    "\\", "\\\\", "1", "1,", "22,", "1/", "1 ", "1.", "1e", "1 1/2 ", "5. ", "-", "--", "=-", "= ", "½", "٣", "１",
    "²", "\u202f", " ", "\n", "\t", ",", ".", "'", '"', "*", "**", "* ", "#", "####", "#### ", "#### 1 ", "?", "a",
    "a ", "é", "\u200b", "answer", "answer ", "answer is ", "answer is 5 ", "answer is (A) ", "answer: no. ",
    "<answer>", "the answer isn't ", "A", "A ", "(A) ", "(A) (B) ", "A. ", "B) ", "(B", "**A**", "option A ",
    "A is wrong ", "A is correct. ", "not A but B ", "yes ", "no, ", "yes", "not ", "n't ", "so yes ", "wait, ",
    "true. ", "yes or no ", "the statement is true. ", "\\frac{", "\\frac1", "\\text{", "\\textbf{", "^{",
    "^\\circ", "\\left(", "\\begin{pmatrix}", "sqrt(", "√", "9 x 10^", "x=", "x = 5, ", "$x$ ", "$x$, ", "$x$ and ",
    "if ", "if it would ", "step ", "Rs.", "’", "\U0001f600", "\0", "\ud800",
)  # fmt: skip
ENDS = (("", ""), ("answer is ", "a"), ("\\boxed{", "}"), ("$", "$"), ("The answer is (", ")"), ("\n", "\n5"))


def hostile_texts(seed: int):
    """Functions from a length to a text: each piece, and some pairs of pieces, over and over, in random ends."""
    rng = random.Random(seed)
    for unit in [*PIECES, *("".join(rng.choices(PIECES, k=2)) for _ in range(20))]:
        start, end = rng.choice(ENDS)
        yield lambda length, unit=unit, start=start, end=end: start + unit * (length // len(unit)) + end


@pytest.mark.parametrize("answer_type", ANSWER_TYPES)
def test_extraction_time_is_linear(answer_type):
    """Four times the text takes about four times as long. (A quadratic search would take 16 times.)"""

    def seconds(text: str) -> float:
        began = time.process_time()
        extract_answer(text, answer_type, ("6", "18 km"))
        return time.process_time() - began

    for text in hostile_texts(seed=ANSWER_TYPES.index(answer_type)):
        long = seconds(text(10_000))
        short = seconds(text(2_500)) if long >= 0.02 else 0.0  # it decides nothing
        if long > 8 * short + 0.02:  # again, for what else ran on the machine
            short, long = min(seconds(text(2_500)) for _ in range(3)), min(seconds(text(10_000)) for _ in range(3))
        assert long < 8 * short + 0.02, text(40)


@pytest.mark.parametrize("answer_type", ANSWER_TYPES)
def test_a_million_characters_are_read(answer_type):
    """A million characters of nested boxes are read in the time that each pair of braces takes once."""
    depth = 125_000
    answer, expected = {"choice": ("(A)", "A"), "boolean": ("yes", "yes")}.get(answer_type, ("5", "5"))
    began = time.process_time()
    found = extract_answer("\\boxed{" * depth + answer + "}" * depth, answer_type)
    assert time.process_time() - began < 10  # it takes about one second; a quadratic search takes hours
    assert found == expected
