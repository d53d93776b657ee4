"""The speed benchmarks at their smallest: what their last lines say."""

import importlib.util
import json

import pytest
import torch
from helpers import EXAMPLES, ROOT

from benchmarks import shapes, train_step
from lta_thinker.generation.prompts import Request
from lta_thinker.rows.batch import TrainingCollator


def evaluate_speed():
    """benchmarks/evaluate.py, not the evaluate.py of the root."""
    spec = importlib.util.spec_from_file_location("evaluate_speed", ROOT / "benchmarks" / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small_products(monkeypatch):
    """The machine's rate is that of small matrix products: ten large ones take four seconds."""
    own = shapes.matrix_rate
    monkeypatch.setattr(shapes, "matrix_rate", lambda dtype, device, size: own(dtype, device, 64))


def test_evaluation_benchmark_ends_with_figures(capsys, tmp_path):
    """Both ways of the evaluation benchmark run on tiny models, and its last line has its figures. Answers have the
    lengths that were asked for, the same in batches of one."""
    benchmark = evaluate_speed()
    flags = "--shape tiny --device cpu --dtype float32 --questions 3 --samples 3 --mean 8 --longest 20 --rounds 1"
    benchmark.main([*flags.split(), "--batch_size", "2", "--checked", "3", "--out", str(tmp_path / "out.json")])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == json.loads((tmp_path / "out.json").read_text())
    assert (figures["shape"], figures["batch"], figures["same_answers"]) == ("tiny", 2, True)
    above = figures["peak_above_models"]
    assert figures["memory_ratio"] == pytest.approx(above["ours"] / above["published"])
    speeds = figures["questions_per_second"]
    assert figures["speedup"] == pytest.approx(speeds["ours"] / speeds["published"])
    noise = torch.tensor([Request(row, {}).noise for row in shapes.benchmark_rows("tiny", 3)])
    keys = benchmark.noise_keys(41, noise.repeat_interleave(3), torch.arange(3).repeat(3))
    lengths = benchmark.lengths_of(keys, 8, 20)
    assert figures["tokens_per_answer"] == {"mean": lengths.double().mean().item(), "longest": lengths.max().item()}


@pytest.mark.parametrize("kind", ["block", "small", "small_block"])
def test_training_benchmark_sides_agree(small_products, capsys, tmp_path, kind):
    """Both sides of the training benchmark compute the same, and its last line has its figures."""
    flags = f"--shape tiny --device cpu --generator {kind} --batch_size 2 --accumulation 2 --num_thoughts 4 --rounds 1"
    train_step.main([*flags.split(), "--out", str(tmp_path / "out.json")])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == json.loads((tmp_path / "out.json").read_text())
    assert (figures["generator"], figures["shape"], figures["batch"]) == (kind, "tiny", 2)
    assert max(figures["differences"].values()) < 1e-5
    assert figures["speedup"] == pytest.approx(figures["published_seconds"] / figures["seconds"])
    above = figures["peak_above_models"], figures["published_peak_above_models"]
    assert figures["memory_ratio"] == pytest.approx(above[0] / above[1])


def test_least_operations_match_hand_count(tiny_models):
    """The least operations of a step are its matrix products, counted by hand for one row of the tiny pair and the
    generator small."""
    model, layout = tiny_models.model("small"), tiny_models.layout_for("small")
    row = layout.training(EXAMPLES[0])
    batch = TrainingCollator(layout, steps=True)([row])
    prefix, rest = len(row["prefix"]), 4 + len(row["suffix"] + row["target"])
    layer = 32 * (2 * 32 + 2 * 16) + 3 * 32 * 64  # q, o, k, v; gate, up, down
    norms = 2 * (2 * 32 + 2 * 16) + 32
    both = prefix + 2 * rest  # the rest forward and backward
    products = 2 * (2 * layer + norms) * both
    pairs = prefix * (prefix + 1) / 2, (prefix + rest) * (prefix + rest + 1) / 2
    attention = 4 * 2 * 32 * (pairs[0] + 2 * (pairs[1] - pairs[0]))
    head = 4 * len(row["target"]) * 32 * model.llm.config.vocab_size
    projection = 4 * (1 + 4 + 2) * 16 * 32  # z_q, the thoughts, two steps: forward and to the weights
    assert train_step.least_operations(model, batch) == products + attention + head + projection


def test_scaling_benchmark_makes_longer_rows(small_products, capsys):
    """The scaling benchmark runs rows 1, 2 and 4 times as long, and the first ones again for the larger vocabulary."""
    flags = "--shape tiny --device cpu --batch_size 2 --accumulation 1 --num_thoughts 4 --rounds 1 --scaling"
    train_step.main(flags.split())
    runs = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert [run["times_as_long"] for run in runs] == [1, 2, 4, 1]
    assert runs[0]["tokens"] == runs[3]["tokens"] < runs[1]["tokens"] < runs[2]["tokens"]


@pytest.mark.parametrize("wrong", ["--batch_size 0", "--rounds x", "--data_dir nowhere", "--out nowhere/x.json"])
def test_wrong_benchmark_flags_are_refused(capsys, wrong):
    """A wrong flag of a benchmark is refused in a line that names it."""
    for main in (train_step.main, evaluate_speed().main):
        with pytest.raises(SystemExit):
            main(["--shape", "tiny", *wrong.split()])
        assert wrong.split()[0] in capsys.readouterr().err.splitlines()[-1]
