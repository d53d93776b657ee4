"""evaluate.py --backend vllm on a real engine (CPU, float32): what hf would write, or what it could have written."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import psutil
import pytest
import torch
from helpers import ROOT, TOY, TOY_DATA
from transformers import AutoModelForCausalLM, AutoTokenizer

from lta_thinker import evaluate
from lta_thinker.data_loader import TASKS, load_split
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import Plan, load_layout, load_models, make_plan
from lta_thinker.flags import parse_flags
from lta_thinker.generation.prompts import PromptEmbedder, make_requests
from lta_thinker.generation.samplers import Answer, Sampler, TransformersSampler
from lta_thinker.generation.sampling import SamplingSettings
from lta_thinker.generation.vllm import VllmSampler
from lta_thinker.model import Models

EXAMPLES = load_split(TASKS["arithmetic"], "test", str(ROOT / "data")).examples[:50]
GREEDY = SamplingSettings(
    max_new_tokens=96,
    temperature=1.0,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.0,
    greedy=True,
    num_return_sequences=1,
    seed=41,
)
SAMPLING = replace(GREEDY, greedy=False, temperature=0.9, top_p=0.9, top_k=20, num_return_sequences=4)


def models_for(backend: str, *flags: str) -> tuple[Plan, Models]:
    """As evaluate.py makes them."""
    args = parse_flags(
        EvaluationArguments, [*flags, *TOY_DATA, "--backend", backend, "--batch_size", "16"], "evaluate.py"
    )
    plan = make_plan(args)
    return plan, load_models(plan, load_layout(plan))


def bare(folder: str = TOY["large"]) -> tuple[str, ...]:
    return "--thought_generator", "none", "--base_model_id", folder


@pytest.fixture(scope="module")
def engine(checkpoint):
    """A VllmSampler whose models and settings the tests set."""
    plan, models = models_for("vllm", "--checkpoint", str(checkpoint))
    with contextlib.closing(VllmSampler(models, GREEDY, 16, None, plan.backend, 200)) as sampler:
        yield sampler


@pytest.fixture(scope="module")
def pairs(checkpoint):
    """{"thoughts", "none"} -> the models of (hf, vllm)."""
    flags = {"thoughts": ("--checkpoint", str(checkpoint)), "none": bare()}
    return {name: [models_for(backend, *own)[1] for backend in ("hf", "vllm")] for name, own in flags.items()}


def answers(sampler: Sampler, examples=EXAMPLES) -> dict[int, Answer]:
    requests = make_requests(sampler.layout, examples)
    return {answer.request.example.index: answer for answer in sampler.answers(requests)}


def with_vllm(engine: VllmSampler, models: Models, settings: SamplingSettings, examples=EXAMPLES) -> dict[int, Answer]:
    Sampler.__init__(engine, models, settings, 16)  # other models and settings before the engine that runs
    return answers(engine, examples)


def with_hf(models: Models, settings: SamplingSettings, examples=EXAMPLES) -> dict[int, Answer]:
    return answers(TransformersSampler(models, settings, 16), examples)


def texts_of(made: dict[int, Answer]) -> dict[int, list[str]]:
    return {index: answer.texts for index, answer in made.items()}


@pytest.mark.parametrize("kind", ["thoughts", "none"])
def test_vllm_greedy_answers_match_hf(engine, pairs, kind):
    """Greedy answers of vLLM are those of hf: texts, tokens, ends and scores."""
    hf, vllm = pairs[kind]
    expected, made = with_hf(hf, GREEDY), with_vllm(engine, vllm, GREEDY)
    assert texts_of(made) == texts_of(expected) and len(made) == 50
    for index, answer in made.items():
        [sample], [other] = answer.samples, expected[index].samples
        assert (sample.tokens, sample.num_tokens, sample.finished) == (other.tokens, other.num_tokens, other.finished)
        assert sample.score == pytest.approx(other.score, abs=1e-4)


def test_vllm_chains_answer_as_hf(engine, pairs):
    """With chains, vLLM's samples are spread over them as in hf."""
    settings = replace(GREEDY, num_return_sequences=4)
    for models in pairs["thoughts"]:
        models.thoughts.generator.prior.data[4:] += torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    hf, vllm = pairs["thoughts"]
    made = texts_of(with_vllm(engine, vllm, settings))
    assert made == texts_of(with_hf(hf, settings))
    assert any(texts[0] != texts[1] for texts in made.values()), "chains alike"


def test_vllm_samples_depend_on_seed_alone(engine, pairs):
    """A sample depends on the seed, the question and its own number. It does not depend on the questions asked with it,
    their order, or how many samples are asked for."""
    models = pairs["none"][1]
    made = texts_of(with_vllm(engine, models, SAMPLING))
    some = texts_of(with_vllm(engine, models, replace(SAMPLING, num_return_sequences=2), EXAMPLES[40:30:-1]))
    assert some == {index: made[index][:2] for index in some}
    assert texts_of(with_vllm(engine, models, replace(SAMPLING, seed=42))) != made
    assert sum(len(set(texts)) > 1 for texts in made.values()) > 25


@torch.no_grad()
def test_vllm_scores_are_the_llms_own(engine, pairs):
    """A sample's score is the LLM's own mean log-probability, before temperature and cuts. The end token is counted,
    and no part of the text."""
    hf, vllm = pairs["none"]
    settings = replace(SAMPLING, max_new_tokens=40)
    made, [end] = with_vllm(engine, vllm, settings, EXAMPLES[:12]), engine.stop_ids
    embed, llm, finished = PromptEmbedder(hf, num_chains=1), hf.llm, Counter()
    for example in EXAMPLES[:12]:
        prompt, answer = embed(make_requests(hf.layout, [example]))["inputs_embeds"], made[example.index]
        for sample, text in zip(answer.samples, answer.texts, strict=True):
            tokens = sample.tokens + [end] * sample.finished
            finished[sample.finished] += 1
            assert end not in sample.tokens and len(tokens) == sample.num_tokens <= 40
            assert sample.finished or sample.num_tokens == 40
            assert text == hf.layout.llm_tokenizer.decode(sample.tokens, skip_special_tokens=True)
            written = llm.get_input_embeddings()(torch.tensor([tokens]))
            logits = llm(inputs_embeds=torch.cat([prompt, written], 1)).logits[0, prompt.shape[1] - 1 : -1]
            score = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).mean().item()
            assert sample.score == pytest.approx(score, abs=1e-4)
    assert min(finished[True], finished[False]) > 3


def chi_square(one: Counter, other: Counter) -> tuple[float, int]:
    """Of homogeneity of two counts, and its degrees of freedom; rare values are taken together."""
    total = one + other
    rare = [key for key in total if total[key] < 20]
    columns = [[c[key] for c in (one, other)] for key in total if key not in rare]
    columns.append([sum(c[key] for key in rare) for c in (one, other)])
    sizes, chi = [one.total(), other.total()], 0.0
    for column in columns:
        for count, size in zip(column, sizes, strict=True):
            expected = sum(column) * size / sum(sizes)
            chi += (count - expected) ** 2 / expected if expected else 0
    return chi, len(columns) - 1


@pytest.mark.parametrize(
    "changes",
    [{"temperature": 2.0, "top_p": 0.98}, {"temperature": 2.0, "top_p": 1.0, "min_p": 0.002}],
    ids=["top_p", "min_p"],
)
def test_vllm_samples_are_distributed_as_hf(engine, pairs, changes):
    """Answers of vLLM and of hf to two questions, 600 each, have the same distribution by a chi-square test, which
    would see another temperature."""
    settings = replace(SAMPLING, num_return_sequences=600, max_new_tokens=24, **changes)
    hf, vllm = pairs["none"]
    expected, made = with_hf(hf, settings, EXAMPLES[:2]), with_vllm(engine, vllm, settings, EXAMPLES[:2])
    for example in EXAMPLES[:2]:
        counts = Counter(made[example.index].texts), Counter(expected[example.index].texts)
        chi, freedom = chi_square(*counts)
        assert freedom >= 2 and chi < freedom + 4 * (2 * freedom) ** 0.5
        wrong = Counter(with_hf(hf, replace(settings, temperature=1.5), [example])[example.index].texts)
        chi, freedom = chi_square(counts[0], wrong)
        assert chi > freedom + 4 * (2 * freedom) ** 0.5, "the test would not see another temperature"


def test_vllm_repetition_penalty_matches_hf(tmp_path, capsys):
    """As in hf the repetition penalty is for what was written alone. A model without a row to spare is refused in one
    line."""
    tokenizer, folder = AutoTokenizer.from_pretrained(TOY["large"]), str(tmp_path / "spare")
    llm = AutoModelForCausalLM.from_pretrained(TOY["large"])
    llm.resize_token_embeddings(len(tokenizer) + 4)
    llm.generation_config.repetition_penalty = 4.0
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = replace(GREEDY, repetition_penalty=4.0)
    _, hf = models_for("hf", *bare(folder))
    plan, models = models_for("vllm", *bare(folder))
    with contextlib.closing(VllmSampler(models, settings, 16, None, plan.backend, 200)) as sampler:
        # twice: the places of the first questions are taken by the second ones
        made = [texts_of(answers(sampler)) for _ in range(2)]
    expected = texts_of(with_hf(hf, settings))
    assert made == [expected, expected] and expected != texts_of(with_hf(hf, GREEDY))

    llm.resize_token_embeddings(len(tokenizer))
    llm.save_pretrained(folder)
    with pytest.raises(SystemExit, match="repetition_penalty is 4.0.*use --backend hf") as stop:
        evaluate.main(
            [*bare(folder), *TOY_DATA, "--backend", "vllm", "--test_k", "2", "--output_dir", str(tmp_path / "out")]
        )
    assert "\n" not in str(stop.value.code)


def run(*flags, **kwargs):
    return subprocess.Popen([sys.executable, str(ROOT / "evaluate.py"), *TOY_DATA, *map(str, flags)], **kwargs)


def lines_of(folder) -> list[dict]:
    path = folder / "samples.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_killed_vllm_run_continues_to_report(engine, checkpoint, tmp_path, capfd):
    """A killed run of two engines leaves no process behind and goes on to the report: no question twice, and the texts
    of one engine in one go. No hf run goes on in the folder."""
    flags = ("--checkpoint", checkpoint, "--num_return_sequences", "4", "--test_k", "60", "--output_dir", tmp_path)
    with run(*flags, "--backend", "vllm", "--data_parallel_size", "2") as process:
        while process.poll() is None and len(lines_of(tmp_path)) < 3:
            time.sleep(0.02)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    before = lines_of(tmp_path)
    assert 3 <= len(before) < 60 and len(started) >= 4
    deadline = time.time() + 20
    while alive(started) and time.time() < deadline:
        time.sleep(0.2)
    assert not alive(started)

    assert run(*flags, "--backend", "vllm").wait() == 0
    report, records = json.loads((tmp_path / "report.json").read_text()), lines_of(tmp_path)
    by_index = {record["index"]: record for record in records}
    assert all(by_index[record["index"]] == record for record in before) and len(records) == len(by_index) == 60
    settings = SamplingSettings(**report["settings"]["sampling"])
    _, models = models_for("vllm", "--checkpoint", str(checkpoint))
    whole = texts_of(with_vllm(engine, models, settings))
    assert whole == {index: by_index[index]["responses"] for index in whole}
    assert report["vote_accuracy"]["value"] == pytest.approx(sum(record["correct"] for record in records) / 60)
    assert report["settings"]["backend"] == "vllm" and "vllm" in report["versions"]
    assert report["thought_variance"]["over_questions"] > 0 and report["speed"]["questions"] > 0
    capfd.readouterr()
    assert run(*flags).wait() == 1
    assert "made with backend = 'vllm', now it is 'hf'" in capfd.readouterr().err


@contextlib.contextmanager
def killed_at_last(process: subprocess.Popen):
    """With its group: a test that fails shall not wait for it."""
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_interrupt_at_start_ends_everything(tmp_path):
    """A Ctrl-C while the engine starts, sent as from a terminal to the whole group, ends all processes."""
    flags = (*bare(), "--test_k", "5", "--output_dir", tmp_path / "out", "--backend", "vllm")
    with killed_at_last(run(*flags, stdout=subprocess.PIPE, text=True, start_new_session=True)) as process:
        assert any("the engine starts" in line for line in process.stdout)
        time.sleep(5)
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) != 0
    deadline = time.time() + 20
    while alive(started) and time.time() < deadline:
        time.sleep(0.2)
    assert started and not alive(started)


def test_dead_engine_is_one_line(tmp_path):
    """An engine that dies is one line after what it printed, and exit status 1."""
    flags = (*bare(), "--num_return_sequences", "4", "--output_dir", tmp_path / "out", "--backend", "vllm")
    with killed_at_last(run(*flags, stderr=subprocess.PIPE, text=True, start_new_session=True)) as process:
        while process.poll() is None and len(lines_of(tmp_path / "out")) < 3:
            time.sleep(0.02)
        [engine] = [one for one in psutil.Process(process.pid).children() if "EngineCore" in one.name()]
        engine.kill()
        errors = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 1 and len(errors) < 200
    assert any(line.startswith("error: --backend vllm: the engine has died") for line in errors)
