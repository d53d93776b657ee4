"""Flags of `python -m lta_thinker.lm_eval`, and what it answers before its imports, which take seconds: --help, and a
flag that there is not; and what it is about to load."""

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from lta_thinker.common import InputError, ranks, run_program
from lta_thinker.config import with_config
from lta_thinker.console import first_word, last_value
from lta_thinker.evaluation.flags import DEFAULT_MODEL_IDS, EvaluationArguments
from lta_thinker.flags import CONFIG_HELP, check_ranges, flag
from lta_thinker.usage import check_words, flag_words, help_text, print_help, wanted_help

PROGRAM = "-m lta_thinker.lm_eval"
# flags of evaluate.py that say which model is asked, and behind which prompts
OF_MODEL = ("checkpoint", "base_model_id", "assistant_model_id", "params_file_name", "att_file_name")
OF_MODEL += ("base_model_ckpt", "assistant_model_ckpt", "dtype", "attn_implementation", "trust_remote_code")
OF_MODEL += ("prompt_file", "thought_generator", "num_thought_tokens", "make_only_n", "distinct_slot_ids")
# flags of the harness's own command that are not for this one
CHAT = "the LLM's own chat template is applied in any case, with the thoughts in the user's turn"
REFUSED = {
    "--model": "the model is the one of --checkpoint",
    "--model_args": "they are flags here: --checkpoint, --num_thought_tokens, ...",
    "--apply_chat_template": CHAT,
    "--fewshot_as_multiturn": f"few-shot examples stand in the question's turn; {CHAT}",
    "--system_instruction": "--prompt_file has the words around a question",
    "--gen_kwargs": "the task's are used; --max_new_tokens is the longest answer",
}


def of_evaluation(name: str):
    """A flag of evaluate.py, with the same default and meaning."""
    own = EvaluationArguments.__dataclass_fields__[name]
    return dataclasses.field(default=own.default, metadata=own.metadata)


@dataclass
class HarnessArguments:
    """Flags of `python -m lta_thinker.lm_eval`: those of evaluate.py that say which model is asked, and the harness's
    own under its names."""

    checkpoint: str | None = of_evaluation("checkpoint")
    base_model_id: str | None = of_evaluation("base_model_id")
    assistant_model_id: str | None = of_evaluation("assistant_model_id")
    params_file_name: str | None = of_evaluation("params_file_name")
    att_file_name: str | None = of_evaluation("att_file_name")
    base_model_ckpt: str | None = of_evaluation("base_model_ckpt")
    assistant_model_ckpt: str | None = of_evaluation("assistant_model_ckpt")
    dtype: str = of_evaluation("dtype")
    attn_implementation: str | None = of_evaluation("attn_implementation")
    trust_remote_code: bool = of_evaluation("trust_remote_code")
    tasks: str | None = flag(None, "the harness's tasks, groups or tags, with commas between them", group="data")
    include_path: str | None = flag(None, "a folder with task files (YAML) of your own")
    limit: float | None = flag(None, "first k questions of each task only; below 1 a share of them", above=0)
    num_fewshot: int | None = flag(
        None, "examples before the question, in the same turn (default: the task's own)", at_least=0
    )
    prompt_file: str | None = flag(None, "JSON file with prompts that replace the checkpoint's (docs/tasks.md)")
    thought_generator: str | None = of_evaluation("thought_generator")
    num_thought_tokens: int | None = of_evaluation("num_thought_tokens")
    make_only_n: bool = of_evaluation("make_only_n")
    distinct_slot_ids: bool = of_evaluation("distinct_slot_ids")
    config: str | None = flag(None, CONFIG_HELP)
    max_new_tokens: int | None = flag(
        None,
        "longest answer (default: the task's max_gen_toks, else 256, as in the harness)",
        at_least=1,
        group="sampling",
    )
    batch_size: str = of_evaluation("batch_size")
    seed: int | None = flag(
        None, "of the sampling noise and of the harness's draws (default 41, and 0, 1234, 1234, 1234)", at_least=0
    )
    output_path: str | None = flag(
        None, "folder for the harness's results_DATE.json (default: nothing is written)", group="output"
    )
    log_samples: bool = flag(False, "write the texts and scores too, samples_TASK_DATE.jsonl; needs --output_path")

    def __post_init__(self):
        if not self.task_names or not all(self.task_names):
            raise InputError(
                f"--tasks{' ' + self.tasks if self.tasks else ''}: names of the harness's tasks, with commas"
            )
        for name in ("include_path", "output_path"):
            value = getattr(self, name)
            if value is not None and (not value.strip() or "\0" in value):
                raise InputError(f"--{name} {value!r}: the name of a folder")
        if self.include_path is not None and not Path(self.include_path).is_dir():
            raise InputError(f"--include_path {self.include_path}: no such folder")
        if self.log_samples and self.output_path is None:
            raise InputError("--log_samples: where to? --output_path names the folder")
        check_ranges(self)
        if self.limit is not None and self.limit > 1 and self.limit != math.floor(self.limit):
            raise InputError(f"--limit {self.limit}: a whole number of questions, or a share below 1")
        if ranks().world > 1:
            raise InputError(f"it runs in one process: python {PROGRAM}, without torchrun")
        EvaluationArguments(**self.of_model(), batch_size=self.batch_size)  # InputError where these are wrong

    @property
    def task_names(self) -> list[str]:
        """The names in --tasks."""
        return [name.strip() for name in (self.tasks or "").split(",")]

    def of_model(self) -> dict:
        """The flags that say which model is asked, by name: those that are given."""
        values = {name: getattr(self, name) for name in OF_MODEL}
        defaults = EvaluationArguments.__dataclass_fields__
        return {name: value for name, value in values.items() if value != defaults[name].default}


def answer_at_once() -> None:
    """End the process where the command line asks for --help, or has a flag that there is not; else say what is
    loaded."""
    run_program(answer, sys.argv[1:], "nothing was written")


def answer(argv: list[str]) -> None:
    """As answer_at_once; InputError for a wrong flag."""
    if wanted_help(argv) is not None:
        print_help(help_text(PROGRAM, HarnessArguments))
    for word in (word.partition("=")[0] for word in argv):
        if word in REFUSED:
            raise InputError(f"{word} is not for this program: {REFUSED[word]}")
    known = flag_words(dataclasses.fields(HarnessArguments))
    check_words(argv, known, PROGRAM)
    words = with_config(argv, known, PROGRAM)
    what = last_value(words, "checkpoint") or last_value(words, "base_model_id") or DEFAULT_MODEL_IDS["base_model_id"]
    first_word("lm_eval", what)
