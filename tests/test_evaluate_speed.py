"""benchmarks/evaluate.py at its smallest: what its last line says."""

import importlib.util
import json

import pytest
import torch
from conftest import ROOT


def test_the_evaluation_benchmark_ends_with_its_figures(capsys, tmp_path):
    """Both ways run on the toy pair; answers have the lengths that were asked for, the same in batches of one."""
    spec = importlib.util.spec_from_file_location("evaluate_speed", ROOT / "benchmarks" / "evaluate.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    flags = "--shape tiny --device cpu --dtype float32 --questions 3 --samples 3 --mean 8 --longest 20 --rounds 1"
    benchmark.main([*flags.split(), "--batch_size", "2", "--checked", "3", "--out", str(tmp_path / "out.json")])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures == json.loads((tmp_path / "out.json").read_text())
    assert (figures["shape"], figures["batch"], figures["same_answers"]) == ("tiny", 2, True)
    speeds = figures["questions_per_second"]
    assert figures["speedup"] == pytest.approx(speeds["ours"] / speeds["published"])
    keys = benchmark.noise_keys(41, torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3))
    lengths = benchmark.lengths_of(keys, 8, 20)
    assert figures["tokens_per_answer"] == {"mean": lengths.double().mean().item(), "longest": lengths.max().item()}
