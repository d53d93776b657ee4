"""Evaluate latent thoughts (LTA-Thinker, arXiv 2509.12875): sample answers to every question of a split, vote, report.

    python -u evaluate.py --checkpoint ckpt/NAME --num_thought_tokens 2 --num_return_sequences 10

    python -u evaluate.py --base_model_id Qwen/Qwen3-8B --assistant_model_id Qwen/Qwen3-0.6B \
        --params_file_name CKPT/projection.bin --att_file_name CKPT/TransformerBlock.bin --batch_size 4 \
        --task_name gsm8k --num_thought_tokens 2 --num_return_sequences 10 --print_response

    python -u evaluate.py --base_model_id Qwen/Qwen3-8B --thought_generator none    # the LLM alone
        # (--base_model_ckpt CKPT/base_model: with the LoRA adapter of train.py --tune_base_model)
    python evaluate.py --compare A/report.json B/report.json                        # paired difference B - A
    python evaluate.py --rank A/report.json B/report.json C/report.json             # best vote first
    python evaluate.py --plot RUN RUN                                               # loss curves and maj@k of runs
    python evaluate.py --checkpoint ckpt/NAME --inspect 20                          # look into the thoughts
    python evaluate.py --checkpoint ckpt/NAME --ask "How many ...?" --num_return_sequences 10    # one question

flags, thoughts.json -> questions -> thoughts -> samples.jsonl -> report.json. samples.jsonl gets a line a question as
soon as it is answered; the same command after a kill answers the rest; at the end the lines are in the order of the
questions. Plain python spreads the LLM over the visible GPUs; under torchrun every rank has its own copy and takes its
share of the questions.
"""

import contextlib
import datetime
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import torch.distributed as dist
import transformers
from tqdm import tqdm

from lta_thinker.build import check_prompts
from lta_thinker.checkpoint import CHECKPOINT_NAME, run_checkpoints
from lta_thinker.common import InputError, flatten, make_folder, ranks, run_program, sha256_of, versions, write_json
from lta_thinker.data_loader import load_split, without_worked
from lta_thinker.evaluation.compare import compare, print_comparison, print_ranking, rank
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.inspection import inspect_thoughts
from lta_thinker.evaluation.plan import Plan, base_name, load_layout, load_models, make_plan, model_settings
from lta_thinker.evaluation.plots import plot_runs
from lta_thinker.evaluation.report import (
    REPORT_FILE,
    SAMPLES_FILE,
    SETTINGS_FILE,
    Report,
    SampleLine,
    check_folder,
    make_figures,
    merge_samples,
    print_report,
    read_samples,
    sample_line,
)
from lta_thinker.flags import parse_flags
from lta_thinker.generation.backends import backend_versions, open_sampler
from lta_thinker.generation.prompts import PromptEmbedder, Request, ThoughtVariance, make_requests
from lta_thinker.generation.samplers import Sampler, auto_batch_size, greedy_settings
from lta_thinker.generation.sampling import SamplingSettings, resolve_sampling
from lta_thinker.generation.solve import as_example, solve
from lta_thinker.llm.frozen import load_generation_config, num_positions
from lta_thinker.llm.lora import ROLES
from lta_thinker.model import Models
from lta_thinker.rows.examples import Example, Split
from lta_thinker.rows.layout import Layout

KEPT = "what was answered is kept, and the same command answers the rest"

# ---------------------------------------------------------------------------------------------------------------------
# The output folder: settings.json, samples.jsonl (one file a rank while several write), report.json


def text_settings(args: EvaluationArguments, plan: Plan, sampling: SamplingSettings, examples: list[Example]) -> dict:
    """All that decides the texts and needs no LM. A run only goes on in a folder with the same settings.

    examples: all of the split.
    """
    questions = json.dumps([(example.index, example.question, example.answer) for example in examples])
    spec = plan.spec
    settings = {
        "thought_generator": spec.kind,
        "base_model_id": spec.large.model_id,
        "assistant_model_id": spec.small.model_id if spec.small else None,
        "prompts": plan.prompts,
        "date_string": plan.date_string,
        "dtype": plan.dtype,
        "backend": plan.backend.name,
    }
    settings |= {path.name: sha256_of(path) for path in plan.files}
    for role, adapter in plan.adapters.items():
        settings |= {f"{role}/{path.name}": sha256_of(path) for path in adapter.files}
    settings |= {"task_name": plan.task.name, "num_thoughts_made": plan.num_made}
    if spec.design.num_chains > 1:
        settings["num_chains"] = spec.design.num_chains
    if spec.design.distinct_slot_ids:
        settings["distinct_slot_ids"] = True
    if plan.worked_examples:
        texts = json.dumps([asdict(example) for example in plan.worked_examples])
        settings["num_fewshot"] = len(plan.worked_examples)
        settings["worked_examples"] = hashlib.sha256(texts.encode()).hexdigest()
    return settings | {
        "num_thought_tokens": plan.num_injected,
        "split": args.split,
        "questions": hashlib.sha256(questions.encode()).hexdigest(),
        "answer_type": plan.task.answer_type,
        "sampling": asdict(sampling),
        "noise_of": "question",  # before, it was the row's number
        "special_tokens_in_text": plan.names_in_text,
        "attn_implementation": args.attn_implementation,
        "max_model_len": args.max_model_len,
    }


def output_folder(args: EvaluationArguments, plan: Plan) -> Path:
    """--output_dir, else results/eval-<checkpoint>/<split>-n<n>-x<samples>-seed<seed>[-shots<K>][-greedy]."""
    if args.output_dir:
        return Path(args.output_dir)
    leaf = f"{args.split}-n{plan.num_injected}-x{args.num_return_sequences}-seed{args.seed}"
    if plan.worked_examples:
        leaf += f"-shots{len(plan.worked_examples)}"
    return Path("results") / f"eval-{checkpoint_name(plan)}" / (f"{leaf}-greedy" if args.greedy else leaf)


def checkpoint_name(plan: Plan) -> str:
    """The name of the checkpoint's folder, of a resume checkpoint with the run's before it. Of no checkpoint the LLM's
    and the task's, and the name of the checkpoint whose adapter is in the LLM."""
    if plan.folder:
        folder = plan.folder.resolve()
        return f"{folder.parent.name}-{folder.name}" if CHECKPOINT_NAME.fullmatch(folder.name) else folder.name
    name = f"none-{base_name(plan.spec.large.model_id)}-{plan.task.name}"
    for adapter in plan.adapters.values():
        folder = adapter.files[0].resolve().parent
        name += f"-{folder.parent.name if folder.name in ROLES else folder.name}"
    return name


def begin_folder(folder: Path, settings: dict) -> None:
    """Write settings.json and merge the samples of earlier runs into one samples.jsonl, before any rank goes on."""
    if ranks().world > 1:
        dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))
    if ranks().is_first:
        write_json(folder / SETTINGS_FILE, settings)
        merge_samples(folder)
    wait_for_all()


def wait_for_all() -> None:
    if ranks().world > 1:
        dist.barrier()


# ---------------------------------------------------------------------------------------------------------------------
# Samples


def answer_questions(
    args: EvaluationArguments,
    sampler: Sampler,
    pending: Sequence[Request],
    done: Sequence[SampleLine],
    answer_type: str,
    folder: Path,
) -> float:
    """Answer this rank's share of the pending questions; each answered question is a new line of samples.

    The progress bar's accuracy counts the lines that were done before. Returns the seconds until all ranks are done.
    """
    start, here = time.time(), ranks()
    path = folder / (SAMPLES_FILE if here.world == 1 else f"samples.rank{here.rank}.jsonl")
    share = pending[here.rank :: here.world]
    right, total = sum(line.correct for line in done), len(done)
    with (
        open(path, "a", encoding="utf-8") as file,
        tqdm(total=len(share), desc="questions", disable=not here.is_first) as bar,
    ):
        for answer in sampler.answers(share):
            line = sample_line(answer, answer_type)
            file.write(json.dumps(asdict(line)) + "\n")
            file.flush()
            if args.print_input:
                tqdm.write(f"[{line.index}] {prompt_text(sampler.layout, line.question, sampler.embed.num_injected)}\n")
            if args.print_response:
                for i, (text, extracted) in enumerate(zip(line.responses, line.answers, strict=True)):
                    tqdm.write(f"[{line.index}.{i}] answer {extracted}, gold {line.gold}\n{text}\n")
            right, total = right + line.correct, total + 1
            bar.set_postfix_str(f"vote {right / total:.1%}")
            bar.update()
    wait_for_all()
    return time.time() - start


def prompt_text(layout: Layout, question: str, num_injected: int | None) -> str:
    """The LLM's prompt, with "<n thoughts>" where they are injected."""
    turn = layout.llm
    thoughts = f"<{num_injected} thoughts>" if num_injected else ""
    return f"{turn.before}{question}{turn.after}{thoughts}{turn.suffix}"


def thought_variance(embed: PromptEmbedder, done_before: Sequence[Request], batch_size: int) -> dict | None:
    """Variance of the thoughts over all questions and ranks; None without thoughts. For questions that an earlier run
    has answered (done_before) the thoughts are made now; the sampler has made the others."""
    if embed.models.thoughts is None or not embed.models.thoughts.num_thoughts:
        return None
    here = ranks()
    share = done_before[here.rank :: here.world]
    for start in tqdm(range(0, len(share), batch_size), desc="variance of the thoughts", leave=False):
        embed.make_thoughts(share[start : start + batch_size])
    variance = embed.variance
    if here.world > 1:
        gathered: list[ThoughtVariance] = [variance] * here.world
        dist.all_gather_object(gathered, variance)
        variance = ThoughtVariance.sum_of(gathered)
    return variance.figures() | {"num_thoughts": embed.models.thoughts.num_thoughts}


# ---------------------------------------------------------------------------------------------------------------------
# The runs


def sampling_settings(args: EvaluationArguments, plan: Plan) -> SamplingSettings:
    """The flags' settings, else the model family's, else its generation_config's."""
    return resolve_sampling(
        plan.llm_config.get_text_config().model_type,
        load_generation_config(plan.spec.large.model_id, plan.llm_config),
        args.num_return_sequences,
        args.seed,
        args.greedy,
        num_positions(plan.llm_config),
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        min_p=args.min_p,
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


def run(args: EvaluationArguments) -> None:
    """Evaluate a split, or look into the thoughts of its first questions (--inspect)."""
    start = time.time()
    plan = make_plan(args)
    split = load_split(plan.task, args.split, args.data_dir, args.skip_bad_rows)
    askable = without_worked(split.examples, plan.worked_examples)
    if not askable:
        raise InputError(f"--num_fewshot {len(plan.worked_examples)}: {split.source} has no other question")
    examples = askable[: args.inspect or args.test_k or None]
    sampling = sampling_settings(args, plan)
    settings = text_settings(args, plan, sampling, split.examples)
    folder = output_folder(args, plan)
    check_folder(folder, settings)
    print_settings(plan, settings, split, len(examples))
    if len(askable) < len(split.examples):
        shown = len(split.examples) - len(askable)
        print(f"note: {shown} of these questions are worked examples in the prompt (--num_fewshot) and are not asked")
    used = versions() | backend_versions(args.backend)
    make_folder(folder, instead="; use another --output_dir")

    layout = load_layout(plan)
    placed = [(example, f"{split.source}: row {example.index + 1}") for example in examples]
    check_prompts(plan.spec, layout, placed, plan.num_injected, sampling.max_new_tokens)
    models = load_models(plan, layout)
    settings |= model_settings(plan, models)
    requests = make_requests(layout, examples)
    batch_size = choose_batch_size(args, models, sampling, requests, plan.num_injected)
    if args.inspect:
        greedy = greedy_settings(models.llm, args.max_new_tokens)
        inspect_thoughts(models, requests, plan.task.answer_type, plan.num_injected, greedy, batch_size, folder)
        return
    check_folder(folder, settings)

    begin_folder(folder, settings)
    lines = {line.index: line for line in read_samples(folder / SAMPLES_FILE)}
    wait_for_all()  # nobody writes before everybody has read
    pending = [request for request in requests if request.example.index not in lines]
    done = [request for request in requests if request.example.index in lines]
    done_lines = [lines[request.example.index] for request in done]
    sampler = open_sampler(plan.backend, models, sampling, batch_size, plan.num_injected, pending)
    with contextlib.closing(sampler):
        seconds = answer_questions(args, sampler, pending, done_lines, plan.task.answer_type, folder)
        variance = thought_variance(sampler.embed, done, batch_size)
    if not ranks().is_first:
        return

    lines = merge_samples(folder)
    tokens = sum(sum(lines[request.example.index].num_tokens) for request in pending)
    figures = make_figures([lines[example.index] for example in examples], plan.task.answer_type)
    report = Report(
        **vars(figures),
        speed={"questions": len(pending) / seconds, "tokens": tokens / seconds} if pending else None,
        thought_variance=variance,
        checkpoint=checkpoint_facts(plan),
        settings=settings,
        versions=used,
        wall_seconds=time.time() - start,
    )
    report.write(folder / REPORT_FILE)
    print_report(report)
    print(f"  {folder / REPORT_FILE}")


def print_settings(plan: Plan, settings: dict, split: Split, asked: int) -> None:
    """What an evaluation begins with: its settings and its questions."""
    for name, value in flatten(settings).items():
        print(f"  {name} = {value!r}")
    print(f"  {split.source}: {split.read} rows, {split.bad} left out as broken, {asked} asked", flush=True)
    if split.warning:
        print(f"warning: {split.warning}")
    made, injected = plan.num_made, plan.num_injected
    if made < plan.spec.num_thoughts:
        print(f"note: {made} thoughts are made, {plan.spec.num_thoughts} were trained together (--make_only_n)")
    elif injected < made:
        print(f"note: {injected} of {made} thoughts go into the prompt; in our study a few of many answered worse")


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


def checkpoint_facts(plan: Plan) -> dict:
    """What report.json says of the weights: their name, the run and dev losses of their training."""
    record = plan.record if plan.folder else None
    return {
        "name": checkpoint_name(plan),
        "run": record.run if record else None,
        "dev": record.dev if record else None,
    }


def main(argv: list[str] | None = None) -> None:
    transformers.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()  # else a missing network is five retries before the one line
    with contextlib.redirect_stdout(sys.stdout if ranks().is_first else open(os.devnull, "w")):
        run_program(dispatch, sys.argv[1:] if argv is None else argv, KEPT)
    if dist.is_initialized():
        dist.destroy_process_group()


def dispatch(argv: list[str]) -> None:
    """Do what the flags ask for: --compare, --rank, --plot, --checkpoints_of, --ask, else an evaluation."""
    args = parse_flags(EvaluationArguments, argv, "evaluate.py")
    if args.compare:
        print_comparison(compare(*args.compare))
    elif args.rank:
        print_ranking(rank(args.rank))
    elif args.plot:
        print(*plot_runs(args.plot, args.output_dir), sep="\n")
    elif args.checkpoints_of:
        print(*run_checkpoints(args.checkpoints_of), sep="\n")
    elif args.ask is not None:
        ask(args)
    else:
        run(args)


if __name__ == "__main__":
    main()
