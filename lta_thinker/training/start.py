"""What train.py answers before its imports, which take seconds: --help and a flag that there is not,
in a --config too; and what it is about to load."""

import contextlib
import dataclasses
import sys

from lta_thinker.common import check_can_meet, run_program
from lta_thinker.config import with_config
from lta_thinker.console import first_word, last_value
from lta_thinker.flags import RECIPES
from lta_thinker.names import READ_SMALL_LM
from lta_thinker.training.declared import REFUSED, TrainFlags, library_words
from lta_thinker.training.repeat import flags_of_run
from lta_thinker.usage import check_words, flag_words, help_text, print_help, wanted_help


def answer_at_once() -> None:
    """End the process where the command line asks for --help, or has a flag that there is not; else say what is
    loaded."""
    run_program(answer, sys.argv[1:], "nothing was written")


def answer(argv: list[str]) -> None:
    """As answer_at_once; InputError for a wrong flag, and for processes that cannot meet."""
    wanted = wanted_help(argv)
    if wanted is not None:
        print_help(help_text("train.py", TrainFlags, library_flags() if wanted == "all" else None))
    check_can_meet()
    known = flag_words(dataclasses.fields(TrainFlags)) | library_words()
    check_words(argv, known, "train.py", REFUSED)
    with contextlib.redirect_stdout(None):  # its notes are printed by the run
        words = with_config(argv, known, "train.py", REFUSED, flags_of_run)
    first_word("train.py", what_is_loaded(words))


def what_is_loaded(words: list[str]) -> str:
    """The LMs that a command line names."""
    recipe = RECIPES["train.py"].get(last_value(words, "recipe") or "", "").split()
    names = ("large_model_id", "small_model_id")
    large, small = (last_value(words, name) or getattr(TrainFlags, name) for name in names)
    kind = last_value([*recipe, *words], "thought_generator") or "small_block"
    return f"{large} and {small}" if kind in READ_SMALL_LM else large


def library_flags() -> list[dataclasses.Field]:
    """The flags of Hugging Face's TrainingArguments that are theirs alone and are not refused."""
    from transformers import TrainingArguments  # imported here: it takes four seconds

    own = {field.name for field in dataclasses.fields(TrainFlags)} | REFUSED.keys()
    return [field for field in dataclasses.fields(TrainingArguments) if field.init and field.name not in own]
