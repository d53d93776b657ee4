"""--help and wrong flags, from the dataclasses that declare the flags: no parser is needed, so both take no time.

print(help_text("train.py", TrainFlags))
check_words(argv, flag_words(fields(TrainFlags)), "train.py")
"""

import dataclasses
import difflib
import inspect
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable
from typing import Any, NoReturn

from lta_thinker.common import InputError, ranks

GROUPS = ("models", "data", "method", "training", "sampling", "output", "instead of an evaluation", "estimate")
# the ten flags that --help begins with
FIRST = {
    "train.py": """output_name large_model_id small_model_id task_name thought_generator num_thought_tokens
        per_device_train_batch_size learning_rate num_train_epochs resume""".split(),
    "evaluate.py": """checkpoint task_name split test_k thought_generator num_thought_tokens num_return_sequences
        max_new_tokens batch_size output_dir""".split(),
    "-m lta_thinker.lm_eval": """checkpoint tasks limit num_fewshot include_path thought_generator num_thought_tokens
        max_new_tokens batch_size output_path""".split(),
}
PAGES = {"train.py": "docs/training.md", "evaluate.py": "docs/evaluation.md"}
PAGES |= {"-m lta_thinker.lm_eval": "docs/evaluation.md"}
WIDEST = 120  # columns of --help

# ---------------------------------------------------------------------------------------------------------------------
# A flag as a person reads it


def flag_name(field: dataclasses.Field) -> str:
    """The name that a user types: the short one where there is one, and --no_NAME for a switch that is on."""
    if field.default is True:
        return f"--no_{field.name}"
    aliases = field.metadata.get("aliases")
    return aliases[0] if aliases else f"--{field.name}"


def default_text(field: dataclasses.Field) -> str:
    """A flag's default; nothing of a switch, and where the help text says what happens without the flag."""
    if field.default in (None, dataclasses.MISSING) or isinstance(field.default, bool) or "default" in meaning(field):
        return ""
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def meaning(field: dataclasses.Field) -> str:
    """A flag's help text, with its choices where the text does not name them."""
    text = str(field.metadata.get("help", "")).replace("%%", "%")
    if field.default is True:
        own = "limits" in field.metadata  # declared by flags.flag: its text begins with a verb
        return f"do not {text}" if own else f"turns off: {text}"
    choices = field.metadata.get("choices")
    if choices and not all(str(choice) in text for choice in choices):
        text = text.rstrip(".") + f"; one of {', '.join(map(str, choices))}"
    return text


def groups_of(cls: type) -> dict[str, list[dataclasses.Field]]:
    """The flags that the class and those of this project below it declare, by group. A flag without a group of its own
    is in that of the flag before it."""
    found: dict[str, list[dataclasses.Field]] = {name: [] for name in GROUPS}
    known = {field.name: field for field in dataclasses.fields(cls)}
    for base in (base for base in reversed(cls.__mro__) if base.__module__.startswith("lta_thinker.")):
        group = ""
        for field in (known[name] for name in inspect.get_annotations(base) if name in known):
            group = field.metadata.get("group") or group
            found[group].append(field)
    return {name: fields for name, fields in found.items() if fields}


# ---------------------------------------------------------------------------------------------------------------------
# --help


def help_text(script: str, cls: type, library: Iterable[dataclasses.Field] | None = None) -> str:
    """What --help prints: the ten flags that matter first, then all others of this program by group. library: with
    --help all the flags of Hugging Face's TrainingArguments."""
    groups = groups_of(cls)
    by_name = {field.name: field for fields in groups.values() for field in fields}
    first = [by_name[name] for name in FIRST[script]]
    blocks = {"the ten that matter first": first}
    blocks |= {name: [field for field in fields if field not in first] for name, fields in groups.items()}
    lines = [f"python {script} --FLAG VALUE ...    ({PAGES[script]})"]
    if library is not None:
        blocks["of Hugging Face's TrainingArguments"] = list(library)
    elif script == "train.py":
        lines += ["--help all: Hugging Face's flags too (--max_steps, --eval_steps, --weight_decay, ...)"]
    width = min(WIDEST, shutil.get_terminal_size(fallback=(WIDEST, 40)).columns)
    for name, fields in blocks.items():
        lines += ["", f"{name}:", *(line for field in fields for line in _lines(field, width))]
    return "\n".join(lines)


def _lines(field: dataclasses.Field, width: int) -> list[str]:
    named = f"  {flag_name(field)} {default_text(field)}".rstrip()
    text = " ".join(meaning(field).split())
    lines = textwrap.wrap(text, width, initial_indent=" " * 36, subsequent_indent=" " * 36) or [""]
    if len(named) > 34:
        return [named, *lines]
    return [f"{named:36}{lines[0][36:]}".rstrip(), *lines[1:]]


# ---------------------------------------------------------------------------------------------------------------------
# Wrong flags


def words_of(name: str, default: Any, aliases: Iterable[str] = ()) -> set[str]:
    """The words of the command line that are a field's flag, as HfArgumentParser makes them."""
    words = {f"--{name}", *aliases} | ({f"--no_{name}"} if default is True else set())
    return words | {f"--{name.replace('_', '-')}" for name in [word[2:] for word in words if word not in aliases]}


def flag_words(fields: Iterable[dataclasses.Field]) -> set[str]:
    """All words of the command line that are a flag of these."""
    return {
        word
        for field in fields
        if field.init
        for word in words_of(field.name, field.default, field.metadata.get("aliases", ()))
    }


def check_words(argv: list[str], known: Collection[str], script: str, unwanted: Collection[str] = ()) -> None:
    """InputError where a word of the command line is a flag that there is not; it names the flags near it, of `known`
    without those of names that are `unwanted`."""
    wrong = []
    for word in (word.partition("=")[0] for word in argv):
        if word == "--":
            break
        if word.startswith("--") and " " not in word and word not in known and word not in wrong:
            wrong.append(word)
    if not wrong:
        return
    names = [name_with_neighbours(word, known, unwanted) for word in wrong]
    raise InputError(f"no such flag: {', '.join(names)}; python {script} --help lists them")


def name_with_neighbours(word: str, known: Collection[str], unwanted: Collection[str] = ()) -> str:
    """A wrong flag's word, and behind it those that it may have been meant for."""
    wanted = [other for other in known if "-" not in other[2:] and other[2:] not in unwanted]
    near = difflib.get_close_matches(word.replace("-", "_").replace("__", "--", 1), wanted, n=3, cutoff=0.7)
    return f"{word} ({', '.join(near)}?)" if near else word


# ---------------------------------------------------------------------------------------------------------------------
# Asking for --help


def wanted_help(argv: list[str]) -> str | None:
    """What the command line asks of --help: "all" for --help all, "" for --help or -h; None where it does not ask."""
    for word, behind in zip(argv, [*argv, ""][1:], strict=True):
        if word in ("--help", "-h"):
            return behind if behind == "all" else ""
    return None


def print_help(text: str) -> NoReturn:
    """Print it, from one process of a run, and end."""
    if ranks().is_first:
        print(text)
    sys.exit()
