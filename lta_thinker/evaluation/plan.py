"""What an evaluation runs: flags, thoughts.json and the weights -> a Plan -> the models.

plan = make_plan(args)            # loads no LM; whatever does not fit together is an InputError
models = load_models(plan, load_layout(plan))
settings = model_settings(plan, models)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lta_thinker.build import ModelSpec, build_layout, build_models, choose_device
from lta_thinker.checkpoint import (
    META_FILE,
    RESUME_FILE,
    TrainingRecord,
    check_resume_checkpoint,
    find_checkpoint,
    is_resume_checkpoint,
    known_runs,
)
from lta_thinker.common import InputError, counted
from lta_thinker.data_loader import PROMPTS, read_prompts, worked_examples
from lta_thinker.evaluation.flags import DEFAULT_MODEL_IDS, EvaluationArguments
from lta_thinker.evaluation.report import KNOWN_STATES
from lta_thinker.generation.samplers import Backend
from lta_thinker.llm.embeddings import weights_fingerprint
from lta_thinker.llm.frozen import LmSource, fingerprint, load_config
from lta_thinker.llm.identity import Identity
from lta_thinker.llm.lora import AllWeights, SavedAdapter, read_adapter, read_resume_adapter
from lta_thinker.model import GENERATORS, PUBLISHED_DESIGN, Design, Models, Sizes
from lta_thinker.rows.examples import Task
from lta_thinker.rows.layout import DATE_STRING, Layout, WorkedExample
from lta_thinker.weights import (
    ATT_FILE,
    PARAMS_FILE,
    GeneratorWeights,
    check_weights,
    infer_generator,
    read_resume_weights,
    read_weights,
)

PUBLISHED_NUM_THOUGHTS = 32  # of published weights without a prior, which do not say it
FILE_FLAGS = ("--params_file_name", "--att_file_name")

# ---------------------------------------------------------------------------------------------------------------------
# The checkpoint and the flags


@dataclass(frozen=True)
class Thoughts:
    """The trained thoughts, as they were read.

    record: thoughts.json, where there is one; weights: None for no thoughts; files: that hold the weights. folder: of
    the checkpoint that is evaluated, of an adapter that was trained alone too; None for the bare LLM.
    """

    record: TrainingRecord | None
    weights: GeneratorWeights | None
    files: list[Path]
    folder: Path | None


def base_name(model_id: str) -> str:
    """The last component of a hub id or a path: weights may have been moved to another folder since training."""
    return model_id.rstrip("/").rpartition("/")[2]


def find_thoughts(args: EvaluationArguments) -> Thoughts:
    """The thoughts of --checkpoint, or of --params_file_name and --att_file_name.

    Raises InputError where files are missing or broken, and where the two files are of two checkpoints.
    """
    if args.checkpoint:
        folder = find_checkpoint(args.checkpoint)
        if folder is None:
            raise InputError(f"--checkpoint {args.checkpoint}: no such folder, and no run of that name; {known_runs()}")
        return read_checkpoint(folder, with_weights=args.thought_generator != "none")
    params = Path(args.params_file_name) if args.params_file_name else None
    att = Path(args.att_file_name) if args.att_file_name else None
    for flag, path in zip(FILE_FLAGS, (params, att), strict=True):
        if path and path.name == RESUME_FILE:
            raise InputError(f"{flag} {path}: of a resume checkpoint; use --checkpoint {path.parent}")
    record, folders = None, [path.parent for path in (params, att) if path]
    if any((folder / META_FILE).is_file() for folder in folders):
        if len({folder.resolve() for folder in folders}) > 1:
            raise InputError("--params_file_name and --att_file_name lie in two folders: they are not one checkpoint")
        record = TrainingRecord.read(folders[0])
        record.check_files(folders[0])
    return read_files(record, params, att, FILE_FLAGS)


def read_checkpoint(folder: Path, with_weights: bool) -> Thoughts:
    """The thoughts of a folder in ckpt/ or of a resume checkpoint."""
    resumable = is_resume_checkpoint(folder)
    if resumable:
        check_resume_checkpoint(folder, to_evaluate=True)
    if not (folder / META_FILE).is_file() and (folder / PARAMS_FILE).is_file():
        missing = "" if (folder / ATT_FILE).is_file() else f"; no {ATT_FILE} either, which block and small_block need"
        names = "--params_file_name and --att_file_name name published weights"
        raise InputError(f"{folder / META_FILE}: no such file ({names}){missing}")
    record = TrainingRecord.read(folder)
    alone = record.thought_generator == "none"  # an adapter that was trained alone
    if not (with_weights or alone):
        return Thoughts(record, None, [], None)
    record.check_files(folder)
    if resumable:
        path = folder / RESUME_FILE
        return Thoughts(record, None if alone else read_resume_weights(path), [path], folder)
    if alone:
        return Thoughts(record, None, [], folder)
    generator = GENERATORS[record.thought_generator]
    params = folder / PARAMS_FILE if generator.has_projection else None
    att = folder / ATT_FILE if generator.has_prior or generator.num_marks else None
    return read_files(record, params, att, ("--checkpoint", "--checkpoint"))


def read_files(
    record: TrainingRecord | None, params: Path | None, att: Path | None, flags: tuple[str, str]
) -> Thoughts:
    """The thoughts of the two files, either of which may not be there. flags: that named them, for messages."""
    if not params and not att:
        return Thoughts(record, None, [], None)
    projection = read_weights(params, flags[0]) if params else None
    block = read_weights(att, flags[1]) if att else None
    files = [path for path in (params, att) if path]
    return Thoughts(record, GeneratorWeights(projection, block), files, files[0].parent)


def check_flags(args: EvaluationArguments, record: TrainingRecord) -> None:
    """InputError where a flag contradicts thoughts.json; prints a note where another task or dtype is used."""
    if args.thought_generator not in (None, "none", record.thought_generator):
        trained, given = record.thought_generator, f"--thought_generator {args.thought_generator}"
        meant = "--use_assistant_model, which is " if args.use_assistant_model else ""
        raise InputError(f"{meant}{given}: the checkpoint's {META_FILE} says {trained}")
    pairs = {"base_model_id": record.large_model_id, "assistant_model_id": record.small_model_id}
    for name, trained in pairs.items():
        given = getattr(args, name)
        if given and trained and base_name(given) != base_name(trained):
            raise InputError(f"--{name} {given}: the checkpoint was trained with {trained}")
    given = args.num_thought_tokens
    if given and args.thought_generator != "none" and record.thought_generator == "none":
        flag = args.named("num_thought_tokens")
        raise InputError(f"{flag}: this checkpoint is an adapter alone, without thoughts; leave it out")
    if given and args.thought_generator != "none" and given > record.num_thoughts:
        flag = args.named("num_thought_tokens")
        raise InputError(f"{flag}: this checkpoint makes only {counted(record.num_thoughts, 'thought')}")
    for name, default, trained in (("task_name", None, record.task_name), ("dtype", "auto", record.dtype)):
        given = getattr(args, name)
        if given not in (default, trained):
            print(f"note: --{name} {given}; the thoughts were trained with {trained}")


def find_adapters(args: EvaluationArguments, kind: str, thoughts: Thoughts) -> dict[str, SavedAdapter]:
    """LoRA adapters by role: the flags', else those that the thoughts were trained with.

    Raises InputError where they are missing or contradict thoughts.json.
    """
    record = thoughts.record
    tuned = (record.tuned if record else None) or {}
    flags = {"base_model": args.base_model_ckpt, "assistant_model": args.assistant_model_ckpt}
    given = {role: folder for role, folder in flags.items() if folder}
    check_adapter_flags(args, kind, thoughts, given, tuned)
    adapters = {role: read_adapter(Path(folder), f"--{role}_ckpt") for role, folder in given.items()}
    if record is None or thoughts.folder is None:
        return adapters
    trained_ids = {"base_model": record.large_model_id, "assistant_model": record.small_model_id}
    resumable = thoughts.folder / RESUME_FILE
    for role, lora in tuned.items():
        if resumable in thoughts.files:
            adapters[role] = read_resume_adapter(resumable, role, lora, str(trained_ids[role]))
        elif role not in adapters:
            what = "an adapter was trained alone" if kind == "none" else "the thoughts were trained with an adapter"
            what = "all weights of the LLM were trained" if lora.full else what
            adapters[role] = read_adapter(thoughts.folder / role, f"{META_FILE} says that {what},", lora.full)
    return adapters


def check_adapter_flags(
    args: EvaluationArguments, kind: str, thoughts: Thoughts, given: dict[str, str], tuned: dict
) -> None:
    """InputError where the given adapters (folders by role) fit neither the generator, the training nor the backend."""
    with_thoughts, record = kind != "none", thoughts.record
    alone = thoughts.folder is not None and not with_thoughts
    if alone and given:
        raise InputError("--checkpoint names the adapter already: leave --base_model_ckpt out")
    if with_thoughts and "assistant_model" in given and not GENERATORS[kind].uses_small_lm:
        raise InputError(f"--assistant_model_ckpt: the generator {kind} has no small LM")
    if not (with_thoughts or alone) and "base_model" in tuned and not given:
        print("note: --thought_generator none: the bare LLM, without the adapter that the checkpoint has for it")
    if with_thoughts and record:
        for role in sorted(given.keys() - tuned.keys()):
            raise InputError(
                f"--{role}_ckpt {given[role]}: {META_FILE} says that these thoughts were trained with the bare LM"
            )
    if args.backend == "vllm" and ("base_model" in given or (thoughts.folder is not None and "base_model" in tuned)):
        raise InputError("--backend vllm: the engine has the bare LLM, and here it is tuned; use --backend hf")


def choose_prompts(args: EvaluationArguments, task: Task, record: TrainingRecord | None) -> dict[str, str]:
    """--prompt_file's prompts, else the checkpoint's, else the answer type's.

    With a task of another answer type the problem's prompt is that type's. Prints a note where a prompt is not the one
    that the thoughts were trained with.
    """
    prompts = PROMPTS[task.answer_type]
    if record:
        problem = record.prompts["problem"] if record.answer_type == task.answer_type else prompts["problem"]
        prompts = record.prompts | {"problem": problem}
    if args.prompt_file:
        prompts = read_prompts(args.prompt_file, prompts)
    if record:
        for name, prompt in prompts.items():
            if prompt != record.prompts[name]:
                print(f"note: the prompt {name!r} is not the one that the thoughts were trained with")
    return prompts


def choose_examples(args: EvaluationArguments, task: Task, record: TrainingRecord | None) -> list[WorkedExample]:
    """The prompts' worked examples: the checkpoint's, else the first --num_fewshot rows of the task's train split.

    InputError where thoughts were trained with another number of them than the flag says. Without thoughts
    (--thought_generator none) the flag wins. Prints a note where the checkpoint's are of another task.
    """
    stored, count = (record.worked_examples if record else None) or [], args.num_fewshot
    if record and count in (None, len(stored)):
        if stored and task.name != record.task_name:
            print(f"note: the prompts' {len(stored)} worked examples are those of the training, of {record.task_name}")
        return stored
    if record and args.thought_generator != "none":
        raise InputError(f"--num_fewshot {count}: the checkpoint was trained with {len(stored)} worked examples")
    return worked_examples(task, count or 0, args.data_dir, args.skip_bad_rows)


def lm_dtype(given: str, record: TrainingRecord | None, estimate: bool = False) -> str:
    """The LMs' dtype: --dtype, else (auto) the training's, else bfloat16 on CUDA, which an --estimate is of."""
    if given != "auto":
        return given
    if record:
        return record.dtype
    return "bfloat16" if estimate or torch.cuda.is_available() else "float32"


# ---------------------------------------------------------------------------------------------------------------------
# The plan


@dataclass(frozen=True)
class Plan:
    """What is evaluated.

    num_injected: n, how many of the spec's N thoughts go into the prompt (0: no thoughts); num_made: N, with
    --make_only_n n; files: that hold the weights; folder: of the checkpoint that is evaluated, if any; record: the
    checkpoint's thoughts.json, where there is one; adapters: by role, of the LMs that were tuned.
    """

    spec: ModelSpec
    llm_config: Any
    num_injected: int
    num_made: int
    weights: GeneratorWeights | None
    files: list[Path]
    folder: Path | None
    prompts: dict[str, str]
    worked_examples: list[WorkedExample]
    names_in_text: bool
    date_string: str
    task: Task
    dtype: str
    backend: Backend
    record: TrainingRecord | None
    adapters: dict[str, SavedAdapter]

    @property
    def num_between(self) -> int:
        """Columns of a prompt between its prefix and its suffix: the thoughts and what stands beside them."""
        return self.num_injected + self.spec.num_marks


def make_plan(args: EvaluationArguments, device: str | None = None) -> Plan:
    """Settle everything that needs no LM.

    device: of the LMs, None for choose_device's. Raises InputError for whatever does not fit together.
    """
    thoughts = find_thoughts(args)
    record = thoughts.record
    if record:
        check_flags(args, record)
    elif thoughts.weights is None and args.thought_generator != "none" and not args.estimate:
        raise InputError("which thoughts? --checkpoint, or --params_file_name, or --thought_generator none")
    task = choose_task(args, record)
    dtype = lm_dtype(args.dtype, record, args.estimate)
    spec, num_injected = choose_models(args, thoughts, dtype, device or choose_device(args.backend))
    if args.inspect and spec.kind == "none":
        raise InputError(f"--inspect {args.inspect}: there are no thoughts to look into")
    llm_config, small_config = spec.load_configs()
    if thoughts.weights is not None:
        sizes = spec.sizes(llm_config, small_config)
        if record:
            check_sizes(sizes, record.sizes)
        check_weights(spec.kind, sizes, thoughts.weights, spec.design, weight_names(args, thoughts))
    return Plan(
        spec=spec,
        llm_config=llm_config,
        num_injected=num_injected,
        num_made=num_injected if args.make_only_n else spec.num_thoughts,
        weights=thoughts.weights,
        files=thoughts.files,
        folder=thoughts.folder,
        prompts=choose_prompts(args, task, record),
        worked_examples=choose_examples(args, task, record),
        names_in_text=args.special_tokens_in_text or (record.special_tokens_in_text if record else False),
        date_string=(record.date_string if record else "") or DATE_STRING,
        task=task,
        dtype=dtype,
        backend=Backend(
            name=args.backend,
            model_id=spec.large.model_id,
            dtype=dtype,
            trust_remote_code=args.trust_remote_code,
            tensor_parallel_size=args.tensor_parallel_size,
            data_parallel_size=args.data_parallel_size,
            gpu_memory_utilization=args.gpu_memory_utilization,
            max_model_len=args.max_model_len,
        ),
        record=record,
        adapters=find_adapters(args, spec.kind, thoughts),
    )


def choose_task(args: EvaluationArguments, record: TrainingRecord | None) -> Task:
    """--task_name's, else the checkpoint's, else gsm8k. InputError where there is no such task."""
    name = args.task_name or (record.task_name if record else "gsm8k")
    return args.resolve_task(name, record.own_task if record and name == record.task_name else None)


def lm_flag(name: str, given: str | None, trained: str | None) -> str:
    """What messages call an LM's flag, which need not have been given."""
    if given:
        return f"--{name}"
    return f"{META_FILE}'s --{name}" if trained else f"the default --{name}"


def weight_names(args: EvaluationArguments, thoughts: Thoughts) -> tuple[str, str]:
    """What messages call the projection's weights and the block's: the flags that named them, else their files."""
    if not args.checkpoint or thoughts.folder is None:
        return FILE_FLAGS
    if thoughts.files == [thoughts.folder / RESUME_FILE]:
        return str(thoughts.files[0]), str(thoughts.files[0])
    return str(thoughts.folder / PARAMS_FILE), str(thoughts.folder / ATT_FILE)


def choose_models(args: EvaluationArguments, thoughts: Thoughts, dtype: str, device: str) -> tuple[ModelSpec, int]:
    """The LMs and the generator, and how many thoughts are injected."""
    record, weights = thoughts.record, thoughts.weights
    trained_ids: dict[str, str | None] = {}
    for name, role in (("base_model_id", "large"), ("assistant_model_id", "small")):
        if record and not getattr(args, name) and (role == "large" or weights is not None):
            trained_ids[name] = record.find_model(role, f"--{name}")
    large, small = (
        LmSource(
            getattr(args, name) or trained_ids.get(name) or DEFAULT_MODEL_IDS[name],
            lm_flag(name, getattr(args, name), trained_ids.get(name)),
            dtype=getattr(torch, dtype),
            device=device,
            trust_remote_code=args.trust_remote_code,
            attn_implementation=args.attn_implementation,
            empty=args.estimate,
        )
        for name in DEFAULT_MODEL_IDS
    )
    kind = args.thought_generator or (record.thought_generator if record else None)
    if weights is None and args.estimate and kind != "none":  # thoughts that are not trained yet
        kind, given = kind or "small_block", args.num_thought_tokens
        num_injected = given or PUBLISHED_NUM_THOUGHTS
        # coconut makes what it injects, each by a pass of its own
        num_thoughts = num_injected if GENERATORS[kind].thinks_in_llm else max(PUBLISHED_NUM_THOUGHTS, num_injected)
    elif weights is None:
        kind, num_thoughts, num_injected = "none", 0, 0
    else:
        kind = kind or find_generator(weights, large, small)
        num_thoughts, num_injected = count_thoughts(args, record, weights)
    spec = ModelSpec(
        large=large,
        small=small if kind != "none" and GENERATORS[kind].uses_small_lm else None,
        kind=kind,
        num_thoughts=num_thoughts,
        design=choose_design(args, record, kind),
        large_part="embeddings" if args.backend == "vllm" else "whole",
    )
    return spec, num_injected


def choose_design(args: EvaluationArguments, record: TrainingRecord | None, kind: str) -> Design:
    """thoughts.json's design, else the published one, with --distinct_slot_ids where it is given.

    InputError where that flag contradicts thoughts.json, or where no small LM reads the slots.
    """
    design, given = record.design if record else PUBLISHED_DESIGN, args.distinct_slot_ids
    if record and given not in (None, design.distinct_slot_ids):
        raise InputError(f"--distinct_slot_ids {given}: the checkpoint's {META_FILE} says {design.distinct_slot_ids}")
    if args.backend == "vllm" and kind == "block" and design.reader_layers:
        raise InputError("--backend vllm: these thoughts read the question through the LLM's layers; use --backend hf")
    if given and (kind == "none" or not GENERATORS[kind].uses_small_lm):
        raise InputError(f"--distinct_slot_ids: the generator {kind} has no small LM that reads them")
    return replace(design, distinct_slot_ids=bool(given) or design.distinct_slot_ids)


def find_generator(weights: GeneratorWeights, large: LmSource, small: LmSource) -> str:
    """The generator that weights without thoughts.json belong to; see infer_generator."""
    if weights.projection is None:
        return infer_generator(weights, 0, 0)  # the LMs' sizes do not matter
    d_large, d_small = (load_config(source).get_text_config().hidden_size for source in (large, small))
    return infer_generator(weights, d_small, d_large)


def count_thoughts(
    args: EvaluationArguments, record: TrainingRecord | None, weights: GeneratorWeights
) -> tuple[int, int]:
    """(num_thoughts, num_injected): N made and n injected. Published weights without a prior do not say their N: it is
    32, the published training's. InputError where more are asked for than are made."""
    given = args.num_thought_tokens
    if record:
        return record.num_thoughts, given or record.num_thoughts
    block = weights.block or {}
    if "marks" in block:
        raise InputError(f"--att_file_name: coconut's marks alone say nothing without {META_FILE}: --checkpoint FOLDER")
    if "prior" in block:
        made = len(block["prior"])
        if given and given > made:
            raise InputError(f"{args.named('num_thought_tokens')}: these weights make only {counted(made, 'thought')}")
        return made, given or made
    if given is None:
        raise InputError(f"--num_thought_tokens is needed: the weights have no {META_FILE} that says it")
    return max(PUBLISHED_NUM_THOUGHTS, given), given


def check_sizes(sizes: Sizes, trained: Sizes) -> None:
    """InputError where the models and flags have other sizes than in training."""
    for name, size in asdict(sizes).items():
        before = getattr(trained, name)
        if before != size:
            raise InputError(f"{META_FILE}: {name} was {before} in training, these models and flags have {size}")


# ---------------------------------------------------------------------------------------------------------------------
# The plan -> models


def load_layout(plan: Plan) -> Layout:
    """The layout of the prompts, from the tokenizers alone."""
    separator, worked = plan.task.separator, plan.worked_examples
    names = plan.names_in_text
    return build_layout(
        plan.spec, plan.prompts, plan.date_string, separator, worked_examples=worked, names_in_text=names
    )


def load_models(plan: Plan, layout: Layout) -> Models:
    """The frozen LLM (its embeddings alone where an engine has the rest), and the thought model before it (None for the
    bare LLM)."""
    models = build_models(plan.spec, layout, plan.weights, plan.adapters)
    if models.thoughts is not None:
        models.thoughts.eval()
        models.thoughts.make_only(plan.num_made)
    return models


def model_settings(plan: Plan, models: Models) -> dict:
    """What the loaded models add to the settings: lm_settings, and the text around the question."""
    return lm_settings(plan, models) | layout_settings(models.layout)


def lm_settings(plan: Plan, models: Models) -> dict:
    """Fingerprints of the frozen LMs, and what they compute: the same for every task. InputError where they are not the
    LMs that the thoughts were trained with."""
    in_engine = plan.backend.name == "vllm"
    tuned = models.thoughts.adapters["base_model"] if "base_model" in plan.adapters and models.thoughts else None
    if isinstance(tuned, AllWeights):
        large = tuned.before
    else:
        large = weights_fingerprint(plan.spec.large, models.llm) if in_engine else fingerprint(models.llm)
    small = fingerprint(models.thoughts.small_lm) if models.thoughts and plan.spec.small else None
    if plan.record:
        check_lms(plan, plan.record, (large, small), models)
    for adapter in plan.adapters.values():  # one that was given without its thoughts lies below their record
        above = adapter.files[0].resolve().parent.parent if adapter.files else None
        if plan.record is None and above and (above / META_FILE).is_file():
            check_lms(plan, TrainingRecord.read(above), (large, small), models)
    states = dict(zip(("large", "small"), models.known_states, strict=True))
    return {"fingerprints": {"large": large, "small": small}, KNOWN_STATES: states}


def layout_settings(layout: Layout) -> dict:
    """The text around the question."""
    texts = {"layout.llm": asdict(layout.llm)}
    return texts if layout.generator_tokenizer is None else texts | {"layout.generator": asdict(layout.generator)}


def check_lms(plan: Plan, record: TrainingRecord, weights: Sequence[str | None], models: Models) -> None:
    """InputError where the LMs are not those of the training. weights: their fingerprints."""
    facts = zip(weights, models.known_states, models.layout.digests, strict=True)
    dtype = plan.dtype if plan.dtype == record.dtype else None
    for source, now, trained in zip((plan.spec.large, plan.spec.small), facts, record.lms, strict=True):
        if source and (other := Identity(*now).differs(trained, dtype)):
            raise InputError(f"{source.model_id}: {other} ({META_FILE})")
