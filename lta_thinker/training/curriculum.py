"""The forms in which rows are trained, and Coconut's curriculum (arXiv 2412.06769, section 3): which form when.

    stage 0         question                     -> all steps, answer
    stage k         question, k x c thoughts     -> the steps behind the first k, answer        k = 1 .. K
    last stage      question, K x c thoughts     -> answer

Every stage has all rows, in its form. The epoch alone says which stage it is, so a resumed run sees the same rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler
from transformers import TrainerCallback

from lta_thinker.rows.examples import Example


@dataclass(frozen=True)
class Form:
    """What is written of a row, behind how many thoughts. skipped: so many of its first steps are left out, None: all
    of them (then the target is the answer alone)."""

    skipped: int | None
    thoughts: int

    def of(self, example: Example) -> Example:
        """The example in this form."""
        return replace(example, steps=() if self.skipped is None else example.steps[self.skipped :])


@dataclass(frozen=True)
class Curriculum:
    """forms: one a stage; epochs: of every stage but the last, which lasts to the end. mix: the share of rows that are,
    in every epoch anew, in the form of a random stage: of any from 0 to the number of the row's steps (published)."""

    forms: tuple[Form, ...]
    epochs: int = 1
    mix: float = 0.0

    def stage(self, epoch: int) -> int:
        """The stage of an epoch, which is its form's place."""
        return min(epoch // self.epochs, len(self.forms) - 1)


def in_stages(num_stages: int, thoughts_per_step: int, epochs: int, mix: float) -> Curriculum:
    """Coconut's curriculum: K = num_stages, c = thoughts_per_step. A row with fewer than k steps has k x c thoughts in
    stage k all the same (published)."""
    stages = [Form(k, k * thoughts_per_step) for k in range(num_stages + 1)]
    return Curriculum((*stages, Form(None, num_stages * thoughts_per_step)), epochs, mix)


class StagedRows(torch.utils.data.Dataset):
    """The rows of all forms, one form behind the other; each knows how many thoughts it has."""

    def __init__(self, rows: Any, curriculum: Curriculum):
        self.rows, self.curriculum = rows, curriculum
        self.of_a_form = len(rows) // len(curriculum.forms)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        return self.rows[i] | {"thoughts": self.curriculum.forms[i // self.of_a_form].thoughts}


class StageOrder(torch.utils.data.Sampler):
    """The library's random order of rows, as places in StagedRows: each row in the form of the epoch's stage.

    steps: how many each row has, before any is left out; seed: of the rows that --coconut_mix puts into other stages.
    """

    def __init__(self, order: SeedableRandomSampler, curriculum: Curriculum, steps: Sequence[int], seed: int):
        self.order, self.curriculum, self.steps, self.seed = order, curriculum, np.array(steps), seed

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        epoch = self.order.epoch
        rng = np.random.default_rng([self.seed, epoch])
        stages = np.full(len(self.steps), self.curriculum.stage(epoch))
        mixed = rng.random(len(stages)) < self.curriculum.mix
        others = np.minimum(rng.integers(0, self.steps + 1), len(self.curriculum.forms) - 1)
        stages = np.where(mixed, others, stages)
        for row in self.order:
            yield int(stages[row]) * len(stages) + row

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)


class ResetOptimizer(TrainerCallback):
    """At the start of every stage but the first the optimiser forgets its moments (published: at every epoch's)."""

    def __init__(self, curriculum: Curriculum):
        self.curriculum = curriculum

    def on_epoch_begin(self, args, state, control, optimizer=None, **kwargs):
        epoch = state.epoch or 0
        begins = epoch == int(epoch)  # not where a run goes on inside an epoch
        assert optimizer is not None
        if begins and epoch and self.curriculum.stage(int(epoch)) != self.curriculum.stage(int(epoch) - 1):
            optimizer.state.clear()
