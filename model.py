"""Models: the frozen LMs, and the thought generator (what is trained) in front of the LLM.

    question turn -> small LM | the LLM's embeddings -> generator -> N thoughts -> the LLM's prompt -> losses

Names follow the paper (arXiv 2509.12875): thought, slot, prior, projection, TransformerBlock. Shapes: B rows,
T columns, K columns asked for, N thoughts, d_small and d_large hidden sizes.
"""

import difflib
import functools
import hashlib
import inspect
import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from packaging.version import Version
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from data_loader import InputError
from layout import ChatLayout, encode
from losses import reasoning_focus, semantic_alignment, target_cross_entropy

LOSSES = ("sft", "align", "focus")
DTYPE_ARGUMENT = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
PUBLISHED_SLOT_IDS = {"qwen2": 150001, "qwen3": 150001, "llama": 128011}  # first row of the published frozen slots
KNOWN_MODEL_IDS = [
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-4B",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-4B-Instruct-2507",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.2-1B-Instruct",
]

# ---------------------------------------------------------------------------------------------------------------------
# Frozen LMs


def _load(loader, model_id: str, flag: str, **kwargs):
    try:
        return loader.from_pretrained(model_id, **kwargs)
    except Exception as error:  # missing, broken and unfit models fail in many ways, from OSError to SafetensorError
        folder = Path(model_id)
        known = KNOWN_MODEL_IDS + [str(path) for path in folder.parent.glob("*/")]
        near = difflib.get_close_matches(model_id, known, n=len(known), cutoff=0.6)
        near = sorted(near, key=lambda name: -len(os.path.commonprefix([name, model_id])))[:3]
        reason = str(error).strip().split("\n")[0]
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise InputError(
            f"{flag} {model_id}: no such folder here, and no such hub repository could be read{hint} ({reason})"
            if not folder.is_dir()
            else f"{flag} {model_id}: cannot be loaded ({reason})"
        ) from None


def load_config(model_id: str, flag: str, trust_remote_code: bool = False):
    """Config of a hub id or folder; InputError (one line, with near ids) when there is none, and for a model that
    cannot work, as far as its config says so."""
    config = _load(AutoConfig, model_id, flag, trust_remote_code=trust_remote_code)
    text = config.get_text_config().to_dict()
    for wrong, reason in (
        (config.is_encoder_decoder, "an encoder-decoder model is not supported, only causal LMs"),
        (text.get("hidden_size_per_layer_input"), "its layers read input_ids (hidden_size_per_layer_input)"),
        (text.get("hidden_size") is None, "its config has no hidden_size"),
        (text.get("intermediate_size") is None, "its config has no intermediate_size"),
        (text.get("final_logit_softcapping") is not None, "its head is more than a matrix (final_logit_softcapping)"),
        (text.get("logit_scale") is not None, "its head is more than a matrix (logit_scale)"),
        (text.get("logits_scaling") not in (None, 1), "its head is more than a matrix (logits_scaling)"),
    ):
        if wrong:
            raise InputError(f"{flag} {model_id}: {reason}")
    return config


def load_tokenizer(model_id: str, flag: str, trust_remote_code: bool = False):
    """Tokenizer of a hub id or folder; InputError when there is none."""
    return _load(AutoTokenizer, model_id, flag, trust_remote_code=trust_remote_code)


def load_frozen_lm(model_id: str, flag: str, dtype: torch.dtype, device, trust_remote_code: bool = False):
    """A causal LM without gradients and dropout, on `device` ("auto" spreads it over the visible GPUs).

    Raises InputError for a missing model, for one that does not read embeddings with a mask and positions (state-space
    models) or does not go on writing from them (some models with images), and for one whose head is more than a matrix
    product.
    """
    load_config(model_id, flag, trust_remote_code)  # refuses what it can before the weights are read
    # placed as it is read, so that no rank holds a whole LLM in host memory
    place = {"device_map": "auto" if device == "auto" else {"": device}}
    if str(device).startswith("cpu"):  # "cpu:0" under torchrun
        place = {}
    arguments = {DTYPE_ARGUMENT: dtype, "trust_remote_code": trust_remote_code, **place}
    lm = _load(AutoModelForCausalLM, model_id, flag, **arguments)
    needed = [(decoder(lm).forward, name) for name in ("inputs_embeds", "attention_mask", "position_ids")]
    for function, name in [*needed, (lm.prepare_inputs_for_generation, "inputs_embeds")]:
        if name not in inspect.signature(function).parameters:
            raise InputError(f"{flag} {model_id}: {type(lm).__name__}.{function.__name__} takes no {name}")
    if getattr(lm.get_output_embeddings(), "bias", None) is not None:
        raise InputError(f"{flag} {model_id}: its head has a bias; such a head is not supported")
    return lm.requires_grad_(False).eval()


def check_vocabulary(lm, tokenizer, chat: ChatLayout, flag: str) -> None:
    """InputError where words, or what the chat template writes, lie beyond the LM's embedding table: tokens were added
    without resizing it. Special tokens that nothing writes may (Gemma 3's for images do)."""
    rows, written = lm.get_input_embeddings().num_embeddings, encode(tokenizer, "".join(vars(chat).values()))
    unused = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - set(written)
    for word, i in tokenizer.get_vocab().items():
        if i >= rows and i not in unused:
            name = tokenizer.name_or_path
            raise InputError(
                f"{flag} {name}: token {word!r} is beyond the {rows} rows of its embedding table; resize it"
            )


def decoder(lm):
    """The causal LM without its head."""
    # to transformers 4.53 Gemma 3 is its own base model
    return lm.model if lm.base_model is lm else lm.base_model


def fingerprint(lm) -> str:
    """A short hash of an LM's weights (64 values of each tensor, as float32): other weights, other fingerprint."""
    digest = hashlib.sha256()
    for name, weight in lm.named_parameters():
        flat = weight.detach().flatten()
        digest.update(name.encode() + flat[:: max(1, len(flat) // 64)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def position_ids(mask: Tensor) -> Tensor:
    """Positions that count real tokens only, (B, T) from a mask (B, T): padding anywhere shifts nothing."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


# ---------------------------------------------------------------------------------------------------------------------
# Thought generators


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
    """One post-norm encoder layer with a single head, not causal, under the published parameter names."""

    def __init__(self, d: int, d_ff: int, norm_eps: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d, num_heads=1, batch_first=True)
        self.linear1 = nn.Linear(d, d_ff)
        self.linear2 = nn.Linear(d_ff, d)
        self.norm1 = nn.RMSNorm(d, eps=norm_eps)
        self.norm2 = nn.RMSNorm(d, eps=norm_eps)

    def forward(self, x: Tensor, mask: Tensor, columns: Tensor) -> Tensor:
        """x (B, T, d), mask (B, T), columns (B, K) -> outputs at those columns alone, (B, K, d)."""
        asked = take_columns(x, columns)
        attended, _ = self.self_attn(asked, x, x, key_padding_mask=mask == 0, need_weights=False)
        y = self.norm1(asked + attended)
        return self.norm2(y + self.linear2(F.relu(self.linear1(y))))


def take_columns(x: Tensor, columns: Tensor) -> Tensor:
    """(B, T, d), (B, K) -> (B, K, d)."""
    return x.gather(1, columns[..., None].expand(-1, -1, x.shape[-1]))


class Small(nn.Module):
    """SoftCoT (arXiv 2502.12134): the small LM's last hidden states -> projection."""

    uses_small_lm, has_block = True, False

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.projection = nn.Linear(sizes.d_small, sizes.d_large)

    def forward(self, states: Tensor, mask: Tensor, columns: Tensor, slots: bool) -> Tensor:
        """states (B, T, d_in) of the frozen reader, mask (B, T), columns (B, K) -> z (B, K, d_large).

        With `slots` the last N columns are the thought slots.
        """
        return self.projection(take_columns(states, columns))


class SmallBlock(nn.Module):
    """The full system: small LM's states -> projection -> + learnable prior at the slots -> TransformerBlock."""

    uses_small_lm, has_block = True, True

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.projection = nn.Linear(sizes.d_small, sizes.d_large)
        self.block = TransformerBlock(sizes.d_large, sizes.d_ff, sizes.norm_eps)
        self.prior = nn.Parameter(torch.zeros(sizes.num_thoughts, sizes.d_large))

    def forward(self, states: Tensor, mask: Tensor, columns: Tensor, slots: bool) -> Tensor:
        """As Small.forward."""
        x = self.projection(states).float()  # as in Block: between its products the block works in float32
        if slots:
            n = len(self.prior)
            x = torch.cat([x[:, :-n], x[:, -n:] + self.prior], dim=1)
        return self.block(x, mask, columns)


class Block(nn.Module):
    """The paper's learnable prior: the LLM's embeddings, prior at the slots -> TransformerBlock -> projection."""

    uses_small_lm, has_block = False, True

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.block = TransformerBlock(sizes.d_large, sizes.d_ff, sizes.norm_eps)
        self.projection = nn.Linear(sizes.d_large, sizes.d_large)
        self.prior = nn.Parameter(torch.zeros(sizes.num_thoughts, sizes.d_large))

    def forward(self, states: Tensor, mask: Tensor, columns: Tensor, slots: bool) -> Tensor:
        """As Small.forward."""
        x = states.float()
        if slots:
            prior = self.prior.expand(len(x), -1, -1)
            x = torch.cat([x[:, : -len(self.prior)], prior], dim=1)
        return self.projection(self.block(x, mask, columns))


GENERATORS = {"small_block": SmallBlock, "block": Block, "small": Small}


def prior_row_ids(llm_config, num_thoughts: int) -> range:
    """Rows of the LLM's embedding table that the `block` prior starts as: the published slots' ids where the
    vocabulary reaches them, else the last N rows. Raises InputError when the vocabulary has fewer than N rows."""
    config = llm_config.get_text_config()
    start = PUBLISHED_SLOT_IDS.get(config.model_type)
    if start is None or start + num_thoughts > config.vocab_size:
        start = config.vocab_size - num_thoughts
    if start < 0:
        raise InputError(f"--num_thought_tokens {num_thoughts}: the LLM's vocabulary has only {config.vocab_size} rows")
    return range(start, start + num_thoughts)


def llm_inputs(llm, batch: dict[str, Tensor], thoughts: Tensor | None) -> dict[str, Tensor]:
    """[prefix | thoughts | suffix] -> {inputs_embeds (B, T, d_large) in the LLM's dtype, attention_mask (B, T)}."""
    embed = llm.get_input_embeddings()
    parts = [embed(batch["prefix_ids"]), embed(batch["suffix_ids"])]
    masks = [batch["prefix_mask"], batch["suffix_mask"]]
    if thoughts is not None:
        parts.insert(1, thoughts.to(parts[0].dtype))
        masks.insert(1, masks[0].new_ones(thoughts.shape[:2]))
    return {"inputs_embeds": torch.cat(parts, dim=1), "attention_mask": torch.cat(masks, dim=1)}


# ---------------------------------------------------------------------------------------------------------------------
# The whole: thoughts into the frozen LLM


class LatentThoughtModel(nn.Module):
    """A trainable generator before a frozen LLM. The frozen LMs are held unregistered: they are no part of
    `parameters()`, of `state_dict()`, of DDP or of `train()`.

    llm, small_lm: from load_frozen_lm (small_lm None where the generator uses none); slot_id: the token that the small
    LM reads at every slot; weights: of the losses {"sft", "align", "focus"}, 0 skips a loss.
    """

    def __init__(
        self,
        kind: str,
        llm,
        small_lm,
        num_thoughts: int,
        slot_id: int,
        weights: dict[str, float] | None = None,
        focus_temperature: float = 0.1,
        thoughts_see_steps: bool = False,
    ):
        super().__init__()
        self.kind = kind
        self.sizes = generator_sizes(llm.config, small_lm and small_lm.config, num_thoughts)
        self.generator = GENERATORS[kind](self.sizes)
        if kind == "block":
            embed = llm.get_input_embeddings()
            rows = torch.tensor(prior_row_ids(llm.config, num_thoughts), device=embed.weight.device)
            self.generator.prior.data.copy_(embed(rows))  # as the LLM reads them: Gemma 3 scales what it looks up
        self.frozen = (llm, small_lm)
        self.num_thoughts, self.slot_id = num_thoughts, slot_id
        self.weights, self.focus_temperature = weights, focus_temperature
        self.thoughts_see_steps = thoughts_see_steps

    @property
    def llm(self):
        return self.frozen[0]

    def recompute_layers(self) -> None:
        """Recompute the frozen LLM's layers in the backward pass (the library's own switch needs train mode)."""
        base = decoder(self.llm)
        if not isinstance(getattr(base, "layers", None), nn.ModuleList):
            raise InputError(f"--gradient_checkpointing: {type(base).__name__} has no `layers` to recompute")
        for layer in base.layers:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The frozen reader's states of the generator's input, (B, T, d_small or d_large)."""
        llm, small_lm = self.frozen
        with torch.no_grad():
            if small_lm is None:
                return llm.get_input_embeddings()(ids)
            return decoder(small_lm)(
                input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
            ).last_hidden_state

    def _generate(self, parts: list[tuple[Tensor, Tensor]], columns: list[Tensor], slots: bool) -> list[Tensor]:
        """Run the generator over concatenated (ids, mask) parts, then N slots; z at each group of columns (B, K_i)."""
        ids, mask = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
        if slots:
            width = ids.shape[1]
            ids = F.pad(ids, (0, self.num_thoughts), value=self.slot_id)
            mask = F.pad(mask, (0, self.num_thoughts), value=1)
            slot_columns = torch.arange(width, ids.shape[1], device=ids.device)
            columns = [*columns, slot_columns.expand(len(ids), -1)]
        # both LM dtypes are equal; in bf16 the generator's products run in bf16 over its float32 weights
        with torch.autocast(ids.device.type, dtype=self.llm.dtype, enabled=self.llm.dtype != torch.float32):
            z = self.generator(self._read(ids, mask), mask, torch.cat(columns, dim=1), slots)
        return list(z.split([c.shape[1] for c in columns], dim=1))

    def thoughts(self, question_ids: Tensor, question_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Question turns (B, Q), left-padded -> z_q (B, d_large) and the N thoughts (B, N, d_large).

        The same call in training and in evaluation: no step is in view.
        """
        last = torch.full((len(question_ids), 1), question_ids.shape[1] - 1, device=question_ids.device)
        z_question, z_thoughts = self._generate([(question_ids, question_mask)], [last], slots=True)
        return z_question[:, 0], z_thoughts

    def _thoughts_and_steps(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        question = (batch["question_ids"], batch["question_mask"])
        if "step_ids" not in batch:
            return *self.thoughts(*question), None
        steps = (batch["step_ids"], batch["step_mask"])
        width = question[0].shape[1]
        step_columns = width + batch["step_ends"]
        if self.thoughts_see_steps and self.training:
            last = torch.full_like(step_columns[:, :1], width - 1)
            z_question, z_steps, z_thoughts = self._generate([question, steps], [last, step_columns], slots=True)
            return z_question[:, 0], z_thoughts, z_steps
        (z_steps,) = self._generate([question, steps], [step_columns], slots=False)
        return *self.thoughts(*question), z_steps

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """A batch of TrainingCollator -> float32 sums of the losses: `sft` over target tokens, `align` over rows,
        `focus` over rows with steps (layout.loss_counts). In training those without a weight are left out."""
        z_question, z_thoughts, z_steps = self._thoughts_and_steps(batch)
        wanted = [name for name in LOSSES if self.weights[name] or not self.training]
        sums = {}
        if "sft" in wanted:
            inputs = llm_inputs(self.llm, batch, z_thoughts)
            positions = position_ids(inputs["attention_mask"])
            hidden = decoder(self.llm)(**inputs, position_ids=positions, use_cache=False).last_hidden_state
            # the column before a token predicts it; only target tokens are asked for
            hidden = hidden[:, -batch["labels"].shape[1] - 1 : -1]
            asked = batch["labels"] != -100
            head = self.llm.get_output_embeddings().weight
            sums["sft"] = target_cross_entropy(hidden[asked], head, batch["labels"][asked])
        if "align" in wanted:
            sums["align"] = semantic_alignment(z_question, z_thoughts).sum()
        if "focus" in wanted:
            answer = self.llm.get_input_embeddings()(batch["answer_ids"]).float()
            mask = batch["answer_mask"][..., None]
            answer = (answer * mask).sum(1) / mask.sum(1)
            focus = reasoning_focus(z_question, z_steps, batch["step_valid"], answer, self.focus_temperature)
            sums["focus"] = focus.sum()
        return sums
