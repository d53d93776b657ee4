"""What answers.py promises of choices: the letter that a text concludes with, and none where it is in doubt."""

import json
import random
import time

import pytest
from helpers import SHARED

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import vote

DATES = ("05/01/2021", "02/23/2021", "03/11/2021", "05/09/2021", "06/12/2021", "04/29/2021")
NUMBERS = ("6", "12", "18 km", "1,000", "3/4")
FIFTEENS = ("12", "15", "18", "20")
ROMAN = ("I only", "II only", "I and II", "none of the above")

CHOICES = [
    # the last box
    (r"So we get \boxed{C}.", (), "C"),
    (r"\boxed{c}", (), "C"),
    (r"\boxed{a}", (), "A"),
    (r"\boxed{A}", (), "A"),
    (r"\boxed{\text{C}}", (), "C"),
    (r"\boxed{\textbf{(C)} }", (), "C"),
    (r"$\boxed{\mathbf{D}}$", (), "D"),
    (r"\boxed{\textbf{\text{B}}}", (), "B"),
    (r"\boxed{(C) 12}", (), "C"),
    (r"\boxed{C: 12}", (), "C"),
    (r"\boxed{C) 12}", (), "C"),
    (r"\boxed{C. \text{ Paris}}", (), "C"),
    (r"\boxed{\text{Option C}}", (), "C"),
    (r"\boxed{\text{Option (c)}}", (), "C"),
    (r"\boxed{\text{The answer is } D}", (), "D"),
    (r"\boxed{B \quad 12}", (), "B"),
    (r"\boxed{A} is tempting. Correcting: \boxed{B}", (), "B"),
    (r"\boxed{C} and not (D), as (D) is smaller. The answer is D for others.", (), "C"),
    (r"\boxed{05/01/2021}", DATES, "A"),
    (r"\boxed{\text{(B) 02/23/2021}}", DATES, "B"),
    (r"\boxed{1000}", NUMBERS, "D"),
    (r"\boxed{\$1{,}000}", NUMBERS, "D"),
    (r"\boxed{\frac{3}{4}}", NUMBERS, "E"),
    (r"\boxed{0.75}", NUMBERS, "E"),
    (r"\boxed{18 \text{ km}}", NUMBERS, "C"),
    (r"\boxed{\text{None of the above.}}", ROMAN, "D"),
    (r"\boxed{\text{I only}}", ROMAN, "A"),
    (r"\boxed{\text{A train}}", ("train", "bus"), "A"),
    (r"\boxed{F}", NUMBERS, None),
    (r"\boxed{F}", (), "F"),
    (r"\boxed{K}", (), None),
    (r"\boxed{A \text{ or } B}", (), None),
    (r"\boxed{A, C}", (), None),
    (r"\boxed{\text{both A and C}}", (), None),
    (r"\boxed{B + C}", (), None),
    (r"\boxed{x = 12}", (), None),
    (r"\boxed{99}", NUMBERS, None),
    (r"\boxed{99}, so the answer is C.", NUMBERS, "C"),
    (r"\boxed{6}", ("6", "6.0"), None),
    (r"\boxed{\text{A number}}", (), None),
    # after a mark
    ("The answer is C.", (), "C"),
    ("the answer is: (c)", (), "C"),
    ("The answer is A.", (), "A"),
    ("The answer is a number.", (), None),
    ("The answer is A number between 3 and 5.", (), None),
    ("The answer is a.", (), "A"),
    ("The answer is I think unclear.", (), None),
    ("The answer is therefore clearly B, because 3 > 2.", (), "B"),
    ("Answer: C", (), "C"),
    ("**Answer:** C) 12", (), "C"),
    ("**Answer: B**\n\nOption A is too small.", (), "B"),
    ("Final Answer\n\n**D**", (), "D"),
    ("Correct answer - A", (), "A"),
    ("We find 540.\nAnswer D", (), "D"),
    ("ANSWER:E", (), "E"),
    ("Ans. (B)", (), "B"),
    ("#### C", (), "C"),
    ("The correct option is B: 12", (), "B"),
    ("So the right choice is (D).", (), "D"),
    ("The answer is option c because it is smaller.", (), "C"),
    ("The answer to the question is (B).", (), "B"),
    ("The answer is 12, which is option D.", (), "D"),
    ("The answer is 05/01/2021.", DATES, "A"),
    ("The answer is 05/01/2021, since yesterday was April 30.", DATES, "A"),
    ("The answer is 07/07/2021.", DATES, None),
    ("Answer: 18 KM", NUMBERS, "C"),
    ("The answer is C or D.", (), None),
    ("The answer is both A and C.", (), None),
    ("The answer is either (A) or (B).", (), None),
    ("The answer is not B.", (), None),
    ("The answer is not B but C.", (), "C"),
    ("The answer isn't B.", (), None),
    ("The answer is C, not B.", (), "C"),
    ("The answer is B. Wait, no. The answer is C.", (), "C"),
    ("The answer is B. Hmm, but B is wrong.", (), None),
    ("The answer is C. Looking at it again, option C cannot be.", (), None),
    ("So C is the answer, as I said above. On reflection, C) is incorrect.", (), None),
    ("The answer is C. Looking at it again, C fits.", (), "C"),
    ("The answer is C. B is wrong since 3 < 4.", (), "C"),
    ("The answer is B + C = 7.", (), None),
    ("The answer is b times c.", (), None),
    ("The answer is Dublin.", (), None),
    ("The answer is E.", ("1", "2"), None),
    ("I cannot answer a question like this.", (), None),
    ("I answer a lot of questions.", (), None),
    # other conclusions
    ("(A) is wrong, so (C).", (), "C"),
    ("(A) is wrong. Therefore, option C.", (), "C"),
    ("D is correct", (), "D"),
    ("Option B is the correct answer, and C is a trap.", (), "B"),
    ("C is incorrect.", (), None),
    ("If B is correct, then x = 3, which it is not.", (), None),
    ("None of A, B or C is correct.", (), None),
    ("I don't think B is correct.", (), None),
    ("This gives 12, so I choose B.", (), "B"),
    ("It equals 12, which matches option C.", (), "C"),
    ("So, it's D.", (), "D"),
    ("So A is greater than B, and B is greater than C.", (), None),
    # lines and names
    ("C", (), "C"),
    ("c", (), "C"),
    ("**C**", (), "C"),
    ("C.", (), "C"),
    ("C)", (), "C"),
    ("(C)", (), "C"),
    ("Option (c)", (), "C"),
    ("choice D", (), "D"),
    ("C) 12 km\nBecause 3 * 4 = 12.", (), "C"),
    ("• C) 12 km\nBecause 3 * 4 = 12.", (), "C"),
    ("C. Because A is too small and B too large.", (), "C"),
    ("3 * 4 = 12\n\nB", (), "B"),
    ("I would say **C** here.", (), "C"),
    ("It looks like option C to me.", (), "C"),
    ("(A) is too small, (B) is the one.", (), "B"),
    ("(A) or (B)", (), None),
    ("(A) is 6 and (B) is 12.", (), None),
    ("So (A) gives 5 and (B) gives 6.", (), None),
    ("It looks like (F).", NUMBERS, None),
    ("The intercept is\nb", (), None),
    ("A or B", (), None),
    ("not B", (), None),
    ("It is not (B).", (), None),
    ("A) 6\nB) 12\nC) 18", (), None),
    ("A car needs 3 hours, so we need a train.", (), None),
    ("A", (), "A"),
    ("I", (), "I"),
    ("I have no idea.", (), None),
    ("P(A) = 1/2 and f(b) = 3", (), None),
    ("Points A, B and C lie on a line.", (), None),
    ("Vitamin C is good for you", (), None),
    ("the 3 sides are a, b and c.", (), None),
    ("3 + 4 = 7", (), None),
    # corrections, denials, other people's answers and contradictions
    ("I choose C) 18. Wait, actually it should be D) 21.", (), "D"),
    ("The answer is C. Hmm, that's wrong. It should be D.", (), "D"),
    ("The answer is B? No, C.", (), "C"),
    ("Correct answer: D\nIncorrect answer: A", (), "D"),
    ("The correct answer is C. A common wrong answer is A.", (), "C"),
    ("So it is (C).\nNote: if the speed were doubled the answer would be (E).", (), "C"),
    ("Since the wrong answer is A, we take B.", (), "B"),
    ("Answer: 15 (option C)", FIFTEENS, None),
    ("Answer: C (15)", FIFTEENS, None),
    ("Answer: B (15)", FIFTEENS, "B"),
    ("Thus B is correct to say that.", (), None),
    ("Vitamin C is the answer", (), None),
    ("Vitamin A is the best source.", (), None),
    ("The man is (A) person who", (), None),
    ("18", FIFTEENS, "C"),
    ("<answer>C</answer>", (), "C"),
    ('{"answer": "C"}', (), "C"),
    ("Answer：C", (), "C"),
    ("I think it's B", (), "B"),
    ("It is C.", (), "C"),
    ("2", FIFTEENS, None),
    ("The answer is 2.", FIFTEENS, None),
    ("I don't think it's B.", (), None),
    ("Some people say the answer is B.", (), None),
    ("The answer is C. Wait, let me check.", (), None),
    ("If the answer is C, then x = 3.", (), None),
    ("The answer is B. No other option fits.", (), "B"),
    ("The answer is C. Actually, 3 is too small.", (), None),
    ("The answer is C, no doubt.", (), "C"),
    ("", (), None),
    ("It is tempting to choose A. But B is correct.", (), None),
    ("Most students answer A.", (), None),
    ("Is the answer C?", (), None),
    ("The answer is A, which is wrong.", (), None),
    ("If x > 0, the answer is A; otherwise the answer is B.", (), None),
    ("Choose the correct answer: A) 12 B) 15 C) 18", (), None),
    ("The second-best answer is A.", (), None),
    ("The correct answer is C, but the answer key incorrectly says the answer is A.", (), "C"),
    ("First I thought the answer was A, but it is B.", (), "B"),
    ("The right answer would be B.", (), "B"),
    ("The incorrect options are A and C. The correct one is D.", (), "D"),
    ("Plan B is the answer.", (), None),
    ("G - T = 46.\nAnswer A is correct option", (), "A"),
    ("   \n", (), None),
]


@pytest.mark.parametrize(("text", "options", "answer"), CHOICES)
def test_letter_is_found_in_text(text, options, answer):
    """The letter that a text concludes with is found, also by the words of its option. A text in doubt has no
    answer."""
    assert extract_answer(text, "choice", options) == answer


def test_letters_equal_only_themselves():
    """Letters are equal only to themselves, and they vote."""
    assert answers_equal("A", "A", "choice") is True
    assert answers_equal("A", "B", "choice") is False
    assert answers_equal(None, "B", "choice") is False
    assert vote(["A", "B", None, "B"], "choice").answer == "B"


@pytest.mark.parametrize("letter", "ABCDEFGHIJ")
def test_canonical_letters_stay_as_they_are(letter):
    """A bare letter is its own answer, in a box too."""
    assert extract_answer(letter, "choice") == letter
    assert extract_answer(rf"\boxed{{{letter}}}", "choice", tuple("0123456789")) == letter


def test_choice_extraction_survives_random_strings():
    """No random string crashes the search for a letter, and only A to J are found."""
    rng = random.Random(0)
    pieces = [*"ABCDI abcdi().,:;*$\\{}'\"-=\n12/", "\\boxed{", "\\text{", " is ", "answer is ", "so ", "option "]
    pieces += [
        "not ",
        " or ",
        " correct",
        "Answer: ",
        "####",
        "#",
        "\n> ",
        "C) ",
        "\ud800",
        "\0",
        "½",
        "none of ",
        "isn't ",
    ]
    found = 0
    for _ in range(1000):
        text = "".join(rng.choices(pieces, k=rng.randrange(40)))
        answer = extract_answer(text, "choice", rng.choice([(), NUMBERS, DATES]))
        found += answer is not None
        assert answer is None or answer in "ABCDEFGHIJ", repr(text)
    assert 50 < found < 950


@pytest.mark.parametrize(
    "piece",
    ["answer ", "answer is ", "answer to ", "so ", "so it is ", "(A) ", "A ", "option A ", "A is correct ", "**A", "\n"]
    + [" ", "\\text{", "the ", "not ", "A) \n", "####", "C", "C. ", ".", "- ", "is ", "A is the ", "so A is wrong "],
)
def test_choice_extraction_time_is_linear(piece):
    """The time to find a letter grows with the length of the text, not with its square."""
    began = time.perf_counter()
    for start, end in (("", ""), ("answer is B ", "a"), ("\\boxed{", "}")):
        extract_answer(start + piece * (30_000 // len(piece)) + end, "choice", DATES)
    assert time.perf_counter() - began < 5


def test_letters_of_real_solutions_are_found():
    """In AQuA's written solutions, by hundreds of people, a letter is found in nine of ten, and it is right in 99 of
    100 of these."""
    folder = SHARED / "data" / "aqua"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    rows = [json.loads(line) for path in sorted(folder.glob("*.json")) for line in path.read_text().splitlines()]
    found = [(extract_answer(row["rationale"], "choice"), row["correct"]) for row in rows]
    found = [pair for pair in found if pair[0]]
    assert len(rows) == 508 and len(found) >= 0.9 * len(rows)
    assert sum(letter == gold for letter, gold in found) >= 0.99 * len(found)
