"""The three losses of LTA-Thinker (arXiv 2509.12875) and that of SoftCoT++, on plain tensors.

    total = sum over LOSSES of objective.weights[name] * loss

Nothing here knows about models. Each returns sums or one value a row; the caller divides by counts taken over the whole
optimiser step, so that gradient accumulation and data-parallel ranks change nothing.
A new loss is a function here, a name in LOSSES, a weight in training/declared.py, and its line in
LatentThoughtModel._losses.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = ("sft", "align", "focus", "diversity")
BLOCK = {"cpu": 2**20, "cuda": 2**27}  # logits in memory at once, by device; on a CPU they fit its caches


@dataclass(frozen=True)
class AlignForm:
    """How L_align is computed. The defaults are the published form; train.py's flags stop the question.

    temperature: of both softmaxes. of_mean: the mean thought is aligned instead of each. stop_question: no gradient to
    z_q; without it z_q and the thoughts run towards each other, and can meet in one vector for all questions.
    variance_floor: max(0, floor - standard deviation over the slots), averaged over features, is added.
    """

    temperature: float = 1.0
    of_mean: bool = False
    stop_question: bool = False
    variance_floor: float = 0.0


@dataclass(frozen=True)
class Objective:
    """What training minimises. A loss with weight 0 is not computed in training; dev reports it all the same."""

    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LOSSES, 0.0) | {"sft": 1.0})
    focus_temperature: float = 0.1
    align: AlignForm = AlignForm()


class _TargetCrossEntropy(torch.autograd.Function):
    """Cross-entropy by an online softmax over blocks of the vocabulary, as in FlashAttention (arXiv 2205.14135).

    The queries are the hidden states, the keys and values are the head's rows. The attention's output is the mean of
    the head's rows, weighted by their probabilities. Less the gold token's row it is the gradient of the hidden states.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, head: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        tokens, d = hidden.shape
        largest = torch.full((tokens, 1), -torch.inf, device=hidden.device)
        total, gold_logits, gradient, start = torch.zeros_like(largest), torch.zeros_like(largest), None, 0
        if ctx.needs_input_grad[0]:
            gradient = torch.zeros(tokens, d, device=hidden.device)
        for rows in head.split(max(256, BLOCK[hidden.device.type] // max(1, tokens))):
            logits = (hidden @ rows.T).float()  # (T, rows)
            # the gold logit is taken from this product, rounded as all the others are: a loss is never below zero
            place = labels[:, None] - start
            in_block = (place >= 0) & (place < len(rows))
            start += len(rows)
            gold_logits += logits.gather(1, place.clamp(0, len(rows) - 1)) * in_block
            before, largest = largest, torch.maximum(largest, logits.amax(1, keepdim=True))
            weights, shrink = logits.sub_(largest).exp_(), (before - largest).exp_()
            total.mul_(shrink).add_(weights.sum(1, keepdim=True))
            if gradient is not None:
                gradient.mul_(shrink).add_(weights.to(head.dtype) @ rows)
        if gradient is not None:
            ctx.save_for_backward(gradient.div_(total).sub_(head[labels]).to(hidden.dtype))
        each = largest + total.log() - gold_logits  # (T, 1)
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    def backward(ctx, d_total: Tensor, _):  # pyright: ignore[reportIncompatibleMethodOverride] torch types it (*grads)
        (gradient,) = ctx.saved_tensors
        return (gradient * d_total).to(gradient.dtype), None, None


def target_cross_entropy(hidden: Tensor, head: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """L_SFT, summed over the T target tokens, and of each of them.

    hidden (T, d): last hidden states at the columns that predict the targets; head (V, d): the frozen output embedding,
    in the same dtype; labels (T,) int64. Returns a float32 scalar, and (T,) float32 without gradients. The gradient of
    `hidden` is computed in the forward pass, block by block of the vocabulary, so no more than BLOCK logits are in
    memory; a head that is trained too (--full_tuning) gets its own from all of them.
    """
    if head.requires_grad and torch.is_grad_enabled():
        of_tokens = F.cross_entropy((hidden @ head.T).float(), labels, reduction="none")
        return of_tokens.sum(), of_tokens.detach()
    total, each = _TargetCrossEntropy.apply(hidden, head, labels)
    return total, each[:, 0]


def semantic_alignment(z_question: Tensor, z_thoughts: Tensor, form: AlignForm = AlignForm()) -> Tensor:
    """L_align a row: mean over the N slots of KL(softmax(z_q) || softmax(z_L_i)), softmax over features, in float32.

    z_question (B, d), z_thoughts (B, N, d), any float dtype. Returns (B,) float32. If all thoughts are equal, the
    gradient of the variance floor is zero: it keeps different thoughts different, it cannot separate equal ones.
    """
    question, thoughts, floor = z_question.float(), z_thoughts.float(), form.variance_floor
    short = (floor - thoughts.std(1, correction=0)).clamp(min=0).mean(-1) if floor else 0.0
    if form.stop_question:
        question = question.detach()
    if form.of_mean:
        thoughts = thoughts.mean(1, keepdim=True)
    question = F.log_softmax(question / form.temperature, -1)[:, None]
    thoughts = F.log_softmax(thoughts / form.temperature, -1)
    return (question.exp() * (question - thoughts)).sum(-1).mean(-1) + short


def chain_diversity(z_chains: Tensor, temperature: float = 0.1) -> Tensor:
    """The contrastive loss of SoftCoT++ (arXiv 2505.11484) a row: -log softmax over c' of sim(c, c') at c' = c,
    averaged over the C chains c.

    z_chains (B, C, N, d), any float dtype. Returns (B,) float32. The similarity is ours: the cosine of two chains as
    vectors of N x d numbers, over a temperature. It is bounded, so that thoughts do not grow without end.
    """
    chains = F.normalize(z_chains.float().flatten(2), dim=-1)  # (B, C, N * d)
    similarity = chains @ chains.mT / temperature  # (B, C, C)
    return -similarity.log_softmax(-1).diagonal(dim1=1, dim2=2).mean(-1)


def reasoning_focus(
    z_question: Tensor, z_steps: Tensor, step_valid: Tensor, answer_embedding: Tensor, temperature: float
) -> Tensor:
    """L_focus a row: InfoNCE with anchor z_q and the M steps as candidates, cosine similarity / temperature.

    The positive is the step most similar (cosine, no gradient) to the mean input embedding of the gold answer's tokens.
    z_question (B, d), z_steps (B, M, d), step_valid (B, M) bool, answer_embedding (B, d), any float dtype.
    Returns (B,) float32, zero for rows without steps.
    """
    steps = z_steps.float()
    with torch.no_grad():
        to_answer = F.cosine_similarity(answer_embedding.float()[:, None], steps, dim=-1)
        positive = to_answer.masked_fill(~step_valid, -torch.inf).argmax(-1)
    logits = F.cosine_similarity(z_question.float()[:, None], steps, dim=-1) / temperature
    has_steps = step_valid.any(-1)
    # a row without steps keeps all (padding) candidates: its loss is finite, is set to zero, and stays in the graph
    candidates = step_valid | ~has_steps[:, None]
    loss = F.cross_entropy(logits.masked_fill(~candidates, -torch.inf), positive, reduction="none")
    return loss * has_steps
