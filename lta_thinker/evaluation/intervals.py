"""95 % intervals of the figures in a report. Questions are what is drawn; a question's samples belong together.

share_interval        an accuracy: Agresti and Coull (1998), with a vote or a sample for each question
difference_interval   two accuracies of the same questions: Bonett and Price (2012)
mean_interval         a mean of numbers of any size: Student's

The first two are made for ones and zeros. With several samples a question they count as many independent ones as would
give a mean of this variance, at least one a question and at most all samples (Korn and Graubard 1998). So all right is
not "100 [100, 100]". How often they cover: benchmarks/intervals.py.
"""

import math
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # of the normal distribution: 97.5 % lie below


@dataclass(frozen=True)
class Interval:
    """A mean over questions with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        value, low, high = 100 * self.value, 100 * self.low, 100 * self.high
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def nats(value: float, low: float | None, high: float | None) -> str:
    """A mean over questions in nats an answer with its interval, where it has one, as text."""
    return f"{value:.3g} nats an answer" + ("" if low is None or high is None else f" [{low:.3g}, {high:.3g}]")


def share_interval(shares, samples: int = 1) -> Interval:
    """The mean of `shares` (K,), each the share of right ones among a question's `samples`."""
    shares = np.asarray(shares, dtype=float)
    mean = float(shares.mean())
    size, quantile = _effective_size(mean * (1 - mean), shares, samples)
    added = quantile**2
    centre = (size * mean + added / 2) / (size + added)
    half = quantile * math.sqrt(centre * (1 - centre) / (size + added))
    return Interval(mean, max(0.0, centre - half), min(1.0, centre + half))


def difference_interval(a, b, samples: int = 1) -> Interval:
    """The mean of b - a, paired: shares (K,) of right ones among a question's `samples` in each of two evaluations."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    won, lost = float((b * (1 - a)).mean()), float((a * (1 - b)).mean())  # one sample of each: only b's, only a's right
    size, quantile = _effective_size(won + lost - (won - lost) ** 2, b - a, samples)
    won, lost = (size * won + 1) / (size + 2), (size * lost + 1) / (size + 2)
    half = quantile * math.sqrt((won + lost - (won - lost) ** 2) / (size + 2))
    return Interval(float((b - a).mean()), max(-1.0, won - lost - half), min(1.0, won - lost + half))


def mean_interval(values) -> Interval | None:
    """The mean of `values` (K,); None for fewer than two."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return None
    mean, half = float(values.mean()), t_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def _effective_size(variance: float, values: np.ndarray, samples: int) -> tuple[float, float]:
    """(how many independent draws of this variance have a mean as sure as that of `values`, the quantile for it)."""
    count = len(values)
    if samples == 1 or count == 1 or variance <= 0:
        return count, Z
    of_mean = float(values.var(ddof=1)) / count
    size = min(count * samples, variance / of_mean) if of_mean else count * samples
    return (size, t_quantile(count - 1)) if size > count else (count, Z)


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with that many degrees of freedom (Abramowitz and Stegun 26.7.5, right
    to 0.004 from 3 on; 1 and 2 have closed forms)."""
    if freedom < 3:
        return {1: math.tan(0.475 * math.pi), 2: 0.95 * math.sqrt(2 / (1 - 0.95**2))}[freedom]
    z = Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
