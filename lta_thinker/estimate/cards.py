"""GPUs by the rates on their data sheets, and how much of these a run here was measured to reach.

    seconds_of(cost, CARDS["h100"], "bfloat16")

A step waits for the slowest of three: the arithmetic, the memory, and the host, which starts one kernel after another.
"""

from dataclasses import dataclass

from lta_thinker.estimate.cost import Cost


@dataclass(frozen=True)
class Card:
    """A GPU: bytes of memory, operations a second of dense matrix products by dtype (float32 without TF32, which
    PyTorch leaves off), bytes a second of its memory, and the data sheet."""

    name: str
    memory: float
    rates: dict[str, float]
    bandwidth: float
    source: str


GIB = 2**30
CARDS = {
    "a100": Card(
        "A100 SXM 80 GB",
        80 * GIB,
        {"bfloat16": 312e12, "float32": 19.5e12},
        2.039e12,
        "NVIDIA A100 Tensor Core GPU data sheet, 2021",
    ),
    "h100": Card(
        "H100 SXM 80 GB",
        80 * GIB,
        {"bfloat16": 989e12, "float32": 67e12},
        3.35e12,
        "NVIDIA H100 Tensor Core GPU data sheet, 2023",
    ),
    "h200": Card(
        "H200 SXM 141 GB",
        141e9,
        {"bfloat16": 989e12, "float32": 67e12},
        4.8e12,
        "NVIDIA H200 Tensor Core GPU data sheet, 2023",
    ),
    "4090": Card(
        "GeForce RTX 4090 24 GB",
        24 * GIB,
        {"bfloat16": 165.2e12, "float32": 82.6e12},
        1.008e12,
        "NVIDIA Ada GPU architecture white paper, 2022, appendix A: bf16 of Tensor cores, float32 without them",
    ),
}
LEFT_FREE = 1.5e9  # bytes that CUDA itself, the libraries' workspaces and the allocator's gaps take of a card


@dataclass(frozen=True)
class Measured:
    """What was measured: the share of a card's arithmetic that training steps of large batches reach, the share of its
    bandwidth that is taken as reached, and the host's seconds for a kernel. The command and the day."""

    arithmetic: float
    bandwidth: float
    seconds_a_kernel: float
    what: str


# docs/results/speed.md: block and small_block at batch 16 and 32 (0.44 and 0.88 s), the host's share at batch 1 and 4
MEASURED = Measured(
    arithmetic=0.36,
    bandwidth=1.0,
    seconds_a_kernel=30e-6,
    what="one H200, bf16, benchmarks/train_step.py --shape 8b, 25 and 26 November 2026",
)


def seconds_of(cost: Cost, card: Card, dtype: str, measured: Measured = MEASURED) -> float:
    """Seconds of some work on a card; dtype: of the LMs, "bfloat16" or "float32"."""
    arithmetic = cost.operations / (card.rates[dtype] * measured.arithmetic)
    memory = cost.moved / (card.bandwidth * measured.bandwidth)
    return max(arithmetic, memory, cost.kernels * measured.seconds_a_kernel)


def room(card: Card) -> float:
    """Bytes of a card that a run can use."""
    return card.memory - LEFT_FREE
