"""What a person reads while train.py trains: lines that add up, dev lines, the best starred, the next command."""

import contextlib
import io
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import logs, meta, train_flags
from transformers import TrainerControl, TrainerState

from lta_thinker import evaluate, train
from lta_thinker.training.console import (
    Console,
    dev_line,
    length_line,
    loss_text,
    number,
    rate,
    thousands,
    training_line,
)

WEIGHTS = {"sft": 1.0, "align": 0.33, "focus": 0.33, "diversity": 0.0}
LOGS = {"epoch": 0.133, "loss": 0.0157, "sft_loss": 0.0121, "align_loss": 0.00945, "focus_loss": 0.00145}
LOGS |= {"learning_rate": 0.0016, "grad_norm": 0.011051, "tokens_per_second": 12_400.0}
DEV = {"epoch": 0.27, "eval_loss": 0.5304, "eval_sft_loss": 0.001114, "eval_align_loss": 0.00013864}
DEV |= {"eval_focus_loss": 1.604, "eval_information": 9.107, "eval_information_low": 7.281}
DEV |= {"eval_information_high": 10.93, "eval_information_per_token": 0.19}
SHORT = ["--max_steps", "6", "--eval_strategy", "steps", "--eval_steps", "2", "--logging_steps", "1", "--k_shot", "12"]


@pytest.fixture(scope="module")
def ran(tiny_pair, gsm8k_data, tmp_path_factory):
    """A run of six steps, dev after every second one -> (its folder, the lines it printed, what was on stderr)."""
    folder, out, err = tmp_path_factory.mktemp("ran"), io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        train.run([*train_flags(tiny_pair, gsm8k_data), *SHORT, "--output_name", "run"])
    return folder, out.getvalue().splitlines(), err.getvalue()


@pytest.fixture
def printed(ran, monkeypatch):
    """The lines and stderr of `ran`, in its folder."""
    monkeypatch.chdir(ran[0])
    return ran[1:]


def test_a_training_line_is_read_by_a_person():
    """Step of steps, epoch, loss and its parts, learning rate, gradient, speed, time that is left: in one line."""
    assert training_line("25/300", LOGS, WEIGHTS, False, "1:03") == (
        "step 25/300  epoch 0.13  loss 0.0157 = sft 0.0121 + align 0.00312 + focus 4.78e-4  lr 1.6e-3  grad 0.0111  "
        "12.4k tok/s  ETA 1:03"
    )


def test_a_dev_line_is_marked_and_the_best_is_starred():
    line = "dev  50/300  epoch 0.27  sft 0.00111  align 1.39e-4  focus 1.6  loss 0.53  information 9.11 [7.28, 10.9]"
    assert dev_line("50/300", DEV, False) == line
    assert dev_line("50/300", DEV | {"eval_accuracy": 0.875}, True).endswith(
        "loss 0.53  accuracy 87.5%  information 9.11 [7.28, 10.9]  * best"
    )


def test_loss_stands_alone_where_it_is_one_part_and_never_adds_up_falsely():
    """A part is named where there are several. Weights that fall between two logs leave no sum to tell."""
    assert loss_text({"loss": 0.5, "sft_loss": 0.5}, WEIGHTS, False) == "loss 0.5"
    falling = loss_text({"loss": 0.5, "sft_loss": 0.4, "align_loss": 0.9}, WEIGHTS, True)
    assert falling == "loss 0.5 (sft 0.4, align 0.9, unweighted)"


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (number, 0.000090312, "9.03e-5"),
        (number, 1.0, "1"),
        (number, 0.0, "0"),
        (number, -0.0007261, "-7.26e-4"),
        (number, 0.43061, "0.431"),
        (rate, 0.0001, "1.0e-4"),
        (rate, 0.0, "0.0e0"),
        (thousands, 980.4, "980"),
        (thousands, 1_234_567, "1.2M"),
        (thousands, 999_999, "1.0M"),
    ],
)
def test_numbers_are_short(write, value, text):
    assert write(value) == text


def test_a_pipe_has_plain_lines_that_agree_with_the_log(printed):
    """A line for each log and nothing else between: no bar, no \\r. The parts add up to the loss of
    trainer_state.json, where the machine's form stays."""
    lines, err = printed
    assert err == "" and not any("\r" in line or "{" in line for line in lines)
    steps = [line for line in lines if line.startswith("step ")]
    told = [log for log in logs("run") if "loss" in log]
    assert (
        [int(re.match(r"step (\d)/6 ", line)[1]) for line in steps] == [log["step"] for log in told] == [*range(1, 7)]
    )
    for line, log in zip(steps, told, strict=True):
        loss, parts = re.search(r"loss (\S+) = (.*?)  ", line).groups()
        values = [float(part.split()[1]) for part in parts.split(" + ")]
        assert [part.split()[0] for part in parts.split(" + ")] == ["sft", "align", "focus"]
        assert float(loss) == pytest.approx(log["loss"], rel=6e-3) and sum(values) == pytest.approx(
            log["loss"], rel=6e-3
        )


def test_the_last_star_is_at_the_best_step(printed):
    """grep '^dev' finds all dev evaluations; a star is where the metric is lower than ever before."""
    dev = [line for line in printed[0] if line.startswith("dev ")]
    curve = meta("run")["dev_curve"]
    lowest = [
        point["eval_sft_loss"] == min(p["eval_sft_loss"] for p in curve[: i + 1]) for i, point in enumerate(curve)
    ]
    assert [line.endswith("  * best") for line in dev] == lowest and len(dev) == 3
    best = [line for line in dev if line.endswith("* best")][-1]
    assert int(re.match(r"dev  (\d)/6 ", best)[1]) == meta("run")["best"]["step"]


def test_start_tells_flags_rows_parameters_disk_and_no_epochs(printed):
    """Five lines of what departs from the defaults, then rows, parameters and disk; --max_steps leaves no word of
    epochs that do not decide."""
    lines = printed[0]
    at = next(i for i, line in enumerate(lines) if not line.startswith("  --"))
    assert 0 < at <= 5 and lines[0].startswith("  --large_model_id ") and "temperature" not in " ".join(lines[:at])
    begins = [
        "  train rows: 12 of ",
        "  dev rows: ",
        "  parameters: ",
        "  disk: results/run, ckpt/run-",
        "  length: 6 steps of ",
    ]
    found = [next(i for i, line in enumerate(lines) if line.startswith(begin)) for begin in begins]
    assert found == sorted(found) and found[0] >= at and " GB are free" in lines[found[3]]
    assert lines[found[4]].endswith(" rows, dev every 2 steps")


def test_epochs_are_told_where_they_decide():
    args = SimpleNamespace(per_device_train_batch_size=4, gradient_accumulation_steps=2, world_size=2, max_steps=-1)
    args.num_train_epochs, args.eval_strategy = 2.5, "epoch"
    assert length_line(args, 40, 256) == "  length: 40 steps of 16 rows (2.5 epochs), dev every epoch"
    args.eval_strategy, args.eval_steps = "steps", 0.1  # a share of all steps
    assert length_line(args, 300, 256) == "  length: 300 steps of 16 rows (2.5 epochs), dev every 30 steps"
    args.eval_strategy = "no"
    assert length_line(args, 40, 256) == "  length: 40 steps of 16 rows (2.5 epochs)"


def test_verbose_prints_all_flags(flags, capsys, monkeypatch):
    """The rest of the flags is under --verbose, one a line."""
    monkeypatch.setattr(train, "final_folder", lambda args: sys.exit())
    for more, told in (([], False), (["--verbose"], True)):
        with pytest.raises(SystemExit):
            train.run([*flags, *more, "--output_name", "run"])
        assert ("  focus_temperature = 0.1\n" in capsys.readouterr().out) == told


def test_the_next_command_works_as_it_is_printed(printed):
    """It is whole: the same rows and weights, wherever they are."""
    last = printed[0][-1]
    assert last.startswith("next: python evaluate.py --checkpoint ckpt/run-")
    words = shlex.split(last.removeprefix("next: python evaluate.py "))
    evaluate.main([*words, "--test_k", "2", "--max_new_tokens", "2", "--output_dir", "out"])
    report = json.loads(Path("out", "report.json").read_text())
    assert report["num_questions"] == 2 and report["checkpoint"]["run"] == "run"
    assert report["settings"]["sampling"]["num_return_sequences"] == 10


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_has_a_bar_unless_it_is_disabled(flags, monkeypatch, quiet):
    """The bar has the time that is left, and no line is glued to it; with --disable_tqdm only the lines are there."""
    screens = [io.StringIO(), io.StringIO()]
    for name, screen in zip(("stdout", "stderr"), screens, strict=True):
        monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, name, screen)
    short = [*SHORT, "--max_steps", "3", "--gradient_accumulation_steps", "1"]
    train.run([*flags, *short, "--disable_tqdm", str(quiet), "--output_name", "run"])
    out, bars = (screen.getvalue() for screen in screens)
    assert len(re.findall(r"^(step|dev ) .*$", out, re.MULTILINE)) == 5 and "\r" not in out
    assert {word in bars for word in ("training: ", "ETA ", "dev losses: ")} == {not quiet}


def test_eta_of_a_resumed_run_is_by_its_own_speed(capsys):
    """Steps before the start of this process took none of its time, nor does what comes before its first step."""
    args = SimpleNamespace(disable_tqdm=False, loss_weights=WEIGHTS, decay_extra_losses=False, balances=True)
    args.per_device_train_batch_size = args.gradient_accumulation_steps = args.world_size = 1
    args.max_steps, args.eval_strategy, args.eval_steps = 300, "steps", 50
    now = [0.0]
    console, state, control = Console(rows=9, clock=lambda: now[0]), TrainerState(), TrainerControl()
    state.global_step, state.max_steps, state.epoch = 100, 300, 0.5
    console.on_train_begin(args, state, control)
    now[0] = 1000.0  # loading, and rows that are passed over
    for _ in range(10):
        console.on_step_begin(args, state, control)
        now[0] += 2
        state.global_step += 1
        console.on_step_end(args, state, control)
    console.on_log(args, state, control, logs=dict(LOGS))
    console.on_train_end(args, state, control)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("step 110/300 ") and lines[-2].endswith("  ETA 6:20")
    assert lines[-1] == "trained 10 steps in 0:20, with dev evaluations and checkpoints"
