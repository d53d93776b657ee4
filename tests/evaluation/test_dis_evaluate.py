"""Every checkpoint of a run: resume checkpoints are evaluated, bash/run_dis_evaluate.sh."""

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
from helpers import PROGRAMS, ROOT, fails, ranked, record_of
from safetensors.torch import load_file, save_file

from lta_thinker import evaluate, train
from lta_thinker.checkpoint import RESUME_FILE, beside, run_checkpoints, save_checkpoint, write_complete
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import FILE_FLAGS, Thoughts, weight_names
from lta_thinker.weights import ATT_FILE, PARAMS_FILE, read_resume_weights, read_weights

STEPS = (2, 4, 6)


@pytest.fixture(scope="module")
def training(tiny_pair, gsm8k_data) -> list[str]:
    """Flags of a short run that keeps every resume checkpoint."""
    return [
        *("--large_model_id", str(tiny_pair / "large"), "--small_model_id", str(tiny_pair / "small")),
        *("--data_dir", str(gsm8k_data), "--task_name", "gsm8k", "--num_thought_tokens", "4", "--batch_size", "2"),
        *(
            "--gradient_accumulation_steps",
            "1",
            "--learning_rate",
            "1e-2",
            "--max_steps",
            "6",
            "--disable_tqdm",
            "True",
        ),
        *("--eval_strategy", "steps", "--eval_steps", "2", "--save_total_limit", "5"),
    ]


@pytest.fixture(scope="module")
def trained(training, tmp_path_factory) -> Path:
    """A folder with results/ and ckpt/ of a finished run `dis`; nothing in it may be changed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.run([*training, "--output_name", "dis"])
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch) -> Path:
    """A copy of `trained`, made the current folder, with the scripts as in the repository."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / "bash", tmp_path / "bash")
    for name in ("evaluate.py", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def flags(gsm8k_data) -> list[str]:
    return ["--data_dir", str(gsm8k_data), "--max_new_tokens", "8", "--test_k", "2"]


def step_folder(step: int) -> Path:
    return Path(f"results/dis/checkpoint-{step}")


def final_folder() -> Path:
    (final,) = Path("ckpt").glob("dis-*")
    return final


def meta(folder: Path) -> dict:
    return json.loads((folder / "thoughts.json").read_text())


# ---------------------------------------------------------------------------------------------------------------------
# Resume checkpoints are evaluated


def test_resume_checkpoints_have_own_dev_figures(folder):
    """Every resume checkpoint's thoughts.json says what the final one says, with its own dev figures and the curve so
    far."""
    final = meta(final_folder())
    curve, best = final["dev_curve"], final.pop("best")
    assert final.pop("files")
    assert [point["step"] for point in curve] == list(STEPS)
    assert final["dev"] == next(point for point in curve if point["step"] == best["step"])
    assert best["value"] == final["dev"]["eval_sft_loss"] == min(point["eval_sft_loss"] for point in curve)
    for i, step in enumerate(STEPS):
        assert meta(step_folder(step)) == final | {"dev": curve[i], "dev_curve": curve[: i + 1]}


def test_checkpoint_before_eval_delay_lacks_figures(training, tmp_path, monkeypatch):
    """A checkpoint from before --eval_delay has its step and epoch and no dev figures."""
    monkeypatch.chdir(tmp_path)
    train.run([*training, "--output_name", "late", "--max_steps", "2", "--eval_steps", "1", "--eval_delay", "2"])
    assert meta(Path("results/late/checkpoint-1"))["dev"] == {"step": 1, "epoch": pytest.approx(1 / 19)}
    assert "eval_sft_loss" in meta(Path("results/late/checkpoint-2"))["dev"]


def test_best_checkpoint_gives_final_texts(folder, flags):
    """The resume checkpoint of the best step gives the texts of the final folder, another step gives others, and each
    report names its checkpoint."""
    best = meta(final_folder())["best"]["step"]
    other = next(step for step in STEPS if step != best)
    flags = [*flags, "--num_return_sequences", "2"]
    for checkpoint in (final_folder(), step_folder(best), step_folder(other)):
        evaluate.main(["--checkpoint", str(checkpoint), *flags])
    names = [final_folder().name, f"dis-checkpoint-{best}", f"dis-checkpoint-{other}"]
    folders = [Path(f"results/eval-{name}/test-n4-x2-seed41-max_new_tokens8") for name in names]
    final, same, differs = [(folder / "samples.jsonl").read_text() for folder in folders]
    assert final == same != differs
    stored = [json.loads((folder / "report.json").read_text())["checkpoint"] for folder in folders]
    assert [one["name"] for one in stored] == names
    assert [one["dev"]["step"] for one in stored] == [best, best, other]


@pytest.mark.parametrize("kind", ["small_block", "block", "small"])
def test_resume_checkpoint_holds_same_tensors(tiny_models, tmp_path, kind):
    """A resume checkpoint holds the tensors of the .bin files."""
    model = tiny_models.model(kind)
    save_checkpoint(tmp_path / "final", model, record_of(model))
    save_file(model.state_dict(), tmp_path / RESUME_FILE)
    for i, read in enumerate(read_resume_weights(tmp_path / RESUME_FILE)):
        path = tmp_path / "final" / (PARAMS_FILE, ATT_FILE)[i]
        wanted = read_weights(path, "") if path.exists() else None
        assert (read is None) == (wanted is None) == (kind == "small" and i == 1)
        assert read is None or read.keys() == wanted.keys() and all(read[k].equal(wanted[k]) for k in read)


def test_messages_name_the_files_of_the_weights(tmp_path):
    """Of a folder in ckpt/ the file of the projection and that of the block, of a resume checkpoint its one file, of
    files that flags named the flags."""
    weights, params, att = (tmp_path / name for name in (RESUME_FILE, PARAMS_FILE, ATT_FILE))
    args = EvaluationArguments(checkpoint="x")
    assert weight_names(args, Thoughts(None, None, [weights], tmp_path)) == (str(weights), str(weights))
    assert weight_names(args, Thoughts(None, None, [params, att], tmp_path)) == (str(params), str(att))
    flags = EvaluationArguments(params_file_name=str(params), att_file_name=str(att))
    assert weight_names(flags, Thoughts(None, None, [params, att], tmp_path)) == FILE_FLAGS


def test_unusable_resume_checkpoints_are_refused(folder, trained, flags, monkeypatch):
    """A resume checkpoint that was cut off, lacks thoughts.json or has other tensors is refused in one line, before an
    LM is loaded."""
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("a model was loaded"))
    (step_folder(2) / "complete").unlink()
    assert "checkpoint-2/complete: no such file; the checkpoint was cut off" in fails(
        "--checkpoint", step_folder(2), *flags
    )
    (step_folder(4) / "thoughts.json").unlink()
    assert "checkpoint-4/thoughts.json: no such file" in fails("--checkpoint", step_folder(4), *flags)
    path = step_folder(6) / RESUME_FILE
    tensors = load_file(path)
    save_file({name: value for name, value in tensors.items() if "norm1" not in name}, path)
    assert "checkpoint-6/model.safetensors: has " in fails("--checkpoint", path.parent, *flags)
    write_complete(path.parent)
    assert "no tensor norm1.weight for the generator small_block" in fails("--checkpoint", path.parent, *flags)
    save_file(tensors | {"other": tensors["generator.prior"].clone()}, path)
    write_complete(path.parent)
    assert "unknown tensor other for the generator small_block" in fails("--checkpoint", path.parent, *flags)
    path.write_bytes(path.read_bytes()[:500])
    write_complete(path.parent)
    assert "model.safetensors: not readable" in fails("--checkpoint", path.parent, *flags)
    shutil.copytree(trained / step_folder(6), "best2")
    assert "best2/model.safetensors: of a resume checkpoint; use --checkpoint best2" in fails(
        "--params_file_name", "best2/model.safetensors", *flags
    )
    assert sorted(os.listdir("results")) == ["dis"]


def test_copied_resume_checkpoint_is_evaluated(folder, flags):
    """A resume checkpoint that was copied to another name is evaluated under that name."""
    shutil.copytree(step_folder(2), "best2")
    evaluate.main(["--checkpoint", "best2", *flags])
    assert Path("results/eval-best2/test-n4-x1-seed41-max_new_tokens8/report.json").exists()


def test_run_checkpoints_are_complete_ones_by_step(folder):
    """A run's checkpoints are the complete ones in the order of their steps, and the final one where the checkpoint of
    its step is gone. Other runs' are left out."""
    final = final_folder()
    stored = meta(final)
    (final / "thoughts.json").write_text(json.dumps(stored | {"best": stored["best"] | {"step": 4}}))
    other = shutil.copytree(final, Path("ckpt/dis-other-gsm8k"))  # of a run whose name begins in the same way
    flags = stored["flags"] | {"output_name": "dis-other"}
    (other / "thoughts.json").write_text(json.dumps(stored | {"flags": flags}))
    assert run_checkpoints("dis") == [step_folder(step) for step in STEPS]
    assert run_checkpoints("dis-other") == [other]
    (step_folder(4) / "complete").unlink()
    shutil.copytree(step_folder(2), step_folder(10))
    assert run_checkpoints("dis") == [step_folder(2), final, step_folder(6), step_folder(10)]
    assert train.newest_checkpoint(Path("results/dis")) == step_folder(10)
    shutil.rmtree("results")
    assert run_checkpoints("dis") == [final]


def test_foreign_folders_are_no_checkpoints(folder):
    """Folders that train.py did not write or did not finish are no checkpoints of a run."""
    final = final_folder()
    shutil.rmtree("results")
    for end in ("partial", "old"):
        stored = meta(final) | {"best": {"step": 1}}
        (shutil.copytree(final, beside(final, end)) / "thoughts.json").write_text(json.dumps(stored))
    odd = {"flags": {"output_name": "dis"}, "best": {"step": "4"}}
    for i, other in enumerate(({"thought_generator": "block"}, [], odd)):
        Path(f"ckpt/dis-{i}").mkdir()
        Path(f"ckpt/dis-{i}/thoughts.json").write_text(json.dumps(other))
    Path("results/dis/checkpoint-abc").mkdir(parents=True)
    Path("results/dis/checkpoint-abc/complete").touch()
    assert run_checkpoints("dis") == [final]
    assert train.newest_checkpoint(Path("results/dis")) is None


def test_run_without_checkpoints_is_refused(folder):
    """A run that does not exist or has no complete checkpoint, and a mistyped flag, are refused in one line."""
    shutil.rmtree("ckpt")
    for step in STEPS:
        (step_folder(step) / "complete").unlink()
    assert "results/dis: no complete checkpoint in it" in fails("--checkpoints_of", "dis")
    assert "results/dos: no such run" in fails("--checkpoints_of", "dos")
    assert "--checkpoints_of results/dis: not a run's --output_name" in fails("--checkpoints_of", "results/dis")
    assert "no such flag: --checkpoints (--checkpoint, --checkpoints_of?); " in fails("--checkpoints", "dis")


# ---------------------------------------------------------------------------------------------------------------------
# bash/run_dis_evaluate.sh


def script(*args: str, **environment: str) -> subprocess.Popen:
    """The script of the current folder, started."""
    return subprocess.Popen(
        ["bash", "bash/run_dis_evaluate.sh", *args],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where pytest runs in the background
    )


@pytest.fixture
def without_gpus(folder, monkeypatch) -> str:
    """An interpreter for the script that sees no GPU."""
    shutil.copy(PROGRAMS / "python_without_gpus.sh", "python")
    monkeypatch.setenv("REAL_PYTHON", warm.python())
    return "./python"


def test_script_ranks_what_it_can_evaluate(without_gpus, flags):
    """With one checkpoint done before, one broken and one to do, the script ranks two, names the broken one and asks no
    question twice. It runs for real, on the CPU."""
    common = [*flags, "--num_return_sequences", "2", "--split", "dev"]
    evaluate.main(["--checkpoint", str(step_folder(2)), *common])
    before = Path("results/eval-dis-checkpoint-2/dev-n4-x2-seed41-max_new_tokens8/samples.jsonl").read_bytes()
    path = step_folder(4) / RESUME_FILE
    path.write_bytes(path.read_bytes()[:500])
    process = script("dis", *flags, PYTHON=without_gpus, CUDA_VISIBLE_DEVICES="", NUM_RETURN_SEQUENCES="2")
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert re.fullmatch(
        r"failed: results/dis/checkpoint-4, see results/dis-dis/checkpoint-4.log: "
        r"error: results/dis/checkpoint-4/model.safetensors: has 500 bytes, it had .*\n",
        errors,
    )
    assert "on the dev questions" in printed and "2 dev questions" in printed
    assert [row[0] for row in ranked(printed)] == ["dis-checkpoint-2", "dis-checkpoint-6"]
    assert sorted(os.listdir("results/dis-dis")) == [f"checkpoint-{step}.log" for step in STEPS]
    reports = [
        Path(f"results/eval-dis-checkpoint-{step}/dev-n4-x2-seed41-max_new_tokens8/report.json") for step in (2, 6)
    ]
    done_before, done_now = [json.loads(path.read_text()) for path in reports]
    assert done_before["speed"] is None and done_now["speed"]["questions"] > 0
    assert reports[0].with_name("samples.jsonl").read_bytes() == before


@pytest.fixture
def fake(folder) -> dict[str, str]:
    """Environment of a machine with two GPUs, five checkpoints, and evaluations that only say when they run."""
    shutil.copy(PROGRAMS / "fake_evaluations.sh", "fake_python")
    return {"PYTHON": "./fake_python", "SECONDS_EACH": "0.3", "FAILS": "", "KILLED": "", "REAL_PYTHON": warm.python()}


def events() -> list[list[str]]:
    return [line.split() for line in Path("record").read_text().splitlines()] if Path("record").exists() else []


@pytest.mark.parametrize(
    ("visible", "devices"), [("3,5", "35"), ("GPU-b,GPU-a,none", ("GPU-b", "GPU-a")), (None, "01")]
)
def test_evaluations_share_no_gpu(fake, monkeypatch, visible, devices):
    """On two GPUs two evaluations run at a time, each on its own GPU, and a failed one is named and left out of the
    table."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    more = {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
    process = script("r", "--test_k", "7", **fake | more | {"FAILS": "results/r/checkpoint-6"})
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == "failed: results/r/checkpoint-6, see results/dis-r/checkpoint-6.log: no luck\n"
    assert "ranked " + " ".join(f"checkpoint-{step}/report.json" for step in (2, 4, 8, 10)) in printed
    running, most, used = {}, 0, set()
    for what, checkpoint, device in events():
        if what == "start":
            assert device not in running.values()
            running[checkpoint] = device
        else:
            assert running.pop(checkpoint) == device
        most, used = max(most, len(running)), used | {device}
    assert not running and most == 2 and used == set(devices)
    assert len(events()) == 10


def test_killed_evaluation_frees_its_gpu(fake):
    """An evaluation that is killed with its whole group is named, and its GPU takes the next one."""
    process = script("r", **fake | {"KILLED": "results/r/checkpoint-4", "CUDA_VISIBLE_DEVICES": "0,1"})
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == "failed: results/r/checkpoint-4, see results/dis-r/checkpoint-4.log: killed by signal 9\n"
    assert "ranked " + " ".join(f"checkpoint-{step}/report.json" for step in (2, 6, 8, 10)) in printed
    assert [device for what, _, device in events() if what == "end"].count("1") == 2


@pytest.mark.parametrize(
    ("given", "passed", "note"),
    [
        (["--prompt_file", "a --split b"], "--split dev --prompt_file a --split b", True),
        (["--split", "test"], "--split test", False),
        (["--split=test"], "--split=test", False),
    ],
)
def test_flags_reach_every_evaluation(fake, given, passed, note):
    """The script's flags reach every evaluation as they were given. It is on the dev questions unless --split says
    otherwise."""
    process = script("r", *given, **fake | {"SECONDS_EACH": "0", "SEED": "7", "NUM_THOUGHT_TOKENS": "2"})
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    common = "--num_return_sequences 10 --batch_size 4 --seed 7 --num_thought_tokens 2"
    assert Path("flags").read_text() == f"{common} {passed}\n"
    assert ("on the dev questions" in printed) == note


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopped_script_stops_its_evaluations(fake, sign):
    """A script that is interrupted or terminated stops the evaluations that it started."""
    process = script("r", **fake | {"SECONDS_EACH": "60"})
    deadline = time.time() + 20
    while len(events()) < 2 and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(sign)
    assert process.wait(timeout=10) != 0
    while len(events()) < 4 and time.time() < deadline:
        time.sleep(0.05)
    assert sorted(event[0] for event in events()) == ["start", "start", "stopped", "stopped"]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "error: which run? bash bash/run_dis_evaluate.sh RUN [flags of evaluate.py]"),
        (["--test_k", "3"], "error: which run? bash bash/run_dis_evaluate.sh RUN [flags of evaluate.py]"),
        *(
            (["r", *given], "error: --output_dir, --checkpoint and --thought_generator are each checkpoint's own")
            for given in (
                ["--output_dir=x"],
                ["--output-dir", "x"],
                ["--thought-generator", "small"],
                ["--checkpoint=x"],
            )
        ),
    ],
)
def test_wrong_script_arguments_are_refused(fake, args, line):
    """A missing run name, and flags that are each checkpoint's own, are refused in one line."""
    process = script(*args, **fake)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, "") and errors.startswith(line) and errors.count("\n") == 1


def test_unknown_run_name_writes_nothing(without_gpus):
    """A name that cannot be a run's is refused in one line, and nothing is written."""
    before = sorted(Path().glob("**/*"))
    process = script("../x", PYTHON=without_gpus)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, "")
    assert errors == "error: --checkpoints_of ../x: not a run's --output_name\n"
    assert sorted(Path().glob("**/*")) == before
