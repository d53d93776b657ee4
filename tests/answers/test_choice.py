"""What answers/ promises of choices: the letter that a text concludes with, and none where it is in doubt."""

import json
import random

import pytest
from helpers import SHARED

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import vote

DATES = ("05/01/2021", "02/23/2021", "03/11/2021", "05/09/2021", "06/12/2021", "04/29/2021")
NUMBERS = ("6", "12", "18 km", "1,000", "3/4")
FIFTEENS = ("12", "15", "18", "20")
ROMAN = ("I only", "II only", "I and II", "none of the above")

PLANETS = ("Mercury", "Venus", "Earth", "Mars")

CHOICES = {
    "denied and listed": [
        ("It is not Mars.", PLANETS, None),
        ("It certainly isn't Earth.", PLANETS, None),
        ("The planet is Venus, not Mars.", PLANETS, "B"),
        ("A. Mercury\nB. Venus\nC. Earth\nD. Mars", PLANETS, None),
        ("The answer must be Venus.", PLANETS, "B"),
        ("Either B or C seems plausible.", PLANETS, None),
        ("I was torn between A and C.", PLANETS, None),
        ("Not B but D.", PLANETS, "D"),
        ("We can eliminate A, B and D. That leaves C.", PLANETS, "C"),
        ("Answer: rules out C, leaving D", PLANETS, "D"),
        ("Answer: anything but C", PLANETS, None),
        ("The distance is 12, which corresponds to choice B.", NUMBERS, "B"),
        ("Most people choose B, but D is correct.", PLANETS, "D"),
        ("If we pick A, it is hot.", PLANETS, None),
        ("B. Venus is hot.\n\nA) Mercury is wrong because it has no air.", PLANETS, "B"),
        ("Option A says Mercury, which is small. That is not listed.", PLANETS, None),
        ("A) Mercury\nB) Venus\nC) Earth\nD) Mars\n\n**B**", PLANETS, "B"),
    ],
    "an option's text": [
        ("It is Mars, the red planet.", PLANETS, "D"),
        ("Mercury is close to the Sun. Therefore Venus is the hottest.", PLANETS, "B"),
        ("Answer: Venus, which is hotter than Mercury", PLANETS, "B"),
        ("The answer is the planet closest to Earth, namely Venus.", PLANETS, None),
        ("It is not Mars; it is Venus.", PLANETS, "B"),
        ("Mars is cold. Venus is hot.", PLANETS, None),
        ("It lies between Earth and Mars.", PLANETS, None),
        ("B\n\nMercury has no air. Earth and Mars are colder.", PLANETS, "B"),
        ("D) cannot be determined", ("rises", "falls", "stays", "cannot be determined"), "D"),
        ("It rises, then it falls.", ("rises", "falls"), None),
        ("The answer is 15 dollars.", ("$12", "$15", "$18"), "B"),
        ("The total is $18.00.", ("$12", "$15", "$18"), "C"),
        ("He walked 18 km on Monday.", NUMBERS, None),
        ("The answer is 18 miles.", NUMBERS, None),
        ("The total is 18m.", NUMBERS, None),
        ("10 + 15 = 25, so D.", ("10", "15", "20", "25"), "D"),
        (r"The answer is $\frac{3}{4}$.", NUMBERS, "E"),
    ],
    "boxes": [
        (r"So we get \boxed{C}.", (), "C"),
        (r"\boxed{c}", (), "C"),
        (r"\boxed{\textbf{(C)} }", (), "C"),
        (r"\boxed{\textbf{\text{B}}}", (), "B"),
        (r"\boxed{C: 12}", (), "C"),
        (r"\boxed{\text{Option (c)}}", (), "C"),
        (r"\boxed{A} is tempting. Correcting: \boxed{B}", (), "B"),
        (r"\boxed{05/01/2021}", DATES, "A"),
        (r"\boxed{\$1{,}000}", NUMBERS, "D"),
        (r"\boxed{0.75}", NUMBERS, "E"),
        (r"\boxed{18}", NUMBERS, "C"),
        (r"\boxed{\text{None of the above.}}", ROMAN, "D"),
        (r"\boxed{F}", NUMBERS, None),
        (r"\boxed{K}", (), None),
        (r"\boxed{A \text{ or } B}", (), None),
        (r"\boxed{A, C}", (), None),
        (r"\boxed{B + C}", (), None),
        (r"\boxed{99}", NUMBERS, None),
        (r"\boxed{\text{Earth and Mars}}", PLANETS, None),
        (r"\boxed{99}, so the answer is C.", NUMBERS, "C"),
        (r"\boxed{6}", ("6", "6.0"), None),
        (r"\boxed{\text{A number}}", (), None),
    ],
    "marks": [
        ("the answer is: (c)", (), "C"),
        ("The answer is A.", (), "A"),
        ("The answer is a number.", (), None),
        ("The answer is therefore clearly B, because 3 > 2.", (), "B"),
        ("**Answer: B**\n\nOption A is too small.", (), "B"),
        ("We find 540.\nAnswer D", (), "D"),
        ("Ans. (B)", (), "B"),
        ("#### C", (), "C"),
        ("So the right choice is (D).", (), "D"),
        ("The answer is option c because it is smaller.", (), "C"),
        ("The answer is 12, which is option D.", (), "D"),
        ("The answer is 05/01/2021, since yesterday was April 30.", DATES, "A"),
        ("The answer is C or D.", (), None),
        ("The answer is not B.", (), None),
        ("The answer is not B but C.", (), "C"),
        ("The answer is C, not B.", (), "C"),
        ("The answer is B. Wait, no. The answer is C.", (), "C"),
        ("The answer is B + C = 7.", (), None),
        ("The answer is Dublin.", (), None),
        ("I cannot answer a question like this.", (), None),
        ('{"answer": "C"}', (), "C"),
        ("Answer: 15 (option C)", FIFTEENS, None),
        ("Answer: B (15)", FIFTEENS, "B"),
    ],
    "conclusions": [
        ("(A) is wrong, so (C).", (), "C"),
        ("Option B is the correct answer, and C is a trap.", (), "B"),
        ("C is incorrect.", (), None),
        ("If B is correct, then x = 3, which it is not.", (), None),
        ("None of A, B or C is correct.", (), None),
        ("This gives 12, so I choose B.", (), "B"),
        ("So A is greater than B, and B is greater than C.", (), None),
        ("Option (c)", (), "C"),
        ("**C) 18**", (), "C"),
        ("C - 18 km", NUMBERS, "C"),
        ("c. 18 km", NUMBERS, "C"),
        ("C\n\nExplanation: it is not 12 (B).", NUMBERS, "C"),
        ("C. Because A is too small and B too large.", (), "C"),
        ("3 * 4 = 12\n\nB", (), "B"),
        ("I would say **C** here.", (), "C"),
        ("So the date is 02/23/2021.", DATES, "B"),
        ("(A) or (B)", (), None),
        ("It looks like (F).", NUMBERS, None),
        ("A or B", (), None),
        ("It is not (B).", (), None),
        ("A) 6\nB) 12\nC) 18", (), None),
        ("A car needs 3 hours, so we need a train.", (), None),
        ("I have no idea.", (), None),
        ("P(A) = 1/2 and f(b) = 3", (), None),
        ("Points A, B and C lie on a line.", (), None),
        ("so vitamin C", (), None),
        ("The vectors ⟨A⟩ and ⟨x⟩ are unlike.", (), None),
        ("", (), None),
    ],
    "corrections, denials, other people's answers": [
        ("I choose C) 18. Wait, actually it should be D) 21.", (), "D"),
        ("The answer is (B)... wait, no, (D).", (), "D"),
        ("Correct answer: D\nIncorrect answer: A", (), "D"),
        ("The correct answer is C. A common wrong answer is A.", (), "C"),
        ("So it is (C).\nNote: if the speed were doubled the answer would be (E).", (), "C"),
        ("Some people say the answer is B.", (), None),
        ("The answer is C. Wait, let me check.", (), None),
        ("If the answer is C, then x = 3.", (), None),
        ("Is the answer C?", (), None),
        ("The answer is A, which is wrong.", (), None),
        ("Choose the correct answer: A) 12 B) 15 C) 18", (), None),
        ("The correct answer is C, but the answer key incorrectly says the answer is A.", (), "C"),
        ("Plan B is the answer.", (), None),
    ],
    "languages": [
        ("Die richtige Antwort ist C.", (), "C"),
        ("Antwort: B", (), "B"),
        ("La bonne réponse est (D).", (), "D"),
        ("Jawaban: B", (), "B"),
        ("Jawaban yang benar adalah B.", (), "B"),
        ("答案是D", (), "D"),
        ("故选：B", (), "B"),
        ("Ｂ", (), "B"),
        ("正解はBです。", (), "B"),
        ("La respuesta correcta es la B.", (), "B"),
        ("La opción correcta es A.", (), "A"),
        ("A resposta correta é a letra D.", (), "D"),
        ("La réponse correcte est la lettre B.", (), "B"),
        ("Antwort B ist richtig.", (), "B"),
        ("本题选D", (), "D"),
        ("正确选项为 C。", (), "C"),
        ("選択肢Bが正しいです。", (), "B"),
        ("答案：C。A和B都不对。", (), "C"),
    ],
    "thoughts": [("<think>\n\\boxed{B}, the answer is B\n</think>\n\nAnswer: C", (), "C")],
}


@pytest.mark.parametrize(("text", "options", "answer"), [row for rows in CHOICES.values() for row in rows])
def test_letter_is_found_in_text(text, options, answer):
    """The letter that a text concludes with is found, also by the words of its option. A text in doubt has no
    answer."""
    assert extract_answer(text, "choice", options) == answer


@pytest.mark.parametrize(
    ("text", "answer"), [("C. Because A is", None), ("The answer is (C).\nFor", "C"), ("So it is (C", None)]
)
def test_cut_off_text_has_only_a_concluded_answer(text, answer):
    """A text that was cut off has an answer only in a box or behind a mark."""
    assert extract_answer(text, "choice", finished=False) == answer


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
    pieces += ["not ", " or ", " correct", "Answer: ", "####", "#", "\n> ", "C) ", "\ud800", "\0", "½", "none of "]
    found = 0
    for _ in range(1000):
        text = "".join(rng.choices(pieces, k=rng.randrange(40)))
        answer = extract_answer(text, "choice", rng.choice([(), NUMBERS, DATES]))
        found += answer is not None
        assert answer is None or answer in "ABCDEFGHIJ", repr(text)
    assert 50 < found < 950


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
