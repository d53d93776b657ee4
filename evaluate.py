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

flags, thoughts.json -> questions -> thoughts -> samples.jsonl (a line a question, as soon as it is done; a killed run
goes on there; at the end they stand in the order of the questions) -> report.json. Plain python spreads the LLM over
the visible GPUs; under torchrun every rank has its own copy and takes its share of the questions.
"""

import contextlib
import datetime
import hashlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import torch.distributed as dist
import transformers
from tqdm import tqdm

from lta_thinker.checkpoint import CHECKPOINT_NAME, run_checkpoints
from lta_thinker.common import InputError, versions, write_text
from lta_thinker.data_loader import load_split
from lta_thinker.evaluation.compare import compare, print_comparison, print_ranking, rank
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.inspection import inspect_thoughts
from lta_thinker.evaluation.plan import Plan, base_name, load_models, make_plan, model_settings
from lta_thinker.evaluation.plots import plot_runs
from lta_thinker.evaluation.report import (
    REPORT_FILE,
    SAMPLES_FILE,
    SETTINGS_FILE,
    check_folder,
    flatten,
    make_report,
    merge_samples,
    print_report,
    read_samples,
    sample_record,
    thought_variance,
)
from lta_thinker.flags import parse_flags
from lta_thinker.generation.samplers import Sampler, auto_batch_size, backend_versions, open_sampler, prompt_length
from lta_thinker.generation.sampling import SamplingSettings, resolve_sampling
from lta_thinker.generation.solve import as_example, solve
from lta_thinker.llm.frozen import load_generation_config
from lta_thinker.llm.lora import ROLES
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun

# ---------------------------------------------------------------------------------------------------------------------
# The output folder: settings.json, samples.jsonl (one file a rank while several write), report.json


def text_settings(plan: Plan, sampling: SamplingSettings, split: str, examples: list[Example]) -> dict:
    """All that decides the texts: a run only goes on in a folder whose settings are the same."""
    questions = json.dumps([(example.index, example.question, example.answer) for example in examples])
    settings = {
        name: getattr(plan, name)
        for name in "thought_generator base_model_id assistant_model_id prompts date_string dtype backend".split()
    }
    for path in plan.files:
        with open(path, "rb") as file:
            settings[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    for role, adapter in plan.adapters.items():
        for path in adapter.files:
            settings[f"{role}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return settings | {
        "task_name": plan.task.name,
        "num_thoughts_made": plan.made,
        **({"num_chains": plan.design.num_chains} if plan.design.num_chains > 1 else {}),
        "num_thought_tokens": plan.injected,
        "split": split,
        "questions": hashlib.sha256(questions.encode()).hexdigest(),
        "answer_type": plan.task.answer_type,
        "sampling": asdict(sampling),
    }


def output_folder(args: EvaluationArguments, plan: Plan) -> Path:
    """--output_dir, else results/eval-<checkpoint>/<split>-n<n>-x<samples>-seed<seed>[-greedy]."""
    if args.output_dir:
        return Path(args.output_dir)
    leaf = f"{args.split}-n{plan.injected}-x{args.num_return_sequences}-seed{args.seed}"
    return Path("results") / f"eval-{checkpoint_name(plan)}" / (leaf + "-greedy" * args.greedy)


def checkpoint_name(plan: Plan) -> str:
    """The folder's name, with the run's before it where Trainer gave it; for `none` the LLM's and the task's, and of an
    adapter in the LLM the checkpoint's."""
    if not plan.files:
        name = f"none-{base_name(plan.base_model_id)}-{plan.task.name}"
        for adapter in plan.adapters.values():
            folder = adapter.files[0].resolve().parent
            name += f"-{folder.parent.name if folder.name in ROLES else folder.name}"
        return name
    folder = plan.files[0].resolve().parent
    return f"{folder.parent.name}-{folder.name}" if CHECKPOINT_NAME.fullmatch(folder.name) else folder.name


# ---------------------------------------------------------------------------------------------------------------------
# Samples


def run_missing(args, plan: Plan, models: tuple, examples: list[Example], sampling, folder: Path) -> tuple[list, float]:
    """This rank's share of the questions without samples -> all ranks' such questions, and the seconds they took."""
    done = {record["index"]: record for record in read_samples(folder / SAMPLES_FILE)}
    wait_for_all()  # nobody writes before everybody has read
    pending = [example for example in examples if example.index not in done]
    before = [done[example.index] for example in examples if example.index in done]
    path = folder / (SAMPLES_FILE if WORLD == 1 else f"samples.rank{RANK}.jsonl")
    with contextlib.closing(open_sampler(args, plan, models, sampling, pending)) as sampler:
        start = time.time()
        run_questions(args, plan, sampler, pending[RANK::WORLD], path, before)
        wait_for_all()
        return pending, time.time() - start


def run_questions(args, plan: Plan, sampler: Sampler, examples: list[Example], path: Path, done: list) -> None:
    """Answer the questions and append a line each to `path`; the bar's accuracy counts the questions done before."""
    layout = sampler.layout
    right, total = sum(record["correct"] for record in done), len(done)
    with (
        open(path, "a", encoding="utf-8") as file,
        tqdm(total=len(examples), desc="questions", disable=RANK > 0) as bar,
    ):
        for example, samples, texts in sampler.answers(examples):
            record = sample_record(example, samples, texts, plan.task.answer_type)
            file.write(json.dumps(record) + "\n")
            file.flush()
            if args.print_input:
                tqdm.write(f"[{example.index}] {prompt_text(layout, example, plan.injected)}\n")
            if args.print_response:
                for i, (text, answer) in enumerate(zip(texts, record["answers"], strict=True)):
                    tqdm.write(f"[{example.index}.{i}] answer {answer}, gold {example.answer}\n{text}\n")
            right, total = right + record["correct"], total + 1
            bar.set_postfix_str(f"vote {right / total:.1%}")
            bar.update()


def prompt_text(layout: Layout, example: Example, injected: int) -> str:
    turn, thoughts = layout.llm, f"<{injected} thoughts>" if injected else ""
    return f"{turn.before}{example.question}{turn.after}{thoughts}{turn.suffix}"


# ---------------------------------------------------------------------------------------------------------------------
# The whole


def sampling_settings(args: EvaluationArguments, plan: Plan) -> SamplingSettings:
    return resolve_sampling(
        plan.llm_config.get_text_config().model_type,
        load_generation_config(plan.base_model_id, plan.llm_config),
        args.num_return_sequences,
        args.seed,
        args.greedy,
        **{name: getattr(args, name) for name in ("max_new_tokens", "temperature", "top_p", "top_k", "min_p")},
    )


def ask(args: EvaluationArguments) -> None:
    """--ask: one question's answer and votes; nothing is written."""
    plan = make_plan(args)
    example, sampling = as_example(args.ask, plan.task.answer_type), sampling_settings(args, plan)
    models = load_models(plan, args.trust_remote_code, args.attn_implementation)
    model_settings(plan, models)  # refuses other LMs than those of the training
    solution = solve(*models, example, sampling, plan.task.answer_type, plan.injected)
    if args.print_input:
        print(prompt_text(models[2], example, plan.injected), end="\n\n")
    if args.print_response:
        print(*solution.texts, sep="\n\n", end="\n\n")
    without = len(solution.texts) - sum(solution.votes.values())
    votes = solution.votes | ({"no answer": without} if without else {})
    print(f"answer: {'none' if solution.answer is None else solution.answer}")
    print(f"  votes: {', '.join(f'{answer} ({count})' for answer, count in votes.items())}")
    print(f"  tokens: {', '.join(map(str, solution.tokens))}")


def run(args: EvaluationArguments) -> None:
    start = time.time()
    plan = make_plan(args)
    split = load_split(plan.task, args.split, args.data_dir, args.skip_bad_rows)
    sampling = sampling_settings(args, plan)
    settings = text_settings(plan, sampling, args.split, split.examples)
    settings |= {"attn_implementation": args.attn_implementation, "max_model_len": args.max_model_len}
    folder = output_folder(args, plan)
    check_folder(folder, settings)
    for name, value in flatten(settings).items():
        print(f"  {name} = {value!r}")
    examples = split.examples[: args.test_k or None]
    print(f"  {split.source}: {split.read} rows, {split.bad} left out as broken, {len(examples)} asked", flush=True)
    if split.warning:
        print(f"warning: {split.warning}")
    used = versions() | backend_versions(args.backend)
    folder_for_writing(folder)
    models = load_models(plan, args.trust_remote_code, args.attn_implementation)
    settings |= model_settings(plan, models)
    if args.batch_size == "auto":
        longest = max(prompt_length(models[2], example.question) for example in examples) + plan.injected
        args.batch_size = auto_batch_size(models[0], sampling, longest, len(examples))
    if args.inspect:
        asked = (split.examples[: args.inspect], plan.task.answer_type, plan.injected, args.max_new_tokens)
        inspect_thoughts(*models, *asked, args.batch_size, folder)
        return
    check_folder(folder, settings)

    begin_folder(folder, settings)
    pending, seconds = run_missing(args, plan, models, examples, sampling, folder)
    if RANK == 0:
        records = merge_samples(folder)
        tokens = sum(sum(records[example.index]["num_tokens"]) for example in pending)
        report = make_report([records[example.index] for example in examples], settings["answer_type"])
        report["speed"] = {"questions": len(pending) / seconds, "tokens": tokens / seconds} if pending else None
        _, model, layout = models
        report["thought_variance"] = model and thought_variance(model, layout, examples, args.batch_size)
        trained = plan.trained if plan.files and plan.trained else {}
        run_name = trained.get("flags", {}).get("output_name")
        report["checkpoint"] = {"name": checkpoint_name(plan), "run": run_name, "dev": trained.get("dev")}
        report |= {"settings": settings, "versions": used, "wall_seconds": time.time() - start}
        write_text(folder / REPORT_FILE, json.dumps(report, indent=2) + "\n")
        print_report(report)
        print(f"  {folder / REPORT_FILE}")


def folder_for_writing(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); use another --output_dir") from None


def begin_folder(folder: Path, settings: dict) -> None:
    """Settings on disk, and what earlier runs left merged into one samples.jsonl, before any rank goes on."""
    if WORLD > 1:
        dist.init_process_group("gloo", timeout=datetime.timedelta(days=7))
    if RANK == 0:
        write_text(folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")
        merge_samples(folder)
    wait_for_all()


def wait_for_all() -> None:
    if WORLD > 1:
        dist.barrier()


def main(argv: list[str] | None = None) -> None:
    transformers.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()  # else a missing network is five retries before the one line
    try:
        with contextlib.redirect_stdout(sys.stdout if RANK == 0 else open(os.devnull, "w")):
            args = parse_flags(EvaluationArguments, sys.argv[1:] if argv is None else argv, "evaluate.py")
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
    except InputError as error:
        sys.exit(f"error: {error}" if int(os.environ.get("LOCAL_RANK", 0)) == 0 else 1)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
