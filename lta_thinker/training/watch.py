"""Watch: what a training log says beside the losses. Nothing here makes the device wait: tensors stay where they are,
and the Trainer reads them back when it logs."""

import torch
from torch import Tensor, nn


def gradient_norms(model: nn.Module) -> dict[str, Tensor]:
    """Norm of the gradients of each trained part of a LatentThoughtModel, `projection`, `block` and `prior`, as
    float32 scalars; parts without gradients (a frozen prior) are left out."""
    parts = {}
    for name, parameter in model.named_parameters():  # "generator.block.linear1.weight" belongs to "block"
        if parameter.grad is not None:
            parts.setdefault(name.split(".")[1], []).append(parameter.grad.norm())
    return {part: torch.stack(norms).norm() for part, norms in parts.items()}


def thought_spread(thoughts: Tensor) -> dict[str, Tensor]:
    """Variance of the thoughts (B, N, d) as report.thought_variance has it: over `questions` (mean over slots and
    features; left out with a single row) and over each question's `slots`, float32 scalars."""
    thoughts = thoughts.float()
    spread = {"questions": thoughts.var(0, correction=0).mean()} if len(thoughts) > 1 else {}
    return spread | {"slots": thoughts.var(1, correction=0).mean()}


def llm_tokens(batch: dict[str, Tensor], num_thoughts: int) -> Tensor:
    """How many columns of the LLM's input in a batch of TrainingCollator are not padding: prompt, thoughts, target."""
    return batch["prefix_mask"].sum() + batch["suffix_mask"].sum() + num_thoughts * len(batch["prefix_mask"])
