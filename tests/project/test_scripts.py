"""The shell scripts: what they run, from where, and with which Python. A stand-in for Python prints its words."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT

SHELL = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "*.sh"]
NAMES = subprocess.run(SHELL, capture_output=True, text=True, check=True).stdout.split()
STAND_IN = """#!/usr/bin/env bash
case "$*" in
*device_count*) echo 2 ;;
*) echo "python $*" ;;
esac
"""


@pytest.fixture
def place(tmp_path) -> Path:
    """A copy of the scripts, and a virtual environment `venv` whose Python prints its words."""
    for name in NAMES + [path.name for path in [*ROOT.glob("requirements*.txt"), ROOT / "constraints.txt"]]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    shutil.copy(python, python.with_name("python3"))
    (tmp_path / "data" / "asdiv").mkdir(parents=True)
    (tmp_path / "data" / "asdiv" / "train.jsonl").touch()
    shutil.copytree(ROOT / "tests" / "programs", tmp_path / "tests" / "programs", dirs_exist_ok=True)
    for name in ROOT.glob("tests/constraints*.txt"):
        shutil.copy(name, tmp_path / "tests")
    return tmp_path


def run(place: Path, script: str, *words: str, folder: str = ".", **variables: str) -> str:
    """What a script prints. It must end well, but for benchmarks: they read what real runs write."""
    known = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VENV", "CKPT", "OUTPUT_NAME")}
    environment = known | {"VENV": str(place / "venv")} | variables
    done = subprocess.run(["bash", script, *words], cwd=place / folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 or script.startswith("benchmarks/"), done.stderr
    return done.stdout


def test_every_script_is_executable():
    """Every script that is run (not sourced: bash/_*.sh) can be started by its name."""
    scripts = [name for name in NAMES if not Path(name).name.startswith("_")]
    assert {"run_train.sh", "run_evaluate.sh", "bash/run_demo.sh", "benchmarks/gpu.sh"} <= {*scripts}
    assert [name for name in scripts if not os.access(ROOT / name, os.X_OK)] == []


@pytest.mark.parametrize(("folder", "script"), [(".", "run_{}.sh"), ("bash", "run_{}.sh"), (".", "bash/run_{}.sh")])
def test_train_and_evaluate_run_from_the_top_and_from_bash(place, folder, script):
    """`bash run_train.sh` and `bash run_evaluate.sh` work from the repository's top as from bash/, with more flags."""
    trained = run(place, script.format("train"), "--max_steps", "3", folder=folder, OUTPUT_NAME="first")
    assert "--nproc_per_node=2" in trained and "train.py --large_model_id Qwen/Qwen3-8B" in trained
    assert "--output_name first" in trained and trained.endswith("--max_steps 3\n")
    evaluated = run(place, script.format("evaluate"), "--test_k", "3", folder=folder, OUTPUT_NAME="first")
    assert evaluated.partition("evaluate.py ")[2] == (
        "--checkpoint first --batch_size 4 --num_return_sequences 10 --seed 41 --test_k 3\n"
    )


def test_evaluation_takes_folders_and_the_bare_llm(place):
    """CKPT names a folder, of published weights too, or no thoughts; what is set besides is passed on."""
    (place / "old").mkdir()
    (place / "old" / "projection.bin").touch()
    said = run(place, "run_evaluate.sh", CKPT="old", BASE_MODEL_ID="llm")
    assert "--params_file_name old/projection.bin --base_model_id llm --num_thought_tokens 2 --batch" in said
    (place / "old" / "thoughts.json").touch()
    assert "evaluate.py --checkpoint old --num_thought_tokens 3 --b" in run(
        place, "run_evaluate.sh", CKPT="old", NUM_THOUGHT_TOKENS="3"
    )
    said = run(place, "run_evaluate.sh", CKPT="none", TASK_NAME="aqua", SPREAD="1")
    assert said.startswith("python -u evaluate.py --thought_generator none --task_name aqua --batch_size 4 ")


RUNS = {name: () for name in NAMES if name.startswith(("bash/r", "run_"))}
RUNS |= {"bash/run_dis_evaluate.sh": ("RUN",), "bash/reproduce_paper.sh": ("--list",)}
RUNS |= {"benchmarks/backends.sh": ("out",), "benchmarks/gpu.sh": (), "benchmarks/mutants.sh": ()}


@pytest.mark.parametrize("script", RUNS)
def test_venv_names_the_python_of_every_script(place, script):
    """VENV= is the virtual environment of every script: each runs its Python, and no other's."""
    for name in ("python", "python3"):
        real = place / "others" / name
        real.parent.mkdir(exist_ok=True)
        real.write_text("#!/bin/sh\necho another Python: $*; exit 3\n")
        real.chmod(0o755)
    path = f"{place / 'others'}:{os.environ['PATH']}"
    said = run(
        place,
        script,
        *RUNS[script],
        PATH=path,
        SHAPES="",
        BATCHES="",
        OUT=str(place / "out"),
        BASE_PYTHON=str(place / "venv/bin/python"),
    )
    logs = "".join(log.read_text() for log in place.glob("out*/**/*.log")) + "".join(
        log.read_text() for log in place.glob("out*.log")
    )
    assert "another Python" not in said + logs and "python " in said + logs


def test_venv_without_a_python_is_one_line(place):
    """A VENV that is none ends in one line."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {"VENV": "nowhere"}
    command = ["bash", str(place / "run_train.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "error: VENV=nowhere: there is no bin/python in it\n"
