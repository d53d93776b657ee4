"""What answers/votes.py promises: the vote's rules, maj@k and pass@k."""

import itertools
import math
import random

import pytest

from lta_thinker.answers import votes
from lta_thinker.answers.votes import Vote, group_answers, maj_at_k, pass_at_k, vote


def test_one_of_many_samples_is_counted():
    """maj@1 is the share of right samples, also where larger k are estimated."""
    hits = [i % 7 == 0 for i in range(300)]
    groups = [None if i % 5 == 0 else i % 3 for i in range(300)]
    right = sum(hit and group is not None for hit, group in zip(hits, groups, strict=True))
    assert maj_at_k(groups, hits)[0] == right / 300


def test_missing_answers_never_vote():
    """Samples without an answer take no part in the vote, even where they are the most."""
    assert vote([None, None, None, "7"], "number").answer == "7"


def test_vote_without_answers_is_none():
    """Where no sample has an answer, the vote has none and is no tie."""
    assert vote([None, None], "number").answer is None
    assert vote([], "number", scores=[]).answer is None
    assert vote([None, None], "number") == Vote(None, [None, None], None, False)


def test_equal_answers_vote_together():
    """Equal answers vote together, and the winner is spelt as it was first seen."""
    assert vote(["7", "3/4", "7", "0.75", "0.750"], "number").answer == "3/4"
    assert group_answers(["7", "3/4", None, "7.0", "0.75", "8"], "number") == [0, 1, None, 0, 1, 2]


def test_tie_goes_to_first_seen_answer():
    """Without scores a tie goes to the answer that was seen first."""
    assert vote(["8", "7", "7", "8"], "number").answer == "8"
    assert vote(["9", "8", "7", "7", "8"], "number").answer == "8"


def test_tie_goes_to_higher_mean_score():
    """With scores a tie goes to the answer whose samples have the higher mean score."""
    assert vote(["8", "7", "7", "8"], "number", scores=[-1.0, -0.5, -0.7, -0.4]).answer == "7"
    assert vote(["8", "7", "7", "8"], "number", scores=[-1.0, -0.5, -0.7, -0.1]).answer == "8"


def test_scores_do_not_beat_votes():
    """An answer with more votes wins over one with better scores."""
    assert vote(["8", "7", "7"], "number", scores=[-0.1, -5.0, -5.0]).answer == "7"


def test_equal_scores_leave_first_seen_answer():
    """Where the mean scores are equal, infinite or not numbers, a tie goes to the answer that was seen first."""
    assert vote(["8", "7"], "number", scores=[-0.5, -0.5]).answer == "8"
    assert vote(["8", "7"], "number", scores=[-math.inf, -math.inf]).answer == "8"
    assert vote(["8", "7"], "number", scores=[math.nan, -0.5]).answer == "8"


def test_ties_are_reported_with_scores():
    """A tie is reported as one even where the scores decide it."""

    def winner(answers: list, scores=None) -> tuple:
        result = vote(answers, "number", scores)
        return result.winner, result.tied

    assert winner(["8", "7", "7", "8"]) == (0, True)
    assert winner(["8", "7", "7", "8"], [-1.0, -0.5, -0.5, -1.0]) == (1, True)
    assert winner(["8", "7", None, "7"]) == (1, False)
    assert winner(["8", "7", "7", "9"]) == (1, False)


def test_lists_of_another_length_are_refused():
    """Scores or correctness for another number of samples are an error."""
    with pytest.raises(ValueError, match="2 samples, but 1 scores"):
        vote(["7", "8"], "number", scores=[-0.5])
    with pytest.raises(ValueError, match="2 samples, but 'correct' for 3"):
        maj_at_k([0, 1], [True, False, False])


def test_maj_at_k_breaks_ties_inside_subset():
    """maj@k breaks the tie of a subset by that subset's own order and scores."""
    # Samples 8, 7, 8 (8 is correct) make the pairs (8, 7), (8, 8) and (7, 8): in the last, 7 was seen first.
    assert maj_at_k([0, 1, 0], [True, False, True]) == pytest.approx([2 / 3, 2 / 3, 1])
    assert maj_at_k([0, 1, 0], [True, False, True], [-9, -1, -9]) == pytest.approx([2 / 3, 1 / 3, 1])


def random_question(rng, n: int, with_scores: bool) -> tuple[list, list, list | None]:
    """Groups, correctness (of a whole group, or of any sample) and scores (equal ones among them) of n samples."""
    most, seen = rng.randrange(1, 9), {}
    drawn = [rng.choice([None, *range(most)]) for _ in range(n)]
    groups = [None if one is None else seen.setdefault(one, len(seen)) for one in drawn]
    correct = [group == 0 for group in groups] if rng.random() < 0.5 else [rng.random() < 0.5 for _ in groups]
    some = [rng.gauss(-0.5, 0.2) if rng.random() < 0.5 else rng.choice([-0.1, -0.3, -0.7]) for _ in groups]
    return groups, correct, some if with_scores else None


def of_all_subsets(groups: list, correct: list, scores: list | None) -> list[float]:
    """maj@k as it is defined: the vote of each subset. An answer is its group's number, as a text."""
    values = []
    for k in range(1, len(groups) + 1):
        right = []
        for subset in itertools.combinations(range(len(groups)), k):
            answers = [None if groups[i] is None else str(groups[i]) for i in subset]
            winner = vote(answers, "choice", [scores[i] for i in subset] if scores else None)
            right.append(winner.winner is not None and correct[subset[winner.groups.index(winner.winner)]])
        values.append(sum(right) / len(right))
    return values


@pytest.mark.parametrize("with_scores", [False, True])
def test_maj_at_k_is_the_vote_of_all_subsets(with_scores):
    """maj@k is counted to the value that going through all subsets gives, whatever is tied."""
    rng = random.Random(2)
    for n in [*range(1, 9)] * 5:
        question = random_question(rng, n, with_scores)
        assert maj_at_k(*question) == pytest.approx(of_all_subsets(*question), abs=1e-12), question


def test_maj_at_k_counts_without_going_through_subsets():
    """Of 200 samples all figures without ties are exact: two groups, one larger by chance alone."""
    n, right = 200, 120
    values = maj_at_k([0] * right + [1] * (n - right), [True] * right + [False] * (n - right))
    for k in (3, 51, 101, 199):
        ways = sum(math.comb(right, i) * math.comb(n - right, k - i) for i in range(k // 2 + 1, k + 1))
        assert values[k - 1] == pytest.approx(ways / math.comb(n, k), abs=1e-12)


@pytest.mark.parametrize("sizes", [(60, 40), (40, 30, 20, 10), (12,) * 9, (30, *[8] * 8)])
def test_drawn_ties_are_near_the_truth(sizes, monkeypatch):
    """Where a tie's scores are drawn, maj@k is near what random subsets say, and the same at each call."""
    rng = random.Random(3)
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    rng.shuffle(groups)
    correct = [group == groups[0] for group in groups]
    scores = [rng.gauss(-0.5, 0.2) - 0.05 * (group == groups[0]) for group in groups]
    values = maj_at_k(groups, correct, scores)
    assert values == maj_at_k(groups, correct, scores)
    monkeypatch.setattr(votes, "COUNTED", 0)
    assert values == pytest.approx(maj_at_k(groups, correct, scores), abs=0.05)  # four standard errors of the orders


def test_estimate_is_near_the_count(monkeypatch):
    """Beyond 256 samples maj@k is estimated, with the vote's rules: near the count of the same samples."""
    rng = random.Random(4)
    for with_scores in (False, True):
        groups, correct, scores = random_question(rng, 60, with_scores)
        counted = maj_at_k(groups, correct, scores)
        with monkeypatch.context() as patch:
            patch.setattr(votes, "COUNTED", 59)
            estimated = maj_at_k(groups, correct, scores)
        assert estimated == pytest.approx(counted, abs=0.05) and estimated != counted
        assert estimated[-1] == counted[-1]
    assert maj_at_k([None] * 257, [False] * 257) == [0] * 257 == maj_at_k([0] * 256 + [None], [False] * 257)


def test_hundreds_of_different_answers_are_grouped():
    """1,000 different numbers make 1,000 groups, 300 different formulas 300."""
    for answer_type, count in {"number": 1000, "latex": 300}.items():
        assert group_answers([str(i) for i in range(count)] * 2, answer_type) == [*range(count)] * 2


def test_pass_at_k_counts_subsets_exactly():
    """pass@k is the share of all subsets of k samples that have a correct one."""
    for correct in itertools.product([False, True], repeat=5):
        expected = [sum(any(s) for s in itertools.combinations(correct, k)) / math.comb(5, k) for k in range(1, 6)]
        assert pass_at_k(list(correct)) == pytest.approx(expected, abs=1e-12)
