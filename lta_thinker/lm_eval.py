"""lm-evaluation-harness with latent thoughts: its tasks, its evaluator, our prompts and samplers.

    python -m lta_thinker.lm_eval --checkpoint ckpt/NAME --tasks gsm8k,arc_challenge --limit 50
    python -m lta_thinker.lm_eval --checkpoint ckpt/NAME --thought_generator none --tasks gsm8k     # without thoughts

A request's context (the task's description, few-shot examples and question) is the question: it stands in the
checkpoint's prompt in the user's turn of the LLM's chat template, and the thoughts are made from it. Needs the extra
lm-eval: pip install -r requirements-lm-eval.txt -c constraints.txt

From Python: register(), then lm_eval.simple_evaluate(model="lta-thinker", model_args={"checkpoint": "ckpt/NAME"}, ...).
"""

if __name__ == "__main__":
    from lta_thinker.evaluation.harness import answer_at_once

    answer_at_once()  # --help and a wrong flag do not wait for the imports

import contextlib
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers

from lta_thinker.build import check_context, check_prompts
from lta_thinker.common import CHECKOUT, InputError, first_line, make_folder, run_program, versions
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.harness import PROGRAM, HarnessArguments, answer
from lta_thinker.evaluation.plan import load_layout, load_models, make_plan, model_settings
from lta_thinker.flags import parse_flags
from lta_thinker.generation.prompts import PromptEmbedder, Request, make_requests
from lta_thinker.generation.samplers import TransformersSampler, auto_batch_size, greedy_settings
from lta_thinker.generation.sampling import SamplingSettings, resolve_sampling
from lta_thinker.generation.scoring import Question, group_by_question, score_continuations
from lta_thinker.llm.frozen import num_positions
from lta_thinker.progress import Progress
from lta_thinker.rows.examples import Example

NAME = "lta-thinker"  # of the model in the harness
INSTALL = "pip install -r requirements-lm-eval.txt -c constraints.txt"
MAX_GEN_TOKS = 256  # the harness's own default
SEED = 41  # of the sampling noise, as in evaluate.py
LENGTH_NAMES = (
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
)  # the harness's, the first wins
SAMPLING_NAMES = ("temperature", "top_p", "top_k", "min_p")
OTHERS = {"until", "do_sample", "num_beams"}
HARNESS_SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")

# ---------------------------------------------------------------------------------------------------------------------
# The model


class ThoughtRequests:
    """Answers the harness's requests: what its class LM asks of a model. `register` makes it one.

    flags: of EvaluationArguments, which say which model is asked (a checkpoint, or base_model_id with thought_generator
    none). batch_size: questions at a time, or auto; seed: of the sampling noise; max_new_tokens: the longest answer,
    whatever the task says; device: as in LatentThoughtModel.from_pretrained. Raises InputError.
    """

    cache_hook: Any  # the harness's, of its class LM

    def __init__(
        self,
        batch_size: int | str = 4,
        seed: int = SEED,
        max_new_tokens: int | None = None,
        device: str | None = None,
        **flags,
    ):
        super().__init__()
        self.plan = make_plan(EvaluationArguments(**flags, batch_size=str(batch_size)), device)
        self.batch_size, self.seed, self.max_new_tokens = batch_size, seed, max_new_tokens
        self.models = load_models(self.plan, load_layout(self.plan))
        self.settings = model_settings(self.plan, self.models)  # refuses other LMs than those of the training
        self.answered = self.cut_off = 0

    def get_model_info(self) -> dict:
        """What the harness writes into its results beside its own settings."""
        plan = self.plan
        facts = {"thought_generator": plan.spec.kind, "num_thought_tokens": plan.num_injected}
        facts |= {"num_thoughts_made": plan.num_made, "prompts": plan.prompts, "dtype": plan.dtype}
        return facts | {"noise_seed": self.seed, "lta_thinker": versions()} | self.settings

    @property
    def tokenizer_name(self) -> str:
        return self.plan.spec.large.model_id

    def apply_chat_template(self, chat_history, add_generation_prompt=True) -> str:
        """Refused: the harness's context is the question."""
        raise InputError(
            "apply_chat_template: leave it out; the LLM's own chat template is applied in any case, with the thoughts "
            "in the user's turn"
        )

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """Refused: there is no question."""
        raise InputError(
            "loglikelihood_rolling: the likelihood of a whole text has no question to make thoughts from; such tasks "
            "(perplexity) are not for this program"
        )

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """The texts written behind the contexts of (context, generation_kwargs), cut before the first stop string."""
        wanted = [read_settings(request.args[1], name_of(request), self._resolve) for request in requests]
        texts = [""] * len(requests)
        with Progress("answers", len(requests), quiet=disable_tqdm) as progress:
            for settings in dict.fromkeys(own for own, _ in wanted):
                places = [place for place, (own, _) in enumerate(wanted) if own == settings]
                for place, text, finished in self._texts(settings, places, requests):
                    texts[place] = cut_at(text, wanted[place][1])
                    self.answered += 1
                    self.cut_off += not finished and texts[place] == text  # a stop string is an end too
                    self.cache_hook.add_partial("generate_until", requests[place].args, texts[place])
                    progress.update()
        return texts

    def _resolve(self, greedy: bool, **values) -> SamplingSettings:
        """The settings of a task's values, else those of an evaluation (the model family's); of equal questions each
        has noise of its own."""
        config, llm = self.plan.llm_config, self.models.llm
        if self.max_new_tokens is not None:
            values["max_new_tokens"] = self.max_new_tokens
        family, positions = config.get_text_config().model_type, num_positions(config)
        return resolve_sampling(family, llm.generation_config, 1, self.seed, greedy, positions, **values)

    def _texts(self, settings: SamplingSettings, places: Sequence[int], requests):
        """(place, text, whether it ended) of the requests at these places, as soon as it is written."""
        examples = [Example(place, requests[place].args[0].strip(), (), "") for place in places]
        placed = [(example, name_of(requests[example.index])) for example in examples]
        layout, injected = self.models.layout, self.plan.num_injected
        check_prompts(self.plan.spec, layout, placed, injected, settings.max_new_tokens)
        own = make_requests(layout, examples)
        sampler = TransformersSampler(self.models, settings, self._batch_size(settings, own), injected)
        for done in sampler.answers(own):
            yield done.request.example.index, done.texts[0], done.samples[0].finished

    def _batch_size(self, settings: SamplingSettings, requests: Sequence[Request]) -> int:
        """--batch_size, or as many questions as fit into memory."""
        if self.batch_size != "auto":
            return int(self.batch_size)
        longest = max(request.length for request in requests) + self.plan.num_between
        return auto_batch_size(self.models.llm, settings, longest, len(requests))

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding would write it) of the continuations of (context, continuation), by
        one forward pass over prompt, thoughts and continuation. White space before a continuation is left out: it
        begins the assistant's turn."""
        pairs = []
        for request in requests:
            context, continuation = request.args
            if not continuation.strip():
                raise InputError(f"{name_of(request)}: an empty continuation, there is nothing to score")
            pairs.append((context.strip(), continuation.lstrip()))
        embed = PromptEmbedder(self.models, 1, self.plan.num_injected)
        questions = group_by_question(embed, pairs)
        self._check_lengths(questions, requests)
        scores = score_continuations(embed, questions, self._scoring_batch(questions), disable_tqdm)
        found = [(score.log_prob, score.is_greedy) for score in scores]
        for request, result in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return found

    def _check_lengths(self, questions: Sequence[Question], requests) -> None:
        """InputError where a question and its longest continuation do not fit into the LMs' positions."""
        injected, config = self.plan.num_injected, self.plan.llm_config
        placed = [(one.request.example, name_of(requests[next(iter(one.targets))])) for one in questions]
        check_prompts(self.plan.spec, self.models.layout, placed, injected, 0)
        longest, (_, place) = max(zip(questions, placed, strict=True), key=lambda pair: pair[0].length)
        check_context(self.models.layout, config, longest.length + self.plan.num_between, place)

    def _scoring_batch(self, questions: Sequence[Question]) -> int:
        """--batch_size, or as many questions with all their continuations as fit into memory."""
        if self.batch_size != "auto":
            return int(self.batch_size)
        most = max(len(question.targets) for question in questions)
        settings, columns = greedy_settings(self.models.llm, 1), questions[0].length + self.plan.num_between
        return max(1, auto_batch_size(self.models.llm, settings, columns, len(questions) * most) // most)


def name_of(request) -> str:
    """A request as messages name it."""
    return f"{request.task_name}: question {request.doc_id}"


def read_settings(kwargs: dict, name: str, resolve) -> tuple[SamplingSettings, list[str]]:
    """A task's generation_kwargs -> sampling settings and stop strings. resolve: (greedy, **values) -> the settings.
    InputError, which names the request, for what is not supported."""
    unknown = kwargs.keys() - {*LENGTH_NAMES, *SAMPLING_NAMES, *OTHERS}
    if unknown or kwargs.get("num_beams", 1) != 1:
        wrong = sorted(unknown) or ["num_beams"]
        raise InputError(f"{name}: its task's generation_kwargs have {wrong[0]}, which is not supported")
    lengths = [kwargs[length] for length in LENGTH_NAMES if kwargs.get(length) is not None]
    temperature, until = kwargs.get("temperature") or 0.0, kwargs.get("until") or []
    # as the harness has it: without do_sample the temperature decides
    samples = temperature > 0 if kwargs.get("do_sample") is None else kwargs["do_sample"]
    values = {key: kwargs.get(key) for key in SAMPLING_NAMES} if samples else {}
    settings = resolve(not samples, **values | {"max_new_tokens": lengths[0] if lengths else MAX_GEN_TOKS})
    return settings, [until] if isinstance(until, str) else until


def cut_at(text: str, until: Sequence[str]) -> str:
    """A text up to the first stop string in it."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text


# ---------------------------------------------------------------------------------------------------------------------
# The harness


def import_harness() -> Any:
    """The module lm_eval. InputError where it is not installed."""
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")  # its notes are for its own models; what the user has set stays
    try:
        import lm_eval  # pyright: ignore[reportMissingImports]
        import lm_eval.evaluator  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"lm_eval cannot be imported ({error}); {INSTALL}") from None
    return lm_eval


def register() -> None:
    """Make the model known to the harness by NAME. InputError where the harness is not installed."""
    import_harness()
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import model_registry, register_model  # pyright: ignore[reportMissingImports]

    class ThoughtLM(ThoughtRequests, LM):
        """A frozen LLM with latent thoughts in its prompts."""

    if NAME not in model_registry:
        register_model(NAME)(ThoughtLM)


def task_manager(args: HarnessArguments) -> Any:
    """What finds the harness's tasks. Its own are thousands of files, which take seconds to read: where --include_path
    has all of --tasks they are not read."""
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    if args.include_path is not None:
        own = TaskManager(include_path=args.include_path, include_defaults=False)
        if set(args.task_names) <= set(own.all_subtasks):
            return own
    return TaskManager(include_path=args.include_path)


def load_tasks(args: HarnessArguments, manager) -> list:
    """The harness's tasks and groups, with their questions. InputError for what there is not, and for tasks that this
    model does not answer: before an LM is loaded."""
    found = []
    for name in args.task_names:
        try:
            loaded = manager.load(name)
        except Exception as error:  # a task is a program, and its rows come by many ways
            if isinstance(error, KeyError) and name not in manager.all_tasks:
                raise InputError(f"--tasks {name}: {no_such_task(name, manager.all_tasks)}") from None
            raise InputError(f"--tasks {name}: {type(error).__name__}: {first_line(error):.300}") from None
        for task in loaded["tasks"].values():
            if why := unfit(task):
                raise InputError(f"--tasks {task.task_name}: {why}")
        found += [loaded["groups"][name]] if name in loaded["groups"] else loaded["tasks"].values()
    return found


def no_such_task(name: str, known: Sequence[str]) -> str:
    """What is said of a name that is none of the harness's tasks, groups and tags."""
    near = difflib.get_close_matches(name, known, n=3)
    hint = f" ({', '.join(near)}?)" if near else ""
    return f"the harness has no such task{hint}; lm_eval ls tasks lists them, --include_path adds a folder of your own"


def unfit(task) -> str | None:
    """Why a task is not for this program; None where it is."""
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return "it asks for the likelihood of whole texts, which have no question to make thoughts from"
    if getattr(task, "MULTIMODAL", False):  # set where it is true
        return "its questions are more than text"
    if getattr(task, "UNSAFE_CODE", False):
        return "it runs code that the LLM has written, and this program runs none"
    return None


def run(argv: list[str]) -> None:
    """Ask the harness's questions, print its table, write its results."""
    answer(argv)
    args = parse_flags(HarnessArguments, argv, PROGRAM)
    harness = import_harness()
    register()
    if args.output_path:
        make_folder(Path(args.output_path))
    with contextlib.redirect_stdout(None):  # its notes are printed when the model is made
        make_plan(EvaluationArguments(**args.of_model()))  # a wrong checkpoint does not wait for the tasks
    manager = task_manager(args)
    tasks = load_tasks(args, manager)
    model_args = args.of_model() | {"seed": SEED if args.seed is None else args.seed}
    if args.max_new_tokens is not None:
        model_args["max_new_tokens"] = args.max_new_tokens
    model = harness.api.registry.get_model(NAME)(batch_size=args.batch_size, **model_args)
    results = harness.simple_evaluate(
        model=model,
        model_args=model_args,
        tasks=tasks,
        task_manager=manager,
        num_fewshot=args.num_fewshot,
        batch_size=args.batch_size,
        limit=args.limit,
        log_samples=args.log_samples,
        **({} if args.seed is None else dict.fromkeys(HARNESS_SEEDS, args.seed)),
    )
    results["config"]["model"] = NAME
    print_results(model, results)
    if args.output_path:
        write_results(args, results)


def print_results(model: ThoughtRequests, results: dict) -> None:
    """The harness's figures, and what they do not say."""
    injected, shots = model.plan.num_injected, results["n-shot"]
    thoughts = f"{injected} of {model.plan.num_made} thoughts" if injected else "no thoughts"
    print(f"{NAME}: {thoughts} in the prompt")
    rows = figure_rows(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    with_shots = [name for name, count in shots.items() if count]
    if with_shots and injected:
        why = "the thoughts are made from these too; --num_fewshot 0 asks the question alone"
        print(f"note: {', '.join(with_shots)}: examples stand before the question, and {why}")
    if model.cut_off:
        print(f"note: {model.cut_off} of {model.answered} answers were cut off before their end (--max_new_tokens)")


def figure_rows(results: dict) -> list[tuple[str, ...]]:
    """The rows of the table of the harness's results, its titles first."""
    rows = [("task", "questions", "examples", "filter", "metric", "value", "standard error")]
    for task, figures in results["results"].items():
        asked, shots = (results[key].get(task, "") for key in ("n-samples", "n-shot"))
        questions = str(asked["effective"]) if asked else ""
        for key, value in figures.items():
            metric, comma, chosen_by = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            error = figures.get(f"{metric}_stderr,{chosen_by}", "")
            shown, sure = (f"{number:.4f}" if isinstance(number, float) else str(number) for number in (value, error))
            rows.append((task, questions, str(shots), chosen_by, metric, shown, sure))
    return rows


def write_results(args: HarnessArguments, results: dict) -> None:
    """results_DATE.json and, with --log_samples, samples_TASK_DATE.jsonl, as the harness's own command writes them.
    InputError where they cannot be written."""
    from lm_eval.loggers import EvaluationTracker  # pyright: ignore[reportMissingImports]

    assert args.output_path is not None
    folder, samples = Path(args.output_path), results.pop("samples", None)
    before = set(folder.rglob("*"))
    tracker = EvaluationTracker(output_path=args.output_path)
    name = args.checkpoint or args.params_file_name or args.base_model_id
    name = f"{name}-none" if args.thought_generator == "none" else name
    tracker.general_config_tracker.log_experiment_args(NAME, {"path": name}, None, None, False)
    tracker.save_results_aggregated(results, samples)
    for task, own in (samples or {}).items():
        tracker.save_results_samples(task, own)
    new = sorted(path for path in set(folder.rglob("*")) - before if path.is_file())
    if len(new) != 1 + len(samples or {}):  # the harness passes over errors of writing
        raise InputError(f"{folder}: the harness has not written all its results; is there room?")
    for path in new:
        print(f"  {path}")


def installed_first() -> None:
    """Put the checkout behind the installed packages: where a task imports `evaluate` it means Hugging Face's, and
    evaluate.py lies in the checkout."""
    sys.path.sort(key=lambda path: Path(path).resolve() == CHECKOUT)


def main() -> None:
    """The command: reads sys.argv, prints an InputError as one line."""
    transformers.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    installed_first()
    run_program(run, sys.argv[1:], "nothing was written")


if __name__ == "__main__":
    main()
