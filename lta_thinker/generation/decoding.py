"""Decoding on the frozen LLM itself: samples of several questions, a token at a time, in one batch of rows.

A prompt is computed once, whatever the number of samples. A finished sample's row goes to the next question's samples,
or is dropped.

Shapes: B requests, S samples of each, C chains of thoughts, R rows, T columns of the cache, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from lta_thinker.common import InputError
from lta_thinker.generation.prompts import PromptEmbedder, Request
from lta_thinker.generation.sampling import (
    Sample,
    SamplingSettings,
    check_log_probs,
    choose,
    make_sample,
    noise_keys,
)
from lta_thinker.llm.forward import CACHE_BY_LAYERS, attention_mask, body, position_ids, read_prefix
from lta_thinker.progress import say

ROOM = 64  # columns that a full cache grows by

# ---------------------------------------------------------------------------------------------------------------------
# Keys and values: a pair a layer, each (R, heads, T, d)


if CACHE_BY_LAYERS:
    from transformers.cache_utils import DynamicLayer

    class RoomyLayer(DynamicLayer):
        """A layer's keys and values with room for more columns: writing a token's does not copy the others."""

        def __init__(self, keys: Tensor, values: Tensor):
            super().__init__()
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self.stores, self.first = [keys, values], 0
            self._show(keys.shape[-2])

        def _show(self, end: int) -> tuple[Tensor, Tensor]:
            self.end = end
            keys, values = (store[..., self.first : end, :] for store in self.stores)
            self.keys, self.values = keys, values
            return keys, values

        def drop_first(self, columns: int) -> None:
            self.first += columns
            self._show(self.end)

        def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
            columns = key_states.shape[-2]
            if self.end + columns > self.stores[0].shape[-2]:
                shown = [store[..., self.first : self.end, :] for store in self.stores]
                self.stores = [F.pad(store, (0, 0, 0, columns + ROOM)) for store in shown]
                self.first, self.end = 0, self.end - self.first
            start = self.end
            for store, states in zip(self.stores, (key_states, value_states), strict=True):
                store[..., start : start + columns, :] = states
            return self._show(start + columns)


# Any: a DynamicCache, whose attributes depend on the version of transformers
def keys_and_values(cache: Any) -> list[Sequence[Tensor]]:
    if CACHE_BY_LAYERS:
        return [(layer.keys, layer.values) for layer in cache.layers]
    return list(zip(cache.key_cache, cache.value_cache, strict=True))


def cache_of(layers: list[Sequence[Tensor]]) -> Any:
    cache: Any = DynamicCache()
    if CACHE_BY_LAYERS:
        cache.layers = [RoomyLayer(*layer) for layer in layers]
    else:
        for i, layer in enumerate(layers):
            cache.update(*layer, i)
    return cache


def drop_first_columns(cache: Any, columns: int) -> None:
    if CACHE_BY_LAYERS:
        for layer in cache.layers:
            layer.drop_first(columns)
    else:
        for kept in (cache.key_cache, cache.value_cache):
            kept[:] = [tensor[:, :, columns:] for tensor in kept]


# ---------------------------------------------------------------------------------------------------------------------
# Decoding


@dataclass
class Draft:
    """A sample that is being written: which one of which request (its place in the list of requests), the question, and
    how many columns its prompt has."""

    place: int
    sample: int
    question: str
    prompt_columns: int
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    @property
    def columns(self) -> int:
        return self.prompt_columns + len(self.tokens)

    def finished(self, stop_ids: list[int]) -> Sample:
        return make_sample(self.tokens, sum(self.log_probs), stop_ids)


def select(tensor: Tensor, rows: Tensor) -> Tensor:
    return tensor.index_select(0, rows.to(tensor.device))


class ReadPrompts:
    """Prompts of some requests, read by the LLM, and the drafts behind them that have no row yet (all R = B x S at
    first)."""

    def __init__(
        self,
        llm,
        settings: SamplingSettings,
        requests: dict[int, Request],
        inputs: dict,
        widths: list[int] | None = None,
    ):
        """requests: by place; inputs: of model.llm_inputs, left-padded, a row for each chain of each request. Sample s
        takes chain s modulo C. widths: columns of each row of the inputs without padding (None: read from the mask)."""
        places = list(requests)
        s, mask = settings.num_return_sequences, inputs["attention_mask"]
        chains = len(mask) // len(places)
        # every column but the last is read once, whatever the number of samples
        self.layers = read_prefix(llm, inputs["inputs_embeds"][:, :-1], mask[:, :-1])
        self.mask = mask.bool()
        # on the CPU: the layers of a spread LLM lie on several devices
        self.row_of = (torch.arange(len(places))[:, None] * chains + torch.arange(s) % chains).flatten()  # (R,)
        # without the padding before them
        of_rows = (mask.shape[1] - mask.int().argmax(1)).tolist() if widths is None else widths
        columns = [of_rows[place * chains + i % chains] for place in range(len(places)) for i in range(s)]
        samples = [(place, i, request.example.question) for place, request in requests.items() for i in range(s)]
        self.drafts = [Draft(*sample, count) for sample, count in zip(samples, columns, strict=True)]
        noise = [request.noise for request in requests.values()]
        seeds = torch.tensor(noise, device=mask.device).repeat_interleave(s)
        rows = self.row_of.to(mask.device)
        keys = noise_keys(settings.seed, seeds, torch.arange(s, device=mask.device).repeat(len(places)))
        self.state = {
            "inputs": inputs["inputs_embeds"][:, -1:][rows],  # (R, 1, d), what the next step reads
            "positions": position_ids(mask)[:, -1:][rows],  # (R, 1)
            "keys": keys,  # (R, 1)
            "counts": torch.zeros_like(keys),  # of tokens written
            "alive": torch.ones_like(keys, dtype=torch.bool),
        }
        if settings.repetition_penalty != 1.0:
            vocabulary = llm.get_output_embeddings().weight.shape[0]
            self.state["written"] = torch.zeros(len(keys), vocabulary, dtype=torch.bool, device=mask.device)

    def take(self, count: int) -> tuple[list[Draft], Tensor, dict[str, Tensor]]:
        """Remove the next `count` drafts -> the drafts, the rows of their prompts, their state."""
        taken = self.drafts[:count], self.row_of[:count], {name: new[:count] for name, new in self.state.items()}
        self.drafts, self.row_of = self.drafts[count:], self.row_of[count:]
        self.state = {name: new[count:] for name, new in self.state.items()}
        return taken


class Rows:
    """Drafts that are written together: R rows that end at the same column of the cache, whatever their lengths; the
    columns before a row's prompt are masked.

    A finished row is computed on, and what it writes is not used, until `replace` or `keep` removes it.
    """

    def __init__(self, llm, settings: SamplingSettings, stop_ids: list[int], prompts: ReadPrompts):
        """Begin with all drafts of the prompts."""
        self.llm, self.settings = llm, settings
        self.new: list[tuple[Tensor, Tensor]] = []  # tokens (R, 1) and log-probabilities (R,) of each step
        self.device = llm.get_input_embeddings().weight.device
        self.stop_ids = torch.tensor(stop_ids, dtype=torch.long, device=self.device)
        self.drafts, row_of, self.state = prompts.take(len(prompts.drafts))
        self.mask = select(prompts.mask, row_of)
        self.cache = cache_of([[select(tensor, row_of) for tensor in layer] for layer in prompts.layers])

    def replace(self, rows: list[int], prompts: ReadPrompts) -> None:
        """Put the next drafts of the prompts into `rows`. Their prompts may not be longer than those before."""
        drafts, row_of, state = prompts.take(len(rows))
        for i, draft in zip(rows, drafts, strict=True):
            self.drafts[i] = draft
        index, columns = torch.tensor(rows), max(draft.columns for draft in drafts)
        device_rows = index.to(self.device)
        self.state = {name: old.index_copy(0, device_rows, state[name]) for name, old in self.state.items()}
        self.mask[device_rows] = False
        self.mask[device_rows, -columns:] = select(prompts.mask[:, -columns:], row_of)
        # the last column has no keys and values yet: the next step reads it
        for layer, new in zip(keys_and_values(self.cache), prompts.layers, strict=True):
            for tensor, prompt in zip(layer, new, strict=True):
                width, prompt = tensor.shape[2], prompt[:, :, prompt.shape[2] - columns + 1 :]
                place = tensor[:, :, width - columns + 1 :]
                place.index_copy_(0, index.to(tensor.device), select(prompt, row_of))
        drop_first_columns(self.cache, self._padding())
        self.mask = self.mask[:, self._padding() :]

    def keep(self, rows: list[int]) -> None:
        """Remove all other rows."""
        self.drafts, index = [self.drafts[i] for i in rows], torch.tensor(rows)
        first, layers = self._padding(), keys_and_values(self.cache)
        del self.cache
        for i in range(len(layers)):  # one layer at a time is in memory twice
            layers[i] = [select(tensor[:, :, first:], index) for tensor in layers[i]]
        self.cache, self.mask = cache_of(layers), select(self.mask[:, first:], index)
        self.state = {name: select(value, index) for name, value in self.state.items()}

    def _padding(self) -> int:
        """Columns before every row's prompt."""
        return self.mask.shape[1] - max(draft.columns for draft in self.drafts)

    def step(self) -> None:
        """Write a token in every row."""
        now = self.state
        states = body(self.llm)(
            inputs_embeds=now["inputs"],
            attention_mask=attention_mask(self.llm, self.mask, 1),
            position_ids=now["positions"],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        logits = self.llm.get_output_embeddings()(states[:, -1])  # (R, V)
        # of a spread LLM the head may be on another device
        noise = {name: now[name].to(logits.device) for name in ("keys", "counts", "written") if name in now}
        tokens, log_probs = choose(logits, self.settings, noise["keys"], noise["counts"], noise.get("written"))
        tokens = tokens.to(self.device)
        self.new.append((tokens, log_probs))
        now["inputs"] = self.llm.get_input_embeddings()(tokens)
        if "written" in now:
            now["written"].scatter_(1, tokens, True)
        self.mask = F.pad(self.mask, (0, 1), value=True)
        # finished rows stay where they are: some rotary embeddings change with the largest position
        now["positions"] = now["positions"] + now["alive"]
        now["counts"] = now["counts"] + now["alive"]
        now["alive"] = now["alive"] & ~self.ended(tokens, now["counts"])

    def ended(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Which rows end with these tokens, (R, 1) bool; counts (R, 1): of tokens, with them."""
        return (tokens == self.stop_ids).any(-1, keepdim=True) | (counts >= self.settings.max_new_tokens)

    def run(self, enough: int) -> None:
        """Write until no more than `enough` rows are unfinished, or logits are not finite (`collect` says so)."""
        # to count them the CPU waits for the GPU, which then waits for the next step: on a GPU this is done seldom
        steps = 1 if self.device.type == "cpu" else 8
        unfinished = enough + 1
        while unfinished > enough:
            for _ in range(steps):
                self.step()
            going_on, log_probs = self.state["alive"][:, 0], self.new[-1][1].to(self.device)
            unfinished, broken = torch.stack([going_on.sum(), (going_on & ~log_probs.isfinite()).sum()]).tolist()
            if broken:
                return

    def collect(self) -> list[int]:
        """Put what was written since the last call into the drafts; returns the rows that are finished. InputError
        where the LLM's logits were not finite."""
        tokens, log_probs = zip(*self.new, strict=True)
        tokens, log_probs = torch.cat(tokens, dim=1).tolist(), torch.stack(log_probs, dim=1).tolist()
        counts, alive, self.new = self.state["counts"][:, 0].tolist(), self.state["alive"][:, 0].tolist(), []
        for i, draft in enumerate(self.drafts):
            new = counts[i] - len(draft.tokens)
            check_log_probs(log_probs[i][:new], self.llm.config.name_or_path, draft.question)
            draft.tokens += tokens[i][:new]
            draft.log_probs += log_probs[i][:new]
        return [i for i, going_on in enumerate(alive) if not going_on]


@torch.no_grad()
def decode(
    llm,
    settings: SamplingSettings,
    stop_ids: list[int],
    requests: Sequence[Request],
    embed: PromptEmbedder,
    batch_size: int,
) -> Iterator[tuple[Request, list[Sample]]]:
    """(request, its samples) as soon as all of them are finished; the longest prompts come first.

    embed: requests -> their inputs, as ReadPrompts takes them; batch_size: requests whose samples are written at a
    time. Out of GPU memory the batch is halved and the unfinished requests start again; with a batch of one request
    it is an InputError.
    """
    unfinished = set(range(len(requests)))
    while unfinished:
        places = sorted(unfinished, key=lambda place: (requests[place].length, -place))
        try:
            for place, samples in decode_places(llm, settings, stop_ids, requests, places, embed, batch_size):
                unfinished.remove(place)
                yield requests[place], samples
            return
        except torch.cuda.OutOfMemoryError:
            pass  # only behind this block is the memory of what ran free
        torch.cuda.empty_cache()
        batch_size = smaller_batch(batch_size, settings)


def decode_places(
    llm,
    settings: SamplingSettings,
    stop_ids: list[int],
    requests: Sequence[Request],
    pending: list[int],
    embed: PromptEmbedder,
    batch_size: int,
) -> Iterator[tuple[int, list[Sample]]]:
    """As decode, of the requests at the places `pending`, which are taken from its end -> (place, samples)."""
    s = settings.num_return_sequences

    def read_next(count: int) -> ReadPrompts:
        places = [pending.pop() for _ in range(min(len(pending), count))]
        chosen = {place: requests[place] for place in places}
        return ReadPrompts(llm, settings, chosen, embed(list(chosen.values())))

    left, retired = len(pending), []
    finished: dict[int, dict[int, Sample]] = {}
    waiting = read_next(batch_size)
    rows = Rows(llm, settings, stop_ids, waiting)
    while left:
        while retired and (pending or waiting.drafts):
            if not waiting.drafts:
                waiting = read_next(math.ceil(len(retired) / s))
            count = min(len(retired), len(waiting.drafts))
            rows.replace(retired[:count], waiting)
            retired = retired[count:]
        if retired:
            rows.keep([i for i in range(len(rows.drafts)) if i not in retired])
        # replacing and dropping rows costs a little: wait until an eighth, at the end a quarter, of them is finished
        idle = len(rows.drafts) // (8 if pending or waiting.drafts else 4)
        rows.run(len(rows.drafts) - max(1, idle))
        retired = rows.collect()
        for draft in (rows.drafts[i] for i in retired):
            finished.setdefault(draft.place, {})[draft.sample] = draft.finished(stop_ids)
        for place in [place for place, samples in finished.items() if len(samples) == s]:
            samples = finished.pop(place)
            left -= 1
            yield place, [samples[i] for i in range(s)]


def smaller_batch(batch_size: int, settings: SamplingSettings) -> int:
    """Half the batch, after running out of GPU memory; prints it. InputError for a batch of one request."""
    if batch_size == 1:
        raise InputError(
            f"--batch_size 1: out of GPU memory with {settings.num_return_sequences} samples of up to "
            f"{settings.max_new_tokens} tokens; fewer --num_return_sequences, fewer --max_new_tokens, or more GPUs"
        )
    batch_size //= 2
    say(f"out of GPU memory: going on with --batch_size {batch_size}; running questions start again")
    return batch_size
