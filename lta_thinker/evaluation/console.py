"""What evaluate.py says before it asks, and the command that it names at the end."""

import contextlib
from dataclasses import MISSING, fields, replace
from pathlib import Path

from lta_thinker.common import InputError, counted, flatten
from lta_thinker.console import command, departure_lines, departures, flag_words_of
from lta_thinker.data_loader import without_worked
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.folder import output_folder
from lta_thinker.evaluation.plan import Plan, make_plan
from lta_thinker.evaluation.report import REPORT_FILE, Report
from lta_thinker.generation.sampling import SamplingSettings
from lta_thinker.model import Models
from lta_thinker.rows.examples import Split

# flags that the bare LLM is asked without
OF_THOUGHTS = ("use_assistant_model", "num_thought_tokens", "make_only_n", "distinct_slot_ids", "params_file_name")
OF_THOUGHTS += ("att_file_name", "assistant_model_ckpt", "recipe", "config", "replace_report", "verbose")
OF_THOUGHTS += ("print_input", "print_response")
BARE = "-bare"  # behind the --output_dir of the evaluation with thoughts, of that without them

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
    print(f"  {split.source}: {counted(split.read, 'row')}, {split.bad} left out as broken, {asked} asked", flush=True)
    if shown := len(split.examples) - len(without_worked(split.examples, plan.worked_examples)):
        print(f"note: {shown} of these questions are worked examples in the prompt (--num_fewshot) and are not asked")
    if split.warning:
        print(f"warning: {split.warning}")
    made, injected = plan.num_made, plan.num_injected
    if made < plan.spec.num_thoughts:
        print(f"note: {counted(made, 'thought')} made, {plan.spec.num_thoughts} were trained together (--make_only_n)")
    elif injected < made:
        print(f"note: {injected} of {made} thoughts go into the prompt; in our study a few of many answered worse")


def models_text(plan: Plan) -> str:
    """The LMs and the thoughts."""
    spec = plan.spec
    if not plan.num_injected:
        return f"{spec.large.model_id} without thoughts"
    reader = f" behind {spec.small.model_id}" if spec.small else ""
    return f"{spec.large.model_id} with {counted(plan.num_injected, 'thought')} of {spec.kind}{reader}"


def sampling_text(sampling: SamplingSettings) -> str:
    """How answers are sampled."""
    length = f"of at most {counted(sampling.max_new_tokens, 'token')}"
    if sampling.greedy:
        return f"the likeliest answer to each question, {length}"
    how = f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, top_k {sampling.top_k}"
    how += f", min_p {sampling.min_p:g}" if sampling.min_p else ""
    return f"{counted(sampling.num_return_sequences, 'answer')} to each question {length}: {how}, seed {sampling.seed}"


def parameters_text(plan: Plan, models: Models) -> str:
    """How many parameters the models have here."""
    thoughts = models.thoughts
    own = (
        sum(p.numel() for p in thoughts.generator.parameters()) if thoughts is not None else 0
    )  # adapters are the LMs'
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
    folder = f"{args.output_dir}{BARE}" if args.output_dir else None
    return replace(args, thought_generator="none", output_dir=folder, **bare)


def with_thoughts(args: EvaluationArguments) -> EvaluationArguments | None:
    """The evaluation with thoughts that this one of the bare LLM is compared with; None where its flags do not name
    one."""
    if args.output_dir and not args.output_dir.endswith(BARE):
        return None
    folder = args.output_dir.removesuffix(BARE) if args.output_dir else None
    return replace(args, thought_generator=None, output_dir=folder) if folder or args.checkpoint else None


def are_of_same_questions(*folders: Path) -> bool:
    """Whether there are reports in two evaluations' folders, about the same questions."""
    try:
        one, other = (Report.read(folder / REPORT_FILE) for folder in folders)
    except InputError:
        return False
    same = all(one.settings.get(key) == other.settings.get(key) for key in ("task_name", "split", "questions"))
    return same and one.num_questions == other.num_questions


def print_next(
    args: EvaluationArguments, plan: Plan, sampling: SamplingSettings, usual: SamplingSettings | None, folder: Path
) -> None:
    """What to type behind an evaluation, of this folder: the comparison of with and without thoughts, where both are
    there; else behind thoughts the same without them. Nothing where these flags have no other side. usual: as
    output_folder takes it."""
    bare = not plan.num_injected
    try:
        other = with_thoughts(args) if bare else bare_arguments(args, plan)
        if other is None:
            return
        with contextlib.redirect_stdout(None):  # its notes are printed when it runs
            there = output_folder(other, make_plan(other), sampling, usual) if not other.output_dir else None
    except InputError:  # files of a task of the user's own, whose record is left out with them
        return
    there = there or Path(str(other.output_dir))
    if there == folder:  # of an LLM that was tuned alone
        return
    pair = (folder, there) if bare else (there, folder)
    if are_of_same_questions(*pair):
        words = ["--compare", *(str(one / REPORT_FILE) for one in pair)]
    elif bare:
        return
    else:
        words = [word for flag in flag_words_of(other, departures(other)) for word in flag]
    print(f"next: {command('evaluate.py', words)}")
