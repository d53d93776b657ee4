"""The vote over a question's samples, and the figures made from votes (maj@k, pass@k).

vote(["17", None, "18", "18"], "number").answer   ->  "18"
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from lta_thinker.answers import answer_kind

MAX_SUBSETS = 2000  # of one size, for maj@k


@dataclass(frozen=True)
class Vote:
    """The vote over one question's answers.

    answer: the winner in its first sample's words, None where no sample has an answer; groups: the group of equal
    answers that each sample belongs to, counted from 0 as first seen (None: no answer, no group); winner: the winning
    group; tied: whether the largest groups were of one size, also where scores decide.
    """

    answer: str | None
    groups: list[int | None]
    winner: int | None
    tied: bool


def vote(answers: Sequence[str | None], answer_type: str, scores: Sequence[float] | None = None) -> Vote:
    """The answer that most samples give. None never votes.

    Of groups of the same size, the one with the higher mean score wins, then the first seen.
    Raises ValueError for the answer type, or where there is not one score for each answer.
    """
    groups = group_answers(answers, answer_type)
    winners, tied = _winners(np.ones((1, len(groups)), dtype=bool), groups, scores)
    first = int(winners[0])
    if first < 0:
        return Vote(None, groups, None, bool(tied[0]))
    return Vote(answers[first], groups, groups[first], bool(tied[0]))


def group_answers(answers: Sequence[str | None], answer_type: str) -> list[int | None]:
    """The group of equal answers that each sample belongs to, counted from 0 as first seen; None has no group.

    Raises ValueError for the answer type.
    """
    _, equal = answer_kind(answer_type)
    firsts, groups = [], []
    for answer in answers:
        if answer is None:
            groups.append(None)
            continue
        group = next((g for g, first in enumerate(firsts) if equal(first, answer)), len(firsts))
        if group == len(firsts):
            firsts.append(answer)
        groups.append(group)
    return groups


def maj_at_k(groups: list[int | None], correct: list[bool], scores: list[float] | None = None) -> list[float]:
    """For k = 1..N, the share of subsets of k of one question's N samples whose vote is correct.

    correct: of each sample, whether its answer is right. All subsets are used where there are at most 2,000, else 2,000
    random ones, the same in every call. Raises ValueError where there is not one score, or one `correct`, for each
    sample.
    """
    if len(correct) != len(groups):
        raise ValueError(f"{len(groups)} samples, but 'correct' for {len(correct)}")
    by_winner = np.array([*correct, False])  # the last one for winner -1: nobody voted
    n = len(groups)
    return [float(by_winner[_winners(_subsets(n, k), groups, scores)[0]].mean()) for k in range(1, n + 1)]


def pass_at_k(correct: list[bool]) -> list[float]:
    """For k = 1..N, the chance that one of k of the N samples is correct: 1 - C(N - c, k) / C(N, k), c correct ones."""
    n, wrong = len(correct), len(correct) - sum(correct)
    return [1 - math.comb(wrong, k) / math.comb(n, k) for k in range(1, n + 1)]


@cache
def _subsets(n: int, k: int) -> np.ndarray:
    """Subsets of k of n samples, one a row, as a mask (S, n): all, or MAX_SUBSETS drawn with a fixed seed."""
    if math.comb(n, k) <= MAX_SUBSETS:
        chosen = np.array(list(itertools.combinations(range(n), k)))  # (S, k)
    else:
        chosen = np.random.default_rng((n, k)).random((MAX_SUBSETS, n)).argsort(axis=1)[:, :k]
    members = np.zeros((len(chosen), n), dtype=bool)
    np.put_along_axis(members, chosen, True, axis=1)
    return members


def _winners(
    members: np.ndarray, groups: list[int | None], scores: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """One vote for each row of `members` (S, N): the first sample of the winning group, or -1, and whether tied."""
    if scores is not None and len(scores) != len(groups):
        raise ValueError(f"{len(groups)} samples, but {len(scores)} scores")
    size = (len(members), 1 + max((g for g in groups if g is not None), default=0))  # (S, G)
    counts, totals, first = np.zeros(size, dtype=int), np.zeros(size), np.full(size, len(groups))
    # Sample by sample, not as a matrix product: a group's total must not depend on the other rows, or a tie of scores
    # would be broken by rounding.
    for i, group in enumerate(groups):
        if group is None:
            continue
        here = members[:, i]
        counts[:, group] += here
        first[here, group] = np.minimum(first[here, group], i)
        if scores is not None:
            totals[here, group] += scores[i]
    most = counts.max(axis=1, keepdims=True)
    ahead = counts == most
    tied = ahead.sum(axis=1) > 1
    totals = np.where(ahead, totals, -np.inf)  # of groups of one size, so the higher total is the higher mean
    ahead &= ~(totals < totals.max(axis=1, keepdims=True))  # a score of nan decides nothing
    winners = np.where(ahead, first, len(groups)).min(axis=1)
    return np.where(most[:, 0] > 0, winners, -1), tied
