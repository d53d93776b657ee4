"""What a person sees while something runs: bars in a terminal, plain lines in a file or a pipe, flags in five lines."""

import io
import subprocess
import sys
from dataclasses import fields

import pytest
from helpers import ROOT

from lta_thinker import console, model, names, progress
from lta_thinker.evaluation import start as evaluation_start
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.progress import Progress, duration, say, track
from lta_thinker.training import start as training_start


class Terminal(io.StringIO):
    """A terminal's end of a stream."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (7, "0:07"), (63, "1:03"), (3599.6, "1:00:00"), (7205, "2:00:05"), (274_200, "3 d 04:10")],
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text


def test_eta_is_the_rest_at_the_mean_speed_since_the_start():
    """What was done before the start, by a run that is resumed, took none of this start's time."""
    clock = Clock()
    with Progress("training", 300, done=100, clock=clock) as told:
        assert told.eta == "?"
        clock.now += 50
        told.update(20)  # 2.5 s each
        assert told.eta == duration(180 * 2.5)
        clock.now += 10
        told.update(100)  # 0.5 s each
        assert told.eta == duration(80 * 0.5)


def test_a_pipe_gets_a_plain_line_every_so_often(capsys):
    """One every 30 seconds: what is done, the note, the time that is left. No bar, no \\r, nothing at the end."""
    clock = Clock()
    with Progress("questions", 8, clock=clock) as told:
        for number in range(8):
            clock.now += 10
            told.update(note=f"{number} right")
    out, err = capsys.readouterr()
    assert out.splitlines() == ["questions 3/8  2 right  ETA 0:50", "questions 6/8  5 right  ETA 0:20"]
    assert err == "" and "\r" not in out


def test_a_terminal_gets_a_bar_and_no_plain_lines(monkeypatch):
    """The bar has the time that is left; a line that is said stands above it and ends with a line break."""
    out, err, clock = Terminal(), Terminal(), Clock()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with Progress("questions", 3, clock=clock) as told:
        for number in range(3):
            clock.now += 60
            told.update(note=f"{number} right")
            say(f"line {number}")
        told.bar.refresh()
    assert out.getvalue() == "line 0\nline 1\nline 2\n"
    assert "questions: 100%|" in err.getvalue() and "3/3, ETA 0:00  2 right" in err.getvalue()


def test_a_line_that_has_no_room_in_a_terminal_goes_on_below(monkeypatch):
    """It is broken between its parts; a terminal that is wide enough, a file and a pipe have one line."""
    line = "step   5/300  epoch 0.03  loss 0.478 = sft 0.0175 + focus 0.46  lr 2.7e-4  ETA 1:44"
    monkeypatch.setenv("COLUMNS", "64")
    assert progress.in_terminal(line) == line
    monkeypatch.setattr(sys, "stdout", Terminal())
    below = "step   5/300  epoch 0.03  loss 0.478 = sft 0.0175 + focus 0.46\n               lr 2.7e-4  ETA 1:44"
    assert progress.in_terminal(line) == below
    monkeypatch.setenv("COLUMNS", "83")
    assert progress.in_terminal(line) == line


def test_log_of_a_run_in_a_terminal_has_no_bar(monkeypatch):
    """python train.py > log: the bar is in the terminal, the file has the plain lines."""
    out, err, clock = io.StringIO(), Terminal(), Clock()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with Progress("questions", 3, clock=clock) as told:
        clock.now += 60
        told.update()
    assert out.getvalue() == "questions 1/3  ETA 2:00\n" and "questions:" in err.getvalue()


def test_quiet_progress_says_nothing(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0)
    out, err = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert list(track([5, 6], "items", 2, quiet=True)) == [5, 6]
    assert out.getvalue() == err.getvalue() == ""
    assert list(track([5, 6], "items", 2)) == [5, 6] and "items 1/2" in out.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# The first word, and the flags


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        ([], "Qwen/Qwen3-8B and Qwen/Qwen3-0.6B"),
        (["--large-model-id", "a/x", "--small_model_id=b"], "a/x and b"),
        (["--thought_generator", "block", "--large_model_id", "a", "--large_model_id", "c"], "c"),
        (["--recipe", "paper"], "Qwen/Qwen3-8B"),
        (["--recipe", "paper", "--thought_generator", "small"], "Qwen/Qwen3-8B and Qwen/Qwen3-0.6B"),
    ],
)
def test_first_word_of_training_names_the_lms(words, loaded, capsys):
    training_start.answer(words)
    assert capsys.readouterr().out == f"train.py: loading torch and transformers, then {loaded}\n"


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        (["--checkpoint", "ckpt/x"], "ckpt/x"),
        (["--thought_generator", "none"], "Qwen/Qwen3-8B"),
        (["--base_model_id", "a", "--params_file_name", "p.bin"], "a and p.bin"),
    ],
)
def test_first_word_of_evaluation_names_what_is_asked(words, loaded, capsys):
    evaluation_start.answer(words)
    assert capsys.readouterr().out == f"evaluate.py: loading torch and transformers, then {loaded}\n"


def test_first_word_disturbs_no_output_that_was_asked_for(capsys, monkeypatch):
    """Comparisons, lists and answers stand alone on stdout; other ranks are silent."""
    for words in ("--ask=2+2", "--compare a b --output_dir x", "--plot a", "--checkpoints_of a", "--regrade a"):
        evaluation_start.answer(words.split())
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "x", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    evaluation_start.answer(["--checkpoint", "x"])
    training_start.answer([])
    assert capsys.readouterr().out == ""


def test_first_word_needs_no_library():
    """It is printed before torch and transformers are imported, which takes seconds."""
    code = "from lta_thinker.{0} import answer; answer([])"
    lines = "; ".join(code.format(room) for room in ("training.start", "evaluation.start", "evaluation.harness"))
    program = f"{lines}; import sys; print({{'torch', 'transformers'}} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.partition(":")[0] for line in said.splitlines()] == ["train.py", "evaluate.py", "lm_eval", "set()"]


def test_names_say_which_generators_read_the_small_lm():
    assert {name for name, kind in model.KINDS.items() if kind.uses_small_lm} == {*names.READ_SMALL_LM}


def test_given_flags_stand_in_five_lines(monkeypatch):
    """Only what departs from the defaults, as a command line has it; what has no room is counted."""
    few = EvaluationArguments(checkpoint="my run", greedy=True, num_return_sequences=1, batch_size="auto", verbose=True)
    found = console.departures(few)
    assert console.departure_lines(few, found) == ["  --checkpoint 'my run' --greedy --batch_size auto"]
    many = EvaluationArguments(
        checkpoint="x" * 90,
        split="dev",
        test_k=5,
        temperature=0.5,
        top_p=0.5,
        top_k=7,
        seed=3,
        min_p=0.1,
        output_dir="a folder",
        task_name="aqua",
    )
    monkeypatch.setenv("COLUMNS", "40")
    lines = console.departure_lines(many, console.departures(many))
    assert len(lines) == 5 and lines[0] == f"  --checkpoint {'x' * 90}"
    assert lines[-1].endswith(" more: --verbose)") and all(len(line) <= 40 for line in lines[1:])
    told = sum(line.count("--") for line in lines) - 1
    assert told + int(lines[-1].rpartition("(")[2].split()[0]) == len(console.departures(many)) == 10


def test_flags_of_zero_are_given_and_numbers_are_whole():
    """0 is a value where the default is none (--top_k 0: off), and a number is typed so that it is the same again."""
    args = EvaluationArguments(checkpoint="x", top_k=0, min_p=0.0, temperature=0.61234567, top_p=0.9)
    words = [" ".join(flag) for flag in console.flag_words_of(args, console.departures(args))]
    assert {"--top_k 0", "--min_p 0", "--temperature 0.61234567", "--top_p 0.9"} <= set(words)


def test_departures_keep_passwords(monkeypatch):
    """No token is printed, and switches that are turned off have their own word."""
    from lta_thinker.training.flags import TrainArguments

    args = TrainArguments(output_name="x", hub_token="secret", balance_losses=False, weight_decay=0.5, max_steps=3)
    found = console.departures(args) | args.departures
    assert "secret" not in str(found) and {"weight_decay", "max_steps"} <= args.departures.keys()
    assert ["--no_balance_losses"] in console.flag_words_of(args, args.departures)
    assert set(args.departures) == {"output_name", "balance_losses", "weight_decay", "max_steps"}
    assert {field.name for field in fields(args)} > args.departures.keys()


def test_next_command_is_that_of_the_installed_package(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lta-train"])
    assert console.command("evaluate.py", ["--checkpoint", "a b"]) == "lta-evaluate --checkpoint 'a b'"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert console.command("evaluate.py", ["--checkpoint", "a"]) == "python evaluate.py --checkpoint a"
