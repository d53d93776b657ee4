"""The thought generators before the frozen LLM: thoughts, losses, block and prior, chains."""

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from helpers import EXAMPLES, N, evaluation_thoughts, one_line, plain_z, prompt_batch, training_batch
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from lta_thinker.common import InputError
from lta_thinker.llm.forward import first_layers, position_ids
from lta_thinker.llm.frozen import LmSource, load_frozen_lm
from lta_thinker.losses import Objective
from lta_thinker.model import Design, LatentThoughtModel, TransformerBlock, llm_inputs, prior_row_ids
from lta_thinker.rows.examples import Example

OTHER_STEPS = [Example(e.index, e.question, ("Quite another step, and a longer one.",), e.answer) for e in EXAMPLES]


# ---------------------------------------------------------------------------------------------------------------------
# Thoughts


def test_thoughts_are_same_in_evaluation(tiny_models, kind):
    """The thoughts and the question's vector of a batch are the same in training and evaluation, to the bit, and
    thoughts depend on the question."""
    model = tiny_models.model(kind).train()
    z_question, thoughts, _ = model._thoughts_and_steps(training_batch(tiny_models, kind))
    assert thoughts.requires_grad and thoughts.shape == (3, N, 32)
    again_question, again = evaluation_thoughts(model, prompt_batch(tiny_models, kind))
    assert torch.equal(thoughts, again) and torch.equal(z_question, again_question)
    assert not torch.allclose(thoughts[0], thoughts[2], atol=1e-2), "the thoughts do not depend on the question"


def test_thoughts_ignore_padding_and_rows(tiny_models, kind):
    """Thoughts do not depend on padding or on other rows of the batch (1e-5 in float32)."""
    model = tiny_models.model(kind)
    z_question, thoughts = evaluation_thoughts(model, prompt_batch(tiny_models, kind))
    for i, example in enumerate(EXAMPLES):
        alone_question, alone = evaluation_thoughts(model, prompt_batch(tiny_models, kind, [example]))
        torch.testing.assert_close(alone[0], thoughts[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone_question[0], z_question[i], atol=1e-5, rtol=0)


def test_steps_never_influence_thoughts(tiny_models, kind):
    """The written steps of a training row never change its thoughts."""
    model = tiny_models.model(kind).train()
    _, thoughts, z_steps = model._thoughts_and_steps(training_batch(tiny_models, kind))
    _, again, _ = model._thoughts_and_steps(training_batch(tiny_models, kind, OTHER_STEPS))
    assert torch.equal(thoughts, again)
    assert z_steps.shape == (3, 2, 32) and z_steps.isfinite().all()


def test_thoughts_see_steps_only_in_training(tiny_models):
    """--thoughts_see_steps lets thoughts see the steps in training, and only there."""
    for kind in ("small_block", "block", "small"):
        model = tiny_models.model(kind, thoughts_see_steps=True)
        expected = evaluation_thoughts(model, prompt_batch(tiny_models, kind))[1]
        batch, other = training_batch(tiny_models, kind), training_batch(tiny_models, kind, OTHER_STEPS)
        assert torch.equal(model.eval()._thoughts_and_steps(batch)[1], expected), kind
        leaking = model.train()._thoughts_and_steps(batch)[1]
        changed = (leaking - model._thoughts_and_steps(other)[1]).abs().amax((1, 2))
        assert (changed > 1e-3).all(), f"{kind}: the flag did not show the steps"


def test_z_is_read_at_right_columns(tiny_models, kind):
    """z is read at the question's last token, at the slots and at the last token of each step, as on each row alone."""
    model, layout = tiny_models.model(kind), tiny_models.layout_for(kind)
    with torch.no_grad():
        z_question, thoughts, z_steps = model._thoughts_and_steps(training_batch(tiny_models, kind))
        for i, row in enumerate(layout.training(example) for example in EXAMPLES):
            z = plain_z(model, kind, row["question"], slots=True)
            torch.testing.assert_close(thoughts[i], z[-N:], atol=1e-5, rtol=0)
            torch.testing.assert_close(z_question[i], z[-N - 1], atol=1e-5, rtol=0)
            z = plain_z(model, kind, row["question"] + sum(row["steps"], row["header"]), slots=False)
            for m in range(len(row["steps"])):
                after = len(sum(row["steps"][m + 1 :], []))
                torch.testing.assert_close(z_steps[i, m], z[len(z) - 1 - after], atol=1e-5, rtol=0)


def test_leaking_thoughts_ignore_padding_too(tiny_models, kind):
    """Thoughts that see steps do not depend on padding between steps and slots either."""
    model = tiny_models.model(kind, thoughts_see_steps=True).train()
    _, thoughts, z_steps = model._thoughts_and_steps(training_batch(tiny_models, kind))
    for i, example in enumerate(EXAMPLES):
        _, alone, z_alone = model._thoughts_and_steps(training_batch(tiny_models, kind, [example]))
        torch.testing.assert_close(alone[0], thoughts[i], atol=1e-5, rtol=0)
        m = len(example.steps)
        torch.testing.assert_close(z_alone[0, :m], z_steps[i, :m], atol=1e-5, rtol=0)


def test_llm_input_is_prefix_thoughts_suffix(tiny_models):
    """The LLM's input is prefix, thoughts, suffix, with the slots in the same columns of every row, for N thoughts, for
    the first n, and without any."""
    model, batch = tiny_models.model("small_block"), prompt_batch(tiny_models, "small_block")
    thoughts = evaluation_thoughts(model, batch)[1]
    embed, width = tiny_models.llm.get_input_embeddings(), batch["prefix_ids"].shape[1]
    for n in (N, 2):  # evaluation may inject the first n of N
        inputs = llm_inputs(tiny_models.llm, batch, thoughts[:, :n].bfloat16())
        embeds, mask = inputs["inputs_embeds"], inputs["attention_mask"]
        assert embeds.dtype == torch.float32  # the LLM's
        assert torch.equal(embeds[:, :width], embed(batch["prefix_ids"]))
        assert torch.equal(embeds[:, width : width + n], thoughts[:, :n].bfloat16().float())
        assert torch.equal(embeds[:, width + n :], embed(batch["suffix_ids"]))
        assert torch.equal(mask[:, :width], batch["prefix_mask"]) and mask[:, width:].all()
        assert mask.shape == embeds.shape[:2]
    bare = llm_inputs(tiny_models.llm, batch, None)
    assert bare["inputs_embeds"].shape[1] == width + batch["suffix_ids"].shape[1] == bare["attention_mask"].shape[1]


def test_positions_count_real_tokens_only():
    """Positions count real tokens, not padding."""
    assert position_ids(torch.tensor([[0, 0, 1, 1, 0, 1]])).tolist() == [[0, 0, 0, 1, 1, 2]]


# ---------------------------------------------------------------------------------------------------------------------
# Frozen and trained


def test_frozen_lms_stay_frozen(tiny_models, kind):
    """The frozen LMs are not among the model's parameters. In training they stay in evaluation mode and get no
    gradients."""
    model = tiny_models.model(kind).train()
    names = {name.split(".")[0] for name in model.state_dict()} | {
        name.split(".")[0] for name, _ in model.named_parameters()
    }
    assert names == {"generator"}
    lms = [lm for lm in model.frozen if lm is not None]
    assert len(lms) == (1 if kind == "block" else 2)
    sum(model(**training_batch(tiny_models, kind)).values()).backward()
    for lm in lms:
        assert not lm.training and not any(module.training for module in lm.modules())
        assert all(not p.requires_grad and p.grad is None for p in lm.parameters())


def test_each_loss_reaches_every_parameter(tiny_models, kind):
    """Each loss alone reaches every trained parameter, also with rows without steps: DDP runs without
    find_unused_parameters."""
    for name, examples in (("sft", EXAMPLES), ("align", EXAMPLES), ("focus", EXAMPLES), ("focus", EXAMPLES[1:2])):
        weights = dict.fromkeys(("sft", "align", "focus"), 0.0) | {name: 1.0}
        model = tiny_models.model(kind, weights=weights).train()
        sums = model(**training_batch(tiny_models, kind, examples))
        assert list(sums) == [name]
        sums[name].backward()
        for parameter, p in model.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), f"{name}: {parameter}"
            assert name == "focus" or p.grad.any(), f"{name}: {parameter}"


def test_zero_weight_skips_loss_in_training(tiny_models, kind):
    """A loss with weight zero is left out in training. Evaluation on dev computes all, in float32."""
    weights = {"sft": 1.0, "align": 0.0, "focus": 0.0}
    model, batch = tiny_models.model(kind, weights=weights), training_batch(tiny_models, kind)
    dev = model.eval()(**batch)
    assert list(dev) == ["sft", "align", "focus"] and all(value.dtype == torch.float32 for value in dev.values())
    train = model.train()(**training_batch(tiny_models, kind, steps=False))
    assert list(train) == ["sft"] and train["sft"] == dev["sft"]


def test_batch_losses_sum_its_rows(tiny_models, kind):
    """Padding changes no loss: a batch's losses are the sums of its rows' alone."""
    model = tiny_models.model(kind).train()
    together = model(**training_batch(tiny_models, kind))
    alone = [model(**training_batch(tiny_models, kind, [example])) for example in EXAMPLES]
    for name, value in together.items():
        torch.testing.assert_close(value, sum(sums[name] for sums in alone), atol=1e-5, rtol=1e-5)
    assert alone[1]["focus"] == 0 and alone[0]["focus"] > 0 and alone[0]["align"] > 0


def test_sft_is_the_library_loss(tiny_models, kind):
    """The SFT loss is the library's own over the target tokens, gradients included."""
    model, batch = tiny_models.model(kind).train(), training_batch(tiny_models, kind)
    _, thoughts, _ = model._thoughts_and_steps(batch)
    inputs = llm_inputs(tiny_models.llm, batch, thoughts)
    labels = torch.nn.functional.pad(
        batch["labels"], (inputs["inputs_embeds"].shape[1] - batch["labels"].shape[1], 0), value=-100
    )
    mean = tiny_models.llm(**inputs, position_ids=position_ids(inputs["attention_mask"]), labels=labels).loss
    expected, sft = mean * (labels != -100).sum(), model(**batch)["sft"]
    torch.testing.assert_close(sft, expected, atol=1e-4, rtol=1e-5)
    parameters = list(model.parameters())
    gradients, wanted = torch.autograd.grad(sft, parameters), torch.autograd.grad(expected, parameters)
    torch.testing.assert_close(gradients, wanted, atol=1e-4, rtol=1e-4)


def test_focus_answer_is_mean_embedding(tiny_models, monkeypatch):
    """The focus loss gets the answer as the mean input embedding of its own tokens, and the temperature 0.1."""
    model, batch, seen = tiny_models.model("small_block"), training_batch(tiny_models, "small_block"), []
    monkeypatch.setattr("lta_thinker.model.reasoning_focus", lambda *args: seen.append(args) or torch.zeros(3))
    model.eval()(**batch)
    (_, _, step_valid, answers, temperature) = seen[0]
    embed = tiny_models.llm.get_input_embeddings()
    for i, example in enumerate(EXAMPLES):
        tokens = tiny_models.llm_tokenizer(example.answer, add_special_tokens=False, return_tensors="pt").input_ids
        torch.testing.assert_close(answers[i], embed(tokens)[0].mean(0))
    assert torch.equal(step_valid, batch["step_valid"]) and temperature == 0.1


def test_gradient_checkpointing_changes_no_gradient(tiny_models, tiny_pair):
    """Gradient checkpointing runs the LLM's layers once more in training, and it changes no gradient."""
    batch, results = training_batch(tiny_models, "small_block"), []
    for enabled in (False, True):
        llm, calls = load_frozen_lm(LmSource(str(tiny_pair / "large"), "--large_model_id")), []
        llm.base_model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(0)
        weights = {"sft": 1.0, "align": 1.0, "focus": 1.0}
        model = LatentThoughtModel("small_block", llm, tiny_models.small_lm, N, 0, Objective(weights)).train()
        if enabled:
            model.recompute_layers()
        sum(model(**batch).values()).backward()
        results.append([p.grad for p in model.parameters()])
        assert len(calls) == 2 + enabled  # the prefix, the rest, and the rest again
        with torch.no_grad():
            model.eval()(**batch)
        assert len(calls) == 4 + enabled
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)


def test_bf16_models_train_float32_generators(tiny_models, tiny_pair, kind):
    """With bf16 LMs the generator and its gradients stay float32, losses stay close, and thoughts are the same in
    evaluation."""
    lms = [load_frozen_lm(LmSource(str(tiny_pair / name), "", torch.bfloat16)) for name in ("large", "small")]
    expected = tiny_models.model(kind, seed=3).train()(**training_batch(tiny_models, kind))
    half = tiny_models.model(kind, seed=3).train()
    half.frozen = (lms[0], None if kind == "block" else lms[1])
    batch = training_batch(tiny_models, kind)
    sums = half(**batch)
    for name in ("sft", "align"):
        torch.testing.assert_close(sums[name], expected[name], atol=0, rtol=0.05)
    assert sums["focus"].isfinite()
    sum(sums.values()).backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in half.parameters())
    thoughts = half._thoughts_and_steps(batch)[1]
    assert torch.equal(thoughts, evaluation_thoughts(half, prompt_batch(tiny_models, kind))[1])


# ---------------------------------------------------------------------------------------------------------------------
# Block and prior


def test_block_is_the_written_out_layer():
    """The TransformerBlock is the written-out post-norm layer, at all columns and at chosen ones."""
    torch.manual_seed(0)
    block, d, eps = TransformerBlock(6, 10, norm_eps=0.1).double(), 6, 0.1
    for p in block.parameters():
        torch.nn.init.normal_(p)
    x, mask = torch.randn(2, 5, d, dtype=torch.float64), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    w = dict(block.named_parameters())

    def norm(v, weight):
        return v / (v.pow(2).mean() + eps).sqrt() * weight

    expected = torch.empty_like(x)
    for b in range(2):
        q, k, v = (
            (x[b] @ w["self_attn.in_proj_weight"].T + w["self_attn.in_proj_bias"])[:, i * d : i * d + d]
            for i in range(3)
        )
        for t in range(5):
            seen = mask[b].bool()
            attention = (k[seen] @ q[t] / d**0.5).softmax(0) @ v[seen]
            y = norm(
                x[b, t] + w["self_attn.out_proj.weight"] @ attention + w["self_attn.out_proj.bias"], w["norm1.weight"]
            )
            ffn = w["linear2.weight"] @ (w["linear1.weight"] @ y + w["linear1.bias"]).clamp(min=0) + w["linear2.bias"]
            expected[b, t] = norm(y + ffn, w["norm2.weight"])
    everywhere = torch.arange(5).expand(2, -1)
    torch.testing.assert_close(block(x, mask, everywhere), expected)
    columns = torch.tensor([[4, 2], [0, 4]])
    asked = torch.stack([expected[b, columns[b]] for b in range(2)])
    torch.testing.assert_close(block(x, mask, columns), asked)


def test_prior_starts_as_rows_or_zero(tiny_models):
    """The prior starts as N distinct rows of the LLM's embedding table, copied, and in small_block as zeros."""
    table = tiny_models.llm.get_input_embeddings().weight
    prior = tiny_models.model("block").generator.prior
    assert torch.equal(prior, table[-N:]) and len(prior.unique(dim=0)) == N and prior.requires_grad
    before = table.clone()
    prior.data.zero_()
    assert torch.equal(table, before), "the prior is a view of the LLM's table"
    model = LatentThoughtModel("small_block", tiny_models.llm, tiny_models.small_lm, N, 0)
    assert model.generator.prior.shape == (N, 32) and not model.generator.prior.any()


@pytest.mark.parametrize(
    "config, num_thoughts, start",
    [
        (Qwen3Config(vocab_size=151936), 32, 150001),
        (Qwen2Config(vocab_size=152064), 32, 150001),
        (Qwen3Config(vocab_size=150033), 32, 150001),  # reaches the last one exactly
        (Qwen3Config(vocab_size=150032), 32, 150000),
        (LlamaConfig(vocab_size=128256), 32, 128011),
        (LlamaConfig(vocab_size=32000), 4, 31996),
        (MistralConfig(vocab_size=200000), 4, 199996),
        (Qwen3Config(vocab_size=4), 4, 0),
    ],
)
def test_prior_rows_are_published_or_last(config, num_thoughts, start):
    """The prior's rows are the published ids where the model type and the vocabulary allow it, else the last rows."""
    assert prior_row_ids(config, num_thoughts) == range(start, start + num_thoughts)


def test_match_scale_gives_mean_table_norm(tiny_models, kind):
    """match_scale gives thoughts the mean norm of the embedding table and leaves their direction."""
    table = tiny_models.llm.get_input_embeddings().weight
    batch = prompt_batch(tiny_models, kind)
    plain = evaluation_thoughts(tiny_models.model(kind), batch)[1]
    scaled = evaluation_thoughts(tiny_models.model(kind, design=Design(match_scale=True)), batch)[1]
    torch.testing.assert_close(scaled.norm(dim=-1), table.norm(dim=-1).mean().expand(3, N))
    torch.testing.assert_close(scaled, plain * scaled.norm(dim=-1, keepdim=True) / plain.norm(dim=-1, keepdim=True))


def test_two_blocks_run_in_sequence(tiny_models):
    """Two blocks are one after the other, and the first reads all columns."""
    torch.manual_seed(0)
    two = TransformerBlock(6, 10, 1e-6, num_blocks=2)
    x, mask, columns = torch.randn(2, 5, 6), torch.ones(2, 5), torch.tensor([[4], [1]])
    everywhere = torch.arange(5).expand(2, -1)
    upper = TransformerBlock(6, 10, 1e-6)
    upper.load_state_dict({name: v for name, v in two.state_dict().items() if not name.startswith("before.")})
    torch.testing.assert_close(two(x, mask, columns), upper(two.before(x, mask, everywhere), mask, columns))
    for count in (1, 2, 3, 5):
        blocks = [one for one in TransformerBlock(6, 10, 1e-6, count).modules() if isinstance(one, TransformerBlock)]
        assert len(blocks) == count


@pytest.mark.parametrize("kind", ["small_block", "block"])
def test_projection_stands_before_or_after_block(tiny_models, kind):
    """The projection stands before or after the block, which has the width of its place."""
    d_in = 32 if kind == "block" else 16
    for place, d in (("before", 32), ("after", d_in)):
        model = tiny_models.model(kind, design=Design(projection=place))
        shapes = {name: tuple(value.shape) for name, value in model.generator.state_dict().items()}
        assert shapes["prior"] == (N, d) and shapes["block.linear1.weight"] == (64, d), place
        assert shapes["projection.weight"] == (32, d_in)
        assert evaluation_thoughts(model, prompt_batch(tiny_models, kind))[1].shape == (3, N, 32)


def states_behind(lm, ids, layers: int):
    """The LM's states behind that many layers, through its last norm."""
    with torch.no_grad():
        states = lm.model(ids, output_hidden_states=True).hidden_states
    # the library's last states are behind the norm already
    return states[layers] if layers == len(lm.model.layers) else lm.model.norm(states[layers])


@pytest.mark.parametrize("layers", [1, 2])
def test_first_layers_read_the_question(tiny_models, tiny_pair, layers):
    """--reader_layers: the states are those behind the first layers and the last norm, of the LLM for block, of the
    small LM (here the same) for the others. The LLM itself keeps all its layers."""
    llm = tiny_models.llm
    ids, mask = torch.arange(10, 22).view(2, 6), torch.ones(2, 6, dtype=torch.long)
    block = tiny_models.model("block", design=Design(reader_layers=layers))
    part = load_frozen_lm(LmSource(str(tiny_pair / "large"), "--small_model_id", num_layers=layers))
    small = LatentThoughtModel("small", llm, part, N, slot_id=0)
    for model in (block, small):
        torch.testing.assert_close(model._read(ids, mask), states_behind(llm, ids, layers), atol=1e-6, rtol=0)
    assert len(llm.model.layers) == 2 and len(part.model.layers) == layers


def test_first_layers_of_a_hooked_body_are_no_more(tiny_pair):
    """Where accelerate has hooked the LLM's whole body (a device map with `model` as a key), its first layers are still
    not all of them."""
    llm = load_frozen_lm(LmSource(str(tiny_pair / "large"), "--large_model_id"))
    ids = torch.arange(10, 16)[None]
    expected = states_behind(llm, ids, 1)
    add_hook_to_module(llm.model, AlignDevicesHook("cpu"))
    with torch.no_grad():
        assert torch.equal(first_layers(llm, 1)(ids).last_hidden_state, expected)


@pytest.mark.parametrize("design", [Design(reader_layers=1), Design(block_positions=True)])
def test_block_reads_order_with_layers_or_positions(tiny_models, design):
    """block reads a question as a bag of embeddings. Behind layers of the LLM, or with positions, the order of words
    counts; padding and other rows still do not."""
    batch = prompt_batch(tiny_models, "block")
    turned = dict(batch, question_ids=batch["question_ids"].flip(1), question_mask=batch["question_mask"].flip(1))
    bag, reader = tiny_models.model("block"), tiny_models.model("block", design=design)
    first, second = (evaluation_thoughts(bag, rows)[1] for rows in (batch, turned))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    first, second = (evaluation_thoughts(reader, rows)[1] for rows in (batch, turned))
    assert ((first - second).abs().amax((1, 2)) > 1e-3).all()
    for i, example in enumerate(EXAMPLES):
        alone = evaluation_thoughts(reader, prompt_batch(tiny_models, "block", [example]))[1]
        torch.testing.assert_close(alone[0], first[i], atol=1e-5, rtol=0)


def test_prior_is_added_to_what_layers_read(tiny_models):
    """Where the LLM's layers have read the slots, block adds its prior to their states."""
    model = tiny_models.model("block", design=Design(reader_layers=1))
    x, mask = torch.randn(1, N + 2, 32), torch.ones(1, N + 2)
    columns, generator = torch.arange(2, N + 2)[None], model.generator
    with torch.no_grad():
        added = torch.cat([x[:, :2], x[:, 2:] + generator.prior], dim=1)
        expected = generator.projection(generator.block(added, mask, columns))
        torch.testing.assert_close(generator(x, mask, columns, None, True), expected)


STANDARDIZED = Design(num_chains=3, standardize_states=True)


@pytest.mark.parametrize(
    ("kind", "design"),
    [
        (kind, design)
        for kind in ("small_block", "block", "small", "prompt")
        for design in (Design(), Design(num_chains=3), Design(distinct_slot_ids=True))
    ]
    + [("small_block", STANDARDIZED), ("small", STANDARDIZED)],
)
def test_make_only_keeps_first_slots(tiny_models, kind, design):
    """A model that makes only n thoughts has the first n slots of N, in every chain: their prior and their token ids.
    They are not the first n of N thoughts where the block reads all slots."""
    model, batch = tiny_models.model(kind, design=design), prompt_batch(tiny_models, kind)
    question, chains = (batch["question_ids"], batch["question_mask"]), design.num_chains
    if design.standardize_states:
        model.fit_states([batch])
    with torch.no_grad():
        _, whole = model.eval().chain_thoughts(*question)
        prior = model.generator.prior.view(chains, N, -1).clone() if model.generator.has_prior else None
        model.make_only(2)
        _, few = model.chain_thoughts(*question)
        other = tiny_models.model(kind, num_thoughts=2, design=design)
        other.load_state_dict(model.state_dict())
        other.slot_ids = model.slot_ids
        assert few.shape == (3, chains, 2, 32) and torch.equal(few, other.eval().chain_thoughts(*question)[1])
    assert prior is None or torch.equal(model.generator.prior.view(chains, 2, -1), prior[:, :2])
    same = (few - whole[:, :, :2]).abs().max() < 1e-5
    assert same == (kind in ("small", "prompt"))


# ---------------------------------------------------------------------------------------------------------------------
# The constant prompt, and chains


def test_prompt_is_same_for_every_question(tiny_models):
    """The constant prompt is the same for every question and is trained by the SFT loss alone."""
    model = tiny_models.model("prompt").train()
    table = tiny_models.llm.get_input_embeddings().weight
    assert torch.equal(model.generator.prior, table[-N:]) and model.losses == ("sft",)
    thoughts = evaluation_thoughts(model, prompt_batch(tiny_models, "prompt"))[1]
    assert torch.equal(thoughts, model.generator.prior.expand(3, -1, -1))
    sums = model.train()(**training_batch(tiny_models, "prompt"))
    assert sums.keys() == {"sft"}
    sums["sft"].backward()
    assert (model.generator.prior.grad.abs().sum(-1) > 0).all()


CHAINS = Design(num_chains=3)


@pytest.mark.parametrize("kind", ["small_block", "block", "small", "prompt"])
def test_each_chain_has_own_thoughts(tiny_models, kind):
    """Each chain has thoughts of its own, the same alone as among all. Where no chain is named it is the first."""
    model = tiny_models.model(kind, design=CHAINS)
    batch = prompt_batch(tiny_models, kind)
    question = (batch["question_ids"], batch["question_mask"])
    with torch.no_grad():
        _, all_chains = model.eval().chain_thoughts(*question)
        assert all_chains.shape == (3, 3, N, 32)
        for chain in range(3):
            _, alone = model.thoughts(*question, torch.full((3,), chain))
            torch.testing.assert_close(all_chains[:, chain], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(all_chains[:, 0], model.thoughts(*question)[1], atol=1e-5, rtol=0)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (all_chains[:, one] - all_chains[:, other]).abs().max() > 1e-3


def test_training_draws_chains_per_row(tiny_models, monkeypatch):
    """Training draws a chain for each row, and the dev loss is the mean over all chains."""
    weights = {"sft": 1.0, "align": 0.0, "focus": 0.0, "diversity": 0.0}
    model, batch = tiny_models.model("block", design=CHAINS, weights=weights), training_batch(tiny_models, "block")
    with torch.no_grad():
        alone = [model.train()._losses(batch, torch.full((3,), chain))["sft"] for chain in range(3)]
        drawn = set()
        for _ in range(20):
            sums = model(**batch)
            assert sums.keys() == {"sft"}
            drawn.add(round(sums["sft"].item(), 5))
        assert len(drawn) > 3 and not torch.allclose(alone[0], alone[1])
        torch.testing.assert_close(model.eval()(**batch)["sft"], sum(alone) / 3)


def test_diversity_gradient_separates_the_chains(tiny_models):
    """A step down the gradient of the diversity loss lowers it: the chains move apart."""
    weights = {"sft": 0.0, "align": 0.0, "focus": 0.0, "diversity": 1.0}
    model = tiny_models.model("small_block", design=CHAINS, weights=weights).train()
    batch = training_batch(tiny_models, "small_block", steps=False)
    before = model(**batch)["diversity"]
    before.backward()
    model.generator.prior.data -= model.generator.prior.grad
    assert model(**batch)["diversity"] < before


def test_parameters_keep_their_order(tiny_models):
    """The parameters stand in the order that optimizer states on disk have."""

    def names(kind):
        return [name.split(".")[1] for name, _ in tiny_models.model(kind).named_parameters()]

    assert list(dict.fromkeys(names("small_block"))) == ["prior", "projection", "block"]
    assert list(dict.fromkeys(names("block"))) == ["prior", "block", "projection"]


def test_too_many_thoughts_are_refused():
    """More thoughts than the embedding table has rows are refused in one line."""
    with pytest.raises(InputError) as error:
        prior_row_ids(Qwen3Config(vocab_size=3), 4)
    one_line(error, "--num_thought_tokens", "4 rows", "only 3 rows")
