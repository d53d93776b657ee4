"""A preempted job: SIGTERM ends a training run with a checkpoint to go on from."""

import multiprocessing
import signal
from collections.abc import Callable

import torch
import torch.distributed as dist
from transformers import TrainerCallback


class StopAtSigterm(TrainerCallback):
    """SIGTERM during training: the step is finished (on several ranks perhaps the next one too), a checkpoint is saved,
    and training stops, on all ranks at the same step. A dev evaluation that is running is finished first.

    can_resume: whether the library can go on from a checkpoint after a step; where it cannot, none is saved.
    `step`: the step after which training stopped, or None.
    """

    def __init__(self, can_resume: Callable[[int], bool]):
        self.can_resume, self.caught, self.step = can_resume, False, None

    def _catch(self, number, frame):
        self.caught = True

    def on_train_begin(self, args, state, control, **kwargs):
        self.default = signal.signal(signal.SIGTERM, self._catch)

    def on_train_end(self, args, state, control, **kwargs):
        signal.signal(signal.SIGTERM, self.default)

    def on_step_begin(self, args, state, control, **kwargs):
        if args.world_size > 1:
            self.anywhere = torch.tensor(float(self.caught), device=args.device)
            self.asking = dist.all_reduce(self.anywhere, async_op=True)

    def on_step_end(self, args, state, control, **kwargs):
        stop = self.caught
        if args.world_size > 1:
            assert self.asking is not None  # all_reduce gives None only to a process outside the group
            self.asking.wait()
            stop = self.anywhere.item() > 0
        if not stop or state.global_step >= state.max_steps:
            return
        self.step, control.should_training_stop = state.global_step, True
        # after an epoch's last step the library evaluates and saves by itself, where it does so by epochs
        if not (args.eval_strategy == "epoch" and _epoch_is_over(state)):
            control.should_save = self.can_resume(self.step)
        if args.save_total_limit == 1:  # the library would keep the best checkpoint and delete this one
            args.save_total_limit = 2

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.step is not None and not _epoch_is_over(state):  # the library calls this wherever training stops
            control.should_evaluate = control.should_save = False


def _epoch_is_over(state) -> bool:
    return float(state.epoch).is_integer()


# ---------------------------------------------------------------------------------------------------------------------
# The workers of --dataloader_num_workers


def start_workers_from_server() -> None:
    """Let DataLoader workers come from a server, a process of one thread, and not from this one: a fork of a process
    with gloo's threads may never return (CPython before 3.11.10, its issue 112275)."""
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.set_forkserver_preload(["torch", "transformers", "datasets"])


def ignore_sigterm(then: Callable[[int], None] | None, worker: int) -> None:
    """worker_init_fn of a DataLoader, before its own one (`then`): a SIGTERM may reach all processes of a job, and only
    the training process must act on it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if then is not None:
        then(worker)
