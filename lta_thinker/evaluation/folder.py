"""The output folder of an evaluation: its name, and what must not change in it.

settings.json    all that decides the texts, and the versions of each start; a folder is only continued with the same
samples.jsonl    a line a question, as soon as it is done; several ranks write one file each (samples.py)
report.json      the figures, and graded.jsonl: every answer that they count (report.py)
report.html      both to look at, with the texts (page.py)
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from lta_thinker.checkpoint import CHECKPOINT_NAME
from lta_thinker.common import InputError, flatten, read_json, sha256_of, shortened, write_json
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import Plan, base_name, lm_dtype
from lta_thinker.evaluation.report import ADAPTER_FILES, GRADED_FILE, KNOWN_STATES, REPORT_FILE, Report
from lta_thinker.evaluation.samples import sample_files
from lta_thinker.generation.sampling import SamplingSettings
from lta_thinker.llm.identity import same_states
from lta_thinker.llm.lora import ROLES
from lta_thinker.rows.examples import Example

SETTINGS_FILE = "settings.json"
SAMPLES_FORMAT = 2  # 1 had answers in samples.jsonl, and other noise

# ---------------------------------------------------------------------------------------------------------------------
# Its name


def output_folder(
    args: EvaluationArguments, plan: Plan, sampling: SamplingSettings, usual: SamplingSettings | None
) -> Path:
    """--output_dir, else results/eval-<checkpoint>/[<task>-]<split>-n<n>-x<samples>-seed<seed>, with the task where it
    is not the training's, and what departs from the defaults behind it. usual: the sampling without flags, None where
    there could be none."""
    if args.output_dir:
        return Path(args.output_dir)
    trained_on = plan.record.task_name if plan.record else None
    parts = [plan.task.name] if plan.folder and plan.task.name != trained_on else []
    parts += [args.split, f"n{plan.num_injected}", f"x{args.num_return_sequences}", f"seed{args.seed}"]
    parts += [f"shots{len(plan.worked_examples)}"] if plan.worked_examples else []
    parts += ["greedy"] if args.greedy else []
    for name in ("max_new_tokens", "temperature", "top_p", "top_k", "min_p"):
        if usual is None or getattr(sampling, name) != getattr(usual, name):
            parts.append(f"{name}{getattr(sampling, name):g}")
    for name in ("make_only_n", "distinct_slot_ids"):
        parts += [name] if getattr(args, name) else []
    parts += [plan.dtype] if plan.dtype != lm_dtype("auto", plan.record) else []
    parts += [args.backend] if args.backend != "hf" else []
    parts += [args.attn_implementation.replace("/", "-")] if args.attn_implementation else []
    parts += [f"max_model_len{args.max_model_len}"] if args.max_model_len else []
    parts += [f"prompts-{digest(plan.prompts)[:8]}"] if args.prompt_file else []
    return Path("results") / shortened(f"eval-{checkpoint_name(plan)}") / shortened("-".join(parts))


def checkpoint_name(plan: Plan) -> str:
    """The name of the checkpoint's folder, of a resume checkpoint with the run's before it. Of no checkpoint the LLM's
    and the task's, and the name of the checkpoint whose adapter is in the LLM."""
    if plan.folder:
        folder = plan.folder.resolve()
        return f"{folder.parent.name}-{folder.name}" if CHECKPOINT_NAME.fullmatch(folder.name) else folder.name
    name = f"none-{base_name(plan.spec.large.model_id)}-{plan.task.name}"
    for adapter in plan.adapters.values():
        folder = adapter.files[0].resolve().parent
        name += f"-{folder.parent.name if folder.name in ROLES else folder.name}"
    return name


def digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# settings.json


def text_settings(args: EvaluationArguments, plan: Plan, sampling: SamplingSettings, examples: list[Example]) -> dict:
    """All that decides the texts and needs no LM. A run only goes on in a folder with the same settings.

    examples: all of the split.
    """
    spec, record = plan.spec, plan.record
    # as they were given, wherever their folders are found now: the fingerprints tell which LMs they are
    large = args.base_model_id or (record.large_model_id if record else spec.large.model_id)
    small = args.assistant_model_id or (record.small_model_id if record else spec.small and spec.small.model_id)
    settings = {
        "thought_generator": spec.kind,
        "base_model_id": large,
        "assistant_model_id": small if spec.small else None,
        "prompts": plan.prompts,
        "date_string": plan.date_string,
        "dtype": plan.dtype,
        "backend": plan.backend.name,
        "samples_format": SAMPLES_FORMAT,
    }
    settings |= {path.name: sha256_of(path) for path in plan.files}
    for role, adapter in plan.adapters.items():
        settings |= {f"{role}/{path.name}": sha256_of(path) for path in adapter.files}
        if adapter.config is None:
            settings["full_tuning"] = True
    settings |= {"task_name": plan.task.name, "num_thoughts_made": plan.num_made}
    if spec.design.num_chains > 1:
        settings["num_chains"] = spec.design.num_chains
    if spec.design.distinct_slot_ids:
        settings["distinct_slot_ids"] = True
    if plan.worked_examples:
        settings["num_fewshot"] = len(plan.worked_examples)
        settings["worked_examples"] = digest([asdict(example) for example in plan.worked_examples])
    return settings | {
        "num_thought_tokens": plan.num_injected,
        "split": args.split,
        "questions": digest([(example.index, example.question) for example in examples]),
        "answer_type": plan.task.answer_type,
        "sampling": asdict(sampling),
        "special_tokens_in_text": plan.names_in_text,
        "attn_implementation": args.attn_implementation,
        "max_model_len": args.max_model_len,
    }


# settings that are there only where they say something: an adapter's files, all weights of the LLM, distinct slots,
# worked examples
OPTIONAL = (*ADAPTER_FILES, "full_tuning", "distinct_slot_ids", "num_fewshot", "worked_examples")


def read_settings(folder: Path) -> tuple[dict, list[dict]]:
    """(settings, versions of each start) of a folder's settings.json; InputError where it is not evaluate.py's."""
    path = folder / SETTINGS_FILE
    instead = "; use another --output_dir"
    try:
        values = read_json(path)
    except InputError as error:
        raise InputError(f"{error}{instead}") from None
    starts = values.pop("starts", []) if isinstance(values, dict) else None
    if not isinstance(starts, list) or not all(map(is_versions, starts)) or "backend" not in values:
        raise InputError(f"{path}: not settings that evaluate.py wrote{instead}")
    return values, starts


def is_versions(value) -> bool:
    return isinstance(value, dict) and all(isinstance(version, str) for version in value.values())


def check_folder(folder: Path, settings: dict) -> None:
    """InputError where the folder holds samples made with other values of these settings, or settings.json of another
    program."""
    answered = any(path.stat().st_size for path in sample_files(folder))
    if not (folder / SETTINGS_FILE).exists():
        if answered or (folder / GRADED_FILE).exists():
            what = "samples" if answered else GRADED_FILE
            raise InputError(f"{folder}: has {what} but no {SETTINGS_FILE}; use another --output_dir")
        return
    before, now = flatten(read_settings(folder)[0]), flatten(settings)
    if not answered:
        return  # the next run may have other settings
    for key in [*now, *(key for key in before if key.endswith(OPTIONAL))]:
        if before.get(key) == now.get(key) or key.endswith("_model_id"):  # of the LMs the fingerprints tell
            continue
        if key.startswith(KNOWN_STATES) and same_states(before.get(key), now[key], now["dtype"]):
            continue
        what = f"its samples were made with {key} = {before.get(key)!r}, now it is {now.get(key)!r}"
        if key.startswith(KNOWN_STATES):
            what = "its samples are of an LM of these weights that computes otherwise: its config.json, or a version"
        elif key == "questions":
            what = "its samples are of other questions than the rows now have"
        elif key == "samples_format":
            what = "its samples are another version's, whose noise and lines were others"
        raise InputError(f"{folder}: {what}; use another --output_dir")


def write_start(folder: Path, settings: dict, used: dict[str, str] | None, answered: bool) -> list[dict[str, str]]:
    """Write settings.json. Returns the versions that wrote the folder's answers, a start's behind those of earlier ones
    where they are others.

    used: this start's versions, None where it asks nothing; answered: whether the folder has answers of earlier starts.
    """
    starts = read_settings(folder)[1] if answered else []
    if used is not None and used not in starts[-1:]:
        starts = [*starts, used]
    write_json(folder / SETTINGS_FILE, settings | {"starts": starts})
    return starts


# ---------------------------------------------------------------------------------------------------------------------
# report.json


def check_report(folder: Path, asked: int, replace: bool) -> None:
    """InputError where the folder's report.json is about more than the `asked` questions, or another program's.

    replace: --replace_report.
    """
    path = folder / REPORT_FILE
    if replace or not path.exists():
        return
    try:
        before = Report.read(path).num_questions
    except InputError as error:
        raise InputError(f"{error}; move it away, or use another --output_dir") from None
    if before > asked:
        raise InputError(
            f"{path}: is about {before:,} questions, and would be replaced by a report of {asked:,}; use another "
            "--output_dir, or --replace_report"
        )
