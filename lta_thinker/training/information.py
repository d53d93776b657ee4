"""Information of the thoughts: by how much the LLM's loss on dev rises when it reads another question's thoughts."""

import math

import torch
from torch import Tensor

from lta_thinker.rows.batch import sum_by_row


class Information:
    """Differences of dev rows' SFT losses, with another question's thoughts less with their own, kept as sums, which
    ranks can add up.

    sums: (4,) float64 of rows, their target tokens, the rows' differences in nats, and the squares of these.
    """

    NAMES = ("information", "information_low", "information_high", "information_per_token")

    def __init__(self, sums: Tensor | None = None):
        self.sums = torch.zeros(4, dtype=torch.float64) if sums is None else sums

    def add(self, rises: Tensor, batch: dict[str, Tensor], rows: slice) -> None:
        """rises (T,): the differences of a TrainingCollator batch's target tokens; rows: those that count."""
        by_row = sum_by_row(rises.double(), batch)[rows]
        tokens = (batch["labels"][rows] != -100).sum()
        self.sums += torch.stack([tokens.new_tensor(len(by_row)), tokens, by_row.sum(), by_row.square().sum()]).cpu()

    def figures(self) -> dict[str, float]:
        """By NAMES: nats an answer with its 95 % interval (normal, over the rows), and nats a token. Of fewer than two
        rows there is no interval, and nothing is said: {}."""
        rows, tokens, total, squares = self.sums.tolist()
        if rows < 2:
            return {}
        mean = total / rows
        variance = max(0.0, squares - rows * mean**2) / (rows - 1)
        half = 1.96 * math.sqrt(variance / rows)
        return dict(zip(self.NAMES, (mean, mean - half, mean + half, total / tokens), strict=True))
