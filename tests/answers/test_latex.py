"""What answers_latex.py promises: formulas found and cleaned, equality in either order, never a crash or a wait."""

import cmath
import itertools
import logging
import math
import random
import subprocess
import sys

import pytest
from helpers import ENVIRONMENT, PROGRAMS, ROOT

from lta_thinker.answers import answers_equal, extract_answer, latex, verifier
from lta_thinker.answers.votes import group_answers, vote

FORMULAS = [
    # the last box
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"So $\boxed{\dfrac{3}{4}}$.", r"\frac{3}{4}"),
    (r"\boxed{\tfrac34.}", r"\frac{3}{4}"),
    (r"\boxed{17}. Let me check: \boxed{18}", "18"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\boxed{\boxed{x = 5}}", "x = 5"),
    (r"\boxed{$5$}", "5"),
    (r"\boxed{\(5\)}", "5"),
    (r"\[ \boxed{x = 5} \]", "x = 5"),
    (r"\boxed{\text{Evelyn}}", "Evelyn"),
    (r"\boxed{\text{ no solution.}}", "no solution"),
    (r"\boxed{\textbf{(C)}}", "(C)"),
    (r"\boxed{\left(0,\infty\right)}", r"(0,\infty)"),
    (r"\boxed{\left[0, 1\right)}", "[0, 1)"),
    (r"\boxed{\left\{1,2\right\}}", r"\{1,2\}"),
    (r"\boxed{1{,}000}", "1000"),
    (r"\boxed{1,000,000}", "1000000"),
    (r"\boxed{12\,500}", "12500"),
    (r"\boxed{12\!500}", "12500"),
    (r"\boxed{(1,000)}", "(1,000)"),
    (r"\boxed{5\text{ cm}}", r"5\text{ cm}"),
    (r"\boxed{5\,\mathrm{cm}^{2}}", r"5 \text{cm}^{2}"),
    (r"\boxed{3.5 \text{ hours}}", r"3.5 \text{ hours}"),
    (r"\boxed{18 dollars}", "18 dollars"),
    (r"\boxed{2\pi \text{ radians}}", r"2\pi \text{ radians}"),
    (r"\boxed{\$18.50}", "18.50"),
    (r"\boxed{50\%}", r"50\%"),
    (r"\boxed{50%}", r"50\%"),
    (r"\boxed{90^\circ}", "90"),
    (r"\boxed{90^{\circ}}", "90"),
    (r"\boxed{90°}", "90"),
    (r"\boxed{9 \cdot 2 = 18}", "18"),
    (r"\boxed{16 - 7 = 9}", "9"),
    (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}"),
    (r"\boxed{√(3)/2}", r"\sqrt{3}/2"),
    (r"\boxed{sqrt(3)}", r"\sqrt{3}"),
    (r"\boxed{3π}", r"3\pi"),
    (r"\boxed{−3}", "-3"),
    (r"\boxed{x \leq 3}", r"x \le 3"),
    (r"\boxed{(-\infty, 2) ∪ (3, ∞)}", r"(-\infty, 2) \cup (3, \infty)"),
    (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\boxed{\left[\begin{array}{cc}1&2\\3&4\end{array}\right]}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\boxed{\begin{bmatrix}1&2\\3&4\end{bmatrix}}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\boxed{25_8}", "25_8"),
    (r"\boxed{x^2 + 2x + 1}", "x^2 + 2x + 1"),
    (r"\boxed{5 \text{ or } 6}", r"5 \text{ or } 6"),
    (r"\boxed{3+4i}", "3+4i"),
    # no box, or none that holds anything
    (r"\boxed{} The answer is $3$.", "3"),
    (r"\boxed{\text{}} so $x = 3$", "x = 3"),
    (r"\boxed{{}} so $x = 3$", "x = 3"),
    (r"We get \boxed{\frac{1}{2", "2"),
    # after a mark
    (r"The answer is $\frac34$.", r"\frac{3}{4}"),
    (r"The final answer is: $x = 5$. I hope it is correct, all $3$ of you.", "x = 5"),
    (r"The answer is $x=1$ and $x=2$.", "x=1, x=2"),
    (r"The answer is $3$, $5$ or $7$.", "3, 5, 7"),
    (r"The answer is clearly $\sqrt{2}$, as said.", r"\sqrt{2}"),
    (r"Answer: \(\sqrt{2}\)", r"\sqrt{2}"),
    (r"**Answer:** $$\frac{\pi}{2}$$", r"\frac{\pi}{2}"),
    ("The answer is 3/4.", "3/4"),
    ("The answer is 2.5 metres.", "2.5 metres"),
    (r"\boxed{12 xy}", "12 xy"),
    (r"\boxed{10 am}", "10 am"),
    (r"\boxed{12 million}", "12 million"),
    (r"\boxed{3\sqrt13}", r"3\sqrt{13}"),
    ("The answer is Evelyn.", "Evelyn"),
    ("The answer is **Evelyn**.", "Evelyn"),
    ("Answer: (3, 4)\nThat is on the line $y = x + 1$.", "(3, 4)"),
    ("#### 42", "42"),
    ("The answer is that nobody has ever found out what it is. So $x = 3$ then.", "x = 3"),
    # else the last formula, else the last number
    (r"So \[ x = 2 \] and that is all.", "x = 2"),
    (r"Thus $a^2 = 9$, so $a=\pm 3$.", r"a=\pm 3"),
    (r"Thus \(b\) is $$ b = 7. $$", "b = 7"),
    ("So 3 + 4 = 7", "7"),
    ("It costs 5 dollars", "5"),
    ("I do not know.", None),
    ("$", None),
    ("$$$$", None),
    ("", None),
    (r"\boxed{" + "1+" * 400 + "1}", "1"),
]

EQUAL = [
    (r"\frac{1}{2}", "0.5"),
    ("1/2", r"\frac{1}{2}"),
    (r"\frac{-1}{2}", r"-\frac{1}{2}"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"),
    (r"\sqrt{8}", r"2\sqrt2"),
    (r"\sqrt{12}", "2 \\sqrt{3}"),
    (r"2\frac{1}{2}", "2.5"),
    ("12.0", "12"),
    ("007", "7"),
    ("1,000", "1000"),
    (r"50\%", "50"),
    ("90", r"90^\circ"),
    ("x=5", "5"),
    ("x = 5", "x=5"),
    ("y=2x+3", "2x+3"),
    ("y=2x+3", "2x+3=y"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\frac{x+1}{2}", "0.5x+0.5"),
    (r"2\pi r", r"2 \pi r"),
    (r"\pi", "3.141593"),
    ("10^{5}", "100000"),
    ("2^{10}", "1024"),
    (r"1.5\times10^3", "1500"),
    ("5!", "120"),
    (r"\log_2 8", "3"),
    ("25_8", "25_{8}"),
    ("(1,2)", "(1, 2)"),
    ("(x,y)=(1,2)", "(1,2)"),
    ("1,2", "2,1"),
    ("1,1,2", "1,2,1"),
    (r"\{1,1\}", "1, 1"),
    (r"\{1,2\}", "2,1"),
    ("x=1, x=2", "1,2"),
    (r"x=1\text{ or }x=2", "1,2"),
    (r"3 \pm \sqrt2", r"3+\sqrt2,3-\sqrt2"),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"),
    ("x<2", r"(-\infty,2)"),
    (r"-2\le x\le 7", "[-2,7]"),
    (r"x \in [1,2]", "[1,2]"),
    ("3+4i", "4i+3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\begin{pmatrix}\frac12\\2\end{pmatrix}", r"\begin{pmatrix}0.5\\2\end{pmatrix}"),
    ("Evelyn", "evelyn"),
    ("No solution", "no solution"),
    ("(C)", "C"),
    (r"5\text{ cm}", "5"),
    (r"5\text{ cm}", "5 centimeters"),
    (r"5 \text{cm}^{2}", r"5\text{ square centimetres}"),
    (r"5\text{ units}", r"5\text{ feet}"),
    ("7 m/s", "7"),
    ("7 m/s", r"7 \text{ meters per second}"),
    ("7 km/h", r"7\text{ kilometers per hour}"),
    (r"120 °C", "120"),
    ("18 dollars", "18"),
    (r"50\%", "50 percent"),
    ("x=5", "y=5"),
    ("x+y=3", "3=x+y"),
    ("x+y=3", "y+x-3=0"),
    ("f(x)=x^2", "f(x)=xx"),
    (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"3 \text{ and } 4", "3,4"),
    ("3 and 4", "4, 3"),
    (r"x=1\text{ or }x=2", "x=2, x=1"),
    ("x=1, y=2", "y=2, x=1"),
    ("(3,4),(1,2)", "(1, 2) and (3, 4)"),
    ("1,000, 2,000", "2000, 1000"),
    (r"\binom{5}{2}", "10"),
    ("5 eggs", r"5\text{ eggs}"),
    (r"\frac{1}{2}\text{ of the eggs}", "0.5"),
    ("18", r"18\text{ eggs}"),
    ("0.50", r"\frac{2}{4}"),
    ("theta", "Theta"),
]
UNEQUAL = [
    ("17", "18"),
    ("1/2", "-1/2"),
    ("1/3", "0.33"),
    (r"\pi", "3.14"),
    ("12345678901234567890123", "12345678901234567890124"),
    ("x=5", "x=6"),
    ("y=2x+1", "y=2x+2"),
    ("p-q", "q-p"),
    (r"10\%", "100"),
    ("25_8", "25_9"),
    ("(1,2)", "[1,2]"),
    ("[1,2)", "(1,2]"),
    ("(1,2)", "(2,1)"),
    ("5,6,7", "5,6"),
    ("1,1", "1,2"),
    ("1,1,2", "1,2,2"),
    (r"\{1,1\}", r"\{1,2\}"),
    (r"\{1,1\}", r"\{1\}"),
    (r"10^{-7}", r"2\cdot10^{-7}"),
    (r"\frac{\pi}{10^{9}}", r"\frac{\pi}{10^{9}}+10^{-14}"),
    (r"\sqrt{2}\cdot10^{-8}", "0"),
    ("6,7", "6.7"),
    ("x<2", "x>2"),
    ("x<2", r"x\le 2"),
    (r"\infty", r"-\infty"),
    ("0", r"\emptyset"),
    ("3+4i", "3-4i"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    ("east", "seat"),
    ("Evelyn", "Alice"),
    ("(C)", "D"),
    (r"\frac{1}{", r"\frac{1}{2}"),
    ("|x|", "x"),
    ("12 xy", "12"),
    ("7 ab", "7"),
    ("12 m", "12"),
    ("10 am", "10 pm"),
    ("5:30 p.m", "5:30 a.m"),
    (r"5:30 \text{ p.m}", r"5:30 \text{ a.m}"),
    ("5 north", "5 south"),
    ("3 red", "3 blue"),
    ("3 red", "3"),
    ("12 million", "12"),
    ("12", r"12\text{ million}"),
    ("10", r"10\text{ a.m.}"),
    (r"18\text{ eggs}", r"18\text{ hens}"),
    (r"5\text{ feet}", r"5\text{ inches}"),
    ("5 cm", r"5\text{ cm}^2"),
    ("7 m/s", "7 km/h"),
    (r"120 °C", "120 °F"),
    ("f(3)=4", "f(2)=4"),
    ("f(3)=4", "4"),
    ("f(x)=x^2", "x^2"),
    ("x+y=3", "3"),
    ("x=1, y=2", "x=2, y=1"),
    ("x=1, y=2", "1, 2"),
    ("(6,9)", "6,9"),
    ("(2,3)", r"\{2,3\}"),
    ("[2,3]", "2,3"),
    ("100, 200", "100200"),
    ("100, 200", "100,200"),
    ("P", "p"),
    ("A", "a"),
    ("x=P", "x=p"),
    ("0.0000001", "0.0000002"),
    ("1/3", "0.333333"),
    (r"50\%", "0.5"),
    (r"50\%", r"\frac{1}{2}"),
    ("11", "11_3"),
    ("25_8", "25"),
    ("2^{64}", "18446744073709551617"),
]


@pytest.mark.parametrize(("text", "answer"), FORMULAS)
def test_formula_is_found_and_cleaned(text, answer):
    """The formula that a text ends up with is found and cleaned: in the last box, else after a mark, else the last
    one."""
    assert extract_answer(text, "latex") == answer


@pytest.mark.parametrize("answer", sorted({answer for _, answer in FORMULAS if answer}))
def test_canonical_formulas_stay_as_they_are(answer):
    """A cleaned formula in a box is its own answer."""
    assert extract_answer(rf"\boxed{{{answer}}}", "latex") == answer


@pytest.mark.parametrize(("a", "b", "equal"), [(*pair, True) for pair in EQUAL] + [(*pair, False) for pair in UNEQUAL])
def test_formula_equality_is_mathematical_and_symmetric(a, b, equal):
    """Formulas are equal if they mean the same, in either order."""
    assert answers_equal(a, b, "latex") is equal
    assert answers_equal(b, a, "latex") is equal


@pytest.mark.parametrize(
    ("answers", "groups"),
    [(["5", "x=5", "y=5"], 1), ([r"50\%", "50", "0.5"], 2), (["1/3", "0.333333", r"\frac{2}{6}"], 2)],
)
def test_answer_groups_ignore_sample_order(answers, groups):
    """The number of groups of equal answers is the same in any order of the samples."""
    for order in itertools.permutations(answers):
        assert len(set(group_answers(list(order), "latex"))) == groups, order


def test_different_numbers_need_no_library(monkeypatch):
    """Formulas with different values are told apart by our own arithmetic: the second process is not asked."""
    formulas = [
        "3",
        "0.125",
        r"\frac{7}{12}",
        r"\sqrt{2}",
        r"2\sqrt{3}",
        r"\frac{\sqrt{5}}{2}",
        r"\sqrt[3]{9}",
        r"1+\pi",
    ]
    formulas += ["x^2", "2x+3", "(x+1)^2", "9^{9^{9^{9}}}", "100000000!", r"\binom{10000000}{5000000}"]
    monkeypatch.delattr(verifier, "_compared")
    assert group_answers(formulas, "latex") == list(range(len(formulas)))


VALUES = {
    "12.5": 12.5,
    "2-5": -3,
    "2--5+1": 8,
    "-3+-2": -5,
    r"-\frac{1}{4}": -0.25,
    r"\frac{1}{2}-\frac{3}{4}": -0.25,
    "2(3+4)": 14,
    r"3\cdot2^3": 24,
    "2^{3-1}": 4,
    "2^{-1}": 0.5,
    "3!": 6,
    "0!+4!": 25,
    r"12\div4\times5": 15,
    "12/4": 3,
    r"\sqrt{16}": 4,
    r"\sqrt{-4}": 2j,
    r"\sqrt[3]{-8}": -2,
    r"\sqrt[3]{27}": 3,
    r"\sqrt[4]{16}": 2,
    r"\sqrt[5]{-32}": -2,
    r"\sqrt[4]{-4}": 1 + 1j,
    r"\sqrt[3]{8i}": 3**0.5 + 1j,
    r"\binom{6}{2}": 15,
    r"\left(1+i\right)^2": 2j,
    r"2\pi": 2 * math.pi,
    "e^{2}": math.exp(2),
    "9^{9^{9}}": math.inf,
}
NO_VALUES = ["", "2^-1", "1/2x", r"2\frac{1}{2}", "1/0", r"\sin(1)", "(1", "1)", r"\frac12", "^2", "3+", "2^", "1<2"]


@pytest.mark.parametrize("formula", VALUES)
def test_own_reader_knows_a_formulas_value(formula):
    """What our own arithmetic makes of a formula is its value: by it most pairs are told apart."""
    value = latex._value(formula)
    assert value is not None and (value == VALUES[formula] or cmath.isclose(value, VALUES[formula]))


@pytest.mark.parametrize("formula", NO_VALUES)
def test_own_reader_leaves_what_it_does_not_know(formula):
    """What may be read in two ways, and what is no formula, has no value here: the library decides."""
    assert latex._value(formula) is None


def test_equal_formulas_vote_together():
    """Equal formulas vote together, and the winner is spelt as it was first seen."""
    assert group_answers([r"\frac{1}{2}", "2", None, "0.5", "1/2"], "latex") == [0, 1, None, 0, 0]
    assert vote(["2", r"\frac{1}{2}", None, "0.5"], "latex").answer == r"\frac{1}{2}"
    assert answers_equal(None, "2", "latex") is False


@pytest.mark.parametrize(
    "monster",
    [
        "9^{9^{9^{9}}}",
        "100000000!",
        r"\binom{10000000}{5000000}",
        "{" * 200 + "}" * 200,
        r"\frac{" * 80,
        r"\sqrt{" * 83,
    ],
)
def test_huge_formulas_are_unequal(monster, caplog):
    """Comparing a formula that is huge or broken ends, as unequal and without a warning."""
    assert answers_equal(monster, "5", "latex") is False
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_latex_survives_random_strings():
    """No random string crashes the search for a formula or the comparison, which is the same in either order."""
    rng = random.Random(0)
    pieces = [*"0123456789xyzi+-*/^_=<>(){}[]|,.!%$&° ", "\\", "\\\\", "\\frac{", "\\sqrt", "\\text{", "\\pi"]
    pieces += [
        "\\infty",
        "\\boxed{",
        "\\left(",
        "\\begin{pmatrix}",
        "\\sum_",
        "\\int",
        "\ud800",
        "\0",
        "½",
        "answer is ",
        "####",
    ]
    found = 0
    for _ in range(1000):
        text = "".join(rng.choices(pieces, k=rng.randrange(30)))
        answer = extract_answer(rf"\boxed{{{text}}}" if rng.random() < 0.5 else text, "latex")
        found += answer is not None
    assert 300 < found < 1000
    for _ in range(60):
        a, b = ("".join(rng.choices(pieces, k=rng.randrange(1, 10))) for _ in range(2))
        assert answers_equal(a, b, "latex") is answers_equal(b, a, "latex"), (a, b)


def test_importing_answers_imports_no_sympy():
    """Importing the answers and finding a formula does not import sympy."""
    command = [sys.executable, str(PROGRAMS / "answers_without_sympy.py")]
    assert subprocess.run(command, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}).returncode == 0
