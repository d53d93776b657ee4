"""What answers/ promises of numbers: found in what models write, equal by their exact value."""

import random

import pytest

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import group_answers, vote

NUMBERS = {
    "boxes": [
        (r"She sells 16 - 3 - 4 = 9 eggs, so \boxed{18}.", "18"),
        (r"First guess \boxed{17}. Checking again, it is \boxed{18}.", "18"),
        (r"The answer is 20 before tax, so \boxed{18} it is, 3 less.", "18"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{\text{Janet makes } \$18}", "18"),
        (r"\boxed{\$1{,}250.50}", "1250.5"),
        (r"\boxed{70\,000}", "70000"),
        (r"\boxed{70,\!000 \text{ dollars}}", "70000"),
        (r"\boxed{\boxed{12}}", "12"),
        (r"\boxed{20\text{ cm}^2}", "20"),
        (r"\boxed{-\$18}", "-18"),
        (r"The angle is \boxed{90^{\circ}}.", "90"),
        (r"\boxed{\text{Change: }-3}", "-3"),
        (r"So $\boxed{\frac{3}{4}}$ of it is left.", "0.75"),
        (r"\boxed{\frac34}", "0.75"),
        (r"\boxed{2\frac{1}{2}} hours", "2.5"),
        (r"\boxed{\frac{2}{6}}", "1/3"),
        (r"\boxed{50\%}", "50"),
        (r"\boxed{} The answer is 18.", "18"),
        (r"The answer is 18. \boxed{\text{eggs}}", "18"),
        (r"We get 9 * 2 = \boxed{18", "18"),
        (r"\boxed{3}, \boxed{5}", None),
        (r"\boxed{6} is the speed.\n\n**Final Answer:** 12".replace("\\n", "\n"), "12"),
    ],
    "signs and parts in words": [
        ("The temperature falls to minus 8 degrees.", "-8"),
        ("The answer is negative four.", "-4"),
        ("The profit is negative $20.", "-20"),
        ("That is 12 minus 5, so 7.", "7"),
        ("The answer is one half.", "0.5"),
        ("The answer is two-thirds.", "2/3"),
        ("The answer is three and a half.", "3.5"),
    ],
    "arithmetic": [
        (r"\boxed{2^6}", "64"),
        (r"\boxed{\sqrt{49}}", "7"),
        (r"\boxed{7 \cdot 3}", "21"),
        (r"\boxed{4!}", "24"),
        (r"\boxed{3 \times 10^{8}} metres per second", "300000000"),
        (r"\boxed{66.\overline{6}}", "200/3"),
        (r"\boxed{16 - 7 = 9}", "9"),
        (r"Answer: \frac{9}{2} = 4.5", "4.5"),
        (r"\boxed{9^{9^{9}}}", None),
        (r"\boxed{5^{1/2}}", None),
    ],
    "marks": [
        ("The answer is 18. It took me 2 steps.", "18"),
        ("The answer is 5!", "5"),  # of a sentence; a factorial stands in a box, or before something
        ("#### 12!", "12"),
        ("**Answer: 7!**", "7"),
        ("The answer is 18! Great job.", "18"),
        ("The total is 3 + 4 = 7!", "7"),
        ("So there are 18 eggs. The answer is 18!! \U0001f389", "18"),
        ("The answer is 18!\n\nI hope this helps", "18"),
        (r"\boxed{5!}", "120"),
        (r"The answer is \boxed{5}!", "5"),
        ("There are 5! = 120 ways.", "120"),
        ("The final answer is 9 * 2 = 18. There were 2 factors.", "18"),
        ("The answer is that Janet makes $18 every day.", "18"),
        ("The answer is 5... no, wait. The answer is 3 + 4 = 7 then. It took 2 tries.", "7"),
        ("Answer: 18\nExplanation: 3 eggs are eaten.", "18"),
        ("The answer is 18. The answer isn't 20, as some say.", "18"),
        ("Answer: She sells 9 eggs. She makes 9 * 2 = $18.", "18"),
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs\n#### 18", "18"),
        ("#### 1,450,000\n\nQuestion: Tom has 3 cats.", "1450000"),
        ("The answer is 18.\n#### Step 2: check\nIt is right.", "18"),
        ("The answer is 18.\n#### Check\nShe has 3 left.", "18"),
        ('{"answer": 7}', "7"),
        ("<answer>\n7 (of 9)\n</answer>", "7"),
        ("Result: 30, from 25 + 5", "30"),
        ("Multiply by 100% to express the answer as a percentage: 3 / 8 * 100% = 37.5%, which rounds to 38%", "38"),
        ("The answer cannot be determined from 2 facts.", None),
    ],
    "text behind the answer": [
        ("**Answer:** 24 dollars (12 pens × $2)", "24"),
        ("there are **16 cats** (not 12)", "16"),
        ("Final answer: $24, because 12 × $2 = $24", "24"),
        ("She makes 24 dollars a day.\n\nLet me know if you have 2 more questions!", "24"),
        ("The answer is 24.<|im_end|>\n<|im_start|>user\nTom has 3 cats", "24"),
        ("Ans: 24 (12+12)", "24"),
    ],
    "conclusions": [
        ("16-3=13", "13"),
        ("So 16 - 3 = 13 eggs are left", "13"),
        ("She needs 2 1/2 cups", "2.5"),
        ("Add ¾ of a cup", "0.75"),
        ("It falls to −5 degrees", "-5"),
        ("The change is $-5", "-5"),
        ("The change is -Rs. 20", "-20"),
        ("We get:\n- 3 apples", "3"),
        ("Her score is +12", "12"),
        ("That is 2.5E-3 metres", "0.0025"),
        ("The area is 20 cm^2", "20"),
        ("It has 18 parts of CO2", "18"),
        ("18kg", "18"),
        ("She has 9 * 2 = 18 eggs, see Step 2.", "18"),
        ("1. She has 16 eggs.\n2. She sells 9.", "9"),
        ("There are 3, 4 and 5 of them.", None),
        ("between 50%-60%", None),
        ("3/0", None),
        ("I do not know.", None),
        ("", None),
    ],
    "several numbers in a sentence": [
        ("405 / 45 = 9.\nThus, they need 9 buses to transport all 405 students.", "9"),
        ("In those 3 days she made 30 × $15 = $450 in 3 shifts.", "450"),
        ("So the value of x when y = 4 is 11.", "11"),
        ("The answer is not 15 but 18.", "18"),
        ("In 2030, she will be 27 years old.", "27"),
        ("Therefore, out of the 50 students, 35 passed.", None),
        ("Answer: Natalia sold 48/2 = 24 clips in May. She sold 48+24 = 72 clips altogether.", "72"),
        ("Answer: She sells 9 eggs. Her sister sells 12.", None),
        (r"\boxed{5 \text{ hours } 30 \text{ minutes}}", None),
        ("The ratio is 3:5.", None),
        ("The total is 60 + 27 + 13 = 100.\nAfter spending $100 on 7 tickets she has $40 left.", None),
        ("The remainder when $7^{2023}$ is divided by $10$ is $3$.", "3"),
        ("The sum of the divisors of 28 is fifty-six.", "56"),
        ("I'm not sure.", None),
    ],
    "refusals": [
        ("I cannot determine this without knowing the price of 1 ticket.", None),
        ("There is not enough information about the 3 boxes.", None),
        ("He does not have enough: he is $5 short.", "5"),
        ("It cannot be said how many there are; 5 were counted.", None),
    ],
    "behind the answer": [
        ("So she has 8 pens.\n\nExplanation: 5 pens and 3 pens.", "8"),
        ("Let's see.\n\nExplanation: we add them.\nShe has 8 pens.", "8"),
        ("18\n\nQuestion: How many legs do 6 dogs have?\nAnswer: 24", "18"),
        ("So Carla earns **$510**.\n\n*Note:* Without Saturdays she would earn $450.", "510"),
    ],
    "separators": [
        ("Insgesamt zahlt er 1.250 Euro.", "1250"),
        ("Totalnya Rp 25.000.", "25000"),
        ("The rod is 1.250 inches long.", "1.25"),
        ("Er zahlt 17,80 €.", "17.8"),
        ("Das kostet 2.345,67 €.", "2345.67"),
        ("It has 2 500 000 inhabitants.", "2500000"),
        ("It has 2'500 inhabitants.", "2500"),
        ("The town has 12\u202f500 people", "12500"),
        ("It comes to ₹1,00,000.", "100000"),
        ("Es sind 1.234.567 Stück.", "1234567"),
    ],
    "words and scales": [
        ("The answer is seventeen.", "17"),
        (r"\boxed{thirty-five}", "35"),
        ("The answer is zero.", "0"),
        ("She has eleven pens left.", "11"),
        ("The answer is two hundred and six.", "206"),
        ("The answer is 70k.", "70000"),
        ("The answer is 5K views.", "5000"),
        ("The answer is $3M.", "3000000"),
        ("The answer is $1.5 million.", "1500000"),
    ],
    "languages": [
        ("Die Antwort ist 21.", "21"),
        ("La réponse est 21.", "21"),
        ("La respuesta es 21.", "21"),
        ("Jawabannya adalah 21.", "21"),
        ("答案是21。", "21"),
        ("答えは２１です。", "21"),
    ],
    "thoughts": [
        ("<think>\nIt is \\boxed{7}\n</think>\n\nShe has 8 left.", "8"),
        ("<think>\nThe answer is 17\n</think>\n**Answer:** 18", "18"),
    ],
}


@pytest.mark.parametrize(("text", "answer"), [pair for pairs in NUMBERS.values() for pair in pairs])
def test_number_is_found_in_text(text, answer):
    """The number that a text says is found, where it says one."""
    assert extract_answer(text, "number") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 16 eggs and sells 9", None),
        ("The answer is 1", None),
        ("The answer is 18. Wait, let me check", None),
        ("The answer is 18.\nThat is 2 a day, so", "18"),
        (r"So \boxed{18}. Let me check: 9 *", "18"),
        ("<think>\nSo \\boxed{18}. Hmm, wait, 9", None),
    ],
)
def test_cut_off_text_has_only_a_concluded_answer(text, answer):
    """A text that was cut off has an answer only where it has concluded one, and none while it thinks."""
    assert extract_answer(text, "number", finished=False) == answer


def test_overlong_numbers_are_no_answers():
    """A number of more than 100 characters is no answer."""
    assert extract_answer("1" * 100, "number") == "1" * 100
    for text in ("1" * 101, "1/" + "3" * 5000, "1e999", "1e-999", "1e" + "9" * 50):
        assert extract_answer(text, "number") is None


@pytest.mark.parametrize("answer", sorted({answer for pairs in NUMBERS.values() for _, answer in pairs if answer}))
def test_canonical_numbers_stay_as_they_are(answer):
    """A number in canonical form is its own answer."""
    assert extract_answer(answer, "number") == answer


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("18", "18.0", True),
        ("3/4", "0.75", True),
        ("-1/2", "-0.5", True),
        ("$1,000.00", "1e3", True),
        ("50%", "50", True),
        ("-0", "0", True),
        ("18", "-18", False),
        ("1/3", "0.33", False),
        ("0.5", "50", False),
        ("12345678901234567890", "12345678901234567891", False),
        ("eggs", "eggs", False),
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
    pieces = [*"0123456789.,-−+/$%{}()^_*#=\n \t", "\\", "\\boxed{", "\\frac{", "\\text{", "answer is", "####", "\\,"]
    pieces += [
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
        " million",
    ]
    found = 0
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randrange(40)))
        answer = extract_answer(text, "number")
        if answer is not None:
            found += 1
            assert extract_answer(answer, "number") == answer, repr(text)
            assert answers_equal(answer, answer, "number"), repr(text)
    assert found > 1000  # else the strings try too little
