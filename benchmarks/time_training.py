"""train.py with its flags, but only a few timed steps and one dev evaluation; nothing is saved.

bash/reproduce_paper.sh --measure runs it:

    python benchmarks/time_training.py RESULT.json [flags of train.py]
"""

import json
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from lta_thinker import train  # noqa: E402
from lta_thinker.common import write_text  # noqa: E402
from lta_thinker.training import trainer  # noqa: E402

STEPS, WARM_UP_STEPS = 12, 2


class Clock(TrainerCallback):
    """The time at the end of each step."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, *args, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


class TimedTrainer(trainer.ThoughtTrainer):
    """Trains STEPS steps, writes `result`, and ends the program."""

    result: Path

    def train(self, **kwargs):
        args, clock = self.args, Clock()
        micro_batches = math.ceil(len(self.train_dataset) / (args.per_device_train_batch_size * args.world_size))
        an_epoch = math.ceil(micro_batches / args.gradient_accumulation_steps)
        steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * an_epoch)
        every = an_epoch if args.eval_strategy == "epoch" else args.eval_steps
        if every < 1:  # a share of all steps
            every = math.ceil(every * steps)
        args.eval_strategy, args.save_strategy, args.load_best_model_at_end = "no", "no", False
        args.max_steps = STEPS
        self.add_callback(clock)
        super().train()
        start = time.perf_counter()
        self.evaluate()
        dev_seconds = time.perf_counter() - start
        if self.is_world_process_zero():
            found = {
                "steps": steps,
                "seconds_a_step": (clock.ends[-1] - clock.ends[WARM_UP_STEPS - 1]) / (STEPS - WARM_UP_STEPS),
                "dev_evaluations": math.ceil(steps / every),
                "seconds_a_dev_evaluation": dev_seconds,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            }
            self.result.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.result, json.dumps(found, indent=2) + "\n")
        sys.exit()


if __name__ == "__main__":
    TimedTrainer.result = Path(sys.argv.pop(1))
    trainer.ThoughtTrainer = TimedTrainer
    train.main()
