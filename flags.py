"""Flags of the two scripts: dataclasses with help texts, read by Hugging Face's parser; every error is one line."""

from dataclasses import field

from transformers import HfArgumentParser

from data_loader import InputError


def flag(default, text: str, *aliases: str, **extra):
    """A dataclass field that is a flag: default, help text, other names, and what argparse shall know besides."""
    return field(default=default, metadata={"help": text, "aliases": list(aliases), **extra})


class _Parser(HfArgumentParser):
    def error(self, message: str):
        raise InputError(message)


def parse_flags(arguments: type, argv: list[str], script: str):
    """argv -> an instance of the dataclass `arguments`; InputError for unknown flags and for values of another type."""
    try:
        return _Parser(arguments, prog=script).parse_args_into_dataclasses(argv, look_for_args_file=False)[0]
    except ValueError as error:  # flags that the parser does not know
        unknown = str(error).rpartition(": ")[2]
        raise InputError(f"no such flags: {unknown}; python {script} --help lists them") from None
