"""Intervals: published figures, what they cover, and that all right is no certainty."""

import math

import numpy as np
import pytest

from benchmarks.intervals import coverage, lift, one, pair
from lta_thinker.evaluation.intervals import difference_interval, mean_interval, share_interval, t_quantile


def ones(right: int, of: int) -> list[int]:
    return [1] * right + [0] * (of - right)


def test_intervals_are_the_published_ones():
    """Votes have the intervals of Agresti and Coull and of Bonett and Price; means and quantiles are Student's."""
    # 45 of 50; the airway hyper-responsiveness of Fagerland, Lydersen and Laake (2014): 1 and 7 discordant pairs of 21
    found = share_interval(ones(45, 50))
    assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.7820, 0.9609), abs=2e-4)
    before, after = ones(1, 21), [0] + ones(7, 20)
    found = difference_interval(after, before)
    assert (found.value, found.low, found.high) == pytest.approx((-6 / 21, -0.508, -0.013), abs=1e-3)
    found = mean_interval([1.0, 2.0, 3.0, 6.0])  # sd 2.1602
    assert (found.value, found.low, found.high) == pytest.approx((3, 3 - 3.437, 3 + 3.437), abs=5e-3)
    for freedom, quantile in {3: 3.1824, 4: 2.7764, 9: 2.2622, 19: 2.0930, 49: 2.0096, 499: 1.9647}.items():
        assert t_quantile(freedom) == pytest.approx(quantile, abs=4e-3)
    assert mean_interval([1.0]) is None


@pytest.mark.parametrize("count", [1, 2, 4, 20, 500])
@pytest.mark.parametrize("samples", [1, 10])
def test_all_right_is_no_certainty(count, samples):
    """Where all or none are right, or nothing differs, the interval still has a width, and holds what was seen."""
    all_right, none = share_interval([1.0] * count, samples), share_interval([0.0] * count, samples)
    assert all_right.value == all_right.high == 1 and 0 < all_right.low < 1
    assert (none.low, none.high) == pytest.approx((0, 1 - all_right.low))
    for a, b, value in ((1.0, 1.0, 0), (0.0, 0.0, 0), (0.0, 1.0, 1), (0.5, 0.5, 0), (0.0, 0.5, 0.5)):
        found = difference_interval([a] * count, [b] * count, samples)
        assert found.value == value and found.low <= value <= found.high and found.high - found.low > 1e-3
        assert -1 <= found.low and found.high <= 1


def test_samples_of_a_question_count_together():
    """Ten samples that always agree say as much as one; ten that do not know of each other as ten questions do."""
    rng = np.random.default_rng(0)
    votes = ones(70, 100)
    alone, together = share_interval(votes), share_interval(votes, samples=10)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=2e-3)
    apart = share_interval(rng.binomial(10, 0.7, 100) / 10, samples=10)
    assert apart.high - apart.low == pytest.approx((alone.high - alone.low) / math.sqrt(10), rel=0.15)
    a, b = rng.binomial(10, 0.7, (2, 100)) / 10
    narrow, wide = difference_interval(a, b, samples=10), difference_interval(votes, rng.permutation(votes))
    assert narrow.high - narrow.low == pytest.approx((wide.high - wide.low) / math.sqrt(10), rel=0.25)


@pytest.mark.parametrize("count", [20, 50, 500])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_intervals_of_votes_cover(p, count):
    """The interval of a vote covers in 93 to 97.1 %, by adding up, or, where the steps of counting leave nothing
    there, in as little as they leave above."""
    chances = [math.comb(count, right) * p**right * (1 - p) ** (count - right) for right in range(count + 1)]
    found = [share_interval(ones(right, count)) for right in range(count + 1)]
    held = [chance for chance, one in zip(chances, found, strict=True) if one.low <= p <= one.high]
    assert sum(held) >= 0.93
    assert sum(held) <= 0.971 or sum(held) - min(held) < 0.93, (sum(held), min(held))


@pytest.mark.parametrize(
    ("draw", "interval", "samples", "p", "alike", "count"),
    [
        (one, share_interval, 10, 0.5, 0.3, 20),
        (one, share_interval, 10, 0.9, 0.3, 50),
        (one, share_interval, 10, 0.9, 0.0, 20),
        (pair, difference_interval, 1, 0.5, 0.5, 50),
        (lift, difference_interval, 1, 0.9, 0.0, 50),
        (pair, difference_interval, 10, 0.9, 0.3, 50),
        (lift, difference_interval, 10, 0.5, 0.3, 20),
    ],
)
def test_intervals_cover_in_simulation(draw, interval, samples, p, alike, count):
    """In 600 draws the intervals cover in 92 to 98.5 % (0.9 points are a standard error)."""
    found, _ = coverage(draw, interval, p, alike, count, samples, draws=600)
    assert 0.92 <= found <= 0.985


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (30, 2.0423)])
def test_students_quantiles(freedom, quantile):
    """The 97.5 % quantiles of Student's t are those of the tables."""
    assert t_quantile(freedom) == pytest.approx(quantile, abs=0.004)
