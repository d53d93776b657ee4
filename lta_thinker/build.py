"""The models of a run, built once for both scripts: the layout of the prompts, the frozen LMs, the generator.

spec = ModelSpec(large, small, "small_block", num_thoughts=32)
layout = build_layout(spec, prompts)            # from the tokenizers alone
models = build_models(spec, layout)             # Models(llm, thoughts, layout)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from accelerate.utils import set_seed

from lta_thinker.common import InputError, ranks
from lta_thinker.llm.embeddings import load_embeddings
from lta_thinker.llm.frozen import (
    LmSource,
    check_cache,
    check_vocabulary,
    known_states,
    load_config,
    load_frozen_lm,
    load_tokenizer,
    num_positions,
)
from lta_thinker.llm.lora import Lora, SavedAdapter, load_adapter, tune
from lta_thinker.llm.sharding import load_sharded
from lta_thinker.losses import Objective
from lta_thinker.model import KINDS, PUBLISHED_DESIGN, Design, LatentThoughtModel, Models, Sizes, generator_sizes
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import DATE_STRING, Layout, WorkedExample, pad_token_id
from lta_thinker.weights import GeneratorWeights, load_weights


@dataclass(frozen=True)
class ModelSpec:
    """All that the models of a run are made from.

    small: None where the generator reads no small LM. It is loaded to the large LLM's device.
    kind: of model.KINDS. num_thoughts: N, with the kind "none" 0.
    large_part: what this process loads of the large LLM: all of it, its shard of the layers, or the embedding table
    alone (an engine runs the rest).
    seed: of a fresh generator; None leaves the random state as it is.
    """

    large: LmSource
    small: LmSource | None
    kind: str
    num_thoughts: int
    design: Design = PUBLISHED_DESIGN
    objective: Objective | None = None
    thoughts_see_steps: bool = False
    large_part: Literal["whole", "shard", "embeddings"] = "whole"
    seed: int | None = None

    @property
    def num_marks(self) -> int:
        """Columns that stand in the LLM's prompt beside the thoughts."""
        return KINDS[self.kind].num_marks

    def sizes(self, llm_config, small_config) -> Sizes:
        """The generator's sizes from the LMs' configs (small_config None without a small LM)."""
        return generator_sizes(llm_config, small_config, self.num_thoughts)

    def load_configs(self) -> tuple:
        """Configs of the large LLM and of the small LM (None without one); InputError for LMs that cannot work."""
        large, small = load_config(self.large), None if self.small is None else load_config(self.small)
        source, reader = self.small or self.large, small or large
        asked, layers = self.design.reader_layers or 0, reader.get_text_config().num_hidden_layers
        if self.kind != "none" and asked > layers:
            raise InputError(f"--reader_layers {asked}: {source.name} has only {layers} layers")
        return large, small


def choose_device(backend: str = "hf") -> str:
    """This process's GPU, else the CPU. "auto" (all visible GPUs) where one process loads the LLM, without torchrun.

    Raises InputError for more processes than GPUs.
    """
    here, gpus = ranks(), torch.cuda.device_count()
    if here.in_node >= gpus > 0:
        raise InputError(f"torchrun started more processes than the {gpus} visible GPUs")
    if gpus > 1 and not here.under_torchrun and backend == "hf":
        return "auto"
    return f"cuda:{here.in_node}" if torch.cuda.is_available() else "cpu"


def build_layout(
    spec: ModelSpec,
    prompts: dict[str, str],
    date_string: str = DATE_STRING,
    separator: str = "\n",
    steps_as_turns: bool = False,
    worked_examples: Sequence[WorkedExample] = (),
    names_in_text: bool = False,
) -> Layout:
    """The layout of both prompts, from the LMs' tokenizers alone. `separator` stands between written steps;
    steps_as_turns: each is a turn of its own for the generator; worked_examples: of --num_fewshot; names_in_text: of
    --special_tokens_in_text."""
    llm_tokenizer = load_tokenizer(spec.large)
    if spec.kind == "none":
        generator_tokenizer = None
    else:
        generator_tokenizer = load_tokenizer(spec.small) if spec.small else llm_tokenizer
    turns, worked, reads_prompt = steps_as_turns, worked_examples, KINDS[spec.kind].thinks_in_llm
    names = names_in_text
    return Layout(
        llm_tokenizer, generator_tokenizer, prompts, date_string, separator, turns, worked, names, reads_prompt
    )


def check_context(
    layout: Layout, config, columns: int, place: str, new_tokens: int = 0, remedy: str = "", whose: str = "the LLM"
) -> None:
    """InputError where an input of `columns`, with its thoughts, and new_tokens behind it are longer than an LM's
    positions. config: the LM's; place, remedy, whose: of the message, which row it is, what to do, which LM."""
    positions = num_positions(config)
    if positions is None or columns + new_tokens <= positions:
        return
    length = f"{columns:,} tokens with its thoughts, and {whose} has positions for {positions:,}"
    if columns < positions and new_tokens:
        raise InputError(
            f"--max_new_tokens {new_tokens}: {place} has {length}; at most {positions - columns:,} fit behind it"
        )
    if layout.worked_examples and whose == "the LLM":
        shots = len(layout.worked_examples)
        raise InputError(f"--num_fewshot {shots}: the LLM's longest input has {length}; take fewer examples")
    raise InputError(f"{place}: it has {length}{remedy}")


def reader_config(spec: ModelSpec, llm_config, small_config):
    """The config of the LM whose layers read the question, and its name for messages; (None, "") where none does."""
    if spec.small is not None:
        return small_config, "the small LM"
    return (llm_config, "the LLM's first layers") if spec.kind != "none" and spec.design.reader_layers else (None, "")


def check_prompts(
    spec: ModelSpec, layout: Layout, placed: Sequence[tuple[Example, str]], num_injected: int, new_tokens: int
) -> None:
    """InputError where the longest question and an answer of new_tokens do not fit into the LMs' positions; it needs no
    LM. placed: questions and their places, for the message."""
    llm_config, small_config = spec.load_configs()
    reader, whose = reader_config(spec, llm_config, small_config)
    prompts = layout.prompts([example.question for example, _ in placed])
    between = num_injected + spec.num_marks
    lengths = [between + len(prompt["prefix"]) + len(prompt["suffix"]) for prompt in prompts]
    columns, (_, place) = max(zip(lengths, placed, strict=True), key=lambda pair: pair[0])
    check_context(layout, llm_config, columns, place, new_tokens)
    if reader is not None:
        lengths = [spec.num_thoughts + len(prompt["question"]) for prompt in prompts]
        columns, (_, place) = max(zip(lengths, placed, strict=True), key=lambda pair: pair[0])
        check_context(layout, reader, columns, place, whose=whose)


def build_models(
    spec: ModelSpec,
    layout: Layout,
    weights: GeneratorWeights | None = None,
    adapters: Mapping[str, Lora | SavedAdapter] | None = None,
) -> Models:
    """The frozen LMs, and the generator on the large LLM's device.

    weights: of the generator, None for a fresh one. adapters: by role, fresh ones (Lora) or saved ones.
    Raises InputError for LMs that cannot do their part.
    """
    load = {"whole": load_frozen_lm, "shard": load_sharded, "embeddings": load_embeddings}[spec.large_part]
    llm = load(spec.large)
    check_vocabulary(llm, layout.llm_tokenizer, layout.llm_ids, spec.large.flag)
    check_cache(llm, spec.large.flag)
    model = None if spec.kind == "none" and not adapters else build_thoughts(spec, llm, layout, weights)
    small_lm = None if model is None else model.small_lm
    states = (
        None if spec.large_part == "embeddings" or spec.large.empty else known_states(llm),
        None if small_lm is None or spec.large.empty else known_states(small_lm),
    )
    # adapters come last: the generator starts as it would without
    for role, adapter in (adapters or {}).items():
        lm, source = llm, spec.large
        assert model is not None
        if role == "assistant_model":
            assert spec.small is not None
            lm, source = small_lm, spec.small
        if isinstance(adapter, Lora):
            model.adapters[role] = tune(lm, adapter.config(source.model_id), "--lora_target", source.empty)
        else:
            model.adapters[role] = load_adapter(lm, adapter)
    return Models(llm, model, layout, states)


def build_thoughts(spec: ModelSpec, llm, layout: Layout, weights: GeneratorWeights | None) -> LatentThoughtModel:
    """Load the small LM, and build the generator before the loaded LLM."""
    device = llm.get_input_embeddings().weight.device
    small_lm = None
    if spec.small is not None:
        small_lm = load_frozen_lm(replace(spec.small, device=device, num_layers=spec.design.reader_layers))
        check_vocabulary(small_lm, layout.generator_tokenizer, layout.generator_ids, spec.small.flag)
    if spec.seed is not None:
        set_seed(spec.seed)
    model = LatentThoughtModel(
        spec.kind,
        llm,
        small_lm,
        spec.num_thoughts,
        slot_id=0 if layout.generator_tokenizer is None else pad_token_id(layout.generator_tokenizer),
        objective=spec.objective,
        design=spec.design,
        thoughts_see_steps=spec.thoughts_see_steps,
    )
    if weights is not None:
        load_weights(model, weights)
    if not spec.large.empty:  # fake tensors cannot be moved, and are where they are used
        model.generator.to(device)
    return model
