"""How likely given texts are as the starts of answers: one forward pass over prompt, thoughts and text.

    embed = PromptEmbedder(models, num_chains=1, num_injected=2)
    questions = group_by_question(embed, [("How many ...?", "42"), ("How many ...?", "24")])
    first, second = score_continuations(embed, questions, batch_size=4)

Shapes: R rows, T columns of the prompts, A columns of the continuations, K tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lta_thinker.generation.prompts import PromptEmbedder, Request, make_requests
from lta_thinker.generation.sampling import NUMBERS_AT_A_TIME, check_log_probs
from lta_thinker.llm.forward import attention_mask, body, position_ids
from lta_thinker.progress import Progress
from lta_thinker.rows.batch import pad
from lta_thinker.rows.examples import Example


@dataclass(frozen=True)
class Score:
    """A continuation's log-probability behind its prompt, summed over its tokens in float32, and whether each of them
    is the likeliest where it stands (greedy decoding would write them)."""

    log_prob: float
    is_greedy: bool


@dataclass(frozen=True)
class Question:
    """A question with the continuations that are scored behind it: the request of its prompt, and token ids by the
    continuation's place among all."""

    request: Request
    targets: dict[int, list[int]]

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest continuation, without thoughts."""
        return self.request.length + max(map(len, self.targets.values()))


def group_by_question(embed: PromptEmbedder, pairs: Sequence[tuple[str, str]]) -> list[Question]:
    """Pairs (question, continuation) -> their questions, each once, the longest first. InputError where a text cannot
    be put behind its prompt."""
    layout, by_text = embed.models.layout, {}
    for place, row in enumerate(layout.continuations(list(pairs))):
        by_text.setdefault(pairs[place][0], {})[place] = row["target"]
    requests = make_requests(layout, [Example(i, text, (), "") for i, text in enumerate(by_text)])
    questions = [Question(request, targets) for request, targets in zip(requests, by_text.values(), strict=True)]
    return sorted(questions, key=lambda question: -question.length)


def score_continuations(
    embed: PromptEmbedder, questions: Sequence[Question], batch_size: int, quiet: bool = False
) -> list[Score]:
    """The scores of all continuations of the questions, in the order of their places.

    The thoughts of a question are made once, and are those that an answer to it is written behind (with several chains
    the first chain's: num_chains 1). batch_size: questions at a time. InputError where logits are not finite.
    """
    scores: dict[int, Score] = {}
    total = sum(len(question.targets) for question in questions)
    with Progress("continuations", total, quiet=quiet) as progress:
        for start in range(0, len(questions), batch_size):
            scores |= _score(embed, questions[start : start + batch_size])
            progress.update(len(scores) - progress.done)
    return [scores[place] for place in sorted(scores)]


@torch.no_grad()
def _score(embed: PromptEmbedder, questions: Sequence[Question]) -> dict[int, Score]:
    """The scores of some questions' continuations, by place, in one forward pass."""
    llm, places = embed.llm, [place for question in questions for place in question.targets]
    inputs = embed([question.request for question in questions])
    device = inputs["inputs_embeds"].device
    counts = torch.tensor([len(question.targets) for question in questions], device=device)
    targets = [ids for question in questions for ids in question.targets.values()]
    ids, mask = (tensor.to(device) for tensor in pad(targets, 0, left=False))  # (R, A)
    prompts = inputs["inputs_embeds"].repeat_interleave(counts, dim=0)  # (R, T, d)
    whole_mask = torch.cat([inputs["attention_mask"].repeat_interleave(counts, dim=0), mask], dim=1)
    states = body(llm)(
        inputs_embeds=torch.cat([prompts, llm.get_input_embeddings()(ids)], dim=1),
        attention_mask=attention_mask(llm, whole_mask, whole_mask.shape[1]),
        position_ids=position_ids(whole_mask),
        use_cache=False,
    ).last_hidden_state[:, prompts.shape[1] - 1 : -1]  # (R, A, d): the column before a token predicts it
    wanted = mask.bool()
    log_probs, likeliest = token_log_probs(llm, states[wanted.to(states.device)], ids[wanted])
    scores, sizes = {}, list(map(len, targets))
    texts = [question.request.example.question for question in questions for _ in question.targets]
    parts = zip(places, texts, log_probs.split(sizes), likeliest.split(sizes), strict=True)
    for place, text, of_tokens, greedy in parts:
        check_log_probs(of_tokens.tolist(), llm.config.name_or_path, text)
        scores[place] = Score(of_tokens.sum().item(), bool(greedy.all()))
    return scores


def token_log_probs(llm, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """States (K, d) and the tokens (K,) behind them -> the tokens' log-probabilities, float32 (K,), and whether each is
    the likeliest, bool (K,). As many logits are there at a time as `choose` has."""
    head = llm.get_output_embeddings()
    rows = max(1, NUMBERS_AT_A_TIME[states.device.type] // head.weight.shape[0])
    log_probs, likeliest = [], []
    for part, wanted in zip(states.split(rows), tokens.split(rows), strict=True):
        logits = head(part)  # (rows, V); of a spread LLM the head may be on another device
        wanted = wanted.to(logits.device)
        log_probs.append(logits.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0])
        likeliest.append(logits.argmax(-1) == wanted)
    return torch.cat(log_probs), torch.cat(likeliest)
