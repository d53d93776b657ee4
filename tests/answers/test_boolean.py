"""What answers/ promises of yes and no: what a text concludes, negations turned round, nouns with "no" left alone."""

import random

import pytest

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.answers.votes import vote

BOOLEANS = {
    "quoted statements": [
        ('Bob is big. Therefore, "Bob is smart" is true.', "yes"),
        ('Therefore, the statement "Max is red" is False.', "no"),
        ('The answer is "no".', "no"),
    ],
    "boxes": [
        (r"So \boxed{yes}", "yes"),
        (r"$\boxed{\textbf{NO}}$", "no"),
        (r"\boxed{\text{No, he could not.}}", "no"),
        (r"\boxed{\text{false}}", "no"),
        (r"\boxed{\text{not true}}", "no"),
        (r"\boxed{\text{not false}}", "yes"),
        (r"\boxed{\text{It is not true that pigs fly}}", "no"),
        (r"\boxed{yes}? Let me check again. \boxed{no}", "no"),
        (r"No, wait. Yes: \boxed{yes}. No doubt.", "yes"),
        (r"\boxed{\text{yes or no}}", None),
        (r"\boxed{42}", None),
        (r"\boxed{}. The answer is yes.", "yes"),
        (r"\boxed{\text{no wings}}", None),
    ],
    "marks": [
        ("The answer is no.", "no"),
        ("**Answer**: **Yes**, because cats have legs.", "yes"),
        ("Answer: True. Nobody doubts it.", "yes"),
        ("Final Answer\n\nNo.", "no"),
        ("#### no", "no"),
        ("The answer to the question is no.", "no"),
        ("The answer is most likely yes.", "yes"),
        ("The answer is not yes.", "no"),
        ("The answer is that it is not true.", "no"),
        ("The answer is yes. Hmm, he died earlier. The answer is no.", "no"),
        ("Answer (yes or no): no", "no"),
        ("The answer is yes or no.", None),
        ("The answer is no longer known.", None),
        ("The answer is unknown.", None),
        ("The answer is a clear no.", "no"),
        ("The answer is nuanced: yes for most.", None),
        ("The correct answer must be no: he was dead.", "no"),
    ],
    "first and last sentences": [
        ("Yes, cats have four legs.", "yes"),
        ("**No.** Fish have fins.", "no"),
        ("False, since he died in 1990.", "no"),
        ("It is not true that fish walk.", "no"),
        ("No doubt he was tall.", None),
        ("No one knows.", None),
        ("There is no way that a fish walks.", None),
        ("Fish swim. So no, a fish does not walk.", "no"),
        ("Yes, fish swim. But walking needs legs. So no, they do not.", "no"),
        ("Cats have four legs, therefore, yes.", "yes"),
        ("Fish have fins.\nNo", "no"),
        ("Yes, perhaps. No wait, he was dead by then. It is hard to say.", None),
        ("He died in 1990 and the war began in 1995, so the statement is false.", "no"),
        ("A true story needs facts.", None),
        ("They said yes to the plan, and then it rained.", None),
        ("Cats have legs.", None),
        ("No, yes-men are not welcome.", "no"),
        ("Could he? No.", "no"),
        ("In short, yes.", "yes"),
        ("No way.", "no"),
        ("Nope.", "no"),
        ("✅ Yes", "yes"),
        ("Definitely not.", "no"),
        ("It's true, no doubt.", "yes"),
        ("Probably not.", "no"),
    ],
    "denials, corrections, other people's answers": [
        ("I doubt that this is true.", None),
        ("If it were a mammal, the answer would be yes. But it's a fish.", None),
        ("So, is it true? It is not.", None),
        ("Fact 1 is true. Fact 2 is false.", None),
        ("I don't think the answer is yes.", None),
        ("The answer is yes. Wait.", None),
        ("The answer is yes. Wait, actually no.", "no"),
        ("It is true that cats walk, but dogs do not.", None),
        ("Some people say yes", None),
        ("This can't be true.", "no"),
        ("No\n\nYes is wrong because it melts.", "no"),
        ("The answer is no. No, he could not.", "no"),
        ("The answer is yes if it rains.", None),
        ("The answer could be yes.", None),
        ("He said no.", None),
        ("Yes for adults, no for children.", None),
        ("Yes... or no? I really don't know.", None),
        ("Yes and no.", None),
        ("If he were alive, yes; otherwise no.", None),
        ("The statement is true in part and false in part.", None),
        ("No, a penguin cannot fly. It is true that it has wings, though.", "no"),
        ("Yes, it's not true that he can't.", "yes"),
        ("This statement is true. That statement is false.", None),
        ("Is the answer yes?", None),
        ("", None),
    ],
    "languages": [
        ("Die Antwort ist nein.", "no"),
        ("La réponse est oui.", "yes"),
        ("Jawabannya adalah ya.", "yes"),
        ("Risposta: sì", "yes"),
        ("정답은 아니요입니다.", "no"),
        ("答案是：是", "yes"),
        ("答案：不是", "no"),
        ("不是", "no"),
        ("不正确。", "no"),
        ("答案是否定的。", "no"),
        ("这是对的。", "yes"),
        ("答えは「はい」です。", "yes"),
        ("Die Aussage ist falsch.", "no"),
        ("Das ist wahr.", "yes"),
        ("Das ist nicht wahr.", "no"),
        ("Jawabannya adalah tidak benar.", None),
        ("答案：不是对的", None),
        ("C'est faux.", "no"),
        ("Also nein.", "no"),
        ("Nein, das kann er nicht. Ja wäre falsch.", "no"),
        ("Verdadero", "yes"),
        ("Да, это так.", "yes"),
    ],
    "thoughts": [("<think>\n\\boxed{yes}? The answer is yes.\n</think>\n\nNo, it is not.", "no")],
}


@pytest.mark.parametrize(("text", "answer"), [pair for pairs in BOOLEANS.values() for pair in pairs])
def test_yes_or_no_is_found_in_text(text, answer):
    """The yes or no that a text concludes is found, negations included. A text in doubt has no answer."""
    assert extract_answer(text, "boolean") == answer


@pytest.mark.parametrize(
    ("text", "answer"), [("Yes, cats have", None), ("The answer is no.\nA cat", "no"), (r"So \boxed{yes}, as", "yes")]
)
def test_cut_off_text_has_only_a_concluded_answer(text, answer):
    """A text that was cut off has an answer only in a box or behind a mark."""
    assert extract_answer(text, "boolean", finished=False) == answer


def test_yes_and_no_equal_only_themselves():
    """Yes and no are equal only to themselves, they vote, and a bare one is its own answer."""
    assert answers_equal("yes", "yes", "boolean") is True
    assert answers_equal("yes", "no", "boolean") is False
    assert answers_equal("no", None, "boolean") is False
    assert vote(["no", "yes", None, "yes"], "boolean").answer == "yes"
    assert [extract_answer(answer, "boolean") for answer in ("yes", "no")] == ["yes", "no"]


def test_boolean_extraction_survives_random_strings():
    """No random string crashes the search for a yes or no, and nothing else is found."""
    rng = random.Random(0)
    pieces = ["yes", "no", "true", "false", "not ", "Yes, ", "No. ", "so ", "isn't ", "answer is ", "####", "\\boxed{"]
    pieces += ["}", *" .,;:!*'\"()-\n5a", "\\text{", "\ud800", "\0", "½", " or ", "Answer: ", "the ", "It is "]
    found = 0
    for _ in range(1000):
        text = "".join(rng.choices(pieces, k=rng.randrange(30)))
        answer = extract_answer(text, "boolean")
        found += answer is not None
        assert answer in ("yes", "no", None), repr(text)
    assert 100 < found < 900
