"""Samplers: prompts with latent thoughts -> written answers, by transformers' `generate`.

A sample's noise depends on (seed, question, sample, position, token) alone. Batch size, rank and order change nothing:
in float32 on CPU the texts are the same. (In bf16 the kernels of another batch shape may round differently.)

    settings = resolve_sampling(config.model_type, llm.generation_config, num_return_sequences=10, seed=41)
    for example, samples, texts in generate_answers(llm, thought_model, layout, examples, settings, batch_size=4):
        ...

Shapes: B questions, S samples of each, R = B x S rows, V vocabulary, K candidates that sampling may choose from.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import transformers
from packaging.version import Version
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache, GenerationConfig, LogitsProcessor
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from answers import answers_equal, extract_answer
from data_loader import Example, InputError
from layout import Layout, PromptCollator, encode, pad_token_id
from model import LatentThoughtModel, decoder, llm_inputs, position_ids

CACHE_BY_LAYERS = Version(transformers.__version__) >= Version("4.56")
if CACHE_BY_LAYERS:
    from transformers.cache_utils import DynamicLayer

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
NO_SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}  # what greedy settings say


@dataclass(frozen=True)
class SamplingSettings:
    """All that decides which words are chosen, apart from the model and its input. top_k 0 and min_p 0: off."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    greedy: bool
    num_return_sequences: int
    seed: int


def load_generation_config(model_id: str, config) -> GenerationConfig:
    """The generation settings a model comes with (hub id or folder); from its config where it has no such file."""
    try:
        return GenerationConfig.from_pretrained(model_id)
    except OSError:
        return GenerationConfig.from_model_config(config)


def resolve_sampling(
    model_type: str,
    generation_config: GenerationConfig,
    num_return_sequences: int = 1,
    seed: int = 41,
    greedy: bool = False,
    **flags: float | None,
) -> SamplingSettings:
    """Settings from the model's generation_config, the published ones where `model_type` is known, and `flags` (names
    as in DEFAULT_SAMPLING; None: not given). InputError for values that cannot be."""
    own = {name: getattr(generation_config, name, None) for name in DEFAULT_SAMPLING if name != "max_new_tokens"}
    values = dict(DEFAULT_SAMPLING)
    for source in (own, PUBLISHED_SAMPLING.get(model_type, {}), flags):
        values |= {name: value for name, value in source.items() if value is not None}
    if greedy:
        values |= NO_SAMPLING
    settings = SamplingSettings(**values, greedy=greedy, num_return_sequences=num_return_sequences, seed=seed)
    allowed = {
        "max_new_tokens": (settings.max_new_tokens >= 1, "must be at least 1"),
        "temperature": (settings.temperature > 0, "must be above 0 (--greedy takes the likeliest token)"),
        "top_p": (0 < settings.top_p <= 1, "must be above 0 and at most 1"),
        "top_k": (settings.top_k >= 0, "must be 0 (off) or more"),
        "min_p": (0 <= settings.min_p <= 1, "must be from 0 to 1"),
        "num_return_sequences": (num_return_sequences >= 1, "must be at least 1"),
    }
    for name, (good, reason) in allowed.items():
        if not good:
            raise InputError(f"--{name} {getattr(settings, name)}: {reason}")
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
    """One key a row, (R, 1) int64, from the question's and the sample's number (R,)."""
    key = _absorb(torch.zeros_like(questions), torch.tensor(seed % (1 << 62)))
    return _absorb(_absorb(key, questions), samples)[:, None]


def gumbel_noise(keys: Tensor, position: int, token_ids: Tensor) -> Tensor:
    """Gumbel(0, 1) noise, float64, for tokens (R, K) at a position of rows with `keys` (R, 1)."""
    bits = _absorb(_absorb(keys, torch.tensor(position)), token_ids)
    # 52 bits and a half: strictly between 0 and 1, exact in float64, so neither logarithm is infinite
    uniform = (((bits >> 12) & ((1 << 52) - 1)).double() + 0.5) * 2.0**-52
    return -(-uniform.log()).log()


# ---------------------------------------------------------------------------------------------------------------------
# Sampling


class SeededChoice(LogitsProcessor):
    """Chooses each row's next token, and leaves only that one to `generate`'s argmax.

    Sampling is Gumbel-max: the argmax of (warped logits + noise) is a draw from the warped softmax. `log_probs` gets
    the chosen tokens' log-probabilities (R,) under the model itself, before any penalty, temperature or cut.
    """

    def __init__(self, settings: SamplingSettings, keys: Tensor):
        self.settings, self.keys = settings, keys
        self.log_probs: list[Tensor] = []
        penalty = settings.repetition_penalty
        self.penalty = None if penalty == 1.0 else RepetitionPenaltyLogitsProcessor(penalty)
        self.warpers = [TemperatureLogitsWarper(float(settings.temperature))]
        if settings.top_p < 1.0:
            self.warpers.append(TopPLogitsWarper(settings.top_p))
        if settings.min_p > 0.0:
            self.warpers.append(MinPLogitsWarper(settings.min_p))

    def __call__(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        logits = logits.float()  # (R, V)
        scores = self.penalty(input_ids, logits) if self.penalty else logits
        choice = scores.argmax(-1, keepdim=True) if self.settings.greedy else self._draw(input_ids, scores)
        self.log_probs.append((logits.gather(1, choice) - logits.logsumexp(-1, keepdim=True))[:, 0])
        return torch.full_like(logits, -torch.inf).scatter_(1, choice, 0.0)

    def _draw(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.settings.top_k:
            scores, tokens = scores.topk(min(self.settings.top_k, scores.shape[-1]))  # (R, K)
        else:
            tokens = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        # inputs are embeddings: input_ids holds the generated tokens only
        noise = gumbel_noise(self.keys, input_ids.shape[1], tokens)
        return tokens.gather(1, (scores + noise).argmax(-1, keepdim=True))


@dataclass(frozen=True)
class Sample:
    """One answer: its tokens without the end token, how many were generated (with it), whether it ended by itself
    (else it was cut off), and the mean log-probability a token under the model."""

    tokens: list[int]
    num_tokens: int
    finished: bool
    score: float


def stop_token_ids(llm, layout: Layout) -> list[int]:
    """Tokens that end an answer: the generation_config's, the tokenizer's and the chat template's end of turn."""
    own = llm.generation_config.eos_token_id
    end_of_turn = encode(layout.llm_tokenizer, layout.llm.end)
    ids = {*(own if isinstance(own, list) else [own]), layout.llm_tokenizer.eos_token_id}
    return sorted((ids | set(end_of_turn if len(end_of_turn) == 1 else [])) - {None})


if CACHE_BY_LAYERS:

    class RoomyLayer(DynamicLayer):
        """A filled layer's keys and values with room behind them, so that a token does not copy all that is there."""

        ROOM = 64  # tokens

        def __init__(self, layer: DynamicLayer):
            super().__init__()
            self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
            self.stores = [layer.keys, layer.values]  # (R, heads, T + room, d)
            self._show(layer.keys.shape[-2])

        def _show(self, length: int) -> None:
            self.keys, self.values = (store[..., :length, :] for store in self.stores)

        def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
            start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
            if end > self.stores[0].shape[-2]:
                room = end + self.ROOM - start
                self.stores = [F.pad(shown, (0, 0, 0, room)) for shown in (self.keys, self.values)]
            for store, states in zip(self.stores, (key_states, value_states), strict=True):
                store[..., start:end, :] = states
            self._show(end)
            return self.keys, self.values


@torch.no_grad()
def prefill(llm, inputs: dict[str, Tensor]) -> DynamicCache:
    """Keys and values of every prompt column but the last, (B, ...): computed once, whatever the number of samples."""
    # a cache by layers keeps of a layer with a sliding window no more than its window, as `generate` has it
    cache = DynamicCache(config=llm.config) if CACHE_BY_LAYERS else DynamicCache()
    mask = inputs["attention_mask"][:, :-1]
    decoder(llm)(
        inputs_embeds=inputs["inputs_embeds"][:, :-1],
        attention_mask=mask,
        position_ids=position_ids(mask),
        past_key_values=cache,
        use_cache=True,
    )
    return cache


@torch.no_grad()
def sample(
    llm, inputs: dict[str, Tensor], questions: list[int], settings: SamplingSettings, stop_ids: list[int], pad_id: int
) -> list[list[Sample]]:
    """Samples of each prompt. inputs: of model.llm_inputs, left-padded, a row for each chain of each question (sample s
    takes chain s modulo C); questions: the numbers that seed the noise."""
    s, chains = settings.num_return_sequences, len(inputs["attention_mask"]) // len(questions)
    row_of = torch.arange(len(questions))[:, None] * chains + torch.arange(s) % chains  # (B, S)
    row_of = row_of.flatten()  # on the CPU: the layers of a spread LLM lie on several devices
    rows = {name: value[row_of] for name, value in inputs.items()}  # (R, T, ...)
    cache = prefill(llm, inputs)
    cache.batch_select_indices(row_of)
    if CACHE_BY_LAYERS:
        cache.layers = [RoomyLayer(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    device = rows["attention_mask"].device
    numbers = torch.tensor(questions, device=device).repeat_interleave(s)
    keys = noise_keys(settings.seed, numbers, torch.arange(s, device=device).repeat(len(questions)))
    choose = SeededChoice(settings, keys)
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens, do_sample=False, eos_token_id=stop_ids or None, pad_token_id=pad_id
    )
    own = llm.generation_config
    llm.generation_config = GenerationConfig()  # `generate` fills what `config` leaves open from here
    try:
        # no position_ids: transformers 4.53 makes them from the mask, and takes given ones wrongly
        tokens = llm.generate(**rows, past_key_values=cache, generation_config=config, logits_processor=[choose])
    finally:
        llm.generation_config = own
    log_probs = torch.stack(choose.log_probs, dim=1).tolist()
    samples = [_cut(row, scores, set(stop_ids)) for row, scores in zip(tokens.tolist(), log_probs, strict=True)]
    return [samples[i : i + s] for i in range(0, len(samples), s)]


def _cut(tokens: list[int], log_probs: list[float], stop_ids: set[int]) -> Sample:
    end = next((i for i, token in enumerate(tokens) if token in stop_ids), None)
    count = len(tokens) if end is None else end + 1
    return Sample(tokens[:end], count, end is not None, sum(log_probs[:count]) / count)


def prompt_batch(layout: Layout, examples: list[Example], device) -> dict[str, Tensor]:
    """Prompts of some examples as one left-padded batch on `device`."""
    batch = PromptCollator(layout)([layout.prompt(example.question) for example in examples])
    return {name: value.to(device) for name, value in batch.items()}


@torch.no_grad()
def generate_answers(
    llm,
    thought_model: LatentThoughtModel | None,
    layout: Layout,
    examples: list[Example],
    settings: SamplingSettings,
    batch_size: int,
    num_injected: int | None = None,
) -> Iterator[tuple[Example, list[Sample], list[str]]]:
    """(example, its samples, their texts) in order, batch by batch.

    num_injected: so many of the N thoughts go into the prompt. thought_model None: none, in a layout without slots.
    """
    device = llm.get_input_embeddings().weight.device
    stop_ids, pad_id = stop_token_ids(llm, layout), pad_token_id(layout.llm_tokenizer)
    for start in range(0, len(examples), batch_size):
        group = examples[start : start + batch_size]
        batch = prompt_batch(layout, group, device)
        thoughts = None
        if thought_model is not None:
            question = (batch["question_ids"], batch["question_mask"])
            _, thoughts = thought_model.chain_thoughts(*question, settings.num_return_sequences)  # (B, C, N, d)
            chains = thoughts.shape[1]
            batch = {name: value.repeat_interleave(chains, dim=0) for name, value in batch.items()}
            thoughts = thoughts.flatten(0, 1)[:, :num_injected]
        inputs = llm_inputs(llm, batch, thoughts)
        drawn = sample(llm, inputs, [example.index for example in group], settings, stop_ids, pad_id)
        for example, samples in zip(group, drawn, strict=True):
            texts = layout.llm_tokenizer.batch_decode(
                [one.tokens for one in samples], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            yield example, samples, texts


def count_right(
    model: LatentThoughtModel,
    layout: Layout,
    examples: list[Example],
    answer_type: str,
    max_new_tokens: int,
    batch_size: int,
    quiet: bool = False,
) -> int:
    """How many of the questions the LLM answers right, decoding greedily behind all N thoughts (of the first chain)."""
    llm = model.llm
    model_type = llm.config.get_text_config().model_type
    settings = resolve_sampling(model_type, llm.generation_config, greedy=True, max_new_tokens=max_new_tokens)
    answers = generate_answers(llm, model, layout, examples, settings, batch_size)
    answers = tqdm(answers, desc="answers", total=len(examples), disable=quiet, leave=False)
    return sum(
        answers_equal(extract_answer(text, answer_type, example.options), example.answer, answer_type)
        for example, _, [text] in answers
    )
