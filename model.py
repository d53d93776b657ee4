"""The thought generator (what is trained) in front of the frozen LLM.

    question turn -> small LM or the LLM's embeddings -> generator -> N thoughts -> the LLM's prompt -> losses

Names follow the paper (arXiv 2509.12875): thought, slot, prior, projection, TransformerBlock. Shapes: B rows,
T columns, K columns asked for, N thoughts, C chains of thoughts, d_small and d_large hidden sizes.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lta_thinker.common import InputError
from lta_thinker.llm.forward import (
    KeysAndValues,
    attention_mask,
    body,
    first_layers,
    position_ids,
    read_behind,
    read_prefix,
)
from lta_thinker.losses import (
    LOSSES,
    Objective,
    chain_diversity,
    reasoning_focus,
    semantic_alignment,
    target_cross_entropy,
)
from lta_thinker.rows.layout import Layout

PUBLISHED_SLOT_IDS = {"qwen2": 150001, "qwen3": 150001, "llama": 128011}  # first row of the published frozen slots

# ---------------------------------------------------------------------------------------------------------------------
# Thought generators


@dataclass(frozen=True)
class Design:
    """What can be chosen about a generator beyond its kind; the defaults are the published design, but for the slots.

    num_chains: C sets of N thoughts a question (SoftCoT++, arXiv 2505.11484); num_blocks: TransformerBlocks in a row;
    projection: "before" or "after" them (None: before in small_block, after in block); match_scale: every z gets the
    mean norm of the LLM's embedding table; distinct_slot_ids: the small LM reads N distinct tokens at the slots
    (published), not one token at all of them; reader_layers: the question is read through that many first layers and
    the last norm of the small LM (None: all), in block of the LLM (None: 0, its embeddings); block_positions: sinusoids
    are added to what the block reads, each as long as the vector that it is added to; standardize_states: what all
    questions have in common is taken from the small LM's states (StandardizedStates).
    """

    num_chains: int = 1
    num_blocks: int = 1
    projection: str | None = None
    match_scale: bool = False
    distinct_slot_ids: bool = False
    reader_layers: int | None = None
    block_positions: bool = False
    standardize_states: bool = False


PUBLISHED_DESIGN = Design()


@dataclass(frozen=True)
class Sizes:
    """What a generator's shapes follow from; `d_small` is None for a generator without a small LM."""

    num_thoughts: int
    d_small: int | None
    d_large: int
    d_ff: int
    norm_eps: float


def generator_sizes(llm_config, small_config, num_thoughts: int) -> Sizes:
    """Sizes from the LMs' configs (d_ff and the norm's eps are the LLM's)."""
    llm = llm_config.get_text_config()
    d_small = None if small_config is None else small_config.get_text_config().hidden_size
    return Sizes(num_thoughts, d_small, llm.hidden_size, llm.intermediate_size, llm.to_dict().get("rms_norm_eps", 1e-6))


class TransformerBlock(nn.Module):
    """One post-norm encoder layer with a single head, not causal, under the published parameter names; with
    `num_blocks` above 1 the others stand before it, in `before`."""

    def __init__(self, d: int, d_ff: int, norm_eps: float, num_blocks: int = 1):
        super().__init__()
        self.before = TransformerBlock(d, d_ff, norm_eps, num_blocks - 1) if num_blocks > 1 else None
        self.self_attn = nn.MultiheadAttention(d, num_heads=1, batch_first=True)
        self.linear1 = nn.Linear(d, d_ff)
        self.linear2 = nn.Linear(d_ff, d)
        self.norm1 = nn.RMSNorm(d, eps=norm_eps)
        self.norm2 = nn.RMSNorm(d, eps=norm_eps)

    def forward(self, x: Tensor, mask: Tensor, columns: Tensor) -> Tensor:
        """x (B, T, d), mask (B, T), columns (B, K) -> outputs at those columns alone, (B, K, d)."""
        if self.before is not None:
            x = self.before(x, mask, torch.arange(x.shape[1], device=x.device).expand(len(x), -1))
        asked = take_columns(x, columns)
        attended, _ = self.self_attn(asked, x, x, key_padding_mask=mask == 0, need_weights=False)
        y = self.norm1(asked + attended)
        return self.norm2(y + self.linear2(F.relu(self.linear1(y))))


def take_columns(x: Tensor, columns: Tensor) -> Tensor:
    """(B, T, d), (B, K) -> (B, K, d)."""
    return x.gather(1, columns[..., None].expand(-1, -1, x.shape[-1]))


def sinusoids(positions: Tensor, d: int) -> Tensor:
    """Positions (B, T) int64 -> (B, T, d) float32 of length 1: sines and cosines of d / 2 wave lengths from 2 pi to
    10,000 times that (arXiv 1706.03762, section 3.5)."""
    waves = 10_000.0 ** (-torch.arange(0, d, 2, device=positions.device) / d)
    angles = positions[..., None] * waves
    return F.normalize(torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :d], dim=-1)


class StandardizedStates(nn.Module):
    """Takes from the small LM's states what all questions have in common, feature by feature: tokens less their mean,
    over their deviation; each of the C x N slots less its own mean, over the slots' deviation from these.

    The figures are those of training rows (`fit`) and are not trained. A feature that never differs becomes 0.
    """

    mean: Tensor
    scale: Tensor
    slot_mean: Tensor
    slot_scale: Tensor

    def __init__(self, d: int, num_slots: int):
        super().__init__()
        for name, shape in (("mean", (d,)), ("scale", (d,)), ("slot_mean", (num_slots, d)), ("slot_scale", (d,))):
            self.register_buffer(name, torch.zeros(shape))

    def fit(self, tokens: Tensor, slots: Tensor) -> None:
        """tokens (T, d) and slots (R, C x N, d): states of training rows, of any dtype."""
        for name, values in (("", tokens.double()), ("slot_", slots.double())):
            mean = values.mean(0)
            deviation = (values - mean).square().flatten(0, -2).mean(0).sqrt()
            differs = deviation > 1e-6 * (1 + mean.abs().view(-1, len(deviation)).amax(0))  # but for rounding
            getattr(self, f"{name}mean").copy_(mean)
            getattr(self, f"{name}scale").copy_(torch.where(differs, 1 / deviation, 0.0))

    def forward(self, states: Tensor, chains: Tensor | None, num_slots: int) -> Tensor:
        """states (B, T, d), of which the last num_slots columns are the slots of the rows' chains (B,), None: of chain
        0 -> float32 of the same shape."""
        tokens, slots = states.float().split([states.shape[1] - num_slots, num_slots], dim=1)
        tokens = (tokens - self.mean) * self.scale
        if num_slots == 0:
            return tokens
        means = self.slot_mean.view(-1, num_slots, self.slot_mean.shape[1])
        slots = (slots - (means[:1] if chains is None else means[chains])) * self.slot_scale
        return torch.cat([tokens, slots], dim=1)


class ThoughtGenerator(nn.Module):
    """What there is to know of each kind, and what most kinds have in common.

    has_z: it makes z at the question and at the steps, which L_align and L_focus compare. thinks_in_llm: the LLM makes
    the thoughts itself, behind its own prompt; num_marks: vectors that stand beside them, its parameter `marks`.
    """

    reads_question, uses_small_lm, has_projection, has_block, has_prior = True, False, False, False, False
    has_z, thinks_in_llm, num_marks = True, False, 0


class Small(ThoughtGenerator):
    """SoftCoT (arXiv 2502.12134): the small LM's last hidden states -> projection."""

    uses_small_lm, has_projection = True, True

    def __init__(self, sizes: Sizes, design: Design):
        super().__init__()
        assert sizes.d_small is not None
        self.num_thoughts = sizes.num_thoughts
        self.states = standardized(sizes, design)
        self.projection = nn.Linear(sizes.d_small, sizes.d_large)

    def forward(self, states: Tensor, mask: Tensor, columns: Tensor, chains: Tensor | None, slots: bool) -> Tensor:
        """states (B, T, d_in) of the frozen reader, mask (B, T), columns (B, K) -> z (B, K, d_large).

        With `slots` the last N columns are the thought slots, of the chains (B,) int64 (None: all of chain 0).
        """
        if self.states is not None:
            states = self.states(states, chains, self.num_thoughts if slots else 0)
        return self.projection(take_columns(states, columns))


def standardized(sizes: Sizes, design: Design) -> StandardizedStates | None:
    """A generator's part of that name, where the design has it."""
    if not design.standardize_states:
        return None
    assert sizes.d_small is not None
    return StandardizedStates(sizes.d_small, design.num_chains * sizes.num_thoughts)


class _WithPrior(ThoughtGenerator):
    """A learnable prior of C x N rows, chain by chain; with C = 1 it is (N, d) as in the files."""

    has_prior = True

    def __init__(self, sizes: Sizes, design: Design, d: int):
        super().__init__()
        self.num_thoughts = sizes.num_thoughts
        self.prior = nn.Parameter(torch.zeros(design.num_chains * sizes.num_thoughts, d))

    def prior_of(self, chains: Tensor | None, rows: int) -> Tensor:
        """(B, N, d) of the rows' chains (B,) int64; None: all of chain 0."""
        if chains is None:
            return self.prior[: self.num_thoughts].expand(rows, -1, -1)
        return self.prior.view(-1, self.num_thoughts, self.prior.shape[1])[chains]


class Block(_WithPrior):
    """The paper's learnable prior: the LLM's embeddings, prior at the slots -> TransformerBlock -> projection."""

    has_projection, has_block = True, True
    projection_place = "after"

    def __init__(self, sizes: Sizes, design: Design):
        d_in = sizes.d_small if self.uses_small_lm else sizes.d_large
        assert d_in is not None
        self.projection_first = (design.projection or self.projection_place) == "before"
        self.has_positions, self.adds_prior = design.block_positions, bool(design.reader_layers)
        super().__init__(sizes, design, sizes.d_large if self.projection_first else d_in)
        self.states = standardized(sizes, design)
        # registered in the order of their work: the optimizer state of a resumed run goes by this order
        if self.projection_first:
            self.projection = nn.Linear(d_in, sizes.d_large)
        self.block = TransformerBlock(self.prior.shape[1], sizes.d_ff, sizes.norm_eps, design.num_blocks)
        if not self.projection_first:
            self.projection = nn.Linear(d_in, sizes.d_large)

    def forward(self, states: Tensor, mask: Tensor, columns: Tensor, chains: Tensor | None, slots: bool) -> Tensor:
        """As Small.forward."""
        if self.states is not None:
            states = self.states(states, chains, self.num_thoughts if slots else 0)
        # in bf16 too the block works in float32 between its products
        x = (self.projection(states) if self.projection_first else states).float()
        if slots:
            at_slots = self.at_slots(x[:, -self.num_thoughts :], self.prior_of(chains, len(x)))
            x = torch.cat([x[:, : -self.num_thoughts], at_slots], dim=1)
        if self.has_positions:
            x = x + x.norm(dim=-1, keepdim=True) * sinusoids(position_ids(mask), x.shape[-1])
        x = self.block(x, mask, columns)
        return x if self.projection_first else self.projection(x)

    def at_slots(self, x: Tensor, prior: Tensor) -> Tensor:
        """What the block reads at the slots, (B, N, d) each: the prior; where the LLM's layers have read the slots, it
        is added to their states x."""
        return x + prior if self.adds_prior else prior


class SmallBlock(Block):
    """The full system: small LM's states -> projection -> + learnable prior at the slots -> TransformerBlock."""

    uses_small_lm, projection_place = True, "before"

    def at_slots(self, x: Tensor, prior: Tensor) -> Tensor:
        """As Block.at_slots."""
        return x + prior


class Prompt(_WithPrior):
    """Prompt tuning (arXiv 2104.08691), the control: the prior itself, the same N vectors for every question."""

    reads_question, has_z = False, False

    def __init__(self, sizes: Sizes, design: Design):
        super().__init__(sizes, design, sizes.d_large)

    def forward(self, states: Tensor, mask: Tensor, columns: Tensor, chains: Tensor | None, slots: bool) -> Tensor:
        """As Small.forward; zeros beside the slots."""
        z = self.prior.new_zeros(*columns.shape, self.prior.shape[1])
        if not slots:
            return z
        return torch.cat([z[:, : -self.num_thoughts], self.prior_of(chains, len(z))], dim=1)


class Coconut(ThoughtGenerator):
    """Coconut (arXiv 2412.06769, section 3): the LLM's own last hidden states, fed in as its next inputs.

        t_1 = h(prompt, begin)        t_i = h(prompt, begin, t_1, ..., t_(i-1)),  i = 2 .. N

    h: the hidden state of the last column behind the final norm, as the LLM's head reads it. `marks` (2, d_large) are
    learnt: begin and end of thought. Nothing else is here: what learns to think is the LLM itself, which is tuned.
    """

    has_z, thinks_in_llm, num_marks = False, True, 2

    def __init__(self, sizes: Sizes, design: Design):
        super().__init__()
        self.num_thoughts = sizes.num_thoughts
        self.marks = nn.Parameter(torch.zeros(2, sizes.d_large))

    def forward(self, llm, ids: Tensor, mask: Tensor, count: int) -> tuple[Tensor, KeysAndValues]:
        """The LLM's prompts up to the thoughts, ids and mask (B, P), left-padded -> the first `count` thoughts,
        (B, count, d_large) in the LLM's dtype, and the LLM's keys and values at the P + count columns before the last
        of them. A pass over the prompt makes the first thought, one of one column behind it each other, with gradients
        through all of them."""
        columns = llm.get_input_embeddings()(ids)
        columns = torch.cat([columns, self.marks[0].to(columns.dtype).expand(len(ids), 1, -1)], dim=1)
        thoughts, before = [], ()
        for _ in range(count):
            mask = F.pad(mask, (0, 1), value=1)  # of the begin mark, then of the thought before
            states, before = read_behind(llm, columns, mask, before)
            columns = states[:, -1:].to(ids.device)  # of an LLM on several GPUs it is on the last
            thoughts.append(columns)
        return torch.cat(thoughts, dim=1), before


class Nothing(ThoughtGenerator):
    """No generator: no thoughts, where the large LLM is tuned alone (the same-data baseline)."""

    reads_question, has_z = False, False

    def __init__(self, sizes: Sizes, design: Design):
        super().__init__()

    def forward(self, states: Tensor, mask: Tensor, columns: Tensor, chains: Tensor | None, slots: bool) -> Tensor:
        """As Small.forward; zeros, and there are no slots (N = 0)."""
        return states.new_zeros(*columns.shape, states.shape[2])


GENERATORS = {"small_block": SmallBlock, "block": Block, "small": Small, "prompt": Prompt, "coconut": Coconut}
KINDS: dict[str, Any] = GENERATORS | {"none": Nothing}  # of a LatentThoughtModel


def prior_row_ids(lm_config, count: int) -> range:
    """`count` distinct rows of an embedding table for slots: those of the published slots where the vocabulary has
    them, else the last rows.

    The priors of `block` and `prompt` start as C x N rows of the LLM's table, the marks of `coconut` as two. At the
    slots of the chains after the first the small LM reads such tokens. Raises InputError when the vocabulary has fewer
    rows.
    """
    config = lm_config.get_text_config()
    start = PUBLISHED_SLOT_IDS.get(config.model_type)
    if start is None or start + count > config.vocab_size:
        start = config.vocab_size - count
    if start < 0:
        flags = "--num_thought_tokens, --num_thought_chains"
        raise InputError(f"{flags}: {count} rows are needed, the vocabulary has only {config.vocab_size} rows")
    return range(start, start + count)


def table_norm(embed: nn.Embedding) -> float:
    """Mean norm of an embedding table's rows as the LM reads them, from up to 4,096 rows evenly spaced."""
    rows = embed.num_embeddings
    ids = torch.arange(0, rows, max(1, rows // 4096), device=embed.weight.device)
    return embed(ids).float().norm(dim=-1).mean().item()


def llm_inputs(
    llm, batch: dict[str, Tensor], thoughts: Tensor | None, marks: Tensor | None = None
) -> dict[str, Tensor]:
    """[prefix | thoughts | suffix] -> {inputs_embeds (B, T, d_large) in the LLM's dtype, attention_mask (B, T)}.

    marks (2, d_large): stand before and behind the thoughts. A batch with `thought_mask` (B, n) has rows with fewer."""
    embed = llm.get_input_embeddings()
    parts = [embed(batch["prefix_ids"]), embed(batch["suffix_ids"])]
    masks = [batch["prefix_mask"], batch["suffix_mask"]]
    if thoughts is not None:
        mask = batch.get("thought_mask", masks[0].new_ones(thoughts.shape[:2]))
        if marks is not None:
            begin, end = (mark.to(thoughts.dtype).expand(len(thoughts), 1, -1) for mark in marks)
            thoughts, mask = torch.cat([begin, thoughts, end], dim=1), F.pad(mask, (1, 1), value=1)
        parts.insert(1, thoughts.to(parts[0].dtype))
        masks.insert(1, mask)
    return {"inputs_embeds": torch.cat(parts, dim=1), "attention_mask": torch.cat(masks, dim=1)}


def with_steps(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(ids, mask), both (B, Q + T): the question turns of a batch of TrainingCollator, and the steps behind them."""
    ids = torch.cat([batch["question_ids"], batch["step_ids"]], dim=1)
    return ids, torch.cat([batch["question_mask"], batch["step_mask"]], dim=1)


def most_thoughts(batch: dict[str, Tensor]) -> int | None:
    """Of the rows of a batch in stages; None: all N."""
    return batch["thought_mask"].shape[1] if "thought_mask" in batch else None


# ---------------------------------------------------------------------------------------------------------------------
# The whole: thoughts into the frozen LLM


class LatentThoughtModel(nn.Module):
    """A trainable generator before a frozen LLM.

    The frozen LMs are held unregistered: they are no part of `parameters()`, of `state_dict()`, of DDP or of `train()`.
    `adapters` holds what is trained in them where they are tuned, by role (llm/lora.py): "base_model" is the large LLM,
    "assistant_model" the small LM.

    llm, small_lm: of load_frozen_lm (small_lm None where the generator uses none); num_thoughts: N; slot_id: the token
    that the small LM reads at every slot (of the first chain), unless the design has distinct ones; thoughts_see_steps:
    the published order in training. With the kind `none` N is 0, and the prompt is prefix alone.
    """

    def __init__(
        self,
        kind: str,
        llm,
        small_lm,
        num_thoughts: int,
        slot_id: int,
        objective: Objective | None = None,
        design: Design = PUBLISHED_DESIGN,
        thoughts_see_steps: bool = False,
    ):
        super().__init__()
        self.kind, self.design, self.objective = kind, design, objective or Objective()
        small_config = None if small_lm is None else small_lm.config
        self.sizes = generator_sizes(llm.config, small_config, num_thoughts)
        self.generator = KINDS[kind](self.sizes, design)
        self.adapters = nn.ModuleDict()
        embed, chains = llm.get_input_embeddings(), design.num_chains
        begun = {"block": "prior", "prompt": "prior", "coconut": "marks"}.get(kind)
        if begun:
            start = getattr(self.generator, begun)
            rows = torch.tensor(prior_row_ids(llm.config, len(start)), device=embed.weight.device)
            start.data.copy_(embed(rows))  # as the LLM reads them: Gemma 3 scales what it looks up
        self.frozen = (llm, small_lm)  # a tuple: nn.Module registers no modules in one
        self.num_thoughts = num_thoughts
        self.slot_ids = [slot_id] * chains  # at the first slot of each chain
        if small_lm is not None and chains > 1:
            others = [row for row in prior_row_ids(small_lm.config, chains) if row != slot_id]
            self.slot_ids[1:] = others[: chains - 1]
        if small_lm is not None and design.distinct_slot_ids:
            self.slot_ids = [prior_row_ids(small_lm.config, num_thoughts).start]
        self.scale = table_norm(embed) if design.match_scale else None
        self.thoughts_see_steps = thoughts_see_steps

    @property
    def llm(self):
        """The frozen large LLM."""
        return self.frozen[0]

    @property
    def small_lm(self) -> Any:
        """The frozen small LM, None where the generator uses none."""
        return self.frozen[1]

    @property
    def weights(self) -> dict[str, float]:
        """The losses' weights."""
        return self.objective.weights

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses that this generator has: align and focus need its z, and diversity needs two chains."""
        missing = set() if self.generator.has_z else {"align", "focus"}
        if self.design.num_chains == 1:
            missing.add("diversity")
        return tuple(name for name in LOSSES if name not in missing)

    def inputs(self, batch: dict[str, Tensor], thoughts: Tensor) -> dict[str, Tensor]:
        """llm_inputs of a batch with thoughts of this model."""
        return llm_inputs(self.llm, batch, thoughts, self.generator.marks if self.generator.num_marks else None)

    def make_only(self, count: int) -> None:
        """From now on make `count` thoughts: at the first `count` slots, as if there were no others."""
        if self.generator.has_prior:
            rows = self.generator.prior.data.view(-1, self.num_thoughts, self.generator.prior.shape[1])[:, :count]
            self.generator.prior.data = rows.flatten(0, 1).clone()
        if self.design.standardize_states:
            states = self.generator.states
            means = states.slot_mean.view(-1, self.num_thoughts, states.slot_mean.shape[1])[:, :count]
            states.slot_mean = means.flatten(0, 1).clone()
        if self.kind != "none":
            self.generator.num_thoughts = count
        self.num_thoughts = count

    @torch.no_grad()
    def fit_states(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Standardize the small LM's states by those of the rows in `batches` (of TrainingCollator, on its device)."""
        tokens, slots = [], []
        for batch in batches:
            ids, mask = batch["question_ids"], batch["question_mask"]
            of_chains = [torch.full_like(ids[:, 0], chain) for chain in range(self.design.num_chains)]
            states = [self._read(*self._with_slots(ids, mask, chains)) for chains in of_chains]
            slots.append(torch.cat([of_chain[:, ids.shape[1] :] for of_chain in states], dim=1))
            tokens.append(states[0][:, : ids.shape[1]][mask.bool()])
        self.generator.states.fit(torch.cat(tokens), torch.cat(slots))

    def recompute_layers(self) -> None:
        """Recompute the frozen LLM's layers in the backward pass (the library's own switch needs train mode)."""
        base = body(self.llm)
        if not isinstance(getattr(base, "layers", None), nn.ModuleList):
            raise InputError(f"--gradient_checkpointing: {type(base).__name__} has no `layers` to recompute")
        for layer in base.layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States of the generator's input (B, T): the small LM's last hidden states, (B, T, d_small), with gradients if
        it is tuned; without a small LM the LLM's embeddings, or its states behind its first layers, (B, T, d_large)."""
        lm, role = (self.small_lm, "assistant_model") if self.small_lm is not None else (self.llm, "base_model")
        layers = self.design.reader_layers or 0  # the small LM was loaded with no more than these
        with torch.set_grad_enabled(role in self.adapters and torch.is_grad_enabled()):
            if self.small_lm is None and layers == 0:
                return self.llm.get_input_embeddings()(ids)
            reader = body(lm) if self.small_lm is not None else first_layers(lm, layers)
            allowed, positions = attention_mask(lm, mask, mask.shape[1]), position_ids(mask)
            out = reader(input_ids=ids, attention_mask=allowed, position_ids=positions, use_cache=False)
            return out.last_hidden_state.to(ids.device)  # of an LLM on several GPUs it is on the last

    def _with_slots(self, ids: Tensor, mask: Tensor, chains: Tensor | None) -> tuple[Tensor, Tensor]:
        """(ids, mask) and behind them the tokens that stand at the N slots of the rows' chains (B,)."""
        width = ids.shape[1]
        ids = F.pad(ids, (0, self.num_thoughts), value=self.slot_ids[0])
        if chains is not None:
            ids[:, width:] = torch.tensor(self.slot_ids, device=ids.device)[chains, None]
        if self.design.distinct_slot_ids:
            ids[:, width:] += torch.arange(self.num_thoughts, device=ids.device)  # prior_row_ids, one by one
        return ids, F.pad(mask, (0, self.num_thoughts), value=1)

    def _generate(
        self,
        ids: Tensor,
        mask: Tensor,
        columns: list[Tensor],
        slots: bool,
        chains: Tensor | None = None,
        states: Tensor | None = None,
    ) -> list[Tensor]:
        """Run the generator over ids and mask (B, T), with `slots` also over the N slots of the rows' chains (B,)
        behind them. Returns z at each group of columns (B, K_i), with `slots` also at the slots, (B, N, d_large).
        `states`: of _read, where they are known already."""
        if slots:
            width = ids.shape[1]
            ids, mask = self._with_slots(ids, mask, chains)
            slot_columns = torch.arange(width, ids.shape[1], device=ids.device)
            columns = [*columns, slot_columns.expand(len(ids), -1)]
        states = self._read(ids, mask) if states is None else states
        self.last_states = states.detach()
        # both LM dtypes are equal; in bf16 the generator's products run in bf16 over its float32 weights
        with torch.autocast(ids.device.type, dtype=self.llm.dtype, enabled=self.llm.dtype != torch.float32):
            z = self.generator(states, mask, torch.cat(columns, dim=1), chains, slots)
        if self.scale is not None:
            z = F.normalize(z.float(), dim=-1) * self.scale
        return list(z.split([c.shape[1] for c in columns], dim=1))

    def states(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The small LM's states of a batch of TrainingCollator, which are the same in all epochs: of question and slots
        (B, Q + N, d_small), and of the steps behind the question (B, T, d_small), T = 0 in a batch without steps."""
        ids, mask = batch["question_ids"], batch["question_mask"]
        of_thoughts = self._read(*self._with_slots(ids, mask, None))
        if "step_ids" not in batch:
            return of_thoughts, of_thoughts[:, :0]
        return of_thoughts, self._read(*with_steps(batch))[:, ids.shape[1] :]

    def thoughts(
        self,
        question_ids: Tensor,
        question_mask: Tensor,
        chains: Tensor | None = None,
        states: Tensor | None = None,
        count: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Question turns (B, Q), left-padded, the rows' chains (B,) int64 (None: the first) and perhaps their states
        (B, Q + N, d_small) -> z_q (B, d_large) and the N thoughts (B, N, d_large), or the first `count` of them.

        The same call in training and in evaluation: no step is in view. Where the LLM makes the thoughts, question_ids
        are its prompt up to the thoughts, and z_q is zeros.
        """
        if self.generator.thinks_in_llm:
            made, _ = self._think(question_ids, question_mask, count)
            return made.new_zeros(len(made), made.shape[-1]), made
        last = torch.full((len(question_ids), 1), question_ids.shape[1] - 1, device=question_ids.device)
        z_question, z_thoughts = self._generate(question_ids, question_mask, [last], True, chains, states)
        return z_question[:, 0], z_thoughts[:, :count]

    def _think(self, ids: Tensor, mask: Tensor, count: int | None) -> tuple[Tensor, KeysAndValues]:
        """Thoughts that the LLM makes behind its prompts, ids and mask (B, P): as Coconut.forward."""
        return self.generator(self.llm, ids, mask, self.num_thoughts if count is None else count)

    def chain_thoughts(self, question_ids: Tensor, question_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Question turns (B, Q) -> z_q (B, C, d_large) and the thoughts of all C chains (B, C, N, d_large)."""
        rows, count = len(question_ids), self.design.num_chains
        ids, mask = question_ids.repeat_interleave(count, dim=0), question_mask.repeat_interleave(count, dim=0)
        chains = torch.arange(count, device=question_ids.device).repeat(rows)
        z_question, z_thoughts = self.thoughts(ids, mask, chains)
        return z_question.unflatten(0, (rows, count)), z_thoughts.unflatten(0, (rows, count))

    def _thoughts_and_steps(
        self, batch: dict[str, Tensor], chains: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """z_q (B, d_large), the thoughts (B, N, d_large), and z at the ends of the steps (B, M, d_large) or None."""
        question, states = (batch["question_ids"], batch["question_mask"]), batch.get("thought_states")
        if "step_ids" not in batch or not self.generator.has_z:
            return *self.thoughts(*question, chains, states, most_thoughts(batch)), None
        width = question[0].shape[1]
        step_columns = width + batch["step_ends"]
        if self.thoughts_see_steps and self.training:
            last = torch.full_like(step_columns[:, :1], width - 1)
            z_question, z_steps, z_thoughts = self._generate(*with_steps(batch), [last, step_columns], True, chains)
            return z_question[:, 0], z_thoughts, z_steps
        # the small LM is causal: it reads the question alike before slots and before steps
        known = None if states is None else torch.cat([states[:, :width], batch["step_states"]], dim=1)
        (z_steps,) = self._generate(*with_steps(batch), [step_columns], slots=False, states=known)
        return *self.thoughts(*question, chains, states), z_steps

    def _behind_prefix(self, inputs: dict[str, Tensor], prefix: int, known: KeysAndValues) -> Tensor:
        """The LLM's last hidden states from column `prefix` on, (B, T - prefix, d_large), or of all columns that are
        not known. No thought can change how the prefix is read, so it is read once, without gradients, unless the LLM
        itself is tuned."""
        llm, embeddings, mask = self.llm, inputs["inputs_embeds"], inputs["attention_mask"]
        if known:
            return read_behind(llm, embeddings[:, known[0][0].shape[-2] :], mask, known)[0]
        if "base_model" in self.adapters:
            allowed, positions = attention_mask(llm, mask, mask.shape[1]), position_ids(mask)
            out = body(llm)(**inputs | {"attention_mask": allowed}, position_ids=positions, use_cache=False)
            return out.last_hidden_state[:, prefix:]
        before = read_prefix(llm, embeddings[:, :prefix], mask[:, :prefix])
        return read_behind(llm, embeddings[:, prefix:], mask, before)[0]

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """A batch of TrainingCollator -> float32 sums of the losses: `sft` over target tokens, `focus` over rows with
        steps, the others over rows (batch.loss_counts). In training those without a weight are left out, and each row
        gets a random chain; on dev they are means over all chains."""
        count, rows = self.design.num_chains, len(batch["question_ids"])
        if count == 1:
            return self._losses(batch, None)
        if self.training:
            return self._losses(batch, torch.randint(count, (rows,)).to(batch["question_ids"].device))
        each, thoughts, of_tokens = [], [], []
        for chain in range(count):
            each.append(self._losses(batch, torch.full_like(batch["question_ids"][:, 0], chain)))
            thoughts.append(self.last_thoughts)
            of_tokens.append(self.last_target_losses)
        self.last_thoughts, self.last_target_losses = torch.stack(thoughts, dim=1), torch.stack(of_tokens).mean(0)
        return {name: sum((sums[name] for sums in each), torch.zeros(())) / count for name in each[0]}

    def target_losses(self, batch: dict[str, Tensor], thoughts: Tensor) -> Tensor:
        """SFT loss of each of a batch's target tokens behind given thoughts (B, C, n, d_large), mean over the chains:
        (T,) float32 without gradients."""
        return torch.stack([self._sft(batch, of_chain)[1] for of_chain in thoughts.unbind(1)]).mean(0)

    def _sft(self, batch: dict[str, Tensor], thoughts: Tensor, known: KeysAndValues = ()) -> tuple[Tensor, Tensor]:
        """target_cross_entropy of a batch behind thoughts (B, n, d_large). known: keys and values of the LLM's first
        columns, where it made the thoughts itself."""
        # the column before a token predicts it: of the first target token without thoughts, the prefix's last
        prefix = batch["prefix_ids"].shape[1] - (thoughts.shape[1] == 0)
        hidden = self._behind_prefix(self.inputs(batch, thoughts), prefix, known)
        first = hidden.shape[1] - batch["suffix_ids"].shape[1] - 1
        # only target tokens are asked for
        columns = batch["target_rows"] * hidden.shape[1] + first + batch["target_columns"]
        asked = hidden.flatten(0, 1).index_select(0, columns.to(hidden.device))
        head = self.llm.get_output_embeddings().weight  # of a spread LLM (--inspect) it may be on another device
        return target_cross_entropy(asked.to(head.device), head, batch["target_ids"].to(head.device))

    def _losses(self, batch: dict[str, Tensor], chains: Tensor | None) -> dict[str, Tensor]:
        known, z_question, z_steps = (), None, None
        if self.generator.thinks_in_llm:
            prompt = (batch["question_ids"], batch["question_mask"])
            z_thoughts, known = self._think(*prompt, most_thoughts(batch))
        else:
            z_question, z_thoughts, z_steps = self._thoughts_and_steps(batch, chains)
        # for the log: (B, N, d_large), of several chains on dev (B, C, N, d_large)
        self.last_thoughts = z_thoughts.detach()
        wanted = [name for name in self.losses if self.weights[name] or not self.training]
        sums = {}
        if "sft" in wanted:
            # of each target token, (T,), for the information of the thoughts; of several chains on dev their mean
            sums["sft"], self.last_target_losses = self._sft(batch, z_thoughts, known)
        if "align" in wanted:
            assert z_question is not None
            sums["align"] = semantic_alignment(z_question, z_thoughts, self.objective.align).sum()
        if "focus" in wanted:
            assert z_question is not None and z_steps is not None
            answer = self.llm.get_input_embeddings()(batch["answer_ids"]).float()
            mask = batch["answer_mask"][..., None]
            answer = (answer * mask).sum(1) / mask.sum(1)
            temperature = self.objective.focus_temperature
            sums["focus"] = reasoning_focus(z_question, z_steps, batch["step_valid"], answer, temperature).sum()
        if "diversity" in wanted:
            _, of_chains = self.chain_thoughts(batch["question_ids"], batch["question_mask"])
            sums["diversity"] = chain_diversity(of_chains).sum()
        return sums


@dataclass(frozen=True)
class Models:
    """The models of a run: the frozen LLM, the thought model before it (None: the bare LLM; where the LLM is tuned
    without thoughts, the model of N = 0 that has its adapter), the prompts' layout. known_states: of the large LLM and
    of the small LM without adapters (llm/frozen.py), None for one that is not here as a whole."""

    llm: Any
    thoughts: LatentThoughtModel | None
    layout: Layout
    known_states: tuple[str | None, str | None] = (None, None)
