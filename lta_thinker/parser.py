"""Hugging Face's parser of flags, with errors in one line and the fields' metadata that are this program's own."""

import re

from transformers import HfArgumentParser
from transformers.hf_argparser import string_to_bool as string_to_bool

from lta_thinker.common import InputError


class Parser(HfArgumentParser):
    """As HfArgumentParser; a wrong value is an InputError."""

    def add_argument(
        self, *names, decides_weights=True, limits=None, group="", **kwargs
    ):  # argparse knows none of them
        return super().add_argument(*names, **kwargs)

    def error(self, message: str):
        wrong_choice = re.fullmatch(r"argument (--\w+)\S*: invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if wrong_choice:
            name, value, choices = wrong_choice.groups()
            choices = choices.replace("'", "")
            raise InputError(f"{name} {value}: one of {choices}")
        raise InputError(message)
