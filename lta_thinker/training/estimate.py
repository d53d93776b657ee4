"""train.py --estimate: what a training takes on a GPU, from its flags, its rows and the LMs' config.json.

The model, the losses, their balance and the optimiser are the run's own; they run over fake tensors (estimate/cost.py).
A micro-batch of the longest rows says the memory, one of the mean length the operations.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from lta_thinker.build import build_layout, build_models
from lta_thinker.common import InputError, counted
from lta_thinker.data_loader import DEV_SHARE, load_split, where_missing, without_worked, worked_examples
from lta_thinker.estimate.cards import seconds_of
from lta_thinker.estimate.cost import Cost, Counter, on_fake_tensors
from lta_thinker.estimate.text import chosen, disk_lines, fits, hours_text, memory_lines, rates_lines, work_line
from lta_thinker.llm.forward import body
from lta_thinker.losses import LOSSES
from lta_thinker.model import LatentThoughtModel
from lta_thinker.rows.batch import TrainingCollator, loss_counts
from lta_thinker.rows.layout import Layout
from lta_thinker.training.balance import LossBalance, weighted_sum
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.rows import prepare_rows
from lta_thinker.training.states import ROWS_AT_ONCE, RowsWithStates, can_keep_states

MANY_ROWS = 64  # of a large micro-batch, whose peak says what a row more takes
UNKNOWN_ROWS = 1000  # where neither the rows nor --rows are there
SPLITS = ("train", "dev")


@dataclass(frozen=True)
class Rows:
    """Rows (Layout.training) whose lengths are those of the run, and how many the run has. note: where they are not the
    run's own."""

    rows: Sequence[dict]
    train: int
    dev: int
    note: str = ""


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training takes.

    peaks: of micro-batches of the longest rows, by their number, 1, --batch_size and MANY_ROWS among them; micro,
    update, dev, states: of a mean micro-batch (forward and backward), of what is done once a step, of a batch of dev
    rows, and of ROWS_AT_ONCE rows of the small LM's states (None: not kept). columns: of the LLM's input, by group of
    rows. disk: bytes by what they are for.
    """

    rows: Rows
    columns: dict[str, int]
    peaks: dict[int, Cost]
    micro: Cost
    update: Cost
    dev: Cost
    states: Cost | None
    disk: dict[str, float]


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def layout_of(args: TrainArguments) -> Layout:
    """The layout of the run's prompts."""
    shots = worked_examples(args.task, args.num_fewshot, args.data_dir, args.skip_bad_rows)
    return build_layout(
        args.spec,
        args.prompts,
        separator=args.task.separator,
        steps_as_turns=args.steps_as_turns,
        worked_examples=shots,
        names_in_text=args.special_tokens_in_text,
    )


def rows_of(args: TrainArguments, layout: Layout) -> Rows:
    """The run's rows, else our own sample of the task. InputError for rows that are there and cannot be used."""
    missing = where_missing(args.task, "train", args.data_dir)
    if missing is None:
        prepared = prepare_rows(args, layout)
        return Rows(prepared.train, len(prepared.train), len(prepared.dev))
    examples = load_split(args.task, "sample", args.data_dir).examples
    count = args.rows or UNKNOWN_ROWS
    given = "--rows" if args.rows else "a number of no meaning: --rows says it"
    sample = f"lengths of the {len(examples)} in data/{args.task_name}/sample.jsonl"
    note = f"no rows in {missing}: {sample}; {count:,} rows ({given})"
    dev = max(1, round(DEV_SHARE * count))
    train = count if "dev" in args.task.sources else count - dev  # the dev rows are taken out of the train rows
    return Rows(layout.training_rows(examples), min(train, args.k_shot or train), dev, note)


def some_rows(args: TrainArguments, layout: Layout, most: int) -> Rows:
    """Up to `most` rows of the run, evenly spaced, and how many there are; nothing is kept on disk. InputError as
    load_split raises it."""
    examples, dev = (load_split(args.task, name, args.data_dir, args.skip_bad_rows).examples for name in SPLITS)
    examples = without_worked(examples, layout.worked_examples)[: args.k_shot or None]
    form = args.curriculum.forms[-1]
    some = [form.of(example) for example in evenly(examples, most)]
    return Rows(layout.training_rows(some), len(examples), len(dev))


def columns_of(row: dict) -> int:
    """The LLM's columns of a row, without thoughts."""
    return len(row["prefix"]) + len(row["suffix"]) + len(row["target"])


def longest_rows(rows: Sequence[dict], count: int) -> list[dict]:
    """The `count` longest rows; over again where there are fewer."""
    lengths = [columns_of(row) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: -lengths[i])
    return [rows[order[i % len(rows)]] for i in range(count)]


def evenly(values: Sequence, most: int) -> list:
    """Up to `most` of the values, evenly spaced."""
    return [values[i] for i in range(0, len(values), math.ceil(len(values) / most))]


def mean_rows(args: TrainArguments, rows: Sequence[dict]) -> list[dict]:
    """The rows of the run's own micro-batch whose padded size is nearest to the mean, of one epoch in random order,
    sorted by length within steps as the Trainer has them."""
    size, lengths = args.per_device_train_batch_size, [columns_of(row) for row in rows]
    order = random.Random(args.seed).sample(range(len(rows)), len(rows))
    order += order[: -len(rows) % size]  # fewer rows than a micro-batch: over again
    order = (order * math.ceil(size / len(order)))[: max(size, len(order))]
    in_step, batches = size * args.gradient_accumulation_steps * gpus_of(args), []
    for start in range(0, len(order), in_step):
        step = sorted(order[start : start + in_step], key=lambda i: -lengths[i])
        batches += [step[at : at + size] for at in range(0, len(step), size)]
    batches = [batch for batch in batches if len(batch) == size]
    columns = [max(lengths[i] for i in batch) for batch in batches]
    mean = sum(columns) / len(columns)
    nearest = min(range(len(batches)), key=lambda i: abs(columns[i] - mean))
    return [rows[i] for i in batches[nearest]]


def gpus_of(args: TrainArguments) -> int:
    """Processes of the run."""
    return args.gpus or args.world_size


# ---------------------------------------------------------------------------------------------------------------------
# One step on fake tensors


class OneRank:
    """What LossBalance needs of an Accelerator, of a run of one process."""

    @staticmethod
    def reduce(tensors, how: str):
        return tensors


class Step:
    """A training step of a model on fake tensors, as the Trainer makes it."""

    def __init__(self, args: TrainArguments, model: LatentThoughtModel, counter: Counter):
        self.args, self.model, self.counter = args, model, counter
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        counter.hold("LLM", [*model.llm.parameters(), *model.llm.buffers()])
        if model.small_lm is not None:
            counter.hold("small LM", [*model.small_lm.parameters(), *model.small_lm.buffers()])
        counter.hold("trained weights", [*model.parameters(), *model.buffers()])
        self.balance = LossBalance(model, OneRank()) if args.balances else None  # type: ignore[arg-type]
        kind, arguments = Trainer.get_optimizer_cls_and_kwargs(args)
        with counter.holding("optimiser"):
            self.optimizer = kind(self.trained, **arguments)
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(lambda p: counter.hold("gradients", [p.grad]))
        self.start()
        self.update()  # the optimiser makes its states in the first step

    def start(self) -> None:
        """As behind an earlier micro-batch of the same step: there are gradients already."""
        with self.counter.holding("gradients"):
            for parameter in self.trained:
                parameter.grad = torch.zeros_like(parameter)
            if self.balance is not None:
                extra = [name for name in self.model.losses if name != "sft" and self.model.weights[name]]
                self.balance.gradients = {name: [torch.zeros_like(p) for p in self.trained] for name in extra}

    def micro_batch(self, batch: dict[str, Tensor]) -> None:
        """Forward and backward; gradients are added to those that there are."""
        sums = self.model(**batch)
        counts = dict(zip(LOSSES, loss_counts(batch).clamp(min=1e-9), strict=True))
        parts = {name: total / counts[name] for name, total in sums.items()}
        weighted_sum(parts, self.model.weights.__getitem__, self.balance).backward()

    def update(self) -> None:
        """What is done once a step."""
        if self.balance is not None:
            self.balance.finish(self.model.weights)
        if self.args.max_grad_norm:
            nn.utils.clip_grad_norm_(self.trained, self.args.max_grad_norm)
        with self.counter.holding("optimiser"):
            self.optimizer.step()
        self.optimizer.zero_grad()


def fake_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A fake tensor for each tensor of a batch."""
    return {name: torch.empty(value.shape, dtype=value.dtype) for name, value in batch.items()}


def with_fake_states(model: LatentThoughtModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A fake batch with the small LM's states, as they are read from the run's file."""
    rows, d, dtype = len(batch["question_ids"]), model.sizes.d_small, model.small_lm.dtype
    assert d is not None
    shapes = {"thought_states": batch["question_ids"].shape[1] + model.num_thoughts}
    if "step_ids" in batch:
        shapes["step_states"] = batch["step_ids"].shape[1]
    return batch | {name: torch.empty(rows, columns, d, dtype=dtype) for name, columns in shapes.items()}


def build_empty(args: TrainArguments, layout: Layout) -> LatentThoughtModel:
    """The run's model on fake tensors."""
    design = replace(args.design, match_scale=False)
    model = build_models(replace(args.spec, design=design, large_part="whole"), layout, None, args.adapters).thoughts
    assert model is not None
    model.scale = 1.0 if args.match_scale else None  # the mean norm of a table is a value, and there are none
    if args.freeze_prior and model.generator.has_prior:
        model.generator.prior.requires_grad_(False)
    if args.recompute_layers:
        model.recompute_layers()
    return model.train()


@dataclass(frozen=True)
class Found:
    """Costs by group of rows, and of the update behind each (GROUP + " update"); trained parameters; bytes that
    --shard_llm spares (shared_bytes)."""

    costs: dict[str, Cost]
    trained: int
    shared: int

    def peak(self, name: str) -> Cost:
        """Whichever has the larger peak, a micro-batch or the update behind it."""
        return largest_of(self.costs[name], self.costs[f"{name} update"])


def largest_of(*costs: Cost) -> Cost:
    """The one with the largest peak."""
    return max(costs, key=lambda cost: cost.peak)


def run_steps(args: TrainArguments, layout: Layout, batches: dict[str, dict], keeps: bool, like: str = "cuda") -> Found:
    """Run batches of TrainingCollator on fake tensors: each a training step's micro-batch, but for "dev", which is
    evaluated, and "states", whose rows the small LM reads. keeps: whether the others have its states."""
    with on_fake_tensors(like):
        model, costs = build_empty(args, layout), {}
        fakes = {name: fake_batch(batch) for name, batch in batches.items()}
        if keeps:
            fakes |= {name: with_fake_states(model, fakes[name]) for name in fakes.keys() - {"states"}}
        with Counter() as counter:
            step = Step(args, model, counter)
            for name in [name for name in fakes if name not in ("dev", "states")]:
                if args.gradient_accumulation_steps > 1:
                    step.start()
                counter.restart()
                step.micro_batch(fakes[name])
                costs[name] = counter.restart()
                step.update()
                costs[f"{name} update"] = counter.restart()
            with torch.no_grad():
                model.eval()
                if "dev" in fakes:
                    evaluate_dev(model, fakes["dev"])
                    costs["dev"] = counter.restart()
                if "states" in fakes:
                    model.states(fakes["states"])
                    costs["states"] = counter.restart()
        return Found(costs, sum(parameter.numel() for parameter in step.trained), shared_bytes(args, model))


def evaluate_dev(model: LatentThoughtModel, batch: dict[str, Tensor]) -> None:
    """As the Trainer evaluates a batch of dev rows: with their own thoughts, and with those of others."""
    model(**batch)
    if model.generator.reads_question:
        thoughts = model.last_thoughts
        model.target_losses(batch, thoughts[:, None] if model.design.num_chains == 1 else thoughts)


def estimate(args: TrainArguments, rows: Rows, layout: Layout, memory: bool = True) -> TrainingEstimate:
    """What a training with these rows takes. memory: whether the longest micro-batches are run; else there are no
    peaks. InputError for what cannot be run without values."""
    size = args.per_device_train_batch_size
    collator = TrainingCollator(layout, bool(args.focus_loss_weight) or args.thoughts_see_steps)
    mean, keeps = mean_rows(args, rows.rows), can_keep_states(args, rows.train)
    dev_rows = (mean * args.per_device_eval_batch_size)[: args.per_device_eval_batch_size]
    batches = {"mean": collator(mean), "dev": TrainingCollator(layout, steps=True)(dev_rows)}
    if keeps:
        batches["states"] = collator((mean * ROWS_AT_ONCE)[:ROWS_AT_ONCE])
    if memory:
        batches |= {f"longest {count}": collator(longest_rows(rows.rows, count)) for count in {1, size, MANY_ROWS}}
    found = run_steps(args, layout, batches, keeps)
    costs = found.costs
    others = [costs["dev"], costs.get("states", Cost())]
    peaks = {count: found.peak(f"longest {count}") for count in ({1, size, MANY_ROWS} if memory else ())}
    peaks = {count: with_ranks(args, largest_of(cost, *others), found) for count, cost in peaks.items()}
    return TrainingEstimate(
        rows=rows,
        columns={name: columns_in(batch, args.num_thought_tokens) for name, batch in batches.items()},
        peaks=peaks,
        micro=costs["mean"],
        update=costs["mean update"],
        dev=costs["dev"],
        states=costs.get("states"),
        disk=disk_of(args, rows, layout, found.trained, keeps),
    )


def columns_in(batch: dict[str, Tensor], num_thoughts: int) -> int:
    """The LLM's columns of a batch of TrainingCollator, with padding."""
    return batch["prefix_ids"].shape[1] + num_thoughts + batch["suffix_ids"].shape[1]


def shared_bytes(args: TrainArguments, model: LatentThoughtModel) -> int:
    """Bytes of the LLM that --shard_llm spares this process: of its layers those of the other ranks, but for two layers
    that are whole while one of them runs. By arithmetic: the sharding itself needs the processes."""
    layers = getattr(body(model.llm), "layers", None)
    if not args.shard_llm or not layers:
        return 0
    sizes = [sum(weight.numel() * weight.element_size() for weight in layer.parameters()) for layer in layers]
    return max(0, round(sum(sizes) * (1 - 1 / gpus_of(args)) - 2 * max(sizes)))


def with_ranks(args: TrainArguments, cost: Cost, found: Found) -> Cost:
    """A peak with what several processes add to it: DDP's copy of the gradients, and a sharded LLM. By arithmetic."""
    parts, sent = dict(cost.parts), 4 * found.trained if gpus_of(args) > 1 else 0
    parts["LLM"] -= found.shared
    if sent:
        parts["gradients sent between GPUs"] = sent
    return replace(cost, peak=cost.peak - found.shared + sent, parts=parts)


def disk_of(args: TrainArguments, rows: Rows, layout: Layout, trained: int, keeps: bool) -> dict[str, float]:
    """Bytes on disk by what they are for: a node's states while the run lasts, resume checkpoints, final weights."""
    disk: dict[str, float] = {}
    if keeps:
        d, dtype = args.spec.load_configs()[1].get_text_config().hidden_size, getattr(torch, args.dtype)
        has_steps, numbers = bool(args.focus_loss_weight), 0.0
        for count, steps in ((rows.train, has_steps), (rows.dev, True)):
            of_rows = RowsWithStates(rows.rows, args.num_thought_tokens, TrainingCollator(layout, steps), d, dtype)
            numbers += of_rows.size * count / len(rows.rows)
        disk["the small LM's states (a node, while the run lasts)"] = numbers * dtype.itemsize
    kept = args.checkpoint_limit or evaluations_of(args, rows.train)
    disk[f"{kept + 1} resume checkpoints (one is being written)"] = (kept + 1) * 12 * trained
    disk["the final weights"] = 4 * trained
    return disk


# ---------------------------------------------------------------------------------------------------------------------
# The run: steps and hours


def steps_an_epoch(args: TrainArguments, rows: int) -> int:
    """Optimiser steps of an epoch of that many rows."""
    micro_batches = math.ceil(rows / (args.per_device_train_batch_size * gpus_of(args)))
    return math.ceil(micro_batches / args.gradient_accumulation_steps)


def steps_of(args: TrainArguments, rows: int) -> int:
    """Optimiser steps of the run."""
    return args.max_steps if args.max_steps > 0 else math.ceil(steps_an_epoch(args, rows) * args.num_train_epochs)


def evaluations_of(args: TrainArguments, rows: int) -> int:
    """Dev evaluations of the run."""
    steps, every = steps_of(args, rows), float(steps_an_epoch(args, rows))
    if args.eval_strategy == "steps":
        every = float(args.eval_steps or args.logging_steps)
    return math.ceil(steps / every) if every >= 1 else math.ceil(1 / every)  # below 1 it is a share of all steps


def hours_of(args: TrainArguments, found: TrainingEstimate, seconds: Any) -> dict[str, float]:
    """Hours of the run by what they go to. seconds: Cost -> seconds on the card."""
    gpus, steps = gpus_of(args), steps_of(args, found.rows.train)
    a_step = args.gradient_accumulation_steps * seconds(found.micro) + seconds(found.update)
    dev_batches = math.ceil(found.rows.dev / (args.per_device_eval_batch_size * gpus))
    hours = {"steps": steps * a_step}
    hours["dev"] = evaluations_of(args, found.rows.train) * dev_batches * seconds(found.dev)
    if found.states is not None:
        hours["states"] = math.ceil((found.rows.train + found.rows.dev) / (ROWS_AT_ONCE * gpus)) * seconds(found.states)
    return {name: value / 3600 for name, value in hours.items()}


def print_estimate(args: TrainArguments) -> None:
    """Run the estimate, and print it. InputError for a run in stages."""
    if len(args.curriculum.forms) > 1:
        raise InputError(
            "--estimate: a run in stages has steps of several shapes; its last stage is, instead of its flags of "
            f"stages, --coconut_stages 0 --answer_only --num_thought_tokens {args.num_thought_tokens}"
        )
    layout = layout_of(args)
    found = estimate(args, rows_of(args, layout), layout)
    size, gpus, steps = args.per_device_train_batch_size, gpus_of(args), steps_of(args, found.rows.train)
    lms = [args.large_model_id, *([args.small_model_id] if args.spec.small else [])]
    print(f"estimate of a training: {args.thought_generator}, {' with '.join(lms)}, {args.dtype}")
    print(f"  {args.task_name}: {counted(found.rows.train, 'row')} of train, {found.rows.dev:,} of dev")
    if found.rows.note:
        print(f"    {found.rows.note}")
    epochs = "1 epoch" if args.num_train_epochs == 1 else f"{args.num_train_epochs:g} epochs"
    length = f"--max_steps {args.max_steps}" if args.max_steps > 0 else epochs
    parts = [(size, "row"), (args.gradient_accumulation_steps, "micro-batch"), (gpus, "GPU")]
    print(f"  {counted(steps, 'step')} ({length}) of {' x '.join(counted(*part) for part in parts)}")
    longest, mean = found.columns[f"longest {size}"], found.columns["mean"]
    print(*memory_lines(found.peaks[size], f"the longest rows: {size} x {longest:,} columns"), sep="\n")
    print("  work on one GPU:")
    print(work_line(f"a micro-batch, {size} x {mean:,} columns (the mean)", found.micro))
    print(work_line("once a step", found.update))
    print(work_line(counted(args.per_device_eval_batch_size, "dev row"), found.dev))
    if found.states is not None:
        print(work_line(f"{ROWS_AT_ONCE} rows through the small LM, once", found.states))
    print(*disk_lines(found.disk), sep="\n")
    for card in chosen(args.card):
        hours = hours_of(args, found, lambda cost, card=card: seconds_of(cost, card, args.dtype))
        room = fits(card, {count: peak.peak for count, peak in found.peaks.items()}, size, "row")
        print(f"  {card.name}: {room}; {hours_text(hours, gpus)}")
    print(*rates_lines(chosen(args.card), args.dtype), sep="\n")
    if args.best_metric == "accuracy":
        print("  the written dev answers of --best_metric accuracy are not in it: evaluate.py --estimate --split dev")
