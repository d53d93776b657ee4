"""Samplers: prompts with latent thoughts -> written answers. One interface, `Sampler`, and two behind it:

    TransformersSampler    the frozen LLM in this process (decoding.py)
    VllmSampler            a vLLM engine (vllm.py); it gets the prompts as embeddings

    requests = make_requests(models.layout, examples)
    with closing(TransformersSampler(models, settings, batch_size=8, num_injected=2)) as sampler:
        for answer in sampler.answers(requests):
            ...

A sample's noise depends on (seed, question, sample, position, token) alone, so batch size, rank and order do not change
it: in float32 on CPU the texts are the same. (In bf16 the kernels of another batch shape may round differently.) With
vLLM it depends on (seed, question, sample) and on the engine.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.common import ranks
from lta_thinker.generation.decoding import ROOM, decode
from lta_thinker.generation.prompts import PromptEmbedder, Request, make_requests
from lta_thinker.generation.sampling import Sample, SamplingSettings, resolve_sampling
from lta_thinker.llm.frozen import num_positions
from lta_thinker.model import Models
from lta_thinker.progress import track
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout, encode


@dataclass(frozen=True)
class Backend:
    """What writes the answers: "hf" (this process) or "vllm" (an engine of its own, which the other fields are for).

    model_id, dtype ("float32", ...), trust_remote_code: of the LLM that the engine loads. max_model_len: the longest
    prompt and answer together. None: vLLM's choice.
    """

    name: str
    model_id: str
    dtype: str
    trust_remote_code: bool
    tensor_parallel_size: int | None
    data_parallel_size: int | None
    gpu_memory_utilization: float | None
    max_model_len: int | None


@dataclass(frozen=True)
class Answer:
    """The samples of one request, and their texts."""

    request: Request
    samples: list[Sample]
    texts: list[str]


def stop_token_ids(llm, layout: Layout) -> list[int]:
    """Tokens that end an answer: the generation_config's, the tokenizer's and the chat template's end of turn."""
    of_model = llm.generation_config.eos_token_id
    end_of_turn: list = encode(layout.llm_tokenizer, layout.llm.end)
    ids = {layout.llm_tokenizer.eos_token_id, *(of_model if isinstance(of_model, list) else [of_model])}
    if len(end_of_turn) == 1:
        ids |= {*end_of_turn}
    return sorted(ids - {None})


def greedy_settings(llm, max_new_tokens: int | None) -> SamplingSettings:
    """The likeliest token always; max_new_tokens None: the default."""
    model_type, positions = llm.config.get_text_config().model_type, num_positions(llm.config)
    own = llm.generation_config
    return resolve_sampling(model_type, own, greedy=True, positions=positions, max_new_tokens=max_new_tokens)


def decode_texts(layout: Layout, samples: Sequence[Sample]) -> list[str]:
    """The samples' texts, without special tokens."""
    tokens = [sample.tokens for sample in samples]
    return layout.llm_tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def is_right(text: str, finished: bool, example: Example, answer_type: str) -> bool:
    """Whether the answer in a text, which was finished or cut off, equals the example's."""
    return answers_equal(extract_answer(text, answer_type, example.options, finished), example.answer, answer_type)


# ---------------------------------------------------------------------------------------------------------------------
# --batch_size auto

# rows written at a time, at most, by type of device: more rows make a step slower and no token cheaper
MOST_ROWS = {"cpu": 80, "cuda": 512}


def auto_batch_size(llm, settings: SamplingSettings, longest: int, questions: int) -> int:
    """How many questions' samples fit into free memory together if every answer is max_new_tokens long behind a prompt
    of `longest` columns; prints it with the reason in one line."""
    config, devices = llm.config.get_text_config(), {weight.device for weight in llm.parameters()}
    columns, (device, *_) = longest + settings.max_new_tokens + ROOM, sorted(devices, key=str)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    layer = 2 * heads * head_dim * llm.dtype.itemsize * columns
    # a growing layer is in memory twice; logits are there in the LLM's dtype and as the choice's copies
    row = layer * (config.num_hidden_layers + 1) + config.vocab_size * 3 * llm.dtype.itemsize
    question = row * settings.num_return_sequences
    # layers are spread evenly, so the fullest device decides
    free = min(free_bytes(device) for device in devices) * len(devices)
    most = max(1, min(questions, MOST_ROWS[device.type] // settings.num_return_sequences))
    size = max(1, min(most, int(0.9 * free / question)))
    print(
        f"  batch_size = {size} (auto): a question takes up to {question / 2**30:.2f} GiB "
        f"({settings.num_return_sequences} samples, {columns:,} columns each), {free / 2**30:.1f} GiB are free, "
        f"and {most} are the most at a time"
    )
    return size


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; of the host's, this process's share."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // ranks().node_size


# ---------------------------------------------------------------------------------------------------------------------
# Samplers


class Sampler(ABC):
    """Writes answers to questions, behind prompts with thoughts.

    batch_size: questions at a time; num_injected: n, how many of the N thoughts go into the prompt (None: all).
    """

    def __init__(self, models: Models, settings: SamplingSettings, batch_size: int, num_injected: int | None = None):
        self.llm: Any = models.llm
        self.layout, self.settings, self.batch_size = models.layout, settings, batch_size
        chains = 1 if models.thoughts is None else models.thoughts.design.num_chains
        self.embed = PromptEmbedder(models, min(chains, settings.num_return_sequences), num_injected)
        self.stop_ids = stop_token_ids(self.llm, self.layout)

    @torch.no_grad()
    def answers(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """The requests' answers as soon as they are written, in another order than the requests."""
        for request, samples in self._decode(requests):
            yield Answer(request, samples, decode_texts(self.layout, samples))

    @abstractmethod
    def _decode(self, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Sample]]]:
        """(request, its samples) as soon as all of them are finished; the longest prompts come first. Sample s is
        written behind chain s modulo the number of chains."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the sampler holds besides the models."""


class TransformersSampler(Sampler):
    """The frozen LLM writes, in this process."""

    def _decode(self, requests):
        return decode(self.llm, self.settings, self.stop_ids, requests, self.embed, self.batch_size)

    def close(self) -> None:
        """Nothing is held."""


def count_right(
    models: Models,
    examples: Sequence[Example],
    answer_type: str,
    max_new_tokens: int,
    batch_size: int,
    quiet: bool = False,
) -> int:
    """How many of the questions the LLM answers right, decoding greedily behind all N thoughts (of the first chain)."""
    settings = greedy_settings(models.llm, max_new_tokens)
    answers = TransformersSampler(models, settings, batch_size).answers(make_requests(models.layout, examples))
    tracked = track(answers, "answers", len(examples), quiet)
    return sum(
        is_right(answer.texts[0], answer.samples[0].finished, answer.request.example, answer_type) for answer in tracked
    )
