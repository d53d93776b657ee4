"""What answers/verifier.py promises: hard comparisons in any thread, one budget a vote, a caller's alarm left alone."""

import signal
import subprocess
import sys
import threading

import pytest
from helpers import ENVIRONMENT, PROGRAMS, ROOT

from lta_thinker.answers import Budget, answers_equal, verifier
from lta_thinker.answers.votes import group_answers, vote

HARD = ("x^2+2x+1", "(x+1)^2")  # equal, and only the library can tell
ENDLESS = "9^{9^{9^{9}}}"


def test_any_thread_may_compare():
    """Threads compare at the same time, and each gets the answer to its own pair."""
    results = {}

    def compare(i: int) -> None:
        results[i] = answers_equal(f"x^2+2x+{i}", f"(x+1)^2+{2 * i - 4}", "latex")

    threads = [threading.Thread(target=compare, args=(i,)) for i in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {1: False, 2: False, 3: True, 4: False, 5: False}


def test_callers_alarm_stays():
    """An alarm that the caller has set is neither lost nor put off by a comparison."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        handler = signal.getsignal(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, 3600)
        assert answers_equal("x^2+4x+4", "(x+2)^2", "latex")
        assert signal.getsignal(signal.SIGALRM) is handler
        assert 3000 < signal.getitimer(signal.ITIMER_REAL)[0] < 3600
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_endless_pair_is_unsettled_and_the_next_is_not():
    """A pair that sympy does not end with is unequal and counted, and the process that it ended is replaced."""
    budget = Budget()
    assert answers_equal(ENDLESS, "5", "latex", budget) is False
    assert (budget.seconds, budget.unsettled) == (verifier.BUDGET_SECONDS - verifier.PAIR_SECONDS, 1)
    assert answers_equal("x^2+6x+9", "(x+3)^2", "latex", budget) and budget.unsettled == 1


@pytest.mark.parametrize("end", ["killed", "stopped by Ctrl-C in a comparison"])
def test_lost_process_is_replaced(end, monkeypatch):
    """Where the second process was killed, or its answer was never read, the next pair still gets its own answer."""
    assert verifier._compared.__wrapped__(*HARD)[0] is True
    process = verifier._process
    if end == "killed":
        process.kill()
        process.wait()
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(verifier, "_ask", interrupted)
            verifier._compared.__wrapped__("x", "x+1")
    assert verifier._compared.__wrapped__(*HARD)[0] is True
    assert verifier._process is not process and process.poll() is not None


def interrupted(process, line: str, seconds: float) -> str:
    """Sends a pair, and is interrupted before the answer is read."""
    process.stdin.write(line)
    process.stdin.flush()
    raise KeyboardInterrupt


def test_vote_has_one_budget(monkeypatch):
    """All pairs of a vote share one budget; what comes later is unequal and counted, and the easy pairs are settled all
    the same. Two lists are one pair."""
    asked = []
    monkeypatch.setattr(verifier, "_compared", lambda a, b: asked.append((a, b)) or (None, 1.0))
    formulas = [rf"\int_0^{i} x^{{x^x}} dx" for i in range(2, 9)]
    budget = Budget()
    result = vote([*formulas, "1", "1.0", "2/2"], "latex", budget=budget)
    pairs = 7 * 6 // 2 + 3 * 7 - 2 * 7  # the three numbers are one answer: its first text is compared with each formula
    assert result.answer == "1" and len(asked) == verifier.BUDGET_SECONDS
    assert budget.unsettled >= pairs
    asked.clear()
    budget = Budget()
    assert not answers_equal(", ".join(formulas), ", ".join(formulas[1:] + ["3"]), "latex", budget)
    assert len(asked) == budget.unsettled == 1


def test_budget_does_not_hang_on_earlier_votes():
    """A pair that was compared before costs a budget what it cost then."""
    first, second = Budget(), Budget()
    for budget in (first, second):
        assert answers_equal("x^2+8x+16", "(x+4)^2", "latex", budget)
    assert first == second and first.seconds < verifier.BUDGET_SECONDS


def test_forks_have_processes_of_their_own():
    """A fork of the process compares beside it: neither reads the other's answers."""
    command = [sys.executable, str(PROGRAMS / "compare_in_a_fork.py")]
    done = subprocess.run(command, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[True, False, True]\n" * 2, "")


def test_repeated_answers_are_compared_once(monkeypatch):
    """A text that was seen joins its group without another comparison, however many samples say it."""
    asked = []
    monkeypatch.setattr(verifier, "_compared", lambda a, b: asked.append((a, b)) or (False, 0.0))
    assert group_answers([*HARD, *HARD, *HARD], "latex") == [0, 1] * 3 and len(asked) == 1


def test_a_pair_costs_its_budget_once(monkeypatch):
    """Parts of lists come again and again: a pair that is known to a budget costs it nothing more."""
    monkeypatch.setattr(verifier, "_compared", lambda a, b: (True, 3.0))
    budget = Budget()
    assert all(budget.same("a", "b") for _ in range(9))
    assert (budget.seconds, budget.unsettled) == (verifier.BUDGET_SECONDS - 3, 0)
