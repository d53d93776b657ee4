"""Flags that both scripts have, recipes, and the parser of flags. Each script's own: training/declared.py,
evaluation/flags.py.

Flags are fields of a dataclass, declared by `flag` and read by Hugging Face's parser. Every error is one line.
"""

import math
import operator
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from typing import Any

from lta_thinker.answers import ANSWER_TYPES
from lta_thinker.common import InputError
from lta_thinker.config import with_config
from lta_thinker.data_loader import TASKS, OwnTask, get_task, own_task
from lta_thinker.names import CARD_NAMES
from lta_thinker.rows.examples import Fields, Task
from lta_thinker.usage import check_words, flag_words

RUN_NAME = re.compile(r"\w[\w.-]*")


# limits of a flag's number; infinity and nan are never allowed
LARGEST = 2**31 - 1  # of a whole number
LIMITS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}


def flag(
    default, text: str, *aliases: str, decides_weights: bool = True, choices=None, group: str = "", **limits: float
) -> Any:
    """A dataclass field that is a flag.

    default, help text, other names; choices: as argparse has them; limits: of LIMITS (at_least=1);
    decides_weights: whether a run must go on with the value that it was started with; group: that of usage.GROUPS which
    begins with this flag ("": it is in that of the flag before it).
    """
    metadata = {"help": text, "aliases": list(aliases), "decides_weights": decides_weights, "limits": limits}
    metadata |= {"group": group} if group else {}
    if choices is not None:
        metadata["choices"] = list(choices)
    return field(default=default, metadata=metadata)


def check_ranges(args) -> None:
    """InputError where a flag's number is out of its range. None stands for a flag that is not given."""
    for item in fields(args):
        value, limits = getattr(args, item.name), item.metadata.get("limits")
        if value is None or not limits:
            continue
        name = item.metadata["aliases"][0] if item.metadata["aliases"] else f"--{item.name}"
        if not math.isfinite(value):
            raise InputError(f"{name} {value}: must be finite")
        if not all(LIMITS[limit](value, bound) for limit, bound in limits.items()):
            needed = " and ".join(f"{limit.replace('_', ' ')} {bound:,}" for limit, bound in limits.items())
            raise InputError(f"{name} {value}: must be {needed}")
        if isinstance(value, int) and value > LARGEST and "below" not in limits:
            raise InputError(f"{name} {value}: must be at most {LARGEST:,}")


# flags that --recipe stands for; what is given besides wins
PAPER = (
    "--thought_generator block --sft_loss_weight 0.33 --align_loss_weight 0.33 --focus_loss_weight 0.33 "
    "--balance_losses False --align_stop_gradient False --focus_temperature 0.1 --steps_as_turns True "
    "--distinct_slot_ids True --num_thought_tokens 32 --learning_rate 1e-4 --n_epochs 10 --batch_size 4 "
    "--gradient_accumulation_steps 4 --warmup_ratio 0.1 --seed 41"
)
RECIPES = {
    "train.py": {
        "sft": "--align_loss_weight 0 --focus_loss_weight 0",
        "paper": PAPER,
        "paper-run": f"{PAPER} --thoughts_see_steps True --freeze_prior True",
    },
    "evaluate.py": {
        "paper": "--num_thought_tokens 2 --make_only_n True --num_return_sequences 10 --max_new_tokens 4096 --seed 41"
    },
}
# flags that a recipe leaves out for a generator without this
NEEDS = dict.fromkeys(("--align_loss_weight", "--focus_loss_weight", "--steps_as_turns"), "has_z")
NEEDS |= {"--thoughts_see_steps": "has_z", "--make_only_n": "reads_question"}
NEEDS |= {"--distinct_slot_ids": "uses_small_lm", "--freeze_prior": "has_projection"}
# a flag that stands for another one, which a recipe then leaves out
STANDS_FOR = {"--use_assistant_model": "--thought_generator", "--greedy": "--num_return_sequences"}
ATTENTION_HELP = "attention of the frozen LMs: sdpa, flash_attention_2, eager, ... (default: the library's choice)"
CONFIG_HELP = "YAML or JSON file of flags (examples/train.yaml); flags given besides win"
RECIPE_HELP = "paper: the published settings (docs/published.md); flags given besides win"


@dataclass
class EstimateArguments:
    """Flags of both scripts that ask what the run would take, and say on what."""

    estimate: bool = flag(
        False,
        "only say what this run would take: memory, operations, disk, hours; from config.json alone, without a GPU",
        decides_weights=False,
        group="estimate",
    )
    card: str | None = flag(
        None, "with --estimate: the GPU of the run (default: all of them)", decides_weights=False, choices=CARD_NAMES
    )
    gpus: int | None = flag(
        None,
        "with --estimate: processes of the run, one a GPU (default: torchrun's)",
        decides_weights=False,
        at_least=1,
    )
    rows: int | None = flag(
        None,
        "with --estimate, where the rows are not here: how many there are (their lengths: our own sample's)",
        decides_weights=False,
        at_least=1,
    )

    def check_estimate(self, *more: str) -> None:
        """InputError for a flag of --estimate without it; more: those that a script has besides."""
        for name in ("card", "gpus", "rows", *more):
            if getattr(self, name) is not None and not self.estimate:
                raise InputError(f"--{name} is for --estimate, which only says what the run would take")


@dataclass
class TaskArguments:
    """Flags of both scripts that say what the rows are. With files or fields the task is the user's own."""

    data_dir: str = flag("data", "folder with a folder for each task", group="data")
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
    special_tokens_in_text: bool = flag(
        False, "names of special tokens in rows and prompts stand for the tokens (else they are text like any other)"
    )

    def own_task_flags(self) -> OwnTask:
        """What the flags say of a task of the user's own. Its files' paths are absolute: a checkpoint may be used from
        another folder."""
        files = {}
        for split, file in (("train", self.train_file), ("dev", self.dev_file), ("test", self.test_file)):
            if file is not None:
                files[split] = file if file.startswith("hub:") else os.path.abspath(file)
        names = {item.name: getattr(self, f"{item.name}_field") for item in fields(Fields)}
        return OwnTask(files, {name: value for name, value in names.items() if value is not None}, self.answer_type)

    def resolve_task(self, name: str, stored: OwnTask | None = None) -> Task:
        """The task of that name: the user's own where flags or `stored` (a checkpoint's) say so. A flag wins over what
        is stored. Raises InputError where they do not make a task."""
        given = self.own_task_flags()
        if not given.says_anything and (name in TASKS or stored is None):
            return get_task(name)
        stored = stored or OwnTask({}, {}, None)
        answer_type = given.answer_type or stored.answer_type
        if answer_type is None:
            why = "is known; a task of your own needs another name and" if name in TASKS else "a task of your own needs"
            raise InputError(f"--task_name {name}: {why} --answer_type")
        return own_task(name, OwnTask(stored.files | given.files, stored.fields | given.fields, answer_type))


def parse_flags(
    arguments: Any,
    argv: list[str],
    script: str,
    unwanted: Collection[str] = (),
    of_record: Callable[[dict, str], dict] = lambda values, path: values,
):
    """argv -> an instance of the dataclass `arguments`; InputError for unknown flags and for values of another type.
    unwanted: names of flags that no message proposes; of_record: config.with_config's."""
    from lta_thinker.parser import Parser  # imported here: it takes a second, in transformers 4.53 three

    known = flag_words(fields(arguments))
    check_words(argv, known, script, unwanted)
    argv = with_config(argv, known, script, unwanted, of_record)
    parser = Parser(arguments, prog=script, allow_abbrev=False, add_help=False)
    argv = recipe_flags(argv, script) + argv
    unknown = parser.parse_known_args(argv)[1]
    if unknown:
        raise InputError(f"{' '.join(unknown)}: belongs to no flag; python {script} --help lists them")
    return parser.parse_args_into_dataclasses(argv, look_for_args_file=False)[0]


def spelled_otherwise(flag: str) -> list[str]:
    """The library's parser takes --like-this for --like_this too."""
    return [flag.replace("_", "-")] if "_" in flag else []


def recipe_flags(argv: list[str], script: str) -> list[str]:
    """The flags that a --recipe in argv stands for, without those that the generator has no use for (where argv or the
    recipe names it); InputError where there is no such recipe."""
    from lta_thinker.parser import Parser, string_to_bool

    parser = Parser([], allow_abbrev=False, add_help=False)
    for flag in ("--recipe", "--thought_generator", "--coconut_stages"):
        parser.add_argument(flag, *spelled_otherwise(flag))
    for stand_in in STANDS_FOR:
        parser.add_argument(
            stand_in, *spelled_otherwise(stand_in), type=string_to_bool, nargs="?", const=True, default=False
        )
    given = parser.parse_known_args(argv)[0]
    name = given.recipe
    if name is None:
        return []
    from lta_thinker.model import GENERATORS  # imported here: torch takes seconds

    if name not in RECIPES[script]:
        raise InputError(f"--recipe {name}: no such recipe; there is {', '.join(RECIPES[script])}")
    words = RECIPES[script][name].split()
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    left_out = {other for word, other in STANDS_FOR.items() if getattr(given, word.removeprefix("--"))}
    kind = "small" if given.use_assistant_model else given.thought_generator or pairs.get("--thought_generator")
    if kind is not None:
        left_out |= {flag for flag, needed in NEEDS.items() if not getattr(GENERATORS.get(kind), needed, False)}
    if kind == "coconut" or given.coconut_stages:
        left_out.add("--num_thought_tokens")  # the stages say how many
    return [word for name, value in pairs.items() if name not in left_out for word in (name, value)]
