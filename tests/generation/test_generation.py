"""Sampling: the right distribution, noise from (seed, question, sample, position, token) alone, clean ends."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import OWN_TEMPLATES, TOKENIZER_KINDS, family_tokenizer, sampled
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS
from lta_thinker.generation import decoding
from lta_thinker.generation import samplers as generation
from lta_thinker.generation.decoding import decode
from lta_thinker.generation.prompts import PromptEmbedder, ThoughtVariance, make_requests
from lta_thinker.generation.samplers import count_right, stop_token_ids
from lta_thinker.generation.sampling import (
    PUBLISHED_SAMPLING,
    Sample,
    SamplingSettings,
    choose,
    gumbel_noise,
    noise_keys,
    resolve_sampling,
)
from lta_thinker.llm.frozen import LmSource, load_generation_config
from lta_thinker.model import Design, Models
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout

SETTINGS = SamplingSettings(
    max_new_tokens=10,
    temperature=0.9,
    top_p=0.95,
    top_k=40,
    min_p=0.01,
    repetition_penalty=1.0,
    greedy=False,
    num_return_sequences=3,
    seed=41,
)
QUESTIONS = ["How many?", "Tom reads 8 pages a day for 5 days.", "A baker sells 30 rolls and then 45 more. " * 3]
EXAMPLES = [Example(7 * i + 3, f"{QUESTIONS[i % 3]} Box {i}?", ("1 + 1 = 2",), "2") for i in range(8)]


def keys_of(seed: int, questions, samples) -> torch.Tensor:
    return noise_keys(seed, torch.as_tensor(questions), torch.as_tensor(samples))


def answers_of(models, examples, settings, batch_size, n=None) -> list[tuple[list[Sample], list[str]]]:
    """Samples and texts of a sampler, in the order of the examples."""
    made = sampled(models, examples, settings, batch_size, n)
    made = {example.index: (samples, texts) for example, samples, texts in made}
    return [made[example.index] for example in examples]


def tokens_of(*arguments) -> list[list[list[int]]]:
    return [[one.tokens for one in samples] for samples, _ in answers_of(*arguments)]


def test_noise_follows_gumbel_distribution():
    """Mean, variance and tails of the noise are those of Gumbel(0, 1), and it is never infinite."""
    keys = keys_of(41, torch.arange(1000), torch.zeros(1000, dtype=torch.long))
    noise = gumbel_noise(keys, torch.zeros_like(keys), torch.arange(500).expand(1000, -1)).flatten()
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.02)
    for x in (-1.0, 0.0, 1.0, 3.0, 6.0):
        assert (noise < x).double().mean().item() == pytest.approx(math.exp(-math.exp(-x)), abs=0.003)


def test_neighbouring_noise_is_independent():
    """Noise of neighbouring questions, samples, positions, tokens and seeds is uncorrelated, also across these."""
    tokens = torch.arange(300).expand(100, -1)

    def uniform(seed=41, question=0, one=0, position=0, token=0):
        keys = keys_of(seed, torch.arange(100) * 50 + question, torch.full((100,), one))
        noise = gumbel_noise(keys, torch.full_like(keys, position), tokens + token)
        return (-(-noise).exp()).exp().flatten()

    moves = [{"seed": 42}, {"question": 1}, {"one": 1}, {"position": 1}, {"token": 301}]
    moves += [{"question": 1, "one": 1}, {"one": 1, "position": 1}, {"position": 1, "token": 301}]
    seen = [uniform(), *(uniform(**move) for move in moves)]
    correlations = torch.corrcoef(torch.stack(seen)) - torch.eye(len(seen), dtype=torch.float64)
    assert correlations.abs().max() < 4 / math.sqrt(len(seen[0]))
    assert len(torch.cat(seen).unique()) == sum(map(len, seen))


@pytest.mark.parametrize(
    "cuts",
    [
        {"top_k": 0, "top_p": 1.0, "min_p": 0.0},
        {"top_k": 6, "top_p": 0.8, "min_p": 0.0},
        {"top_k": 0, "top_p": 0.97, "min_p": 0.2},
    ],
)
def test_frequencies_follow_the_warped_softmax(cuts):
    """Tokens are drawn as often as the softmax after the library's temperature, top-k, top-p and min-p says."""
    settings = replace(SETTINGS, temperature=0.7, **cuts)
    logits = torch.linspace(-2, 3, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(0))][None]
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.7)])
    warpers += [TopKLogitsWarper(cuts["top_k"])] if cuts["top_k"] else []
    warpers += [TopPLogitsWarper(cuts["top_p"])] + ([MinPLogitsWarper(cuts["min_p"])] if cuts["min_p"] else [])
    expected = warpers(None, logits).softmax(-1)[0]
    rows = 30_000
    keys = keys_of(41, torch.arange(rows) // 10, torch.arange(rows) % 10)
    chosen, log_probs = choose(logits.expand(rows, -1), settings, keys, torch.zeros_like(keys))
    counts = chosen[:, 0].bincount(minlength=12) / rows
    assert (counts - expected).abs().max() < 4 * math.sqrt(0.25 / rows)
    assert counts[expected == 0].sum() == 0
    torch.testing.assert_close(log_probs, logits[0].log_softmax(-1)[chosen[:, 0]])


def by_hand(models, example: Example, number: int, settings: SamplingSettings) -> tuple[list[int], float]:
    """One sample without thoughts, token by token: no cache, no padding, no `generate`, cuts in full width."""
    llm, layout = models.llm, models.layout_for("none")
    prompt, new, log_probs = layout.prompt(example.question)["prefix"], [], []
    [request] = make_requests(layout, [example])
    keys = keys_of(settings.seed, [request.noise], [number])
    cuts = [TemperatureLogitsWarper(settings.temperature), TopKLogitsWarper(settings.top_k)]
    cuts += [TopPLogitsWarper(settings.top_p), MinPLogitsWarper(settings.min_p)]
    while len(new) < settings.max_new_tokens and not set(new) & set(stop_token_ids(llm, layout)):
        logits = llm(input_ids=torch.tensor([prompt + new])).logits[:, -1]
        noise = gumbel_noise(keys, torch.tensor([[len(new)]]), torch.arange(logits.shape[-1])[None])
        scores = logits if settings.greedy else LogitsProcessorList(cuts)(None, logits) + noise
        new.append(scores.argmax().item())
        log_probs.append(logits.log_softmax(-1)[0, new[-1]].item())
    return new, sum(log_probs) / len(log_probs)


@pytest.mark.parametrize("greedy", [False, True])
@torch.no_grad()
def test_samples_match_plain_token_loop(tiny_models, greedy):
    """Rows of a shared cache give what a plain loop over token ids gives: the same tokens and ends, and the same
    scores."""
    settings = replace(SETTINGS, greedy=greedy, num_return_sequences=1 if greedy else 2)
    layout = tiny_models.layout_for("none")
    for example, samples, _ in sampled(Models(tiny_models.llm, None, layout), EXAMPLES[:3], settings, 3):
        for i, one in enumerate(samples):
            tokens, score = by_hand(tiny_models, example, i, settings)
            assert one.tokens == (tokens[:-1] if one.finished else tokens)
            assert one.num_tokens == len(tokens)
            assert one.score == pytest.approx(score, abs=1e-4)


def test_answers_keep_no_gradients(tiny_models, monkeypatch):
    """Thoughts and samples are made without gradients: a trained generator costs no memory for them."""
    seen, written = [], generation.TransformersSampler._decode

    def looked_at(sampler, requests):
        seen.append(torch.is_grad_enabled())
        return written(sampler, requests)

    monkeypatch.setattr(generation.TransformersSampler, "_decode", looked_at)
    models = Models(tiny_models.llm, tiny_models.model("small"), tiny_models.layout_for("small"))
    answers = sampled(models, EXAMPLES[:1], SETTINGS, 1)
    assert len(list(answers)) == 1 and seen == [False] and torch.is_grad_enabled()


@pytest.mark.parametrize("kind", ["small_block", "block", "small", "none"])
def test_batch_answers_as_each_question_alone(tiny_models, kind):
    """Batch size and order change no token (float32, CPU), whatever the lengths. All samples of a question differ."""
    settings = replace(SETTINGS, max_new_tokens=6)
    model = None if kind == "none" else tiny_models.model(kind)
    layout = tiny_models.layout_for(kind)

    def tokens(examples, batch_size):
        answers = sampled(Models(tiny_models.llm, model, layout), examples, settings, batch_size, 3)
        return {example.index: [one.tokens for one in samples] for example, samples, _ in answers}

    some = EXAMPLES[:4]
    together = tokens(some, 8)
    assert together == tokens(some, 1) == tokens(some[::-1], 3)
    assert all(len({tuple(row) for row in rows}) == 3 for rows in together.values())


CASES = {  # generator, chains, settings, batch sizes
    "none": ("none", 1, {}, (2, 8)),
    "chains": ("block", 2, {}, (3, 5)),
    "greedy": ("small_block", 1, {"greedy": True, "num_return_sequences": 1}, (1, 3, 5)),
    "penalty": ("small", 1, {"repetition_penalty": 1.3}, (2, 5)),
}


def often_ending(monkeypatch, llm) -> None:
    """Answers end at one token of 25, so that their lengths differ."""
    ends = list(range(0, llm.config.vocab_size, 25))
    monkeypatch.setattr(llm, "generation_config", GenerationConfig(eos_token_id=ends))


@pytest.mark.parametrize(("kind", "chains", "changes", "batch_sizes"), CASES.values(), ids=CASES)
def test_rows_coming_and_going_change_nothing(tiny_models, monkeypatch, kind, chains, changes, batch_sizes):
    """Finished rows are replaced and the last ones taken away, and every sample is still the one of its question alone.
    Prompts and answers have mixed lengths."""
    llm, layout = tiny_models.llm, tiny_models.layout_for(kind)
    often_ending(monkeypatch, llm)
    model = None if kind == "none" else tiny_models.model(kind, design=Design(num_chains=chains)).eval()
    settings = replace(SETTINGS, max_new_tokens=12, **changes)
    alone = [answers_of(Models(llm, model, layout), [example], settings, 1)[0] for example in EXAMPLES]
    lengths = [one.num_tokens for samples, _ in alone for one in samples]
    assert min(lengths) < 9 and max(lengths) == 12 and len(set(lengths)) > 3
    done, steps = {"replace": 0, "keep": 0}, []
    for name in done:
        own = getattr(decoding.Rows, name)

        def count(self, *arguments, name=name, own=own):
            done[name] += 1
            own(self, *arguments)

        monkeypatch.setattr(decoding.Rows, name, count)
    own_step = decoding.Rows.step
    monkeypatch.setattr(decoding.Rows, "step", lambda self: steps.append(len(self.drafts)) or own_step(self))
    for batch_size in batch_sizes:
        together = answers_of(Models(llm, model, layout), EXAMPLES, settings, batch_size)
        for (samples, texts), (expected, expected_texts) in zip(together, alone, strict=True):
            assert [one.tokens for one in samples] == [one.tokens for one in expected] and texts == expected_texts
            for one, other in zip(samples, expected, strict=True):
                assert (one.num_tokens, one.finished) == (other.num_tokens, other.finished)
                assert one.score == pytest.approx(other.score, abs=1e-4)
    assert min(done.values()) > len(batch_sizes)
    assert sum(steps) < 1.5 * len(batch_sizes) * sum(lengths), "finished samples go on costing"


def test_questions_come_when_they_finish(tiny_models, monkeypatch):
    """A question's answer comes as soon as it is finished, and the longest prompts are asked first."""
    llm, layout, asked = tiny_models.llm, tiny_models.layout_for("none"), []
    often_ending(monkeypatch, llm)
    batch = PromptEmbedder.batch
    monkeypatch.setattr(PromptEmbedder, "batch", lambda self, group: asked.extend(group) or batch(self, group))
    answers = sampled(Models(llm, None, layout), EXAMPLES, SETTINGS, 2)
    first, *_ = next(answers)
    asked_so_far = [request.example for request in asked]
    assert first in asked_so_far and len(asked) < len(EXAMPLES)
    assert {first.index, *(example.index for example, *_ in answers)} == {example.index for example in EXAMPLES}
    lengths = [request.length for request in asked]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) > 2


def run_out_of_memory(monkeypatch, rows: int, when=lambda: True) -> None:
    """A step of more than `rows` rows is out of memory, once `when` says so."""
    own = decoding.Rows.step

    def step(self):
        if len(self.drafts) > rows and when():
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        own(self)

    monkeypatch.setattr(decoding.Rows, "step", step)


@pytest.mark.parametrize("finished", [0, 2])
def test_out_of_memory_halves_the_batch(tiny_models, monkeypatch, capsys, finished):
    """Out of memory halves the batch and changes no sample. Questions that were running start again, and finished ones
    are not asked again."""
    llm, layout = tiny_models.llm, tiny_models.layout_for("none")
    often_ending(monkeypatch, llm)
    expected = tokens_of(Models(llm, None, layout), EXAMPLES, SETTINGS, 8)
    made, asked, batch = {}, [], PromptEmbedder.batch
    run_out_of_memory(monkeypatch, rows=6, when=lambda: len(made) >= finished)

    def note(self, group):
        asked.append((set(made), group))
        return batch(self, group)

    monkeypatch.setattr(PromptEmbedder, "batch", note)
    for example, samples, _ in sampled(Models(llm, None, layout), EXAMPLES, SETTINGS, 4):
        assert example.index not in made
        made[example.index] = [one.tokens for one in samples]
    assert [made[example.index] for example in EXAMPLES] == expected
    assert not any(request.example.index in done for done, group in asked for request in group)
    assert any(done for done, _ in asked) and sum(len(group) for _, group in asked) > len(EXAMPLES)
    printed = capsys.readouterr().out
    assert printed == "out of GPU memory: going on with --batch_size 2; running questions start again\n"


def test_out_of_memory_with_one_question(tiny_models, monkeypatch):
    """Out of memory with a single question ends in one line that says which flags to lower."""
    run_out_of_memory(monkeypatch, rows=2)
    with pytest.raises(
        InputError, match="--batch_size 1: out of GPU memory with 3 samples .* --max_new_tokens"
    ) as error:
        tokens_of(Models(tiny_models.llm, None, tiny_models.layout_for("none")), EXAMPLES, SETTINGS, 8)
    assert "\n" not in str(error.value)


def test_automatic_batch_fits_free_memory(tiny_models, monkeypatch, capsys):
    """What the cache and the logits really take stays under the memory that --batch_size auto was told is free."""
    llm, layout, largest = tiny_models.llm, tiny_models.layout_for("none"), [0]
    settings, own = replace(SETTINGS, max_new_tokens=60), decoding.Rows.step
    longest = max(request.length for request in make_requests(layout, EXAMPLES))

    def auto(free: float, settings=settings, questions: int = 1000) -> int:
        monkeypatch.setattr(generation, "free_bytes", lambda _: free)
        return generation.auto_batch_size(llm, settings, longest, questions)

    def step(self):
        own(self)
        storages = [t.untyped_storage() for layer in decoding.keys_and_values(self.cache) for t in layer]
        vocabulary = llm.config.vocab_size * 4 * len(self.drafts)
        largest[0] = max(largest[0], sum(storage.nbytes() for storage in storages) + vocabulary)

    monkeypatch.setattr(decoding.Rows, "step", step)
    free = 1e6
    while auto(free) < 4:
        free *= 1.05
    answers_of(Models(llm, None, layout), EXAMPLES, settings, 4)
    assert 0.4 * free < largest[0] < 0.9 * free
    assert auto(free, replace(settings, num_return_sequences=6)) == 2
    assert auto(1) == 1 and auto(1e15, questions=5) == 5 and auto(1e15) * 3 <= generation.MOST_ROWS["cpu"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("  batch_size = 26 (auto): a question takes up to 0.00")


@pytest.mark.skipif(not decoding.CACHE_BY_LAYERS, reason="transformers before 4.56 has no cache by layers")
@torch.no_grad()
def test_cache_room_changes_no_answer(tiny_models, monkeypatch):
    """The room left in the cache changes no answer, however often it grows."""
    layout = tiny_models.layout_for("none")

    def answers():
        return tokens_of(Models(tiny_models.llm, None, layout), EXAMPLES[:3], SETTINGS, 3)

    expected = answers()
    for room in (0, 2):
        monkeypatch.setattr(decoding, "ROOM", room)
        assert answers() == expected


@torch.no_grad()
def test_samples_are_spread_over_chains(tiny_models):
    """With C chains, sample s is the sample s of the model with chain s modulo C alone."""
    model = tiny_models.model("block", design=Design(num_chains=2)).eval()
    layout, settings = tiny_models.layout_for("block"), replace(SETTINGS, num_return_sequences=3)
    both = [texts for _, texts in answers_of(Models(model.llm, model, layout), EXAMPLES[:2], settings, 2)]
    for chain in range(2):
        alone = tiny_models.model("block").eval()
        alone.generator.load_state_dict(
            model.generator.state_dict() | {"prior": model.generator.prior[chain * 4 :][:4]}
        )
        texts = [texts for _, texts in answers_of(Models(model.llm, alone, layout), EXAMPLES[:2], settings, 2)]
        for i in range(2):
            assert both[i][chain::2] == texts[i][chain::2]
            assert both[i][1 - chain] != texts[i][1 - chain]


def test_variance_of_chains_is_that_by_hand():
    """The variance over chains is that of the same slot in the chains of a question, over slots that of the slots in a
    chain, over questions that of the same slot of the same chain; each a mean over the rest."""
    # (questions, chains, slots, features): a question's chains are 2 apart, its slots 4, two questions 6
    chain, slot, question = (torch.tensor([-size / 2, size / 2]) for size in (2.0, 4.0, 6.0))
    thoughts = question[:, None, None, None] + chain[None, :, None, None] + slot[None, None, :, None]
    thoughts = thoughts.expand(2, 2, 2, 3)
    parts = [ThoughtVariance(), ThoughtVariance()]
    for _ in range(2):  # a question counts once
        parts[0].add([7], thoughts[:1])
    parts[1].add([9], thoughts[1:])
    figures = ThoughtVariance.sum_of(parts).figures()
    assert figures == pytest.approx(
        {"over_questions": 9, "over_slots": 4, "over_chains": 1, "mean_square": 14, "num_questions": 2}
    )


def test_number_of_thoughts_changes_answers(tiny_models):
    """The LLM reads the first n thoughts: one thought gives other answers than four, and no number given means all
    four."""
    model, layout = tiny_models.model("small_block"), tiny_models.layout_for("small_block")
    said = {n: tokens_of(Models(tiny_models.llm, model, layout), EXAMPLES, SETTINGS, 8, n) for n in (1, 4, None)}
    assert said[None] == said[4] != said[1]


def test_answer_ends_at_any_stop_token(tiny_models):
    """Tokens stop before the first end token and num_tokens counts it. An answer without one is cut off."""
    llm, layout = tiny_models.llm, tiny_models.layout_for("none")

    def written(stops: list[int]) -> list[Sample]:
        models = Models(llm, None, layout)
        requests, embed = make_requests(layout, EXAMPLES), PromptEmbedder(models, num_chains=1)
        made = {request.example.index: samples for request, samples in decode(llm, SETTINGS, stops, requests, embed, 8)}
        return [one for example in EXAMPLES for one in made[example.index]]

    whole = written([])
    assert all(not one.finished and one.num_tokens == len(one.tokens) == 10 for one in whole)
    stops = list(range(0, 400, 5))
    short = written(stops)
    for one, full in zip(short, whole, strict=True):
        end = next((i for i, token in enumerate(full.tokens) if token in stops), None)
        assert one.finished == (end is not None)
        assert one.tokens == full.tokens[:end]
        assert one.num_tokens == (10 if end is None else end + 1)
    assert {one.finished for one in short} == {True, False}


def test_end_tokens_come_from_three_places(tiny_models):
    """An answer ends at the ids of generation_config (one or a list), at the tokenizer's end and at the template's end
    of turn."""
    llm, layout, own = tiny_models.llm, tiny_models.layout_for("none"), tiny_models.llm.generation_config
    turn_end = tiny_models.llm_tokenizer.convert_tokens_to_ids("<|im_end|>")
    try:
        for given, expected in ((5, {5, turn_end}), ([5, 6], {5, 6, turn_end}), (None, {turn_end})):
            llm.generation_config = GenerationConfig(eos_token_id=given)
            assert set(stop_token_ids(llm, layout)) == expected
    finally:
        llm.generation_config = own


def test_models_generation_config_leaks_nowhere(tiny_models):
    """Only resolved settings count: the model's own generation_config changes nothing, and it is still there
    afterwards."""
    llm, layout, own = tiny_models.llm, tiny_models.layout_for("none"), tiny_models.llm.generation_config
    plain = answers_of(Models(llm, None, layout), EXAMPLES[:2], SETTINGS, 2)
    other = GenerationConfig(
        eos_token_id=own.eos_token_id, repetition_penalty=9.0, min_new_tokens=9, suppress_tokens=list(range(50, 300)),
        no_repeat_ngram_size=1, num_beams=2, do_sample=True, temperature=9.0, max_length=4, num_return_sequences=2,
    )  # fmt: skip
    try:
        llm.generation_config = other
        assert answers_of(Models(llm, None, layout), EXAMPLES[:2], SETTINGS, 2) == plain
        assert llm.generation_config is other
    finally:
        llm.generation_config = own


def test_repetition_penalty_is_applied(tiny_models):
    """The repetition penalty is applied to the generated tokens, and the scores stay the model's own."""
    layout = tiny_models.layout_for("none")
    settings = replace(SETTINGS, greedy=True, num_return_sequences=1, repetition_penalty=1e6)
    for _, [one], _ in sampled(Models(tiny_models.llm, None, layout), EXAMPLES, settings, 8):
        assert len(set(one.tokens)) == len(one.tokens)
        assert -50 < one.score < 0


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_templates_end_is_one_token(kind):
    """An answer ends at the template's end of turn, also with a tokenizer that puts <s> before every text."""
    tokenizer = family_tokenizer(kind, OWN_TEMPLATES["gemma3"][0])
    llm = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=None))
    ends = stop_token_ids(llm, Layout(tokenizer, None, PROMPTS["number"]))
    assert {*tokenizer.convert_ids_to_tokens(ends)} == {"</s>", "<end_of_turn>"}


def test_later_sampling_settings_win():
    """Flags win over the family's published settings, these over generation_config, and that over the library's
    defaults. Greedy leaves no cut."""
    own = GenerationConfig(temperature=0.3, top_k=7, repetition_penalty=1.05)
    unknown = resolve_sampling("gemma", own)
    assert (unknown.temperature, unknown.top_k, unknown.top_p, unknown.repetition_penalty) == (0.3, 7, 1.0, 1.05)
    assert (resolve_sampling("gemma", GenerationConfig()).top_k, unknown.max_new_tokens) == (50, 4096)
    assert PUBLISHED_SAMPLING["qwen3"] == {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0}
    assert PUBLISHED_SAMPLING["llama"] == {"temperature": 0.5, "top_p": 1.0, "top_k": 10, "min_p": 0.0}
    for family, published in PUBLISHED_SAMPLING.items():
        settings = vars(resolve_sampling(family, own))
        assert published.items() <= settings.items()
        assert settings["repetition_penalty"] == 1.05
    flags = resolve_sampling("qwen3", own, 10, 5, temperature=1.1, top_p=None, max_new_tokens=9)
    assert (flags.temperature, flags.top_p, flags.max_new_tokens, flags.num_return_sequences) == (1.1, 0.8, 9, 10)
    greedy = resolve_sampling("qwen3", own, greedy=True, temperature=0.0)
    assert (greedy.temperature, greedy.top_p, greedy.top_k, greedy.min_p) == (1.0, 1.0, 0, 0.0)


@pytest.mark.parametrize(
    "flags",
    [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": -1}, {"min_p": 2.0}, {"max_new_tokens": 0}],
)
def test_impossible_sampling_settings_are_refused(flags):
    """A sampling value that cannot be is an error that names its flag."""
    with pytest.raises(InputError, match=f"--{next(iter(flags))} "):
        resolve_sampling("qwen3", GenerationConfig(), **flags)


def test_generation_config_needs_no_file(tiny_pair, tmp_path):
    """A model folder without generation_config.json gives its config's end tokens."""
    from lta_thinker.llm.frozen import load_config

    config = load_config(LmSource(str(tiny_pair / "large"), "--base_model_id"))
    assert load_generation_config(str(tmp_path), config).eos_token_id == config.eos_token_id
    assert load_generation_config(str(tiny_pair / "large"), config).eos_token_id == config.eos_token_id


def test_count_right_counts_greedy_answers(tiny_models, monkeypatch):
    """count_right is the number of questions whose greedy text holds the gold answer."""
    monkeypatch.setattr(
        "lta_thinker.generation.samplers.extract_answer", lambda text, answer_type, options, finished: str(len(text))
    )
    model, layout = tiny_models.model("small_block"), tiny_models.layout_for("small_block")
    settings = replace(SETTINGS, greedy=True, num_return_sequences=1, max_new_tokens=12)
    answers = answers_of(Models(model.llm, model, layout), EXAMPLES, settings, 4)
    golds = [str(len(text) + (i > 2)) for i, (_, [text]) in enumerate(answers)]
    examples = [replace(example, answer=gold) for example, gold in zip(EXAMPLES, golds, strict=True)]
    assert count_right(Models(model.llm, model, layout), examples, "number", 12, 8, quiet=True) == 3
