"""The next token: sampling settings, noise that depends on (seed, question, sample, position, token) alone, the choice.

    settings = resolve_sampling(config.model_type, llm.generation_config, num_return_sequences=10, seed=41)
    tokens, log_probs = choose(logits, settings, noise_keys(settings.seed, questions, samples), positions)

Shapes: R rows, V vocabulary, K candidates that sampling may choose from.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig

from lta_thinker.common import InputError

# ---------------------------------------------------------------------------------------------------------------------
# Settings: the library's defaults, the model's own, the published ones of its family, flags; the later ones win

DEFAULT_SAMPLING = {
    "max_new_tokens": 4096,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
PUBLISHED_SAMPLING = {  # by model_type
    "qwen3": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0},
    "qwen2": {"temperature": 0.5, "top_p": 1.0, "top_k": 10, "min_p": 0.0},
    "llama": {"temperature": 0.5, "top_p": 1.0, "top_k": 10, "min_p": 0.0},
}
FLAGS = ("max_new_tokens", "temperature", "top_p", "top_k", "min_p")  # what a flag can set
NO_SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}  # of greedy settings


RANGES = {
    "max_new_tokens": (lambda value: value >= 1, "must be at least 1"),
    "temperature": (lambda value: value > 0, "must be above 0 and finite (--greedy takes the likeliest token)"),
    "top_p": (lambda value: 0 < value <= 1, "must be above 0 and at most 1"),
    "top_k": (lambda value: value >= 0, "must be 0 (off) or more"),
    "min_p": (lambda value: 0 <= value <= 1, "must be from 0 to 1"),
    "repetition_penalty": (lambda value: value > 0, "must be above 0 and finite"),
    "num_return_sequences": (lambda value: value >= 1, "must be at least 1"),
}


def default_new_tokens(positions: int | None) -> int:
    """The longest answer where no flag says it: DEFAULT_SAMPLING's, but at most half of the LLM's positions."""
    usual = DEFAULT_SAMPLING["max_new_tokens"]
    return usual if positions is None else max(1, min(usual, positions // 2))


@dataclass(frozen=True)
class SamplingSettings:
    """All that decides which tokens are chosen, apart from the model and its input. top_k 0 and min_p 0: off."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    greedy: bool
    num_return_sequences: int
    seed: int


def resolve_sampling(
    model_type: str,
    generation_config: GenerationConfig,
    num_return_sequences: int = 1,
    seed: int = 41,
    greedy: bool = False,
    positions: int | None = None,
    **flags: float | None,
) -> SamplingSettings:
    """Settings from the model's generation_config, the published ones where `model_type` is known, and `flags` (names
    as in DEFAULT_SAMPLING; None: not given). positions: how many columns the LLM reads (frozen.num_positions); where no
    flag says it, an answer takes at most half of them. InputError, which names the flag or the model's key, for values
    out of range."""
    own = {name: getattr(generation_config, name, None) for name in DEFAULT_SAMPLING if name != "max_new_tokens"}
    values = DEFAULT_SAMPLING | {"max_new_tokens": default_new_tokens(positions)}
    for source in (own, PUBLISHED_SAMPLING.get(model_type, {}), flags):
        values |= {name: value for name, value in source.items() if value is not None}
    if greedy:
        values |= NO_SAMPLING
    settings = SamplingSettings(**values, greedy=greedy, num_return_sequences=num_return_sequences, seed=seed)
    whole = ("max_new_tokens", "top_k", "num_return_sequences", "seed")
    for name, value in vars(settings).items():
        number = isinstance(value, int if name in whole else int | float) and math.isfinite(value)
        in_range, reason = RANGES.get(name, (lambda value: True, "must be a number"))
        if not number or not in_range(value):
            of_model = value is own.get(name) and flags.get(name) is None
            named = f"the model's generation_config: {name}" if of_model else f"--{name}"
            remedy = f"; --{name} is used instead" if of_model and name in FLAGS else ""
            raise InputError(f"{named} {value}: {reason}{', and whole' if name in whole else ''}{remedy}")
    if greedy and num_return_sequences > 1:
        raise InputError(f"--greedy with --num_return_sequences {num_return_sequences}: all samples would be the same")
    return settings


# ---------------------------------------------------------------------------------------------------------------------
# Noise: a counter-based hash (the finaliser of splitmix64 after every number taken in), in wrapping int64


def _int64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


GOLDEN, MIX_1, MIX_2 = map(_int64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _absorb(state: Tensor, value: Tensor) -> Tensor:
    """Hash of (state, value), broadcast, int64."""

    def fold(x: Tensor, shift: int) -> Tensor:  # x ^ (x >>> shift); the mask makes the shift a logical one
        return x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))

    x = state + (value + 1) * GOLDEN
    x = fold(x, 30) * MIX_1
    x = fold(x, 27) * MIX_2
    return fold(x, 31)


def noise_keys(seed: int, questions: Tensor, samples: Tensor) -> Tensor:
    """One key a row, (R, 1) int64, from the question's number (prompts.Request.noise) and the sample's, (R,) int64."""
    key = _absorb(torch.zeros_like(questions), torch.tensor(seed % (1 << 62)))
    return _absorb(_absorb(key, questions), samples)[:, None]


def gumbel_noise(keys: Tensor, positions: Tensor, token_ids: Tensor) -> Tensor:
    """Gumbel(0, 1) noise, float64, for tokens (R, K) of rows with `keys` (R, 1) at their positions (R, 1)."""
    bits = _absorb(_absorb(keys, positions), token_ids)
    # 52 bits and a half: strictly between 0 and 1, exact in float64, so neither logarithm is infinite
    uniform = (((bits >> 12) & ((1 << 52) - 1)).double() + 0.5) * 2.0**-52
    return -(-uniform.log()).log()


# ---------------------------------------------------------------------------------------------------------------------
# The next token

# candidates beyond top_k that are looked at for others as likely as the last; on a CPU all of these are found
BEYOND_TOP_K = {"cpu": 16, "cuda": 256}
ALL_TIES = {"cpu": True, "cuda": False}  # whether all are found that are as likely as the last: they are counted
NUMBERS_AT_A_TIME = {"cpu": 1 << 19, "cuda": 1 << 25}  # logits whose normaliser is computed at a time


def choose(
    logits: Tensor, settings: SamplingSettings, keys: Tensor, positions: Tensor, written: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (R, V) -> tokens (R, 1), and their log-probabilities (R,) under the model itself: before any penalty,
    temperature or cut.

    Sampling is Gumbel-max: the argmax of (warped logits + noise) is a draw from the warped softmax. keys, positions:
    (R, 1), of the noise; written: (R, V) bool, tokens that the repetition penalty is for (in float32, as the library
    has it). Where a row's logits are not finite its log-probability is not either (check_log_probs).
    """
    scores = logits
    if written is not None:
        penalty, scores = settings.repetition_penalty, logits.float()
        scores = torch.where(written, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
    tokens = scores.argmax(-1, keepdim=True) if settings.greedy else draw(scores, settings, keys, positions)
    # a few rows at a time: float32 copies of all of them would take longer to allocate than to compute
    rows = max(1, NUMBERS_AT_A_TIME[logits.device.type] // logits.shape[-1])
    normalisers = [part.float().logsumexp(-1) for part in logits.split(rows)]
    return tokens, logits.gather(1, tokens)[:, 0].float() - torch.cat(normalisers)


def draw(scores: Tensor, settings: SamplingSettings, keys: Tensor, positions: Tensor) -> Tensor:
    """A token of each row (R, V) -> (R, 1), after temperature, top-k, top-p and min-p as the library has them."""
    scores, tokens = candidates(scores, settings.top_k)
    scores = scores.float() / settings.temperature
    if settings.top_p < 1.0 or settings.min_p > 0.0:
        probs = scores.softmax(-1)
        behind = probs.flip(-1).cumsum(-1).flip(-1)  # the mass from a candidate on
        cut = (behind <= 1 - settings.top_p) | (probs < settings.min_p * probs[:, :1])
        cut[:, 0] = False
        scores = scores.masked_fill(cut, -torch.inf)
    return tokens.gather(1, (scores + gumbel_noise(keys, positions, tokens)).argmax(-1, keepdim=True))


def candidates(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The top_k likeliest tokens of each row (R, V) (0: all), and all that are as likely as the last of these, as in
    the library -> scores and tokens (R, K), likeliest first; what a row has not is -inf.

    In bf16 many tie. On a GPU at most BEYOND_TOP_K more than top_k are kept: to count them the CPU would wait for it.
    """
    size, device = scores.shape[-1], scores.device.type
    if top_k == 0 or top_k >= size:
        return scores.topk(size)
    width = min(size, top_k + BEYOND_TOP_K[device])
    values, tokens = scores.topk(width)
    if ALL_TIES[device]:
        kept = int((values >= values[:, top_k - 1, None]).sum(-1).max())
        if kept == width < size:
            kept = int((scores >= values[:, top_k - 1, None]).sum(-1).max())
            values, tokens = scores.topk(kept)
        kept = max(kept, top_k)  # NaN is not as likely as itself
        values, tokens = values[:, :kept], tokens[:, :kept]
    return values.masked_fill(values < values[:, top_k - 1, None], -torch.inf), tokens


@dataclass(frozen=True)
class Sample:
    """One answer: its tokens without the end token, the number of generated tokens (with it), whether it ended by
    itself (else it was cut off), and the mean log-probability of a token under the model."""

    tokens: list[int]
    num_tokens: int
    finished: bool
    score: float


def check_log_probs(log_probs: list[float], model_id: str, question: str) -> None:
    """InputError where the log-probabilities of written tokens are not finite: then the LLM's logits are not."""
    if not all(map(math.isfinite, log_probs)):
        raise InputError(
            f"{model_id}: the LLM's logits are not finite (NaN or infinite) behind the prompt of {question!r:.60}; its "
            "weights are broken, or --dtype is too narrow for them"
        )


def make_sample(tokens: list[int], log_prob: float, stop_ids: list[int]) -> Sample:
    """The Sample of generated tokens (at least one; the last may be an end token) and their summed log-probability."""
    count, finished = len(tokens), tokens[-1] in stop_ids
    return Sample(tokens[: count - finished], count, finished, log_prob / count)
