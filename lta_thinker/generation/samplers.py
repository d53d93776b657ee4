"""Samplers: prompts with latent thoughts -> written answers. One interface, `Sampler`, and two behind it:

    TransformersSampler    the frozen LLM in this process (decoding.py)
    VllmSampler            a vLLM engine (vllm_sampler.py); it gets the prompts as embeddings

    with closing(open_sampler(args, plan, models, settings, examples)) as sampler:
        for example, samples, texts in sampler.answers(examples):
            ...

A sample's noise depends on (seed, question, sample, position, token) alone. Batch size, rank and order change nothing:
in float32 on CPU the texts are the same. (In bf16 the kernels of another batch shape may round differently.) With vLLM
it depends on (seed, question, sample) and on the engine.

Shapes: B questions, C chains of thoughts, N thoughts, T columns.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import Plan
from lta_thinker.generation.decoding import ROOM, decode
from lta_thinker.generation.sampling import Sample, SamplingSettings, resolve_sampling
from lta_thinker.model import LatentThoughtModel, llm_inputs
from lta_thinker.rows.batch import PromptCollator
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout, encode


def stop_token_ids(llm, layout: Layout) -> list[int]:
    """Tokens that end an answer: the generation_config's, the tokenizer's and the chat template's end of turn."""
    own = llm.generation_config.eos_token_id
    end_of_turn = encode(layout.llm_tokenizer, layout.llm.end)
    ids = {*(own if isinstance(own, list) else [own]), layout.llm_tokenizer.eos_token_id}
    return sorted((ids | set(end_of_turn if len(end_of_turn) == 1 else [])) - {None})


# most rows that --batch_size auto writes at a time, by type of device: more make a step slower and no token cheaper
MOST_ROWS = {"cpu": 80, "cuda": 512}


def auto_batch_size(llm, settings: SamplingSettings, longest: int, questions: int) -> int:
    """Questions whose samples fit into free memory together, were every answer max_new_tokens long behind a prompt of
    `longest` columns; prints it with the reason in one line."""
    config, devices = llm.config.get_text_config(), {weight.device for weight in llm.parameters()}
    columns, (device, *_) = longest + settings.max_new_tokens + ROOM, sorted(devices, key=str)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    layer = 2 * heads * head_dim * llm.dtype.itemsize * columns
    # a layer that grows is there twice; logits: in the LLM's dtype, and what the choice makes of them
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
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # ranks share it


def prompt_batch(layout: Layout, examples: list[Example], device) -> dict[str, Tensor]:
    """Prompts of some examples as one left-padded batch on `device`."""
    batch = PromptCollator(layout)([layout.prompt(example.question) for example in examples])
    return {name: value.to(device) for name, value in batch.items()}


def prompt_length(layout: Layout, question: str) -> int:
    """Tokens of the LLM's prompt, without thoughts."""
    row = layout.prompt(question)
    return len(row["prefix"]) + len(row["suffix"])


class Sampler(ABC):
    """Writes answers to questions, behind prompts with thoughts.

    models: of loading.load_models; no thought model: no thoughts, in a layout without slots. batch_size: questions at a
    time; num_injected: so many of the N thoughts go into the prompt (None: all).
    """

    def __init__(self, models: tuple, settings: SamplingSettings, batch_size: int, num_injected: int | None = None):
        self.llm, self.thought_model, self.layout = models
        self.settings, self.batch_size, self.num_injected = settings, batch_size, num_injected
        self.stop_ids = stop_token_ids(self.llm, self.layout)

    @torch.no_grad()
    def answers(self, examples: list[Example]) -> Iterator[tuple[Example, list[Sample], list[str]]]:
        """(example, its samples, their texts) as soon as they are written, which is not the order of the examples."""
        numbers = [example.index for example in examples]
        lengths = [prompt_length(self.layout, example.question) for example in examples]

        def prompts(places: list[int]) -> dict[str, Tensor]:
            return self._prompts([examples[place] for place in places])

        for place, samples in self._decode(numbers, lengths, prompts):
            texts = self.layout.llm_tokenizer.batch_decode(
                [one.tokens for one in samples], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            yield examples[place], samples, texts

    def _prompts(self, examples: list[Example]) -> dict[str, Tensor]:
        """Of model.llm_inputs, left-padded: a row for each chain of each question that the samples are spread over."""
        batch = prompt_batch(self.layout, examples, self.llm.get_input_embeddings().weight.device)
        if self.thought_model is None:
            return llm_inputs(self.llm, batch, None)
        question = (batch["question_ids"], batch["question_mask"])
        _, thoughts = self.thought_model.chain_thoughts(*question, self.settings.num_return_sequences)  # (B, C, N, d)
        batch = {name: value.repeat_interleave(thoughts.shape[1], dim=0) for name, value in batch.items()}
        return llm_inputs(self.llm, batch, thoughts.flatten(0, 1)[:, : self.num_injected])

    @abstractmethod
    def _decode(
        self, numbers: list[int], lengths: list[int], prompts: Callable[[list[int]], dict[str, Tensor]]
    ) -> Iterator[tuple[int, list[Sample]]]:
        """(place of a question, its samples) as soon as all of them are finished; the longest prompts come first.

        numbers: what seeds the questions' noise; lengths: of their prompts; prompts: places of some questions -> their
        inputs, as `_prompts` makes them. Sample s is written behind chain s modulo C.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the sampler holds besides the models."""


class TransformersSampler(Sampler):
    """The frozen LLM writes, in this process."""

    def _decode(self, numbers, lengths, prompts):
        return decode(self.llm, self.settings, self.stop_ids, numbers, lengths, prompts, self.batch_size)

    def close(self) -> None:
        """Nothing is held."""


def open_sampler(
    args: EvaluationArguments, plan: Plan, models: tuple, settings: SamplingSettings, examples: list[Example]
) -> Sampler:
    """The sampler of `--backend` for these examples, to be closed. InputError where it does not start."""
    arguments = (models, settings, args.batch_size, plan.injected)
    if args.backend == "hf" or not examples:
        return TransformersSampler(*arguments)
    # imported here: an extra, and seconds
    from lta_thinker.generation.vllm import VllmSampler

    longest = max(prompt_length(models[2], example.question) for example in examples) + plan.injected
    return VllmSampler(*arguments, args, plan, longest)


def backend_versions(backend: str) -> dict[str, str]:
    """Versions of what `--backend` needs besides the core. InputError where that is missing or too old."""
    if backend == "hf":
        return {}
    from lta_thinker.generation.vllm import import_vllm

    return {"vllm": import_vllm().__version__}


def generate_answers(
    llm,
    thought_model: LatentThoughtModel | None,
    layout: Layout,
    examples: list[Example],
    settings: SamplingSettings,
    batch_size: int,
    num_injected: int | None = None,
) -> Iterator[tuple[Example, list[Sample], list[str]]]:
    """Answers of a TransformersSampler."""
    return TransformersSampler((llm, thought_model, layout), settings, batch_size, num_injected).answers(examples)


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
