"""A job that is stopped: SIGTERM, SIGINT (Ctrl-C) and SIGHUP end a training run with a checkpoint to go on from."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from lta_thinker.common import STOPS


class StopAtSignal(TrainerCallback):
    """A signal of STOPS during training: the step is finished (on several ranks perhaps the next one too), a checkpoint
    is saved, and training stops, on all ranks at the same step. A dev evaluation that is running is finished first. A
    second Ctrl-C stops at once.

    can_resume: whether the library can go on from a checkpoint after a step; where it cannot, none is saved.
    `step`: the step after which training stopped, or None; `caught`: the signal's number, 0 for none.
    """

    def __init__(self, can_resume: Callable[[int], bool]):
        self.can_resume, self.caught, self.step = can_resume, 0, None

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Within it signals are caught, but for those that are ignored (as SIGHUP is under nohup)."""
        self.before = {number: signal.getsignal(number) for number in STOPS}
        for number, handler in self.before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self._catch)
        try:
            yield
        finally:
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def _catch(self, number, frame):
        self.caught = self.caught or number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self.before[signal.SIGINT])  # a second one does what it did before

    def on_step_begin(self, args, state, control, **kwargs):
        if args.world_size > 1:
            self.anywhere = torch.tensor(float(self.caught), device=args.device)
            self.asking = dist.all_reduce(self.anywhere, dist.ReduceOp.MAX, async_op=True)

    def on_step_end(self, args, state, control, **kwargs):
        caught = self.caught
        if args.world_size > 1:
            assert self.asking is not None  # all_reduce gives None only to a process outside the group
            self.asking.wait()
            caught = int(self.anywhere.item())
        if not caught or state.global_step >= state.max_steps:
            return
        self.caught, self.step, control.should_training_stop = caught, state.global_step, True
        # after an epoch's last step the library evaluates and saves by itself, where it does so by epochs
        if not (args.eval_strategy == "epoch" and _epoch_is_over(state)):
            control.should_save = self.can_resume(self.step)

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


def ignore_stops(then: Callable[[int], None] | None, worker: int) -> None:
    """worker_init_fn of a DataLoader, before its own one (`then`): a signal may reach all processes of a job, and only
    the training process must act on it."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    if then is not None:
        then(worker)
