"""Hours of the commands of bash/reproduce_paper.sh before anything was measured: those of --estimate.

A training and an evaluation of each pair of models run on fake tensors, once; other tasks and generators of the pair
are that work times their columns. Lengths are those of up to ROWS rows of a task, evenly spaced.
"""

import contextlib
import io
from dataclasses import replace
from typing import Any

from lta_thinker.common import InputError
from lta_thinker.data_loader import find_source
from lta_thinker.estimate.cards import CARDS, seconds_of
from lta_thinker.estimate.cost import Cost
from lta_thinker.evaluate import sampling_settings
from lta_thinker.evaluation import estimate as of_evaluation
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import load_layout, make_plan
from lta_thinker.flags import parse_flags
from lta_thinker.rows.examples import Task
from lta_thinker.training import estimate as of_training
from lta_thinker.training.declared import REFUSED
from lta_thinker.training.flags import TrainArguments

ROWS = 200


def scaled(cost: Cost, factor: float) -> Cost:
    """Work that is `factor` times as much in as many kernels."""
    return replace(cost, operations=cost.operations * factor, moved=round(cost.moved * factor))


class Pair:
    """The estimates of one pair of models, each run when it is first asked for."""

    def __init__(self, card: str, gpus: int):
        self.card, self.gpus = CARDS[card], max(gpus, 1)
        self.training: Any = None
        self.evaluation: Any = None

    def seconds(self, dtype: str):
        """Cost -> seconds on the card."""
        return lambda cost: seconds_of(cost, self.card, dtype)

    def of_training(self, flags: list[str]) -> float:
        """Seconds of a training with these flags."""
        given = [*flags, "--estimate", "--gpus", str(self.gpus)]
        args = parse_flags(TrainArguments, given, "train.py", REFUSED)
        check_here(args.task, "train", args.data_dir)
        layout = of_training.layout_of(args)
        rows = of_training.some_rows(args, layout, ROWS)
        if self.training is None:
            self.training = of_training.estimate(args, rows, layout, memory=False)
        columns = max(map(of_training.columns_of, of_training.mean_rows(args, rows.rows))) + args.num_thought_tokens
        factor = columns / self.training.columns["mean"]
        own = {name: scaled(getattr(self.training, name), factor) for name in ("micro", "dev")}
        found = replace(self.training, rows=rows, **own)
        return 3600 * sum(of_training.hours_of(args, found, self.seconds(args.dtype)).values())

    def of_evaluation(self, flags: list[str]) -> float:
        """Seconds of an evaluation with these flags."""
        given = [*flags, "--estimate", "--gpus", str(self.gpus)]
        args = parse_flags(EvaluationArguments, given, "evaluate.py")
        plan = make_plan(args, device="cpu")
        check_here(plan.task, args.split, args.data_dir)
        settings, layout = sampling_settings(args, plan), load_layout(plan)
        questions = of_evaluation.some_questions(args, plan, layout, ROWS)
        if self.evaluation is None:
            self.evaluation = of_evaluation.estimate(args, plan, settings, questions, layout, memory=False)
        found = replace(self.evaluation, questions=questions)
        return 3600 * sum(of_evaluation.hours_of(args, settings, found, self.seconds(plan.dtype)).values())


def check_here(task: Task, split: str, data_dir: str) -> None:
    """InputError where a split's rows are on the hub: a list downloads nothing."""
    if find_source(task, split if split in task.sources else "train", data_dir).startswith("hub:"):
        raise InputError(f"{task.name}: no {split} rows in {data_dir}")


def estimated_seconds(items, card: str, gpus: int) -> dict[str, float]:
    """Seconds of each kind of item (paper.Item); without those whose models' config or rows are not here."""
    pairs: dict[tuple, Pair] = {}
    found: dict[str, float] = {}
    for item in items:
        if item.kind in found:
            continue
        pair = pairs.setdefault(item.pair, Pair(card, gpus))
        work = pair.of_training if item.script == "train.py" else pair.of_evaluation
        with contextlib.suppress(InputError), contextlib.redirect_stdout(io.StringIO()):  # its notes
            found[item.kind] = work(item.flags)
    return found
