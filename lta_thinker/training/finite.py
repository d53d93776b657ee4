"""What first was not finite in training, and what to do then.

Every step looks at what it has made, in the order in which it was made, and keeps on the device in which step which of
it was not finite first. Nothing waits for the device: it is asked where a run waits for it anyway, at a log line, a dev
evaluation and a checkpoint.
"""

import math
from typing import Any

import torch
from torch import Tensor

from lta_thinker.common import InputError
from lta_thinker.losses import LOSSES
from lta_thinker.model import LatentThoughtModel

QUANTITIES = ("states", "thoughts", *LOSSES, "gradient")  # in the order of a step's work


class Finite:
    """The first step, by QUANTITIES, in which one was not finite on this rank: (7,) float32, infinity for never."""

    def __init__(self, model: LatentThoughtModel, accelerator: Any):
        self.model, self.accelerator = model, accelerator
        self.first = torch.full((len(QUANTITIES),), math.inf, device=accelerator.device)
        self.always = torch.ones((), dtype=torch.bool, device=accelerator.device)

    def look(self, step: int, values: dict[str, Tensor]) -> None:
        """Look at the step's values, of any shape, by QUANTITIES."""
        fine = [values[name].detach().isfinite().all() if name in values else self.always for name in QUANTITIES]
        fine = torch.stack([one.to(self.first.device) for one in fine])
        self.first = torch.minimum(self.first, torch.where(fine, math.inf, float(step)))

    def made(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the model has made of its last batch, by QUANTITIES; sums: its losses."""
        states = {} if self.model.generator.thinks_in_llm else {"states": self.model.last_states}
        return states | {"thoughts": self.model.last_thoughts} | sums

    def check(self) -> None:
        """InputError where anything was not finite on any rank. A collective; waits for the device."""
        first = self.accelerator.gather(self.first).view(-1, len(QUANTITIES)).amin(0).tolist()
        step = min(first)
        if not math.isfinite(step):
            return
        name = QUANTITIES[first.index(step)]
        raise InputError(f"step {int(step)}: {what_was_not_finite(name, self.model, trained=step > 1)}")

    def check_weights(self) -> None:
        """InputError where a trained weight is not finite before the first step."""
        for name, weight in self.model.state_dict().items():
            if not weight.isfinite().all():
                why = "; it starts as rows of the large LLM's embedding table" if name.endswith("prior") else ""
                raise InputError(f"before the first step the weight {name} holds values that are not finite{why}")


def what_was_not_finite(name: str, model: LatentThoughtModel, trained: bool) -> str:
    """The rest of the line: what it was, and what to do. trained: whether a step had changed the weights before."""
    slower = "try a lower --learning_rate" if trained else "nothing was trained yet, so no --learning_rate is at fault"
    reader = "the LLM's embeddings of the question" if model.small_lm is None else "the small LM's states"
    if name == "states":
        role = "assistant_model" if model.small_lm is not None else "base_model"
        tuned = f"; it is tuned: {slower}" if role in model.adapters else ""
        return f"{reader} were not finite: the LM's weights or its dtype (--bf16) are at fault{tuned}"
    if name == "thoughts" and model.generator.thinks_in_llm:
        return f"the thoughts, which the LLM makes, were not finite: {slower}; else the LLM or its dtype is at fault"
    if name == "thoughts":
        return f"the thoughts were not finite, though {reader} were; {slower}"
    if name == "sft":
        grown = "if the thoughts have grown (thought_variance in the log), " if trained else ""
        return (
            "the large LLM's logits (the SFT loss) were not finite, though the thoughts were: "
            f"{grown}{slower}; else the LLM's weights or its dtype (--bf16) are at fault"
        )
    if name == "gradient":
        return f"the gradient was not finite, though the losses were; {slower}"
    return f"the {name} loss was not finite, though the thoughts were; {slower}"
