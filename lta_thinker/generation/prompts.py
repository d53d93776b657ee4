"""Questions -> the LLM's inputs: tokenised once, thoughts made once, embedded when they are about to be answered.

    requests = make_requests(layout, examples)
    embed = PromptEmbedder(models, num_chains=1, num_injected=2)
    inputs = embed(requests[:4])      # {inputs_embeds (R, T, d_large), attention_mask (R, T)}, left-padded

Shapes: B questions, C chains of thoughts, N thoughts made, n injected, R = B x C rows, T columns.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lta_thinker.common import InputError
from lta_thinker.model import Models, llm_inputs
from lta_thinker.rows.batch import PromptCollator
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout


@dataclass(frozen=True)
class Request:
    """A question to be answered.

    prompt: token ids, as Layout.prompts makes them; thoughts: (n, d_large) for the prompt, None: the model makes them;
    repeat: how many equal questions were asked before it.
    """

    example: Example
    prompt: dict[str, list[int]]
    thoughts: Tensor | None = None
    repeat: int = 0

    @property
    def noise(self) -> int:
        """What seeds the noise of its samples, 63 bits: the question's text, and of equal questions which one it is.
        Neither its place among others nor its file matters."""
        text = f"{self.repeat} {self.example.question}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    @property
    def length(self) -> int:
        """Tokens of the LLM's prompt, without thoughts."""
        return len(self.prompt["prefix"]) + len(self.prompt["suffix"])


def make_requests(layout: Layout, examples: Sequence[Example]) -> list[Request]:
    """A request for each example; InputError where a question cannot be put into a prompt."""
    prompts = layout.prompts([example.question for example in examples])
    requests, seen = [], Counter()
    for example, prompt in zip(examples, prompts, strict=True):
        requests.append(Request(example, prompt, repeat=seen[example.question]))
        seen[example.question] += 1
    return requests


class ThoughtVariance:
    """Variance of all N thoughts over the questions that were added, kept as sums, which ranks can add up.

    A question counts once, however often it is added.
    """

    def __init__(self):
        self.seen: set[int] = set()
        self.sums = self.squares = torch.zeros(())  # (C, N, d) float64 from the first question on
        self.over = torch.zeros(2, dtype=torch.float64)  # sums over questions: of the variance over slots, over chains

    def add(self, questions: Sequence[int], thoughts: Tensor) -> None:
        """thoughts (B, C, N, d) of the questions with these indices."""
        new = [i for i, question in enumerate(questions) if question not in self.seen]
        self.seen |= set(questions)
        if not new:
            return
        thoughts = thoughts[new].double().cpu()
        self.sums = self.sums + thoughts.sum(0)
        self.squares = self.squares + thoughts.square().sum(0)
        over_slots = thoughts.var(2, correction=0).mean((1, 2)).sum()
        over_chains = thoughts.var(1, correction=0).mean((1, 2)).sum()
        self.over = self.over + torch.stack([over_slots, over_chains])

    @classmethod
    def sum_of(cls, parts: Sequence["ThoughtVariance"]) -> "ThoughtVariance":
        """The variance over the questions of all parts; no two parts share a question."""
        whole = cls()
        for part in parts:
            whole.seen |= part.seen
            whole.sums, whole.squares = whole.sums + part.sums, whole.squares + part.squares
            whole.over = whole.over + part.over
        return whole

    def figures(self) -> dict[str, float | None]:
        """over_questions (mean over chains, slots and features), over_slots and over_chains (of a question; None with
        one chain); mean_square, which they are to be compared with; num_questions. Of no question: all 0."""
        count = max(1, len(self.seen))
        mean_square = (self.squares / count).mean().item()
        over_questions = (self.squares / count - (self.sums / count).square()).clamp(min=0).mean().item()
        over_slots, over_chains = (self.over / count).tolist()
        if self.sums.ndim == 0 or len(self.sums) == 1:
            over_chains = None
        figures = {"over_questions": over_questions, "over_slots": over_slots, "over_chains": over_chains}
        return figures | {"mean_square": mean_square, "num_questions": len(self.seen)}


class PromptEmbedder:
    """Requests -> the LLM's inputs, with thoughts in the prompts.

    num_chains: how many chains of thoughts are used, each in a prompt of its own (samples are spread over them).
    num_injected: n, how many of the N thoughts go into a prompt (None: all). `variance`: of all thoughts made here.
    """

    def __init__(self, models: Models, num_chains: int, num_injected: int | None = None):
        self.models, self.num_chains, self.num_injected = models, num_chains, num_injected
        self.llm: Any = models.llm
        self.collator = PromptCollator(models.layout)
        self.variance = ThoughtVariance()

    def batch(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """Token ids and masks of the requests, left-padded, on the device of the LLM's embeddings."""
        device = self.llm.get_input_embeddings().weight.device
        batch = self.collator([request.prompt for request in requests])
        return {name: value.to(device) for name, value in batch.items()}

    @torch.no_grad()
    def make_thoughts(self, requests: Sequence[Request]) -> Tensor:
        """All thoughts of all chains, (B, C, N, d_large)."""
        return self._make_thoughts(requests, self.batch(requests))

    def _make_thoughts(self, requests: Sequence[Request], batch: dict[str, Tensor]) -> Tensor:
        assert self.models.thoughts is not None
        _, thoughts = self.models.thoughts.chain_thoughts(batch["question_ids"], batch["question_mask"])
        for request, finite in zip(requests, thoughts.isfinite().flatten(1).all(1).tolist(), strict=True):
            if not finite:
                raise InputError(
                    f"the thoughts of {request.example.question!r:.60} are not finite (NaN or infinite): the states "
                    "that they are made from are not, or --dtype is too narrow for them"
                )
        self.variance.add([request.example.index for request in requests], thoughts)
        return thoughts

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """Inputs of model.llm_inputs: a row for each chain of each request."""
        batch = self.batch(requests)
        if self.models.thoughts is None or not self.models.thoughts.num_thoughts:
            return llm_inputs(self.llm, batch, None)
        given = [request.thoughts for request in requests if request.thoughts is not None]
        if given:
            return self.models.thoughts.inputs(batch, torch.stack(given))
        thoughts = self._make_thoughts(requests, batch)[:, : self.num_chains, : self.num_injected]
        chains = thoughts.shape[1]
        batch = {name: value.repeat_interleave(chains, dim=0) for name, value in batch.items()}
        return self.models.thoughts.inputs(batch, thoughts.flatten(0, 1))
