"""--estimate: what a run takes, from configs alone, beside what it takes over real tensors."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, fails, one_line, train_flags, write_jsonl
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks import estimate as benchmark
from benchmarks import paper, shapes
from lta_thinker import evaluate, train
from lta_thinker.build import build_models
from lta_thinker.common import InputError
from lta_thinker.estimate.cards import CARDS, LEFT_FREE, MEASURED, seconds_of
from lta_thinker.estimate.cost import Cost, Counter, on_fake_tensors
from lta_thinker.estimate.text import fits, largest_batch, rates_lines
from lta_thinker.evaluation import estimate as of_evaluation
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.flags import parse_flags
from lta_thinker.llm.forward import CACHE_BY_LAYERS
from lta_thinker.names import CARD_NAMES
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.training import estimate as of_training
from lta_thinker.training.flags import TrainArguments

aten = torch.ops.aten
CPU_ATTENTION = {  # PyTorch's FlopCounterMode lacks it
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *args, **kwargs: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, q, k, v, *args, **kwargs: (
        sdpa_backward_flop_count(gradient, q, k, v)
    ),
}
EVAL_1 = ("--per_device_eval_batch_size", "1")  # else the peak of so small a pair is the dev evaluation's


@pytest.fixture
def configs(tiny_pair, tmp_path, monkeypatch) -> Path:
    """The current folder, with `large` and `small`: their config.json and nothing else."""
    for name in ("large", "small"):
        (tmp_path / name).mkdir()
        shutil.copy(tiny_pair / name / "config.json", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(*flags: str) -> TrainArguments:
    return parse_flags(TrainArguments, [*flags, "--estimate"], "train.py")


def lines_with(printed: str, *words: str) -> list[str]:
    return [line for line in printed.splitlines() if all(word in line for word in words)]


# ---------------------------------------------------------------------------------------------------------------------
# What is printed


def test_training_is_estimated_from_configs_alone(configs, gsm8k_data, capsys, monkeypatch):
    """With a config.json for each LM, and no weights, tokenizer or GPU, train.py --estimate says memory by part,
    operations, disk, the batches that fit and the hours on the card; it writes nothing."""
    monkeypatch.setattr(of_training, "MANY_ROWS", 2)  # is quicker
    flags = [*train_flags(configs, gsm8k_data), "--align_loss_weight", "0", "--focus_loss_weight", "0"]
    assert train.run([*flags, "--estimate", "--card", "h100", "--gpus", "2", *EVAL_1]) == 0
    printed = capsys.readouterr().out
    assert len(lines_with(printed, "no tokenizer there")) == 2
    assert lines_with(printed, "38 rows of train, 2 of dev")
    assert lines_with(printed, "5 steps (--max_steps 5) of 2 rows x 2 micro-batches x 2 GPUs")
    (parts,) = lines_with(printed, "activations")
    named = ("LLM", "small LM", "trained weights", "optimiser", "gradients sent between GPUs")
    assert all(re.search(rf"\b{name} \d", parts) for name in named)
    assert lines_with(printed, "a micro-batch, 2 x", "operations", "read and written", "kernels")
    assert lines_with(printed, "disk:", "the small LM's states", "3 resume checkpoints")
    (card,) = lines_with(printed, "H100", "fits", "GPU hours")
    assert "steps" in card and "dev" in card and "states" in card
    assert lines_with(printed, "989 TFLOP/s", "data sheet") and lines_with(printed, "measured", "H200", "2026")
    assert sorted(os.listdir(configs)) == ["large", "small"]


def test_rows_that_are_not_here_are_said(configs):
    """Without rows the lengths are those of the task's sample, and the number of rows is that of --rows: less the dev
    rows, where the task has no dev file, and no more than --k_shot."""
    flags = "--large_model_id large --small_model_id small --data_dir none --rows 7473"
    few = of_training.rows_of(args := arguments(*flags.split(), "--k_shot", "100"), of_training.layout_of(args))
    assert (few.train, few.dev) == (100, 374)
    rows = of_training.rows_of(args := arguments(*flags.split()), of_training.layout_of(args))
    assert (len(rows.rows), rows.train, rows.dev) == (20, 7099, 374)
    assert "no rows in none/gsm8k" in rows.note and "data/gsm8k/sample.jsonl; 7,473 rows (--rows)" in rows.note


def test_evaluation_is_estimated_from_configs_alone(configs, gsm8k_data, capsys, monkeypatch):
    """evaluate.py --estimate says the cache, the work of a prompt and of a token, and hours, without any weights."""
    monkeypatch.setattr(of_evaluation, "MANY_QUESTIONS", 4)  # is quicker
    flags = ["--base_model_id", "large", "--assistant_model_id", "small", "--data_dir", str(gsm8k_data)]
    flags += ["--num_return_sequences", "16", "--max_new_tokens", "512", "--num_thought_tokens", "2"]
    evaluate.main([*flags, "--estimate", "--card", "a100", "--mean_new_tokens", "20"])
    printed = capsys.readouterr().out
    assert lines_with(printed, "small_block, 2 of 32 thoughts")
    assert lines_with(printed, "12 questions x 16 samples, 1 GPU") and "1 GPUs" not in printed
    assert lines_with(printed, "20 tokens (--mean_new_tokens), at most 512")
    short = [*flags, "--estimate", "--mean_new_tokens", "20", "--max_new_tokens", "10"]
    assert "--mean_new_tokens 20: an answer has at most 10 tokens" in fails(*short)
    assert lines_with(printed, "LLM", "activations") and lines_with(printed, "4 questions read")
    if CACHE_BY_LAYERS:  # transformers 4.53 makes the cache anew at each step: it is among the activations there
        assert lines_with(printed, "cache", "LLM")
    assert lines_with(printed, "a token in 64 rows") and lines_with(printed, "A100", "fits", "prompts", "tokens")
    assert sorted(os.listdir(configs)) == ["large", "small"]


def test_broken_rows_are_told_and_not_replaced(configs, gsm8k_data, tmp_path):
    """Rows that are there and broken are one line with their place, as in the run; no sample stands in for them."""
    own = Path(shutil.copytree(gsm8k_data, tmp_path / "own"))
    for path in (own / "gsm8k").glob("*.jsonl"):
        path.write_text("not JSON\n")
    with pytest.raises(InputError) as error:
        train.run([*train_flags(configs, own), "--estimate"])
    one_line(error, "train_socratic.jsonl", "not JSON")
    said = fails("--base_model_id", "large", "--thought_generator", "none", "--data_dir", str(own), "--estimate")
    assert "test_socratic.jsonl" in said and "not JSON" in said


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_an_lm_that_is_not_here_is_one_line(configs, gsm8k_data, capsys, folder):
    """A folder that is missing, or has no config.json, is one line, and no note on its tokenizer stands before it."""
    (configs / "empty").mkdir()
    with pytest.raises(InputError) as error:
        train.run([*train_flags(configs, gsm8k_data), "--large_model_id", folder, "--estimate"])
    one_line(error, f"--large_model_id {folder}: ")
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_flags_of_an_estimate_need_it(script):
    """--card without --estimate is refused in one line."""
    kind = TrainArguments if script == "train.py" else EvaluationArguments
    with pytest.raises(InputError) as error:
        parse_flags(kind, ["--card", "h100"], script)
    one_line(error, "--card", "--estimate")


# ---------------------------------------------------------------------------------------------------------------------
# Against real tensors


@pytest.mark.parametrize("more", ["", "--tune_base_model --gradient_checkpointing True --num_thought_chains 2"])
def test_step_takes_what_was_estimated(flags, more):
    """A training step over real tensors has the estimated peak of live bytes, and the operations that PyTorch's own
    FlopCounterMode counts, within 10 %."""
    args = arguments(*flags, *more.split(), "--bf16", "False")
    layout = of_training.layout_of(args)
    rows = of_training.rows_of(args, layout)
    batch = TrainingCollator(layout, steps=True)(of_training.longest_rows(rows.rows, 2))
    found = of_training.run_steps(args, layout, {"longest": batch}, keeps=False, like="cpu")

    args.estimate = False
    model = build_models(args.spec, layout, None, args.adapters).thoughts.train()
    if args.recompute_layers:
        model.recompute_layers()
    with Counter() as counter:
        step = of_training.Step(args, model, counter)
        step.start()
        counter.restart()
        step.micro_batch(batch)
        real = counter.restart()
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as operations:
        step.micro_batch(batch)
    estimated = found.costs["longest"]
    assert estimated.peak == pytest.approx(real.peak, rel=0.1)
    assert estimated.parts == pytest.approx(real.parts, rel=0.1)
    assert estimated.operations == pytest.approx(operations.get_total_flops(), rel=0.1)
    assert found.trained == sum(parameter.numel() for parameter in step.trained)


def test_benchmark_compares_a_step_and_a_token(monkeypatch, capsys):
    """benchmarks/estimate.py compares a step, its update and a decode step with real ones; they agree within 10 %."""
    tiny = {"layers": 2, "d": 32, "d_ff": 64, "heads": 2, "kv_heads": 1, "head_dim": 16}
    monkeypatch.setitem(shapes.SHAPES, "cpu", (shapes.sizes(**tiny, tied=False), shapes.sizes(**tiny, tied=True)))
    monkeypatch.setattr(shapes, "VOCABULARY", 9000)
    flags = "--shape cpu --device cpu --dtype float32 --batches 2 --rows 4 --columns 40 --num_thoughts 4"
    lines = benchmark.main(flags.split())
    assert [line["what"] for line in lines] == ["micro 2", "update 2", "token 4"]
    for line in lines:
        assert line["peak_ratio"] == pytest.approx(1, rel=0.1)
        assert line["operations"] == pytest.approx(line["real_operations"], rel=0.1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["lines"] == lines


def test_what_looks_at_values_is_refused():
    """What cannot run without values is one line, and the tables of the devices are as they were."""
    table = {"cpu": 1, "cuda": 2}
    with pytest.raises(InputError) as error, on_fake_tensors("cuda", [table]):
        assert table["cpu"] == 2
        torch.ones(3).sum().item()
    one_line(error, "--estimate", "looks at values")
    assert table == {"cpu": 1, "cuda": 2}


def test_live_bytes_are_counted():
    """The peak has what lives at once, not what was freed, and an operator's bytes are those it reads and writes."""
    with Counter() as counter:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second * 2
        assert counter.cost.peak == 2 * 4096 and counter.cost.kernels == 3
        assert counter.cost.moved == 4000 + 8000 + 8000
        counter.hold("kept", [third])
        del second
        torch.zeros(2000)
    assert counter.cost.parts == {"kept": 4096, "activations": 8192}


# ---------------------------------------------------------------------------------------------------------------------
# Hours and batches


def test_a_stopped_estimate_does_not_promise_to_go_on(monkeypatch, capsys):
    """A signal during --estimate: nothing was written, so there is nothing to resume; of a run there is."""
    monkeypatch.setattr(train, "run_rank", lambda argv: signal.raise_signal(signal.SIGTERM))
    for flag, said in (("--estimate", "nothing was written"), ("--verbose", train.KEPT)):
        monkeypatch.setattr(sys, "argv", ["train.py", flag])
        with pytest.raises(SystemExit) as end:
            train.main()
        assert end.value.code == 143 and capsys.readouterr().err == f"stopped by SIGTERM: {said}\n"


def test_rates_of_a_4090_are_cited_for_both_dtypes():
    """The line of float32 rates does not say that they are bf16's."""
    (line,) = rates_lines([CARDS["4090"]], "float32")[2:]
    assert "82.6 TFLOP/s" in line and line.endswith("appendix A: bf16 of Tensor cores, float32 without them)")


def test_cards_have_names_and_sources():
    assert tuple(CARDS) == CARD_NAMES and all("NVIDIA" in card.source for card in CARDS.values())


def test_a_step_waits_for_the_slowest():
    """Seconds are those of the arithmetic at the measured share, of the memory, or of starting the kernels."""
    card = CARDS["h100"]
    assert seconds_of(Cost(operations=989e12), card, "bfloat16") == pytest.approx(1 / MEASURED.arithmetic)
    assert seconds_of(Cost(moved=round(3.35e12)), card, "bfloat16") == pytest.approx(1 / MEASURED.bandwidth)
    assert seconds_of(Cost(kernels=1000), card, "bfloat16") == pytest.approx(1000 * MEASURED.seconds_a_kernel)


def test_batches_that_fit_are_named():
    """The largest batch is found between the sizes whose peaks are known, and none beyond; what stays free is left."""
    peaks = {1: 20e9, 4: 23e9, 64: 143e9}  # 1 GB a row, then 2
    card = CARDS["h100"]
    assert largest_batch(CARDS["4090"], peaks) == 4 + int((24 * 2**30 - LEFT_FREE - 23e9) // 2e9)
    assert largest_batch(CARDS["4090"], peaks | {1: 22e9, 4: 25e9}) == 1 + int((24 * 2**30 - LEFT_FREE - 22e9) // 1e9)
    assert largest_batch(card, peaks) == 4 + int((card.memory - LEFT_FREE - 23e9) // 2e9)
    assert largest_batch(CARDS["h200"], {1: 20e9, 4: 23e9}) == 4
    assert fits(CARDS["h200"], {1: 20e9, 4: 23e9}, 1, "row") == "--batch_size 1 fits, at least 4 does"
    assert largest_batch(CARDS["4090"], {1: 25e9, 4: 26e9}) == 0
    assert fits(card, peaks, 64, "row") == "--batch_size 64 does not fit, up to 34 does"
    assert fits(CARDS["4090"], {1: 25e9, 4: 26e9}, 4, "row") == "does not fit: one row takes 25 GB"


def test_hours_are_those_of_the_run(flags):
    """Steps x micro-batches, dev evaluations and the small LM's states make the hours: rows, epochs and ranks count."""
    args = arguments(*flags, "--max_steps", "-1", "--n_epochs", "3", "--gpus", "2")
    rows = of_training.Rows([], train=81, dev=40)
    one = Cost(kernels=1)
    found = of_training.TrainingEstimate(rows, {}, {1: one}, one, one, one, one, {})
    hours = of_training.hours_of(args, found, lambda cost: 3600.0)
    steps = 3 * 11  # 21 micro-batches of 2 rows x 2 GPUs, two to a step
    assert hours == {"steps": steps * (2 + 1), "dev": 3 * 3, "states": 2}


def test_what_several_gpus_add_and_spare(flags):
    """Several GPUs hold a copy of the gradients; with --shard_llm each has its share of the LLM's layers, and two whole
    ones."""
    args = arguments(*flags, "--gpus", "4", "--shard_llm")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 8, "vocab_size": 100, "head_dim": 8}
    with torch.device("meta"):
        llm = Qwen3ForCausalLM(Qwen3Config(**sizes, num_attention_heads=2, num_key_value_heads=1))
    layer = sum(4 * weight.numel() for weight in llm.model.layers[0].parameters())
    shared = of_training.shared_bytes(args, SimpleNamespace(llm=llm))
    assert shared == 8 * layer * 3 / 4 - 2 * layer
    whole = Cost(peak=10**6, parts={"LLM": 10**6})
    peak = of_training.with_ranks(args, whole, of_training.Found({}, trained=100, shared=shared))
    assert peak.peak == 10**6 - shared + 400
    assert peak.parts == {"LLM": 10**6 - shared, "gradients sent between GPUs": 400}


def test_list_of_the_paper_has_estimated_hours(tiny_pair, tmp_path, monkeypatch, capsys):
    """reproduce_paper.sh --list has hours of --estimate, for the card that is named, where nothing was measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(of_training, "MANY_ROWS", 2)  # is quicker, and so are few rows
    monkeypatch.setattr(of_evaluation, "MANY_QUESTIONS", 4)
    for split in ("train", "dev", "test"):
        lines = (ROOT / "data" / "arithmetic" / f"{split}.jsonl").read_text().splitlines()
        write_jsonl(tmp_path / "data" / "arithmetic" / f"{split}.jsonl", lines[:40])
    given = {"python": "python", "gpus": "0", "pairs": f"{tiny_pair}/large,{tiny_pair}/small", "tasks": "arithmetic"}
    given |= {"generators": "small_block", "num_thoughts": "2", "du_trained_on": "gsm8k", "seed": "41", "card": "h100"}
    given |= {"data_dir": "data", "out": "results/t", "paper": "--recipe paper", "sft_alone": ""}
    given |= {"train_flags": "--num_thought_tokens 4", "evaluate_flags": "--max_new_tokens 96"}
    paper.main(["--list", *(f"--{name}={value}" for name, value in given.items())])
    printed = capsys.readouterr().out
    assert len(lines_with(printed, "# to do, ", "hours estimated: ")) == 2
    last = printed.splitlines()[-1]
    assert re.search(r"GPU hours: 0 spent, 0 expected, [\d.e-]+ estimated on h100 \(train.py --estimate\)$", last)


# ---------------------------------------------------------------------------------------------------------------------
# The pages


def test_memory_on_the_pages_is_the_estimate(tmp_path, monkeypatch):
    """What README.md, README.zh-CN.md and docs/scaling.md say of the 8B pair's memory is what --estimate prints. The
    estimate grows by the same bytes with each of the LLM's layers; two and three say what 36 do."""
    monkeypatch.chdir(tmp_path)
    (large, small), peaks = shapes.SHAPES["8b"], []
    for layers in (2, 3):
        for name, sizes in {"Qwen/Qwen3-8B": large | {"num_hidden_layers": layers}, "Qwen/Qwen3-0.6B": small}.items():
            Qwen3Config(**shapes.QWEN3, **sizes, vocab_size=shapes.VOCABULARY).save_pretrained(name)
        args = arguments("--gpus", "4", "--rows", "7473", "--data_dir", "none")
        layout = of_training.layout_of(args)
        longest = of_training.longest_rows(of_training.rows_of(args, layout).rows, 4)
        batch = TrainingCollator(layout, steps=True)(longest)
        found = of_training.run_steps(args, layout, {"longest": batch}, keeps=True)
        peaks.append(of_training.with_ranks(args, found.peak("longest"), found))
    two, three = peaks
    said = f"{(two.peak + (large['num_hidden_layers'] - 2) * (three.peak - two.peak)) / 1e9:.3g} GB"
    for page in ("README.md", "README.zh-CN.md", "docs/scaling.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"**{said}**" in text, f"{page}: {said}"
    own = sum(size for part, size in three.parts.items() if part in ("trained weights", "gradients", "optimiser"))
    assert f"{own / 1e9:.1f} GB" in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    assert own / found.trained == pytest.approx(24, rel=0.01)  # bytes a parameter, as docs/scaling.md says
