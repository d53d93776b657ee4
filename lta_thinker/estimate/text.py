"""An estimate as a person reads it: one screen."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

from lta_thinker.estimate.cards import CARDS, MEASURED, Card, room
from lta_thinker.estimate.cost import Cost

GB = 1e9


def gigabytes(size: float) -> str:
    """Bytes in GB, to three digits."""
    return f"{size / GB:.3g} GB" if size < 1000 * GB else f"{size / GB:,.0f} GB"


def memory_lines(peak: Cost, what: str) -> list[str]:
    """The peak of memory, and its parts."""
    parts = sorted(peak.parts.items(), key=lambda part: -part[1])
    return [
        f"  memory of each GPU: {gigabytes(peak.peak)} at its peak ({what})",
        f"    {', '.join(f'{name} {size / GB:.2f}' for name, size in parts)}",
    ]


def work_line(name: str, cost: Cost) -> str:
    """Operations, bytes and kernels of some work."""
    operations = (
        f"{cost.operations / 1e12:.3g} TFLOP" if cost.operations >= 1e9 else f"{cost.operations:.3g} operations"
    )
    return f"    {name}: {operations}, {gigabytes(cost.moved)} read and written, {cost.kernels:,} kernels"


def disk_lines(disk: Mapping[str, float]) -> list[str]:
    """Bytes on disk by what they are for."""
    return [f"  disk: {'; '.join(f'{gigabytes(size)} {name}' for name, size in disk.items())}"] if disk else []


def largest_batch(card: Card, peaks: Mapping[int, float]) -> int:
    """The largest batch that fits on a card, from the peaks at 1 and at some larger sizes; 0: none, the last size where
    that fits. Between two sizes a peak is no higher than their chord: at each moment it grows evenly with the rows, and
    it is the largest of these. Beyond the last one nothing is known."""
    sizes, largest = sorted(peaks), 0
    if peaks[sizes[0]] > room(card):
        return 0
    for less, more in pairwise(sizes):
        a_row = max((peaks[more] - peaks[less]) / (more - less), 1.0)
        largest = less + int((room(card) - peaks[less]) // a_row)
        if largest < more:
            return largest
    return sizes[-1]


def fits(card: Card, peaks: Mapping[int, float], size: int, unit: str) -> str:
    """Which batches fit on a card, in words."""
    largest = largest_batch(card, peaks)
    if largest == 0:
        return f"does not fit: one {unit} takes {gigabytes(peaks[1])}"
    verdict = "fits" if largest >= size else "does not fit"
    most = "at least" if largest == max(peaks) else "up to"
    return f"--batch_size {size} {verdict}, {most} {largest:,} does"


def hours_text(hours: Mapping[str, float], gpus: int) -> str:
    """Hours of the run by what they go to, and GPU hours."""
    whole = sum(hours.values())
    parts = ", ".join(f"{name} {value:.2g}" for name, value in hours.items())
    times = f"; x {gpus} GPUs = {whole * gpus:.3g} GPU hours" if gpus > 1 else ""
    return f"{whole:.3g} hours ({parts}){times}"


def chosen(card: str | None) -> list[Card]:
    """The card of --card, else all."""
    return [CARDS[card]] if card else list(CARDS.values())


def rates_lines(cards: Iterable[Card], dtype: str) -> list[str]:
    """Where hours come from: the cards' rates and what was measured."""
    rates = [
        f"    {card.name}: {card.rates[dtype] / 1e12:g} TFLOP/s, {card.bandwidth / 1e12:.3g} TB/s ({card.source})"
        for card in cards
    ]
    share, kernel = f"{MEASURED.arithmetic:.0%}", f"{MEASURED.seconds_a_kernel * 1e6:g} us"
    return [
        f"  hours: the slowest of operations at {share} of the {dtype} peak, bytes at their peak, {kernel} a kernel;",
        f"    loading the models is not in them. {share}, {kernel} measured: {MEASURED.what}",
        *rates,
    ]
