"""Sampling against the library and against broken numbers: penalty, ties, noise of a question, finite logits."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from helpers import OWN_TEMPLATES, family_tokenizer, sampled
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS
from lta_thinker.evaluation.inspection import inspect_thoughts
from lta_thinker.generation.decoding import Rows
from lta_thinker.generation.prompts import make_requests
from lta_thinker.generation.samplers import greedy_settings
from lta_thinker.generation.sampling import (
    SamplingSettings,
    candidates,
    choose,
    default_new_tokens,
    gumbel_noise,
    noise_keys,
    resolve_sampling,
)
from lta_thinker.model import Models
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout

SETTINGS = SamplingSettings(10, 0.9, 0.95, 40, 0.01, 1.0, greedy=False, num_return_sequences=3, seed=41)
EXAMPLES = [Example(i, f"Tom reads {i} pages a day for {i + 2} days. How many?", (), "2") for i in range(4)]
ROWS = 20_000


def drawn(logits: torch.Tensor, settings: SamplingSettings, written: torch.Tensor | None = None) -> torch.Tensor:
    """How often each token (V,) is drawn from one row of logits (V,)."""
    keys = noise_keys(41, torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.long))
    many = None if written is None else written.expand(ROWS, -1)
    tokens, _ = choose(logits.expand(ROWS, -1), settings, keys, torch.zeros_like(keys), many)
    return tokens[:, 0].bincount(minlength=len(logits)) / ROWS


@pytest.mark.parametrize("cuts", [{"top_k": 0, "top_p": 1.0}, {"top_k": 9, "top_p": 1.0}, {"top_k": 9, "top_p": 0.7}])
@pytest.mark.parametrize("penalty", [1.0, 1.05, 1.7])
@pytest.mark.parametrize("shift", [0.0, -2.5])
def test_bf16_is_drawn_as_the_library_draws(cuts, penalty, shift):
    """From bf16 logits, negative ones and ties at the top-k edge among them, tokens are drawn as often as the library's
    penalty, temperature, top-k and top-p say in float32."""
    settings = replace(SETTINGS, temperature=0.7, min_p=0.0, repetition_penalty=penalty, **cuts)
    logits = torch.tensor([3.0, 2.5, 2.5, 2.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, -0.5, -1.0, -1.0, -4.0])
    logits = ((logits + shift) * 1.37).bfloat16()
    written = torch.zeros(len(logits), dtype=torch.bool)
    written[[0, 3, 5, 12, 14]] = True
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(0.7)])
    processors += [TopKLogitsWarper(cuts["top_k"])] if cuts["top_k"] else []
    processors += [TopPLogitsWarper(cuts["top_p"])] if cuts["top_p"] < 1 else []
    penalised = processors[0](written.nonzero().T, logits[None].float())[0]
    expected = processors(written.nonzero().T, logits[None].float()).softmax(-1)[0]
    if penalty == 1.0 and cuts["top_p"] == 1.0:
        assert (expected > 0).sum() == (12 if cuts["top_k"] else 16), "all that tie are kept"
    found = drawn(logits, settings, written if penalty != 1.0 else None)
    # of equal ones that top-p cuts apart the library keeps those that its sort puts last: they are taken together
    _, group = penalised.unique(return_inverse=True)
    found, expected = (torch.zeros(group.max() + 1).index_add(0, group, values) for values in (found, expected))
    assert found[expected == 0].sum() == 0
    assert (found - expected).abs().max() < 4 * math.sqrt(0.25 / ROWS)


def test_every_token_may_tie():
    """Where all tokens are equally likely top-k keeps all of them, as in the library."""
    found = drawn(torch.zeros(60), replace(SETTINGS, top_k=3, top_p=1.0, min_p=0.0))
    assert (found > 0).all()


def test_every_row_has_its_own_edge():
    """A row without ties keeps top_k tokens, whatever another row keeps."""
    scores, tokens = candidates(torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 4.0, 4.0, 4.0, 0.0]]), 2)
    assert scores.isfinite().sum(-1).tolist() == [2, 4] and tokens[0, :2].tolist() == [0, 1]


def test_ties_beyond_many_kept_tokens():
    """The three that tie with the 30th likeliest token are kept."""
    logits = torch.cat([torch.linspace(9, 5, 29), torch.full((4,), 4.0), torch.linspace(3, 1, 40)])[None]
    scores, tokens = candidates(logits, 30)
    assert scores.isfinite().sum() == 33 and sorted(tokens[scores.isfinite()].tolist()) == list(range(33))


def test_noise_of_a_token_is_for_ever():
    """The noise of a seed, question, sample, position and token is SplitMix64's, here in Python's integers: the same
    flags draw the same samples in every version."""

    def absorb(state: int, value: int) -> int:
        x = (state + (value + 1) * 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    for seed in (0, 41, 2**62 + 5):
        for question, sample, position, token in ((0, 0, 0, 0), (3, 1, 7, 1000), (2**61 + 9, 99, 4095, 151_935)):
            state = absorb(0, seed % 2**62)
            for value in (question, sample, position, token):
                state = absorb(state, value)
            uniform = ((state >> 12) + 0.5) / 2**52
            keys = noise_keys(seed, torch.tensor([question]), torch.tensor([sample]))
            found = gumbel_noise(keys, torch.tensor([[position]]), torch.tensor([[token]]))
            assert found.item() == pytest.approx(-math.log(-math.log(uniform)), abs=1e-12)


def test_penalty_tells_close_words_apart():
    """The penalty works in float32: in bf16 another token would be the likeliest."""
    logits = torch.tensor([20.0, 19.0, 18.875]).bfloat16()
    settings = replace(SETTINGS, greedy=True, repetition_penalty=1.055)  # 20 / 1.055 is 18.957, in bf16 19
    written = torch.tensor([True, False, False])
    keys = torch.zeros(1, 1, dtype=torch.long)
    for order in ([0, 1, 2], [0, 2, 1]):
        token, _ = choose(logits[order][None], settings, keys, keys, written[None])
        assert order[token.item()] == 1


def test_scores_are_the_models_own(tiny_models):
    """Under a mild penalty, as with none, a sample's score is its mean log-probability under the LLM itself."""
    llm, layout = tiny_models.llm, tiny_models.layout_for("none")
    settings, repeated = replace(SETTINGS, repetition_penalty=1.3, max_new_tokens=60), 0
    for example, samples, _ in sampled(Models(llm, None, layout), EXAMPLES, settings, 4):
        prompt = layout.prompt(example.question)["prefix"]
        for sample in samples:
            ids = torch.tensor([prompt + sample.tokens])
            with torch.no_grad():
                log_probs = llm(ids).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
            own = log_probs.gather(1, ids[0, len(prompt) :, None]).sum().item()
            if not sample.finished:
                assert sample.score == pytest.approx(own / len(sample.tokens), abs=1e-4)
                repeated += len(sample.tokens) - len(set(sample.tokens))
    assert repeated > 5, "next to nothing was penalised"


def test_noise_is_the_questions(tiny_models):
    """Order, a part of the rows, row numbers and other questions change no sample; equal questions have noise of their
    own, the first of them that of the question alone."""
    models = Models(tiny_models.llm, None, tiny_models.layout_for("none"))

    def texts(examples):
        found = {example.index: texts for example, _, texts in sampled(models, examples, SETTINGS, 2)}
        return [found[example.index] for example in examples]

    usual = texts(EXAMPLES)
    moved = [replace(example, index=50 - i) for i, example in enumerate(EXAMPLES)]
    assert texts(EXAMPLES[::-1])[::-1] == texts(moved) == usual
    assert texts(EXAMPLES[2:3]) == usual[2:3]
    twice = [replace(EXAMPLES[0], index=10 + i) for i in range(3)]
    again = texts([twice[0], EXAMPLES[1], *twice[1:]])
    assert again[:2] == usual[:2]
    assert len({tuple(one) for one in (again[0], *again[2:])}) == 3


def test_finished_rows_stretch_no_rope():
    """With a rope that changes with the largest position, a finished row that waits for others changes no answer: it
    stays where it ended."""
    tokenizer = family_tokenizer("byte_level", OWN_TEMPLATES["llama3"][0], "<|eot_id|>")
    layout = Layout(tokenizer, None, PROMPTS["number"])
    long = Example(0, "A baker sells 30 rolls and then 45 more. " * 4, (), "1")
    examples = [long, *(Example(i, f"How many {i}?" + " Why?" * (i % 3), (), "1") for i in range(1, 8))]
    longest = max(request.length for request in make_requests(layout, examples))
    torch.manual_seed(0)
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        **sizes,
        vocab_size=len(tokenizer),
        max_position_embeddings=longest + 6,
        rope_scaling=rope,
        initializer_range=0.3,
    )
    llm = LlamaForCausalLM(config).eval()
    assert llm.model.rotary_emb.rope_type == "dynamic"
    llm.generation_config = GenerationConfig()

    class OwnLengths(Rows):
        """The long question's answer has 4 tokens, the others' 20."""

        def ended(self, tokens, counts):
            return counts >= torch.tensor([[4] if draft.question == long.question else [20] for draft in self.drafts])

    settings = replace(SETTINGS, num_return_sequences=1, max_new_tokens=50)

    def tokens(examples):
        made = sampled(Models(llm, None, layout), examples, settings, 8)
        return {example.index: samples[0].tokens for example, samples, _ in made}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lta_thinker.generation.decoding.Rows", OwnLengths)
        together = tokens(examples)
        alone = [tokens([example])[example.index] for example in examples]
    assert [together[example.index] for example in examples] == alone
    assert len(alone[0]) == 4 and len(alone[1]) == 20


# ---------------------------------------------------------------------------------------------------------------------
# Numbers that are not finite


def broken(lm, value: float):
    """A copy of an LM whose last norm gives `value` in one feature."""
    lm = copy.deepcopy(lm)
    lm.model.norm.weight.data[3] = value
    return lm


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("greedy", [True, False])
def test_logits_must_be_finite(tiny_models, value, greedy):
    """Logits that are not finite end the sampling at once, in one line that names them and the question."""
    llm, layout, steps = broken(tiny_models.llm, value), tiny_models.layout_for("none"), []
    settings = replace(SETTINGS, greedy=greedy, num_return_sequences=1, max_new_tokens=200)
    with pytest.MonkeyPatch.context() as patch:
        own = Rows.step
        patch.setattr(Rows, "step", lambda self: steps.append(1) or own(self))
        with pytest.raises(InputError, match="the LLM's logits are not finite .* 'Tom reads") as error:
            list(sampled(Models(llm, None, layout), EXAMPLES, settings, 2))
    assert "\n" not in str(error.value) and len(steps) == 1


def test_unused_logits_may_be_masked(tiny_models):
    """A single word that can never be said is no fault."""
    settings = replace(SETTINGS, top_k=0, top_p=1.0, min_p=0.0)
    keys = torch.zeros(1, 1, dtype=torch.long)
    logits = torch.tensor([[1.0, -math.inf, 2.0]])
    token, log_prob = choose(logits, settings, keys, keys)
    assert token.item() != 1 and log_prob.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_thoughts_must_be_finite(tiny_models, value):
    """Thoughts that are not finite are named as such, not as the LLM's logits."""
    model, layout = tiny_models.model("small_block").eval(), tiny_models.layout_for("small_block")
    model.frozen = (tiny_models.llm, broken(tiny_models.small_lm, value))
    with pytest.raises(InputError, match="the thoughts of 'Tom reads .* are not finite") as error:
        list(sampled(Models(tiny_models.llm, model, layout), EXAMPLES, SETTINGS, 2))
    assert "\n" not in str(error.value)


def test_inspection_needs_finite_numbers(tiny_models, tmp_path):
    """So it is with --inspect: neither is drawn, nothing is written."""
    model, layout = tiny_models.model("small_block").eval(), tiny_models.layout_for("small_block")
    requests = make_requests(layout, EXAMPLES)
    for llm, small, said in (
        (broken(tiny_models.llm, math.nan), tiny_models.small_lm, "the LLM's logits"),
        (tiny_models.llm, broken(tiny_models.small_lm, math.nan), "the thoughts of"),
    ):
        model.frozen = (llm, small)
        with pytest.raises(InputError, match=f"{said}.* not finite"):
            settings = greedy_settings(llm, 8)
            inspect_thoughts(Models(llm, model, layout), requests, "number", 2, settings, 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Settings


@pytest.mark.parametrize(
    "flags",
    [
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"temperature": "hot"},
        {"top_k": 2.5},
        {"max_new_tokens": 3.0},
        {"min_p": math.nan},
        {"top_p": None, "seed": "x"},
    ],
)
def test_nonsense_is_no_setting(flags):
    """A setting that is no number of its kind, or not finite, is an error that names its flag."""
    with pytest.raises(InputError, match=f"--{list(flags)[-1]} "):
        resolve_sampling("gemma", GenerationConfig(), **flags)


def test_models_own_nonsense_is_not_a_flags():
    """A model's own setting that cannot be used is called the model's, with the flag that helps."""
    own = GenerationConfig(temperature=0.0, do_sample=True)
    with pytest.raises(
        InputError, match="the model's generation_config: temperature 0.0: must be above 0.*--temperature"
    ):
        resolve_sampling("gemma", own)
    assert resolve_sampling("gemma", own, temperature=0.5).temperature == 0.5
    assert resolve_sampling("gemma", own, greedy=True).temperature == 1.0


def test_answers_leave_room_for_the_prompt():
    """Where no flag says it, an answer takes at most half of the LLM's positions."""
    assert [default_new_tokens(positions) for positions in (None, 100_000, 8192, 2048, 1)] == [
        4096,
        4096,
        4096,
        1024,
        1,
    ]
    assert resolve_sampling("qwen3", GenerationConfig(), positions=300).max_new_tokens == 150
    assert resolve_sampling("qwen3", GenerationConfig(), positions=300, max_new_tokens=280).max_new_tokens == 280
