"""The vote over a question's samples, and the figures made from votes (maj@k, pass@k).

vote(["17", None, "18", "18"], "number").answer   ->  "18"
"""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lta_thinker.answers import Budget, answer_kind

COUNTED = 256  # samples of one question; of more, maj@k is estimated from ORDERS
ORDERS, BLOCK = 2000, 500  # random orders of the samples, and how many are in memory at a time
ALL_SUBSETS = 1000  # of one group and size that are gone through in a tie; where there are more, DRAWN are drawn
DRAWN = 128
FEW_RIVALS, BINS = 6, 32  # beyond so many tied groups, a tie is counted in so many classes of scores


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


def vote(
    answers: Sequence[str | None],
    answer_type: str,
    scores: Sequence[float] | None = None,
    budget: Budget | None = None,
) -> Vote:
    """The answer that most samples give. None never votes.

    Of groups of the same size, the one with the higher mean score wins, then the first seen. Where one score is no
    number, scores decide nothing. budget: of all the hard comparisons. Raises ValueError for the answer type, or where
    there is not one score for each answer.
    """
    groups, scores = group_answers(answers, answer_type, budget), _deciding(scores, len(answers))
    sizes = Counter(group for group in groups if group is not None)
    if not sizes:
        return Vote(None, groups, None, False)
    tied = [group for group in sizes if sizes[group] == max(sizes.values())]  # as first seen
    totals = dict.fromkeys(tied, 0.0)  # of groups of one size, so the higher total is the higher mean
    for i, group in enumerate(groups):
        if scores is not None and group in totals:
            totals[group] += scores[i]
    winner = max(tied, key=lambda group: totals[group])
    return Vote(answers[groups.index(winner)], groups, winner, len(tied) > 1)


def group_answers(answers: Sequence[str | None], answer_type: str, budget: Budget | None = None) -> list[int | None]:
    """The group of equal answers that each sample belongs to, counted from 0 as first seen; None has no group.

    Where a is b and b is c, but a is not c ("5 feet", "5", "5 inches"), only answers with the same key are one group:
    so no group depends on the samples' order. budget: of all the hard comparisons. Raises ValueError for the answer
    type.
    """
    kind, budget = answer_kind(answer_type), budget or Budget()
    keys = {answer: kind.key(answer) for answer in answers if answer is not None}
    texts: dict[Hashable, str] = {}  # the first text of each key
    for answer, key in keys.items():
        texts.setdefault(key, answer)
    equal: dict[Hashable, set[Hashable]] = {key: {key} for key in texts}
    for (key, text), (other, other_text) in itertools.combinations(texts.items(), 2) if kind.equal else ():
        if kind.equal and kind.equal(text, other_text, budget):
            equal[key].add(other)
            equal[other].add(key)
    same = {key: frozenset(all_equal) for key, all_equal in equal.items()}
    whole = {key: all(same[other] == same[key] for other in same[key]) for key in same}
    groups: dict[Hashable, int] = {}
    for key in texts:
        groups.setdefault(same[key] if whole[key] else key, len(groups))
    return [None if one is None else groups[same[keys[one]] if whole[keys[one]] else keys[one]] for one in answers]


def _deciding(scores: Sequence[float] | None, samples: int) -> Sequence[float] | None:
    """The scores; None where there are none, or one is not a number or infinite. ValueError where they are not one a
    sample."""
    if scores is None:
        return None
    if len(scores) != samples:
        raise ValueError(f"{samples} samples, but {len(scores)} scores")
    return scores if all(score < math.inf for score in scores) else None


# ---------------------------------------------------------------------------------------------------------------------
# maj@k and pass@k


def pass_at_k(correct: list[bool]) -> list[float]:
    """For k = 1..N, the chance that one of k of the N samples is correct: 1 - C(N - c, k) / C(N, k), c correct ones."""
    n, wrong = len(correct), len(correct) - sum(correct)
    return [1 - math.comb(wrong, k) / math.comb(n, k) for k in range(1, n + 1)]


def maj_at_k(groups: list[int | None], correct: list[bool], scores: Sequence[float] | None = None) -> list[float]:
    """For k = 1..N, the share of the subsets of k of one question's N samples whose vote is correct, as `vote` decides
    it for a subset.

    correct: of each sample, whether its answer is right. The subsets are counted, not gone through: exactly, but for
    ties between groups that have more than 1,000 subsets of the tied size. Who wins these is estimated from 128 subsets
    of each (a standard error of at most 0.045 times the share of such ties), and where more than 6 groups may tie, from
    32 classes of scores. Of more than 256 samples all is estimated, from 2,000 random orders (a standard error of at
    most 0.011). What is drawn is the same in every call. Raises ValueError where there is not one score, or one
    `correct`, for each sample.
    """
    if len(correct) != len(groups):
        raise ValueError(f"{len(groups)} samples, but 'correct' for {len(correct)}")
    scores, n = _deciding(scores, len(groups)), len(groups)
    values = np.zeros(n) if scores is None else np.asarray(scores, dtype=float)
    if n > COUNTED:
        return _estimated(groups, np.array(correct), values)
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        if group is not None:
            members.setdefault(group, []).append(i)
    of_ties = None if scores is None else values
    ties = [_Ties(np.array(indices), of_ties, number) for number, indices in enumerate(members.values())]
    right = np.zeros(n + 1)  # subsets of each size with a right vote
    for group in ties:
        if any(correct[i] for i in group.members):
            right += _wins(group, [other for other in ties if other is not group], n, np.array(correct))
    return np.minimum(right / _binomials(n), 1)[1:].tolist()


class _Ties:
    """What a group of n equal answers brings into a tie in which m of its samples stand.

    members (n,): its samples' indices, ascending; scores (N,): of all samples, None where they decide nothing; number:
    of the group.
    """

    def __init__(self, members: np.ndarray, scores: np.ndarray | None, number: int):
        self.members, self.size, self.scores, self.number = members, len(members), scores, number
        self._drawn: tuple[np.ndarray, np.ndarray] | None = None

    def is_drawn(self, m: int) -> bool:
        """Whether `subsets` draws."""
        return self.scores is not None and math.comb(self.size, m) > ALL_SUBSETS

    def subsets(self, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(keys, firsts, weights) of its subsets of m samples, or of DRAWN ones: complex keys in the order in which a
        tie is lost and won (real part: sum of scores; then the first sample, the later the worse), the first samples
        and the shares of the subsets that these stand for, which add up to 1."""
        n = self.size
        if self.scores is None:  # only the first sample counts
            firsts = self.members[: n - m + 1]
            return -1j * firsts, firsts, _first_weights(n, m)
        if self.is_drawn(m):
            if self._drawn is None:
                # (n, DRAWN): the first m of an order are a random subset. No two groups have the same order in a place.
                chosen = self.members[np.roll(_orders(n), self.number, axis=1)]
                totals, firsts = self.scores[chosen], chosen
                for j in range(1, n):  # two loops of accumulate are slower
                    totals[j] += totals[j - 1]
                    np.minimum(firsts[j], firsts[j - 1], out=firsts[j])
                self._drawn = _keys(totals, firsts), firsts
            return self._drawn[0][m - 1], self._drawn[1][m - 1], _even_weights(DRAWN)
        chosen = self.members[_all_subsets(n, m)]  # (m, S)
        scores = self.scores[chosen]  # added up one by one, as `vote` does, so that rounding breaks no other ties
        totals = scores.sum(axis=0) if scores.shape[1] > 1 else scores.cumsum()[-1:]
        return _keys(totals, chosen[0]), chosen[0], _even_weights(len(totals))


def _keys(totals: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    keys = totals.astype(complex)
    keys.imag = -firsts
    return keys


@lru_cache(1024)
def _even_weights(count: int) -> np.ndarray:
    return np.full(count, 1 / count)


@lru_cache(1024)
def _first_weights(n: int, m: int) -> np.ndarray:
    """Of the subsets of m of n samples, the shares whose first sample is the first, the second, .. of the n."""
    return np.array([math.comb(n - 1 - i, m - 1) / math.comb(n, m) for i in range(n - m + 1)])


@lru_cache(256)
def _all_subsets(n: int, m: int) -> np.ndarray:
    """(m, C(n, m)): the subsets of m of n things."""
    return np.array(list(itertools.combinations(range(n), m)), dtype=np.int16).T.copy()


@lru_cache(256)
def _orders(n: int) -> np.ndarray:
    """(n, DRAWN): random orders of n things, the same in every call."""
    return np.random.default_rng(n).random((n, DRAWN)).argsort(axis=0).astype(np.int16)


@lru_cache(1024)
def _binomials(n: int) -> np.ndarray:
    """C(n, 0) .. C(n, n)."""
    return np.array([float(math.comb(n, j)) for j in range(n + 1)])


def _wins(group: _Ties, others: list[_Ties], n: int, correct: np.ndarray) -> np.ndarray:
    """For k = 0..n, the number of subsets of k of n samples in which `group` wins with a sample that is correct."""
    wins, all_correct = np.zeros(n + 1), correct[group.members].all()
    for m in range(1, group.size + 1):
        # m of the group win over fewer than m of each rival, or over m with lower keys. What cannot have m is free.
        rivals = [other for other in others if other.size >= m]
        free = n - group.size - sum(rival.size for rival in rivals)
        if not rivals and all_correct:
            ways = np.ones(1)
        else:
            keys, firsts, weights = group.subsets(m)
            shares = [_share_below(rival, m, keys, group.is_drawn(m)) for rival in rivals]
            beaten = np.array(shares).reshape(len(rivals), len(keys))
            chances = [_binomials(rival.size)[: m + 1] for rival in rivals]
            ways = _ways(chances, weights * correct[firsts], beaten)
        ways = _binomials(group.size)[m] * np.convolve(ways, _binomials(free))
        wins[m : m + len(ways)] += ways
    return wins


def _share_below(rival: _Ties, m: int, keys: np.ndarray, drawn: bool) -> np.ndarray:
    """For each key, the share of the rival's subsets of m samples that lose a tie against it; of drawn keys and drawn
    subsets, 0 or 1 for the subset in the key's place."""
    others, _, weights = rival.subsets(m)
    if drawn and rival.is_drawn(m):
        return others < keys
    order = np.argsort(others)
    shares = np.concatenate([[0.0], np.cumsum(weights[order])])
    return shares[np.searchsorted(others[order], keys)]


def _ways(rivals: list[np.ndarray], weights: np.ndarray, beaten: np.ndarray) -> np.ndarray:
    """The polynomial whose coefficient of x^j counts the ways to choose j samples of the rivals and not to lose.

    rivals: each one's C(size, 0) .. C(size, m); weights (S,): of the winner's subsets; beaten (R, S): for each rival
    and subset of the winner, the share of the rival's subsets of m that lose against it. That is the sum over s of
    weights[s] times the product over the rivals r of C(r, 0) + .. + C(r, m-1) x^(m-1) + beaten[r, s] C(r, m) x^m.
    """
    if len(rivals) > FEW_RIVALS:
        weights, beaten = _in_classes(weights, beaten)
        ways = weights[:, None]
        for chances, share in zip(rivals, beaten, strict=True):
            ways = _product(ways, share[:, None] * ways, chances)
        return ways.sum(axis=0)
    # The product is linear in each rival's share, so only the means of the shares' products are needed, for each set of
    # rivals: 2^R numbers.
    half = len(rivals) // 2
    low, high = _all_products(weights, beaten[:half]), _all_products(np.ones(len(weights)), beaten[half:])
    ways = (high @ low.T).reshape(-1, 1)  # in this order the last rival parts the rows into halves
    for chances in reversed(rivals):
        half = len(ways) // 2
        ways = _product(ways[:half], ways[half:], chances)
    return ways[0]


def _all_products(start: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(2^R, S): `start` (S,) times the product of each set of the R shares."""
    products = start[None]
    for share in shares:
        products = np.concatenate([products, products * share])
    return products


def _product(ways: np.ndarray, tied: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Row by row, `ways` times the polynomial `chances`, its last coefficient times `tied` instead."""
    (rows, width), m = ways.shape, len(chances) - 1
    product = np.zeros((rows, width + m))
    if width == 1:
        product[:, :m] = ways * chances[:m]
    elif rows < m:
        for row, one in zip(product, ways, strict=True):
            row[: width + m - 1] = np.convolve(one, chances[:m])
    else:
        for j in range(m):
            product[:, j : j + width] += chances[j] * ways
    product[:, m:] += chances[m] * tied
    return product


def _in_classes(weights: np.ndarray, beaten: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most BINS subsets of the winner instead of all: the means of those that beat about as many rivals."""
    if len(weights) <= BINS:
        return weights, beaten
    order = np.argsort(beaten.sum(axis=0))
    starts = np.linspace(0, len(order), BINS, endpoint=False).astype(int)
    total = np.add.reduceat(weights[order], starts)
    shares = np.add.reduceat((weights * beaten)[:, order], starts, axis=1)
    return total, shares / np.where(total, total, 1)


def _estimated(groups: list[int | None], correct: np.ndarray, scores: np.ndarray) -> list[float]:
    """maj@k of many samples: the first k of a random order are a random subset of k, so that one pass through ORDERS
    orders gives all k."""
    n, rng, rows = len(groups), np.random.default_rng(len(groups)), np.arange(BLOCK)
    nobody = 1 + max((group for group in groups if group is not None), default=-1)
    group_of = np.array([nobody if group is None else group for group in groups])
    correct, right = np.append(correct, False), np.zeros(n)  # the last one for "nobody voted"
    for _ in range(ORDERS // BLOCK):
        orders = rng.permuted(np.tile(np.arange(n), (BLOCK, 1)), axis=1)  # (B, N)
        sizes = np.zeros((BLOCK, nobody + 1), dtype=np.int32)
        totals, firsts = np.zeros(sizes.shape), np.full(sizes.shape, n, dtype=np.int32)
        winner = np.full(BLOCK, nobody)
        size, total, first = np.zeros(BLOCK, dtype=np.int32), np.zeros(BLOCK), np.full(BLOCK, n, dtype=np.int32)
        for k in range(n):
            sample = orders[:, k]
            group = group_of[sample]
            at = rows, group
            sizes[at] += group != nobody
            totals[at] += scores[sample]
            firsts[at] = np.minimum(firsts[at], sample)
            better = (totals[at] > total) | ((totals[at] == total) & (firsts[at] < first))
            wins = (group == winner) | (sizes[at] > size) | ((sizes[at] == size) & better)
            wins &= group != nobody
            winner, size = np.where(wins, group, winner), np.where(wins, sizes[at], size)
            total, first = np.where(wins, totals[at], total), np.where(wins, firsts[at], first)
            right[k] += np.count_nonzero(correct[first])
    shares = right / ORDERS
    shares[0] = correct[:-1][group_of != nobody].sum() / n  # of one sample there is nothing to estimate
    return shares.tolist()
