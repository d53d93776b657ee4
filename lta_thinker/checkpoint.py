"""Checkpoints on disk: the trained weights, and what evaluation must know of them. Checks whether weights fit.

ckpt/NAME                      projection.bin, TransformerBlock.bin (published names and shapes, float32), thoughts.json
                               where LMs are tuned also the folders base_model, assistant_model (llm/lora.py)
results/RUN/checkpoint-STEP    to resume from: model.safetensors and the rest of Trainer's, thoughts.json, `complete`
"""

import os
import re
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lta_thinker.common import InputError, read_json, read_record, write_json
from lta_thinker.data_loader import PLACEHOLDERS, OwnTask
from lta_thinker.llm.lora import ROLES, Adapter, Lora, write_adapter
from lta_thinker.losses import AlignForm
from lta_thinker.model import GENERATORS, KINDS, PUBLISHED_DESIGN, Design, LatentThoughtModel, Sizes
from lta_thinker.rows.layout import WorkedExample

PARAMS_FILE, ATT_FILE, META_FILE = "projection.bin", "TransformerBlock.bin", "thoughts.json"
CARD_FILE = "README.md"
RESUME_FILE, COMPLETE = "model.safetensors", "complete"  # without `complete`, writing was cut off
DEV_LOSSES_FILE = "dev_losses.jsonl"  # in a run's folder: a line a dev evaluation, the SFT loss of every row
CHECKPOINT_NAME = re.compile(r"checkpoint-\d+")  # Trainer's, of the folder


class GeneratorWeights(NamedTuple):
    """The tensors of the two files by name; None for no such file."""

    projection: dict[str, Tensor] | None  # with the figures of standardized states
    block: dict[str, Tensor] | None  # with the prior


# ---------------------------------------------------------------------------------------------------------------------
# thoughts.json


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """thoughts.json: what evaluation must know of a training, and where the weights come from.

    sizes, design, prompts, worked_examples (--num_fewshot), date_string, dtype, fingerprints (of the large LLM and the
    small LM) and tuned (LoRA's flags by role) decide the thoughts and the prompts. own_task: the flags of a task of the
    user's own. rows: counts and digests of the training and dev rows. dev: step, epoch and dev losses of these weights;
    dev_curve: the same of all dev evaluations so far; best: how these weights were chosen. Fields with a default may be
    missing: evaluation works without them.
    """

    thought_generator: str
    num_thoughts: int
    sizes: Sizes
    design: Design = PUBLISHED_DESIGN
    large_model_id: str
    small_model_id: str | None
    prompts: dict[str, str]
    worked_examples: list[WorkedExample] | None = None
    date_string: str
    task_name: str
    own_task: OwnTask | None = None
    answer_type: str
    loss_weights: dict[str, float] | None = None
    focus_temperature: float | None = None
    align: AlignForm | None = None
    thoughts_see_steps: bool = False
    tuned: dict[str, Lora] | None = None
    dtype: str
    fingerprints: list[str | None]
    seed: int | None = None
    versions: dict[str, str] | None = None
    flags: dict | None = None
    rows: dict[str, dict] | None = None
    dev: dict | None = None
    dev_curve: list[dict] | None = None
    best: dict | None = None

    @property
    def run(self) -> str | None:
        """The training's --output_name, None where the flags are not recorded."""
        return (self.flags or {}).get("output_name")

    @classmethod
    def read(cls, folder: Path) -> "TrainingRecord":
        """The record in a checkpoint's folder; InputError when it is missing, broken, or not what train.py writes."""
        path = folder / META_FILE
        record = read_record(cls, read_json(path), str(path))
        if record.thought_generator not in KINDS:
            raise InputError(f"{path}: {record.thought_generator} is no thought generator")
        if len(record.fingerprints) != 2:
            raise InputError(f"{path}: its fingerprints are not two, of the large LLM and of the small LM")
        if record.prompts.keys() != PLACEHOLDERS.keys():
            raise InputError(f"{path}: its prompts are not {', '.join(PLACEHOLDERS)}")
        if record.dtype not in ("float32", "bfloat16"):
            raise InputError(f"{path}: its dtype is {record.dtype}, not one that train.py writes")
        if not set(record.tuned or {}) <= set(ROLES):
            raise InputError(f"{path}: its `tuned` is not what train.py writes")
        return record

    def write(self, folder: Path) -> None:
        """Write it into a folder, all or nothing. A field that may be missing and is None is left out."""
        values = asdict(self)
        for field in fields(self):
            if field.default is None and field.name != "own_task" and values[field.name] is None:
                del values[field.name]
        write_json(folder / META_FILE, values)


# ---------------------------------------------------------------------------------------------------------------------
# Weights


def read_weights(path: str | Path, flag: str) -> dict[str, Tensor]:
    """A file of plain tensors (torch.load, weights_only) as float32; InputError when it is missing or anything else."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{flag} {path}: no such file") from None
    except Exception:  # on other files the reader fails in a dozen ways, from RuntimeError to struct.error
        raise InputError(f"{flag} {path}: not a PyTorch file of plain tensors") from None
    items = weights.items() if isinstance(weights, dict) else [(None, None)]
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in items):
        raise InputError(f"{flag} {path}: not a state dict")
    return {name: value.float() for name, value in weights.items()}


def read_resume_weights(path: Path) -> GeneratorWeights:
    """What the two .bin files hold, from a resume checkpoint's model.safetensors. InputError when it is missing or
    broken."""
    try:
        state = {name: value for name, value in load_file(path).items() if not name.startswith("adapters.")}
        return split_state({name.removeprefix("generator."): value.float() for name, value in state.items()})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not readable ({error})") from None


def split_state(state: dict[str, Tensor]) -> GeneratorWeights:
    """A generator's state_dict split as its two files have it: the projection with the figures of standardized states,
    the block with the prior."""
    of_projection = ("projection.", "states.")
    projection = {name.removeprefix("projection."): v for name, v in state.items() if name.startswith(of_projection)}
    block = {name.removeprefix("block."): v for name, v in state.items() if not name.startswith(of_projection)}
    return GeneratorWeights(projection or None, block or None)


def infer_generator(weights: GeneratorWeights, d_small: int, d_large: int) -> str:
    """Which generator published weights (no thoughts.json) belong to, from the files and the projection's input size.

    InputError where the sizes leave it open or fit nothing.
    """
    projection, block = weights
    if projection is None:
        if block is not None and block.keys() == {"prior"}:
            return "prompt"
        raise InputError("--att_file_name needs --params_file_name: these weights belong to a projection")
    if "weight" not in projection or projection["weight"].ndim != 2:
        raise InputError("--params_file_name: not a projection (a Linear's `weight` and `bias`)")
    d_in = projection["weight"].shape[1]
    if block is None and d_in == d_large != d_small:
        raise InputError(
            f"--att_file_name: no {ATT_FILE}; this projection takes the large LLM's {d_in} features, so it is of block"
        )
    if block is None:
        return "small"
    if d_small == d_large == d_in:
        raise InputError(
            f"--thought_generator is needed: both LMs have hidden size {d_in}, so the files fit block and small_block"
        )
    if d_in not in (d_small, d_large):
        raise InputError(
            f"--params_file_name: its projection takes {d_in} features; the small LM has {d_small}, the large {d_large}"
        )
    return "block" if d_in == d_large else "small_block"


def check_weights(
    kind: str,
    sizes: Sizes,
    weights: GeneratorWeights,
    design: Design = PUBLISHED_DESIGN,
    names: tuple[str, str] = ("--params_file_name", "--att_file_name"),
) -> None:
    """InputError in one line where weights do not fit the generator; needs no LM. The key `prior` is optional, except
    in a prompt, which has nothing else. names: of the projection's weights and the block's, for the message."""
    with torch.device("meta"):
        generator = GENERATORS[kind](sizes, design)
    files = ((names[0], PARAMS_FILE, weights.projection), (names[1], ATT_FILE, weights.block))
    for (flag, file, given), wanted in zip(files, split_state(generator.state_dict()), strict=True):
        if given is None and wanted is None:
            continue
        if given is None or wanted is None:
            needed = "takes no" if wanted is None else "needs"
            raise InputError(f"{flag}: the generator {kind} {needed} {file}")
        if "prior" not in given and generator.has_block:
            wanted.pop("prior", None)
        for name in sorted(wanted.keys() ^ given.keys()):
            raise InputError(f"{flag}: {'no' if name in wanted else 'unknown'} tensor {name} for the generator {kind}")
        for name, tensor in wanted.items():
            if not given[name].isfinite().all():
                raise InputError(f"{flag}: tensor {name} holds values that are not finite")
            if tensor.shape != given[name].shape:
                got, need = tuple(given[name].shape), tuple(tensor.shape)
                raise InputError(f"{flag}: tensor {name} is {got}, the generator {kind} of these models has {need}")


def load_weights(model: LatentThoughtModel, weights: GeneratorWeights) -> None:
    """Put weights that have passed check_weights into the model's generator; without `prior` its initial rows stay."""
    state: dict[str, Any] = {}
    for name, value in (weights.projection or {}).items():
        state[name if name.startswith("states.") else f"projection.{name}"] = value
    for name, value in (weights.block or {}).items():
        state[name if name == "prior" else f"block.{name}"] = value
    if model.generator.has_prior and "prior" not in state:
        print(f"note: no learnable prior in {ATT_FILE}; the slots keep the generator's initial rows")
        state["prior"] = model.generator.prior
    model.generator.load_state_dict(state)


def save_checkpoint(folder: Path, model: LatentThoughtModel, record: TrainingRecord) -> None:
    """Write the generator's files, the adapters and thoughts.json into `folder`, in place of what it has: all or
    nothing (rename at the end)."""
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: value.detach().cpu().clone() for name, value in model.generator.state_dict().items()}
    for name, state in zip((PARAMS_FILE, ATT_FILE), split_state(weights), strict=True):
        if state:
            torch.save(state, partial / name)
    for role, adapter in model.adapters.items():
        assert isinstance(adapter, Adapter)
        write_adapter(partial / role, adapter)
    record.write(partial)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # a killed run may have left one
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


def is_resume_checkpoint(folder: Path) -> bool:
    """Whether Trainer wrote the folder; it may have been copied to another name."""
    return (folder / RESUME_FILE).is_file()


def check_resume_checkpoint(folder: Path) -> None:
    """InputError where a resume checkpoint was not written to its end."""
    if not (folder / COMPLETE).is_file():
        raise InputError(f"{folder / COMPLETE}: no such file; the checkpoint was cut off while it was written")


def complete_checkpoints(run: Path) -> list[Path]:
    """The complete resume checkpoints in results/<output_name>/, by step."""
    folders = [path.parent for path in run.glob(f"checkpoint-*/{COMPLETE}")]
    return sorted((folder for folder in folders if CHECKPOINT_NAME.fullmatch(folder.name)), key=step_of)


def step_of(folder: Path) -> int:
    """The optimiser step of a folder checkpoint-STEP."""
    return int(folder.name.split("-")[1])


def run_checkpoints(output_name: str) -> list[Path]:
    """A run's weights that can be evaluated, by step: its complete resume checkpoints, and its folder in ckpt/ where
    that step has none. InputError where there are none."""
    run = Path("results", output_name)
    by_step = {step_of(folder): folder for folder in complete_checkpoints(run)}
    for path in Path("ckpt").glob(f"{output_name}-*/{META_FILE}"):
        if path.parent.suffix in (".partial", ".old"):  # a killed save_checkpoint left it
            continue
        try:
            record = TrainingRecord.read(path.parent)
        except InputError:  # another program's folder, whose name begins in the same way
            continue
        if record.run == output_name and record.best is not None:
            by_step.setdefault(record.best["step"], path.parent)
    if not by_step:
        what = "no complete checkpoint in it" if run.is_dir() else "no such run"
        raise InputError(f"{run}: {what}, and none of its weights in ckpt/; a run is train.py's --output_name")
    return [by_step[step] for step in sorted(by_step)]
