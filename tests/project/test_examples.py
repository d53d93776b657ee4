"""The examples run as they stand."""

import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from helpers import ROOT

from lta_thinker import from_rows

EXAMPLE = str(ROOT / "examples" / "new_task.py")


@pytest.fixture(autouse=True)
def short(tmp_path, monkeypatch):
    """The example's command line, in an empty folder, with a place of its own for temporary folders."""
    for folder in ("here", "temporary"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(sys, "argv", ["new_task.py", "--steps", "1", "--questions", "2"])
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_new_task_example_runs(tmp_path, capsys):
    """The example of a new task, shortened, trains, evaluates and asks. It works in a folder of its own and leaves
    nothing behind."""
    runpy.run_path(EXAMPLE, run_name="__main__")
    printed = capsys.readouterr().out
    for line in ("2 questions, % right", "A: no thoughts, 10 samples", "B: 8 thoughts (small_block), 10 samples"):
        assert line in printed
    assert printed.splitlines()[-1].startswith("answer: ")
    assert os.listdir() == os.listdir(tmp_path / "temporary") == []


def test_new_task_example_that_is_stopped_keeps_its_folder(monkeypatch, capsys):
    """A signal ends it as it ends train.py, and what it has written stays in the folder that it has named."""
    monkeypatch.setattr(from_rows, "run", lambda words: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(EXAMPLE, run_name="__main__")
    printed = capsys.readouterr()
    assert end.value.code == 143 and printed.err.startswith("stopped by SIGTERM: ") and printed.err.count("\n") == 1
    folder = Path(printed.out.splitlines()[0].removeprefix("in "))
    assert list(folder.glob("results/rows-*.jsonl"))
