"""The Trainer of train.py: its order of rows, losses, dev evaluation and resume checkpoints."""

import contextlib
import functools
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, get_scheduler
from transformers.trainer_callback import TrainerState

from lta_thinker.checkpoint import (
    DEV_LOSSES_FILE,
    RESUME_FILE,
    STATE_FILE,
    TrainingRecord,
    check_resume_checkpoint,
    write_complete,
    writing_folder,
)
from lta_thinker.common import InputError, first_line, ranks, write_text
from lta_thinker.generation.collapse import collapsed
from lta_thinker.generation.prompts import ThoughtVariance
from lta_thinker.generation.samplers import count_right
from lta_thinker.losses import LOSSES
from lta_thinker.model import Models
from lta_thinker.progress import say, track
from lta_thinker.rows.batch import TrainingCollator, loss_counts, sum_by_row
from lta_thinker.training.balance import LossBalance, weighted_sum
from lta_thinker.training.console import use_console
from lta_thinker.training.curriculum import StageOrder
from lta_thinker.training.finite import Finite
from lta_thinker.training.flags import TrainArguments, library_flags
from lta_thinker.training.folders import WRITING, DevLosses, begin_checkpoint, forget_checkpoints
from lta_thinker.training.information import Information
from lta_thinker.training.preemption import ignore_stops
from lta_thinker.training.rows import RunRows

# ---------------------------------------------------------------------------------------------------------------------
# What a training log has beside the losses. Tensors stay on the device until the log, so that nothing waits for it


def gradient_norms(model: nn.Module) -> dict[str, Tensor]:
    """Norm of the gradients of each trained part of a LatentThoughtModel (`projection`, `block`, `prior`), as float32
    scalars; parts without gradients (a frozen prior) are left out."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():  # "generator.block.linear1.weight" belongs to "block"
        if parameter.grad is not None:
            parts.setdefault(name.split(".")[1], []).append(parameter.grad.norm())
    return {part: torch.stack(norms).norm() for part, norms in parts.items()}


def thought_spread(thoughts: Tensor) -> dict[str, Tensor]:
    """Variance of the thoughts (B, N, d), as a report has it, float32 scalars: over `questions` (mean over slots and
    features; left out with a single row) and over each question's `slots`."""
    thoughts = thoughts.float()
    spread = {"questions": thoughts.var(0, correction=0).mean()} if len(thoughts) > 1 else {}
    return spread | {"slots": thoughts.var(1, correction=0).mean()}


def llm_tokens(batch: dict[str, Tensor], num_thoughts: int) -> Tensor:
    """Number of the LLM's input tokens in a batch of TrainingCollator without padding: prompt, thoughts, target. An
    int64 scalar."""
    rows = len(batch["prefix_mask"])
    thoughts = batch["thought_mask"].sum() if "thought_mask" in batch else num_thoughts * rows
    return batch["prefix_mask"].sum() + batch["suffix_mask"].sum() + thoughts


# ---------------------------------------------------------------------------------------------------------------------
# The order of the rows


class ByLengthWithinSteps(torch.utils.data.Sampler):
    """The library's random order of rows, with the rows of one optimiser step (of all ranks and micro-batches) sorted
    by length, longest first. Every step has the same rows as without sorting; its micro-batches have less padding, and
    ranks that work at the same time have rows of similar length."""

    def __init__(self, order: SeedableRandomSampler | StageOrder, lengths: list[int], step_rows: int):
        self.order, self.lengths, self.step_rows = order, lengths, step_rows

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self):
        rows = list(self.order)
        for start in range(0, len(rows), self.step_rows):
            yield from sorted(rows[start : start + self.step_rows], key=lambda row: -self.lengths[row])

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)


def padding_share(widths: list[tuple[int, int]], order: list[int], batch_size: int) -> float:
    """Share of padding among the LLM's tokens, for rows of `widths` (prefix; thoughts, suffix and target) in the given
    order."""
    real = padded = 0
    for start in range(0, len(order), batch_size):
        prefixes, rests = zip(*(widths[row] for row in order[start : start + batch_size]), strict=True)
        real += sum(prefixes) + sum(rests)
        padded += len(prefixes) * (max(prefixes) + max(rests))
    return 1 - real / padded


# ---------------------------------------------------------------------------------------------------------------------
# The Trainer


def check_optimizer(args: TrainArguments) -> None:
    """InputError for flags of the optimizer or the schedule that the library refuses: now, and not after the LMs are
    loaded. (Some optimizers need the model; create_optimizer sees to those.)"""
    with library_flags(args):
        try:
            kind, arguments = Trainer.get_optimizer_cls_and_kwargs(args)
        except ValueError as error:
            if "You need to pass a" in str(error):  # "... model", in transformers 4.53 and 5
                return
            raise
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
            optimizer = kind([nn.Parameter(torch.zeros(1, 1))], **arguments)
            specific = args.lr_scheduler_kwargs
            warmup = min(args.get_warmup_steps(10), 5)  # so that the probe sees what comes after it
            schedule = get_scheduler(args.lr_scheduler_type, optimizer, warmup, 10, specific)  # type: ignore
            for factor in getattr(schedule, "lr_lambdas", []):
                for step in range(11):
                    factor(step)


@contextlib.contextmanager
def reading_checkpoint(checkpoint: Any, part: str) -> Iterator[None]:
    """Within it every error but a full GPU is an InputError that names the checkpoint and the part. (Its small files
    have digests; a large one of another model, of the same size, comes this far. Readers fail in a dozen ways then.)"""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise InputError(f"{checkpoint}: its {part} cannot be gone on from ({first_line(error):.200})") from None


class ThoughtTrainer(Trainer):
    """Trainer whose losses are divided by counts over the whole optimiser step: over ranks and micro-batches."""

    # the library's annotations are wider
    args: TrainArguments
    model: Any
    accelerator: Any
    eval_dataset: Any

    def __init__(
        self,
        models: Models,
        rows: RunRows,
        record: TrainingRecord,
        dev_losses: dict[int, DevLosses] | None = None,
        **kwargs,
    ):
        """record: of the run, without what differs between its checkpoints; dev_losses: of a resumed run's steps so
        far. kwargs: Trainer's."""
        with library_flags(kwargs["args"]):
            super().__init__(model=models.thoughts, train_dataset=rows.train, eval_dataset=rows.dev, **kwargs)
        use_console(self, rows.num_train)
        self.rows = rows
        self.model_accepts_loss_kwargs = True  # compute_loss divides; Trainer shall not divide by accumulation again
        self.models, self.dev_examples, self.record = models, rows.dev_examples, record
        self.dev_collator = TrainingCollator(models.layout, steps=True)
        steps = [len(row["steps"]) for row in rows.dev if row["steps"]]
        self.focus_by_chance = sum(map(math.log, steps)) / max(1, len(steps))  # where all z are one vector: mean log M
        self._parts, self._parts_step = torch.zeros(len(LOSSES), device=self.args.device), None
        self._tokens, self._since = torch.zeros((), dtype=torch.long, device=self.args.device), time.perf_counter()
        self.balance = LossBalance(self.model, self.accelerator) if self.args.balances else None
        self.finite, self.dev_losses = Finite(self.model, self.accelerator), dict(dev_losses or {})

    def init_hf_repo(self, *args, **kwargs):
        try:
            super().init_hf_repo(*args, **kwargs)
        except Exception as error:  # the network's have no class in common
            raise InputError(f"--push_to_hub: {first_line(error):.300}") from None

    def get_decay_parameter_names(self, model) -> list[str]:
        """As the library's; of an LLM all of whose weights are trained, what it says of the LLM itself: no norms."""
        names, prefix = super().get_decay_parameter_names(model), "adapters.base_model."
        if not self.args.full_tuning:
            return names
        of_llm = {prefix + name for name in super().get_decay_parameter_names(self.model.llm)}
        return [name for name in names if not name.startswith(prefix) or name in of_llm]

    def create_optimizer(self, *args, **kwargs):
        with library_flags(self.args):
            return super().create_optimizer(*args, **kwargs)

    def create_scheduler(self, *args, **kwargs):
        with library_flags(self.args):
            return super().create_scheduler(*args, **kwargs)

    def _get_train_sampler(self, train_dataset=None) -> torch.utils.data.Sampler:
        batch_size = self.args.per_device_train_batch_size
        step_rows = batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        order: Any = SeedableRandomSampler(range(self.rows.num_train), data_seed=self.args.data_seed)
        curriculum, widths = self.args.curriculum, self.rows.widths
        if len(curriculum.forms) > 1:
            order = StageOrder(order, curriculum, self.rows.steps, self.args.seed)
        random_order = [*order]
        sampler = order
        if step_rows > batch_size:
            sampler = ByLengthWithinSteps(order, [sum(width) for width in widths], step_rows)
        order.set_epoch(0)  # the same order again
        shares = [padding_share(widths, rows, batch_size) for rows in (random_order, [*sampler])]
        order.set_epoch(0)
        self.row_order = sampler
        if self.is_world_process_zero():
            print("  padding: {1:.1%} of the LLM's tokens ({0:.1%} with rows in random order)".format(*shares))
        return sampler

    def get_train_dataloader(self):
        loader: Any = super().get_train_dataloader()  # accelerate's
        if not isinstance(self.row_order, SeedableRandomSampler):
            # where accelerate looks for set_epoch when a run of several ranks goes on inside an epoch
            loader.set_sampler(self.row_order)
        return loader

    def _get_dataloader(self, *args, **kwargs):
        with library_flags(self.args):
            loader: Any = super()._get_dataloader(*args, **kwargs)
        if self.args.dataloader_num_workers:
            inner = loader.base_dataloader
            inner.worker_init_fn = functools.partial(ignore_stops, inner.worker_init_fn)
        return loader

    def num_examples(self, dataloader) -> int:
        """Rows of an epoch: in stages each is in the data once for each form."""
        return self.rows.num_train

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of one optimiser step, and the divisors of its loss sums: (4,) float32, global counts /
        ranks."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        # no batch at all: transformers 4.53 asks once more after a resumed epoch's last batch
        counts = sum((loss_counts(batch).to(device) for batch in batches), torch.zeros(len(LOSSES), device=device))
        return batches, self.accelerator.reduce(counts, "mean")

    def training_step(self, model, inputs, num_items_in_batch=None):
        self._tokens += llm_tokens(inputs, self.model.num_thoughts)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:  # now they are of all micro-batches and ranks, and not clipped yet
            if self.balance is not None:
                self.balance.finish({name: self.weight_now(name) for name in self.model.losses})
            self._gradient_norms = gradient_norms(self.model)
            norms = [torch.zeros((), device=self.args.device), *self._gradient_norms.values()]
            self.finite.look(self.state.global_step + 1, {"gradient": torch.stack(norms)})
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch: Any = None) -> Any:
        """The weighted losses of a micro-batch, a scalar; num_items_in_batch: get_batch_samples' counts. Where losses
        are balanced, only the SFT loss's gradient flows from it."""
        if self._parts_step is None:  # the first step of this process, perhaps of a resumed run
            self._parts_step, self._since = self.state.global_step, time.perf_counter()
            self.finite.check_weights()
        sums = model(**inputs)
        self.finite.look(self.state.global_step + 1, self.finite.made(sums))
        counts = dict(zip(LOSSES, num_items_in_batch.clamp(min=1e-9), strict=True))
        parts = {name: total / counts[name] for name, total in sums.items()}
        for i, name in enumerate(LOSSES):
            if name in parts:
                self._parts[i] += parts[name].detach()
        return weighted_sum(parts, self.weight_now, self.balance)

    def weight_now(self, name: str) -> float:
        """A loss's weight at this step."""
        weight = self.model.weights[name]
        if self.args.decay_extra_losses and name != "sft":
            weight *= 1 - self.state.global_step / self.state.max_steps
        return weight

    def log(self, logs, start_time=None):
        if "loss" in logs:  # a training log: add the single losses, over the same steps
            assert self._parts_step is not None  # a step was trained
            self.finite.check()
            parts = self.accelerator.reduce(self._parts, "mean") / (self.state.global_step - self._parts_step)
            weighted = [name for name in self.model.losses if self.model.weights[name]]
            logs |= {f"{name}_loss": parts[LOSSES.index(name)].item() for name in weighted}
            self._parts, self._parts_step = torch.zeros_like(self._parts), self.state.global_step
            logs |= self._watched()
        super().log(logs, start_time)

    def _watched(self) -> dict[str, float]:
        """What a training log has beside the losses.

        grad_norm_<part>: of the last step's gradient, before clipping. balance_<loss>: the last step's factor of an
        extra loss (balance.py). thought_variance_<over>: of the last micro-batch of rank 0 (with several chains, of the
        chains that its rows have drawn). tokens_per_second: the LLM's tokens without padding (prompt, thoughts, target)
        of all ranks since the last log, divided by the time since then without dev evaluations and checkpoints.
        """
        watched = {f"grad_norm_{part}": norm.item() for part, norm in self._gradient_norms.items()}
        spread = thought_spread(self.model.last_thoughts) if self.model.num_thoughts else {}
        watched |= {f"thought_variance_{over}": variance.item() for over, variance in spread.items()}
        if self.balance is not None:
            watched |= {f"balance_{name}": scale.item() for name, scale in self.balance.scales.items()}
        tokens, now = self.accelerator.reduce(self._tokens, "sum").item(), time.perf_counter()
        watched["tokens_per_second"] = tokens / (now - self._since)
        self._tokens, self._since = torch.zeros_like(self._tokens), now
        return watched

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        start = time.perf_counter()
        super()._maybe_log_save_evaluate(*args, **kwargs)
        self._since += time.perf_counter() - max(start, self._since)  # the time after the log was no training

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """The dev losses, each over all dev rows (SFT per target token), and the information of the thoughts; they see
        no steps. Returns metrics eval_*; each row's SFT loss goes to DEV_LOSSES_FILE. InputError where anything that
        they are made from is not finite."""
        self.finite.check()  # of the steps so far
        self.model.eval()
        rank, ranks = self.args.process_index, self.args.world_size
        size, rows = self.args.per_device_eval_batch_size, range(len(self.eval_dataset))
        totals, variance = torch.zeros(2, len(LOSSES), dtype=torch.float64), ThoughtVariance()
        information, last, by_row = Information(), None, {}
        quiet = self.args.disable_tqdm or not self.is_world_process_zero()
        starts = range(0, len(rows), size * ranks)
        for start in track(starts, "dev losses", len(starts), quiet):
            own_rows = rows[start : start + size * ranks][rank::ranks]
            # a rank without rows computes too: the others may need its part of a sharded LLM
            batch = self.dev_collator([self.eval_dataset[i] for i in own_rows or rows[:1]])
            inputs = self._prepare_inputs(batch)
            sums, thoughts = self.model(**inputs), self.model.last_thoughts
            self.finite.look(self.state.global_step + 1, self.finite.made(sums))
            thoughts = thoughts.view(len(thoughts), self.model.design.num_chains, *thoughts.shape[-2:])  # (B, C, N, d)
            if own_rows:
                values = [sums[name].item() if name in sums else 0.0 for name in LOSSES]
                totals += torch.stack([torch.tensor(values), loss_counts(batch)])
                if self.model.num_thoughts:
                    variance.add(own_rows, thoughts)
            own_losses = self.model.last_target_losses
            if own_rows:
                by_row |= dict(zip(own_rows, sum_by_row(own_losses, inputs).tolist(), strict=True))
            if self.model.generator.reads_question:
                swapped, last = self._thoughts_before(thoughts, last)
                # the first dev row has none before it: it has read its own, and is left out
                paired = slice(int(0 in own_rows), len(own_rows))
                others = self.model.target_losses(inputs, swapped)
                self.finite.look(self.state.global_step + 1, {"sft": others})
                information.add(others - own_losses, inputs, paired)
        self.finite.check()
        totals = self.accelerator.reduce(totals.to(self.args.device), "sum").tolist()
        sums, counts = (dict(zip(LOSSES, values, strict=True)) for values in totals)
        # rows without steps have no focus loss
        losses = {name: sums[name] / counts[name] for name in self.model.losses if counts[name]}
        self._write_dev_losses(gather_object([by_row]))
        metrics = {f"eval_{name}_loss": value for name, value in losses.items()}
        metrics["eval_loss"] = sum(self.model.weights[name] * value for name, value in losses.items())
        figures = ThoughtVariance.sum_of(gather_object([variance])).figures()
        if self.model.num_thoughts:
            metrics |= {f"eval_thought_variance_{over}": figures[f"over_{over}"] for over in ("questions", "slots")}
        if self.model.generator.reads_question and collapsed(figures) and self.is_world_process_zero():
            say(self._collapse_line(figures, losses))
        sums = self.accelerator.reduce(information.sums.to(self.args.device), "sum")
        metrics |= {f"eval_{name}": value for name, value in Information(sums).figures().items()}
        if self.args.best_metric == "accuracy":
            metrics["eval_accuracy"] = self._dev_accuracy(quiet)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _write_dev_losses(self, by_row_of_ranks: list[dict[int, float]]) -> None:
        """The SFT loss of every dev row's target, in nats, in dev order: a line of JSON behind earlier steps'."""
        if self.is_world_process_zero():
            by_row = {row: nats for of_rank in by_row_of_ranks for row, nats in of_rank.items()}
            step = self.state.global_step
            self.dev_losses[step] = DevLosses(step, [round(by_row[row], 5) for row in sorted(by_row)])
            lines = [json.dumps(asdict(self.dev_losses[step])) + "\n" for step in sorted(self.dev_losses)]
            write_text(self.args.run_folder / DEV_LOSSES_FILE, "".join(lines))

    def _thoughts_before(self, thoughts: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        """The thoughts (B, C, N, d) of this rank's rows of a block of dev rows -> those of the row before each in dev
        order, whichever rank has it, and of the block's last row, (1, C, N, d). `last`: of the block before; in the
        first block the first row gets its own. A collective."""
        size, ranks = self.args.per_device_eval_batch_size, self.args.world_size
        padded = F.pad(thoughts, (0, 0, 0, 0, 0, 0, 0, size - len(thoughts)))
        of_all = self.accelerator.gather(padded)
        of_all = of_all.unflatten(0, (ranks, size)).transpose(0, 1).flatten(0, 1)  # rank by rank -> in dev order
        before = torch.cat([of_all[:1] if last is None else last, of_all])
        return before[self.args.process_index :: ranks][: len(thoughts)], of_all[-1:]

    def _collapse_line(self, figures: dict, losses: dict[str, float]) -> str:
        line = f"warning: step {self.state.global_step}: the thoughts have collapsed, they are the same for every dev "
        line += f"question (variance {figures['over_questions']:.2g}, mean square {figures['mean_square']:.2g})"
        if "focus" in losses:
            line += f"; focus loss {losses['focus']:.4g}, by chance {self.focus_by_chance:.4g}"
        return line

    def _dev_accuracy(self, quiet: bool) -> float:
        """Share of dev questions whose greedy answer is right, over all ranks."""
        own_examples = self.dev_examples[self.args.process_index :: self.args.world_size]
        right = count_right(
            self.models,
            own_examples,
            self.args.task.answer_type,
            self.args.max_new_tokens,
            self.args.per_device_eval_batch_size,
            quiet,
        )
        counts = torch.tensor([right, len(own_examples)], device=self.args.device)
        right, total = self.accelerator.reduce(counts, "sum").tolist()
        return right / total

    def _save_checkpoint(self, model, trial):
        self.finite.check()  # at a signal no dev evaluation comes before
        run, step = self.args.run_folder, self.state.global_step
        folder = run / f"checkpoint-{step}"
        instead = "; make room, and --resume goes on from the checkpoint before it"
        if self.is_world_process_zero():
            with writing_folder(folder, folder, instead):
                begin_checkpoint(folder)
        self.accelerator.wait_for_everyone()  # other ranks write into it too
        try:
            with writing_folder(folder, folder, instead):
                super()._save_checkpoint(model, trial)
        except InputError as error:
            if not ranks().speaks:  # a failure of this process alone
                print(f"error: process {ranks().rank}: {error}", file=sys.stderr)
            raise
        # transformers 4.53: a rank may look for the best folder before rank 0 has made it, and they hang at the end
        best = [self.state.best_model_checkpoint]
        self.state.best_model_checkpoint = broadcast_object_list(best)[0]
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            with writing_folder(folder, folder, instead):
                self.record_at(step).write(folder)
                write_complete(folder)
                (folder / WRITING).unlink()
            forget_checkpoints(run, self.args.checkpoint_limit, {step, self.state.best_global_step or step})

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        with reading_checkpoint(resume_from_checkpoint, RESUME_FILE):
            self.model.load_state_dict(load_file(Path(resume_from_checkpoint, RESUME_FILE)))

    def _load_optimizer_and_scheduler(self, checkpoint):
        with reading_checkpoint(checkpoint, "optimizer.pt or scheduler.pt"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint):
        with reading_checkpoint(checkpoint, "rng_state"):
            super()._load_rng_state(checkpoint)

    def stand_at(self, checkpoint: Path) -> None:
        """Take the state of a checkpoint after which nothing is left to train."""
        self.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))

    def _load_best_model(self):
        """Not when training ends, where the library would keep the last weights if the best were lost: load_best."""

    def load_best(self) -> None:
        """Put the best checkpoint's weights into the model. InputError where they are lost."""
        best = self.args.run_folder / f"checkpoint-{self.state.best_global_step}"
        check_resume_checkpoint(best)
        self._load_from_checkpoint(str(best))

    def record_at(self, step: int) -> TrainingRecord:
        """The record of the weights after `step`; its `dev` is their point of the dev curve."""
        keys = ("step", "epoch", "eval_loss", *(f"eval_{name}_loss" for name in LOSSES), "eval_accuracy")
        keys += tuple(f"eval_{name}" for name in Information.NAMES)
        logs = [log for log in self.state.log_history if "eval_sft_loss" in log]
        curve = [{key: log[key] for key in keys if key in log} for log in logs]
        without_losses = {"step": self.state.global_step, "epoch": self.state.epoch}  # before --eval_delay
        dev = next((point for point in curve if point["step"] == step), without_losses)
        return replace(self.record, dev=dev, dev_curve=curve)


class Schedule(TrainerCallback):
    """Log lines come as often as this start's flags say, not those of the checkpoint that it goes on from. The last
    weights are evaluated too, at whatever step training ends and whatever --eval_delay says."""

    def on_train_begin(self, args, state, control, **kwargs):
        state.compute_steps(args, state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True

    def on_epoch_end(self, args, state, control, **kwargs):
        if args.eval_strategy == "epoch" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
