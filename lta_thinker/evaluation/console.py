"""What evaluate.py says before it asks, and the command that it names at the end."""

import contextlib
from dataclasses import MISSING, fields, replace
from pathlib import Path

from lta_thinker.common import InputError, flatten
from lta_thinker.console import command, departure_lines, departures, flag_words_of
from lta_thinker.data_loader import without_worked
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.folder import output_folder
from lta_thinker.evaluation.plan import Plan, make_plan
from lta_thinker.evaluation.report import REPORT_FILE
from lta_thinker.generation.sampling import SamplingSettings
from lta_thinker.model import Models
from lta_thinker.rows.examples import Split

# flags that the bare LLM is asked without
OF_THOUGHTS = ("use_assistant_model", "num_thought_tokens", "make_only_n", "distinct_slot_ids", "params_file_name")
OF_THOUGHTS += ("att_file_name", "assistant_model_ckpt", "recipe", "config", "replace_report", "verbose")
OF_THOUGHTS += ("print_input", "print_response")

# ---------------------------------------------------------------------------------------------------------------------
# The start


def print_flags(args: EvaluationArguments) -> None:
    """The flags that were given."""
    for line in departure_lines(args, departures(args)):
        print(line, flush=True)


def print_plan(plan: Plan, sampling: SamplingSettings | None, split: Split, asked: int, settings: dict | None) -> None:
    """What is asked, how, and with which thoughts. sampling: None for --inspect, which answers greedily; settings: with
    --verbose, all of them."""
    for name, value in flatten(settings or {}).items():
        print(f"  {name} = {value!r}")
    print(f"  {models_text(plan)}, {plan.dtype}")
    if sampling is not None:
        print(f"  {sampling_text(sampling)}")
    print(f"  {split.source}: {split.read} rows, {split.bad} left out as broken, {asked} asked", flush=True)
    if shown := len(split.examples) - len(without_worked(split.examples, plan.worked_examples)):
        print(f"note: {shown} of these questions are worked examples in the prompt (--num_fewshot) and are not asked")
    if split.warning:
        print(f"warning: {split.warning}")
    made, injected = plan.num_made, plan.num_injected
    if made < plan.spec.num_thoughts:
        print(f"note: {made} thoughts are made, {plan.spec.num_thoughts} were trained together (--make_only_n)")
    elif injected < made:
        print(f"note: {injected} of {made} thoughts go into the prompt; in our study a few of many answered worse")


def models_text(plan: Plan) -> str:
    """The LMs and the thoughts."""
    spec = plan.spec
    if not plan.num_injected:
        return f"{spec.large.model_id} without thoughts"
    reader = f" behind {spec.small.model_id}" if spec.small else ""
    return f"{spec.large.model_id} with {plan.num_injected} thoughts of {spec.kind}{reader}"


def sampling_text(sampling: SamplingSettings) -> str:
    """How answers are sampled."""
    length = f"of at most {sampling.max_new_tokens:,} tokens"
    if sampling.greedy:
        return f"the likeliest answer to each question, {length}"
    count = sampling.num_return_sequences
    how = f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, top_k {sampling.top_k}"
    how += f", min_p {sampling.min_p:g}" if sampling.min_p else ""
    return f"{count} {'answer' if count == 1 else 'answers'} to each question {length}: {how}, seed {sampling.seed}"


def parameters_text(plan: Plan, models: Models) -> str:
    """How many parameters the models have here."""
    thoughts = models.thoughts
    own = sum(p.numel() for p in thoughts.parameters()) if thoughts is not None else 0
    lms = [models.llm, thoughts.small_lm if thoughts is not None else None]
    of_lms = sum(p.numel() for lm in lms if lm is not None for p in lm.parameters())
    where = " (the LLM's others are in the engine)" if plan.backend.name == "vllm" else ""
    return f"  parameters: {own:,} of the generator, {of_lms:,} of the LMs{where}"


# ---------------------------------------------------------------------------------------------------------------------
# The next command


def bare_arguments(args: EvaluationArguments, plan: Plan) -> EvaluationArguments:
    """The evaluation of the LLM without thoughts that this one, of the plan, is compared with."""
    defaults = {field.name: field.default for field in fields(args) if field.default is not MISSING}
    bare = {name: defaults[name] for name in OF_THOUGHTS}
    if not args.checkpoint:  # the files that are left out may have named them
        bare |= {"base_model_id": plan.spec.large.model_id, "task_name": plan.task.name}
    folder = f"{args.output_dir}-bare" if args.output_dir else None
    return replace(args, thought_generator="none", output_dir=folder, **bare)


def print_next(
    args: EvaluationArguments, plan: Plan, sampling: SamplingSettings, usual: SamplingSettings | None, folder: Path
) -> None:
    """What to type behind an evaluation with thoughts, of this folder: the same without them, or the comparison where
    that is there. Nothing where these flags have no bare LLM. usual: as output_folder takes it."""
    if not plan.num_injected:
        return
    try:
        bare = bare_arguments(args, plan)
        with contextlib.redirect_stdout(None):  # its notes are printed when it runs
            plan = make_plan(bare)
    except InputError:  # files of a task of the user's own, whose record is left out with them
        return
    there = output_folder(bare, plan, sampling, usual) / REPORT_FILE
    words = [word for flag in flag_words_of(bare, departures(bare)) for word in flag]
    words = ["--compare", str(there), str(folder / REPORT_FILE)] if there.exists() else words
    print(f"next: {command('evaluate.py', words)}")
