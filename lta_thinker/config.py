"""--config: flags from a YAML or JSON file, one key a flag, under its name without dashes (examples/train.yaml).

What the command line gives wins over the file, the file over --recipe and the defaults. A null is a flag that is not
given; a list is a text with commas, of flags that take several words (--rank) these words.
"""

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path

from lta_thinker.common import InputError, read_json
from lta_thinker.usage import name_with_neighbours

MOST_NAMES = 5  # of wrong keys in a message
SEVERAL = ("compare", "rank", "regrade", "plot")  # flags that take several words


def with_config(
    argv: list[str],
    known: Collection[str],
    script: str,
    unwanted: Collection[str] = (),
    of_record: Callable[[dict, str], dict] = lambda values, path: values,
) -> list[str]:
    """The command line with the words of its --config before its own; as it is where it has none.

    known, script, unwanted: as in usage.check_words; of_record: (what the file holds, its path) -> the flags in it.
    InputError where the file cannot be read, and for keys that are no flags.
    """
    path = config_path(argv)
    if path is None:
        return argv
    values = of_record(read_config(path), path)
    # a switch is turned off by `name: false`, and a file names no other
    words = {word for word in known if not (word.startswith("--no_") and f"--{word[5:]}" in known)} - {"--config"}
    wrong = [key for key in values if f"--{key}" not in words]
    if wrong:
        names = [name_with_neighbours(f"--{key}", words, unwanted).replace("--", "") for key in wrong[:MOST_NAMES]]
        names += [f"{len(wrong) - MOST_NAMES} more"] if len(wrong) > MOST_NAMES else []
        raise InputError(f"{path}: no such flag: {', '.join(names)}; python {script} --help lists them")
    return [word for key, value in values.items() for word in flag_of(key, value, f"--config {path}")] + argv


def config_path(argv: list[str]) -> str | None:
    """The file that --config names, the last where there are several; InputError for --config without one."""
    path = None
    for at, word in enumerate(argv):
        if word == "--":
            break
        if word == "--config":
            path = argv[at + 1] if at + 1 < len(argv) else ""
        elif word.startswith("--config="):
            path = word.partition("=")[2]
    if path == "":
        raise InputError("--config: which file?")
    return path


def read_config(path: str) -> dict:
    """What a file of flags holds; InputError where it is none."""
    kind, where = Path(path).suffix.lower(), f"--config {path}"
    if kind == ".json":
        try:
            values = read_json(Path(path))
        except InputError as error:
            raise InputError(f"--config {error}") from None
    elif kind in (".yaml", ".yml"):
        values = read_yaml(Path(path), where)
    else:
        raise InputError(f"{where}: a file that ends in .yaml, .yml or .json")
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{where}: not a table of flags, like `batch_size: 4`")
    return values


def read_yaml(path: Path, where: str):
    """The value of a YAML file; InputError, which begins with `where`, where it is none."""
    import yaml  # imported here: it is needed for this alone; transformers brings it

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML ({' '.join(str(error).split()):.200})") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, a null character in the path, a date that is none
        raise InputError(f"{where}: cannot be read ({error})") from None


def flag_of(key: str, value, where: str) -> list[str]:
    """A key and its value as words of the command line; none of a null. InputError, which
    begins with `where`, for a value that no flag takes."""
    if value is None:
        return []
    if isinstance(value, list) and value and all(isinstance(item, str | int | float) for item in value):
        words = list(map(str, value))
        return [f"--{key}", *words] if key in SEVERAL else [f"--{key}={','.join(words)}"]
    if isinstance(value, dict):
        try:
            return [f"--{key}={json.dumps(value)}"]
        except TypeError:
            raise InputError(f"{where}: {key}: a table of texts and numbers, or leave it out") from None
    if isinstance(value, str | int) or isinstance(value, float) and math.isfinite(value):
        return [f"--{key}={value}"]
    raise InputError(f"{where}: {key}: {value!r:.60} is no flag's value")
