"""Several tasks in one evaluation: the LMs are loaded once, each task has its own prompts, folder and report.

python evaluate.py --checkpoint ckpt/NAME --task_name gsm8k,aqua,du
"""

from collections.abc import Sequence
from dataclasses import replace

from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import Plan, choose_examples, choose_prompts, choose_task
from lta_thinker.evaluation.report import Report


def for_task(plan: Plan, args: EvaluationArguments) -> Plan:
    """The plan for another task, with the same models. InputError where there is no such task."""
    record = plan.record
    if record and args.task_name != record.task_name:
        print(f"note: --task_name {args.task_name}; the thoughts were trained with {record.task_name}")
    task = choose_task(args, record)
    examples = choose_examples(args, task, record)
    return replace(plan, task=task, prompts=choose_prompts(args, task, record), worked_examples=examples)


def print_tasks(reports: Sequence[Report]) -> None:
    """The table of several tasks' reports."""
    samples = reports[0].settings["sampling"]["num_return_sequences"]
    vote = [f"vote of {samples}"] if samples > 1 else []  # a vote of one is that sample
    rows = [["task", "questions", *vote, "one sample", "no answer", "tokens a sample"]]
    for report in reports:
        accuracies = [report.vote_accuracy.percent, report.sample_accuracy.percent][0 if vote else 1 :]
        figures = [f"{report.no_answer:.1%}", f"{report.tokens_per_sample:.1f}"]
        rows.append([report.settings["task_name"], f"{report.num_questions:,}", *accuracies, *figures])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{len(reports)} tasks, % right [95 % intervals over questions]")
    for row in rows:
        print("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
