"""What answers/ promises of formulas: found and cleaned, equality in either order, never a crash or a wait."""

import itertools
import logging
import random
import subprocess
import sys

import pytest
from helpers import ENVIRONMENT, PROGRAMS, ROOT

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import group_answers, vote

FORMULAS = {
    "boxes": [
        (r"So $\boxed{\dfrac{3}{4}}$.", r"\frac{3}{4}"),
        (r"\boxed{17}. Let me check: \boxed{18}", "18"),
        (r"\boxed{\boxed{x = 5}}", "x = 5"),
        (r"\boxed{\(5\)}", "5"),
        (r"\boxed{\text{ no solution.}}", "no solution"),
        (r"\boxed{\left[0, 1\right)}", "[0, 1)"),
        (r"\boxed{1{,}000}", "1000"),
        (r"\boxed{12\,500}", "12500"),
        (r"\boxed{(1,000)}", "(1,000)"),
        (r"\boxed{[-36,104]}", "[-36,104]"),
        (r"\boxed{1,250\text{ people}}", r"1250\text{ people}"),
        (r"\boxed{5\text{ cm}}", r"5\text{ cm}"),
        (r"\boxed{\$18.50}", "18.50"),
        (r"\boxed{90^{\circ}}", "90"),
        (r"\boxed{√(3)/2}", r"\sqrt{3}/2"),
        (r"\boxed{−3}", "-3"),
        (r"\boxed{3\sqrt13}", r"3\sqrt{13}"),
        (r"$x = \boxed{7}$ or $x = \boxed{-4}$", "7, -4"),
        (r"\boxed{2}, \boxed{4}, \boxed{9}", "2, 4, 9"),
        (r"\boxed{7}$$\boxed{7}", "7"),
        (r"\boxed{12} is the side.".replace("is", "is") + "\n\n**Final Answer:** $48$", "48"),
        (r"\boxed{\text{all even numbers that are no sum}}", "all even numbers that are no sum"),
        (r"\boxed{} The answer is $3$.", "3"),
        (r"\boxed{\text{}} so $x = 3$", "x = 3"),
    ],
    "marks": [
        (r"The final answer is: $x = 5$. I hope it is correct, all $3$ of you.", "x = 5"),
        (r"The answer is $3$, $5$ or $7$.", "3, 5, 7"),
        (r"The answer is clearly $\sqrt{2}$, as said.", r"\sqrt{2}"),
        (r"**Answer:** $$\frac{\pi}{2}$$", r"\frac{\pi}{2}"),
        ("Final Answer: The smallest $k$ is 21.", "21"),
        ("The answer is $\\frac{2}{5}$, which is about $0.4$.", r"\frac{2}{5}"),
        ("The answer is **Evelyn**.", "Evelyn"),
        ("Answer: (3, 4)\nThat is on the line $y = x + 1$.", "(3, 4)"),
        ("Answer: 12, which is the sum of $5$ and $7$.", "12"),
        ("Answer: 4 at $x = 2$", "4"),
        (
            "Answer: \\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}\nIt has 2 parts.",
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        ),
        ("#### 42", "42"),
        (r"<answer>\frac{5}{6}</answer>", r"\frac{5}{6}"),
        (r"答案：$\frac{1}{4}$。因为$x=2$。", r"\frac{1}{4}"),
    ],
    "conclusions without dollar signs": [
        ("The length of the diagonal is 5√2.", r"5\sqrt{2}"),
        ("The area of the circle is 16π.", r"16\pi"),
        ("The equation of the line is y = -x + 4.", "y = -x + 4"),
        ("Simplified form: x^2 - 4x + 4", "x^2 - 4x + 4"),
        ("Intersection point: (2, -3)", "(2, -3)"),
        ("So she has 18 dollars (9 eggs).", "18"),
    ],
    "conclusions": [
        (r"So \[ x = 2 \] and that is all.", "x = 2"),
        (r"Since $n = 3$, there are 7 ways.", "7"),
        (r"So $g(x)$ has **4** roots.", "4"),
        ("So 3 + 4 = 7", "7"),
        ("The greatest value of $f$ is $9$ at $x=-1$.", "9"),
        ("Thus there are $8$ numbers in $[1, 50]$.", "8"),
        ("Hence $g(x) = x^3$ for all $x$.", "g(x) = x^3"),
        ("Therefore, the count is as follows: $4! + 6$.", "4!+6"),
        ("Hence it equals \\( 6! = 720 \\).", "6!=720"),
        ("Hence:\n\\[\n\\frac{\\pi}{3}\n\\]", r"\frac{\pi}{3}"),
        ("I do not know.", None),
        ("$$$$", None),
        ("", None),
    ],
    "thoughts": [("<think>\n\\boxed{7}\n</think>\n\n**Answer:** 8", "8")],
}
GOLDS = (  # as a benchmark writes them, found behind "Answer:" without dollar signs
    [
        r"- \frac { 1 } { 2 }",
        r"\frac{1+\sqrt{5}}{2}",
        r"1\frac{4}{5}",
        r"6\sqrt[4]{2}",
        r"4\pi - 8",
        "11,\\! 111,\\! 100",
    ]
    + [r"\left( 3, \frac{\pi}{2} \right)", "(6,31,-1)", r"(-\infty, 2) \cup (3, \infty)", r"[-1,0) \cup (0,1]"]
    + [r"\begin{pmatrix} -2 \\ -14 \\ -7 \end{pmatrix}", r"\left\{ -3, 3 \right\}", r"3 \pm 2\sqrt{2}", "1, -1, 3"]
    + ["x^5 - x^4 + x^3 - x^2 + x - 1", "5(3y-1)(y+2)", r"\frac{2x-1}{x+3}", "2^{n+1} - 1", "x - 2y + 3z - 4 = 0"]
    + [
        r"y = -\frac{1}{2}x + 4",
        r"x \leq \frac{1}{2}",
        r"-2 \le x \le 7",
        r"x \in (-\infty,1)",
        r"-1+i\sqrt{3}",
        "5! + 3",
    ]
    + [
        r"\log_2 3",
        "100!/2^50",
        r"1.5 \times 10^8",
        r"33\frac{1}{3}\%",
        r"90^\circ",
        r"\$1,250",
        r"36 \text{ square inches}",
    ]
    + [
        r"5 \, \text{people}",
        "4210_{5}",
        "1AE_{16}",
        r"\text{Tuesday}",
        r"\text{(C)}",
        r"6 \text{ and } 9",
        "2:3",
        r"\emptyset",
    ]
    + [
        r"3:45 \text{ p.m.}",
        r"0.\overline{72}",
        r"\frac{1}{3}x^3 + C",
        r"f^{-1}(x) = \frac{x+1}{3}",
        "7=11a+c",
        r"|x-3|",
    ]
)

EQUAL = {
    "numbers": r"""\frac{1}{2} | 0.5; \frac{-1}{2} | -\frac{1}{2}; \frac{1}{\sqrt2} | \frac{\sqrt2}{2}
        \sqrt{8} | 2\sqrt2; 2\frac{1}{2} | 2.5; 1,000 | 1000; 007 | 7; 2^{10} | 1024; 5! | 120; \log_2 8 | 3
        \binom{5}{2} | 10; 0.\overline{6} | \frac23; 1.5e3 | 1500; \approx 4.5 | 4.5; 9 \cdot 2 = 18 | 18
        2\sqrt{3} \approx 3.46 | 2\sqrt{3}; \pi | 3.141593; 3! = 6 | 6; i^2 | -1; (1+i)^2 | 2i
        1/\frac{2}{3} | 1.5; 2^{\frac{4}{2}} | 4
        \cos 60^\circ | \frac12; 2:3 | \frac23; 11,\! 111,\! 100 | 11111100; 50\% | 50; 90 | 90^\circ""",
    "units": r"""5\text{ cm} | 5; 5\text{ cm} | 5 centimeters; 60 \, \text{cm}^2 | 60
        5 \text{cm}^{2} | 5\text{ square centimeters}; 5\text{ units} | 5\text{ feet}
        7 m/s | 7 \text{ meters per second}; 120 °C | 120; 18 dollars | 18; 18 | 18\text{ eggs}
        16\pi \text{ cm}^2 | 16\pi; 5 \, \text{people} | 5; 25_8 | 25_{8}; 25_8 | 25; 3:45 \text{ PM} | 3:45 p.m.""",
    "names": r"""x=5 | 5; x=5 | y=5; x = 5+5+1 = 11 | 11; f(x)=x^2 | x^2; a_n=2n-1 | 2n-1; \text{Area} = 12 | 12
        P(X > 2) = 0.3 | 0.3; f'(x) = 6x | 6x; f^{-1}(x) = x-1 | x-1; |AB| = 13 | 13; \sin\theta = \frac35 | 0.6
        AB=4 | 4; (x,y)=(1,2) | (1,2); y=2x+3 | 2x+3; x+y=3 | y+x-3=0; y=2x+3 | 2x-y+3=0; x \in [1,2] | [1,2]
        \text{The answer is } 21 | 21; \overline{w} = 1-i | 1-i; A = \pi r^2 = 4\pi | 4\pi; P(X = 1) = 0.2 | 0.2
        x+y=3 | 3; p+q+r = 10+15 = 25 | 25; \cos 3t = \frac{1}{4} | 0.25; \int_0^2 x dx = 2 | 2
        \sum_{k=1}^{10} k = 55 | 55; \sum_{k=1}^{5} k | 15""",
    "lists and sets": r"""1,2 | 2,1; 1,1,2 | 1,2,1; \{1,2\} | 2,1; {1,2,3} | \{1,2,3\}; x=1, x=2 | 1,2
        x=1\text{ or }x=2 | 1,2; 3 \pm \sqrt2 | 3+\sqrt2,3-\sqrt2; a=1, b=2 | (1,2); x=1, y=2 | y=2, x=1
        (3,4),(1,2) | (1, 2) and (3, 4); 3, 4 | (3,4); 1,000, 2,000 | 2000, 1000; \langle 1, 2 \rangle | (1,2)
        4.5 \text{ or } \frac{9}{2} | 4.5; \sqrt8, \sqrt3 | \sqrt3, 2\sqrt2; \{5\} | 5; \varnothing | \emptyset
        \mathbb{R} | (-\infty, \infty); [3,+\infty) | [3,\infty)""",
    "relations": r"""x >= 5 | x \ge 5; 5 \leq x | x \ge 5; 2 \le x < 5 | [2,5)
        x<2 \text{ or } x>3 | (-\infty,2)\cup(3,\infty); x<2 | (-\infty,2)
        (-\infty,2)\cup(3,\infty) | (3,\infty)\cup(-\infty,2)""",
    "formulas": r"""x^2+2x+1 | (x+1)^2; \frac{x+1}{2} | 0.5x+0.5; \sin^2 x | (\sin x)^2
        e^{i\pi/4} | e^{\frac{\pi i}{4}}
        \begin{pmatrix}\frac12\\2\end{pmatrix} | \begin{bmatrix}0.5\\2\end{bmatrix}
        \left[\begin{array}{cc}1&2\\3&4\end{array}\right] | \begin{pmatrix}1&2\\3&4\end{pmatrix}""",
    "wrappers": r"""\color{blue}{5} | 5; {\bf 5} | 5; \underline{5} | 5; \pmb{5} | 5; 5 \\ | 5; 5\ | 5
        \large 5 | 5; \mathbf{\frac12} | 0.5; \textbf{(C)}\ 12 | 12""",
    "words": r"""Evelyn | evelyn; \text{No solution} | no solution; (C) | C; A | a; \text{June 20} | June 20""",
}
UNEQUAL = {
    "numbers": r"""1/2 | -1/2; 1/3 | 0.33; 1/3 | 0.333333; \pi | 3.14
        12345678901234567890123 | 12345678901234567890124; 10\% | 100; 50\% | 0.5; 10^{-7} | 2\cdot10^{-7}
        0.0000001 | 0.0000002; 2^{64} | 18446744073709551617; \infty | -\infty; 0 | \emptyset; 3+4i | 3-4i
        6,7 | 6.7; 100, 200 | 100200; 12 million | 12""",
    "units": r"""18\text{ eggs} | 18\text{ hens}; 5\text{ feet} | 5\text{ inches}; 5 cm | 5\text{ cm}^2
        7 m/s | 7 km/h; 120 °C | 120 °F; 25_8 | 25_9; 10 am | 10 pm; 5:30 p.m | 5:30 a.m; 12 xy | 12; 7 ab | 7
        12 m | 12""",
    "names": r"""x=5 | x=6; y=2x+1 | y=2x+2; x+y=0 | 0; 3x=6 | 6; (x-1)^2=9 | 9; \frac{x}{2}=3 | 3
        7=11a+c | 11a+c; p-q | q-p; |x| | x; x+y=2, x-y=3 | 3""",
    "lists and sets": r"""(1,2) | [1,2]; [1,2) | (1,2]; (1,2) | (2,1); 2,1 | (1,2); 5,6,7 | 5,6; 1,1,2 | 1,2,2
         1,2,1 | 1,2; a,a,b | a,b,b
        (2,3) | \{2,3\}; [2,3] | 2,3; x=1, y=2 | x=2, y=1
        \begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&3\\2&4\end{pmatrix}""",
    "relations": r"""x<2 | x>2; x<2 | x\le 2""",
    "words": r"""f = -1 \text{ for } x>0 | f = 1 \text{ for } x>0; 10:30 | 1030
        east | seat; Evelyn | Alice; (C) | D; \frac{1}{ | \frac{1}{2}""",
}


def pairs(table: dict[str, str]) -> list[list[str]]:
    """The pairs of a table: "a | b; c | d", on several lines."""
    rows = [row for text in table.values() for line in text.splitlines() for row in line.strip().split("; ")]
    return [row.split(" | ") for row in rows]


@pytest.mark.parametrize(("text", "answer"), [pair for pairs in FORMULAS.values() for pair in pairs])
def test_formula_is_found_and_cleaned(text, answer):
    """The formula that a text says is found and cleaned: in a box, behind a mark, in the conclusion."""
    assert extract_answer(text, "latex") == answer


@pytest.mark.parametrize("answer", sorted({one for pairs in FORMULAS.values() for _, one in pairs if one}))
def test_canonical_formulas_stay_as_they_are(answer):
    """A cleaned formula in a box is its own answer."""
    assert extract_answer(rf"\boxed{{{answer}}}", "latex") == answer


@pytest.mark.parametrize("gold", GOLDS)
def test_formula_without_dollar_signs_is_found(gold):
    """A gold answer of a benchmark behind "Answer:" is found whole, without dollar signs and with them."""
    for text in (
        f"Answer: {gold}",
        f"The answer is {gold}.",
        f"Answer: ${gold}$",
        f"Answer:\n{gold}\n\nIt has 2 parts.",
    ):
        assert answers_equal(extract_answer(text, "latex"), gold, "latex"), text


@pytest.mark.parametrize(("a", "b"), pairs(EQUAL))
def test_formulas_are_equal(a, b):
    """Formulas are equal if they mean the same, in either order."""
    assert answers_equal(a, b, "latex") is answers_equal(b, a, "latex") is True


@pytest.mark.parametrize(("a", "b"), pairs(UNEQUAL))
def test_formulas_are_unequal(a, b):
    """Formulas that mean different things are unequal, in either order."""
    assert answers_equal(a, b, "latex") is answers_equal(b, a, "latex") is False


@pytest.mark.parametrize(
    ("answers", "groups"),
    [
        (["5", "x=5", "y=5"], 1),
        ([r"50\%", "50", "0.5"], 2),
        (["1/3", "0.333333", r"\frac{2}{6}"], 2),
        (["5", r"5\text{ feet}", r"5\text{ inches}"], 3),
        (["5", r"5\text{ feet}", "5 ft"], 1),
        (["1, 2", "(1,2)", "2, 1"], 3),
    ],
)
def test_answer_groups_ignore_sample_order(answers, groups):
    """The groups of equal answers are the same in any order of the samples."""
    for order in itertools.permutations(answers):
        assert len(set(group_answers(list(order), "latex"))) == groups, order


def test_equal_formulas_vote_together():
    """Equal formulas vote together, and the winner is spelt as it was first seen."""
    assert group_answers([r"\frac{1}{2}", "2", None, "0.5", "1/2"], "latex") == [0, 1, None, 0, 0]
    assert vote(["2", r"\frac{1}{2}", None, "0.5"], "latex").answer == r"\frac{1}{2}"
    assert answers_equal(None, "2", "latex") is False


@pytest.mark.parametrize(
    "monster",
    ["9^{9^{9^{9}}}", "{" * 200 + "}" * 200, r"\frac{" * 80, r"\sqrt{" * 83],
)
def test_huge_formulas_are_unequal(monster, caplog):
    """Comparing a formula that is huge or broken ends, as unequal and without a warning."""
    assert answers_equal(monster, "5", "latex") is False
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_latex_survives_random_strings():
    """No random string crashes the search for a formula or the comparison, which is the same in either order."""
    rng = random.Random(0)
    pieces = [
        *"0123456789xyzi+-*/^_=<>(){}[]|,.!%$&° ",
        "\\",
        "\\\\",
        "\\frac{",
        "\\sqrt",
        "\\text{",
        "\\pi",
        "\\infty",
    ]
    pieces += ["\\boxed{", "\\left(", "\\begin{pmatrix}", "\\sum_", "\\int", "\ud800", "\0", "½", "answer is ", "####"]
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
