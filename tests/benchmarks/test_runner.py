"""benchmarks/runner.py: what runs the commands of bash/run_dis_evaluate.sh, bash/reproduce_paper.sh and the study."""

import shlex
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT

from benchmarks import runner as commands
from benchmarks.runner import Command, Runner


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("echo fine", None),
        ("echo; echo one; echo two; echo; exit 3", "two"),
        ("echo 'error: no luck'; echo lines of torchrun; exit 1", "error: no luck"),
        ("exit 1", "no output"),
        ("kill -9 $$", "killed by signal 9"),
    ],
)
def test_why_a_command_failed(tmp_path, script, failure):
    """The signal, the last error line, or the last line; what a former run left in the log does not count."""
    log = tmp_path / "logs" / "a.log"
    for _ in range(2):
        with Runner() as runner:
            [(_, ended)] = runner.each(lambda item, _: runner.run(Command(["sh", "-c", item], log)), [script])
        assert ended.failure == failure
        assert ended.output.count("one") == ("one" in script)
    assert log.read_text().count(f"$ sh -c {shlex.quote(script)}\n") == 2


def test_a_place_has_one_command_at_a_time(tmp_path):
    """Every command sees its place in the environment; results are those of its item."""
    script = 'mkdir "$PLACE" && sleep 0.05 && rmdir "$PLACE" && echo "$PLACE"'

    def work(item: int, place: str):
        command = ["sh", "-c", f"cd {tmp_path} && {script}"]
        return place, runner.run(Command(command, tmp_path / f"{item}.log", {"PLACE": place}))

    with Runner(["a", "b"]) as runner:
        results = dict(runner.each(work, range(8)))
    assert sorted(results) == list(range(8)) and {place for place, _ in results.values()} == {"a", "b"}
    assert all((ended.failure, ended.output) == (None, f"{place}\n") for place, ended in results.values())


def test_an_exception_ends_every_group(tmp_path, monkeypatch):
    """Also a group that ignores SIGTERM, and what was not started yet is not started."""
    monkeypatch.setattr(commands, "SECONDS_TO_END", 0.3)
    script = f"trap '' TERM; sleep 60 & echo $! >{tmp_path}/pid; wait; wait"

    def work(item: str, _):
        if item == "fails":
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.02)
            raise ValueError("no luck")
        return runner.run(Command(["sh", "-c", script], tmp_path / f"{item}.log"))

    with pytest.raises(ValueError, match="no luck"), Runner(["a", "b"]) as runner:
        list(runner.each(work, ["hangs", "fails", "later"]))
    assert not runner.running and runner.run(Command(["true"], tmp_path / "other.log")).failure == "stopped"
    state = subprocess.run(["ps", "-o", "stat=", "-p", (tmp_path / "pid").read_text().strip()], capture_output=True)
    assert state.stdout.strip()[:1] in (b"", b"Z")  # gone, or a zombie


def test_signals_interrupt_the_main_program():
    """KeyboardInterrupt carries the signal's number; an ignored signal (nohup) stays ignored."""
    program = """
import os, signal, sys
from benchmarks.runner import stop_on_signals
signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop_on_signals()
os.kill(os.getpid(), signal.SIGHUP)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
except KeyboardInterrupt as stopped:
    sys.exit(100 + stopped.args[0])
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30)
    assert ended.returncode == 100 + signal.SIGTERM
