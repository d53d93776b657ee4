"""Flags that both scripts have, recipes, and how flags are read: dataclasses whose fields are declared by `flag`, read
by Hugging Face's parser; every error is one line. The scripts' own: training/flags.py, evaluation/flags.py."""

import math
import os
import re
from dataclasses import dataclass, field, fields

from transformers import HfArgumentParser

from lta_thinker.answers import ANSWER_TYPES
from lta_thinker.common import InputError
from lta_thinker.data_loader import TASKS, OwnTask, get_task, own_task
from lta_thinker.rows.examples import Fields, Task

RUN_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Range:
    """What a flag's number must be; None: no such limit. Infinity and nan are never allowed."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        limits = (
            (self.at_least, value >= (self.at_least or 0)),
            (self.above, value > (self.above or 0)),
            (self.at_most, value <= (self.at_most or 0)),
            (self.below, value < (self.below or 0)),
        )
        return math.isfinite(value) and all(holds for limit, holds in limits if limit is not None)

    def __str__(self) -> str:
        limits = [(name.replace("_", " "), limit) for name, limit in vars(self).items() if limit is not None]
        return "must be " + " and ".join(f"{name} {limit:,}" for name, limit in limits)


def flag(default, text: str, *aliases: str, decides_weights: bool = True, choices=None, nargs=None, **limits):
    """A dataclass field that is a flag.

    default, help text, other names; choices, nargs: as argparse has them; limits: of Range (at_least=1);
    decides_weights: whether a run must go on with the value that it was started with.
    """
    metadata = {"help": text, "aliases": list(aliases), "decides_weights": decides_weights}
    if choices is not None:
        metadata["choices"] = list(choices)
    if nargs is not None:
        metadata |= {"nargs": nargs, "const": True}
    if limits:
        metadata["range"] = Range(**limits)
    return field(default=default, metadata=metadata)


def check_ranges(args) -> None:
    """InputError where a flag's number is out of its range. None is not given."""
    for one in fields(args):
        value = getattr(args, one.name)
        if "range" in one.metadata and value is not None and value not in one.metadata["range"]:
            name = one.metadata["aliases"][0] if one.metadata["aliases"] else f"--{one.name}"
            raise InputError(f"{name} {value}: {one.metadata['range'] if math.isfinite(value) else 'must be finite'}")


# flags that --recipe stands for; what is given besides wins
RECIPES = {
    "train.py": {
        "paper": "--thought_generator block --sft_loss_weight 0.33 --align_loss_weight 0.33 --focus_loss_weight 0.33 "
        "--focus_temperature 0.1 --num_thought_tokens 32 --learning_rate 1e-4 --n_epochs 10 --batch_size 4 "
        "--gradient_accumulation_steps 4 --warmup_ratio 0.1 --seed 41"
    },
    "evaluate.py": {"paper": "--num_thought_tokens 2 --num_return_sequences 10 --max_new_tokens 4096 --seed 41"},
}
# a flag that stands for another one, which a recipe then leaves out
STANDS_FOR = {"--use_assistant_model": "--thought_generator", "--greedy": "--num_return_sequences"}
ATTENTION_HELP = "attention of the frozen LMs: sdpa, flash_attention_2, eager, ... (default: the library's choice)"
RECIPE_HELP = "paper: the published settings (docs/published.md); flags given besides win"


@dataclass
class TaskArguments:
    """Flags of both scripts that say what the rows are. With files or fields the task is the user's own."""

    data_dir: str = flag("data", "folder with a folder for each task")
    skip_bad_rows: bool = flag(False, "leave broken rows out and count them instead of stopping", decides_weights=False)
    train_file: str | None = flag(
        None, "own task: jsonl, json, csv, parquet, or hub:owner/name:config[:split]", decides_weights=False
    )
    dev_file: str | None = flag(
        None, "own task: dev rows (default: a fixed 5 %% of the train rows)", decides_weights=False
    )
    test_file: str | None = flag(None, "own task: test rows", decides_weights=False)
    answer_type: str | None = flag(None, "own task: what its answers are", choices=ANSWER_TYPES)
    question_field: str | None = flag(None, "own task: field of the question (default question)")
    steps_field: str | None = flag(None, "own task: field of the steps (default: in the answer, before ####)")
    answer_field: str | None = flag(None, "own task: field of the answer (default answer)")
    options_field: str | None = flag(None, "own task: field of the options (default options; else in the question)")
    prompt_file: str | None = flag(None, "JSON file with prompts that replace the task's (docs/tasks.md)")

    def own_task_flags(self) -> OwnTask:
        """What the flags say of a task of the user's own."""
        files = {"train": self.train_file, "dev": self.dev_file, "test": self.test_file}
        for split, file in files.items():
            if file is not None and not file.startswith("hub:"):
                files[split] = os.path.abspath(file)  # a checkpoint may be used from another folder
        names = {one.name: getattr(self, f"{one.name}_field") for one in fields(Fields)}
        return OwnTask(
            files={split: file for split, file in files.items() if file is not None},
            fields={name: value for name, value in names.items() if value is not None},
            answer_type=self.answer_type,
        )

    def resolve_task(self, name: str, stored: OwnTask | None = None) -> Task:
        """The task of that name: the user's own where flags or `stored` (a checkpoint's) say so, the flags' values
        first.

        Raises InputError where they do not make a task.
        """
        given = self.own_task_flags()
        if not given.says_anything and (name in TASKS or stored is None):
            return get_task(name)
        stored = stored or OwnTask({}, {}, None)
        answer_type = given.answer_type or stored.answer_type
        if answer_type is None:
            raise InputError(f"--task_name {name}: a task of your own needs --answer_type")
        return own_task(name, OwnTask(stored.files | given.files, stored.fields | given.fields, answer_type))


class _Parser(HfArgumentParser):
    def add_argument(self, *names, decides_weights=True, range=None, **kwargs):  # ours alone: argparse knows neither
        return super().add_argument(*names, **kwargs)

    def error(self, message: str):
        wrong_choice = re.fullmatch(r"argument (--\w+)\S*: invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if wrong_choice:
            name, value, choices = wrong_choice.groups()
            choices = choices.replace("'", "")
            raise InputError(f"{name} {value}: one of {choices}")
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
    left_out = {other for given, other in STANDS_FOR.items() if given in argv}
    return [word for name, value in pairs.items() if name not in left_out for word in (name, value)]
