"""Training from Python: rows in memory -> a model, as train.py makes it from files."""

import signal
from pathlib import Path

import datasets
import pytest
import torch
from helpers import gsm8k_row, one_line, weights, write_jsonl

import lta_thinker
from lta_thinker import LatentThoughtModel, evaluate
from lta_thinker.common import InputError

ROWS = [gsm8k_row(i) for i in range(40)]
FLAGS = {"task_name": "mine", "answer_type": "number", "num_thought_tokens": 4, "max_steps": 2, "batch_size": 2}
FLAGS |= {"gradient_accumulation_steps": 1, "learning_rate": "1e-3", "disable_tqdm": True, "balance_losses": False}


@pytest.fixture
def pair(tiny_pair, tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    return {"large": str(tiny_pair / "large"), "small": str(tiny_pair / "small")}


def same(one: str, other: str) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_rows_train_as_a_file_of_them(pair):
    """Dicts, a datasets.Dataset and a file of the same rows make the same weights, to the bit; the model is the best
    checkpoint's, and its name and its rows are found later."""
    model = lta_thinker.train(ROWS, test=ROWS[:3], output_name="dicts", **pair, **FLAGS)
    assert isinstance(model, LatentThoughtModel) and model.num_thoughts == 4
    assert len(model.solve(ROWS[0]["question"], num_samples=2, max_new_tokens=3).texts) == 2
    lta_thinker.train(datasets.Dataset.from_list(ROWS), output_name="dataset", **pair, **FLAGS)
    write_jsonl(Path("rows.jsonl"), ROWS)
    lta_thinker.train(None, output_name="file", train_file="rows.jsonl", **pair, **FLAGS)
    assert same("dicts", "dataset") and same("dicts", "file")
    evaluate.main(["--checkpoint", "dicts", "--max_new_tokens", "2", "--output_dir", "out"])
    assert len(Path("out/samples.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        (ROWS, {"learning_rat": 1}, "no such flag: --learning_rat (--learning_rate?)"),
        (ROWS, {"task_name": "gsm8k", "answer_type": None}, "--task_name gsm8k: is known; a task of your own needs an"),
        (ROWS, {"answer_type": None}, "--task_name mine: a task of your own needs --answer_type"),
        (ROWS, {"output_name": None}, "--output_name is required"),
        (ROWS, {"seed": object}, "lta_thinker.train: seed: <class 'object'> is no flag's value"),
        ("text", {}, "lta_thinker.train: train row 1 is of str, not a dict"),
        (5, {}, "lta_thinker.train: train rows are 5, not dicts in a list"),
        ([], {}, "lta_thinker.train: there are no train rows"),
        ([{"question": torch}], {}, "lta_thinker.train: train row 1: Object of type module is not JSON serializable"),
    ],
)
def test_wrong_rows_and_flags_are_one_line(pair, rows, more, said):
    """What is wrong is one line, before anything is written."""
    with pytest.raises(InputError) as error:
        lta_thinker.train(rows, **pair, **FLAGS | {"output_name": "x"} | more)
    one_line(error, said)
    assert list(Path().iterdir()) == []


def test_several_processes_are_refused(pair, monkeypatch):
    """Under torchrun every process would write the rows: one line names the way that works."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="runs in one process; under torchrun use train.py with --train_file"):
        lta_thinker.train(ROWS, output_name="x", **pair, **FLAGS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_training_as_it_stops_train_py(pair, number, monkeypatch, capsys):
    """One line and the exit status of train.py, no traceback: during the steps, where train.py itself has said it, and
    before and behind them. The folder is free for another try."""
    from lta_thinker import from_rows
    from lta_thinker.common import _held

    for run, said in ((lambda words: 128 + number, ""), (lambda words: signal.raise_signal(number), number.name)):
        monkeypatch.setattr(from_rows, "run", run)
        with pytest.raises(SystemExit) as end:
            lta_thinker.train(ROWS, output_name="x", **pair, **FLAGS)
        assert end.value.code == 128 + number and not _held
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(":")[0] for line in lines] == [f"stopped by {said}"] * bool(said)
