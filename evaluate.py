"""Evaluate latent thoughts (LTA-Thinker, arXiv 2509.12875): sample answers to every question of a split, vote, report.

    python -u evaluate.py --checkpoint ckpt/NAME --num_thought_tokens 2 --num_return_sequences 10

    python -u evaluate.py --base_model_id Qwen/Qwen3-8B --assistant_model_id Qwen/Qwen3-0.6B \
        --params_file_name CKPT/projection.bin --att_file_name CKPT/TransformerBlock.bin --batch_size 4 \
        --task_name gsm8k --num_thought_tokens 2 --num_return_sequences 10 --print_response

    python -u evaluate.py --base_model_id Qwen/Qwen3-8B --thought_generator none    # the LLM alone
        # (--base_model_ckpt CKPT/base_model: with the LoRA adapter of train.py --tune_base_model)
    python evaluate.py --compare A/report.json B/report.json                        # paired difference B - A
    python evaluate.py --checkpoint ckpt/NAME --task_name gsm8k,aqua                # several tasks, one table
    python evaluate.py --list_tasks                                                 # what there is, and where
    python evaluate.py --rank A/report.json B/report.json C/report.json             # best vote first
    python evaluate.py --regrade results/A results/B                                # answers of old texts found anew
    python evaluate.py --plot RUN RUN                                               # loss curves and maj@k of runs
    python evaluate.py --estimate --num_return_sequences 10                         # what it would take on a GPU
    python evaluate.py --checkpoint ckpt/NAME --inspect 20                          # look into the thoughts
    python evaluate.py --checkpoint ckpt/NAME --ask "How many ...?" --num_return_sequences 10    # one question

flags, thoughts.json -> questions -> thoughts -> samples.jsonl -> report.json, report.html. samples.jsonl gets a line a
question as soon as it is answered; the same command after a kill answers the rest; at the end the lines are in the
order of the questions. Plain python spreads the LLM over the visible GPUs; under torchrun every rank has its own copy
and takes its share of the questions.
"""

import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C during the imports, which take seconds, is no traceback
    from lta_thinker.evaluation.start import answer_at_once

    answer_at_once()  # --help, a wrong flag and the first word do not wait for the imports

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import huggingface_hub
import torch.distributed as dist
import transformers

from lta_thinker.build import check_prompts
from lta_thinker.checkpoint import run_checkpoints
from lta_thinker.common import InputError, counted, first_line, lock_folder, make_folder, ranks, run_program, versions
from lta_thinker.console import disk_line
from lta_thinker.data_loader import load_split, task_table, without_worked
from lta_thinker.evaluation.compare import Evaluated
from lta_thinker.evaluation.console import parameters_text, print_flags, print_next, print_plan
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.folder import (
    check_folder,
    check_report,
    checkpoint_name,
    output_folder,
    text_settings,
    write_start,
)
from lta_thinker.evaluation.inspection import inspect_thoughts
from lta_thinker.evaluation.page import PAGE_FILE, report_page, write_page
from lta_thinker.evaluation.plan import (
    Plan,
    layout_settings,
    lm_settings,
    load_layout,
    load_models,
    make_plan,
    model_settings,
)
from lta_thinker.evaluation.plots import plot_runs
from lta_thinker.evaluation.regrade import regrade
from lta_thinker.evaluation.report import (
    GRADED_FILE,
    REPORT_FILE,
    CheckpointFacts,
    Graded,
    Report,
    grade,
    lines_digest,
    make_figures,
    print_report,
    write_graded,
)
from lta_thinker.evaluation.samples import SAMPLES_FILE, append_line, merge_samples, read_samples, sample_line
from lta_thinker.evaluation.start import compare_reports, rank_reports
from lta_thinker.evaluation.tasks import for_task, print_tasks
from lta_thinker.flags import parse_flags
from lta_thinker.generation.backends import backend_versions, open_sampler
from lta_thinker.generation.prompts import PromptEmbedder, Request, ThoughtVariance, make_requests
from lta_thinker.generation.samplers import Sampler, auto_batch_size, greedy_settings
from lta_thinker.generation.sampling import SamplingSettings, resolve_sampling
from lta_thinker.generation.solve import as_example, solve
from lta_thinker.llm.frozen import load_generation_config, num_positions
from lta_thinker.model import Models
from lta_thinker.progress import Progress, say, track
from lta_thinker.rows.examples import Example, Split
from lta_thinker.rows.layout import Layout

KEPT = "what was answered is kept, and the same command answers the rest"
WRITES_NOTHING = (
    "--ask",
    "--estimate",
    "--compare",
    "--rank",
    "--plot",
    "--checkpoints_of",
    "--inspect",
)  # before its end

# ---------------------------------------------------------------------------------------------------------------------
# Ranks


def join_ranks() -> None:
    """Meet the other processes of the run. InputError where torchrun's environment variables say not where."""
    if ranks().world == 1 or dist.is_initialized():
        return
    try:
        dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))
    except ValueError as error:
        what = f"WORLD_SIZE={ranks().world}, but its processes cannot meet ({first_line(error)})"
        raise InputError(f"{what}; start them by torchrun, or for one process: unset WORLD_SIZE") from None


@contextlib.contextmanager
def with_all_ranks() -> Iterator[None]:
    """Within it an error of what all ranks do together is an InputError: another one has ended."""
    try:
        yield
    except RuntimeError:
        raise InputError(f"another process of this run has ended; {KEPT}") from None


def wait_for_all() -> None:
    if ranks().world > 1:
        with with_all_ranks():
            dist.barrier()


# ---------------------------------------------------------------------------------------------------------------------
# Samples


def answer_questions(
    args: EvaluationArguments, sampler: Sampler, pending: Sequence[Request], answer_type: str, folder: Path
) -> tuple[float, dict[int, Graded]]:
    """Answer this rank's share of the pending questions; each answered question is a new line of samples.

    Returns the seconds until all ranks are done, and what rank 0 graded for its progress bar, by question.
    """
    start, here = time.time(), ranks()
    path = folder / (SAMPLES_FILE if here.world == 1 else f"samples.rank{here.rank}.jsonl")
    share = pending[here.rank :: here.world]
    graded: dict[int, Graded] = {}
    what = "questions" if here.world == 1 else f"questions of process 0 of {here.world}"
    with Progress(what, len(share), quiet=not here.is_first) as progress:
        for answer in sampler.answers(share):
            line = sample_line(answer)
            append_line(path, line)
            if not here.is_first:
                continue
            own = graded[line.index] = grade(line, answer_type)
            if args.print_input:
                say(f"[{line.index}] {prompt_text(sampler.layout, line.question, sampler.embed.num_injected)}\n")
            if args.print_response:
                for i, (text, extracted) in enumerate(zip(line.responses, own.answers, strict=True)):
                    say(f"[{line.index}.{i}] answer {extracted}, gold {own.gold}\n{text}\n")
            right = sum(one.correct for one in graded.values())
            progress.update(note=f"{right / len(graded):.1%} right so far, the longest questions first")
    wait_for_all()
    return time.time() - start, graded


def prompt_text(layout: Layout, question: str, num_injected: int | None) -> str:
    """The LLM's prompt, with "<n thoughts>" where they are injected."""
    turn = layout.llm
    thoughts = f"<{counted(num_injected, 'thought')}>" if num_injected else ""
    return f"{turn.before}{question}{turn.after}{thoughts}{turn.suffix}"


def thought_variance(embed: PromptEmbedder, done_before: Sequence[Request], batch_size: int) -> dict | None:
    """Variance of the thoughts over all questions and ranks; None without thoughts. For questions that an earlier run
    has answered (done_before) the thoughts are made now; the sampler has made the others."""
    if embed.models.thoughts is None or not embed.models.thoughts.num_thoughts:
        return None
    here = ranks()
    share = done_before[here.rank :: here.world]
    starts = range(0, len(share), batch_size)
    for start in track(starts, "variance of the thoughts", len(starts), quiet=not here.is_first):
        embed.make_thoughts(share[start : start + batch_size])
    variance = embed.variance
    if here.world > 1:
        gathered: list[ThoughtVariance] = [variance] * here.world
        with with_all_ranks():
            dist.all_gather_object(gathered, variance)
        variance = ThoughtVariance.sum_of(gathered)
    return variance.figures() | {"num_thoughts": embed.models.thoughts.num_thoughts}


# ---------------------------------------------------------------------------------------------------------------------
# The runs


def sampling_settings(args: EvaluationArguments, plan: Plan, with_flags: bool = True) -> SamplingSettings:
    """The flags' settings, else the model family's, else its generation_config's."""
    names = ("max_new_tokens", "temperature", "top_p", "top_k", "min_p") if with_flags else ()
    return resolve_sampling(
        plan.llm_config.get_text_config().model_type,
        load_generation_config(plan.spec.large.model_id, plan.llm_config),
        args.num_return_sequences,
        args.seed,
        args.greedy,
        num_positions(plan.llm_config),
        **{name: getattr(args, name) for name in names},
    )


def ask(args: EvaluationArguments) -> None:
    """--ask: one question's answer and votes; nothing is written."""
    assert args.ask is not None
    plan = make_plan(args)
    example, sampling = as_example(args.ask, plan.task.answer_type), sampling_settings(args, plan)
    layout = load_layout(plan)
    check_prompts(plan.spec, layout, [(example, "--ask")], plan.num_injected, sampling.max_new_tokens)
    models = load_models(plan, layout)
    model_settings(plan, models)  # refuses other LMs than those of the training
    solution = solve(models, example, sampling, plan.task.answer_type, plan.num_injected)
    if args.print_input:
        print(prompt_text(models.layout, example.question, plan.num_injected), end="\n\n")
    if args.print_response:
        print(*solution.texts, sep="\n\n", end="\n\n")
    votes, without = dict(solution.votes), len(solution.texts) - sum(solution.votes.values())
    if without:
        votes["no answer"] = without
    print(f"answer: {'none' if solution.answer is None else solution.answer}")
    print(f"  votes: {', '.join(f'{answer} ({count})' for answer, count in votes.items())}")
    print(f"  tokens: {', '.join(map(str, solution.tokens))}")


@dataclass(frozen=True)
class Work:
    """An evaluation of one task, settled before an LM is loaded: its flags, plan, split, examples to ask, sampling with
    and without flags (None: there could be none), output folder, settings so far, versions, and the layout of its
    prompts."""

    args: EvaluationArguments
    plan: Plan
    split: Split
    examples: list[Example]
    sampling: SamplingSettings
    usual: SamplingSettings | None
    folder: Path
    settings: dict
    used: dict[str, str]
    layout: Layout


def run(args: EvaluationArguments) -> None:
    """Evaluate a split of one or several tasks, or look into the thoughts of its first questions (--inspect)."""
    start, works, models, lms = time.time(), [], None, {}
    print_flags(args)
    for one in args.tasks:
        works.append(prepare(one, for_task(works[0].plan, one) if works else make_plan(one)))
    reports = []
    for work in works:
        settings = work.settings if args.verbose else None
        sampling = None if args.inspect else work.sampling
        print_plan(work.plan, sampling, work.split, len(work.examples), settings)
        if models is None:
            models = load_models(work.plan, work.layout)
            print(parameters_text(work.plan, models))
            lms = lm_settings(work.plan, models)  # refuses other LMs than those of the training
        models = replace(models, layout=work.layout)
        reports.append(evaluate(work, models, lms, start))
        start = time.time()
    if not ranks().is_first or args.inspect:
        return
    if len(works) > 1:
        print_tasks(reports)
    else:
        (work,) = works
        print_next(work.args, work.plan, work.sampling, work.usual, work.folder)


def prepare(args: EvaluationArguments, plan: Plan) -> Work:
    """All of an evaluation that needs no LM. InputError for whatever is wrong; its folder is kept for this process."""
    split = load_split(plan.task, args.split, args.data_dir, args.skip_bad_rows)
    askable = without_worked(split.examples, plan.worked_examples)
    if not askable:
        raise InputError(f"--num_fewshot {len(plan.worked_examples)}: {split.source} has no other question")
    examples = askable[: args.inspect or args.test_k or None]
    sampling = sampling_settings(args, plan)
    settings = text_settings(args, plan, sampling, split.examples)
    try:
        usual = sampling_settings(args, plan, with_flags=False)
    except InputError:  # the model's own settings cannot be, and flags stand in for them
        usual = None
    folder = output_folder(args, plan, sampling, usual)
    check_folder(folder, settings)
    if not args.inspect:
        check_report(folder, len(examples), args.replace_report)
    used = versions() | backend_versions(args.backend)
    make_folder(folder, instead="; use another --output_dir")
    if ranks().is_first:
        lock_folder(folder, instead="; wait for it, or use another --output_dir")
    layout = load_layout(plan)
    placed = [(example, f"{split.source}: row {example.index + 1}") for example in examples]
    check_prompts(plan.spec, layout, placed, plan.num_injected, sampling.max_new_tokens)
    return Work(args, plan, split, examples, sampling, usual, folder, settings, used, layout)


def evaluate(work: Work, models: Models, lms: dict, start: float) -> Report | None:
    """Ask the questions, write and print the report, of rank 0. lms: lm_settings; start: when the work began, for the
    report. InputError where the LMs are not those of the folder's samples."""
    args, plan, split, sampling, folder = work.args, work.plan, work.split, work.sampling, work.folder
    examples, settings = work.examples, work.settings | lms | layout_settings(work.layout)
    requests = make_requests(work.layout, examples)
    batch_size = choose_batch_size(args, models, sampling, requests, plan.num_injected)
    if args.inspect:
        greedy = greedy_settings(models.llm, args.max_new_tokens)
        if plan.record and not plan.record.writes_steps:
            requests = [replace(request, example=replace(request.example, steps=())) for request in requests]
        inspect_thoughts(models, requests, plan.task.answer_type, plan.num_injected, greedy, batch_size, folder)
        return None
    check_folder(folder, settings)

    join_ranks()
    starts = []
    if ranks().is_first:
        lines = merge_samples(folder, split.examples, args.num_return_sequences)
        asks = any(example.index not in lines for example in examples)
        starts = write_start(folder, settings, work.used if asks else None, answered=bool(lines))
    wait_for_all()
    lines = {line.index: line for line in read_samples(folder / SAMPLES_FILE)}
    wait_for_all()  # nobody writes before everybody has read
    pending = [request for request in requests if request.example.index not in lines]
    done = [request for request in requests if request.example.index in lines]
    print(disk_line(folder), flush=True)
    if done and pending:
        print(f"  {counted(len(done), 'question')} answered already, {len(pending):,} left", flush=True)
    sampler = open_sampler(plan.backend, models, sampling, batch_size, plan.num_injected, pending)
    with contextlib.closing(sampler):
        seconds, known = answer_questions(args, sampler, pending, plan.task.answer_type, folder)
        variance = thought_variance(sampler.embed, done, batch_size)
    if not ranks().is_first:
        return None

    lines = merge_samples(folder, split.examples, args.num_return_sequences)
    if missing := sum(example.index not in lines for example in examples):
        raise InputError(f"{folder}: the answers to {missing} questions are gone; the same command asks them again")
    graded = []
    for line in (lines[example.index] for example in examples):
        own = known.get(line.index)  # of this start; what others wrote is graded now
        graded.append(own if own and own.line == line else grade(line, plan.task.answer_type))
    tokens = sum(sum(lines[request.example.index].num_tokens) for request in pending)
    report = Report(
        **vars(make_figures(graded)),
        speed={"questions": len(pending) / seconds, "tokens": tokens / seconds} if pending else None,
        thought_variance=variance,
        checkpoint=checkpoint_facts(plan),
        settings=settings,
        versions=work.used,
        wall_seconds=time.time() - start,
        starts=starts,
        samples=lines_digest([one.line for one in graded]),
    )
    write_graded(folder / GRADED_FILE, graded)
    report.write(folder / REPORT_FILE)
    write_page(folder / PAGE_FILE, report_page(Evaluated(report, graded), folder))
    print_report(report)
    print(f"  {folder / REPORT_FILE}")
    print(f"  {folder / PAGE_FILE}")
    return report


def choose_batch_size(
    args: EvaluationArguments,
    models: Models,
    sampling: SamplingSettings,
    requests: Sequence[Request],
    num_injected: int,
) -> int:
    """--batch_size, or as many questions as fit into memory."""
    if args.batch_size != "auto":
        return int(args.batch_size)
    longest = max(request.length for request in requests) + num_injected
    return auto_batch_size(models.llm, sampling, longest, len(requests))


def checkpoint_facts(plan: Plan) -> CheckpointFacts:
    """What report.json says of the weights."""
    record = plan.record if plan.folder else None
    return CheckpointFacts(checkpoint_name(plan), record.run if record else None, record.dev if record else None)


def main(argv: list[str] | None = None) -> None:
    transformers.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()  # else a missing network is five retries before the one line
    argv = sys.argv[1:] if argv is None else argv
    kept = "nothing was written" if any(word.startswith(WRITES_NOTHING) for word in argv) else KEPT
    if any(word.startswith("--regrade") for word in argv):
        kept = "the same command grades anew what is left"
    with contextlib.redirect_stdout(sys.stdout if ranks().is_first else open(os.devnull, "w")):
        run_program(dispatch, argv, kept)
    if dist.is_initialized():
        dist.destroy_process_group()


def dispatch(argv: list[str]) -> None:
    """Do what the flags ask for: --compare, --rank, --regrade, --plot, --list_tasks, --checkpoints_of, --ask, else an
    evaluation."""
    args = parse_flags(EvaluationArguments, argv, "evaluate.py")
    if args.compare:
        compare_reports(args.compare, args.output_dir)
    elif args.rank:
        rank_reports(args.rank, args.output_dir)
    elif args.regrade:
        regrade(args.regrade)
    elif args.plot:
        print(*plot_runs(args.plot, args.output_dir), sep="\n")
    elif args.list_tasks:
        print(task_table(args.data_dir))
    elif args.checkpoints_of:
        print(*run_checkpoints(args.checkpoints_of), sep="\n")
    elif args.ask is not None:
        ask(args)
    elif args.estimate:
        from lta_thinker.evaluation.estimate import print_estimate  # here: nothing else needs it

        for one in args.tasks:
            plan = make_plan(one, device="cpu")
            print_estimate(one, plan, sampling_settings(one, plan))
    else:
        run(args)


if __name__ == "__main__":
    main()
