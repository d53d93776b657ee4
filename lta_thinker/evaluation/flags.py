"""Flags of evaluate.py."""

import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

from lta_thinker.common import InputError, ranks
from lta_thinker.flags import (
    ATTENTION_HELP,
    CONFIG_HELP,
    RECIPE_HELP,
    RECIPES,
    RUN_NAME,
    EstimateArguments,
    TaskArguments,
    check_ranges,
    flag,
)
from lta_thinker.names import KIND_NAMES

VLLM_BATCH = "64"  # --batch_size auto with vLLM: thoughts made at a time; the engine makes its own batches
DEFAULT_MODEL_IDS = {"base_model_id": "Qwen/Qwen3-8B", "assistant_model_id": "Qwen/Qwen3-0.6B"}


@dataclass
class EvaluationArguments(TaskArguments, EstimateArguments):
    """Flags of evaluate.py. What thoughts.json says need not be given; a flag that contradicts it is an InputError."""

    checkpoint: str | None = flag(
        None,
        "a run's --output_name, ckpt/NAME or results/RUN/checkpoint-STEP: its thoughts.json has everything",
        group="models",
    )
    base_model_id: str | None = flag(None, "frozen LLM: hub id or folder (thoughts.json's, else Qwen/Qwen3-8B)")
    assistant_model_id: str | None = flag(None, "frozen small LM (thoughts.json's, else Qwen/Qwen3-0.6B)")
    params_file_name: str | None = flag(None, "projection.bin (thoughts.json beside it is read)")
    att_file_name: str | None = flag(None, "TransformerBlock.bin, for generators that have one")
    base_model_ckpt: str | None = flag(None, "LoRA adapter of the large LLM, a folder (default: the checkpoint's)")
    assistant_model_ckpt: str | None = flag(None, "LoRA adapter of the small LM, a folder (default: the checkpoint's)")
    dtype: str = flag(
        "auto", "of the LMs (auto: thoughts.json's, else bfloat16 on CUDA)", choices=["auto", "float32", "bfloat16"]
    )
    attn_implementation: str | None = flag(None, ATTENTION_HELP)
    trust_remote_code: bool = flag(False, "allow the models' own code from the hub")
    task_name: str | None = flag(
        None, "as train.py's, or several with commas between them (default: thoughts.json's, else gsm8k)", group="data"
    )
    split: str = flag("test", "train, dev, test or sample")
    test_k: int = flag(0, "first k questions only; 0: all", at_least=0)
    num_fewshot: int | None = flag(
        None,
        "K worked examples in the LLM's prompt: the first K rows of train (default: thoughts.json's, else 0)",
        at_least=0,
    )
    thought_generator: str | None = flag(
        None,
        "default: thoughts.json's, else found from the files' shapes",
        choices=KIND_NAMES,
        group="method",
    )
    use_assistant_model: bool = flag(False, "another word for --thought_generator small (SoftCoT)")
    num_thought_tokens: int | None = flag(
        None, "thoughts that go into the prompt: the first n of N (default: all N)", at_least=1
    )
    make_only_n: bool = flag(False, "make only the n thoughts that go into the prompt (published), not all N")
    distinct_slot_ids: bool = flag(
        None, "weights without thoughts.json: the small LM reads N distinct tokens at the slots (published), not one"
    )
    recipe: str | None = flag(None, RECIPE_HELP)
    config: str | None = flag(None, CONFIG_HELP)
    num_return_sequences: int = flag(1, "samples a question; the vote is over them", at_least=1, group="sampling")
    max_new_tokens: int | None = flag(None, "longest answer (default 4096, or half of the LLM's positions)")
    temperature: float | None = flag(None, "default: published for the model's family, else its generation_config's")
    top_p: float | None = flag(None, "default: as --temperature")
    top_k: int | None = flag(None, "default: as --temperature; 0: off")
    min_p: float | None = flag(None, "default: as --temperature; 0: off")
    greedy: bool = flag(False, "the likeliest token always, no sampling")
    seed: int = flag(41, "of the sampling noise")
    batch_size: str = flag("4", "questions at a time, or auto: as many as fit into memory")
    backend: str = flag("hf", "what writes the answers: this process (hf) or vLLM's engine", choices=["hf", "vllm"])
    tensor_parallel_size: int | None = flag(
        None, "with --backend vllm: GPUs that an engine's LLM is spread over", at_least=1
    )
    data_parallel_size: int | None = flag(None, "with --backend vllm: engines that share the questions", at_least=1)
    gpu_memory_utilization: float | None = flag(
        None, "with --backend vllm: the engine's share of a GPU's memory (default vLLM's)", above=0, at_most=1
    )
    max_model_len: int | None = flag(
        None, "with --backend vllm: longest prompt and answer together (default: what the questions need)", at_least=1
    )
    mean_new_tokens: int | None = flag(
        None, "with --estimate: tokens of a mean answer (default: of the rows' written solutions)", at_least=1
    )
    output_dir: str | None = flag(
        None,
        "default results/eval-<checkpoint>/<split>-n<n>-x<samples>-seed<seed>, and what departs from the defaults",
        group="output",
    )
    replace_report: bool = flag(False, "let a report of fewer questions replace that of more")
    verbose: bool = flag(False, "print all settings at the start, not only the flags that were given")
    print_input: bool = flag(False, "print every prompt (under torchrun: of rank 0)")
    print_response: bool = flag(False, "print every answer (under torchrun: of rank 0)")
    ask: str | None = flag(
        None, "answer this question, not a split's; nothing is written", group="instead of an evaluation"
    )
    inspect: int = flag(
        0,
        "look inside the thoughts of the first K questions: words, scale, attention, swaps",
        at_least=0,
    )
    compare: list[str] | None = flag(None, "only compare two reports (paired difference, second minus first)")
    rank: list[str] | None = flag(None, "only rank reports of one set of questions, best vote first")
    regrade: list[str] | None = flag(
        None, "only find the answers of old evaluations anew, in these folders, and write their reports anew"
    )
    plot: list[str] | None = flag(None, "only draw runs side by side: losses, maj@k of each --output_name or report")
    list_tasks: bool = flag(False, "only list the tasks, and where their rows are found")
    checkpoints_of: str | None = flag(None, "only list the checkpoints of the run with this --output_name, by step")

    def __post_init__(self):
        for item in fields(self):
            value = getattr(self, item.name)
            if value == "" and item.name != "ask":
                raise InputError(f"--{item.name} '': nothing in it; give it a value, or leave it out")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"--{item.name} {value}: must be finite")
            if isinstance(value, str) and "\0" in value:
                raise InputError(f"--{item.name} {value!r}: no name has a character 0")
        if self.compare and len(self.compare) != 2:
            raise InputError("--compare takes two evaluations, each a report.json or its folder")
        for name in ("ask", "compare", "rank", "regrade", "plot", "checkpoints_of"):
            if self.verbose and getattr(self, name):
                raise InputError(f"--verbose with --{name}: it tells an evaluation's settings; leave it out")
        if self.checkpoints_of is not None and not RUN_NAME.fullmatch(self.checkpoints_of):
            raise InputError(f"--checkpoints_of {self.checkpoints_of}: not a run's --output_name")
        for name in ("base_model_id", "assistant_model_id"):
            if getattr(self, name) is not None and not getattr(self, name).strip():
                raise InputError(f"--{name} {getattr(self, name)!r}: no name; a hub id or a folder")
        self._check_thoughts()
        if self.num_thought_tokens == 0:
            raise InputError("--num_thought_tokens 0: at least 1, or --thought_generator none")
        check_ranges(self)
        if self.make_only_n and self.thought_generator == "none":
            raise InputError("--make_only_n: without thoughts there are none to make")
        if self.make_only_n and self.num_thought_tokens is None:
            raise InputError("--make_only_n needs --num_thought_tokens, which is n")
        self._check_engine()
        if self.inspect and self.thought_generator == "none":
            raise InputError(f"--inspect {self.inspect}: there are no thoughts to look into")
        if self.inspect and ranks().world > 1:
            raise InputError("--inspect runs in one process: python evaluate.py, without torchrun")
        if self.regrade and ranks().world > 1:
            raise InputError("--regrade runs in one process: python evaluate.py, without torchrun")
        self._check_tasks()
        self._check_ask()
        if not re.fullmatch("auto|[1-9][0-9]*", self.batch_size):
            raise InputError(f"--batch_size {self.batch_size}: a number of questions, at least 1, or auto")

    def _check_thoughts(self):
        if self.use_assistant_model and self.thought_generator not in (None, "small"):
            raise InputError(f"--use_assistant_model means small, --thought_generator says {self.thought_generator}")
        if self.use_assistant_model:
            self.thought_generator = "small"
        files = self._given("params_file_name", "att_file_name")
        adapters = self._given("base_model_ckpt", "assistant_model_ckpt")
        if self.checkpoint and files:
            raise InputError(f"--checkpoint names the weights already: leave {files} out")
        if self.checkpoint and self.thought_generator != "none" and adapters:
            raise InputError(f"--checkpoint names the adapters already: leave {adapters} out")
        if self.thought_generator == "none" and self.assistant_model_ckpt:
            raise InputError("--assistant_model_ckpt: without thoughts there is no small LM; leave it out")
        if self.thought_generator == "none" and files:
            raise InputError(f"--thought_generator none injects no thoughts: leave {files} out")
        if (
            self.att_file_name
            and not self.params_file_name
            and self.thought_generator not in (None, "prompt", "coconut")
        ):
            raise InputError(f"--att_file_name needs --params_file_name: {self.thought_generator} has a projection")

    def _given(self, *names: str) -> str:
        """Those of the flags that have a value, as words."""
        return " and ".join(f"--{name}" for name in names if getattr(self, name))

    def named(self, name: str) -> str:
        """The flag with its value as a message names it: with --recipe where that has given it."""
        word = f"--{name} {getattr(self, name)}"
        of_recipe = self.recipe is not None and word in RECIPES["evaluate.py"][self.recipe]
        return f"--recipe {self.recipe}'s {word}" if of_recipe else word

    @property
    def tasks(self) -> list["EvaluationArguments"]:
        """These flags for each task of --task_name; with several an --output_dir has a folder for each."""
        names = (self.task_name or "").split(",")
        if len(names) == 1:
            return [self]
        folders = [None if self.output_dir is None else str(Path(self.output_dir, name)) for name in names]
        pairs = zip(names, folders, strict=True)
        return [replace(self, task_name=name, output_dir=folder) for name, folder in pairs]

    def _check_tasks(self):
        names = (self.task_name or "").split(",")
        if len(names) == 1:
            return
        if not all(names) or len({*names}) < len(names):
            raise InputError(f"--task_name {self.task_name}: names with commas between them, each once")
        if self.backend == "vllm":
            raise InputError(f"--task_name {self.task_name} with --backend vllm: an engine takes one task at a time")
        for name in ("ask", "inspect"):
            if getattr(self, name):
                raise InputError(f"--task_name {self.task_name} with --{name}: one task")

    def _check_ask(self):
        if self.ask is None:
            return
        if not self.ask.strip():
            raise InputError("--ask: an empty question, there is nothing to ask")
        for name in ("inspect", "compare", "rank", "regrade", "plot", "checkpoints_of", "output_dir", "test_k"):
            if getattr(self, name):
                raise InputError(f"--ask with --{name}: one or the other; --ask only answers and writes nothing")
        if ranks().world > 1:
            raise InputError("--ask runs in one process: python evaluate.py, without torchrun")
        if self.backend != "hf":
            raise InputError(f"--ask with --backend {self.backend}: an engine for one question; leave --backend out")

    def _check_engine(self):
        for name in ("tensor_parallel_size", "data_parallel_size", "gpu_memory_utilization", "max_model_len"):
            if getattr(self, name) is not None and self.backend != "vllm":
                raise InputError(f"--{name} is for --backend vllm")
        self.check_estimate("mean_new_tokens")
        if self.backend != "vllm":
            return
        if self.estimate:
            raise InputError("--estimate is of --backend hf: how vLLM fills a GPU, vLLM says itself")
        if self.inspect:
            raise InputError("--inspect looks into the LLM's own layers: it needs --backend hf")
        if ranks().world > 1:
            raise InputError(
                "--backend vllm starts its engines itself: python evaluate.py --data_parallel_size K, without torchrun"
            )
        if self.batch_size == "auto":
            self.batch_size = VLLM_BATCH
