"""python -m lta_thinker.lm_eval: lm-evaluation-harness's tasks and evaluator over our prompts and samplers."""

import functools
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, TOY, one_line, record_of

from lta_thinker import evaluate, lm_eval
from lta_thinker.build import ModelSpec, build_layout, build_models
from lta_thinker.checkpoint import save_checkpoint
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS
from lta_thinker.generation.prompts import PromptEmbedder
from lta_thinker.generation.scoring import group_by_question, score_continuations
from lta_thinker.llm.frozen import LmSource

HARNESS = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed: requirements-lm-eval.txt"
)
TASK_FILES = ["--include_path", str(ROOT / "tests" / "harness")]
QUESTIONS = [
    "I had 5 cups. I gave 2 cups to Sam. How many in the end?",
    "Tom had 70 coins. I gave Tom 8 coins. How many in the end?",
]


@pytest.fixture(scope="module")
def toy_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint in front of the toy LLM: its thoughts are random, and change what it writes."""
    sources = [LmSource(TOY[role], f"--{role}_model_id") for role in ("large", "small")]
    spec = ModelSpec(*sources, "small_block", 4, seed=0)
    models = build_models(spec, build_layout(spec, PROMPTS["number"]))
    torch.nn.init.normal_(models.thoughts.generator.prior)
    ids = {f"{role}_model_id": TOY[role] for role in ("large", "small")}
    folder = tmp_path_factory.mktemp("toy") / "random"
    save_checkpoint(folder, models.thoughts, record_of(models.thoughts, **ids, task_name="arithmetic"))
    return folder


@pytest.fixture
def at_top(monkeypatch):
    """The repository's top, from where the task files name their rows; the harness looks at no machine, which takes
    seconds."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture
def model(toy_checkpoint) -> lm_eval.ThoughtRequests:
    """What answers the requests, with a cache as the harness gives it one."""
    model = lm_eval.ThoughtRequests(batch_size=2, checkpoint=str(toy_checkpoint), num_thought_tokens=2)
    model.cache_hook = SimpleNamespace(add_partial=lambda *of_request: None)
    return model


def request(*arguments, number: int = 0):
    """A request as the harness makes it."""
    return SimpleNamespace(args=arguments, task_name="toy", doc_id=number)


def asked(folder: Path, *flags: str) -> dict[str, list[dict]]:
    """Run the program on the toy's task files -> the lines of what it has written, by the file's first name."""
    lm_eval.run([*TASK_FILES, "--output_path", str(folder), "--log_samples", *flags])
    files = [*folder.rglob("samples_*.jsonl")]
    lines = {path.name.removeprefix("samples_").rpartition("_")[0]: path.read_text().splitlines() for path in files}
    return {name: [json.loads(line) for line in own] for name, own in lines.items()}


def test_a_task_that_there_is_not_is_said_plainly():
    """A name that the harness does not know gets one line with names near it and where all are listed; a fault inside
    a task is told as it is."""
    manager = SimpleNamespace(all_tasks=["gsm8k", "gsm8k_cot", "arc_easy"], load={}.__getitem__)
    for name, said in (
        ("gsmk8", "the harness has no such task (gsm8k?); lm_eval ls tasks lists them, --include_path adds"),
        ("gsm8k", "KeyError: 'gsm8k'"),
    ):
        with pytest.raises(InputError) as error:
            lm_eval.load_tasks(SimpleNamespace(task_names=[name]), manager)
        one_line(error, f"--tasks {name}: {said}")


# ---------------------------------------------------------------------------------------------------------------------
# With the harness


@HARNESS
@pytest.mark.parametrize("way", ["thoughts", "none"])
def test_greedy_answers_are_those_of_our_own_evaluation(toy_checkpoint, way, tmp_path, at_top, capsys):
    """generate_until on the harness's side and evaluate.py --greedy on ours write the same texts for the same
    questions and find the same share of them right, with thoughts and without."""
    flags = ["--checkpoint", str(toy_checkpoint), "--num_thought_tokens", "2"]
    if way == "none":
        flags = ["--thought_generator", "none", "--base_model_id", TOY["large"]]
    theirs = asked(tmp_path / "theirs", *flags, "--tasks", "toy_arithmetic", "--limit", "6")["toy_arithmetic"]
    printed = capsys.readouterr().out
    ours = ["--task_name", "arithmetic", "--greedy", "--max_new_tokens", "96", "--test_k", "6"]
    evaluate.main([*flags, *ours, "--output_dir", str(tmp_path / "ours")])
    lines = [json.loads(line) for line in (tmp_path / "ours" / "samples.jsonl").read_text().splitlines()]
    assert [line["resps"] for line in theirs] == [[line["responses"]] for line in lines] and len(theirs) == 6
    report = json.loads((tmp_path / "ours" / "report.json").read_text())
    (results,) = (tmp_path / "theirs").rglob("results_*.json")
    written = json.loads(results.read_text())
    value = written["results"]["toy_arithmetic"]["exact_match,boxed"]
    assert value == report["sample_accuracy"]["value"] and f"exact_match  {value:.4f}" in printed
    injected, said = (2, "2 of 4 thoughts in the prompt") if way == "thoughts" else (0, "no thoughts in the prompt")
    assert written["config"]["num_thought_tokens"] == injected and said in printed
    assert written["config"]["model"] == "lta-thinker" and str(results) in printed


@HARNESS
def test_registered_model_scores_choices_behind_thoughts(toy_checkpoint, at_top):
    """The harness knows the model by its name. loglikelihood of a multiple-choice task is the score of each choice
    behind the context's thoughts, which the harness's own figures come from; few-shot examples are in the context."""
    lm_eval.register()
    lm_eval.register()  # twice does no harm
    import lm_eval as harness
    from lm_eval.tasks import TaskManager

    results = harness.simple_evaluate(
        model="lta-thinker",
        model_args={"checkpoint": str(toy_checkpoint)},
        tasks=["toy_arithmetic_choice"],
        num_fewshot=1,
        limit=3,
        task_manager=TaskManager(include_path=TASK_FILES[1], include_defaults=False),
    )
    samples = results["samples"]["toy_arithmetic_choice"]
    model = lm_eval.ThoughtRequests(checkpoint=str(toy_checkpoint))
    embed = PromptEmbedder(model.models, 1)
    for sample in samples:
        pairs = [(context.strip(), choice.lstrip()) for context, choice in sample["arguments"]]
        assert pairs[0][0].count("Answer:") == 2 and [choice for _, choice in pairs][1:] == ["7", "50"]
        scores = score_continuations(embed, group_by_question(embed, pairs), 4, quiet=True)
        found = [response[0][0] for response in sample["resps"]]
        assert found == pytest.approx([score.log_prob for score in scores], abs=1e-5)
        assert sample["acc"] == float(found[0] == max(found))
    assert len(samples) == 3 and "lta-thinker" == results["config"]["model"]


@HARNESS
def test_examples_before_the_question_are_noted(toy_checkpoint, tmp_path, at_top, capsys):
    """With few-shot examples the program says that the thoughts are made from these too, and --seed changes which ones
    the harness draws."""
    flags = ["--checkpoint", str(toy_checkpoint), "--tasks", "toy_arithmetic_choice", "--limit", "1"]
    contexts = set()
    for seed in ("1", "2"):
        (sample,) = asked(tmp_path / f"{len(contexts)}-{seed}", *flags, "--num_fewshot", "1", "--seed", seed).popitem()[
            1
        ]
        contexts.add(sample["arguments"]["gen_args_0"]["arg_0"])
    assert len(contexts) == 2
    assert "--num_fewshot 0 asks the question alone" in capsys.readouterr().out


@HARNESS
@pytest.mark.parametrize(
    ("task", "parts"),
    [
        ("toy_arithmetic_whole", ["--tasks toy_arithmetic_whole", "whole texts"]),
        ("toy_arithmetic,nowhere", ["--tasks nowhere: the harness has no such task; lm_eval ls tasks"]),
    ],
)
def test_tasks_that_do_not_fit_are_refused_before_an_lm_is_loaded(task, parts, at_top, monkeypatch):
    """A perplexity task and a task that there is not get one line."""
    from lm_eval import tasks

    own = functools.partial(tasks.TaskManager, include_defaults=False)  # reading the harness's own takes a minute here
    monkeypatch.setattr(tasks, "TaskManager", lambda include_path, **_: own(include_path=include_path))
    monkeypatch.setattr(lm_eval, "load_models", None)
    flags = ["--thought_generator", "none", "--base_model_id", TOY["large"]]
    with pytest.raises(InputError) as error:
        lm_eval.run([*TASK_FILES, *flags, "--tasks", task])
    one_line(error, *parts)


@HARNESS
def test_wrong_checkpoint_does_not_wait_for_the_tasks(monkeypatch):
    """A checkpoint that there is not is said before the harness's thousands of task files are read."""
    monkeypatch.setattr(lm_eval, "task_manager", None)
    with pytest.raises(InputError) as error:
        lm_eval.run(["--checkpoint", "no/where", "--tasks", "gsm8k"])
    one_line(error, "--checkpoint no/where: no such folder")


# ---------------------------------------------------------------------------------------------------------------------
# Without it


def test_stop_strings_cut_and_settings_are_the_tasks(model):
    """`until` cuts a text before the first stop string in it, max_gen_toks and do_sample are each request's own, equal
    contexts are sampled anew, and answers come in the order of the requests."""
    whole = {"until": [], "max_gen_toks": 40}
    (text, other) = model.generate_until([request(question, whole) for question in QUESTIONS], disable_tqdm=True)
    stop = text[len(text) // 2 :][:3]
    sampled = {"do_sample": True, "temperature": 5.0, "top_k": 0, "max_gen_toks": 12}
    requests = [
        request(QUESTIONS[1], whole),
        *[request(QUESTIONS[0], sampled)] * 2,
        request(f"  {QUESTIONS[0]}\n", {"until": ["no such text", stop], "max_gen_toks": 40}),
        request(QUESTIONS[0], {"until": stop, "do_sample": False, "temperature": 0.0, "max_gen_toks": 40}),
        request(QUESTIONS[0], {"max_gen_toks": 3}),
    ]
    answers = model.generate_until(requests, disable_tqdm=True)
    assert answers[0] == other != text and answers[1] != answers[2]
    assert answers[3] == answers[4] == text[: text.index(stop)] and text.startswith(answers[5]) and answers[5] != text
    assert model.answered == 8 and model.cut_off >= 1
    before = model.cut_off  # an answer that ends at its stop string was not cut off
    for until, more in (([text[0]], 0), ([], 1)):
        model.generate_until([request(QUESTIONS[0], {"until": until, "max_gen_toks": 3})], disable_tqdm=True)
        assert model.cut_off == before + more
    model.max_new_tokens = 3  # --max_new_tokens wins over the task
    (short,) = model.generate_until(requests[:1], disable_tqdm=True)
    assert other.startswith(short) and 0 < len(short) < len(other)


def test_likelihood_takes_no_empty_and_no_whole_texts(model):
    """White space before a continuation is left out, an empty context is a question like any other; an empty
    continuation, whole texts and the harness's own chat template are refused in one line."""
    pairs = [(QUESTIONS[0], " 3"), (QUESTIONS[0], "3"), ("", "3")]
    scores = model.loglikelihood([request(*pair) for pair in pairs], disable_tqdm=True)
    assert scores[0] == scores[1] != scores[2] and all(log_prob < 0 for log_prob, _ in scores)
    with pytest.raises(InputError) as error:
        model.loglikelihood([request(QUESTIONS[0], " ", number=7)], disable_tqdm=True)
    one_line(error, "toy: question 7", "nothing to score")
    for refused in (lambda: model.loglikelihood_rolling([]), lambda: model.apply_chat_template([])):
        with pytest.raises(InputError) as error:
            refused()
        one_line(error, "question" if "rolling" in str(error.value) else "leave it out")


def test_settings_that_are_not_ours_are_refused(model):
    """A generation setting that the samplers do not have, and a context that is too long, are one line that names the
    question."""
    for kwargs, word in (({"num_beams": 4}, "num_beams"), ({"typical_p": 0.9}, "typical_p")):
        with pytest.raises(InputError) as error:
            model.generate_until([request(QUESTIONS[0], kwargs, number=3)], disable_tqdm=True)
        one_line(error, "toy: question 3", word)
    long = "cups " * 9000
    for ask in (model.loglikelihood, model.generate_until):
        with pytest.raises(InputError) as error:
            ask([request(long, "3" if ask == model.loglikelihood else {})], disable_tqdm=True)
        one_line(error, "toy: question 0", "positions")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--limt", "3"], ["no such flag: --limt (--limit?)", "python -m lta_thinker.lm_eval --help"]),
        (["--apply_chat_template"], ["--apply_chat_template is not for this program", "user's turn"]),
        (["--model_args=pretrained=x"], ["--model_args is not for this program", "--checkpoint"]),
        (["--limit", "3"], ["--tasks"]),
        (["--tasks", "gsm8k,,du"], ["--tasks gsm8k,,du"]),
        (["--tasks", "gsm8k", "--limit", "0"], ["--limit 0.0: must be above 0"]),
        (["--tasks", "gsm8k", "--limit", "2.5"], ["--limit 2.5"]),
        (["--tasks", "gsm8k", "--num_fewshot", "-1"], ["--num_fewshot -1"]),
        (["--tasks", "gsm8k", "--include_path", "nowhere"], ["--include_path nowhere: no such folder"]),
        (["--tasks", "gsm8k", "--log_samples"], ["--log_samples", "--output_path"]),
        (["--tasks", "gsm8k", "--batch_size", "0"], ["--batch_size 0"]),
        (["--tasks", "gsm8k", "--thought_generator", "none", "--params_file_name", "x"], ["--params_file_name"]),
    ],
)
def test_wrong_flags_are_one_line(flags, parts):
    """What is wrong on the command line is one line, before the harness is looked for."""
    with pytest.raises(InputError) as error:
        lm_eval.run(flags)
    one_line(error, *parts)


def test_missing_harness_is_one_line(monkeypatch):
    """Without the harness the line says how it is installed."""
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError) as error:
        lm_eval.run(["--tasks", "gsm8k", "--thought_generator", "none"])
    one_line(error, "lm_eval cannot be imported", "requirements-lm-eval.txt")


def test_evaluate_of_a_task_is_not_our_script(monkeypatch):
    """Where a task's code imports `evaluate`, it does not find evaluate.py of the checkout first."""
    monkeypatch.setattr(sys, "path", [str(ROOT), "elsewhere", "further"])
    lm_eval.installed_first()
    assert sys.path == ["elsewhere", "further", str(ROOT)]
