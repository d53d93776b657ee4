"""What answers/ promises of numbers: found in what models write, equal by their exact value."""

import random

import pytest

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import group_answers, vote

NUMBERS = [
    # the last box
    (r"She sells 16 - 3 - 4 = 9 eggs, so \boxed{18}.", "18"),
    (r"First guess \boxed{17}. Checking again, it is \boxed{18}.", "18"),
    (r"The answer is 20 before tax, so \boxed{18} it is, 3 less.", "18"),
    ("**Final answer**\n\\[ \\boxed {42} \\] in 3 steps", "42"),
    (r"\boxed{x = 5}", "5"),
    (r"\boxed{18 \text{ eggs}}", "18"),
    (r"\boxed{\text{Janet makes } \$18}", "18"),
    (r"\boxed{\$1{,}250.50}", "1250.5"),
    (r"\boxed{70\,000}", "70000"),
    (r"\boxed{70,\!000 \text{ dollars}}", "70000"),
    (r"\boxed{16 - 7 = 9}", "9"),
    (r"\boxed{\boxed{12}}", "12"),
    (r"\boxed{\textbf{12}}", "12"),
    (r"\boxed{20\text{ cm}^2}", "20"),
    (r"\boxed{20\,\mathrm{m}^{2}}", "20"),
    (r"The angle is \boxed{90^\circ}.", "90"),
    (r"\boxed{\{12\}} of 30", "12"),
    (r"\boxed{18}, since \sqrt{81} = 9", "18"),
    (r"\boxed{-\$18}", "-18"),
    (r"\boxed{\text{Change: }-3}", "-3"),
    (r"\boxed{x^{2} = 49}", "49"),
    (r"So $\boxed{\frac{3}{4}}$ of it is left.", "3/4"),
    (r"\boxed{-\dfrac{6}{8}}", "-3/4"),
    (r"\boxed{- \frac{1}{2}}", "-1/2"),
    (r"\boxed{\frac{-3}{4}}", "-3/4"),
    (r"\boxed{\frac34}", "3/4"),
    (r"\boxed{2\frac{1}{2}} hours", "5/2"),
    (r"\boxed{\frac{12}{4}}", "3"),
    (r"\boxed{50\%}", "50"),
    (r"\boxed{3 \times 10^{8}} metres per second", "300000000"),
    # a box that is empty, wordless of numbers, or cut off is no box
    (r"\boxed{} The answer is 18.", "18"),
    (r"The answer is 18. \boxed{\text{eggs}}", "18"),
    (r"We get 9 * 2 = \boxed{18", "18"),
    (r"It is \boxed{18}. Let me check: \boxed{1", "18"),
    (r"It is \boxed{\frac{3}{4} of the 8 slices", "8"),
    (r"stray } brace, then \boxed{7} and 3 more", "7"),
    ("a stray 3 } brace, then 7 more", "7"),
    # after "answer is" and its like
    ("The answer is 18. It took me 2 steps.", "18"),
    ("the answer is: $18.\nI hope this helps, all 3 of you!", "18"),
    ("The final answer is 9 * 2 = 18. There were 2 factors.", "18"),
    ("The answer is that Janet makes $18 every day.", "18"),
    ("The answer is 5... no, wait. The answer is 3 + 4 = 7 then. It took 2 tries.", "7"),
    ("The answer is 4 * 2.5 = 10.5. No: 10.", "10.5"),
    ("Answer: 18\nExplanation: 3 eggs are eaten.", "18"),
    ("**Answer:** 18 dollars\n\n(2 per egg)", "18"),
    ("**Answer**: **$18**. That is 2 per egg.", "18"),
    ("Answer = 18\n(2 per egg)", "18"),
    (r"Answer: \textbf{18}. It took 2 tries.", "18"),
    ("The answer is 18. The answer isn't 20, as some say.", "18"),
    ("The answer is 18. It took 2 tries. I am sure that my answer is right.", "18"),
    ("ANSWER IS 18! 100% sure.", "18"),
    ("Answer: She sells 9 eggs. She makes 9 * 2 = $18.", "18"),
    ("The answer is eighteen.", None),
    ("She has 18 eggs. The answer is as above.", "18"),
    ("The answer is -3.\nThat is 3 below zero.", "-3"),
    ("16 - 3 - 4 = <<16-3-4=9>>9 eggs\n9 * 2 = $<<9*2=18>>18\n#### 18", "18"),
    ("#### 1,450,000\n\nQuestion: Tom has 3 cats.", "1450000"),
    ("#### **$18** per day\nThat took 2 steps.", "18"),
    ("The answer is 18.\n#### Step 2: check\nIt is right.", "18"),
    ("The answer is 18.\n#### Check\nShe has 3 left.", "18"),
    ("The answer is 18.\n#### 2. A check\nIt is right.", "18"),
    # else the last number
    ("16-3=13", "13"),
    ("So 16 - 3 = 13 eggs are left", "13"),
    ("There are 3, 4 and 5 of them.", "5"),
    ("She ate 2/3 of 9", "9"),
    ("He saves 3/4", "3/4"),
    ("48/2", "24"),
    ("She needs 2 1/2 cups", "5/2"),
    ("Add ¾ of a cup", "3/4"),
    ("That is 2½ cups", "5/2"),
    ("It weighs 3⁄4 pounds", "3/4"),
    ("In total it costs $1,000,000.", "1000000"),
    ("It comes to ₹1,00,000.", "100000"),
    ("(1,2,3)", "3"),
    ("The town has 12\u202f500 people", "12500"),
    ("She makes $18.00.", "18"),
    ("It costs $.50", "0.5"),
    ("Total:...18", "18"),
    ("He pays US$20", "20"),
    ("The rest is Rs.500", "500"),
    ("The rest is USD20", "20"),
    ("The change is -Rs. 20", "-20"),
    ("(1,2345)", "2345"),
    ("The list is -7 9/3", "3"),
    ("That leaves €3,50", "50"),
    ("It is 18.", "18"),
    ("It is 18.0", "18"),
    ("007 is his number, James", "7"),
    ("It falls to -5 degrees", "-5"),
    ("It falls to −5 degrees", "-5"),
    ("The change is -$1,200.50", "-1200.5"),
    ("The change is $-5", "-5"),
    ("So x = - 3", "-3"),
    ("We get:\n- 3 apples", "3"),
    ("pages 5-3", "3"),
    ("between 50%-60%", "60"),
    ("f(2)-3", "3"),
    ("Her score is +12", "12"),
    ("Net change: -0", "0"),
    ("It grew by 12.5%", "12.5"),
    ("That is about 1e3 metres", "1000"),
    ("That is 2.5E-3 metres", "0.0025"),
    ("The light needs 3 x 10^2 seconds", "300"),
    ("$2^{10}$ times nothing, so x = 2", "2"),
    ("The area is 20 cm^2", "20"),
    ("It has 18 parts of CO2", "18"),
    ("We found 18 for x_1", "18"),
    ("The weight is _18_", "18"),
    ("答案是-18个", "-18"),
    ("答案是１８", "18"),
    ("We met on 12/25/2024", "2024"),
    ("Version 1.2.3", "1.2"),
    ("18kg", "18"),
    ("She has 9 * 2 = 18 eggs, see Step 2.", "18"),
    ("1. She has 16 eggs.\n2. She sells 9.\n3) So she makes eighteen dollars.", "9"),
    ("the total is\n18.", "18"),
    ("3/0", None),
    ("I do not know.", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), NUMBERS)
def test_number_is_found_in_text(text, answer):
    """The number that a text ends up with is found: in the last box, else after "answer is" and its like, else the last
    one."""
    assert extract_answer(text, "number") == answer


def test_overlong_numbers_are_no_answers():
    """A number of more than 100 characters is no answer."""
    assert extract_answer("1" * 100, "number") == "1" * 100
    for text in ("1" * 101, "1/" + "3" * 5000, "12e99", "1e999", "1e-999", "3 x 10^{999}", "1e" + "9" * 50):
        assert extract_answer(text, "number") is None


def test_numbers_list_has_eighty_texts():
    """The list of texts above has at least 80 different ones."""
    assert len({text for text, _ in NUMBERS}) >= 80


@pytest.mark.parametrize("answer", sorted({answer for _, answer in NUMBERS if answer}))
def test_canonical_numbers_stay_as_they_are(answer):
    """A number in canonical form is its own answer."""
    assert extract_answer(answer, "number") == answer


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("18", "18.0", True),
        (".5", "0.5", True),
        ("3/4", "0.75", True),
        ("6/8", "3/4", True),
        ("-1/2", "-0.5", True),
        ("1,000", "1000", True),
        ("$1,000.00", "1e3", True),
        ("50%", "50", True),
        ("-0", "0", True),
        ("0.1", "1/10", True),
        ("18", "-18", False),
        ("1/3", "0.33", False),
        ("0.5", "50", False),
        ("12345678901234567890", "12345678901234567891", False),
        ("0.30000000000000001", "0.3", False),
        ("eggs", "eggs", False),
        (None, None, False),
        ("18", None, False),
    ],
)
def test_numbers_are_equal_by_exact_value(a, b, equal):
    """Two numbers are equal if their exact values are, in either order. No answer equals nothing."""
    assert answers_equal(a, b, "number") is equal
    assert answers_equal(b, a, "number") is equal


def test_unknown_answer_types_are_refused():
    """An unknown answer type is an error that names it and lists the known ones."""
    for call in (
        lambda: extract_answer("18", "numbers"),
        lambda: answers_equal("18", "18", "numbers"),
        lambda: vote(["18"], "numbers"),
        lambda: group_answers([], "numbers"),
    ):
        with pytest.raises(ValueError, match="'numbers': one of number, choice, boolean, latex"):
            call()


def test_number_extraction_survives_random_strings():
    """No random string crashes the search for a number, and what is found is in canonical form and equal to itself."""
    rng = random.Random(0)
    pieces = [
        *"0123456789.,-−+/$%{}()^_*#=\n \t",
        "\\",
        "\\boxed{",
        "\\frac",
        "\\frac{",
        "\\text{",
        "answer is",
        "####",
    ]
    pieces += [
        "\\,",
        "e",
        "x",
        "½",
        "１",
        "٣",
        "²",
        "𝟗",
        "\u202f",
        "\ud800",
        "\0",
        "Rs.",
        "Step 2",
        "1,000",
        "3/4",
        "\\{",
    ]
    found = 0
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randrange(40)))
        answer = extract_answer(text, "number")
        if answer is not None:
            found += 1
            assert extract_answer(answer, "number") == answer, repr(text)
            assert answers_equal(answer, answer, "number"), repr(text)
    assert found > 1500  # else the strings try too little
