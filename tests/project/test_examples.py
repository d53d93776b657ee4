"""The examples run as they stand."""

import os
import runpy
import sys

from helpers import ROOT


def test_new_task_example_runs(tmp_path, monkeypatch, capsys):
    """The example of a new task, shortened, trains, evaluates and asks. It works in a folder of its own and leaves
    nothing behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["new_task.py", "--steps", "3", "--questions", "4"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(ROOT / "examples" / "new_task.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for line in ("4 questions, % right", "A: no thoughts, 10 samples", "B: 8 thoughts (small_block), 10 samples"):
        assert line in printed
    assert printed.splitlines()[-1].startswith("answer: ")
    assert os.listdir() == []
