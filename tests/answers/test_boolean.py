"""What answers.py promises of yes and no: what a text concludes, negations turned round, nouns with "no" left alone."""

import random
import time

import pytest

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import vote

BOOLEANS = [
    # the last box
    (r"So \boxed{yes}", "yes"),
    (r"\boxed{No}", "no"),
    (r"\boxed{\text{Yes}}", "yes"),
    (r"$\boxed{\textbf{NO}}$", "no"),
    (r"\boxed{\text{No, he could not.}}", "no"),
    (r"\boxed{\text{Yes}, it is}", "yes"),
    (r"\boxed{True}", "yes"),
    (r"\boxed{\text{false}}", "no"),
    (r"\boxed{\text{not true}}", "no"),
    (r"\boxed{\text{not false}}", "yes"),
    (r"\boxed{\text{It is not true that pigs fly}}", "no"),
    (r"\boxed{\text{The answer is no.}}", "no"),
    (r"\boxed{yes}? Let me check again. \boxed{no}", "no"),
    (r"No, wait. Yes: \boxed{yes}. No doubt.", "yes"),
    (r"\boxed{\text{yes or no}}", None),
    (r"Put it in \boxed{yes/no}: the answer is no.", "no"),
    (r"\boxed{42}", None),
    (r"\boxed{}. The answer is yes.", "yes"),
    (r"\boxed{\text{no wings}}", None),
    (r"\boxed{\text{yes and no}}", None),
    # after a mark
    ("The answer is no.", "no"),
    ("the answer is: Yes!", "yes"),
    ("**Answer:** No", "no"),
    ("**Answer**: **Yes**, because cats have legs.", "yes"),
    ("Answer: false", "no"),
    ("Answer: True. Nobody doubts it.", "yes"),
    ("Final answer: yes", "yes"),
    ("Final Answer\n\nNo.", "no"),
    ("#### no", "no"),
    ("The answer to the question is no.", "no"),
    ("The answer is 'no'.", "no"),
    ("The answer is therefore no because fish have no legs.", "no"),
    ("The answer is most likely yes.", "yes"),
    ("The answer is a definite no.", "no"),
    ("The answer is not yes.", "no"),
    ("The answer is not no.", "yes"),
    ("The answer is that it is not true.", "no"),
    ("The answer is yes, not no.", "yes"),
    ("Yes... wait, that was in 1990, so the answer is no.", "no"),
    ("No, I think. But hold on. The answer is yes.", "yes"),
    ("The answer is yes. Hmm, he died earlier. The answer is no.", "no"),
    ("Answer (yes or no): no", "no"),
    ("Answer yes or no: Yes", "yes"),
    ("The answer is yes or no.", None),
    ("The answer is neither yes nor no.", None),
    ("The answer is no longer known.", None),
    ("The answer is unknown.", None),
    ("The answer is not necessarily yes.", None),
    ("Answer: it's no secret.", None),
    ("The correct answer must be no: he was dead.", "no"),
    # without a mark
    ("Yes, cats have four legs.", "yes"),
    ("Yes", "yes"),
    ("no", "no"),
    ("**No.** Fish have fins.", "no"),
    ("True.", "yes"),
    ("False, since he died in 1990.", "no"),
    ("It is not true that fish walk.", "no"),
    ("It is false.", "no"),
    ("No, fish have no legs.", "no"),
    ("No doubt he was tall.", None),
    ("No one knows.", None),
    ("No. 5 is the largest number.", None),
    ("There is no way that a fish walks.", None),
    ("A bat has wings, a fish has no wings.", None),
    ("Fish swim. So no, a fish does not walk.", "no"),
    ("Yes, fish swim. But walking needs legs. So no, they do not.", "no"),
    ("Cats have four legs, therefore, yes.", "yes"),
    ("Fish have fins. Thus, no.", "no"),
    ("Cats have four legs. Yes, they do.", "yes"),
    ("Cats have legs. Yes.", "yes"),
    ("Fish have fins.\nNo", "no"),
    ("Yes, perhaps. No wait, he was dead by then. It is hard to say.", None),
    ("Yes, I think. No, it cannot be.", "no"),
    ("He died in 1990 and the war began in 1995, so the statement is false.", "no"),
    ("He lived until 1995. The claim is true", "yes"),
    ("The claim is not true.", "no"),
    ("Yes, because the story that he died in 1990 is false.", "yes"),
    ("It is true love that counts.", None),
    ("A true story needs facts.", None),
    ("They said yes to the plan, and then it rained.", None),
    ("Yesterday was nothing special.", None),
    ("Nobody knows, the yes-men least of all.", None),
    ("A yes or no question? Cats have legs.", None),
    ("Cats have legs.", None),
    ("So no fish walks.", None),
    ("No, cats walk. So it is true that dogs walk.", "no"),
    # denials, corrections, other people's answers
    ("This cannot possibly be true.", None),
    ("It would never be true", None),
    ("This is far from true", None),
    ("I doubt that this is true.", None),
    ("If it were a mammal, the answer would be yes. But it's a fish.", None),
    ("So, is it true? It is not.", None),
    ("Fact 1 is true. Fact 2 is false.", None),
    ("Fact 1 is true. Fact 2 is true.", None),
    ("The answer is no longer yes.", None),
    ("I don't think the answer is yes.", None),
    ("It is not the case that the answer is yes.", None),
    ("The answer is yes. Wait.", None),
    ("It is true that cats walk, but dogs do not.", None),
    ("Some people say yes", None),
    ("This can't be true.", "no"),
    ("The answer is yes. Hmm. No.", "no"),
    ("The answer is yes. Wait, actually no.", "no"),
    ("The answer is No, but some people say the answer is yes.", "no"),
    ("No\n\nYes is wrong because it melts.", "no"),
    ("The answer is no. No, he could not.", "no"),
    ("I'd say no.", "no"),
    ("Is it true? Yes.", "yes"),
    ("This isn't true.", "no"),
    ("The answer is yes if it rains.", None),
    ("Some would answer no.", None),
    ("The answer could be yes.", None),
    ("Suppose the answer is no.", None),
    ("He said no.", None),
    ("So he said yes.", None),
    ("No one would say yes.", None),
    ("This statement is true. That statement is false.", None),
    ("Is the answer yes?", None),
    ('The answer is "no" to the first part and "yes" to the second.', None),
    ("My guess is yes.", "yes"),
    ("One might think the answer is yes, but in fact the answer is no.", "no"),
    ("If he was born in 1900 he was 66 in 1966. So the answer is yes.", "yes"),
    ("Answer：yes", "yes"),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), BOOLEANS)
def test_yes_or_no_is_found_in_text(text, answer):
    """The yes or no that a text concludes is found, negations included. A text in doubt has no answer."""
    assert extract_answer(text, "boolean") == answer


def test_yes_and_no_equal_only_themselves():
    """Yes and no are equal only to themselves, and they vote."""
    assert answers_equal("yes", "yes", "boolean") is True
    assert answers_equal("yes", "no", "boolean") is False
    assert answers_equal("no", None, "boolean") is False
    assert vote(["no", "yes", None, "yes"], "boolean").answer == "yes"


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_canonical_booleans_stay_as_they_are(answer):
    """A bare yes or no is its own answer."""
    assert extract_answer(answer, "boolean") == answer


def test_boolean_extraction_survives_random_strings():
    """No random string crashes the search for a yes or no, and nothing else is found."""
    rng = random.Random(0)
    pieces = ["yes", "no", "true", "false", "not ", "Yes, ", "No. ", "so ", "isn't ", "answer is ", "####"]
    pieces += [
        "\\boxed{",
        "}",
        *" .,;:!*'\"()-\n5a",
        "\\text{",
        "\ud800",
        "\0",
        "½",
        " or ",
        "Answer: ",
        "the ",
        "It is ",
    ]
    found = 0
    for _ in range(1000):
        text = "".join(rng.choices(pieces, k=rng.randrange(30)))
        answer = extract_answer(text, "boolean")
        found += answer is not None
        assert answer in ("yes", "no", None), repr(text)
    assert 100 < found < 900


@pytest.mark.parametrize(
    "piece",
    ["yes ", "no ", "not ", "yes. ", "no\n", "so ", "so no ", "answer is ", "answer is not ", "answer to ", "is ", "\n"]
    + [" ", "\\text{", "it is ", "####", ".", "- ", "yes or ", "true ", "(yes ", "**"]
    + ["wait, no ", "people say yes ", "if would "],
)
def test_boolean_extraction_time_is_linear(piece):
    """The time to find a yes or no grows with the length of the text, not with its square."""
    began = time.perf_counter()
    for start, end in (("", ""), ("answer is 5", "a"), ("\\boxed{", "}")):
        extract_answer(start + piece * (30_000 // len(piece)) + end, "boolean")
    assert time.perf_counter() - began < 5
