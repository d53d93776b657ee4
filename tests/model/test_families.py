"""Model families: tiny random models of each, with tokenizer and template in its manner, as large and as small LM."""

import copy
import functools
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import OWN_TEMPLATES, family_tokenizer, sampled
from transformers import (
    BartConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lta_thinker import evaluate, train
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS
from lta_thinker.generation.decoding import Rows
from lta_thinker.generation.sampling import resolve_sampling
from lta_thinker.llm.forward import body, position_ids
from lta_thinker.llm.frozen import LmSource, load_config, load_frozen_lm, load_tokenizer
from lta_thinker.llm.lora import Lora, tune
from lta_thinker.losses import LOSSES, Objective
from lta_thinker.model import GENERATORS, LatentThoughtModel, Models, llm_inputs, prior_row_ids
from lta_thinker.rows.batch import PromptCollator, TrainingCollator
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout, pad_token_id

N = 4
WINDOW = 8  # of the models with sliding windows: far smaller than every prompt
EXAMPLES = [
    Example(0, "Mia has 12 pens and buys 7 more. How many has she?", ("12 + 7 = 19 pens.", "So she has 19."), "19"),
    Example(1, "How many?", (), "3"),
    Example(2, "Tom reads 8 pages a day for 5 days.", ("He reads 8 * 5 = 40 pages.",), "40"),
]


@dataclass(frozen=True)
class Family:
    """How a family's tiny models are made; heads are tied or not as in the family's small models."""

    model: type
    config: type
    tokenizer: str
    eos: str
    settings: dict


FAMILIES = {
    "qwen3": Family(Qwen3ForCausalLM, Qwen3Config, "byte_level", "<|im_end|>", {"head_dim": 16}),
    "llama3": Family(LlamaForCausalLM, LlamaConfig, "byte_level", "<|eot_id|>", {"tie_word_embeddings": False}),
    "phi3": Family(Phi3ForCausalLM, Phi3Config, "legacy", "</s>", {"sliding_window": WINDOW}),
    "gemma3": Family(
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        "gemma",
        "</s>",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
    ),
    "mistral": Family(MistralForCausalLM, MistralConfig, "metaspace", "</s>", {"sliding_window": WINDOW}),
    "qwen2": Family(Qwen2ForCausalLM, Qwen2Config, "byte_level", "<|im_end|>", {"tie_word_embeddings": True}),
}
SMALL_OF = dict(zip(FAMILIES, [*list(FAMILIES)[1:], *list(FAMILIES)[:1]], strict=True))  # another family's


def save_family(folder: Path, name: str, d: int, seed: int) -> None:
    """A random float32 model of a family with its tokenizer; weights so large that what it reads changes what it
    says."""
    family = FAMILIES[name]
    tokenizer = family_tokenizer(family.tokenizer, OWN_TEMPLATES[name][0], family.eos)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ends |= {"pad_token_id": tokenizer.pad_token_id}
    sizes = {"hidden_size": d, "intermediate_size": 2 * d, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "vocab_size": len(tokenizer), "initializer_range": 0.2}
    torch.manual_seed(seed)
    model = family.model(family.config(max_position_embeddings=1024, **sizes, **ends, **family.settings))
    model.get_input_embeddings().weight.data[tokenizer.pad_token_id].normal_(std=0.2)  # made as zeros
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    """Folder with <family>-large (d 32) and <family>-small (d 16) of every family."""
    folder = tmp_path_factory.mktemp("zoo")
    for i, name in enumerate(FAMILIES):
        save_family(folder / f"{name}-large", name, 32, i)
        save_family(folder / f"{name}-small", name, 16, 100 + i)
    return folder


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@functools.cache
def loaded(path: str, dtype: torch.dtype):
    """An LM of the zoo, to be copied."""
    return load_frozen_lm(LmSource(path, "", dtype))


def build(zoo, family, kind, dtype=torch.float32):
    """A LatentThoughtModel with the family's large LM and the next family's small LM, and its layout."""
    large, small = str(zoo / f"{family}-large"), str(zoo / f"{SMALL_OF[family]}-small")
    tokenizer = load_tokenizer(LmSource(large, ""))
    generator_tokenizer, small_lm = tokenizer, None
    if GENERATORS[kind].uses_small_lm:
        generator_tokenizer = load_tokenizer(LmSource(small, ""))
        small_lm = copy.deepcopy(loaded(small, dtype))
    layout = Layout(tokenizer, generator_tokenizer, PROMPTS["number"], reads_prompt=GENERATORS[kind].thinks_in_llm)
    llm, slot_id = copy.deepcopy(loaded(large, dtype)), pad_token_id(generator_tokenizer)
    torch.manual_seed(0)
    weights = dict.fromkeys(LOSSES, 1.0)
    model = LatentThoughtModel(kind, llm, small_lm, N, slot_id, Objective(weights))
    if kind == "small_block":
        torch.nn.init.normal_(model.generator.prior)
    return model, layout


# in stages: not with windows. The library's count the columns of thoughts that a row of a mixed batch has not
HOW = [("qwen3", "lora"), ("llama3", "full"), ("phi3", "lora"), ("gemma3", "full"), ("mistral", "lora")]
HOW += [("qwen2", "full"), ("qwen3", "recomputed"), ("gemma3", "recomputed")]
HOW += [("llama3", "in stages"), ("qwen2", "in stages")]


@pytest.mark.parametrize(("family", "how"), HOW)
def test_coconut_thinks_as_a_plain_loop(zoo, family, how):
    """In every family Coconut's thoughts are those of a loop that reads the whole row again for each, alone and without
    cache or padding: values, gradients of marks and of the tuned LLM, and the SFT loss behind them. Also where layers
    are computed anew in the backward pass, and where rows of a batch are in different stages."""
    model, layout = build(zoo, family, "coconut")
    lora = Lora(4, 8, 0.0, "o_proj" if family == "phi3" else "q_proj,v_proj").config("x")
    model.adapters["base_model"] = tune(model.llm, None if how == "full" else lora, "--lora_target")
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.03)
    examples, counts, staged = EXAMPLES[:2], [N, N], {}
    if how == "in stages":
        examples, counts = EXAMPLES, [N, 1, 0]
        staged = {"thoughts": counts}
    batch = training_batch(layout, examples, **staged)
    assert torch.equal(batch["question_ids"], batch["prefix_ids"])

    embed, plain, loss = model.llm.get_input_embeddings(), [], torch.zeros(())
    for example, count in zip(examples, counts, strict=True):
        row = layout.training(example)
        x = torch.cat([embed(torch.tensor(row["prefix"])), model.generator.marks[:1]])
        for _ in range(count):
            x = torch.cat([x, body(model.llm)(inputs_embeds=x[None]).last_hidden_state[0, -1:]])
        plain.append(x[len(x) - count :])
        x = torch.cat([x, model.generator.marks[1:], embed(torch.tensor(row["suffix"] + row["target"]))])
        logits = model.llm(inputs_embeds=x[None]).logits[0, -len(row["target"]) - 1 : -1]
        loss = loss + F.cross_entropy(logits, torch.tensor(row["target"]), reduction="sum")
    gradients = torch.autograd.grad(loss + torch.cat(plain).sum(), [*model.parameters()])

    if how == "recomputed":
        model.recompute_layers()
    made = model.thoughts(batch["question_ids"], batch["question_mask"])[1]
    made = torch.cat([row[:count] for row, count in zip(made, counts, strict=True)])
    sums = model.train()(**batch)
    ours = torch.autograd.grad(sums["sft"] + made.sum(), [*model.parameters()])
    torch.testing.assert_close(made, torch.cat(plain), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sums["sft"], loss, atol=1e-5, rtol=1e-5)
    for (name, _), one, other in zip(model.named_parameters(), ours, gradients, strict=True):
        assert one.abs().max() > 0, name
        torch.testing.assert_close(one, other, atol=1e-5 * max(1, other.abs().max().item()), rtol=1e-4, msg=name)


def training_batch(layout, examples=EXAMPLES, **more):
    """more: of each row, by name."""
    rows = [layout.training(example) for example in examples]
    rows = [row | {name: values[i] for name, values in more.items()} for i, row in enumerate(rows)]
    return TrainingCollator(layout, steps=True)(rows)


@pytest.mark.parametrize(("family", "kind"), [*zip(FAMILIES, ("small_block", "small", "block") * 2, strict=True)])
def test_families_train_and_evaluate(zoo, gsm8k_data, family, kind, tmp_path, monkeypatch):
    """Both scripts run with a large and a small LM of different families, and answers in a batch are those of each
    question alone. (Every kind with every family: the losses, below.)"""
    monkeypatch.chdir(tmp_path)
    models = ["--large_model_id", f"{zoo}/{family}-large", "--small_model_id", f"{zoo}/{SMALL_OF[family]}-small"]
    train.run(
        [
            *(*models, "--thought_generator", kind, "--output_name", "run", "--data_dir", str(gsm8k_data)),
            *("--num_thought_tokens", "4", "--batch_size", "2", "--gradient_accumulation_steps", "1", "--k_shot", "4"),
            *("--learning_rate", "1e-2", "--max_steps", "2", "--logging_steps", "1", "--disable_tqdm", "True"),
        ]
    )
    (meta,) = Path("ckpt").glob("run-*/thoughts.json")
    (point,) = json.loads(meta.read_text())["dev_curve"]
    assert all(math.isfinite(value) for value in point.values())

    def samples(name, *flags):
        flags = ["--checkpoint", str(meta.parent), "--data_dir", str(gsm8k_data), "--test_k", "3", *flags]
        evaluate.main([*flags, "--max_new_tokens", "6", "--output_dir", name])
        return [json.loads(line)["responses"] for line in Path(name, "samples.jsonl").read_text().splitlines()]

    assert len(samples("greedy", "--greedy")) == 3
    two = samples("two", "--num_return_sequences", "2", "--batch_size", "3")
    assert two == samples("alone", "--num_return_sequences", "2", "--batch_size", "1")
    assert len({text for texts in two for text in texts}) > 3, "the answers do not depend on question and sample"


def test_families_have_right_losses(zoo, family, kind):
    """In every family thoughts are those of training and follow the question, a batch's losses sum its rows', SFT is
    the library's loss, and gradients are finite."""
    model, layout = build(zoo, family, kind)
    batch = training_batch(layout)
    thoughts = model.train()._thoughts_and_steps(batch)[1]
    prompts = PromptCollator(layout)([layout.prompt(example.question) for example in EXAMPLES])
    with torch.no_grad():
        again = model.eval().thoughts(prompts["question_ids"], prompts["question_mask"])[1]
    assert torch.equal(thoughts, again)
    assert not torch.allclose(thoughts[0], thoughts[2], atol=1e-2), "the thoughts do not depend on the question"
    sums = model.train()(**batch)
    alone = [model(**training_batch(layout, [example])) for example in EXAMPLES]
    for name, value in sums.items():
        torch.testing.assert_close(value, sum(row[name] for row in alone), atol=1e-4, rtol=1e-5)
        assert value.isfinite() and value > 0
    # the library's own loss over the target tokens, with the same padding
    inputs = llm_inputs(model.llm, batch, thoughts)
    width = inputs["inputs_embeds"].shape[1] - batch["labels"].shape[1]
    labels = torch.nn.functional.pad(batch["labels"], (width, 0), value=-100)
    mean = model.llm(**inputs, position_ids=position_ids(inputs["attention_mask"]), labels=labels).loss
    torch.testing.assert_close(sums["sft"], mean * (labels != -100).sum(), atol=1e-3, rtol=1e-5)
    for name, value in sums.items():
        gradients = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert name == "focus" or all(gradient.any() for gradient in gradients)


def test_cached_generation_matches_plain_forward(zoo, family, monkeypatch):
    """Each greedy token is the argmax of a plain forward, with left-padded prompts, sliding windows, rows that take
    another's place in the cache and rows that are left over."""
    model, layout = build(zoo, family, "small_block")
    monkeypatch.setattr(Rows, "ended", lambda self, _, counts: counts >= 3 + self.state["keys"] % (2 * WINDOW))
    settings = resolve_sampling("", GenerationConfig(), greedy=True)
    examples = EXAMPLES + [replace(one, index=i + 3, question=one.question + " Why?") for i, one in enumerate(EXAMPLES)]
    done, lengths = set(), set()
    for name in ("replace", "keep"):
        own = getattr(Rows, name)
        monkeypatch.setattr(Rows, name, lambda *a, name=name, own=own: done.add(name) or own(*a))
    for example, [sample], _ in sampled(Models(model.llm, model.eval(), layout), examples, settings, 3):
        batch = PromptCollator(layout)([layout.prompt(example.question)])
        with torch.no_grad():
            thoughts = model.thoughts(batch["question_ids"], batch["question_mask"])[1]
            prompt = llm_inputs(model.llm, batch, thoughts)["inputs_embeds"]
            said = model.llm.get_input_embeddings()(torch.tensor([sample.tokens], dtype=torch.long))
            logits = model.llm(inputs_embeds=torch.cat([prompt, said], dim=1), use_cache=False).logits[0]
        expected = logits[prompt.shape[1] - 1 : -1].argmax(-1).tolist()
        assert sample.tokens == expected and prompt.shape[1] > WINDOW
        lengths.add(len(sample.tokens))
    assert done == {"replace", "keep"} and min(lengths) < WINDOW < max(lengths)


def test_bf16_and_recomputation_stay_close(zoo, family):
    """Recomputed layers give the same SFT loss and gradient, and bf16 gives a close loss and finite gradients."""
    losses = []
    for dtype, recomputed in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, False)):
        model, layout = build(zoo, family, "small_block", dtype)
        if recomputed:
            model.recompute_layers()
        sft = model.train()(**training_batch(layout))["sft"]
        losses.append((sft.detach(), torch.autograd.grad(sft, model.generator.prior)[0]))
        assert losses[-1][1].isfinite().all()
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses[2][0], losses[0][0], atol=0, rtol=0.05)


def test_prior_starts_as_llm_reads_rows(zoo, family):
    """The prior starts as what the LLM's layers read for its rows, embedding scale included."""
    model, _ = build(zoo, family, "block")
    rows = torch.tensor(prior_row_ids(model.llm.config, N))
    seen = []
    model.llm.model.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        model.llm(rows[None])
        model.llm(inputs_embeds=model.generator.prior[None])
    torch.testing.assert_close(seen[0], seen[1])


# ---------------------------------------------------------------------------------------------------------------------
# What cannot work

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}


@pytest.mark.parametrize(
    "config, reason",
    [
        (BartConfig(d_model=16, encoder_layers=1, decoder_layers=1), "encoder-decoder"),
        (GPT2Config(n_embd=16, n_layer=1, n_head=2), "no hidden_size"),
        (OPTConfig(hidden_size=16, num_hidden_layers=1), "no intermediate_size"),
        (LlamaConfig(**TINY, hidden_size_per_layer_input=4), "its layers read input_ids"),  # Gemma 3n
        (LlamaConfig(**TINY, final_logit_softcapping=30.0), "final_logit_softcapping"),  # Gemma 2
        (LlamaConfig(**TINY, logits_scaling=8.0), "logits_scaling"),  # Granite
    ],
)
def test_unsupported_models_are_refused_from_config(tmp_path, config, reason):
    """Models that cannot work are refused in one line from their config, before weights are loaded."""
    config.save_pretrained(tmp_path)
    for load in (load_config, load_frozen_lm):
        with pytest.raises(InputError, match=f"--base_model_id {tmp_path}: .*{reason}") as error:
            load(LmSource(str(tmp_path), "--base_model_id"))
        assert "\n" not in str(error.value)


def test_state_space_model_is_refused(tmp_path):
    """A state space model, which takes no positions, is refused in one line."""
    MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=32, state_size=4)).save_pretrained(
        tmp_path
    )
    with pytest.raises(InputError, match="--large_model_id .*: MambaForCausalLM.forward takes no position_ids"):
        load_frozen_lm(LmSource(str(tmp_path), "--large_model_id"))


def test_model_without_embedding_generation_is_refused(zoo, monkeypatch):
    """A model that cannot go on writing from embeddings is refused."""
    monkeypatch.setattr(LlamaForCausalLM, "prepare_inputs_for_generation", lambda self, input_ids, **kwargs: None)
    with pytest.raises(InputError, match="LlamaForCausalLM.* takes no inputs_embeds"):  # 5.23: Gemma 3 with images
        load_frozen_lm(LmSource(f"{zoo}/llama3-large", "--large_model_id"))


def test_missing_layers_cannot_be_recomputed(tiny_models):
    """--gradient_checkpointing is refused for a model whose layers are not found."""
    model = tiny_models.model("block")
    model.frozen = (SimpleNamespace(base_model=torch.nn.Linear(2, 2)), None)
    with pytest.raises(InputError, match="--gradient_checkpointing: Linear has no `layers`"):
        model.recompute_layers()
