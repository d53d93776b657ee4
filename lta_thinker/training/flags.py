"""Flags of train.py: this program's own, and Hugging Face's TrainingArguments under their own names."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import Field, dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import TrainingArguments

from lta_thinker.build import ModelSpec
from lta_thinker.common import InputError
from lta_thinker.console import departures
from lta_thinker.data_loader import PROMPTS, read_prompts
from lta_thinker.flags import LARGEST, RUN_NAME, TaskArguments, check_ranges
from lta_thinker.llm.frozen import LmSource
from lta_thinker.llm.lora import LORA_FLAGS, ROLES, Lora, check_peft
from lta_thinker.losses import LOSSES, AlignForm, Objective
from lta_thinker.model import KINDS, Design
from lta_thinker.names import TABLE_TRACKERS
from lta_thinker.training.curriculum import Curriculum, Form, in_stages
from lta_thinker.training.declared import REFUSED, SET_HERE, TrainFlags

# the library's flags that decide no weights: they may differ between a run and its resumption
LIBRARY_FREE = {"disable_tqdm", "local_rank", "use_cpu", "prediction_loss_only", "eval_accumulation_steps"}
LIBRARY_FREE_PREFIXES = ("log", "hub_", "push_", "save_", "trackio", "ddp_", "do_", "include_", "skip_", "torch_empty")
LIBRARY_FREE_PREFIXES += ("dataloader_n", "dataloader_p", "dataloader_m", "eval_do", "eval_use")
CHECKPOINTING = {"gradient_checkpointing", "activation_checkpointing"}  # the second is of transformers 5.23
# of --adam_epsilon: below it a gradient whose square is 0 in float32 makes steps without bound
LEAST_EPSILON = 1e-20
# what it raises where its flags are at fault; a full GPU and faults of this program are none of these
LIBRARY_ERRORS = (ValueError, TypeError, ImportError, KeyError, NotImplementedError, AttributeError, ArithmeticError)


@dataclass
class TrainArguments(TrainFlags, TrainingArguments):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Flags of train.py; those of Hugging Face's TrainingArguments pass through under their own names."""

    def __post_init__(self):
        self.departures = departures(self)  # before other flags and the machine fill in the rest
        self._refuse()
        self._check()
        self.output_dir = f"results/{self.output_name}"
        self.use_cpu = not torch.cuda.is_available() or self.use_cpu  # torchrun without a GPU: gloo
        on_cuda = not self.use_cpu
        in_bf16 = (on_cuda or self.estimate) and not self.full_tuning if self.bf16 is None else self.bf16
        self.dtype = "bfloat16" if in_bf16 else "float32"
        self.bf16 = False  # Trainer's autocast would also change the frozen LMs; the model has its own
        self.recompute_layers = self._recompute_layers()
        self.save_strategy = self.eval_strategy
        if self.eval_strategy == "steps":
            self.eval_steps = self.save_steps = self.eval_steps or self.logging_steps
        self.load_best_model_at_end = True
        self.metric_for_best_model = f"eval_{self.best_metric}"
        self.greater_is_better = self.best_metric == "accuracy"
        self.remove_unused_columns = False
        self.dataloader_pin_memory = on_cuda
        self.dataloader_persistent_workers = self.dataloader_num_workers > 0  # a worker takes seconds to start
        self.ddp_find_unused_parameters = False
        self.logging_nan_inf_filter = False
        for name in ("WANDB_DIR", "TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR"):
            os.environ.setdefault(name, f"logs/{self.output_name}")
        os.environ.setdefault("WANDB_PROJECT", self.project)
        self.run_name = self.run_name or self.output_name
        if Version(transformers.__version__) < Version("5"):
            self.logging_dir = f"logs/{self.output_name}"
        with library_flags(self):
            super().__post_init__()
        # the library would remove checkpoints before newer ones are complete: the Trainer here sees to the limit
        self.checkpoint_limit, self.save_total_limit = self.save_total_limit, None
        self._check_trackers()
        self._n_gpu = min(self.n_gpu, 1)  # plain `python` uses one GPU; several are for torchrun

    def _refuse(self):
        defaults = {item.name: item.default for item in fields(self)}  # of this version of the library
        for name, reason in REFUSED.items():
            if name in defaults and getattr(self, name) != defaults[name]:
                raise InputError(f"--{name} is not for this program: {reason}")

    def _check_trackers(self):
        # imported here: it imports all of transformers' model code, which --help does not need
        from transformers.integrations.integration_utils import get_reporting_integration_callbacks

        try:
            for tracker in get_reporting_integration_callbacks(self.report_to):
                tracker()  # Trainer does so too, but only after the LMs are loaded
        except (ValueError, RuntimeError) as error:  # RuntimeError: it is not installed
            raise InputError(f"--report_to: {' '.join(str(error).split())}") from None
        if self.log_texts and not self.table_trackers:
            wanted = " or ".join(TABLE_TRACKERS)
            raise InputError(f"--log_texts {self.log_texts}: needs a tracker that holds tables, --report_to {wanted}")

    def _recompute_layers(self) -> bool:
        """--gradient_checkpointing, in transformers 5.23 also --activation_checkpointing: the model does it, not the
        Trainer, whose hook differs between versions."""
        names = CHECKPOINTING & {item.name for item in fields(self)}
        wanted = any(getattr(self, name) for name in names)
        for name in names:
            setattr(self, name, False)
        return wanted

    def _check_library_numbers(self):
        """The library takes any number for most of its flags, and does what it can with it."""
        for item in fields(TrainingArguments):
            name, value, lowest = item.name, getattr(self, item.name), 0
            if isinstance(item.default, int | float) and item.default < 0:
                lowest = item.default  # -1 stands for "not given"
            if not isinstance(value, int | float) or not item.init or name in TrainFlags.__annotations__:
                continue  # of this program's own check_ranges sees to it
            if not math.isfinite(value):
                raise InputError(f"--{name} {value}: must be finite")
            if value < lowest:
                raise InputError(f"--{name} {value}: must be at least {lowest}")
            if isinstance(value, int) and value > LARGEST:
                raise InputError(f"--{name} {value}: must be at most {LARGEST:,}")
        for name in ("max_steps", "eval_steps", "dataloader_prefetch_factor"):
            if getattr(self, name) == 0:
                raise InputError(f"--{name} 0: must be above 0")
        if self.adam_epsilon < LEAST_EPSILON:
            raise InputError(f"--adam_epsilon {self.adam_epsilon}: must be at least {LEAST_EPSILON}")

    def _check(self):
        for name in ("large_model_id", "small_model_id", "data_dir"):
            if not getattr(self, name).strip():
                raise InputError(f"--{name} is empty")
        self._check_library_numbers()
        self.check_estimate()
        if self.estimate and not self.output_name:  # nothing is written
            self.output_name = "estimate"
        if not RUN_NAME.fullmatch(self.output_name or ""):
            given = f" {self.output_name}" if self.output_name else " is required"
            raise InputError(f"--output_name{given}: letters, digits, '.', '_' and '-' that name the run's folders")
        if self.use_assistant_model and self.thought_generator not in (None, "small"):
            raise InputError(f"--use_assistant_model means small, --thought_generator says {self.thought_generator}")
        if self.use_assistant_model:
            self.thought_generator = "small"
        self.thought_generator = self.thought_generator or "small_block"
        self.tune_base_model |= self.full_tuning
        if self.thought_generator == "none" and not self.tune_base_model:
            raise InputError(
                "--thought_generator none: there is nothing to train without --tune_base_model; evaluate.py runs it as "
                "it is"
            )
        generator = KINDS[self.thought_generator]
        for name in ("align_loss_weight", "focus_loss_weight"):
            if getattr(self, name) is None:  # SoftCoT and a constant prompt are trained by the SFT loss alone
                has_steps = not (self.answer_only and name == "focus_loss_weight")
                setattr(self, name, 0.33 if generator.has_block and has_steps else 0.0)
        check_ranges(self)
        if self.thought_generator == "none":
            self._check_without_thoughts()
        self._check_coconut(generator)
        self._check_curriculum()
        self._check_design(generator)
        self._check_tuning(generator)
        self._check_length_of_run()
        self._check_start(generator)
        self.task = self.resolve_task(self.task_name)
        self.prompts = PROMPTS[self.task.answer_type]
        if self.prompt_file:
            self.prompts = read_prompts(self.prompt_file, self.prompts)

    def _check_without_thoughts(self):
        for name in ("num_thought_chains", "match_scale", "freeze_prior", "params_file_name", "att_file_name"):
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise InputError(f"--{name}: it is about thoughts, and --thought_generator none makes none")

    def _check_coconut(self, generator: Any):
        if not generator.thinks_in_llm:
            return
        kind = self.thought_generator
        if not self.tune_base_model:
            raise InputError(f"--thought_generator {kind}: what learns is the LLM; --tune_base_model or --full_tuning")
        declared = type(self).__dataclass_fields__
        names = ["num_thought_chains", "match_scale", "freeze_prior", "params_file_name", "att_file_name"]
        given = [name for name in (*names, "reader_layers") if getattr(self, name) != declared[name].default]
        for name in given:
            raise InputError(f"--{name}: not with --thought_generator {kind}, whose thoughts the LLM makes")

    def _check_curriculum(self):
        """Settle the stages, their forms (self.curriculum) and the number of thoughts."""
        kind, given = self.thought_generator, self.num_thought_tokens
        if self.coconut_stages and kind not in ("coconut", "prompt"):
            raise InputError(
                f"--coconut_stages {self.coconut_stages}: of coconut and prompt; {kind} makes all N at once"
            )
        if self.coconut_stages is None:
            self.coconut_stages = 3 if kind == "coconut" and not self.answer_only else 0
        if self.answer_only and (self.focus_loss_weight or self.thoughts_see_steps):
            raise InputError("--answer_only leaves no steps for L_focus and for thoughts: --focus_loss_weight 0")
        if not self.coconut_stages:
            for name in ("thoughts_per_step", "epochs_per_stage", "coconut_mix"):
                if getattr(self, name):
                    raise InputError(f"--{name}: there are no stages without --coconut_stages")
            self.num_thought_tokens = 0 if kind == "none" else given or 32
            self.curriculum = Curriculum((Form(None if self.answer_only else 0, self.num_thought_tokens),))
            return
        if not self.tune_base_model:
            what = f"--coconut_stages {self.coconut_stages}"
            raise InputError(f"{what}: the LLM learns in stages; --tune_base_model or --full_tuning")
        if self.answer_only:
            raise InputError("--answer_only with --coconut_stages: the last stage is of the answer alone already")
        if self.max_steps > 0:
            raise InputError(f"--max_steps {self.max_steps}: stages are counted in epochs (--n_epochs)")
        stages = self.coconut_stages + 2
        self.thoughts_per_step = self.thoughts_per_step or 2
        self.epochs_per_stage = self.epochs_per_stage or max(1, int(self.num_train_epochs / stages))
        if self.num_train_epochs <= (stages - 1) * self.epochs_per_stage:
            needed = f"{stages - 1} x {self.epochs_per_stage} epochs go before the last of the {stages} stages"
            raise InputError(f"--n_epochs {self.num_train_epochs:g}: {needed}; more epochs, or fewer --coconut_stages")
        self.num_thought_tokens = self.coconut_stages * self.thoughts_per_step
        if given not in (None, self.num_thought_tokens):
            what = f"--coconut_stages {self.coconut_stages} x --thoughts_per_step {self.thoughts_per_step}"
            raise InputError(f"--num_thought_tokens {given}: {what} are {self.num_thought_tokens} thoughts")
        self.curriculum = in_stages(
            self.coconut_stages, self.thoughts_per_step, self.epochs_per_stage, self.coconut_mix
        )

    def _check_length_of_run(self):
        if self.per_device_eval_batch_size < 1:
            raise InputError(f"--per_device_eval_batch_size {self.per_device_eval_batch_size}: must be at least 1")
        if self.warmup_steps != int(self.warmup_steps):
            raise InputError(f"--warmup_steps {self.warmup_steps}: whole steps; a share is --warmup_ratio")
        if self.eval_steps is not None and self.eval_strategy != "steps":
            raise InputError(f"--eval_steps {self.eval_steps}: needs --eval_strategy steps")
        for wanted, given in (
            ("--best_metric accuracy", self.best_metric == "accuracy"),
            ("--log_texts", self.log_texts),
        ):
            if self.shard_llm and given:
                raise InputError(f"{wanted} with --shard_llm: ranks would wait for each other at every token")

    def _check_start(self, generator: Any):
        given = [bool(self.params_file_name), bool(self.att_file_name)]
        needed = [generator.has_projection, generator.has_prior]
        if not any(given):
            return
        if given != needed:
            flags = zip(("--params_file_name", "--att_file_name"), needed, strict=True)
            names = " and ".join(name for name, is_needed in flags if is_needed)
            raise InputError(f"{self.thought_generator} starts from {names}, or from neither file")

    def _check_design(self, generator: Any):
        kind, weights = self.thought_generator, self.loss_weights
        if not any(weights.values()):
            raise InputError("--sft_loss_weight 0: one of the losses must have a weight above 0")
        if not generator.has_z and (weights["align"] or weights["focus"]):
            why = "makes no z of the question" if generator.reads_question else "reads no question"
            raise InputError(f"--thought_generator {kind} {why}: --align_loss_weight 0 --focus_loss_weight 0")
        if not generator.has_block and (self.num_blocks > 1 or self.projection or self.block_positions):
            flags = "--num_blocks, --projection, --block_positions"
            raise InputError(f"{flags}: the generator {kind} has no TransformerBlock")
        if self.standardize_states and not generator.uses_small_lm:
            raise InputError(f"--standardize_states: the generator {kind} reads no small LM")
        self._check_reader(generator)
        if weights["diversity"] and self.num_thought_chains == 1:
            raise InputError("--diversity_loss_weight needs --num_thought_chains above 1")
        if self.freeze_prior and not generator.has_projection:
            raise InputError(f"--freeze_prior: the generator {kind} is nothing but its prior")
        for name in ("thoughts_see_steps", "steps_as_turns"):
            if getattr(self, name) and not generator.has_z:
                what = "steps" if generator.reads_question else "question and no steps"
                raise InputError(f"--{name}: the generator {kind} reads no {what}")
        if self.distinct_slot_ids and not generator.uses_small_lm:
            raise InputError(f"--distinct_slot_ids: the generator {kind} has no small LM that reads them")
        if self.distinct_slot_ids and self.num_thought_chains > 1:
            raise InputError(
                "--distinct_slot_ids: several chains have a token each; --distinct_slot_ids False goes with them"
            )
        if not weights["align"] and replace(self.objective.align, stop_question=False) != AlignForm():
            raise InputError("--align_temperature, --align_mean, ...: nothing is aligned without --align_loss_weight")
        if self.decay_extra_losses and not any(weight for name, weight in weights.items() if name != "sft"):
            raise InputError("--decay_extra_losses: no loss but the SFT loss has a weight")

    def _check_reader(self, generator: Any):
        least = 1 if generator.uses_small_lm else 0
        if self.reader_layers is None:
            return
        if not generator.reads_question:
            raise InputError(f"--reader_layers: the generator {self.thought_generator} reads nothing")
        if self.reader_layers < least:
            raise InputError(f"--reader_layers {self.reader_layers}: must be at least {least}")
        if self.shard_llm and not generator.uses_small_lm and self.reader_layers:
            raise InputError("--reader_layers with --shard_llm: block cannot read through a sharded LLM")

    def _check_tuning(self, generator: Any):
        values = {name: getattr(self, f"lora_{name}") for name in LORA_FLAGS}
        given = {name: value for name, value in values.items() if value is not None}
        tuned = [role for role in ROLES if getattr(self, f"tune_{role}")]
        self.adapters = dict.fromkeys(tuned, Lora(**given))  # what is put into the LMs, by role
        if self.full_tuning:
            self.adapters["base_model"] = Lora(full=True)
            if self.bf16:
                raise InputError("--full_tuning with --bf16: small steps are lost in bf16 weights; --bf16 False")
        loras = [role for role in tuned if not self.adapters[role].full]
        for name in given if not loras else ():
            where = "--tune_base_model or --tune_assistant_model"
            raise InputError(f"--lora_{name}: no adapter is trained without {where} (--full_tuning trains all weights)")
        if not tuned:
            return
        if self.tune_assistant_model and not generator.uses_small_lm:
            raise InputError(f"--tune_assistant_model: the generator {self.thought_generator} has no small LM")
        if self.tune_base_model and not self.sft_loss_weight:
            raise InputError("--tune_base_model with --sft_loss_weight 0: no other loss reads what the large LLM says")
        if self.tune_base_model and self.shard_llm:
            flag = "--full_tuning" if self.full_tuning else "--tune_base_model"
            raise InputError(f"{flag} with --shard_llm: a sharded LLM is not tuned; leave one of both")
        lora = Lora(**given)
        if not all(name.strip() for name in lora.target.split(",")):
            raise InputError(f"--lora_target {lora.target}: names with commas between them")
        for role in loras:
            check_peft(f"--tune_{role}")
            for name in LORA_FLAGS:
                setattr(self, f"lora_{name}", getattr(lora, name))

    @property
    def table_trackers(self) -> list[str]:
        """Those of --report_to that hold a table."""
        return [name for name in TABLE_TRACKERS if name in self.report_to]

    @property
    def run_folder(self) -> Path:
        """results/<output_name>: what the run resumes from."""
        return Path("results", self.output_name)

    @property
    def design(self) -> Design:
        """What is chosen about the generator beyond its kind."""
        names = [item.name for item in fields(Design) if item.name != "num_chains"]
        return Design(self.num_thought_chains, **{name: getattr(self, name) for name in names})

    @property
    def balances(self) -> bool:
        """Whether losses are balanced: without an SFT loss there is nothing to balance the others against."""
        others = [weight for name, weight in self.loss_weights.items() if name != "sft"]
        return self.balance_losses and self.sft_loss_weight > 0 and any(others)

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each of LOSSES."""
        return {name: getattr(self, f"{name}_loss_weight") for name in LOSSES}

    @property
    def objective(self) -> Objective:
        """What training minimises."""
        align = AlignForm(self.align_temperature, self.align_mean, self.align_stop_gradient, self.align_variance_floor)
        return Objective(self.loss_weights, self.focus_temperature, align)

    def _source(self, role: str) -> LmSource:
        """The LM that --large_model_id or --small_model_id names."""
        return LmSource(
            getattr(self, f"{role}_model_id"),
            f"--{role}_model_id",
            dtype=getattr(torch, self.dtype),
            device=self.device,
            trust_remote_code=self.trust_remote_code,
            attn_implementation=self.attn_implementation,
            empty=self.estimate,
        )

    @property
    def spec(self) -> ModelSpec:
        """What the models of the run are made from."""
        return ModelSpec(
            large=self._source("large"),
            small=self._source("small") if KINDS[self.thought_generator].uses_small_lm else None,
            kind=self.thought_generator,
            num_thoughts=self.num_thought_tokens,
            design=self.design,
            objective=self.objective,
            thoughts_see_steps=self.thoughts_see_steps,
            large_part="shard" if self.shard_llm else "whole",
            seed=self.seed,
        )

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """`warmup_ratio` left the library in transformers 5; here it stays."""
        return int(self.warmup_steps) or math.ceil(num_training_steps * self.warmup_ratio)

    def resolved(self) -> dict:
        """Every flag that decides the weights of a run: stored with it, compared when it is resumed."""
        more = {"dtype": self.dtype, "recompute_layers": self.recompute_layers, "world_size": self.world_size}
        return self._values(True) | more

    def free(self) -> dict:
        """The flags that may differ between a run and its resumption, without the hub's token."""
        return self._values(False) | {"save_total_limit": self.checkpoint_limit}

    def _values(self, deciding: bool) -> dict:
        """Plain values of the flags that decide the weights, or of the others; without those that are set from
        others."""
        values = {}
        for item in fields(self):
            unused = item.name.startswith("lora_") and not self.adapters
            secret = item.name.endswith("hub_token")
            if unused or secret or item.name in REFUSED or not item.init or decides_weights(item) != deciding:
                continue
            value = getattr(self, item.name)
            value = value.value if isinstance(value, Enum) else value
            value = json.dumps(value) if isinstance(value, dict) and value else value  # as it is given
            if isinstance(value, str | int | float | None):
                values[item.name] = value
        return values

    def worth_printing(self) -> dict:
        """Of the resolved flags: this program's own (those of a task where they are given), and the library's that are
        not at its defaults."""
        defaults = {item.name: item.default for item in fields(TrainingArguments)}
        defaults |= {item.name: None for item in fields(TaskArguments)}
        for name in TrainFlags.__annotations__:
            defaults.pop(name, None)
        return {
            name: value for name, value in self.resolved().items() if name not in defaults or value != defaults[name]
        }


@contextlib.contextmanager
def library_flags(args: TrainArguments) -> Iterator[None]:
    """Within it what the library says to its own flags is an InputError, with those of them that are given."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        given = []
        for item in fields(TrainingArguments):
            value = getattr(args, item.name, None)
            plain = isinstance(value, str | int | float | dict) and value and value != item.default
            if plain and item.init and item.name not in SET_HERE | REFUSED.keys() | TrainFlags.__annotations__.keys():
                given.append(f"--{item.name} {value.value if isinstance(value, Enum) else value}")
        flags = f" (of Hugging Face's flags there are {', '.join(given)})" if given else ""
        raise InputError(f"{' '.join(str(error).split()) or type(error).__name__:.300}{flags}") from None


def decides_weights(field: Field) -> bool:
    """Whether a flag decides the weights of a run, so that it must not change when the run goes on."""
    if "decides_weights" in field.metadata:  # this program's own
        return field.metadata["decides_weights"]
    return field.name not in LIBRARY_FREE and not field.name.startswith(LIBRARY_FREE_PREFIXES)
