"""How often the 95 % intervals of reports hold the truth, by simulation: the tables of docs/results/intervals.md.

    python benchmarks/intervals.py [DRAWS]      # of each cell, default 10,000: minutes on one core

A question has its own chance of being answered right, drawn from a beta distribution with mean p. `alike` is the
correlation of two samples of one question: 0, all questions are equally hard; 1, each is always right or always wrong.
Where p is 1 every interval that holds 1 covers in 100 %. Where few answers are wrong, the steps of counting leave no
interval with 95 %: the table then has the nearest above. `bootstrap` is what was printed before.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lta_thinker.evaluation.intervals import difference_interval, share_interval  # noqa: E402

CHANCES, QUESTIONS, SAMPLES = (0.5, 0.9, 0.99, 1.0), (20, 50, 500), 10
RESAMPLES = 1000  # of the bootstrap, which is drawn a twentieth as often as the others


def chances(rng: np.random.Generator, p: float, alike: float, count: int) -> np.ndarray:
    """Each question's chance, (count,)."""
    if p == 1.0 or alike == 0:
        return np.full(count, p)
    if alike == 1:
        return (rng.random(count) < p).astype(float)
    both = 1 / alike - 1  # the beta distribution's two parameters together
    return rng.beta(p * both, (1 - p) * both, count)


def shares(rng: np.random.Generator, p: np.ndarray, samples: int) -> np.ndarray:
    return rng.binomial(samples, p) / samples


def one(rng: np.random.Generator, p: float, alike: float, count: int, samples: int) -> tuple:
    """Shares of one evaluation, and what their mean should be."""
    return (shares(rng, chances(rng, p, alike, count), samples),), p


def pair(rng: np.random.Generator, p: float, alike: float, count: int, samples: int, gain: float = 0.0) -> tuple:
    """Shares of two evaluations of the same questions, as hard for both; b answers `gain` of what a cannot."""
    own = chances(rng, p, alike, count)
    return (shares(rng, own, samples), shares(rng, own + gain * (1 - own), samples)), gain * (1 - p)


def lift(rng: np.random.Generator, p: float, alike: float, count: int, samples: int) -> tuple:
    return pair(rng, p, alike, count, samples, gain=0.5)


def bootstrap(rng: np.random.Generator, values: np.ndarray) -> tuple[float, float]:
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def coverage(
    draw: Callable, interval: Callable, p: float, alike: float, count: int, samples: int, draws: int, seed: int = 0
) -> tuple[float, float]:
    """(share of the draws whose interval holds the truth, mean width of the intervals)."""
    rng, hits, width = np.random.default_rng(seed), 0, 0.0
    for _ in range(draws):
        values, truth = draw(rng, p, alike, count, samples)
        found = interval(*values, samples)
        hits += found.low - 1e-12 <= truth <= found.high + 1e-12
        width += found.high - found.low
    return hits / draws, width / draws


def coverage_of_bootstrap(draw: Callable, p: float, alike: float, count: int, samples: int, draws: int) -> float:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(draws):
        values, truth = draw(rng, p, alike, count, samples)
        low, high = bootstrap(rng, values[-1] - values[0] if len(values) == 2 else values[0])
        hits += low - 1e-12 <= truth <= high + 1e-12
    return hits / draws


TABLES = {
    "one vote, or one sample a question": (one, share_interval, 1, (0.0,)),
    f"one sample of {SAMPLES}": (one, share_interval, SAMPLES, (0.0, 0.3, 0.7, 1.0)),
    "votes, no difference": (pair, difference_interval, 1, (0.0, 0.5)),
    "votes, b right in half of what a is not": (lift, difference_interval, 1, (0.0, 0.5)),
    f"one sample of {SAMPLES}, no difference": (pair, difference_interval, SAMPLES, (0.0, 0.3, 0.7)),
    f"one sample of {SAMPLES}, b right in half of what a is not": (lift, difference_interval, SAMPLES, (0.0, 0.3, 0.7)),
}


def main(draws: int) -> None:
    print(f"{draws:,} draws a cell: coverage in %, mean width in points; bootstrap's coverage ({draws // 20:,} draws)")
    for title, (draw, interval, samples, likes) in TABLES.items():
        print(f"\n{title}\n\n| p | alike |" + "".join(f" N = {count} |" for count in QUESTIONS))
        print("| --- | --- |" + " --- |" * len(QUESTIONS))
        for p in CHANCES:
            for alike in likes if p < 1 else likes[:1]:
                cells = []
                for count in QUESTIONS:
                    found, width = coverage(draw, interval, p, alike, count, samples, draws)
                    before = coverage_of_bootstrap(draw, p, alike, count, samples, max(1, draws // 20))
                    cells.append(f" {100 * found:.1f}, {100 * width:.1f}; {100 * before:.0f} |")
                print(f"| {p} | {alike} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("draws", type=int, nargs="?", default=10_000, metavar="DRAWS")
    main(parser.parse_args().draws)
