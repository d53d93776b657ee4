"""Samplers: prompts with latent thoughts -> written answers.

A sample's noise depends on (seed, question, sample, position, token) alone. Batch size, rank and order change nothing:
in float32 on CPU the texts are the same. (In bf16 the kernels of another batch shape may round differently.)

    settings = resolve_sampling(config.model_type, llm.generation_config, num_return_sequences=10, seed=41)
    for example, samples, texts in generate_answers(llm, thought_model, layout, examples, settings, batch_size=4):
        ...

A prompt is computed once, whatever the number of samples. A finished sample stops costing: its row is dropped, and the
next question's rows take the room.

Shapes: B questions, S samples of each, C chains of thoughts, R rows, T columns of the cache, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
import transformers
from packaging.version import Version
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache

from answers import answers_equal, extract_answer
from data_loader import Example, InputError
from layout import Layout, PromptCollator, encode
from model import LatentThoughtModel, decoder, llm_inputs, position_ids
from sampling import Sample, SamplingSettings, choose, noise_keys, resolve_sampling

CACHE_BY_LAYERS = Version(transformers.__version__) >= Version("4.56")
if CACHE_BY_LAYERS:
    from transformers.cache_utils import DynamicLayer

# ---------------------------------------------------------------------------------------------------------------------
# Keys and values: one (keys, values) a layer, each (R, heads, T, d)


if CACHE_BY_LAYERS:

    class RoomyLayer(DynamicLayer):
        """A layer's keys and values with room behind them, so that a token does not copy all that is there."""

        def __init__(self, keys: Tensor, values: Tensor, length: int):
            super().__init__()
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self.stores = [keys, values]  # (R, heads, length + room, d)
            self._show(length)

        def _show(self, length: int) -> None:
            self.keys, self.values = (store[..., :length, :] for store in self.stores)

        def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
            start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
            if end > self.stores[0].shape[-2]:
                self.stores = [F.pad(shown, (0, 0, 0, end + ROOM - start)) for shown in (self.keys, self.values)]
            for store, states in zip(self.stores, (key_states, value_states), strict=True):
                store[..., start:end, :] = states
            self._show(end)
            return self.keys, self.values


ROOM = 64 if CACHE_BY_LAYERS else 0  # tokens


def keys_and_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    if CACHE_BY_LAYERS:
        return [(layer.keys, layer.values) for layer in cache.layers]
    return list(zip(cache.key_cache, cache.value_cache, strict=True))


def cache_of(layers: list[tuple[Tensor, Tensor]], length: int) -> DynamicCache:
    """A cache of keys and values (R, heads, length + ROOM, d)."""
    cache = DynamicCache()
    if CACHE_BY_LAYERS:
        cache.layers = [RoomyLayer(*layer, length) for layer in layers]
    else:
        for i, layer in enumerate(layers):
            cache.update(*layer, i)
    return cache


@torch.no_grad()
def prefill(llm, inputs: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of every prompt column but the last: computed once, whatever the number of samples."""
    # without the config every layer keeps all columns; the library's masks apply the sliding windows
    cache, mask = DynamicCache(), inputs["attention_mask"][:, :-1]
    decoder(llm)(
        inputs_embeds=inputs["inputs_embeds"][:, :-1],
        attention_mask=mask,
        position_ids=position_ids(mask),
        past_key_values=cache,
        use_cache=True,
    )
    return keys_and_values(cache)


def right_aligned(parts: list[tuple[Tensor, Tensor]], width: int, room: int) -> Tensor:
    """Rows of tensors (·, heads, ·, d), given with their indices -> (R, heads, width + room, d): all end at column
    `width`, and zeros stand where a row has nothing."""
    like = parts[0][0]
    rows, start = sum(len(index) for _, index in parts), 0
    joined = like.new_zeros(rows, like.shape[1], width + room, like.shape[3])
    for tensor, index in parts:
        columns = min(width, tensor.shape[2])
        chosen = tensor[:, :, tensor.shape[2] - columns :].index_select(0, index.to(tensor.device))
        joined[start : start + len(index), :, width - columns : width] = chosen
        start += len(index)
    return joined


# ---------------------------------------------------------------------------------------------------------------------
# Decoding


@dataclass
class Answer:
    """A row that is being written: sample `number` of the question at `place`, behind `prompt` columns."""

    place: int
    number: int
    prompt: int
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    @property
    def columns(self) -> int:
        return self.prompt + len(self.tokens)

    def sample(self, stop_ids: list[int]) -> Sample:
        count, finished = len(self.tokens), self.tokens[-1] in stop_ids
        return Sample(self.tokens[: count - finished], count, finished, sum(self.log_probs) / count)


class Prompts:
    """Prompts of some questions, computed, and the answers that wait for a row behind them, R = B x S at first."""

    def __init__(self, llm, settings: SamplingSettings, places: list[int], numbers: list[int], inputs: dict):
        """numbers: what seeds the questions' noise; inputs: of model.llm_inputs, left-padded, a row for each chain of
        each question. Sample s takes chain s modulo C."""
        s, mask = settings.num_return_sequences, inputs["attention_mask"]
        chains = len(mask) // len(places)
        self.layers, self.mask = prefill(llm, inputs), mask.bool()
        # on the CPU: the layers of a spread LLM lie on several devices
        self.row_of = (torch.arange(len(places))[:, None] * chains + torch.arange(s) % chains).flatten()  # (R,)
        columns = (mask.shape[1] - mask.int().argmax(1)).cpu()[self.row_of].tolist()  # without the padding before them
        numbered = [(place, number) for place in places for number in range(s)]
        self.answers = [Answer(*pair, count) for pair, count in zip(numbered, columns, strict=True)]
        numbers = torch.tensor(numbers, device=mask.device).repeat_interleave(s)
        rows = self.row_of.to(mask.device)
        keys = noise_keys(settings.seed, numbers, torch.arange(s, device=mask.device).repeat(len(places)))
        self.state = {
            "inputs": inputs["inputs_embeds"][:, -1:][rows],  # (R, 1, d), what the next step reads
            "positions": position_ids(mask)[:, -1:][rows],  # (R, 1)
            "keys": keys,  # (R, 1)
            "counts": torch.zeros_like(keys),  # of tokens written
            "alive": torch.ones_like(keys, dtype=torch.bool),
        }
        if settings.repetition_penalty != 1.0:
            vocabulary = llm.get_output_embeddings().weight.shape[0]
            self.state["said"] = torch.zeros(len(keys), vocabulary, dtype=torch.bool, device=mask.device)

    def take(self, count: int) -> tuple[list[Answer], Tensor, dict[str, Tensor]]:
        """The next `count` answers, the rows of their prompts and their state; they wait no more."""
        taken = self.answers[:count], self.row_of[:count], {n: value[:count] for n, value in self.state.items()}
        self.answers, self.row_of = self.answers[count:], self.row_of[count:]
        self.state = {name: value[count:] for name, value in self.state.items()}
        return taken


class Rows:
    """Answers that are written together: R rows that all end at the same column of the cache, whatever their lengths.

    A row that is finished goes on unread until `change` drops it.
    """

    def __init__(self, llm, settings: SamplingSettings, stop_ids: list[int]):
        self.llm, self.settings, self.answers, self.new = llm, settings, [], []
        self.cache = self.mask = self.state = None
        self.device = llm.get_input_embeddings().weight.device
        self.stop_ids = torch.tensor(stop_ids, dtype=torch.long, device=self.device)

    def change(self, kept: list[int], prompts: list[Prompts], count: int) -> None:
        """Keep the rows `kept`, and add `count` rows, or as many as wait, behind the prompts."""
        parts, states, answers = [], [], [self.answers[i] for i in kept]
        if kept:
            index = torch.tensor(kept)
            parts.append((keys_and_values(self.cache), self.mask, index))
            states.append({name: value[index.to(self.device)] for name, value in self.state.items()})
        self.cache = self.mask = self.state = None
        for prompt in prompts:
            new, index, state = prompt.take(count)
            parts.append((list(prompt.layers), prompt.mask, index))
            states.append(state)
            answers, count = answers + new, count - len(new)
        self.answers = answers
        width = max(answer.columns for answer in answers) - 1  # the last column is what the next step reads
        layers = []
        for i in range(len(parts[0][0])):
            layers.append([right_aligned([(part[0][i][j], part[2]) for part in parts], width, ROOM) for j in (0, 1)])
            for part in parts:
                part[0][i] = None  # no more than one layer is there twice
        self.cache = cache_of(layers, width)
        masks = [(mask[:, None, :, None], index) for _, mask, index in parts]
        self.mask = right_aligned(masks, width + 1, 0)[:, 0, :, 0]
        self.state = {name: torch.cat([state[name] for state in states]) for name in states[0]}

    def step(self) -> None:
        """Write a token in every row."""
        now = self.state
        states = decoder(self.llm)(
            inputs_embeds=now["inputs"],
            attention_mask=self.mask,
            position_ids=now["positions"],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        logits = self.llm.get_output_embeddings()(states[:, -1])  # (R, V)
        noise_of_and_said = (now[name].to(logits.device) for name in ("keys", "counts", "said") if name in now)
        tokens, log_probs = choose(logits, self.settings, *noise_of_and_said)
        tokens = tokens.to(self.device)
        self.new.append((tokens, log_probs))
        now["inputs"] = self.llm.get_input_embeddings()(tokens)
        if "said" in now:
            now["said"].scatter_(1, tokens, True)
        self.mask = F.pad(self.mask, (0, 1), value=True)
        now["positions"] = now["positions"] + now["alive"]
        now["counts"] = now["counts"] + now["alive"]
        now["alive"] = now["alive"] & ~self.ended(tokens, now["counts"])

    def ended(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Which rows end with these tokens, (R, 1) bool; counts (R, 1): of tokens, with them."""
        return (tokens == self.stop_ids).any(-1, keepdim=True) | (counts >= self.settings.max_new_tokens)

    def run(self, enough: int) -> None:
        """Write until no more than `enough` rows are unfinished."""
        # asking how many are waits for the device, so the next steps' work is queued behind it on CUDA
        steps = 1 if self.device.type == "cpu" else 8
        unfinished = enough + 1
        while unfinished > enough:
            for _ in range(steps):
                self.step()
            unfinished = self.state["alive"].sum().item()

    def collect(self) -> list[int]:
        """Put what was written since the last call into `answers` -> the rows that are not finished."""
        tokens, log_probs = zip(*self.new, strict=True)
        tokens, log_probs = torch.cat(tokens, dim=1).tolist(), torch.stack(log_probs, dim=1).tolist()
        counts, alive, self.new = self.state["counts"][:, 0].tolist(), self.state["alive"][:, 0].tolist(), []
        for i, answer in enumerate(self.answers):
            new = counts[i] - len(answer.tokens)
            answer.tokens += tokens[i][:new]
            answer.log_probs += log_probs[i][:new]
        return [i for i, going_on in enumerate(alive) if going_on]


@torch.no_grad()
def decode(
    llm,
    settings: SamplingSettings,
    stop_ids: list[int],
    numbers: list[int],
    lengths: list[int],
    prompts: Callable[[list[int]], dict[str, Tensor]],
    batch_size: int,
) -> Iterator[tuple[int, list[Sample]]]:
    """(place of a question, its samples) as soon as all of them are finished; the longest prompts come first.

    numbers, lengths: of the questions, what seeds their noise and their prompts' lengths; prompts: places of some
    questions -> their inputs, as Rows.change takes them; batch_size: questions whose samples are written at a time.
    Out of GPU memory, the batch is halved and the questions that were running start again; at one question it is an
    InputError.
    """
    check_layers(llm)
    s, open_ = settings.num_return_sequences, set(range(len(numbers)))
    rows = None
    while open_:
        if rows is None:
            rows, kept, finished, prepared = Rows(llm, settings, stop_ids), [], {}, []
            pending = sorted(open_, key=lambda place: (lengths[place], -place))  # the last one is the next
        capacity = batch_size * s
        try:
            free = capacity - len(kept)
            missing = free - sum(len(one.answers) for one in prepared)
            places = [pending.pop() for _ in range(min(len(pending), math.ceil(missing / s)))]
            if places:
                prepared.append(Prompts(llm, settings, places, [numbers[i] for i in places], prompts(places)))
            rows.change(kept, prepared, free)
            prepared = [one for one in prepared if one.answers]
            # a change copies the cache: it waits until some rows are idle
            full = capacity - max(1, capacity // 8) if pending or prepared else 0
            rows.run(max(full, len(rows.answers) * 3 // 4))
            kept = rows.collect()
        except torch.cuda.OutOfMemoryError:
            rows = prepared = None
        if rows is None:
            torch.cuda.empty_cache()
            if batch_size == 1:
                raise InputError(
                    f"--batch_size 1: out of GPU memory with {s} samples of up to {settings.max_new_tokens} tokens; "
                    "fewer --num_return_sequences, fewer --max_new_tokens, or more GPUs"
                )
            batch_size //= 2
            tqdm.write(f"out of GPU memory: going on with --batch_size {batch_size}; running questions start again")
            continue
        going_on = set(kept)
        for i, answer in enumerate(rows.answers):
            if i not in going_on:
                finished.setdefault(answer.place, {})[answer.number] = answer.sample(stop_ids)
        for place in [place for place, samples in finished.items() if len(samples) == s]:
            samples = finished.pop(place)
            open_.remove(place)
            yield place, [samples[i] for i in range(s)]


def stop_token_ids(llm, layout: Layout) -> list[int]:
    """Tokens that end an answer: the generation_config's, the tokenizer's and the chat template's end of turn."""
    own = llm.generation_config.eos_token_id
    end_of_turn = encode(layout.llm_tokenizer, layout.llm.end)
    ids = {*(own if isinstance(own, list) else [own]), layout.llm_tokenizer.eos_token_id}
    return sorted((ids | set(end_of_turn if len(end_of_turn) == 1 else [])) - {None})


def check_layers(llm) -> None:
    """InputError for an LLM with layers that keep other things than keys and values of columns."""
    for kind in set(getattr(llm.config.get_text_config(), "layer_types", None) or ()):
        if kind not in ("full_attention", "sliding_attention"):
            raise InputError(f"{llm.config.name_or_path or type(llm).__name__}: no sampling with layers of {kind}")


def prompt_batch(layout: Layout, examples: list[Example], device) -> dict[str, Tensor]:
    """Prompts of some examples as one left-padded batch on `device`."""
    batch = PromptCollator(layout)([layout.prompt(example.question) for example in examples])
    return {name: value.to(device) for name, value in batch.items()}


def prompt_length(layout: Layout, question: str) -> int:
    """Tokens of the LLM's prompt, without thoughts."""
    row = layout.prompt(question)
    return len(row["prefix"]) + len(row["suffix"])


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
    """(example, its samples, their texts) as soon as they are written, which is not the order of the examples.

    num_injected: so many of the N thoughts go into the prompt. thought_model None: none, in a layout without slots.
    """
    device = llm.get_input_embeddings().weight.device

    def prompts(places: list[int]) -> dict[str, Tensor]:
        batch = prompt_batch(layout, [examples[place] for place in places], device)
        if thought_model is None:
            return llm_inputs(llm, batch, None)
        question = (batch["question_ids"], batch["question_mask"])
        _, thoughts = thought_model.chain_thoughts(*question, settings.num_return_sequences)  # (B, C, N, d)
        chains = thoughts.shape[1]
        batch = {name: value.repeat_interleave(chains, dim=0) for name, value in batch.items()}
        return llm_inputs(llm, batch, thoughts.flatten(0, 1)[:, :num_injected])

    numbers = [example.index for example in examples]
    lengths = [prompt_length(layout, example.question) for example in examples]
    answers = decode(llm, settings, stop_token_ids(llm, layout), numbers, lengths, prompts, batch_size)
    for place, samples in answers:
        texts = layout.llm_tokenizer.batch_decode(
            [one.tokens for one in samples], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        yield examples[place], samples, texts


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
