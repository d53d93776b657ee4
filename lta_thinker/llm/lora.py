"""LoRA adapters in the LMs (--tune_base_model, --tune_assistant_model), by peft; an LM's own weights stay as they are.
With --full_tuning the large LLM's weights themselves are trained, and take the adapter's place everywhere.

ckpt/NAME/base_model, ckpt/NAME/assistant_model     adapter_model.safetensors, adapter_config.json: as peft writes them
                                                    --full_tuning: model.safetensors, all weights

An adapter is put into a loaded LM in place, so every use of that LM uses the tuned one. Its trained parameters are
registered in LatentThoughtModel.adapters, where optimiser, DDP, checkpoints and train() find them; the LM itself stays
unregistered and in eval mode. peft is imported only where there is an adapter.
"""

import contextlib
import copy
import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lta_thinker.common import InputError, first_line
from lta_thinker.llm.forward import body
from lta_thinker.llm.frozen import fingerprint
from lta_thinker.names import RESUME_FILE

ROLES = ("base_model", "assistant_model")  # the large LLM and the small LM, in LatentThoughtModel.frozen's order
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"  # peft's names
FILE_PREFIX = "base_model.model."  # of all tensors in peft's files
OLDEST_PEFT = "0.18"
# fields of an adapter_config.json that may have any value; all others must have peft's default or be off
CHOICES = {"r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora"}
CHOICES |= {"rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern"}
CHOICES |= {"base_model_name_or_path", "revision", "inference_mode", "task_type", "auto_mapping", "peft_version"}


LORA_FLAGS = ("r", "alpha", "dropout", "target")  # --lora_r, ...


@dataclass(frozen=True)
class Lora:
    """How an LM is tuned: the flags --lora_r, --lora_alpha, --lora_dropout, --lora_target; full: all of its weights
    instead (--full_tuning)."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.1
    target: str = "q_proj,v_proj"
    full: bool = False

    def config(self, model_id: str) -> Any:
        """The flags as peft's LoraConfig, for an LM of this id or folder; None for all weights."""
        if self.full:
            return None
        from peft import LoraConfig

        names = [name.strip() for name in self.target.split(",")]
        return LoraConfig(
            task_type="CAUSAL_LM",
            base_model_name_or_path=model_id,
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=names,
        )


def check_peft(flag: str) -> None:
    """InputError where peft is missing or too old."""
    version = importlib.metadata.version("peft") if importlib.util.find_spec("peft") else None
    if version is None or Version(version) < Version(OLDEST_PEFT):
        problem = f"peft {version} is too old" if version else "peft is missing"
        raise InputError(f'{flag}: {problem}; pip install "peft>={OLDEST_PEFT}"')


class Adapter(nn.Module):
    """The trained part of a tuned LM: lora_A, lora_B and the dropout of each tuned layer, under the layer's own name.
    So a tensor's name is that of peft's file without FILE_PREFIX.

    layers: peft's, by name in the LM; config: peft's LoraConfig.
    """

    def __init__(self, layers: dict[str, Any], config):
        super().__init__()
        self.config = config
        for name, layer in layers.items():
            place: Any = self
            for part in name.split("."):
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place._modules[part]
            for part in ("lora_A", "lora_B", "lora_dropout"):
                place.add_module(part, getattr(layer, part)["default"])


class AllWeights(nn.Module):
    """The trained part of an LM all of whose weights are tuned: these weights, under their names in the LM; one that is
    there twice (a head that is the embedding table) once. before: frozen.fingerprint of the LM as it came."""

    def __init__(self, lm, before: str):
        super().__init__()
        self.before = before
        for name, weight in lm.requires_grad_(True).named_parameters():
            *parts, last = name.split(".")
            place: Any = self
            for part in parts:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place._modules[part]
            place.register_parameter(last, weight)


def inject(lm, config, flag: str, empty: bool = False) -> Adapter:
    """Put a fresh adapter (lora_A random, lora_B zero, both float32) into a frozen LM in place; nothing else of the LM
    changes. empty: the LM is on fake tensors, which peft cannot move. InputError where the LM has no such layers."""
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    inside = {id(module) for module in body(lm).modules() if isinstance(module, nn.Linear)}
    linear = [name for name, module in lm.named_modules() if id(module) in inside]
    targets = config.target_modules
    for target in targets if isinstance(targets, list | set) else ():
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise InputError(f"{flag}: {lm.config.name_or_path} has no linear layer {target!r} to tune; it has {known}")
    try:
        with unset_fake_temporarily() if empty else contextlib.nullcontext():
            inject_adapter_in_model(config, lm)
    except ValueError as error:  # a regular expression in an adapter from elsewhere, that matches no layer
        raise InputError(f"{flag}: {' '.join(str(error).split())}") from None
    lm.eval()  # the injected dropout is in train mode
    layers = {name: layer for name, layer in lm.named_modules() if isinstance(layer, LoraLayer)}
    for name in sorted(layers.keys() - set(linear)):  # the losses use the head's matrix itself, without an adapter
        raise InputError(f"{flag}: it tunes {name}; only linear layers below the head can be tuned")
    adapter = Adapter(layers, config)
    for module in adapter.modules() if empty else ():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(torch.empty(module.weight.shape))
    for weight in () if empty else adapter.parameters():
        weight.data = weight.data.float()  # peft makes them in the LM's dtype
    return adapter


def tune(lm, config, flag: str, empty: bool = False) -> Adapter | AllWeights:
    """`inject`, or without a config AllWeights of the LM (float32 to be trained)."""
    if config is None:
        return AllWeights(lm, "" if empty else fingerprint(lm))
    return inject(lm, config, flag, empty)


# ---------------------------------------------------------------------------------------------------------------------
# On disk


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter as it was read: peft's LoraConfig (None: all weights of an LM) and the tensors by name. flag: the flag
    that named it, for messages; files: the adapter's own files."""

    config: object | None
    state: dict[str, Tensor]
    flag: str
    files: list[Path]


def write_adapter(folder: Path, adapter: Adapter | AllWeights) -> None:
    """Write an adapter into a folder, in peft's format, float32; all weights as safetensors."""
    if isinstance(adapter, AllWeights):
        folder.mkdir()
        state = {name: value.detach().cpu().contiguous() for name, value in adapter.state_dict().items()}
        save_file(state, folder / RESUME_FILE, metadata={"format": "pt"})
        return
    config = copy.copy(adapter.config)
    config.inference_mode = True
    if isinstance(config.target_modules, set):  # a set has no order, and reports compare the file's hash
        config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(folder))
    state = {FILE_PREFIX + name: value.detach().cpu().contiguous() for name, value in adapter.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def read_adapter(folder: Path, flag: str, full: bool | None = None) -> SavedAdapter:
    """Read a folder as write_adapter writes it; full: whether it has all weights of the LM, None: if it has the file of
    them. InputError where it is none, or of another kind than plain LoRA."""
    whole = folder / RESUME_FILE
    if full or (full is None and whole.is_file()):
        if not whole.is_file():
            raise InputError(f"{flag} {whole}: no such file")
        try:
            return SavedAdapter(None, load_file(whole), flag, [whole])
        except (SafetensorError, OSError) as error:
            raise InputError(f"{flag} {whole}: not readable ({first_line(error)})") from None
    check_peft(flag)
    from peft import LoraConfig

    files = [folder / WEIGHTS_FILE, folder / CONFIG_FILE]
    for path in files:
        if not path.is_file():
            raise InputError(f"{flag} {path}: no such file; a LoRA adapter's folder, as train.py writes it, is needed")
    try:
        kind = json.loads(files[1].read_text(encoding="utf-8"))["peft_type"]
        state = load_file(files[0])
        config: Any = LoraConfig.from_pretrained(str(folder)) if kind == "LORA" else None
    except Exception as error:  # broken files fail in many ways, from KeyError to SafetensorError
        raise InputError(f"{flag} {folder}: not the folder of a LoRA adapter ({first_line(error)})") from None
    if config is None:
        raise InputError(f"{flag} {folder}: its {CONFIG_FILE} says {kind}, not LORA")
    plain = LoraConfig(task_type=config.task_type).to_dict()
    for name, value in config.to_dict().items():
        if name not in CHOICES and value not in (plain[name], None, False, "gaussian"):
            raise InputError(f"{flag} {folder}: {name} = {value}; only plain LoRA is read")
    return SavedAdapter(config, {name.removeprefix(FILE_PREFIX): v for name, v in state.items()}, flag, files)


def read_resume_adapter(path: Path, role: str, lora: Lora, model_id: str) -> SavedAdapter:
    """Read a role's adapter from a resume checkpoint's model.safetensors; `lora`: its flags, from thoughts.json.
    Raises InputError where peft is needed and missing."""
    prefix = f"adapters.{role}."
    state = {name.removeprefix(prefix): v for name, v in load_file(path).items() if name.startswith(prefix)}
    if lora.full:
        return SavedAdapter(None, state, "--checkpoint", [])
    check_peft("--checkpoint")
    return SavedAdapter(lora.config(model_id), state, "--checkpoint", [])


def load_adapter(lm, saved: SavedAdapter) -> Adapter | AllWeights:
    """Put a saved adapter into a frozen LM; the adapter is frozen too. InputError where it does not fit."""
    adapter = tune(lm, saved.config, saved.flag)
    wanted, where, whose = adapter.state_dict(), saved.flag, f"in the adapter of {lm.config.name_or_path}"
    if saved.config is None:
        where, whose = " ".join([saved.flag, *map(str, saved.files)]), f"of {lm.config.name_or_path}"
    for name in sorted(wanted.keys() ^ saved.state.keys()):
        raise InputError(f"{where}: {'no' if name in wanted else 'unknown'} tensor {name} {whose}")
    for name, tensor in wanted.items():
        got, need = tuple(saved.state[name].shape), tuple(tensor.shape)
        if got != need:
            raise InputError(f"{where}: tensor {name} is {got}, {lm.config.name_or_path} needs {need}")
        if not saved.state[name].isfinite().all():
            raise InputError(f"{where}: tensor {name} holds values that are not finite")
    adapter.load_state_dict(saved.state)
    return adapter.requires_grad_(False)
