"""What a person reads while train.py trains. trainer_state.json and the trackers have all of it, as numbers.

    step  25/300  epoch 0.13  loss 0.0157 = sft 0.0121 + align ... + focus ...  lr 1.6e-3  grad 0.01  9k tok/s  ETA 1:03
    dev   50/300  epoch 0.27  sft 0.00111  align 1.39e-4  focus 1.6  loss 0.53  information 9.11 [7.28, 10.9]  * best

A line comes with every log, so --logging_steps and --eval_steps say how often. In a terminal a bar stands below,
and a line that has no room goes on in a second one.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import transformers.trainer
from transformers import PrinterCallback, TrainerCallback

from lta_thinker.common import counted
from lta_thinker.losses import LOSSES
from lta_thinker.progress import Progress, duration, in_terminal, say

BEST = "  * best"  # the end of a dev line whose weights are the best so far


def number(value: float) -> str:
    """Three digits: 0.0157, 1.6, 9.03e-5."""
    mantissa, e, exponent = f"{value:{'.3g' if value == 0 or abs(value) >= 1e-3 else '.2e'}}".partition("e")
    return f"{mantissa}{e}{int(exponent)}" if e else mantissa


def rate(value: float) -> str:
    """A learning rate: 1.6e-3."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def thousands(value: float) -> str:
    """12.4k, 1.2M, 980."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:  # 999,900 is 1.0M
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def loss_text(logs: dict[str, float], weights: dict[str, float], decays: bool) -> str:
    """The loss of a training log and its parts: weighted, so that they add up. Where the weights change between two
    logs (decays), the log has no more than the parts before weighting, which do not add up."""
    parts = {name: logs[f"{name}_loss"] for name in LOSSES if f"{name}_loss" in logs}
    text = f"loss {number(logs['loss'])}"
    if list(parts.values()) == [logs["loss"]] or not parts or (len(parts) == 1 and not decays):
        return text
    if decays:
        return f"{text} ({', '.join(f'{name} {number(part)}' for name, part in parts.items())}, unweighted)"
    return f"{text} = {' + '.join(f'{name} {number(weights[name] * part)}' for name, part in parts.items())}"


def training_line(step: str, logs: dict[str, float], weights: dict[str, float], decays: bool, eta: str) -> str:
    """The line of a training log. step: 25/300."""
    parts = [f"step {step}", f"epoch {logs['epoch']:.2f}", loss_text(logs, weights, decays)]
    parts += [f"lr {rate(logs['learning_rate'])}"]
    parts += [f"grad {number(logs['grad_norm'])}"] if "grad_norm" in logs else []
    parts += [f"{thousands(logs['tokens_per_second'])} tok/s"] if "tokens_per_second" in logs else []
    return "  ".join([*parts, f"ETA {eta}"])


def dev_line(step: str, logs: dict[str, float], is_best: bool) -> str:
    """The line of a dev evaluation; its losses are not weighted, `loss` is their weighted sum. step: 50/300."""
    parts = [f"dev  {step}", f"epoch {logs['epoch']:.2f}"]
    parts += [f"{name} {number(logs[key])}" for name in LOSSES if (key := f"eval_{name}_loss") in logs]
    parts += [f"loss {number(logs['eval_loss'])}"]
    if "eval_accuracy" in logs:
        parts.append(f"accuracy {logs['eval_accuracy']:.1%}")
    if "eval_information" in logs:
        found = [number(logs[f"eval_information{end}"]) for end in ("", "_low", "_high")]
        parts.append("information {} [{}, {}]".format(*found))
    return "  ".join(parts) + (BEST if is_best else "")


def length_line(args: Any, max_steps: int, rows: int) -> str:
    """How long the run of these flags (TrainArguments) is. No epochs where --max_steps decides."""
    step_rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    length = f"  length: {counted(max_steps, 'step')} of {counted(min(step_rows, rows), 'row')}"
    if args.max_steps <= 0:
        length += " (1 epoch)" if args.num_train_epochs == 1 else f" ({args.num_train_epochs:g} epochs)"
    if args.eval_strategy == "no":  # benchmarks/time_training.py
        return length
    if args.eval_strategy == "epoch":
        return f"{length}, dev every epoch"
    every = args.eval_steps if args.eval_steps >= 1 else math.ceil(max_steps * args.eval_steps)  # a share of all
    return f"{length}, dev every {every:g} steps"


class Console(TrainerCallback):
    """Prints the lines, and draws the bar but for --disable_tqdm. Of rank 0. clock: seconds, for the ETA."""

    def __init__(self, rows: int, clock: Callable[[], float] = time.monotonic):
        self.rows, self.clock = rows, clock
        self.progress: Progress | None = None

    def on_train_begin(self, args: Any, state, control, **kwargs):
        say(length_line(args, state.max_steps, self.rows))
        if args.balances:
            say("  loss: the weighted sum of its parts; a large part pulls no harder than sft (--balance_losses)")

    def on_step_begin(self, args, state, control, **kwargs):
        if self.progress is None:  # the first step of this start: rows that a resumed run passes over are no steps
            quiet = bool(args.disable_tqdm)
            self.progress = Progress(
                "training", state.max_steps, state.global_step, quiet=quiet, lines=False, clock=self.clock
            )

    def on_step_end(self, args, state, control, **kwargs):
        assert self.progress is not None
        self.progress.update(state.global_step - self.progress.done)

    def on_log(self, args: Any, state, control, logs=None, **kwargs):
        if self.progress is None or logs is None:
            return
        step = f"{state.global_step:{len(str(state.max_steps))}}/{state.max_steps}"
        logs = {"epoch": state.epoch} | logs
        if "loss" in logs:
            line = training_line(step, logs, args.loss_weights, args.decay_extra_losses, self.progress.eta)
            say(in_terminal(line))
        elif "eval_loss" in logs:
            value, best = logs[args.metric_for_best_model], state.best_metric
            is_best = best is None or (value > best if args.greater_is_better else value < best)
            say(in_terminal(dev_line(step, logs, is_best)))

    def on_train_end(self, args, state, control, **kwargs):
        if self.progress is not None:
            self.progress.close()
            steps = counted(self.progress.done - self.progress.before, "step")
            say(f"trained {steps} in {duration(self.progress.seconds)}, with dev evaluations and checkpoints")


def use_console(trainer: transformers.Trainer, rows: int) -> None:
    """Let Console print a run's logs instead of the library's callbacks. rows: of training."""
    own = transformers.trainer.DEFAULT_PROGRESS_CALLBACK  # another one in a notebook
    trainer.remove_callback(PrinterCallback if trainer.args.disable_tqdm else own)
    if trainer.is_world_process_zero():
        trainer.add_callback(Console(rows))
