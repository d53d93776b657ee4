"""train.py: what a run promises, on the tiny pair. Runs are in this process where that shows the same."""

import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import transformers
import warm
from helpers import (
    ENVIRONMENT,
    ROOT,
    assert_close,
    gsm8k_row,
    logs,
    meta,
    same_as,
    train_flags,
    two_ranks,
    weights,
    write_jsonl,
)
from packaging.version import Version
from safetensors.torch import load_file

from lta_thinker import build, evaluate, train
from lta_thinker.checkpoint import NEEDED, write_complete
from lta_thinker.common import InputError
from lta_thinker.flags import parse_flags

FRESH = """import os, runpy, sys
for name in [name for name in sys.modules if name.partition(".")[0] == "lta_thinker"]:
    del sys.modules[name]
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")"""


def test_command_line_run_leaves_whole_checkpoint(flags):
    """A run by the command line leaves the best weights and all that evaluation needs, and no frozen LM in a
    checkpoint. Its process imports our modules itself, in the script's own order."""
    command = [warm.python(), "-c", FRESH, str(ROOT / "train.py"), *flags, "--output_name", "cli"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = Path("ckpt").iterdir()
    assert folder.name == "cli-gsm8k-small_block-10-4-large-small"
    files = {"TransformerBlock.bin", "projection.bin", "thoughts.json"}
    assert {path.name for path in folder.iterdir()} == files
    stored = meta("cli")
    assert stored["thought_generator"] == "small_block" and stored["num_thoughts"] == 4
    assert stored["dtype"] == "float32" and stored["seed"] == 41 and stored["dev_curve"]
    assert stored["rows"]["train"]["kept"] == 38 and stored["rows"]["dev"]["kept"] == 2
    assert "parameters: 9,152 trained, " in done.stdout and "\n  --large_model_id " in done.stdout
    state = json.loads(Path("results/cli/checkpoint-5/trainer_state.json").read_text())
    assert Path("results/cli/checkpoint-5/model.safetensors").stat().st_size < 60_000  # no frozen LM in a checkpoint
    assert state["best_metric"] == stored["best"]["value"]


def test_trained_checkpoint_evaluates_both_ways(tiny_pair, gsm8k_data, trained, tmp_path, monkeypatch):
    """A trained checkpoint gives the same samples by the files' flags and by its folder. A second evaluation only
    reports."""
    monkeypatch.chdir(tmp_path)
    shared = ["--data_dir", str(gsm8k_data), "--num_thought_tokens", "2", "--num_return_sequences", "3"]
    shared += ["--max_new_tokens", "8", "--test_k", "4"]
    files = ["--params_file_name", f"{trained}/projection.bin", "--att_file_name", f"{trained}/TransformerBlock.bin"]
    models = ["--base_model_id", f"{tiny_pair}/large", "--assistant_model_id", f"{tiny_pair}/small"]
    task = ["--batch_size", "4", "--task_name", "gsm8k", "--print_response"]
    evaluate.main([*models, *files, *task, *shared, "--output_dir", "by_flags"])
    evaluate.main(["--checkpoint", str(trained), *shared, "--output_dir", "by_checkpoint"])
    assert Path("by_flags/samples.jsonl").read_bytes() == Path("by_checkpoint/samples.jsonl").read_bytes()
    first = json.loads(Path("by_flags/samples.jsonl").read_text().splitlines()[0])
    assert {"index", "question", "gold", "responses", "num_tokens"} <= first.keys() and len(first["responses"]) == 3
    graded = json.loads(Path("by_flags/graded.jsonl").read_text().splitlines()[0])
    assert {"index", "question", "gold", "answers", "hits", "vote", "correct"} == graded.keys()
    assert len(graded["answers"]) == len(graded["hits"]) == 3
    report = json.loads(Path("by_flags/report.json").read_text())
    assert {"vote_accuracy", "sample_accuracy", "maj_at_k", "pass_at_k", "settings"} <= report.keys()
    evaluate.main(["--checkpoint", str(trained), *shared, "--output_dir", "by_flags"])  # again: only reports
    assert json.loads(Path("by_flags/report.json").read_text())["vote_accuracy"] == report["vote_accuracy"]


@pytest.fixture(scope="module")
def sgd(tiny_pair, gsm8k_data, tmp_path_factory):
    """The flags of runs whose second step has fewer rows, and the folder of two of them: accumulated, and whole, whose
    batches are four times as large and whose dev rows come one by one."""
    folder, flags = tmp_path_factory.mktemp("sgd"), train_flags(tiny_pair, gsm8k_data)
    flags += ["--k_shot", "14", "--max_steps", "3", "--optim", "sgd", "--learning_rate", "1e-2"]
    flags += ["--gradient_accumulation_steps", "4", "--sft_loss_weight", "1", "--align_loss_weight", "0.5"]
    one = ["--batch_size", "8", "--gradient_accumulation_steps", "1", "--per_device_eval_batch_size", "1"]
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.LatentThoughtModel, "recompute_layers", lambda _: pytest.fail("layers are recomputed"))
        train.run([*flags, "--output_name", "accumulated"])
        train.run([*flags, "--output_name", "whole", *one])
    return flags, folder


def test_logged_losses_add_up(sgd, monkeypatch):
    """The three losses are logged one by one, and their weighted sum is the total."""
    monkeypatch.chdir(sgd[1])
    assert len(logs("accumulated")) == 5
    for log in logs("accumulated"):
        total = log["loss"] if "loss" in log else log["eval_loss"]
        prefix = "" if "loss" in log else "eval_"
        parts = [log[f"{prefix}{name}_loss"] for name in ("sft", "align", "focus")]
        assert total == pytest.approx(parts[0] + 0.5 * parts[1] + 0.33 * parts[2], abs=1e-4)


def test_accumulation_equals_a_larger_batch(sgd, monkeypatch):
    """Accumulation over four batches trains the weights of one batch four times as large."""
    monkeypatch.chdir(sgd[1])
    assert_close("accumulated", "whole", 1e-6)
    losses = [[log["sft_loss"] for log in logs(name) if "loss" in log] for name in ("accumulated", "whole")]
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_dev_losses_ignore_batch_size(sgd, monkeypatch):
    """Dev losses are those of all dev rows, whatever the batch size."""
    monkeypatch.chdir(sgd[1])
    curves = [meta(name)["dev_curve"][0] for name in ("accumulated", "whole")]
    assert curves[0]["eval_sft_loss"] == pytest.approx(curves[1]["eval_sft_loss"], abs=1e-5)
    assert curves[0]["eval_focus_loss"] == pytest.approx(curves[1]["eval_focus_loss"], abs=1e-5)


def test_two_ranks_train_as_one_process(flags):
    """Two ranks train the weights, gradient norms and dev losses of one process with twice the accumulation. The ranks
    share the small LM's states from one file."""
    flags += ["--k_shot", "12", "--max_steps", "4"]
    printed = two_ranks(ROOT / "train.py", *flags, "--output_name", "ranks", "--gradient_accumulation_steps", "1")
    assert "states-train-node0.bin" in printed
    train.run([*flags, "--output_name", "alone"])
    assert_close("ranks", "alone", 1e-6)
    grads = [[log["grad_norm"] for log in logs(name) if "grad_norm" in log] for name in ("ranks", "alone")]
    assert len(grads[0]) == 4 and grads[0] == pytest.approx(grads[1], abs=1e-6)
    assert [log["eval_sft_loss"] for log in meta("ranks")["dev_curve"]] == pytest.approx(
        [log["eval_sft_loss"] for log in meta("alone")["dev_curve"]], abs=1e-5
    )


@pytest.mark.skipif(Version(transformers.__version__) < Version("5"), reason="4.53 cannot resume ranks on CPUs")
def test_resumed_ranks_end_with_same_weights(flags):
    """Ranks that are resumed inside an epoch end with the weights of the run that was never cut, to the bit. Rows are
    sorted by length over both ranks and two micro-batches."""
    flags += ["--k_shot", "24", "--eval_strategy", "steps", "--eval_steps", "2", "--save_total_limit", "20"]
    flags += ["--output_name", "cut", "--learning_rate", "1e-2"]
    two_ranks(ROOT / "train.py", *flags)
    last = Path("results/cut/checkpoint-5/model.safetensors")  # the best step may be before the cut
    whole = load_file(last)
    shutil.rmtree("results/cut/checkpoint-5")  # three steps an epoch: on from the first of the second
    (folder,) = Path("ckpt").glob("cut-*")
    shutil.rmtree(folder)
    two_ranks(ROOT / "train.py", *flags, "--resume")
    again = load_file(last)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_killed_run_resumes_to_same_weights(long_flags, ended, tmp_path):
    """A run that was killed and resumed ends with the weights, losses and dev curve of the run that never was, to the
    bit. Starting over it, other flags and other rows are refused."""
    Path("results/a").mkdir(parents=True)
    Path("results/a/dev_losses.jsonl").write_text('{"step": 1, "nats": [9.0]}\n')  # of another run that was killed
    command = [warm.python(), str(ROOT / "train.py"), *long_flags]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not list(Path("results").glob("a/checkpoint-*/complete")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # its output ends as it does
    assert not list(Path("ckpt").glob("a-*"))
    with pytest.raises(InputError, match="is there already: --resume goes on"):
        train.run(long_flags)
    with pytest.raises(InputError, match="started with learning_rate = 0.001, not 0.002"):
        train.run([*long_flags, "--resume", "--learning_rate", "2e-3"])
    with pytest.raises(InputError, match="started with weight_decay = 0.0, not 0.5"):
        train.run([*long_flags, "--resume", "--weight_decay", "0.5"])
    with pytest.raises(InputError, match="started with train_sha256"):
        other = tmp_path / "other" / "gsm8k" / "train_socratic.jsonl"
        write_jsonl(other, [gsm8k_row(i + 1) for i in range(40)])
        data = json.loads(Path("results/a/flags.json").read_text()) | {"data_dir": str(tmp_path / "other")}
        flags_before = Path("results/a/flags.json").read_text()
        Path("results/a/flags.json").write_text(json.dumps(data))
        try:
            train.run([*long_flags, "--resume", "--data_dir", str(tmp_path / "other")])
        finally:
            Path("results/a/flags.json").write_text(flags_before)
    with open("results/a/dev_losses.jsonl", "a") as file:  # as if a later evaluation had been undone by the kill
        file.write('{"step": 11, "nats": [9.0]}\n')
    train.run([*long_flags, "--resume"])
    assert same_as(ended) and Path("results/a/dev_losses.jsonl").read_text().count("\n") == 3
    timeless = []
    for folder in (ended, "."):
        with contextlib.chdir(folder):
            timed = ("train_", "tokens_per_second")
            timeless.append([{k: v for k, v in log.items() if not k.startswith(timed)} for log in logs("a")])
    assert timeless[0] == timeless[1]  # the losses one by one too


REFUSED_RESUMES = [("4.53.2", 6, True), ("4.53.2", 10, False), ("4.57.0", 6, False)]


@pytest.mark.parametrize(("version", "step", "refused"), REFUSED_RESUMES)
def test_resume_the_library_gets_wrong_is_refused(flags, monkeypatch, version, step, refused):
    """A resume inside an epoch that older transformers would get wrong is refused. Others go on."""
    monkeypatch.setattr(train.transformers, "__version__", version)
    args = train.parse_flags(train.TrainArguments, [*flags, "--output_name", "x"], "train.py")
    checkpoint = Path(f"results/x/checkpoint-{step}")  # 38 rows: 19 micro-batches, 10 steps an epoch
    if refused:
        with pytest.raises(InputError, match="use transformers 4.57 or newer"):
            train.check_library_can_resume(args, checkpoint, 38)
    else:
        train.check_library_can_resume(args, checkpoint, 38)


def test_resumed_run_may_change_harmless_flags(flags):
    """A resumed run may change the flags that decide neither its weights nor its best step, and no others."""

    def settings(*more):
        return train.parse_flags(train.TrainArguments, [*flags, "--output_name", "x", *more], "train.py").resolved()

    before = settings()
    for free in (["--logging_steps", "3"], ["--report_to", "none"], ["--save_total_limit", "5"], ["--resume"]):
        assert settings(*free) == before
    for name, value in {"max_new_tokens": 9, "weight_decay": 0.1, "lr_scheduler_type": "cosine", "seed": 1}.items():
        assert settings(f"--{name}", str(value))[name] == value != before[name]


def test_cut_off_checkpoint_is_not_resumed(tmp_path):
    """A checkpoint that was cut off while it was written is not resumed from."""
    for step in (3, 6, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name in NEEDED:
            (tmp_path / f"checkpoint-{step}" / name).write_text("{}")
    for step in (3, 6):
        write_complete(tmp_path / f"checkpoint-{step}")
    assert train.newest_checkpoint(tmp_path).name == "checkpoint-6"


def test_saved_weights_have_lowest_dev_loss(flags):
    """The saved weights are those of the step with the lowest dev loss, not of the last."""
    # only the focus loss is trained, at a rate at which the dev SFT loss goes up and down
    steps = ["--max_steps", "4", "--eval_strategy", "steps", "--eval_steps", "1", "--save_total_limit", "40"]
    focus = ["--sft_loss_weight", "0", "--align_loss_weight", "0"]
    train.run([*flags, "--output_name", "best", *steps, "--learning_rate", "0.05", *focus])
    curve = meta("best")["dev_curve"]
    best = min(curve, key=lambda point: point["eval_sft_loss"])
    assert 1 < best["step"] < 4, "the run must get better and worse for this test to mean something"
    assert meta("best")["best"] == {
        "metric": "sft_loss",
        "value": best["eval_sft_loss"],
        "step": best["step"],
        "epoch": best["epoch"],
    }
    kept = load_file(f"results/best/checkpoint-{best['step']}/model.safetensors")
    torch.testing.assert_close(weights("best")["1.weight"], kept["generator.projection.weight"], atol=0, rtol=0)


def test_training_starts_from_given_weights(flags):
    """Training starts from the weights that it is given. With --freeze_prior the prior stays as it was."""
    block = ["--thought_generator", "block"]
    train.run([*flags, "--output_name", "first", *block, "--max_steps", "2", "--freeze_prior"])
    (folder,) = Path("ckpt").glob("first-*")
    again = ["--params_file_name", f"{folder}/projection.bin", "--att_file_name", f"{folder}/TransformerBlock.bin"]
    none = ["--max_steps", "1", "--learning_rate", "1e-12"]
    train.run([*flags, "--output_name", "second", *block, *again, *none])
    assert_close("first", "second", 1e-6)
    train.run([*flags, "--output_name", "third", *block, "--max_steps", "2"])
    assert torch.equal(weights("first")["0.prior"], weights("second")["0.prior"])
    assert not torch.equal(weights("first")["0.prior"], weights("third")["0.prior"])


def test_gradient_checkpointing_changes_no_weight(sgd, tmp_path, monkeypatch):
    """--gradient_checkpointing recomputes the LLM's layers and changes no weight."""
    flags, folder = sgd
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "ckpt", "ckpt")
    recompute, models = train.LatentThoughtModel.recompute_layers, []
    monkeypatch.setattr(
        train.LatentThoughtModel, "recompute_layers", lambda model: models.append(model) or recompute(model)
    )
    train.run([*flags, "--output_name", "recomputed", "--gradient_checkpointing", "True"])
    assert len(models) == 1
    assert_close("accumulated", "recomputed", 1e-7)
    assert meta("recomputed")["flags"]["recompute_layers"] and not meta("accumulated")["flags"]["recompute_layers"]


def test_diverged_run_stops_with_advice(flags):
    """A run that diverges stops with an error that advises a lower learning rate."""
    with pytest.raises(InputError, match="try a lower --learning_rate"):
        train.run([*flags, "--output_name", "nan", "--learning_rate", "1e30", "--max_grad_norm", "0"])


SFT_ALONE = ["--align_loss_weight", "0", "--focus_loss_weight", "0"]


@pytest.mark.parametrize(
    "more",
    [
        ["--thought_generator", "prompt", *SFT_ALONE],
        ["--thought_generator", "small", "--num_thought_chains", "3", "--diversity_loss_weight", "0.1", *SFT_ALONE],
        ["--thought_generator", "prompt", "--num_thought_chains", "2", *SFT_ALONE],
        ["--num_thought_chains", "2", "--num_blocks", "2", "--projection", "after", "--match_scale"],
        ["--thought_generator", "block", "--projection", "before", "--thoughts_see_steps"],
        ["--standardize_states", "--thoughts_see_steps", "--steps_as_turns", "--distinct_slot_ids"],
        ["--standardize_states", "--num_thought_chains", "2", "--projection", "after"],
        ["--standardize_states", "--thought_generator", "small", *SFT_ALONE],
        ["--reader_layers", "1", "--block_positions"],
        ["--thought_generator", "block", "--reader_layers", "1", "--align_mean", "--align_stop_gradient"]
        + ["--align_temperature", "2", "--align_variance_floor", "0.5"],
    ],
)
def test_every_design_is_trained_and_evaluated(flags, more):
    """Every design and form of the losses is trained, saved, and evaluated from its folder and from its resume
    checkpoint."""
    train.run([*flags, "--output_name", "run", "--max_steps", "1", *more])
    (folder,) = Path("ckpt").iterdir()
    for log in logs("run"):
        if "loss" in log and "--num_thought_chains" in more:
            assert ("diversity_loss" in log) == ("--diversity_loss_weight" in more)
    shared = ["--num_return_sequences", "2", "--max_new_tokens", "3", "--test_k", "2"]
    evaluate.main(["--checkpoint", str(folder), "--data_dir", flags[5], *shared, "--output_dir", "whole"])
    resumed = str(train.newest_checkpoint(Path("results/run")))
    evaluate.main(["--checkpoint", resumed, "--data_dir", flags[5], *shared, "--output_dir", "resumed"])
    settings = json.loads(Path("whole/settings.json").read_text())
    chains = int(more[more.index("--num_thought_chains") + 1]) if "--num_thought_chains" in more else 1
    assert settings.get("num_chains", 1) == chains
    variance = json.loads(Path("whole/report.json").read_text())["thought_variance"]
    assert (variance["over_chains"] is None) == (chains == 1)


def test_decay_extra_losses_leaves_sft_alone(flags):
    """--decay_extra_losses lets the weights of all losses but SFT fall to zero, linearly."""
    fixed = ["--sft_loss_weight", "1", "--align_loss_weight", "0.5", "--focus_loss_weight", "0.5"]
    train.run([*flags, "--output_name", "a", *fixed, "--decay_extra_losses", "--max_steps", "3"])
    for log in logs("a"):
        if "loss" in log:
            left = 1 - (log["step"] - 1) / 3
            expected = log["sft_loss"] + 0.5 * left * (log["align_loss"] + log["focus_loss"])
            assert log["loss"] == pytest.approx(expected, abs=1e-4)


def test_recipe_paper_sets_published_flags(flags, tiny_pair):
    """--recipe paper sets the published settings in both scripts, and flags beside it win."""
    models = ["--large_model_id", "x", "--output_name", "a"]
    args = parse_flags(train.TrainArguments, ["--recipe", "paper", *models], "train.py")
    assert args.loss_weights == {"sft": 0.33, "align": 0.33, "focus": 0.33, "diversity": 0.0}
    assert (args.thought_generator, args.num_thought_tokens, args.learning_rate) == ("block", 32, 1e-4)
    assert (args.num_train_epochs, args.per_device_train_batch_size, args.gradient_accumulation_steps) == (10, 4, 4)
    assert (args.focus_temperature, args.warmup_ratio, args.seed) == (0.1, 0.1, 41)
    for recipe in (["--recipe", "paper"], ["--recipe=paper"]):
        args = parse_flags(train.TrainArguments, [*models, "--num_thought_tokens", "4", *recipe], "train.py")
        assert args.num_thought_tokens == 4 and args.align_loss_weight == 0.33
    args = parse_flags(evaluate.EvaluationArguments, ["--recipe", "paper", "--checkpoint", "x"], "evaluate.py")
    assert (args.num_thought_tokens, args.num_return_sequences, args.seed) == (2, 10, 41)
    args = parse_flags(train.TrainArguments, ["--recipe", "paper", *models, "--use_assistant_model"], "train.py")
    assert args.thought_generator == "small" and args.align_loss_weight == 0.33
    for word, kind in (("--use_assistant_model=True", "small"), ("--use_assistant_model=False", "block")):
        assert (
            parse_flags(train.TrainArguments, ["--recipe", "paper", *models, word], "train.py").thought_generator
            == kind
        )
    args = parse_flags(
        evaluate.EvaluationArguments, ["--recipe=paper", "--checkpoint=x", "--greedy=True"], "evaluate.py"
    )
    assert args.num_return_sequences == 1
    given = ["--recipe", "paper", "--checkpoint", "x", "--greedy"]
    assert parse_flags(evaluate.EvaluationArguments, given, "evaluate.py").num_return_sequences == 1


@pytest.fixture(scope="module")
def short(tiny_pair, gsm8k_data, tmp_path_factory):
    """The folder of a run of one step with flags that do not meddle with each other, and what it has printed."""
    folder, flags = tmp_path_factory.mktemp("short"), train_flags(tiny_pair, gsm8k_data)
    flags += ["--max_steps", "1", "--max_len", "160", "--k_shot", "21", "--thoughts_see_steps", "--bf16"]
    flags += ["--use_assistant_model", "--best_metric", "accuracy", "--max_new_tokens", "4"]
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        train.run([*flags, "--output_name", "short"])
    return folder, printed.getvalue()


def test_max_len_and_k_shot_limit_rows(short, monkeypatch):
    """--k_shot takes the first rows, and those longer than --max_len are dropped and counted."""
    monkeypatch.chdir(short[0])
    rows = meta("short")["rows"]["train"]
    assert rows["read"] == 40 and rows["in_split"] == 38
    assert rows["kept"] == 11 and rows["too_long"] == 10  # every second row is long: the last 21 have it otherwise


def test_thoughts_see_steps_prints_a_warning(short):
    """--thoughts_see_steps prints a warning."""
    printed = short[1]
    assert "warning: --thoughts_see_steps" in printed
    assert re.search(r"^  padding: [\d.]+% of the LLM's tokens \([\d.]+% with rows in random order\)$", printed, re.M)


def test_bf16_keeps_float32_weights(short, monkeypatch):
    """--bf16 keeps the trained weights in float32."""
    monkeypatch.chdir(short[0])
    assert meta("short")["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in weights("short").values()} == {torch.float32}


def test_use_assistant_model_trains_small(short):
    """--use_assistant_model trains the generator small, which saves a projection and no block."""
    (folder,) = (short[0] / "ckpt").glob("short-gsm8k-small-*")
    assert {path.name for path in folder.iterdir()} == {"projection.bin", "thoughts.json"}


def test_best_metric_accuracy_uses_dev_answers(short, monkeypatch):
    """--best_metric accuracy chooses by the accuracy of generated dev answers."""
    monkeypatch.chdir(short[0])
    stored = meta("short")
    assert stored["best"]["metric"] == "accuracy" and stored["dev_curve"]
    assert all(0 <= point["eval_accuracy"] <= 1 for point in stored["dev_curve"])


def test_attn_implementation_reaches_both_lms(flags, monkeypatch):
    """--attn_implementation reaches both LMs in both scripts. Samples of two implementations are not mixed, and unknown
    ones are refused."""
    used, own = [], build.load_frozen_lm

    def load(source):
        used.append(own(source))
        return used[-1]

    monkeypatch.setattr(build, "load_frozen_lm", load)
    train.run([*flags, "--output_name", "eager", "--max_steps", "1", "--attn_implementation", "eager"])
    (folder,) = Path("ckpt").iterdir()
    asked = ["--checkpoint", str(folder), "--test_k", "1", "--max_new_tokens", "2", "--output_dir", "out"]
    asked += ["--data_dir", flags[flags.index("--data_dir") + 1]]
    evaluate.main([*asked, "--attn_implementation", "eager"])
    assert [lm.config._attn_implementation for lm in used] == ["eager"] * 4
    with pytest.raises(SystemExit, match="attn_implementation"):  # answers of two kernels are not mixed
        evaluate.main(asked)
    with pytest.raises(InputError, match="cannot be loaded .*nonsense"):
        train.run([*flags, "--output_name", "wrong", "--attn_implementation", "nonsense"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--thought_generator none", "there is nothing to train"),
        ("--thought_generator nix", "--thought_generator nix: one of small_block, block, small"),
        ("--use_assistant_model --thought_generator block", "--use_assistant_model means small"),
        ("--fsdp full_shard", "--fsdp is not for this program"),
        ("--deepspeed ds.json", "--deepspeed is not for this program"),
        ("--fp16", "--fp16 is not for this program: use --bf16"),
        ("--no_such_flag 3", "no such flag: --no_such_flag;"),
        ("--learning_rate fast", "--learning_rate"),
        ("--learning_rate 0", "--learning_rate 0.0: must be above 0"),
        ("--num_thought_tokens 0", "--num_thought_tokens 0: must be at least 1"),
        ("--thought_generator block --num_thought_tokens 1000", "the vocabulary has only 400 rows"),
        ("--task_name nix", "--task_name nix: no such task; there are gsm8k, strategyqa, math"),
        ("--task_name arithmetic", "no train.jsonl there (python toy/build.py --data makes it)"),
        ("--max_len 3", "train, --max_len 3: no row is that short"),
        ("--output_name a/b", "--output_name"),
        ("--eval_strategy no", "--eval_strategy no: one of epoch, steps"),
        ("--best_metric bleu", "--best_metric bleu: one of sft_loss, accuracy"),
        (
            "--sft_loss_weight 0 --align_loss_weight 0 --focus_loss_weight 0",
            "must have a weight above 0",
        ),
        ("--params_file_name p.bin", "small_block starts from --params_file_name and --att_file_name"),
        ("--params_file_name p.bin --att_file_name b.bin", "--params_file_name p.bin: no such file"),
        ("--batch_size 0", "--batch_size 0: must be at least 1"),
        ("--n_epochs 0 --max_steps -1", "--n_epochs 0.0: must be above 0"),
        ("--resume_from_checkpoint here", "use --resume"),
        ("--save_only_model", "a run could not be resumed"),
        ("--save_strategy no", "resume checkpoints follow --eval_strategy"),
        ("--metric_for_best_model loss", "use --best_metric"),
        ("--eval_steps 5", "needs --eval_strategy steps"),
        ("--warmup_steps 0.5", "warmup_steps"),
        ("--seed -1", "--seed -1: must be at least 0 and below 4,294,967,296"),
        ("--per_device_eval_batch_size 0", "must be at least 1"),
        ("--sft_loss_weight nan", "--sft_loss_weight nan: must be finite"),
        ("--learning_rate inf", "--learning_rate inf: must be finite"),
        ("--best_metric accuracy --max_new_tokens 0", "--max_new_tokens 0: must be at least 1"),
        ("--output_name ..", "--output_name"),
        ("--report_to nosuchtracker", "nosuchtracker"),
        ("--lr_scheduler_type nix", "nix"),
        ("--num_thought_chains 0", "--num_thought_chains 0: must be at least 1"),
        ("--diversity_loss_weight 0.1", "--diversity_loss_weight needs --num_thought_chains above 1"),
        ("--thought_generator prompt", "prompt reads no question: --align_loss_weight 0 --focus_loss_weight 0"),
        ("--thought_generator small --num_blocks 2", "the generator small has no TransformerBlock"),
        (
            "--thought_generator prompt --align_loss_weight 0 --focus_loss_weight 0 --freeze_prior",
            "nothing but its prior",
        ),
        (
            "--thought_generator prompt --align_loss_weight 0 --focus_loss_weight 0 --thoughts_see_steps",
            "reads no question and no steps",
        ),
        (
            "--thought_generator prompt --align_loss_weight 0 --focus_loss_weight 0 --steps_as_turns",
            "--steps_as_turns: the generator prompt reads no question",
        ),
        (
            "--thought_generator none --tune_base_model --align_loss_weight 0 --focus_loss_weight 0 --freeze_prior",
            "--freeze_prior: it is about thoughts",
        ),
        ("--thought_generator block --distinct_slot_ids", "block has no small LM that reads them"),
        ("--distinct_slot_ids --num_thought_chains 2", "--distinct_slot_ids: several chains"),
        ("--reader_layers 2", "--reader_layers 2: --small_model_id"),
        ("--reader_layers 0", "--reader_layers 0: must be at least 1"),
        ("--thought_generator block --reader_layers 3", "large has only 2 layers"),
        ("--thought_generator block --reader_layers -1", "--reader_layers -1: must be at least 0"),
        ("--thought_generator block --reader_layers 1 --shard_llm", "--reader_layers with --shard_llm"),
        (
            "--thought_generator prompt --align_loss_weight 0 --focus_loss_weight 0 --reader_layers 1",
            "--reader_layers: the generator prompt reads nothing",
        ),
        ("--thought_generator small --block_positions", "the generator small has no TransformerBlock"),
        (
            "--thought_generator block --standardize_states",
            "--standardize_states: the generator block reads no small LM",
        ),
        ("--distinct_slot_ids --num_thought_tokens 351", "the vocabulary has only 350 rows"),
        ("--align_loss_weight 0 --align_mean", "nothing is aligned without --align_loss_weight"),
        ("--align_loss_weight 0 --focus_loss_weight 0 --decay_extra_losses", "no loss but the SFT loss has a weight"),
        ("--projection beside", "--projection beside: one of before, after"),
        ("--align_variance_floor -1", "--align_variance_floor -1.0: must be at least 0"),
        ("--recipe published", "--recipe published: no such recipe; there is sft, paper, paper-run"),
        ("--resume", "--resume: no complete checkpoint in results/wrong"),
        ("--thought_cache perhaps", "--thought_cache"),
        ("--large_model_id Qwen/Qwen3-8B-Instruct", "near it: Qwen/Qwen3-8B"),
    ],
)
def test_wrong_training_flags_are_refused(flags, wrong, message):
    """A wrong flag is refused in one line and leaves nothing behind."""
    with pytest.raises(InputError) as error:
        train.run([*flags, "--output_name", "wrong", *wrong.split()])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not Path("ckpt").exists() and not Path("results").exists()


def test_training_error_exits_without_traceback(flags):
    """An error of train.py is one line on stderr, without a traceback, and exit status 1."""
    command = [warm.python(), str(ROOT / "train.py"), *flags, "--output_name", "x", "--k_shot", "-1"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: --k_shot -1: must be at least 0"
    assert "Traceback" not in done.stderr
