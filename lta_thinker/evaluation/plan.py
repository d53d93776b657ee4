"""What is run: flags, a checkpoint's thoughts.json and the files' shapes -> the LMs and the generator before them.

plan = make_plan(args)                           # all that needs no LM; whatever does not fit is an InputError
llm, model, layout = load_models(plan, trust_remote_code=False, attention=None)
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lta_thinker.checkpoint import (
    ATT_FILE,
    META_FILE,
    PARAMS_FILE,
    RESUME_FILE,
    check_resume_checkpoint,
    check_weights,
    infer_generator,
    is_resume_checkpoint,
    load_weights,
    read_meta,
    read_resume_weights,
    read_weights,
)
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS, read_prompts
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.llm.embeddings import load_embeddings, weights_fingerprint
from lta_thinker.llm.frozen import (
    check_cache,
    check_vocabulary,
    fingerprint,
    load_config,
    load_frozen_lm,
    load_tokenizer,
)
from lta_thinker.llm.lora import ROLES, Lora, SavedAdapter, load_adapter, read_adapter, read_resume_adapter
from lta_thinker.model import GENERATORS, Design, LatentThoughtModel, generator_sizes
from lta_thinker.rows.examples import Task
from lta_thinker.rows.layout import DATE_STRING, Layout, pad_token_id

WEIGHT_FLAGS = ("--params_file_name", "--att_file_name")
PUBLISHED_NUM_THOUGHTS = 32  # made by published weights, which do not say it themselves

# ---------------------------------------------------------------------------------------------------------------------
# Flags, thoughts.json and the files' shapes -> what is run; no LM is loaded here


@dataclass(frozen=True)
class Plan:
    """What is evaluated. `made` is N, `injected` is n; weights are (projection, block)."""

    thought_generator: str
    base_model_id: str
    assistant_model_id: str | None
    llm_config: object
    made: int
    injected: int
    design: Design
    weights: tuple[dict | None, dict | None] | None
    files: list[Path]
    prompts: dict[str, str]
    date_string: str
    task: Task
    dtype: str
    backend: str  # "vllm": an engine of its own has the LLM
    trained: dict | None  # thoughts.json
    adapters: dict[str, SavedAdapter]  # by role, of the LMs that were tuned


def base_name(model_id: str) -> str:
    """The last component of a hub id or a path: weights may have been moved to another folder since training."""
    return model_id.rstrip("/").rpartition("/")[2]


def find_weights(args: EvaluationArguments) -> tuple[dict | None, dict[str, Path]]:
    """(thoughts.json where there is one, the weight files by flag)."""
    if args.checkpoint:
        folder = Path(args.checkpoint)
        files = {"--params_file_name": folder / PARAMS_FILE, "--att_file_name": folder / ATT_FILE}
        if is_resume_checkpoint(folder):
            check_resume_checkpoint(folder)
            files = {"--checkpoint": folder / RESUME_FILE}
        meta = read_checked_meta(folder)
        generator = GENERATORS[meta["thought_generator"]]
        if not generator.has_prior:
            files.pop("--att_file_name", None)
        if not generator.has_projection:
            files.pop("--params_file_name", None)
        return meta, {} if args.thought_generator == "none" else files
    flags = {"--params_file_name": args.params_file_name, "--att_file_name": args.att_file_name}
    files = {name: Path(path) for name, path in flags.items() if path}
    for name, path in files.items():
        if path.name == RESUME_FILE:
            raise InputError(f"{name} {path}: of a resume checkpoint; use --checkpoint {path.parent}")
    if not any((path.parent / META_FILE).is_file() for path in files.values()):
        return None, files
    if len({path.parent.resolve() for path in files.values()}) > 1:
        raise InputError("--params_file_name and --att_file_name lie in two folders: they are not one checkpoint")
    return read_checked_meta(next(iter(files.values())).parent), files


def read_checked_meta(folder: Path) -> dict:
    """thoughts.json with all that is read from it here; InputError where something is missing."""
    meta = read_meta(folder)
    if not isinstance(meta, dict):
        raise InputError(f"{folder / META_FILE}: not a JSON object")
    needed = "thought_generator num_thoughts sizes large_model_id small_model_id prompts date_string task_name dtype"
    for key in [*needed.split(), "answer_type", "fingerprints"]:
        if key not in meta:
            raise InputError(f"{folder / META_FILE}: has no {key}; train.py did not write it")
    if meta["thought_generator"] not in GENERATORS:
        raise InputError(f"{folder / META_FILE}: {meta['thought_generator']} is no thought generator")
    design = meta.get("design", {})
    if design and (not isinstance(design, dict) or design.keys() != vars(Design()).keys()):
        raise InputError(f"{folder / META_FILE}: its design is not one that train.py writes")
    if meta["dtype"] not in ("float32", "bfloat16") or not isinstance(meta["sizes"], dict):
        raise InputError(f"{folder / META_FILE}: its dtype or sizes are not what train.py writes")
    tuned = meta.get("tuned", {})
    known = isinstance(tuned, dict) and tuned.keys() <= {*ROLES}
    if not known or any(not isinstance(lora, dict) or lora.keys() != vars(Lora()).keys() for lora in tuned.values()):
        raise InputError(f"{folder / META_FILE}: its `tuned` is not what train.py writes")
    return meta


def agree(args: EvaluationArguments, meta: dict) -> None:
    """InputError where a flag contradicts thoughts.json; a note where it only departs from it."""
    if args.thought_generator not in (None, "none", meta["thought_generator"]):
        said = meta["thought_generator"]
        raise InputError(f"--thought_generator {args.thought_generator}: the checkpoint's {META_FILE} says {said}")
    pairs = {"base_model_id": meta["large_model_id"], "assistant_model_id": meta["small_model_id"]}
    for name, trained in pairs.items():
        given = getattr(args, name)
        if given and trained and base_name(given) != base_name(trained):
            raise InputError(f"--{name} {given}: the checkpoint was trained with {trained}")
    if args.num_thought_tokens and args.thought_generator != "none" and args.num_thought_tokens > meta["num_thoughts"]:
        made = meta["num_thoughts"]
        raise InputError(f"--num_thought_tokens {args.num_thought_tokens}: this checkpoint makes only {made} thoughts")
    departures = {
        "task_name": (args.task_name or meta["task_name"], meta["task_name"]),
        "dtype": (meta["dtype"] if args.dtype == "auto" else args.dtype, meta["dtype"]),
    }
    for name, (now, trained) in departures.items():
        if now != trained:
            print(f"note: --{name} {now}; the thoughts were trained with {trained}")


def find_adapters(args: EvaluationArguments, kind: str, meta: dict | None, files: dict) -> dict[str, SavedAdapter]:
    """By role: the flags' adapters, else those that the thoughts were trained with. InputError where they are missing,
    or contradict thoughts.json."""
    flags = {role: (f"--{role}_ckpt", getattr(args, f"{role}_ckpt")) for role in ROLES}
    given = {role: (flag, folder) for role, (flag, folder) in flags.items() if folder}
    tuned = (meta or {}).get("tuned", {})
    if kind != "none" and "assistant_model" in given and not GENERATORS[kind].uses_small_lm:
        raise InputError(f"--assistant_model_ckpt: the generator {kind} has no small LM")
    if kind == "none" and "base_model" in tuned and not given:
        print("note: --thought_generator none: the bare LLM, without the adapter that the checkpoint has for it")
    for role, (flag, folder) in given.items() if kind != "none" and meta else ():
        if role not in tuned:
            raise InputError(f"{flag} {folder}: {META_FILE} says that these thoughts were trained with the bare LM")
    if args.backend == "vllm" and ("base_model" in given or ("base_model" in tuned and kind != "none")):
        raise InputError("--backend vllm: the engine has the bare LLM, and here it is tuned; use --backend hf")
    found = {role: read_adapter(Path(folder), flag) for role, (flag, folder) in given.items()}
    for role in tuned if kind != "none" else ():
        if "--checkpoint" in files:
            model_id = meta["large_model_id"] if role == "base_model" else meta["small_model_id"]
            found[role] = read_resume_adapter(files["--checkpoint"], role, tuned[role], model_id)
        elif role not in found:
            beside = next(iter(files.values())).parent / role
            found[role] = read_adapter(beside, f"{META_FILE} says that the thoughts were trained with an adapter,")
    return found


def make_plan(args: EvaluationArguments) -> Plan:
    """Settle everything that needs no LM. Raises InputError for whatever does not fit together."""
    meta, files = find_weights(args)
    if meta:
        agree(args, meta)
    elif not files and args.thought_generator != "none":
        raise InputError("which thoughts? --checkpoint, or --params_file_name, or --thought_generator none")
    known = meta or {}
    base_id = args.base_model_id or known.get("large_model_id") or "Qwen/Qwen3-8B"
    small_id = args.assistant_model_id or known.get("small_model_id") or "Qwen/Qwen3-0.6B"
    task_name = args.task_name or known.get("task_name") or "gsm8k"
    task = args.resolve_task(task_name, known.get("own_task") if task_name == known.get("task_name") else None)
    weights = None
    if "--checkpoint" in files:
        weights = read_resume_weights(files["--checkpoint"])
    elif files:
        read = (read_weights(files[flag], flag) if flag in files else None for flag in WEIGHT_FLAGS)
        weights = tuple(read)

    kind = args.thought_generator or known.get("thought_generator")
    if kind is None and weights[0] is None:
        kind = infer_generator(*weights, 0, 0)  # of a prompt there are no sizes to look at
    llm_config = load_config(base_id, "--base_model_id", args.trust_remote_code)
    small_config = None
    if kind is None or (kind != "none" and GENERATORS[kind].uses_small_lm):
        small_config = load_config(small_id, "--assistant_model_id", args.trust_remote_code)
    if kind is None:
        widths = [config.get_text_config().hidden_size for config in (small_config, llm_config)]
        kind = infer_generator(*weights, *widths)
    if kind == "none" or not GENERATORS[kind].uses_small_lm:
        small_id = small_config = None
    made, injected, design = 0, 0, Design(**known.get("design", {}))
    if kind != "none":
        made, injected = count_thoughts(args, meta, weights)
        check_sizes(kind, generator_sizes(llm_config, small_config, made), design, weights, meta)
    return Plan(
        thought_generator=kind,
        base_model_id=base_id,
        assistant_model_id=small_id,
        llm_config=llm_config,
        made=made,
        injected=injected,
        design=design,
        weights=weights,
        files=list(files.values()),
        prompts=choose_prompts(args, task, meta),
        date_string=known.get("date_string") or DATE_STRING,
        task=task,
        dtype=lm_dtype(args, meta),
        backend=args.backend,
        trained=meta,
        adapters=find_adapters(args, kind, meta, files),
    )


def choose_prompts(args: EvaluationArguments, task: Task, meta: dict | None) -> dict[str, str]:
    """The checkpoint's prompts, the problem's prompt the answer type's where that is another one; --prompt_file wins.

    Prints a note where a prompt is not the one that the thoughts were trained with.
    """
    prompts = PROMPTS[task.answer_type]
    if meta:
        prompts = meta["prompts"] | ({} if meta["answer_type"] == task.answer_type else {"problem": prompts["problem"]})
    if args.prompt_file:
        prompts = read_prompts(args.prompt_file, prompts)
    for name in prompts if meta else ():
        if prompts[name] != meta["prompts"][name]:
            print(f"note: the prompt {name!r} is not the one that the thoughts were trained with")
    return prompts


def lm_dtype(args: EvaluationArguments, meta: dict | None) -> str:
    if args.dtype != "auto":
        return args.dtype
    return meta["dtype"] if meta else "bfloat16" if torch.cuda.is_available() else "float32"


def count_thoughts(args: EvaluationArguments, meta: dict | None, weights: tuple) -> tuple[int, int]:
    """(N made, n injected). Published weights without a prior do not say their N: 32, the published training's."""
    given = args.num_thought_tokens
    if meta:
        return meta["num_thoughts"], given or meta["num_thoughts"]
    block = weights[1] or {}
    if "prior" in block:
        made = len(block["prior"])
        if given and given > made:
            raise InputError(f"--num_thought_tokens {given}: these weights make only {made} thoughts")
        return made, given or made
    if given is None:
        raise InputError(f"--num_thought_tokens is needed: the weights have no {META_FILE} that says it")
    return max(PUBLISHED_NUM_THOUGHTS, given), given


def check_sizes(kind: str, sizes, design: Design, weights: tuple, meta: dict | None) -> None:
    """InputError where models, weights and thoughts.json are of different sizes."""
    for name, size in asdict(sizes).items():
        if meta and meta["sizes"].get(name) != size:
            trained = meta["sizes"].get(name)
            raise InputError(f"{META_FILE}: {name} was {trained} in training, these models and flags have {size}")
    check_weights(kind, sizes, *weights, design)


# ---------------------------------------------------------------------------------------------------------------------
# The plan -> models


def choose_device(backend: str = "hf") -> str:
    """This process's GPU ("auto": all that are visible, without torchrun, where the LLM is loaded here), or the CPU."""
    own_gpu = int(os.environ.get("LOCAL_RANK", 0))
    if own_gpu >= torch.cuda.device_count() > 0:
        raise InputError(f"torchrun started more processes than the {torch.cuda.device_count()} visible GPUs")
    if torch.cuda.device_count() > 1 and "LOCAL_RANK" not in os.environ and backend == "hf":
        return "auto"
    return f"cuda:{own_gpu}" if torch.cuda.is_available() else "cpu"


def load_models(
    plan: Plan, trust_remote_code: bool, attention: str | None, device: str | None = None
) -> tuple[object, LatentThoughtModel | None, Layout]:
    """The frozen LLM (its embeddings alone where an engine has the rest), the thought model before it (None for
    `none`), and the layout of the prompts; on `device`, None for choose_device's."""
    dtype, device = getattr(torch, plan.dtype), device or choose_device(plan.backend)
    base, small = (plan.base_model_id, "--base_model_id"), (plan.assistant_model_id, "--assistant_model_id")
    llm_tokenizer = load_tokenizer(*base, trust_remote_code)
    if plan.thought_generator == "none":
        tokenizer = None
    else:
        tokenizer = load_tokenizer(*small, trust_remote_code) if plan.assistant_model_id else llm_tokenizer
    layout = Layout(llm_tokenizer, tokenizer, plan.prompts, plan.date_string)
    if plan.backend == "vllm":
        llm = load_embeddings(*base, dtype, device, trust_remote_code)
    else:
        llm = load_frozen_lm(*base, dtype, device, trust_remote_code, attention)
    check_vocabulary(llm, llm_tokenizer, layout.llm.text, "--base_model_id")
    check_cache(llm, "--base_model_id")
    adapters = {}
    if "base_model" in plan.adapters:
        adapters["base_model"] = load_adapter(llm, plan.adapters["base_model"])
    if plan.thought_generator == "none":
        return llm, None, layout
    device = llm.get_input_embeddings().weight.device
    small_lm = None
    if plan.assistant_model_id:
        small_lm = load_frozen_lm(*small, dtype, device, trust_remote_code, attention)
    if small_lm is not None:
        check_vocabulary(small_lm, tokenizer, layout.generator.text, "--assistant_model_id")
    if "assistant_model" in plan.adapters:
        adapters["assistant_model"] = load_adapter(small_lm, plan.adapters["assistant_model"])
    slot_id = pad_token_id(tokenizer)
    model = LatentThoughtModel(plan.thought_generator, llm, small_lm, plan.made, slot_id, design=plan.design)
    load_weights(model, *plan.weights)
    model.adapters.update(adapters)
    model.generator.to(device)  # adapters stay where their layers are: a large LLM may be spread over devices
    return llm, model.eval(), layout


def model_settings(plan: Plan, models: tuple) -> dict:
    """What the loaded models add to the settings: fingerprints of the frozen LMs and the text around the question.

    InputError where they are not the LMs that the thoughts were trained with (told in the same dtype only).
    """
    llm, model, layout = models
    small_lm = model and model.frozen[1]
    large = (
        fingerprint(llm) if plan.backend == "hf" else weights_fingerprint(plan.base_model_id, "--base_model_id", llm)
    )
    prints = {"large": large, "small": small_lm and fingerprint(small_lm)}
    if plan.trained and plan.trained["dtype"] == plan.dtype:
        ids = {"large": plan.base_model_id, "small": plan.assistant_model_id}
        for (name, now), trained in zip(prints.items(), plan.trained["fingerprints"], strict=True):
            if now and now != trained:
                raise InputError(f"{ids[name]}: not the weights that these thoughts were trained with ({META_FILE})")
    texts = {"layout.llm": asdict(layout.llm)}
    if layout.generator_tokenizer is not None:
        texts["layout.generator"] = asdict(layout.generator)
    return {"fingerprints": prints, **texts}
