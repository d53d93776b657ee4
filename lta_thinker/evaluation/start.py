"""What evaluate.py answers before its imports, which take seconds: --help, a flag that there is not, in a --config too,
and what needs no LM: comparisons, the list of tasks. And what it is about to load."""

import dataclasses
import sys
from pathlib import Path

from lta_thinker.common import ranks, run_program
from lta_thinker.config import with_config
from lta_thinker.console import first_word, last_value
from lta_thinker.data_loader import task_table
from lta_thinker.evaluation.compare import compare, print_comparison, print_ranking, rank
from lta_thinker.evaluation.flags import DEFAULT_MODEL_IDS, EvaluationArguments
from lta_thinker.evaluation.page import write_comparison, write_ranking
from lta_thinker.evaluation.report import REPORT_FILE
from lta_thinker.flags import parse_flags
from lta_thinker.usage import check_words, flag_words, help_text, print_help, wanted_help

# flags whose output is all that is asked for
NO_EVALUATION = ("ask", "compare", "rank", "regrade", "plot", "list_tasks", "checkpoints_of")


def answer_at_once() -> None:
    """End the process where the command line has a flag that there is not, asks for --help or --list_tasks, or is
    nothing but --compare A B or --rank A B ...; else say what is loaded."""
    run_program(answer, sys.argv[1:], "nothing was written")


def answer(argv: list[str]) -> None:
    """As answer_at_once; InputError for a wrong flag and for what cannot be compared."""
    if wanted_help(argv) is not None:
        print_help(help_text("evaluate.py", EvaluationArguments))
    known = flag_words(dataclasses.fields(EvaluationArguments))
    check_words(argv, known, "evaluate.py")
    words = with_config(argv, known, "evaluate.py")
    if "--list_tasks" in argv and ranks().is_first:
        print(task_table(parse_flags(EvaluationArguments, argv, "evaluate.py").data_dir))
        sys.exit()
    what, paths = argv[:1], argv[1:]
    alone = paths and not any(path.startswith("-") for path in paths) and ranks().is_first
    if alone and what == ["--compare"] and len(paths) == 2:
        compare_reports(paths, None)
        sys.exit()
    if alone and what == ["--rank"]:
        rank_reports(paths, None)
        sys.exit()
    if all(last_value(words, name) is None for name in NO_EVALUATION):
        base = last_value(words, "base_model_id") or DEFAULT_MODEL_IDS["base_model_id"]
        params = last_value(words, "params_file_name")
        first_word("evaluate.py", last_value(words, "checkpoint") or (f"{base} and {params}" if params else base))


def report_path(path: str) -> str:
    """A report.json, or of an evaluation's folder the one in it."""
    return str(Path(path) / REPORT_FILE) if Path(path).is_dir() else path


def compare_reports(paths: list[str], folder: str | None) -> None:
    """Print the paired comparison of two evaluations, each a report.json or its folder, and write its page into
    `folder` (None: results/)."""
    paths = [report_path(path) for path in paths]
    comparison = compare(*paths)
    print_comparison(comparison)
    print(f"  {write_comparison(comparison, list(map(Path, paths)), folder)}")


def rank_reports(paths: list[str], folder: str | None) -> None:
    """Print the ranking of several evaluations, as compare_reports takes them, and write its page into `folder`."""
    ranked = rank([report_path(path) for path in paths])
    print_ranking([one.report for _, one in ranked])
    print(f"  {write_ranking(ranked, folder)}")
