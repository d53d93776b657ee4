"""What an evaluation runs: flags, a checkpoint's thoughts.json and the files' shapes -> a Plan -> the models.

plan = make_plan(args)            # all that needs no LM; whatever does not fit is an InputError
models = load_models(plan)
settings = model_settings(plan, models)
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lta_thinker.build import ModelSpec, build_layout, build_models, choose_device
from lta_thinker.checkpoint import (
    ATT_FILE,
    META_FILE,
    PARAMS_FILE,
    RESUME_FILE,
    GeneratorWeights,
    TrainingRecord,
    check_resume_checkpoint,
    check_weights,
    infer_generator,
    is_resume_checkpoint,
    read_resume_weights,
    read_weights,
)
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS, read_prompts
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.generation.samplers import Backend
from lta_thinker.llm.embeddings import weights_fingerprint
from lta_thinker.llm.frozen import LmSource, fingerprint, load_config
from lta_thinker.llm.lora import ROLES, SavedAdapter, read_adapter, read_resume_adapter
from lta_thinker.model import GENERATORS, PUBLISHED_DESIGN, Models, Sizes
from lta_thinker.rows.examples import Task
from lta_thinker.rows.layout import DATE_STRING

PUBLISHED_NUM_THOUGHTS = 32  # made by published weights, which do not say it themselves
DEFAULT_MODEL_IDS = {"base_model_id": "Qwen/Qwen3-8B", "assistant_model_id": "Qwen/Qwen3-0.6B"}

# ---------------------------------------------------------------------------------------------------------------------
# Flags, thoughts.json and the files' shapes -> what is run; no LM is loaded here


@dataclass(frozen=True)
class Plan:
    """What is evaluated.

    num_injected: n, how many of the spec's N thoughts go into the prompt (0: no thoughts); files: that hold the
    weights; record: the checkpoint's thoughts.json, where there is one; adapters: by role, of the LMs that were tuned.
    """

    spec: ModelSpec
    llm_config: object
    num_injected: int
    weights: GeneratorWeights | None
    files: list[Path]
    prompts: dict[str, str]
    date_string: str
    task: Task
    dtype: str
    backend: Backend
    record: TrainingRecord | None
    adapters: dict[str, SavedAdapter]

    @property
    def thought_generator(self) -> str:
        return self.spec.kind

    @property
    def base_model_id(self) -> str:
        return self.spec.large.model_id

    @property
    def assistant_model_id(self) -> str | None:
        return self.spec.small.model_id if self.spec.small else None


@dataclass(frozen=True)
class Thoughts:
    """Where the thoughts come from: thoughts.json where there is one, and the weight files by the flag that named them
    (one file of --checkpoint where it is a resume checkpoint; none for no thoughts)."""

    record: TrainingRecord | None
    files: dict[str, Path]


def base_name(model_id: str) -> str:
    """The last component of a hub id or a path: weights may have been moved to another folder since training."""
    return model_id.rstrip("/").rpartition("/")[2]


def find_thoughts(args: EvaluationArguments) -> Thoughts:
    """Of --checkpoint, or of the two flags that name files; InputError where they are no one checkpoint."""
    if args.checkpoint:
        return thoughts_of_checkpoint(Path(args.checkpoint), bare=args.thought_generator == "none")
    flags = {"--params_file_name": args.params_file_name, "--att_file_name": args.att_file_name}
    files = {name: Path(path) for name, path in flags.items() if path}
    for name, path in files.items():
        if path.name == RESUME_FILE:
            raise InputError(f"{name} {path}: of a resume checkpoint; use --checkpoint {path.parent}")
    if not any((path.parent / META_FILE).is_file() for path in files.values()):
        return Thoughts(None, files)
    if len({path.parent.resolve() for path in files.values()}) > 1:
        raise InputError("--params_file_name and --att_file_name lie in two folders: they are not one checkpoint")
    return Thoughts(TrainingRecord.read(next(iter(files.values())).parent), files)


def thoughts_of_checkpoint(folder: Path, bare: bool) -> Thoughts:
    """Of a folder in ckpt/ or of a resume checkpoint; `bare`: the weights are not read, only what is said of them."""
    resumable = is_resume_checkpoint(folder)
    if resumable:
        check_resume_checkpoint(folder)
    record = TrainingRecord.read(folder)
    if bare:
        return Thoughts(record, {})
    if resumable:
        return Thoughts(record, {"--checkpoint": folder / RESUME_FILE})
    generator, files = GENERATORS[record.thought_generator], {}
    if generator.has_projection:
        files["--params_file_name"] = folder / PARAMS_FILE
    if generator.has_prior:
        files["--att_file_name"] = folder / ATT_FILE
    return Thoughts(record, files)


def check_flags(args: EvaluationArguments, record: TrainingRecord) -> None:
    """InputError where a flag contradicts thoughts.json; a note where it only departs from it."""
    if args.thought_generator not in (None, "none", record.thought_generator):
        trained = record.thought_generator
        raise InputError(f"--thought_generator {args.thought_generator}: the checkpoint's {META_FILE} says {trained}")
    pairs = {"base_model_id": record.large_model_id, "assistant_model_id": record.small_model_id}
    for name, trained in pairs.items():
        given = getattr(args, name)
        if given and trained and base_name(given) != base_name(trained):
            raise InputError(f"--{name} {given}: the checkpoint was trained with {trained}")
    given = args.num_thought_tokens
    if given and args.thought_generator != "none" and given > record.num_thoughts:
        raise InputError(f"--num_thought_tokens {given}: this checkpoint makes only {record.num_thoughts} thoughts")
    departures = {
        "task_name": (args.task_name or record.task_name, record.task_name),
        "dtype": (record.dtype if args.dtype == "auto" else args.dtype, record.dtype),
    }
    for name, (now, trained) in departures.items():
        if now != trained:
            print(f"note: --{name} {now}; the thoughts were trained with {trained}")


def find_adapters(args: EvaluationArguments, kind: str, thoughts: Thoughts) -> dict[str, SavedAdapter]:
    """By role: the flags' adapters, else those that the thoughts were trained with. InputError where they are missing,
    or contradict thoughts.json."""
    record = thoughts.record
    tuned = (record.tuned or {}) if record else {}
    given = {role: getattr(args, f"{role}_ckpt") for role in ROLES if getattr(args, f"{role}_ckpt")}
    check_adapter_flags(args, kind, record, given, tuned)
    found = {role: read_adapter(Path(folder), f"--{role}_ckpt") for role, folder in given.items()}
    if kind == "none":
        return found
    for role in tuned:
        if "--checkpoint" in thoughts.files:
            model_id = record.large_model_id if role == "base_model" else record.small_model_id
            found[role] = read_resume_adapter(thoughts.files["--checkpoint"], role, tuned[role], model_id)
        elif role not in found:
            beside = next(iter(thoughts.files.values())).parent / role
            found[role] = read_adapter(beside, f"{META_FILE} says that the thoughts were trained with an adapter,")
    return found


def check_adapter_flags(
    args: EvaluationArguments, kind: str, record: TrainingRecord | None, given: dict[str, str], tuned: dict
) -> None:
    """InputError where the given adapters (folders by role) fit neither the generator, the training nor the backend."""
    if kind != "none" and "assistant_model" in given and not GENERATORS[kind].uses_small_lm:
        raise InputError(f"--assistant_model_ckpt: the generator {kind} has no small LM")
    if kind == "none" and "base_model" in tuned and not given:
        print("note: --thought_generator none: the bare LLM, without the adapter that the checkpoint has for it")
    if kind != "none" and record:
        for role, folder in given.items():
            if role not in tuned:
                said = f"{META_FILE} says that these thoughts were trained with the bare LM"
                raise InputError(f"--{role}_ckpt {folder}: {said}")
    if args.backend == "vllm" and ("base_model" in given or ("base_model" in tuned and kind != "none")):
        raise InputError("--backend vllm: the engine has the bare LLM, and here it is tuned; use --backend hf")


def read_generator_weights(thoughts: Thoughts) -> GeneratorWeights | None:
    """The weights, None for no thoughts."""
    if "--checkpoint" in thoughts.files:
        return read_resume_weights(thoughts.files["--checkpoint"])
    if not thoughts.files:
        return None
    flags = ("--params_file_name", "--att_file_name")
    files = [thoughts.files.get(flag) for flag in flags]
    return GeneratorWeights(*(path and read_weights(path, flag) for path, flag in zip(files, flags, strict=True)))


def make_plan(args: EvaluationArguments, device: str | None = None) -> Plan:
    """Settle everything that needs no LM; device: None for choose_device's. Raises InputError for whatever does not fit
    together."""
    thoughts = find_thoughts(args)
    record = thoughts.record
    if record:
        check_flags(args, record)
    elif not thoughts.files and args.thought_generator != "none":
        raise InputError("which thoughts? --checkpoint, or --params_file_name, or --thought_generator none")
    dtype, device = lm_dtype(args, record), device or choose_device(args.backend)

    def source(name: str, trained: str | None) -> LmSource:
        return LmSource(
            getattr(args, name) or trained or DEFAULT_MODEL_IDS[name],
            f"--{name}",
            dtype=getattr(torch, dtype),
            device=device,
            trust_remote_code=args.trust_remote_code,
            attn_implementation=args.attn_implementation,
        )

    large = source("base_model_id", record and record.large_model_id)
    small = source("assistant_model_id", record and record.small_model_id)
    task_name = args.task_name or (record.task_name if record else "gsm8k")
    own_task = record.own_task if record and task_name == record.task_name else None
    task = args.resolve_task(task_name, own_task)
    weights = read_generator_weights(thoughts)

    kind = args.thought_generator or (record and record.thought_generator)
    if kind is None and weights.projection is None:
        kind = infer_generator(weights, 0, 0)  # of a prompt there are no sizes to look at
    llm_config, small_config = load_config(large), None
    if kind is None or (kind != "none" and GENERATORS[kind].uses_small_lm):
        small_config = load_config(small)
    if kind is None:
        widths = [config.get_text_config().hidden_size for config in (small_config, llm_config)]
        kind = infer_generator(weights, *widths)
    if kind == "none" or not GENERATORS[kind].uses_small_lm:
        small = small_config = None
    num_thoughts, num_injected = (0, 0) if kind == "none" else count_thoughts(args, record, weights)
    spec = ModelSpec(
        large=large,
        small=small,
        kind=kind,
        num_thoughts=num_thoughts,
        design=record.design if record else PUBLISHED_DESIGN,
        large_part="embeddings" if args.backend == "vllm" else "whole",
    )
    if kind != "none":
        check_sizes(spec, spec.sizes(llm_config, small_config), weights, record)
    return Plan(
        spec=spec,
        llm_config=llm_config,
        num_injected=num_injected,
        weights=weights,
        files=list(thoughts.files.values()),
        prompts=choose_prompts(args, task, record),
        date_string=(record.date_string if record else "") or DATE_STRING,
        task=task,
        dtype=dtype,
        backend=Backend(
            name=args.backend,
            model_id=large.model_id,
            dtype=dtype,
            trust_remote_code=args.trust_remote_code,
            tensor_parallel_size=args.tensor_parallel_size,
            data_parallel_size=args.data_parallel_size,
            gpu_memory_utilization=args.gpu_memory_utilization,
            max_model_len=args.max_model_len,
        ),
        record=record,
        adapters=find_adapters(args, kind, thoughts),
    )


def choose_prompts(args: EvaluationArguments, task: Task, record: TrainingRecord | None) -> dict[str, str]:
    """The checkpoint's prompts, the problem's prompt the answer type's where that is another one; --prompt_file wins.

    Prints a note where a prompt is not the one that the thoughts were trained with.
    """
    prompts = PROMPTS[task.answer_type]
    if record:
        other_type = record.answer_type != task.answer_type
        prompts = record.prompts | ({"problem": prompts["problem"]} if other_type else {})
    if args.prompt_file:
        prompts = read_prompts(args.prompt_file, prompts)
    for name in prompts if record else ():
        if prompts[name] != record.prompts[name]:
            print(f"note: the prompt {name!r} is not the one that the thoughts were trained with")
    return prompts


def lm_dtype(args: EvaluationArguments, record: TrainingRecord | None) -> str:
    """The LMs' dtype: --dtype, the training's, or what the machine does well."""
    if args.dtype != "auto":
        return args.dtype
    if record:
        return record.dtype
    return "bfloat16" if torch.cuda.is_available() else "float32"


def count_thoughts(
    args: EvaluationArguments, record: TrainingRecord | None, weights: GeneratorWeights
) -> tuple[int, int]:
    """(N made, n injected). Published weights without a prior do not say their N: 32, the published training's."""
    given = args.num_thought_tokens
    if record:
        return record.num_thoughts, given or record.num_thoughts
    block = weights.block or {}
    if "prior" in block:
        made = len(block["prior"])
        if given and given > made:
            raise InputError(f"--num_thought_tokens {given}: these weights make only {made} thoughts")
        return made, given or made
    if given is None:
        raise InputError(f"--num_thought_tokens is needed: the weights have no {META_FILE} that says it")
    return max(PUBLISHED_NUM_THOUGHTS, given), given


def check_sizes(spec: ModelSpec, sizes: Sizes, weights: GeneratorWeights, record: TrainingRecord | None) -> None:
    """InputError where models, weights and thoughts.json are of different sizes."""
    for name, size in asdict(sizes).items():
        if record and getattr(record.sizes, name) != size:
            trained = getattr(record.sizes, name)
            raise InputError(f"{META_FILE}: {name} was {trained} in training, these models and flags have {size}")
    check_weights(spec.kind, sizes, weights, spec.design)


# ---------------------------------------------------------------------------------------------------------------------
# The plan -> models


def load_models(plan: Plan) -> Models:
    """The frozen LLM (its embeddings alone where an engine has the rest), the thought model before it (None for
    `none`), and the layout of the prompts."""
    layout = build_layout(plan.spec, plan.prompts, plan.date_string)
    models = build_models(plan.spec, layout, plan.weights, plan.adapters)
    if models.thoughts is not None:
        models.thoughts.eval()
    return models


def model_settings(plan: Plan, models: Models) -> dict:
    """What the loaded models add to the settings: fingerprints of the frozen LMs and the text around the question.

    InputError where they are not the LMs that the thoughts were trained with (told in the same dtype only).
    """
    small_lm = models.thoughts.small_lm if models.thoughts else None
    in_engine = plan.backend.name == "vllm"
    large = weights_fingerprint(plan.spec.large, models.llm) if in_engine else fingerprint(models.llm)
    fingerprints = {"large": large, "small": small_lm and fingerprint(small_lm)}
    if plan.record and plan.record.dtype == plan.dtype:
        ids = (plan.base_model_id, plan.assistant_model_id)
        for model_id, now, trained in zip(ids, fingerprints.values(), plan.record.fingerprints, strict=True):
            if now and now != trained:
                raise InputError(f"{model_id}: not the weights that these thoughts were trained with ({META_FILE})")
    texts = {"layout.llm": asdict(models.layout.llm)}
    if models.layout.generator_tokenizer is not None:
        texts["layout.generator"] = asdict(models.layout.generator)
    return {"fingerprints": fingerprints, **texts}
