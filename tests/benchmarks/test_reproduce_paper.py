"""bash/reproduce_paper.sh: a list that is run, goes on where it stopped, and knows its hours."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import warm
from helpers import PROGRAMS, ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with the scripts as in the repository and few rows."""
    shutil.copytree(ROOT / "bash", tmp_path / "bash")
    for name in ("train.py", "evaluate.py", "benchmarks", "toy"):
        (tmp_path / name).symlink_to(ROOT / name)
    for split, count in {"train": 40, "dev": 4, "test": 10}.items():
        lines = (ROOT / f"data/arithmetic/{split}.jsonl").read_text().splitlines(keepends=True)[:count]
        (tmp_path / "rows/arithmetic").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"rows/arithmetic/{split}.jsonl").write_text("".join(lines))
    monkeypatch.setenv("REAL_PYTHON", warm.python())  # of the programs that stand in for it
    monkeypatch.chdir(tmp_path)
    for (
        name
    ) in "PAIRS TASKS GENERATORS NUM_THOUGHTS DU_TRAINED_ON SEED DATA_DIR OUT TRAIN_FLAGS EVALUATE_FLAGS".split():
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def fake(folder) -> dict[str, str]:
    """Environment of the toy pair with programs that only leave their files."""
    shutil.copy(PROGRAMS / "fake_paper.sh", "fake_python")
    accuracy = {"value": 0.5, "low": 0.25, "high": 0.75}
    figures = {"num_questions": 7, "sample_accuracy": accuracy, "vote_accuracy": accuracy | {"value": 0.6}}
    Path("figures.json").write_text(json.dumps(figures | {"settings": {"sampling": {"num_return_sequences": 10}}}))
    toy = {"PAIRS": "toy/large,toy/small", "TASKS": "arithmetic", "OUT": "results/t"}
    return toy | {"PYTHON": "./fake_python", "FAKE_GPUS": "0", "FAILS": "", "HANGS": ""}


def start(*args: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", "bash/reproduce_paper.sh", *args],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where pytest runs in the background
    )


def script(*args: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, output and errors of the script."""
    process = start(*args, **environment)
    printed, errors = process.communicate(timeout=300)
    return process.returncode, printed, errors


def commands() -> list[str]:
    """What was run since the last call."""
    lines = Path("record").read_text().splitlines() if Path("record").exists() else []
    Path("record").unlink(missing_ok=True)
    return lines


def comments(printed: str) -> list[str]:
    return [re.sub(r"[\d.e-]+ hours", "H hours", line) for line in printed.splitlines() if line.startswith("#")]


def test_toy_pair_is_measured_and_run(folder):
    """The script lists, measures and runs the toy pair for real, on the CPU. A second call runs nothing again."""
    shutil.copy(PROGRAMS / "python_without_gpus.sh", "python")
    toy = {"PYTHON": "./python", "PAIRS": "toy/large,toy/small", "TASKS": "arithmetic", "DATA_DIR": "rows"}
    toy |= {"GENERATORS": "small_block", "NUM_THOUGHTS": "2", "OUT": "results/t"}
    toy["TRAIN_FLAGS"] = "--num_thought_tokens 4 --max_steps 6 --gradient_accumulation_steps 1 --batch_size 2"
    toy["EVALUATE_FLAGS"] = "--test_k 4 --max_new_tokens 8 --num_return_sequences 2"
    trained = "t-seed41-large-small-arithmetic-small_block"
    order = trained, "seed41/large-small/arithmetic-small_block-n2"

    code, printed, errors = script("--list", **toy)
    assert (code, errors) == (0, "") and not Path("results").exists()
    assert comments(printed)[:-1] == [f"# to do, not measured: {name}" for name in order]
    total = "0 of 2 commands done; CPU hours: 0 spent, 0 expected, 2 commands not measured (--measure)"
    assert printed.splitlines()[-1] == f"# {total}"

    assert script("--measure", **toy)[::2] == (0, "")
    hours = json.loads(Path("results/t/hours.json").read_text())
    of_training, of_evaluation = (
        hours["train large-small arithmetic small_block"],
        hours["evaluate large-small arithmetic"],
    )
    assert (of_training["steps"], of_training["dev_evaluations"]) == (6, 1) and of_training["seconds_a_step"] > 0
    assert of_evaluation["questions"] == 4 and of_evaluation["seconds_a_question"] > 0
    assert not Path("ckpt").exists() or not list(Path("ckpt").iterdir())
    assert os.listdir("results") == ["t"]
    code, printed, _ = script("--list", **toy)
    assert comments(printed)[:-1] == [f"# to do, H hours expected: {name}" for name in order]
    expected = of_training["seconds"] + of_evaluation["seconds"]
    assert printed.splitlines()[-1].endswith(f"CPU hours: 0 spent, {expected / 3600:.3g} expected")

    code, printed, errors = script(**toy)
    assert (code, errors) == (0, "")
    table = Path("results/t/table-seed41.md").read_text()
    assert table in printed and "One sample / vote of 2" in table and "arithmetic (4 questions)" in table
    assert re.search(r"\n\| small_block \| 2 \| [\d.]+ \[.*\] / [\d.]+ \[.*\] \|\n", table)
    made = json.loads(next(Path("ckpt").glob(f"{trained}-*/thoughts.json")).read_text())["flags"]
    assert (made["num_thought_tokens"], made["align_loss_weight"], made["seed"]) == (4, 0.33, 41)

    before = {path: path.stat().st_mtime_ns for path in Path().glob("**/*.*") if "table" not in path.name}
    code, printed, errors = script(**toy)
    assert (code, errors) == (0, "") and printed.startswith("".join(f"done before: {name}\n" for name in order))
    assert {path: path.stat().st_mtime_ns for path in Path().glob("**/*.*") if "table" not in path.name} == before
    assert comments(script("--list", **toy)[1])[:-1] == [f"# done, H hours spent: {name}" for name in order]


def test_paper_commands_are_complete(fake):
    """On four GPUs the commands are pairs x tasks x generators with the published settings, SFT alone for `small`, and
    no training on du."""
    code, printed, errors = script("--list", **{"PYTHON": "./fake_python", "FAKE_GPUS": "4"})
    assert (code, errors) == (0, "")
    lines = [line for line in printed.splitlines() if not line.startswith("#")]
    torchrun = "./fake_python -u -m torch.distributed.run --standalone --nproc_per_node=4 "
    assert all(line.startswith(torchrun) for line in lines)
    training = [line for line in lines if " train.py " in line]
    evaluation = [line for line in lines if " evaluate.py " in line]
    assert len(training) == 2 * 5 * 3 and len(evaluation) == 2 * 6 * (1 + 3 * 2)
    assert all("train.py --recipe paper" in line and "--gradient_accumulation_steps 4" in line for line in training)
    assert all(("--align_loss_weight 0 " in line) == ("--thought_generator small " in line) for line in training)
    assert not any("--task_name du" in line for line in training)
    du = [line for line in evaluation if "--task_name du" in line and "--thought_generator none" not in line]
    assert len(du) == 12 and all(re.search(r"--checkpoint ckpt/paper-seed41-\S+-gsm8k-\w+-\*$", line) for line in du)
    assert printed.splitlines()[-1].startswith("# 0 of 114 commands done; GPU hours: 0 spent, 0 expected, 114 commands")


def test_failed_commands_stop_nothing_else(fake):
    """What fails is listed and does not stop the rest. The next call does what is missing, and resumes a training that
    has a checkpoint."""
    tasks = {"GENERATORS": "none small block", "NUM_THOUGHTS": "2 4", "FAKE_GPUS": "2"}
    code, printed, errors = script(**fake | tasks | {"FAILS": "train.py.*generator block|small-n4"})
    evaluated, trained = "seed41/large-small/arithmetic", "t-seed41-large-small-arithmetic"
    logs = "results/t/logs"
    assert code == 1 and errors.splitlines() == [
        f"failed: {evaluated}-small-n4, see {logs}/seed41-large-small-arithmetic-small-n4.log: error: no luck",
        f"failed: {trained}-block, see {logs}/{trained}-block.log: error: no luck",
        *(f"not run: {evaluated}-block-n{n}: no weights of {trained}-block" for n in (2, 4)),
    ]
    assert len(commands()) == 5
    # the failed training had a checkpoint, and goes on from it
    Path(f"results/{trained}-block/checkpoint-20").mkdir(parents=True)
    Path(f"results/{trained}-block/checkpoint-20/complete").touch()
    assert "# begun, H hours spent, not measured: t-seed41-large-small-arithmetic-block" in comments(
        script("--list", **fake | tasks)[1]
    )
    code, printed, errors = script(**fake | tasks)
    assert (code, errors) == (0, "")
    rerun = commands()
    assert [("--resume" in line, f"--checkpoint ckpt/{trained}-block-x" in line) for line in rerun] == [
        *((False, False), (True, False), (False, True), (False, True))
    ]
    assert "| none | – | 50.0 [25.0, 75.0] / 60.0 [25.0, 75.0] |" in printed
    assert "| block | 4 | 50.0 [25.0, 75.0] / 60.0 [25.0, 75.0] |" in printed
    spent = json.loads(Path("results/t/spent.json").read_text())
    assert len(spent) == 7 and all(hours > 0 for hours in spent.values())


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopped_script_stops_its_commands(fake, sign):
    """An interrupted or terminated script stops what it runs, and keeps the hours that were spent."""
    process = start(**fake | {"HANGS": "train.py"})
    deadline = time.time() + 30
    while not (Path("record").exists() and "train.py" in Path("record").read_text()):
        assert time.time() < deadline
        time.sleep(0.1)
    process.send_signal(sign)
    printed, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "stopped; the same command goes on\n")
    lines = commands()
    assert lines[-1] == "stopped" and len(lines) == 3
    assert len(json.loads(Path("results/t/spent.json").read_text())) == 2


@pytest.mark.parametrize(
    ("given", "args", "line"),
    [
        (
            {},
            ["--lst"],
            "error: unrecognized arguments: --lst; bash/reproduce_paper.sh takes --list, --measure, --table",
        ),
        ({"PAIRS": "toy/large"}, [], "error: PAIRS: toy/large is not large,small"),
        ({"PAIRS": "toy/a,toy/b toy/c/a,b"}, [], "error: PAIRS: two pairs have the same names"),
        ({"TASKS": "gsm8k gsm9k"}, [], "error: TASKS: gsm9k is none of gsm8k, strategyqa"),
        ({"NUM_THOUGHTS": "2 x"}, [], "error: NUM_THOUGHTS: x is not a number of thoughts"),
        ({"SEED": "-1"}, [], "error: SEED: -1 is not a number"),
        ({"DU_TRAINED_ON": "du"}, [], "error: DU_TRAINED_ON: du is for evaluation only"),
        ({"OUT": "results/a b"}, [], "error: OUT=results/a b: its last name begins the runs' names"),
        ({"TRAIN_FLAGS": "--x '"}, [], "error: TRAIN_FLAGS"),
        ({"FAKE_GPUS": "3"}, [], "error: 3 GPUs cannot share 16 micro-batches"),
        ({"PAIRS": "Qwen/Qwen3-8B,Qwen/Qwen3-0.6B"}, [], "error: no GPU is visible"),
        ({}, ["--table"], "error: no report.json in results/t yet"),
    ],
)
def test_wrong_script_settings_are_refused(fake, given, args, line):
    """Wrong flags and settings of the script are refused in one line, and nothing is run or written."""
    code, printed, errors = script(*args, **fake | given)
    assert (code, printed) == (1, "") and errors.startswith(line) and errors.count("\n") == 1
    assert not Path("results").exists() and not Path("record").exists()


def test_folder_keeps_one_flag_set(fake):
    """A folder that was begun with other flags is refused in one line."""
    assert script(**fake | {"GENERATORS": "none", "EVALUATE_FLAGS": "--test_k 4"})[0] == 0
    code, printed, errors = script(**fake)
    assert (code, printed) == (1, "")
    assert errors == "error: results/t was begun with EVALUATE_FLAGS='--test_k 4', not ''; use another OUT\n"


@pytest.mark.parametrize("before", [{"recipe of train.py": "--learning_rate 2e-4"}, {}])
def test_folder_keeps_one_recipe(fake, before):
    """A folder that was begun when --recipe paper stood for other flags, or before it was recorded, is refused."""
    once = fake | {"GENERATORS": "none"}
    assert script(**once)[0] == 0
    path = Path("results/t/settings.json")
    values = json.loads(path.read_text())
    del values["recipe of train.py"]
    path.write_text(json.dumps(values | before))
    code, printed, errors = script(**once)
    assert (code, printed) == (1, "") and errors.count("\n") == 1
    assert errors.startswith("error: results/t was begun with RECIPE OF TRAIN.PY=") and "use another OUT" in errors
