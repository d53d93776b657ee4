"""Scores of continuations: what one forward pass says is what a plain loop over the tokens says."""

import pytest
import torch

from lta_thinker.generation.prompts import PromptEmbedder
from lta_thinker.generation.samplers import TransformersSampler, greedy_settings
from lta_thinker.generation.scoring import group_by_question, score_continuations
from lta_thinker.model import llm_inputs

PAIRS = [
    ("Mia has 12 pens.", "The answer is \\boxed{12}."),
    ("How many pages does Tom read in 5 days, if he reads 8 a day?", "40"),
    ("Mia has 12 pens.", "7"),
]


def plain_log_prob(models, num_injected: int, question: str, text: str) -> float:
    """The sum over a text's tokens, each asked for alone, without padding: a prompt of the token's own length."""
    (row,) = models.layout.continuations([(question, text)])
    batch = {f"{name}_ids": torch.tensor([row[name]], dtype=torch.long) for name in ("prefix", "suffix")}
    batch |= {f"{name}_mask": torch.ones_like(batch[f"{name}_ids"]) for name in ("prefix", "suffix")}
    thoughts = None
    if models.thoughts is not None:
        ids = torch.tensor([row["question"]])
        thoughts = models.thoughts.thoughts(ids, torch.ones_like(ids))[1][:, :num_injected]
    embeddings, total = llm_inputs(models.llm, batch, thoughts)["inputs_embeds"], 0.0
    for token in row["target"]:
        logits = models.llm(inputs_embeds=embeddings).logits[0, -1]
        total += logits.log_softmax(-1)[token].item()
        embeddings = torch.cat([embeddings, models.llm.get_input_embeddings()(torch.tensor([[token]]))], dim=1)
    return total


@torch.no_grad()
@pytest.mark.parametrize("kind", ["small_block", "block", "small", "prompt", "none"])
def test_one_pass_scores_as_a_plain_loop(tiny_models, kind):
    """Log-probabilities of a padded batch equal those of a loop over tokens to 1e-5, with and without thoughts, in
    whatever batches."""
    models = tiny_models.models(kind)
    embed = PromptEmbedder(models, 1, 2)
    questions = group_by_question(embed, PAIRS)
    assert [len(question.targets) for question in questions] == [1, 2]  # each question once, the longest first
    expected = [plain_log_prob(models, 2, *pair) for pair in PAIRS]
    for batch_size in (1, 8):
        scores = score_continuations(embed, questions, batch_size, quiet=True)
        assert [score.log_prob for score in scores] == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_what_greedy_decoding_writes_is_greedy(tiny_models):
    """A text that greedy decoding writes behind the same thoughts is greedy; another one is not."""
    models, question = tiny_models.models("small_block"), PAIRS[0][0]
    embed = PromptEmbedder(models, 1, 2)
    sampler = TransformersSampler(models, greedy_settings(models.llm, 4), 1, 2)
    ((_, samples),) = sampler._decode([group_by_question(embed, PAIRS)[1].request])
    (asked,) = group_by_question(embed, [(question, "x")])
    asked.targets.update({0: samples[0].tokens, 1: samples[0].tokens[:-1] + [samples[0].tokens[-1] ^ 1]})
    first, second = score_continuations(embed, [asked], 1, quiet=True)
    assert first.is_greedy and not second.is_greedy and first.log_prob > second.log_prob
    assert not samples[0].finished and first.log_prob == pytest.approx(4 * samples[0].score, abs=1e-5)
