"""The three losses against slow, plain implementations, with gradients."""

import math

import pytest
import torch

from lta_thinker import losses
from lta_thinker.losses import AlignForm, chain_diversity, reasoning_focus, semantic_alignment, target_cross_entropy


def random(*shape, seed, dtype=torch.float32, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(grad)


def cosine(a, b):
    return (a * b).sum() / (a.norm() * b.norm())


# ---------------------------------------------------------------------------------------------------------------------
# L_SFT


def plain_cross_entropy(hidden, head, labels):
    logits = hidden.double() @ head.double().T  # (T, V)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


@pytest.mark.parametrize("tokens", [1, 6, 7, 8, 14, 15])
def test_cross_entropy_matches_plain_one(monkeypatch, tokens):
    """The cross-entropy and its gradient are the plain ones, whatever the blocks of the vocabulary."""
    monkeypatch.setitem(losses.BLOCK, "cpu", 1)
    hidden, head = random(tokens, 5, seed=1, grad=True), random(600, 5, seed=2)  # blocks of 256 rows, the last of 88
    labels = torch.arange(tokens) * 211 % 600
    loss, _ = target_cross_entropy(hidden, head, labels)
    expected = plain_cross_entropy(hidden, head, labels)
    assert loss.dtype == torch.float32 and loss.shape == ()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-6)
    # a factor on the loss, as a weight or a token count is one
    (gradient,) = torch.autograd.grad(loss * 0.3, hidden)
    (wanted,) = torch.autograd.grad(expected * 0.3, hidden)
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-5)


def test_every_gold_token_is_found(monkeypatch):
    """The loss of each gold token is its own, also of those at the edges of the vocabulary's blocks (256 rows here)."""
    monkeypatch.setitem(losses.BLOCK, "cpu", 1)
    hidden, head, labels = random(1, 5, seed=1), random(600, 5, seed=2), torch.arange(600)
    _, each = target_cross_entropy(hidden.expand(600, -1), head, labels)
    expected = -(hidden.double() @ head.double().T).log_softmax(-1)[0]
    torch.testing.assert_close(each.flatten().double(), expected, atol=1e-5, rtol=1e-5)


def test_cross_entropy_handles_large_logits():
    """The cross-entropy of very large logits is right, and its gradient is finite."""
    hidden, head = random(3, 5, seed=1, grad=True), random(11, 5, seed=2) * 1e3
    labels = torch.tensor([0, 5, 10])
    loss, _ = target_cross_entropy(hidden, head, labels)
    torch.testing.assert_close(loss.double(), plain_cross_entropy(hidden, head, labels), atol=0, rtol=1e-6)
    assert torch.autograd.grad(loss, hidden)[0].isfinite().all()


def test_cross_entropy_without_gradients_or_targets():
    """The cross-entropy is right without gradients, and zero without targets."""
    hidden, head, labels = random(9, 5, seed=1), random(11, 5, seed=2), torch.arange(9)
    with torch.no_grad():
        loss, _ = target_cross_entropy(hidden, head, labels)
    assert not loss.requires_grad
    torch.testing.assert_close(loss.double(), plain_cross_entropy(hidden, head, labels), atol=1e-5, rtol=1e-6)
    empty = hidden[:0].requires_grad_()
    loss, _ = target_cross_entropy(empty, head, labels[:0])
    assert loss == 0 and torch.autograd.grad(loss, empty)[0].shape == (0, 5)


def test_bf16_cross_entropy_is_never_negative():
    """In bf16 the cross-entropy of tokens that are nearly sure is small and never below zero."""
    head = random(400, 64, seed=2, dtype=torch.bfloat16)
    labels = torch.arange(100)
    hidden = (head[labels].float() * 0.6).bfloat16().requires_grad_()
    each = target_cross_entropy(hidden, head, labels)[1].tolist()
    assert min(each) >= 0 and sum(each) < 1e-3 * 100


def test_bf16_cross_entropy_stays_close():
    """In bf16 the cross-entropy and its gradient stay close. The loss is float32, the gradient bf16."""
    hidden, head = random(20, 32, seed=1, dtype=torch.bfloat16, grad=True), random(50, 32, seed=2, dtype=torch.bfloat16)
    labels = torch.arange(20)
    (loss, _), expected = target_cross_entropy(hidden, head, labels), plain_cross_entropy(hidden, head, labels)
    torch.testing.assert_close(loss.double(), expected, atol=0, rtol=5e-3)
    (gradient,), (wanted,) = torch.autograd.grad(loss, hidden), torch.autograd.grad(expected, hidden)
    assert loss.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert (gradient - wanted).norm() < 0.02 * wanted.norm()


# ---------------------------------------------------------------------------------------------------------------------
# L_align


def test_alignment_is_the_plain_kl():
    """The align loss is the plain mean KL of question and thoughts, gradients included."""
    question, thoughts = random(3, 6, seed=1, grad=True), random(3, 4, 6, seed=2, grad=True)
    expected = []
    for b in range(3):
        p = question[b].double().softmax(-1)
        kls = [sum(p[j] * (p[j] / thoughts[b, i].double().softmax(-1)[j]).log() for j in range(6)) for i in range(4)]
        expected.append(sum(kls) / 4)
    loss, expected = semantic_alignment(question, thoughts), torch.stack(expected)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-5)
    row_weights = torch.tensor([1.0, -2.0, 0.5])
    gradients = torch.autograd.grad((loss * row_weights).sum(), (question, thoughts))
    wanted = torch.autograd.grad((expected * row_weights).sum(), (question, thoughts))
    torch.testing.assert_close(gradients, wanted, atol=1e-6, rtol=1e-5)


def test_alignment_is_zero_for_equal_thoughts():
    """The align loss is zero where thoughts equal the question or differ from it by a constant, and it is computed in
    float32."""
    question = random(2, 6, seed=1)
    same = question[:, None].expand(-1, 3, -1)
    assert semantic_alignment(question, same).abs().max() < 1e-6
    assert semantic_alignment(question, same + 5).abs().max() < 1e-6  # softmax does not see a constant
    half = question.bfloat16(), random(2, 3, 6, seed=2).bfloat16()
    torch.testing.assert_close(semantic_alignment(*half), semantic_alignment(half[0].float(), half[1].float()))


# ---------------------------------------------------------------------------------------------------------------------
# L_focus


def plain_focus(question, steps, step_valid, answer, temperature):
    rows = []
    for b in range(len(question)):
        real = [m for m in range(steps.shape[1]) if step_valid[b, m]]
        if not real:
            rows.append(question.sum().double() * 0)
            continue
        positive = max(real, key=lambda m: cosine(answer[b].detach(), steps[b, m].detach()).item())
        scores = {m: (cosine(question[b].double(), steps[b, m].double()) / temperature).exp() for m in real}
        rows.append(-(scores[positive] / sum(scores.values())).log())
    return torch.stack(rows)


def test_focus_is_the_plain_infonce():
    """The focus loss is the plain InfoNCE, gradients included. Masked steps have none."""
    question, steps = random(4, 6, seed=1, grad=True), random(4, 5, 6, seed=2, grad=True)
    answer = random(4, 6, seed=3)
    step_valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    loss = reasoning_focus(question, steps, step_valid, answer, 0.1)
    expected = plain_focus(question, steps, step_valid, answer, 0.1)
    assert loss.dtype == torch.float32 and (loss[:2] > 0).all()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-5)
    row_weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    gradients = torch.autograd.grad((loss * row_weights).sum(), (question, steps))
    wanted = torch.autograd.grad((expected * row_weights).sum(), (question, steps))
    torch.testing.assert_close(gradients, wanted, atol=1e-5, rtol=1e-4)
    assert gradients[1][1, 2:].abs().max() == 0, "a masked-out step has a gradient"


def test_focus_value_by_hand_calculation():
    """Anchor (1, 0), steps at cosine 1 and 0.6, the answer at the second: the loss is -log(e^6 / (e^10 + e^6)) with tau
    0.1."""
    question, steps = torch.tensor([[2.0, 0.0]]), torch.tensor([[[3.0, 0.0], [0.6, 0.8]]])
    loss = reasoning_focus(question, steps, torch.ones(1, 2).bool(), torch.tensor([[0.0, 7.0]]), 0.1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(4)), rel=1e-5)


def test_focus_is_zero_without_steps():
    """The focus loss of rows without steps is exactly zero. It stays in the graph, with zero gradients, as
    data-parallel ranks need."""
    question, steps = random(2, 6, seed=1, grad=True), random(2, 1, 6, seed=2, grad=True)
    loss = reasoning_focus(question, steps, torch.zeros(2, 1).bool(), random(2, 6, seed=3), 0.1)
    assert loss.tolist() == [0, 0] and loss.requires_grad  # data-parallel ranks need it in the graph
    for gradient in torch.autograd.grad(loss.sum(), (question, steps)):
        assert (gradient == 0).all()


def test_focus_choice_has_no_gradient():
    """No gradient goes through the choice of the positive step."""
    question, steps = random(2, 6, seed=1), random(2, 3, 6, seed=2, grad=True)
    answer = random(2, 6, seed=3, grad=True)
    loss = reasoning_focus(question, steps, torch.ones(2, 3).bool(), answer, 0.1).sum()
    steps_gradient, answer_gradient = torch.autograd.grad(loss, (steps, answer), allow_unused=True)
    assert answer_gradient is None and steps_gradient.abs().sum() > 0


# ---------------------------------------------------------------------------------------------------------------------
# Other forms of L_align, and the chains' diversity


def test_align_forms_match_their_formulas():
    """The align loss's temperature, mean of thoughts, stopped question and variance floor are what their formulas
    say."""
    question, thoughts = random(2, 6, seed=1, grad=True), random(2, 3, 6, seed=2, grad=True)
    plain = semantic_alignment(question, thoughts)
    torch.testing.assert_close(
        semantic_alignment(question, thoughts, AlignForm(4.0)), semantic_alignment(question / 4, thoughts / 4)
    )
    mean = thoughts.mean(1, keepdim=True)
    torch.testing.assert_close(
        semantic_alignment(question, thoughts, AlignForm(of_mean=True)), semantic_alignment(question, mean)
    )
    stopped = semantic_alignment(question, thoughts, AlignForm(stop_question=True))
    torch.testing.assert_close(stopped, plain)
    of_question, of_thoughts = torch.autograd.grad(stopped.sum(), (question, thoughts), allow_unused=True)
    assert of_question is None and of_thoughts.abs().sum() > 0
    sd = thoughts.std(1, correction=0)  # (2, 6)
    expected = plain + torch.stack([sum(max(0.0, 0.9 - x) for x in row) / 6 for row in sd])
    torch.testing.assert_close(semantic_alignment(question, thoughts, AlignForm(variance_floor=0.9)), expected)


def test_variance_floor_favours_different_thoughts():
    """Without a floor the align loss is lower where all thoughts are equal. With one it is lower where they differ."""
    question = random(1, 6, seed=1)
    one, two = question[:, None].expand(1, 4, 6), question[:, None] + 0.1 * random(1, 4, 6, seed=3)
    assert semantic_alignment(question, one) < semantic_alignment(question, two)
    floor = AlignForm(variance_floor=0.2)
    assert semantic_alignment(question, one, floor) > semantic_alignment(question, two, floor)


def test_diversity_value_by_hand_calculation():
    """Two chains at right angles: the diversity loss is -log(e^10 / (e^10 + 1)). Two equal ones: log 2. There is one
    value for each row."""
    apart, equal = torch.tensor([[[[3.0, 0.0]], [[0.0, 0.5]]]]), torch.tensor([[[[3.0, 0.0]], [[1.0, 0.0]]]])
    assert chain_diversity(apart).item() == pytest.approx(math.log(1 + math.exp(-10)), rel=1e-3)
    assert chain_diversity(equal).item() == pytest.approx(math.log(2), rel=1e-5)
    assert chain_diversity(random(5, 3, 4, 6, seed=1)).shape == (5,)
