"""Training on several processes and machines (here: two "nodes" on loopback), a sharded LLM, preempted jobs."""

import contextlib
import functools
import json
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import torch
import transformers
import warm
from helpers import (
    ENVIRONMENT,
    PROGRAMS,
    ROOT,
    assert_close,
    gsm8k_row,
    logs,
    meta,
    train_flags,
    two_ranks,
    write_jsonl,
)
from packaging.version import Version

from lta_thinker import common, train
from lta_thinker.common import InputError
from lta_thinker.llm import sharding
from lta_thinker.training import preemption, trainer

PLACES = ["one node", "two nodes"]


def start(place: str, flags: list[str]) -> list[subprocess.Popen]:
    """train.py in two processes: of one torchrun with --shard_llm, or of two torchruns that find each other."""
    launchers = [["--standalone", "--nproc_per_node=2"]]
    if place == "one node":
        flags = [*flags, "--shard_llm"]
    else:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        rendezvous = ["--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{port}", "--rdzv_id=test"]
        nodes = ("127.0.0.1", "localhost")  # torchrun gives ranks in the order of these names
        launchers = [["--nnodes=2", "--nproc_per_node=1", *rendezvous, f"--local_addr={node}"] for node in nodes]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(
            [warm.python(), "-u", "-m", "torch.distributed.run", *launcher, str(ROOT / "train.py"), *flags],
            env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"},
            **pipes,
        )
        for launcher in launchers
    ]


def finish(processes: list[subprocess.Popen]) -> tuple[str, list[int]]:
    """(what all have printed on stdout, exit codes)."""
    done = [process.communicate(timeout=120) for process in processes]
    codes = [process.returncode for process in processes]
    return "".join(out for out, _ in done), codes


@pytest.fixture(scope="module")
def alone(tiny_pair, tmp_path_factory):
    """The folder in which a run named `alone` of one process has ended, with rows/; and its flags."""
    folder = tmp_path_factory.mktemp("alone")
    write_jsonl(folder / "rows" / "gsm8k" / "train_socratic.jsonl", [gsm8k_row(i) for i in range(60)])
    flags = [*train_flags(tiny_pair, folder / "rows"), "--k_shot", "8", "--max_steps", "3"]
    flags += ["--per_device_eval_batch_size", "1"]
    with contextlib.chdir(folder):
        train.run([*flags, "--output_name", "alone"])
    return folder, flags


@pytest.mark.parametrize("place", PLACES)
def test_two_processes_train_as_one(alone, tmp_path, monkeypatch, place):
    """Two processes, with a sharded LLM or on two nodes, train the weights and dev losses of one. Of three dev rows,
    one at a time, one rank has none in the second round."""
    monkeypatch.chdir(tmp_path)
    folder, flags = alone
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    out, codes = finish(start(place, [*flags, "--output_name", "two", "--gradient_accumulation_steps", "1"]))
    assert codes == [0] * len(codes), out
    assert_close("two", "alone", 1e-5)
    losses = [[log["sft_loss"] for log in logs(name) if "sft_loss" in log] for name in ("two", "alone")]
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert [log["eval_sft_loss"] for log in meta("two")["dev_curve"]] == pytest.approx(
        [log["eval_sft_loss"] for log in meta("alone")["dev_curve"]], abs=1e-5
    )
    assert meta("two")["dev"]["eval_information"] == pytest.approx(meta("alone")["dev"]["eval_information"], abs=1e-4)
    assert meta("two")["rows"]["dev"]["kept"] == 3
    assert meta("two")["fingerprints"] == meta("alone")["fingerprints"]
    files = {path.name for path in next(Path("ckpt").glob("two-*")).iterdir()}
    assert files == {path.name for path in next(Path("ckpt").glob("alone-*")).iterdir()}
    told = re.search(r"--shard_llm: this rank holds ([\d,]+) of the LLM's ([\d,]+) parameters", out)
    assert bool(told) == (place == "one node")
    if told:  # half of each layer, all of embedding table, norm and head
        here, whole = (int(number.replace(",", "")) for number in told.groups())
        outside = 2 * 400 * 32 + 32
        assert here - outside == (whole - outside) / 2


def test_sharded_llm_has_equal_gradients(tiny_pair):
    """Each of two ranks holds half of every layer's parameters. The gradients that flow back are the same to the bit,
    with and without recomputed layers."""
    two_ranks(PROGRAMS / "sharded_gradients.py", str(tiny_pair / "large"))


def wait_for_a_step(process: subprocess.Popen) -> None:
    while not (line := process.stdout.readline()).startswith("step "):
        assert line, process.stderr.read()


@pytest.mark.skipif(Version(transformers.__version__) < Version("5"), reason="4.53 cannot resume ranks on CPUs")
def test_preempted_ranks_stop_at_one_step(flags):
    """After a SIGTERM to one node's torchrun all ranks stop at one step, the other node's too, and their data workers.
    Resumed, they end with the weights of the run that was never stopped."""
    flags += ["--k_shot", "24", "--max_steps", "24", "--eval_strategy", "steps", "--eval_steps", "12"]
    train.run([*flags, "--output_name", "whole"])
    flags += ["--output_name", "cut", "--gradient_accumulation_steps", "1", "--dataloader_num_workers", "1"]
    processes = start("two nodes", flags)
    wait_for_a_step(processes[0])
    processes[-1].send_signal(signal.SIGTERM)
    out, codes = finish(processes)
    told = re.search(r"stopped by SIGTERM after step (\d+): --resume goes on from (\S+)", out)
    assert told and 0 not in codes and 0 < int(told[1]) < 24, out
    assert told[2] == f"results/cut/checkpoint-{told[1]}" == str(train.newest_checkpoint(Path("results/cut")))
    assert not list(Path("ckpt").glob("cut-*"))
    out, codes = finish(start("two nodes", [*flags, "--dataloader_num_workers", "0", "--resume"]))
    assert codes == [0] * len(codes), out
    assert_close("cut", "whole", 1e-5)
    assert [point["step"] for point in meta("cut")["dev_curve"]] == [12, 24]


@pytest.mark.parametrize("workers", [0, 2])
def test_data_workers_come_from_a_server(flags, workers, monkeypatch):
    """With --dataloader_num_workers they come from a process without threads; without, nothing is started."""
    started = []
    monkeypatch.setattr(preemption, "start_workers_from_server", lambda: started.append(True))
    with pytest.raises(InputError, match="--shard_llm"):  # the flag that is looked at next
        train.run([*flags, "--output_name", "x", "--dataloader_num_workers", str(workers), "--shard_llm"])
    assert started == [True] * (workers > 0)


def test_data_workers_ignore_the_signals_that_stop_training():
    """A signal that reaches all processes of a job is for the training process: workers ignore it, then do their own
    start."""
    before, started = {number: signal.getsignal(number) for number in preemption.STOPS}, []
    try:
        preemption.ignore_stops(started.append, 3)
        assert {signal.getsignal(number) for number in preemption.STOPS} == {signal.SIG_IGN} and started == [3]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


PREEMPTED = {  # when and how -> the checkpoint to go on from
    "inside an epoch": (4, ["--eval_strategy", "epoch"], 4),
    "at an epoch's end": (3, ["--eval_strategy", "epoch"], 3),
    "at a dev evaluation": (4, ["--eval_strategy", "steps", "--eval_steps", "2"], 4),
    "with one checkpoint kept": (5, ["--eval_strategy", "steps", "--eval_steps", "2", "--save_total_limit", "1"], 5),
}


def preempt(monkeypatch, step: int) -> None:
    """SIGTERM to this process while that step is made."""
    begin = preemption.StopAtSignal.on_step_begin

    def send(self, args, state, control, **kwargs):
        begin(self, args, state, control, **kwargs)
        if state.global_step == step - 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(preemption.StopAtSignal, "on_step_begin", send)


LONG = ["--k_shot", "12", "--max_steps", "7"]  # three steps an epoch


@pytest.fixture(scope="module")
def uncut(tiny_pair, gsm8k_data, tmp_path_factory):
    """The folder in which a run named `whole` with LONG and these flags has ended, made once."""

    @functools.cache
    def ended(*more: str) -> Path:
        folder = tmp_path_factory.mktemp("uncut")
        with contextlib.chdir(folder):
            assert train.run([*train_flags(tiny_pair, gsm8k_data), *LONG, *more, "--output_name", "whole"]) == 0
        return folder

    return ended


@pytest.mark.parametrize("when", PREEMPTED)
def test_preempted_run_resumes_to_same_weights(flags, uncut, monkeypatch, capsys, when):
    """A preempted run saves a checkpoint and says so. Resumed, it has the weights, to the bit, and the dev evaluations
    of the run that was never stopped."""
    step, more, newest = PREEMPTED[when]
    flags += [*LONG, *more]
    shutil.copytree(uncut(*more[:4]) / "ckpt", "ckpt")
    handler, saved, save = signal.getsignal(signal.SIGTERM), [], trainer.ThoughtTrainer._save_checkpoint
    with monkeypatch.context() as patch:
        preempt(patch, step)
        patch.setattr(
            trainer.ThoughtTrainer,
            "_save_checkpoint",
            lambda self, *args: saved.append(self.state.global_step) or save(self, *args),
        )
        assert train.run([*flags, "--output_name", "cut"]) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler
    assert saved[-1] == step and len(saved) == len({*saved})  # a second time would be over a whole one
    told = f"stopped by SIGTERM after step {step}: --resume goes on from results/cut/checkpoint-{newest}\n"
    assert told in capsys.readouterr().out and not list(Path("ckpt").glob("cut-*"))
    assert train.run([*flags, "--output_name", "cut", "--resume"]) == 0
    assert_close("cut", "whole", 0)
    assert meta("cut")["dev_curve"] == meta("whole")["dev_curve"] and meta("cut")["best"] == meta("whole")["best"]
    assert len(json.loads(Path("results/cut/flags.json").read_text())["starts"]) == 2


@pytest.mark.parametrize(
    ("step", "told"), [(3, "--resume goes on from results/cut/checkpoint-2"), (1, "no checkpoint")]
)
def test_preempted_run_saves_only_resumable_steps(flags, monkeypatch, capsys, step, told):
    """A preempted run saves nothing that the library cannot go on from: before transformers 4.57 that is inside some
    epochs."""
    monkeypatch.setattr(train, "library_can_resume", lambda args, num_rows, step: step % 2 == 0)
    preempt(monkeypatch, step)
    train.run([*flags, "--output_name", "cut", "--max_steps", "4", "--eval_strategy", "steps", "--eval_steps", "2"])
    assert f"stopped by SIGTERM after step {step}: " in (out := capsys.readouterr().out) and told in out
    assert not Path(f"results/cut/checkpoint-{step}").exists()


def test_sigterm_in_last_step_changes_nothing(flags, monkeypatch):
    """A run that gets SIGTERM in its last step ends as ever."""
    preempt(monkeypatch, 2)
    assert train.run([*flags, "--max_steps", "2", "--output_name", "done"]) == 0 and meta("done")["best"]["step"] == 2


def test_run_folder_records_its_origin(flags, monkeypatch, capsys):
    """A run's folder holds its flags without secrets, the versions, the commit and the data's digest. Going on with
    another version is noted."""
    common.source_version.cache_clear()
    flags += ["--output_name", "a", "--max_steps", "1", "--gradient_accumulation_steps", "1", "--hub_token", "secret"]
    train.run(flags)
    kept = json.loads(Path("results/a/flags.json").read_text())
    assert kept["learning_rate"] == 1e-3 and re.fullmatch("[0-9a-f]{64}", kept["train_sha256"])
    assert kept["starts"][0]["versions"]["transformers"] == transformers.__version__
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    commit = kept["starts"][0]["versions"]["lta_thinker"]
    assert commit.removesuffix("-dirty") == head and commit == meta("a")["versions"]["lta_thinker"]
    assert kept["starts"][0]["flags"]["logging_steps"] == 1
    assert "secret" not in Path("results/a/flags.json").read_text()
    kept["starts"][0]["versions"]["torch"] = "2.4.0"
    Path("results/a/flags.json").write_text(json.dumps(kept))
    shutil.rmtree(next(Path("ckpt").iterdir()))
    train.run([*flags, "--resume"])
    assert f"note: this run came here with torch 2.4.0, and goes on with {torch.__version__}" in capsys.readouterr().out


def test_copy_without_git_has_version(monkeypatch, tmp_path):
    """A copy without git says that it is one, and its version."""
    monkeypatch.setattr(common, "CHECKOUT", tmp_path)
    assert common.source_version.__wrapped__() in ("a copy without git", "0.6.0")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard_llm"], "--shard_llm shares the LLM among torchrun's processes: torchrun"),
        (["--shard_llm", "--tune_base_model"], "--tune_base_model with --shard_llm: a sharded LLM is not tuned"),
        (["--shard_llm", "--best_metric", "accuracy"], "--best_metric accuracy with --shard_llm"),
    ],
)
def test_impossible_shard_llm_is_refused(flags, more, message):
    """--shard_llm without torchrun, with an adapter in the LLM or with generated dev answers is refused."""
    with pytest.raises(InputError, match=message):
        train.run([*flags, "--output_name", "x", *more])
    assert not Path("results").exists()


def test_shard_llm_needs_torchruns_variables(monkeypatch):
    """--shard_llm without torchrun's variables is refused, and the message names the one that is wrong."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="--shard_llm needs .* LOCAL_WORLD_SIZE, how many .now 1 of 2.: start them by"):
        sharding.check_can_shard(2)
    monkeypatch.setenv("LOCAL_RANK", "0")
    sharding.check_can_shard(1)  # one rank is a sharded run too: a node with one GPU


def test_shard_llm_needs_newer_torch(monkeypatch):
    """--shard_llm is refused with a torch older than 2.7."""
    monkeypatch.setattr(sharding.torch, "__version__", "2.6.0")
    with pytest.raises(InputError, match="--shard_llm needs torch 2.7 or newer, this is 2.6.0"):
        sharding.check_can_shard(2)
