"""The published way in plain words: one row at a time, no padding, no cache, the library's own losses. The recipes give
its losses and gradients, and published weights give its thoughts.

    generator input    [ question turn | a turn for each step | N slots ]     with the leak (paper-run)
                       [ question turn | N slots ], [ question turn | a turn for each step ]     without it (paper)
    LLM input          [ prompt | N thoughts | rest of the prompt | target ]

z_q stands at the end-of-turn marker of the question's turn, z_s at that of each step's turn. At the slots are N rows of
an embedding table, from a published id on.
"""

from math import log
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import D_FF, D_LARGE, D_SMALL, EXAMPLES, N, meta, pair_flags, weights
from torch import nn

from lta_thinker import LatentThoughtModel, train
from lta_thinker import model as model_module
from lta_thinker.build import build_layout, build_models
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS, TASKS, load_split
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import load_layout, load_models, make_plan
from lta_thinker.flags import parse_flags
from lta_thinker.rows.batch import PromptCollator, TrainingCollator, loss_counts
from lta_thinker.training.flags import TrainArguments
from lta_thinker.weights import ATT_FILE, PARAMS_FILE

SLOT_ID = 300  # the published first id, in vocabularies as small as the tiny pair's
RUNS = [("paper-run", "block"), ("paper", "block"), ("paper", "small_block"), ("paper", "small")]


@pytest.fixture(autouse=True)
def published_slots(monkeypatch):
    monkeypatch.setitem(model_module.PUBLISHED_SLOT_IDS, "qwen3", SLOT_ID)


# ---------------------------------------------------------------------------------------------------------------------
# The published way


class PublishedBlock(nn.Module):
    """The TransformerBlock under its published names."""

    def __init__(self):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(D_LARGE, num_heads=1, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(D_LARGE, D_FF), nn.Linear(D_FF, D_LARGE)
        self.norm1, self.norm2 = nn.RMSNorm(D_LARGE, eps=1e-6), nn.RMSNorm(D_LARGE, eps=1e-6)

    def forward(self, x):
        x = self.norm1(x + self.self_attn(x, x, x, need_weights=False)[0])
        return self.norm2(x + self.linear2(torch.relu(self.linear1(x))))


class Published:
    """The published generator over a frozen pair; prior: what is added at the slots of small_block, None for zeros."""

    def __init__(self, kind, llm, small_lm, projection, block, prior=None):
        self.kind, self.llm, self.small_lm = kind, llm, small_lm
        self.projection, self.block, self.prior = projection, block, prior

    def z(self, ids, num_slots):
        """z at every column of [ids | slots], (T, d_large)."""
        slots = list(range(SLOT_ID, SLOT_ID + num_slots))
        if self.kind == "block":
            x = self.llm.get_input_embeddings()(torch.tensor([ids]))
            at_slots = self.prior if self.prior is not None else self.llm.get_input_embeddings()(torch.tensor(slots))
            x = torch.cat([x, at_slots[None, :num_slots]], dim=1)
            return self.projection(self.block(x))[0]
        x = self.projection(self.small_lm.model(torch.tensor([ids + slots])).last_hidden_state)
        if self.kind == "small":
            return x[0]
        if num_slots and self.prior is not None:
            x = torch.cat([x[:, :-num_slots], x[:, -num_slots:] + self.prior], dim=1)
        return self.block(x)[0]

    def losses(self, row, tokenizer, example, leak):
        """(cross-entropies of the target tokens, KL, InfoNCE or None) of a row; `row` has the LLM's token ids."""
        ids, ends = turns(tokenizer, example.question, example.steps)
        z = self.z(ids, N) if leak else self.z(ids[: ends[0] + 1], N)
        z_question, thoughts = z[ends[0]], z[-N:]
        z_steps = (z if leak else self.z(ids, 0))[ends[1:]]

        embed = self.llm.get_input_embeddings()
        before, after, target, answer = (torch.tensor(row[name]) for name in ("prefix", "suffix", "target", "answer"))
        logits = self.llm(inputs_embeds=torch.cat([embed(before), thoughts, embed(after), embed(target)])[None]).logits
        sft = F.cross_entropy(logits[0, -len(target) - 1 : -1], target, reduction="none")

        p = z_question.softmax(-1)
        align = torch.stack([(p * (p.log() - thought.softmax(-1).log())).sum() for thought in thoughts]).mean()
        if not example.steps:
            return sft, align, None
        positive = torch.stack([cosine(z_step, embed(answer).mean(0)) for z_step in z_steps]).argmax()
        similar = torch.stack([cosine(z_question, z_step) for z_step in z_steps]) / 0.1
        return sft, align, similar.exp().sum().log() - similar[positive]


def cosine(a, b):
    return (a @ b) / (a.norm() * b.norm())


def turns(tokenizer, question, steps):
    """Ids of the question's turn and of a turn for each step up to the last end-of-turn marker, and the markers'
    columns."""
    messages = [{"role": "user", "content": PROMPTS["number"]["generator"].replace("{question}", question)}]
    messages += [{"role": "assistant", "content": step} for step in steps]
    ids = tokenizer.apply_chat_template(messages, enable_thinking=False, return_dict=True)["input_ids"]
    ends = [column for column, token in enumerate(ids) if token == tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert len(ends) == 1 + len(steps)
    return ids[: ends[-1] + 1], ends


# ---------------------------------------------------------------------------------------------------------------------
# The recipes


def build(tiny_pair, recipe, kind, *more):
    """(flags, model, layout) of a recipe, as train.py builds them; the generator is random, its prior too."""
    ids = ["--large_model_id", str(tiny_pair / "large"), "--small_model_id", str(tiny_pair / "small")]
    flags = [*ids, "--recipe", recipe, "--thought_generator", kind, "--num_thought_tokens", str(N), *more]
    args = parse_flags(TrainArguments, [*flags, "--output_name", "x"], "train.py")
    layout = build_layout(args.spec, args.prompts, steps_as_turns=args.steps_as_turns)
    model = build_models(args.spec, layout).thoughts.train()
    if kind == "small_block":
        nn.init.normal_(model.generator.prior)
    return args, model, layout


def rendered(model):
    """The published generator with the model's own parameters, so that gradients go to these."""
    generator = model.generator
    block = None
    if generator.has_block:
        block = PublishedBlock()
        for name, parameter in generator.block.named_parameters():
            owner, _, last = name.rpartition(".")
            setattr(block.get_submodule(owner), last, parameter)
    return Published(model.kind, *model.frozen, generator.projection, block, getattr(generator, "prior", None))


def mean_losses(model, batch):
    sums = model(**batch)
    return {name: sums[name] / count for name, count in zip(sums, loss_counts(batch), strict=False)}


def gradients(model, losses):
    total = sum(0.33 * loss for loss in losses.values())
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(total, parameters), strict=True))


@pytest.mark.parametrize(("recipe", "kind"), RUNS)
def test_recipes_give_published_losses_and_gradients(tiny_pair, recipe, kind):
    """The recipes give the published losses and gradients, rows with and without steps in one batch."""
    args, model, layout = build(tiny_pair, recipe, kind)
    rows = [layout.training(example) for example in EXAMPLES]
    batch = TrainingCollator(layout, steps=True)(rows)
    ours = mean_losses(model, batch)

    plain = rendered(model)
    each = [
        plain.losses(row, layout.generator_tokenizer, example, leak=recipe == "paper-run")
        for row, example in zip(rows, EXAMPLES, strict=True)
    ]
    sft, align, focus = zip(*each, strict=True)
    focus = [loss for loss in focus if loss is not None]
    expected = {"sft": torch.cat(sft).mean(), "align": torch.stack(align).mean(), "focus": torch.stack(focus).mean()}
    assert model.weights == {"sft": 0.33, "align": 0.33, "focus": 0.33, "diversity": 0.0}
    assert args.freeze_prior == args.thoughts_see_steps == (recipe == "paper-run")
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradients(model, ours), gradients(model, expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["small_block", "small"])
def test_kept_states_give_same_published_losses(tiny_pair, kind):
    """With kept states of the small LM the losses of --recipe paper are the same."""
    _, model, layout = build(tiny_pair, "paper", kind)
    batch = TrainingCollator(layout, steps=True)([layout.training(example) for example in EXAMPLES])
    expected = model(**batch)
    batch["thought_states"], batch["step_states"] = model.states(batch)
    model.frozen = (model.llm, None)  # it is not asked
    torch.testing.assert_close(model(**batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recipe", ["paper", "paper-run"])
def test_published_focus_of_block_is_constant(tiny_pair, recipe):
    """With `block` and the published positions all steps have one vector: the focus loss is log M of each row, and it
    teaches nothing."""
    _, model, layout = build(tiny_pair, recipe, "block")
    batch = TrainingCollator(layout, steps=True)([layout.training(example) for example in EXAMPLES])
    z_question, _, z_steps = model._thoughts_and_steps(batch)
    cosines = F.cosine_similarity(z_question[:, None], z_steps, dim=-1)[batch["step_valid"]]
    if recipe == "paper-run":  # the question's turn ends with the same token, among the same tokens
        torch.testing.assert_close(cosines, torch.ones_like(cosines), atol=1e-5, rtol=0)
    focus = mean_losses(model, batch)["focus"]
    counts = [len(example.steps) for example in EXAMPLES if example.steps]
    assert counts == [2, 1] and focus.item() == pytest.approx(sum(map(log, counts)) / len(counts), abs=1e-5)
    found = torch.autograd.grad(focus, list(model.parameters()), allow_unused=True)
    assert torch.cat([gradient.flatten() for gradient in found if gradient is not None]).norm() < 1e-5


def test_runs_warn_of_published_faults(flags, tiny_pair, capsys):
    """A run of paper-run names each published fault in one line, keeps the prior, and stores the slots' ids where a
    small LM reads them. A plain run warns of nothing."""
    short = ["--max_steps", "1", "--num_thought_tokens", str(N)]
    faults = {"--thoughts_see_steps", "--freeze_prior", "--steps_as_turns"}
    for kind, named in (
        ("block", faults),
        ("small_block", faults - {"--steps_as_turns"}),
        ("small", {"--thoughts_see_steps"}),
    ):
        train.run([*flags, "--output_name", kind, "--recipe", "paper-run", "--thought_generator", kind, *short])
        warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: --")]
        assert {line.split(": ")[1] for line in warnings} == named and len(warnings) == len(named), kind
        assert meta(kind)["design"]["distinct_slot_ids"] == (kind != "block")
    dev = load_split(TASKS["gsm8k"], "dev", flags[flags.index("--data_dir") + 1]).examples
    constant = sum(log(len(example.steps)) for example in dev) / len(dev)
    assert meta("block")["dev"]["eval_focus_loss"] == pytest.approx(constant, abs=1e-5), "dev has other positions"
    _, model, _ = build(tiny_pair, "paper-run", "block")
    assert torch.equal(weights("block")["0.prior"], model.generator.prior)
    assert not weights("small_block")["0.prior"].any()
    train.run([*flags, "--output_name", "plain", *short])
    assert "warning: " not in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["paper", "paper-run"])
def test_recipes_work_for_every_generator(recipe):
    """A recipe leaves out what a generator has no use for; what is given besides wins."""

    def parsed(*more):
        return parse_flags(TrainArguments, ["--recipe", recipe, "--output_name", "x", *more], "train.py")

    for kind in ("small_block", "block", "small", "prompt"):
        args, reads = parsed("--thought_generator", kind), kind != "prompt"
        assert args.distinct_slot_ids == args.design.distinct_slot_ids == kind.startswith("small")
        assert args.steps_as_turns == reads and args.thoughts_see_steps == (reads and recipe == "paper-run")
        assert args.freeze_prior == (reads and recipe == "paper-run")
        assert not parsed("--thought_generator", kind, "--steps_as_turns", "False").steps_as_turns
    assert not parsed("--use_assistant_model", "--distinct_slot_ids", "False").distinct_slot_ids
    assert parsed("--use_assistant_model").distinct_slot_ids and parsed().thought_generator == "block"
    evaluation = parse_flags(EvaluationArguments, ["--recipe", "paper", "--checkpoint", "x"], "evaluate.py")
    assert evaluation.make_only_n and evaluation.num_thought_tokens == 2
    none = ["--recipe", "paper", "--thought_generator", "none"]
    assert not parse_flags(EvaluationArguments, none, "evaluate.py").make_only_n


# ---------------------------------------------------------------------------------------------------------------------
# Published weights


def evaluated_thoughts(flags):
    """(n thoughts of each of EXAMPLES that go into the prompt, the layout), as evaluate.py makes them."""
    plan = make_plan(parse_flags(EvaluationArguments, [str(flag) for flag in flags], "evaluate.py"))
    models = load_models(plan, load_layout(plan))
    batch = PromptCollator(models.layout)([models.layout.prompt(example.question) for example in EXAMPLES])
    with torch.no_grad():
        _, thoughts = models.thoughts.thoughts(batch["question_ids"], batch["question_mask"])
    return thoughts[:, : plan.num_injected], models


def plain_thoughts(published, tokenizer, made, injected):
    with torch.no_grad():
        rows = [published.z(turns(tokenizer, example.question, ())[0], made)[-made:] for example in EXAMPLES]
    return torch.stack(rows)[:, :injected]


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("kind", ["block", "small_block", "small"])
def test_published_weights_give_published_thoughts(tiny_models, tiny_pair, tmp_path, kind):
    """Weights of the published module give its thoughts: n slots with --make_only_n, else the first n of 32. Where a
    small LM reads the slots, one token at all of them gives other thoughts."""
    torch.manual_seed(0)
    projection, block = nn.Linear(D_LARGE if kind == "block" else D_SMALL, D_LARGE), PublishedBlock()
    torch.save(projection.state_dict(), tmp_path / PARAMS_FILE)
    flags = [*pair_flags(tiny_pair), "--params_file_name", tmp_path / PARAMS_FILE, "--num_thought_tokens", 3]
    if kind != "small":
        torch.save(block.state_dict(), tmp_path / ATT_FILE)
        flags += ["--att_file_name", tmp_path / ATT_FILE]
    own = flags if kind == "block" else [*flags, "--distinct_slot_ids"]
    published = Published(kind, tiny_models.llm, tiny_models.small_lm, projection, block)
    for made, more in ((32, []), (3, ["--make_only_n"])):
        thoughts, models = evaluated_thoughts([*own, *more])
        expected = plain_thoughts(published, models.layout.generator_tokenizer, made, 3)
        torch.testing.assert_close(thoughts, expected, atol=1e-5, rtol=0)
    if kind != "block":
        assert distance(evaluated_thoughts([*flags, *more])[0], expected) > 0.1


def test_stored_slot_ids_reach_every_door(flags, tiny_models, capsys):
    """--distinct_slot_ids is stored with the weights: evaluation, with --make_only_n too, and Python make the thoughts
    of training, and a flag that contradicts it is refused."""
    small = ["--thought_generator", "small", "--focus_loss_weight", "0", "--align_loss_weight", "0"]
    train.run([*flags, "--output_name", "run", "--max_steps", "1", *small, "--distinct_slot_ids"])
    (folder,) = Path("ckpt").iterdir()
    projection = nn.Linear(D_SMALL, D_LARGE)
    projection.load_state_dict(torch.load(folder / PARAMS_FILE, weights_only=True))
    published = Published("small", tiny_models.llm, tiny_models.small_lm, projection, None)
    checkpoint = ["--checkpoint", folder, "--num_thought_tokens", 2]
    for made, more in ((N, []), (N, ["--distinct_slot_ids"]), (2, ["--make_only_n"]), (N, ["--backend", "vllm"])):
        expected = plain_thoughts(published, tiny_models.small_tokenizer, made, 2)
        torch.testing.assert_close(evaluated_thoughts([*checkpoint, *more])[0], expected, atol=1e-5, rtol=0)
    loaded = LatentThoughtModel.from_pretrained(folder).models.thoughts
    assert loaded.design.distinct_slot_ids and loaded.slot_ids == [SLOT_ID]
    with pytest.raises(InputError, match="--distinct_slot_ids False: the checkpoint's thoughts.json says True"):
        evaluated_thoughts([*checkpoint, "--distinct_slot_ids", "False"])
