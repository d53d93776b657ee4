"""The flag tables of docs/training.md and docs/evaluation.md, made from the dataclasses that read the flags.

    python docs/flag_tables.py            # rewrites the tables in both pages
    python docs/flag_tables.py --check    # changes nothing; ends with an error where a table is not up to date

A table stands between `<!-- flags: CLASS -->` and `<!-- end of flags -->`. It has a flag's name, default and help text.
The flags that Hugging Face's TrainingArguments have on their own are not in it.
"""

import argparse
import dataclasses
import inspect
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from lta_thinker.evaluation.flags import EvaluationArguments  # noqa: E402
from lta_thinker.flags import EstimateArguments, TaskArguments  # noqa: E402
from lta_thinker.training.declared import TrainFlags  # noqa: E402
from lta_thinker.usage import default_text, flag_name, meaning  # noqa: E402

CLASSES = {cls.__name__: cls for cls in (TrainFlags, EvaluationArguments, TaskArguments, EstimateArguments)}
PAGES = [DOCS / "training.md", DOCS / "evaluation.md"]
TABLE = re.compile(r"(<!-- flags: (\w+) -->\n).*?(<!-- end of flags -->)", re.DOTALL)


def cells(field: dataclasses.Field) -> tuple[str, str, str]:
    """A flag's row: its name, its default, what it means."""
    text, default = meaning(field).replace("|", "\\|").replace("<", "\\<"), default_text(field)
    if field.default is False:
        default = "off"
    elif default:
        default = f"`{default}`"
    return f"`{flag_name(field)}`", default, text


def flag_table(cls: type) -> str:
    """Markdown rows of the flags that the class itself declares, in its order."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    own = [fields[name] for name in inspect.get_annotations(cls) if name in fields]
    rows = [f"| {' | '.join(cells(field))} |" for field in own]
    return "\n".join(["| flag | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def with_tables(page: str) -> str:
    """A page's text with every flag table in it made anew."""
    return TABLE.sub(lambda found: found[1] + flag_table(CLASSES[found[2]]) + found[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and change nothing")
    check = parser.parse_args().check
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = with_tables(before)
        if check and after != before:
            sys.exit(f"error: {path.name}: a flag table is out of date; python docs/flag_tables.py makes it anew")
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"{path.name}: flag tables made anew")


if __name__ == "__main__":
    main()
