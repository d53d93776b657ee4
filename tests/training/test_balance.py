"""The three losses together: balanced gradients, their defaults and recipes, and thoughts that collapse."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import assert_close, logs, meta, weights

from lta_thinker import build, evaluate, train
from lta_thinker.common import InputError
from lta_thinker.flags import parse_flags
from lta_thinker.generation.collapse import collapsed
from lta_thinker.generation.prompts import ThoughtVariance
from lta_thinker.losses import LOSSES
from lta_thinker.rows.batch import TrainingCollator, loss_counts
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.rows import prepare_rows
from lta_thinker.weights import PARAMS_FILE

ONE_STEP = ("--max_steps", "1", "--optim", "sgd", "--learning_rate", "1", "--lr_scheduler_type", "constant")
NO_EXTRA = ("--align_loss_weight", "0", "--focus_loss_weight", "0")
SHARES = {"sft": 0.5, "align": 0.2, "focus": 0.3}


def arguments(flags: list[str]) -> TrainArguments:
    return parse_flags(TrainArguments, [*flags, "--output_name", "x"], "train.py")


def plain_gradients(flags: list[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By the equation, with a whole forward and backward pass for each loss over all rows at once: each parameter of
    the generator at the start of a run, and the gradient that a balanced step gives it."""
    args = arguments(flags)
    layout = build.build_layout(args.spec, args.prompts, separator=args.task.separator)
    rows = list(prepare_rows(args, layout).train)
    model = build.build_models(args.spec, layout, None, args.adapters).thoughts.train()
    batch = TrainingCollator(layout, steps=True)(rows)
    counts = dict(zip(LOSSES, loss_counts(batch), strict=True))
    gradients = {}
    for name in SHARES:
        loss = model(**batch)[name] / counts[name]
        gradients[name] = torch.autograd.grad(loss, list(model.generator.parameters()), materialize_grads=True)
    norm = {name: torch.cat([g.flatten() for g in of_loss]).norm() for name, of_loss in gradients.items()}
    shares = {name: share * min(1, norm["sft"] / norm[name]) for name, share in SHARES.items()}
    return {
        name: (start.detach(), sum(shares[loss] * gradients[loss][i] for loss in SHARES))
        for i, (name, start) in enumerate(model.generator.named_parameters())
    }


@pytest.mark.parametrize(("kind", "accumulation"), [("small_block", 4), ("block", 1), ("small", 4)])
def test_balanced_step_equals_plain_computation(flags, kind, accumulation):
    """A balanced step's gradient is the equation's to 1e-6, whatever the micro-batches."""
    flags += ["--thought_generator", kind, "--k_shot", "8", "--max_grad_norm", "0", *ONE_STEP]
    flags += ["--batch_size", str(8 // accumulation), "--gradient_accumulation_steps", str(accumulation)]
    for name, share in SHARES.items():
        flags += [f"--{name}_loss_weight", str(share)]
    expected = plain_gradients(flags)
    train.run([*flags, "--output_name", "moved"])  # one step of plain SGD with a rate of 1
    found = {re.sub(r"^\d\.", "", name): moved for name, moved in weights("moved").items()}
    for name, (start, gradient) in expected.items():
        stored = name.removeprefix("block.").removeprefix("projection.")
        torch.testing.assert_close(start - found[stored], gradient, atol=1e-6, rtol=1e-5)
    assert len(found) == len(expected)


def test_balance_is_in_the_log(flags, trained):
    """A training log names the factor of each extra loss, at most 1. The plain sum has none."""
    with contextlib.chdir(trained.parent.parent):
        first, balanced = next(log for log in logs("run") if "loss" in log), weights("run")
    assert 0 < first["balance_align"] <= 1 and 0 < first["balance_focus"] < 1
    assert {"sft_loss", "align_loss", "focus_loss"} <= first.keys()
    train.run([*flags, "--output_name", "plain", "--no_balance_losses"])
    assert not [key for log in logs("plain") for key in log if key.startswith("balance")]
    plain = weights("plain")
    assert any(not torch.equal(balanced[name], plain[name]) for name in plain)


def test_loss_without_gradient_adds_nothing(flags, tmp_path, monkeypatch):
    """Rows of one step each have a focus loss of zero, without a gradient. It is not scaled up; weights stay finite."""
    rows = arguments(flags).data_dir
    one_step = [
        line for i, line in enumerate(Path(rows, "gsm8k/train_socratic.jsonl").read_text().splitlines()) if i % 2 == 0
    ]
    folder = tmp_path / "one" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "train_socratic.jsonl").write_text("\n".join(one_step * 2) + "\n")
    train.run([*flags, "--data_dir", str(tmp_path / "one"), "--output_name", "run", "--max_steps", "2"])
    assert [log["balance_focus"] for log in logs("run") if "loss" in log] == [1] * 2
    assert all(weight.isfinite().all() for weight in weights("run").values())


def test_defaults_train_three_losses(flags):
    """Without a word about losses a generator with a block is trained with three balanced ones; SoftCoT and a constant
    prompt, whose papers have no other, with the SFT loss alone. --recipe sft is one flag, and so is the plain sum."""
    plain = flags[: flags.index("--sft_loss_weight")]

    def losses(*more):
        args = arguments([*plain, *more])
        return [args.loss_weights[name] for name in ("sft", "align", "focus")], args.balance_losses

    assert losses() == losses("--thought_generator", "block") == ([1, 0.33, 0.33], True)
    assert losses("--thought_generator", "small")[0] == losses("--thought_generator", "prompt")[0] == [1, 0, 0]
    assert losses("--thought_generator", "small", "--focus_loss_weight", "0.1")[0] == [1, 0, 0.1]
    assert losses("--recipe", "sft")[0] == [1, 0, 0]
    assert losses("--no_balance_losses") == ([1, 0.33, 0.33], False)
    paper = arguments([*plain, "--recipe", "paper"])
    assert (paper.balance_losses, paper.align_stop_gradient, set(paper.loss_weights.values())) == (
        False,
        False,
        {0.33, 0},
    )
    train.run([*plain, "--output_name", "default", "--max_steps", "1"])
    assert meta("default")["loss_weights"] == {"sft": 1, "align": 0.33, "focus": 0.33, "diversity": 0}
    assert meta("default")["flags"]["balance_losses"] and meta("default")["align"]["stop_question"]


def test_older_run_resumes_its_plain_sum(flags):
    """A run that a train.py without --balance_losses and the flags that came after it began goes on with the plain sum
    alone, to the same weights."""
    flags += ["--max_steps", "3", "--eval_strategy", "steps", "--eval_steps", "1", "--save_total_limit", "9"]
    flags += ["--gradient_accumulation_steps", "1"]  # transformers 4.53 resumes no epoch that ends in a shorter step
    train.run([*flags, "--no_balance_losses", "--output_name", "old"])
    path = Path("results/old/flags.json")
    stored = json.loads(path.read_text())
    of_stages = ("coconut_stages", "thoughts_per_step", "epochs_per_stage", "coconut_mix")
    for name in ("balance_losses", "answer_only", "full_tuning", *of_stages):
        del stored[name]
    path.write_text(json.dumps(stored))
    shutil.rmtree("results/old/checkpoint-2")
    shutil.rmtree("results/old/checkpoint-3")
    (folder,) = Path("ckpt").glob("old-*")
    folder.rename(Path("ckpt", folder.name.replace("old-", "whole-")))
    with pytest.raises(InputError, match="started with balance_losses = False, not True"):
        train.run([*flags, "--output_name", "old", "--resume"])
    train.run([*flags, "--no_balance_losses", "--output_name", "old", "--resume"])
    assert_close("old", "whole", 0)


def test_collapsed_thoughts_are_told(flags, capsys, gsm8k_data):
    """Thoughts that are the same for every question are said to be so by the training log at each dev evaluation, with
    the focus loss and what it is by chance, and by the report. Thoughts that differ are not."""
    flags += ["--max_steps", "1"]
    train.run([*flags, "--output_name", "good"])
    assert "collapsed" not in capsys.readouterr().out
    (good,) = Path("ckpt").glob("good-*")
    state = torch.load(good / PARAMS_FILE, weights_only=True)
    torch.save({"weight": 1e-20 * state["weight"], "bias": torch.ones_like(state["bias"])}, "projection.bin")
    start = ["--params_file_name", "projection.bin", "--att_file_name", str(good / "TransformerBlock.bin")]
    train.run([*flags, *start, "--output_name", "bad", "--learning_rate", "1e-9"])
    told = re.search(
        r"warning: step 1: the thoughts have collapsed, they are the same for every dev question \(variance \S+, mean "
        r"square \S+\); focus loss (\S+), by chance (\S+)\n",
        capsys.readouterr().out,
    )
    assert told and float(told[1]) == pytest.approx(float(told[2]), abs=1e-3)
    for name in ("good", "bad"):
        (checkpoint,) = Path("ckpt").glob(f"{name}-*")
        evaluate.main(
            ["--checkpoint", str(checkpoint), "--data_dir", str(gsm8k_data), "--test_k", "4", "--max_new_tokens", "4"]
        )
        assert ("the same for every question" in capsys.readouterr().out) == (name == "bad")


def test_collapse_is_measured_by_scale():
    """Variance counts against the thoughts' mean square: small thoughts that differ have not collapsed, and thoughts
    with the variance of the study's collapsed runs have. One question alone does not tell."""
    torch.manual_seed(0)

    def figures(thoughts):
        variance = ThoughtVariance()
        variance.add(range(len(thoughts)), thoughts[:, None])
        return variance.figures()

    thoughts = torch.randn(6, 4, 8)
    assert not collapsed(figures(thoughts)) and not collapsed(figures(1e-4 * thoughts))
    same = thoughts[:1].expand(6, -1, -1)
    assert collapsed(figures(same)) and collapsed(figures(1e4 * same))
    many = torch.randn(1, 4, 8).expand(200, -1, -1)
    mean_square = many.square().mean().item()
    for ratio, told in (
        (1.3e-3, True),
        (0.07, False),
    ):  # docs/results/study.md: collapsed, and as low as a good run was
        assert collapsed(figures(many + (ratio * mean_square) ** 0.5 * torch.randn(200, 4, 8))) == told
    assert not collapsed(figures(thoughts[:1]))


def test_dev_variance_is_over_all_chains(flags, gsm8k_data, tmp_path):
    """With several chains the dev log's variance is over the thoughts of all, as the report's is."""
    flags += ["--num_thought_chains", "3", "--output_name", "run", "--learning_rate", "1e-2", "--max_steps", "1"]
    train.run(flags)
    (checkpoint,) = Path("ckpt").glob("run-*")
    shared = ["--checkpoint", str(checkpoint), "--data_dir", str(gsm8k_data), "--max_new_tokens", "2"]
    evaluate.main([*shared, "--split", "dev", "--num_return_sequences", "3", "--output_dir", "dev"])
    report = json.loads(Path("dev/report.json").read_text())["thought_variance"]
    (log,) = [log for log in logs("run") if "eval_loss" in log]
    assert report["num_questions"] == 2
    for over in ("questions", "slots"):
        assert log[f"eval_thought_variance_{over}"] == pytest.approx(report[f"over_{over}"], rel=1e-4)


def test_constant_prompt_has_not_collapsed(flags, gsm8k_data, capsys):
    """A constant prompt is the same for every question by design: neither log nor report calls that a fault."""
    flags += ["--recipe", "sft", "--thought_generator", "prompt", *NO_EXTRA, "--max_steps", "1"]
    train.run([*flags, "--output_name", "run"])
    (checkpoint,) = Path("ckpt").glob("run-*")
    shared = ["--data_dir", str(gsm8k_data), "--test_k", "4", "--max_new_tokens", "2"]
    evaluate.main(["--checkpoint", str(checkpoint), *shared])
    assert "collapsed" not in capsys.readouterr().out


@pytest.mark.parametrize(("ranks", "weights", "sets"), [(2, (1, 0.33, 0.33), 3), (2, (1, 0, 0), 1), (1, (1, 1, 1), 0)])
def test_traffic_counts_balanced_losses(flags, monkeypatch, capsys, ranks, weights, sets):
    """The start of a run of several ranks says what they send each other: a set of gradients for each balanced loss."""
    for name, weight in zip(("sft", "align", "focus"), weights, strict=True):
        flags += [f"--{name}_loss_weight", str(weight)]
    args = arguments(flags)
    layout = build.build_layout(args.spec, args.prompts, separator=args.task.separator)
    model = build.build_models(args.spec, layout, None, args.adapters).thoughts
    monkeypatch.setattr(TrainArguments, "world_size", ranks)
    train.print_start(args, model, Path("ckpt", "x"))
    told = re.search(r"ranks send each other ([\d.]+) MB", capsys.readouterr().out)
    trained = sum(parameter.numel() for parameter in model.parameters())
    assert (float(told[1]) if told else 0) == pytest.approx(sets * 4 * trained / 1e6, abs=0.05)
