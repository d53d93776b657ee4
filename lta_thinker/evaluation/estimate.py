"""evaluate.py --estimate: what an evaluation takes on a GPU, from its flags, its questions and the LMs' config.json.

The thoughts, the prompts and a step of the decode loop are the run's own; they run over fake tensors
(estimate/cost.py). A step with every answer at --max_new_tokens says the memory, one at half of a mean answer the work.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from lta_thinker.build import build_models
from lta_thinker.common import InputError, counted, ranks
from lta_thinker.data_loader import load_split, where_missing, without_worked
from lta_thinker.estimate.cards import seconds_of
from lta_thinker.estimate.cost import ACTIVATIONS, Cost, Counter, on_fake_tensors
from lta_thinker.estimate.text import chosen, fits, hours_text, memory_lines, rates_lines, work_line
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import Plan, load_layout
from lta_thinker.generation import sampling
from lta_thinker.generation.decoding import ReadPrompts, Rows, cache_of, keys_and_values
from lta_thinker.generation.prompts import Request, make_requests
from lta_thinker.generation.sampling import SamplingSettings
from lta_thinker.llm.lora import tune
from lta_thinker.losses import BLOCK
from lta_thinker.model import LatentThoughtModel, Models, llm_inputs
from lta_thinker.rows.batch import PromptCollator
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import Layout

MANY_QUESTIONS = 64  # of a large batch, whose peak says what a question more takes
UNKNOWN_QUESTIONS = 1000  # where neither the questions nor --rows are there
IDLE = 1 / 16  # of the rows: a finished answer's row waits until an eighth of them are finished
TABLES = (BLOCK, sampling.BEYOND_TOP_K, sampling.NUMBERS_AT_A_TIME, sampling.ALL_TIES)


@dataclass(frozen=True)
class Questions:
    """Requests whose lengths are those of the evaluation, how many it asks, and the tokens of a mean answer. note:
    where they are not its own."""

    requests: list[Request]
    asked: int
    mean_tokens: float
    note: str


@dataclass(frozen=True)
class EvaluationEstimate:
    """What an evaluation takes.

    peaks: with every answer at its longest, by the questions of a batch, 1, --batch_size and MANY_QUESTIONS among them;
    prompts: of reading a batch of questions, with their thoughts; step: of a token in every row, at half of a mean
    answer.
    """

    questions: Questions
    peaks: dict[int, Cost]
    prompts: Cost
    step: Cost


def questions_of(args: EvaluationArguments, plan: Plan, layout: Layout) -> Questions:
    """The evaluation's questions, else our own sample of the task."""
    missing, count = where_missing(plan.task, args.split, args.data_dir), args.rows or UNKNOWN_QUESTIONS
    if missing is None:
        examples = load_split(plan.task, args.split, args.data_dir, args.skip_bad_rows).examples
        examples = without_worked(examples, plan.worked_examples)[: args.test_k or None]
        return made_of(args, plan, layout, examples, len(examples))
    examples = load_split(plan.task, "sample", args.data_dir).examples
    given = "--rows" if args.rows else "a number of no meaning: --rows says it"
    note = f"no rows in {missing}: lengths of the {len(examples)} in data/{plan.task.name}/sample.jsonl; {given}"
    return made_of(args, plan, layout, examples, min(count, args.test_k or count), note)


def some_questions(args: EvaluationArguments, plan: Plan, layout: Layout, most: int) -> Questions:
    """Up to `most` of the evaluation's questions, evenly spaced, and how many there are. InputError as load_split
    raises it."""
    examples = load_split(plan.task, args.split, args.data_dir, args.skip_bad_rows).examples
    examples = without_worked(examples, plan.worked_examples)[: args.test_k or None]
    return made_of(args, plan, layout, examples[:: math.ceil(len(examples) / most)], len(examples))


def made_of(args, plan: Plan, layout: Layout, examples: list[Example], asked: int, note: str = "") -> Questions:
    """Questions with the lengths of these examples, answered as the training's targets are."""
    if not examples:
        raise InputError(f"--num_fewshot {len(layout.worked_examples)}: there is no other question")
    written = examples if not plan.record or plan.record.writes_steps else [replace(one, steps=()) for one in examples]
    targets = [len(row["target"]) for row in layout.training_rows(written)]
    mean = args.mean_new_tokens or sum(targets) / len(targets)
    return Questions(make_requests(layout, examples), asked, mean, note)


def batch_size_of(args: EvaluationArguments) -> int:
    """Questions at a time; of `auto` the default."""
    return int(args.batch_size) if args.batch_size.isdecimal() else 4


# ---------------------------------------------------------------------------------------------------------------------
# On fake tensors


def build_empty(plan: Plan, layout: Layout) -> Models:
    """The evaluation's models on fake tensors."""
    models = build_models(plan.spec, layout)
    for role, saved in plan.adapters.items():
        assert models.thoughts is not None or role == "base_model"
        lm = models.llm if role == "base_model" else models.thoughts.small_lm  # type: ignore[union-attr]
        tune(lm, saved.config, saved.flag, empty=True)
    if models.thoughts is not None:
        models.thoughts.eval()
        models.thoughts.make_only(plan.num_made)
    return models


def read(models: Models, plan: Plan, settings: SamplingSettings, requests: list[Request]) -> ReadPrompts:
    """As the decode loop reads the prompts of requests, the longest of which all are padded to."""
    model, collator = models.thoughts, PromptCollator(models.layout)
    shapes = {name: value.shape for name, value in collator([request.prompt for request in requests]).items()}
    batch = {name: torch.empty(shape, dtype=torch.long) for name, shape in shapes.items()}
    if model is None:
        inputs = llm_inputs(models.llm, batch, None)
    else:
        _, thoughts = model.chain_thoughts(batch["question_ids"], batch["question_mask"])
        thoughts = thoughts[:, : settings.num_return_sequences, : plan.num_injected]
        batch = {name: value.repeat_interleave(thoughts.shape[1], dim=0) for name, value in batch.items()}
        inputs = model.inputs(batch, thoughts.flatten(0, 1))
    rows, columns = inputs["attention_mask"].shape
    return ReadPrompts(models.llm, settings, dict(enumerate(requests)), inputs, [columns] * rows)


def lengthen(rows: Rows, columns: int) -> None:
    """Give the rows' cache that many columns."""
    shapes = [[tensor.shape for tensor in layer] for layer in keys_and_values(rows.cache)]
    dtype = keys_and_values(rows.cache)[0][0].dtype
    del rows.cache
    rows.cache = cache_of(
        [[torch.zeros(*s[:2], columns, s[3], dtype=dtype, device=rows.device) for s in layer] for layer in shapes]
    )
    rows.mask = torch.ones(len(rows.mask), columns + 1, dtype=torch.bool, device=rows.device)


def hold_models(counter: Counter, models: Models) -> None:
    """Say which part each weight belongs to."""
    counter.hold("LLM", [*models.llm.parameters(), *models.llm.buffers()])
    model: LatentThoughtModel | None = models.thoughts
    if model is not None:
        counter.hold("generator", [*model.parameters(), *model.buffers()])
        if model.small_lm is not None:
            counter.hold("small LM", [*model.small_lm.parameters(), *model.small_lm.buffers()])


def hold_cache(counter: Counter, rows: Rows) -> None:
    """Say that the rows' keys and values are the cache."""
    counter.hold("cache", [tensor for layer in keys_and_values(rows.cache) for tensor in layer])


def estimate(
    args: EvaluationArguments,
    plan: Plan,
    settings: SamplingSettings,
    questions: Questions,
    layout: Layout,
    memory: bool = True,
) -> EvaluationEstimate:
    """Run an evaluation's parts on fake tensors. memory: whether the longest answers are run; else there are no
    peaks. InputError for what cannot be run without values."""
    size = batch_size_of(args)
    by_length = sorted(questions.requests, key=lambda request: -request.length)
    costs: dict[str, Cost] = {}

    def write(counter: Counter, models: Models, requests: list[Request], new: float, name: str) -> None:
        """Read prompts and write a token in all their rows, `new` tokens behind the prompts; twice: the cache has grown
        then."""
        counter.restart()
        prompts = read(models, plan, settings, requests)
        costs[f"{name} prompts"] = counter.restart()
        rows = Rows(models.llm, settings, [0], prompts)
        del prompts
        lengthen(rows, rows.mask.shape[1] - 1 + round(new))
        hold_cache(counter, rows)
        counter.restart()
        rows.step()
        grown = counter.restart()
        hold_cache(counter, rows)
        grown.parts[ACTIVATIONS] -= counter.live("cache") - grown.parts.get("cache", 0)  # what it has grown by
        grown.parts["cache"] = counter.live("cache")
        costs[f"{name} growing"] = grown
        counter.restart()
        rows.step()
        costs[f"{name} step"] = counter.restart()

    with on_fake_tensors("cuda", TABLES), torch.no_grad():
        models = build_empty(plan, layout)
        with Counter() as counter:
            hold_models(counter, models)
            middle = by_length[len(by_length) // 2 :] * size
            write(counter, models, middle[:size], questions.mean_tokens / 2, "mean")
            for count in {1, size, MANY_QUESTIONS} if memory else ():
                write(counter, models, (by_length * count)[:count], settings.max_new_tokens, f"longest {count}")

    def largest(name: str) -> Cost:
        return max((costs[f"{name} {part}"] for part in ("prompts", "growing", "step")), key=lambda cost: cost.peak)

    peaks = {count: largest(f"longest {count}") for count in ({1, size, MANY_QUESTIONS} if memory else ())}
    return EvaluationEstimate(questions, peaks, costs["mean prompts"], costs["mean step"])


# ---------------------------------------------------------------------------------------------------------------------
# Hours


def hours_of(args, settings: SamplingSettings, found: EvaluationEstimate, seconds: Callable[[Any], float]) -> dict:
    """Hours of the evaluation by what they go to. seconds: Cost -> seconds on the card."""
    size, samples, asked = batch_size_of(args), settings.num_return_sequences, found.questions.asked
    own = math.ceil(asked / (args.gpus or ranks().world))  # questions of a process
    new = min(found.questions.mean_tokens, settings.max_new_tokens)
    steps = max(own * samples * new / (size * samples * (1 - IDLE)), new)
    hours = {"prompts": math.ceil(own / size) * seconds(found.prompts), "tokens": steps * seconds(found.step)}
    return {name: value / 3600 for name, value in hours.items()}


def print_estimate(args: EvaluationArguments, plan: Plan, settings: SamplingSettings) -> None:
    """Run the estimate, and print it. InputError where a mean answer is longer than the longest."""
    if (args.mean_new_tokens or 0) > settings.max_new_tokens:
        raise InputError(
            f"--mean_new_tokens {args.mean_new_tokens}: an answer has at most {settings.max_new_tokens:,} tokens "
            "(--max_new_tokens)"
        )
    layout = load_layout(plan)
    found = estimate(args, plan, settings, questions_of(args, plan, layout), layout)
    spec, size, samples, gpus = (
        plan.spec,
        batch_size_of(args),
        settings.num_return_sequences,
        args.gpus or ranks().world,
    )
    lms = [spec.large.model_id, *([spec.small.model_id] if spec.small else [])]
    thoughts = f", {plan.num_injected} of {counted(plan.num_made, 'thought')}" if plan.num_injected else ""
    print(f"estimate of an evaluation: {spec.kind}{thoughts}, {' with '.join(lms)}, {plan.dtype}")
    questions, most = found.questions, settings.max_new_tokens
    asked = f"{counted(questions.asked, 'question')} x {counted(samples, 'sample')}"
    print(f"  {plan.task.name}: {asked}, {counted(gpus, 'GPU')}")
    if questions.note:
        print(f"    {questions.note}")
    of_what = "--mean_new_tokens" if args.mean_new_tokens else "the mean of the written solutions"
    print(f"  an answer: {questions.mean_tokens:.0f} tokens ({of_what}), at most {most:,}")
    at_once = counted(size, "question")
    print(*memory_lines(found.peaks[size], f"{at_once}, every answer {counted(most, 'token')}"), sep="\n")
    print("  work on one GPU:")
    print(work_line(f"{at_once} read", found.prompts))
    print(work_line(f"a token in {counted(size * samples, 'row')}", found.step))
    for card in chosen(args.card):
        hours = hours_of(args, settings, found, lambda cost, card=card: seconds_of(cost, card, plan.dtype))
        verdict = fits(card, {count: peak.peak for count, peak in found.peaks.items()}, size, "question")
        print(f"  {card.name}: {verdict}; {hours_text(hours, gpus)}")
    print(*rates_lines(chosen(args.card), plan.dtype), sep="\n")
