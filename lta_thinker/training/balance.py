"""--balance_losses: no loss drowns another.

On a plateau the focus loss's gradient is a hundred times the SFT loss's, and Adam and clipping follow the larger one.
So an extra loss's gradient is scaled down to the norm of the SFT loss's where it is larger. The step's gradient is

    sum over the losses k of   w_k * min(1, |g_sft| / |g_k|) * g_k

g_k: the gradient of the whole step, over all micro-batches and ranks; |.|: over the generator's parameters. No extra
loss pulls harder than its weight's share of the SFT loss. None is scaled up: of a loss that is learnt, or constant,
only the rounding of its gradient would become larger. Where the SFT loss has nothing left to learn from, all vanish.
"""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from lta_thinker.model import LatentThoughtModel


def weighted_sum(parts: dict[str, Tensor], weight: Callable[[str], float], balance: "LossBalance | None") -> Any:
    """The losses of a micro-batch, scalars by name -> their weighted sum. With a balance only the SFT loss's gradient
    flows from it; those of the others are in the balance."""
    if balance is not None:
        extra = {name: part for name, part in parts.items() if name != "sft"}
        for name, part in extra.items():
            balance.add(name, part)
        parts = parts | {name: part.detach() for name, part in extra.items()}
    return sum(weight(name) * part for name, part in parts.items())


class LossBalance:
    """Gathers the gradients of the extra losses of a step, and adds them, scaled, to the SFT loss's.

    The extra losses' backward passes stay in the generator and in what reads the question, where that is tuned: the
    small LM, or the large LLM's first layers (--reader_layers with block). Ranks send each other one more set of
    gradients for each. Nothing is carried from step to step.
    `scales`: the last step's min(1, |g_sft| / |g_k|) by loss, float32 scalars.
    """

    def __init__(self, model: LatentThoughtModel, accelerator: Accelerator):
        self.accelerator = accelerator
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        own = set(model.generator.parameters())
        self.of_generator = [i for i, parameter in enumerate(self.parameters) if parameter in own]
        self.gradients: dict[str, list[Tensor]] = {}
        self.scales: dict[str, Tensor] = {}

    def add(self, name: str, loss: Tensor) -> None:
        """Add the gradient of a micro-batch's extra loss, a scalar, to that of the step. The graph stays, for the SFT
        loss."""
        gradients = torch.autograd.grad(
            loss, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        if name not in self.gradients:
            self.gradients[name] = list(gradients)
            return
        for total, gradient in zip(self.gradients[name], gradients, strict=True):
            total += gradient

    def finish(self, weights: dict[str, float]) -> None:
        """Add the extra losses' gradients of the step, scaled and weighted, to the parameters' own, which are the SFT
        loss's times its weight. A collective: all ranks call it."""
        of_sft = self._norm([parameter.grad for parameter in self.parameters]) / weights["sft"]
        for name in sorted(self.gradients):
            gradients: Any = self.accelerator.reduce(self.gradients.pop(name), "mean")
            self.scales[name] = (of_sft / self._norm(gradients).clamp(min=1e-30)).clamp(max=1)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                assert parameter.grad is not None  # of the SFT loss
                parameter.grad.add_(gradient * (weights[name] * self.scales[name]))

    def _norm(self, gradients: list) -> Tensor:
        return torch.stack([gradients[i].norm() for i in self.of_generator]).norm()
