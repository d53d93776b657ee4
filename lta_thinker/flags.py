"""Flags that both scripts have, those of evaluate.py, and recipes: dataclasses with help texts, read by Hugging Face's
parser; every error is one line. Those of train.py: training_flags.py."""

import os
import re
from dataclasses import dataclass, field, fields

from transformers import HfArgumentParser

from lta_thinker.common import InputError
from lta_thinker.data_loader import TASKS, get_task, own_task
from lta_thinker.rows.examples import Fields, Task

RUN_NAME = re.compile(r"\w[\w.-]*")


def flag(default, text: str, *aliases: str, **extra):
    """A dataclass field that is a flag: default, help text, other names, and what argparse shall know besides."""
    return field(default=default, metadata={"help": text, "aliases": list(aliases), **extra})


# flags that --recipe stands for; what is given besides wins
RECIPES = {
    "train.py": {
        "paper": "--thought_generator block --sft_loss_weight 0.33 --align_loss_weight 0.33 --focus_loss_weight 0.33 "
        "--focus_temperature 0.1 --num_thought_tokens 32 --learning_rate 1e-4 --n_epochs 10 --batch_size 4 "
        "--gradient_accumulation_steps 4 --warmup_ratio 0.1 --seed 41"
    },
    "evaluate.py": {"paper": "--num_thought_tokens 2 --num_return_sequences 10 --max_new_tokens 4096 --seed 41"},
}
YIELDS = {"--use_assistant_model": "--thought_generator", "--greedy": "--num_return_sequences"}  # to what is given
ATTENTION_HELP = "attention of the frozen LMs: sdpa, flash_attention_2, eager, ... (default: the library's choice)"
RECIPE_HELP = "paper: the published settings (README); flags given besides win"


@dataclass
class TaskArguments:
    """Flags of both scripts that say what the rows are. With files or fields the task is the user's own."""

    data_dir: str = flag("data", "folder with a folder for each task")
    skip_bad_rows: bool = flag(False, "leave broken rows out and count them instead of stopping")
    train_file: str | None = flag(None, "own task: jsonl, json, csv, parquet, or hub:owner/name:config[:split]")
    dev_file: str | None = flag(None, "own task: dev rows (default: a fixed 5 %% of the train rows)")
    test_file: str | None = flag(None, "own task: test rows")
    answer_type: str | None = flag(None, "own task: number, choice, boolean or latex")
    question_field: str | None = flag(None, "own task: field of the question (default question)")
    steps_field: str | None = flag(None, "own task: field of the steps (default: in the answer, before ####)")
    answer_field: str | None = flag(None, "own task: field of the answer (default answer)")
    options_field: str | None = flag(None, "own task: field of the options (default options; else in the question)")
    prompt_file: str | None = flag(None, "JSON file with prompts that replace the task's (README)")

    def own_flags(self) -> dict[str, dict[str, str]]:
        """What the flags say of a task of the user's own: {"files": by split, "fields": by name, "answer_type"}."""
        files = {"train": self.train_file, "dev": self.dev_file, "test": self.test_file}
        files = {  # absolute: a checkpoint may be used from another folder
            split: file if file is None or file.startswith("hub:") else os.path.abspath(file)
            for split, file in files.items()
        }
        fields_ = {f.name: getattr(self, f"{f.name}_field") for f in fields(Fields)}
        given = {"files": files, "fields": fields_}
        given = {name: {key: v for key, v in values.items() if v is not None} for name, values in given.items()}
        return given | {"answer_type": self.answer_type}

    def resolve_task(self, name: str, stored: dict | None = None) -> Task:
        """The task of that name: the user's own where flags or `stored` (a checkpoint's own_flags) say so.

        Raises InputError where they do not make a task.
        """
        own = self.own_flags()
        if not any(own.values()) and (name in TASKS or stored is None):
            return get_task(name)
        stored = stored or {"files": {}, "fields": {}, "answer_type": None}
        answer_type = own["answer_type"] or stored["answer_type"]
        if answer_type is None:
            raise InputError(f"--task_name {name}: a task of your own needs --answer_type")
        return own_task(name, answer_type, stored["files"] | own["files"], stored["fields"] | own["fields"])


class _Parser(HfArgumentParser):
    def error(self, message: str):
        raise InputError(message)


def parse_flags(arguments: type, argv: list[str], script: str):
    """argv -> an instance of the dataclass `arguments`; InputError for unknown flags and for values of another type."""
    try:
        parser = _Parser(arguments, prog=script, allow_abbrev=False)
        return parser.parse_args_into_dataclasses(recipe_flags(argv, script) + argv, look_for_args_file=False)[0]
    except ValueError as error:  # flags that the parser does not know
        unknown = str(error).rpartition(": ")[2]
        raise InputError(f"no such flags: {unknown}; python {script} --help lists them") from None


def recipe_flags(argv: list[str], script: str) -> list[str]:
    """The flags that a --recipe in argv stands for; InputError where there is no such recipe."""
    parser = _Parser([], allow_abbrev=False, add_help=False)
    parser.add_argument("--recipe")
    name = parser.parse_known_args(argv)[0].recipe
    if name is None:
        return []
    if name not in RECIPES[script]:
        raise InputError(f"--recipe {name}: no such recipe; there is {', '.join(RECIPES[script])}")
    words = RECIPES[script][name].split()
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    left_out = {flag for given, flag in YIELDS.items() if given in argv}
    return [word for flag, value in pairs.items() if flag not in left_out for word in (flag, value)]
