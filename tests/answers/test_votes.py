"""What answers/votes.py promises: the vote's rules, maj@k and pass@k."""

import itertools
import math
import random

import pytest

from lta_thinker.answers import answers_equal
from lta_thinker.answers.votes import COUNTED, Vote, group_answers, maj_at_k, pass_at_k, vote


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


@pytest.mark.parametrize("with_scores", [False, True])
def test_maj_at_k_averages_all_subsets(with_scores):
    """maj@k is the share of all subsets of k samples whose vote is correct, with scores and without."""
    rng = random.Random(1)
    for n in (1, 2, 5, 7):
        for _ in range(4):
            answers = [rng.choice(["7", "7.0", "8", "9", None]) for _ in range(n)]
            scores = [rng.choice([-0.1, -0.3, -0.7]) for _ in range(n)] if with_scores else None
            correct = [answers_equal(a, "7", "number") for a in answers]
            expected = []
            for k in range(1, n + 1):
                votes = [
                    vote([answers[i] for i in s], "number", [scores[i] for i in s] if scores else None).answer
                    for s in itertools.combinations(range(n), k)
                ]
                expected.append(sum(answers_equal(v, "7", "number") for v in votes) / len(votes))
            assert maj_at_k(group_answers(answers, "number"), correct, scores) == pytest.approx(expected, abs=1e-12)


def test_maj_at_k_breaks_ties_inside_subset():
    """maj@k breaks the tie of a subset by that subset's own order and scores."""
    # Samples 8, 7, 8 (8 is correct) make the pairs (8, 7), (8, 8) and (7, 8): in the last, 7 was seen first.
    assert maj_at_k([0, 1, 0], [True, False, True]) == pytest.approx([2 / 3, 2 / 3, 1])
    assert maj_at_k([0, 1, 0], [True, False, True], [-9, -1, -9]) == pytest.approx([2 / 3, 1 / 3, 1])


def test_maj_at_k_samples_many_subsets():
    """Where there are too many subsets, maj@k draws some of them: close to the true value, and the same at each
    call."""
    n, k = 40, 3
    assert math.comb(n, k) > MAX_SUBSETS
    groups = [0] * 30 + [1] * 10
    correct = [group == 0 for group in groups]
    majority = (math.comb(30, 3) + math.comb(30, 2) * 10) / math.comb(40, 3)
    values = maj_at_k(groups, correct)
    assert values[k - 1] == pytest.approx(majority, abs=0.04)  # four standard errors
    assert values[k - 1] != majority
    _subsets.cache_clear()
    assert values == maj_at_k(groups, correct)
    assert values[0] == 0.75 and values[-1] == 1


def test_pass_at_k_counts_subsets_exactly():
    """pass@k is the share of all subsets of k samples that have a correct one."""
    for correct in itertools.product([False, True], repeat=5):
        expected = [sum(any(s) for s in itertools.combinations(correct, k)) / math.comb(5, k) for k in range(1, 6)]
        assert pass_at_k(list(correct)) == pytest.approx(expected, abs=1e-12)
