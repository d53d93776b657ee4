"""LoRA adapters in the LMs: trained, saved, resumed, evaluated; nothing else of the LMs moves."""

import contextlib
import functools
import importlib.metadata
import io
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    EXAMPLES,
    ROOT,
    N,
    assert_close,
    fails,
    logs,
    one_line,
    pair_flags,
    plain_z,
    published,
    train_flags,
    training_batch,
    two_ranks,
)
from safetensors.torch import load_file, save_file

import lta_thinker
from lta_thinker import evaluate, train
from lta_thinker.checkpoint import TrainingRecord
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS, TASKS, load_split
from lta_thinker.evaluation.compare import compare
from lta_thinker.flags import parse_flags
from lta_thinker.llm import lora as tuning
from lta_thinker.llm.frozen import LmSource, fingerprint, load_frozen_lm, load_tokenizer
from lta_thinker.llm.lora import ROLES, Lora, inject, load_adapter, read_adapter
from lta_thinker.losses import reasoning_focus, semantic_alignment
from lta_thinker.model import GENERATORS, LatentThoughtModel
from lta_thinker.rows.layout import target_text
from lta_thinker.training import trainer
from lta_thinker.training.flags import TrainArguments

BOTH = ["--tune_base_model", "--tune_assistant_model"]
FAST = ["--learning_rate", "0.05", "--max_steps", "2"]  # so that the adapters change what is said


def load(tiny_pair, name: str, dtype=torch.float32):
    """A tiny LM of the test's own: an adapter is put into it in place."""
    return load_frozen_lm(LmSource(str(tiny_pair / name), f"--{name}", dtype))


def tuned_model(tiny_models, tiny_pair, kind: str, dropout: float) -> LatentThoughtModel:
    """A generator of that kind, its LMs tuned by adapters that are not at their start."""
    fresh = tiny_models.model(kind)
    lms = [
        load(tiny_pair, name) if lm is not None else None
        for name, lm in zip(("large", "small"), fresh.frozen, strict=True)
    ]
    fresh.frozen = tuple(lms)
    for role, lm in zip(ROLES, lms, strict=True):
        if lm is not None:
            fresh.adapters[role] = inject(lm, Lora(4, 8, dropout).config("x"), "--lora_target")
            for name, weight in fresh.adapters[role].named_parameters():
                torch.nn.init.normal_(weight, std=0.1 if "lora_B" in name else 0.3)
    return fresh


def final(name: str) -> Path:
    (folder,) = Path("ckpt").glob(f"{name}-*")
    return folder


def adapters(name: str) -> dict[str, torch.Tensor]:
    """All tensors of a finished run's adapters."""
    paths = sorted(final(name).glob(f"*/{tuning.WEIGHTS_FILE}"))
    return {f"{path.parent.name}.{key}": value for path in paths for key, value in load_file(path).items()}


def assert_same_run(a: str, b: str, tolerance: float):
    """The generators and the adapters."""
    assert_close(a, b, tolerance)
    left, right = adapters(a), adapters(b)
    assert left and left.keys() == right.keys()
    for key in left:
        torch.testing.assert_close(left[key], right[key], atol=tolerance, rtol=0)


def run_evaluation(*flags) -> list[str]:
    """Lines of samples.jsonl of a short evaluation ; the last flag is its folder."""
    evaluate.main([*map(str, flags), "--max_new_tokens", "8", "--test_k", "3", "--num_return_sequences", "2"])
    return Path(flags[-1], "samples.jsonl").read_text().splitlines()


@pytest.fixture(scope="module")
def ended(tiny_pair, gsm8k_data, tmp_path_factory):
    """(the folder in which a run with these flags has ended, what it printed), made once."""

    @functools.cache
    def ended(*more: str) -> tuple[Path, str]:
        folder = tmp_path_factory.mktemp("ended")
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
            train.run([*train_flags(tiny_pair, gsm8k_data), *more])
        return folder, printed.getvalue()

    return ended


@pytest.fixture
def checkpoint(flags, ended) -> Path:
    """Final folder of a run that tuned both LMs, to be broken."""
    shutil.copytree(ended(*BOTH, "--max_steps", "1", "--output_name", "run")[0] / "ckpt", "ckpt")
    return final("run")


# ---------------------------------------------------------------------------------------------------------------------
# Gradients


def plain_losses(model, layout, kind) -> torch.Tensor:
    """The sum of the three losses over EXAMPLES, written out row by row: no padding, no cached prefix."""
    llm, total = model.llm, 0.0
    for row in (layout.training(example) for example in EXAMPLES):
        z = plain_z(model, kind, row["question"], slots=True)
        z_question, thoughts = z[-N - 1 : -N], z[None, -N:]
        prefix, rest = (torch.tensor([ids]) for ids in (row["prefix"], row["suffix"] + row["target"]))
        embed = llm.get_input_embeddings()
        logits = llm(inputs_embeds=torch.cat([embed(prefix), thoughts, embed(rest)], dim=1)).logits[0]
        target = torch.tensor(row["target"])
        total += F.cross_entropy(logits[-len(target) - 1 : -1], target, reduction="sum")
        total += semantic_alignment(z_question, thoughts).sum()
        if row["steps"]:
            z = plain_z(model, kind, row["question"] + sum(row["steps"], row["header"]), slots=False)
            ends = [len(z) - 1 - len(sum(row["steps"][m + 1 :], [])) for m in range(len(row["steps"]))]
            answer = embed(torch.tensor(row["answer"])).mean(0, keepdim=True)
            valid = torch.ones(1, len(ends), dtype=torch.bool)
            total += reasoning_focus(z_question, z[None, ends], valid, answer, 0.1).sum()
    return total


def test_adapter_gradients_match_plain_pass(tiny_models, tiny_pair, kind):
    """The gradients of generator and adapters are those of a plain pass without a cached prefix. Every adapter weight
    gets one, as DDP expects."""
    model = tuned_model(tiny_models, tiny_pair, kind, dropout=0.0).train()
    assert list(model.adapters) == list(ROLES[: 1 + GENERATORS[kind].uses_small_lm])
    sums = model(**training_batch(tiny_models, kind))
    sum(sums[name] for name in ("sft", "align", "focus")).backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    assert all(grad.abs().max() > 0 for name, grad in ours.items() if name.startswith("adapters."))
    model.zero_grad()
    plain_losses(model, tiny_models.layout_for(kind), kind).backward()
    for name, weight in model.named_parameters():
        scale = weight.grad.abs().max().item()
        torch.testing.assert_close(ours[name], weight.grad, atol=1e-4 * scale + 1e-6, rtol=0, msg=name)


def test_only_adapter_dropout_trains(tiny_models, tiny_pair):
    """In training only the adapters are in train mode, with their dropout, and in evaluation nothing is."""
    model = tuned_model(tiny_models, tiny_pair, "small_block", dropout=0.5).train()
    on = [type(m) for lm in model.frozen for m in lm.modules() if m.training]
    assert on.count(torch.nn.Dropout) == 2 * 3 and set(on) == {torch.nn.Dropout, torch.nn.Linear}  # lora_A, lora_B
    batch = training_batch(tiny_models, "small_block")
    first, second = (model(**batch)["sft"].item() for _ in range(2))
    assert first != second
    model.eval()
    assert not any(module.training for lm in model.frozen for module in lm.modules())
    assert model(**batch)["sft"].item() == model(**batch)["sft"].item()


def test_adapter_leaves_own_weights_alone(tiny_pair):
    """An adapter is float32 and trained. The LM's own weights and fingerprint stay as they were, and frozen."""
    lm = load(tiny_pair, "large", torch.bfloat16)
    before, bare = fingerprint(lm), {name: weight.clone() for name, weight in lm.named_parameters()}
    adapter = inject(lm, Lora(target="q_proj, down_proj").config("x"), "--lora_target")
    assert fingerprint(lm) == before
    assert {weight.dtype for weight in adapter.parameters()} == {torch.float32}
    assert all(weight.requires_grad for weight in adapter.parameters())
    own = {n.replace(".base_layer.", "."): w for n, w in lm.named_parameters() if ".lora_" not in n}
    assert own.keys() == bare.keys() and all(own[name].equal(bare[name]) for name in bare)
    assert not any(weight.requires_grad for weight in own.values())
    assert len(list(adapter.parameters())) == 2 * 2 * 2 and "model.layers.1.mlp.down_proj.lora_B.weight" in dict(
        adapter.named_parameters()
    )


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def test_tuned_lms_evaluate_from_everywhere(flags, tiny_pair, gsm8k_data):
    """Both LMs are tuned and saved, and the final folder, the resume checkpoint and the files' flags give the same
    texts. Without one of the adapters the texts are others."""
    train.run([*flags, *FAST, *BOTH, "--output_name", "tuned", "--eval_strategy", "steps", "--eval_steps", "2"])
    folder = final("tuned")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    own = {f"{role}/{name}" for role in ROLES for name in (tuning.WEIGHTS_FILE, tuning.CONFIG_FILE)}
    assert files == {"projection.bin", "TransformerBlock.bin", "thoughts.json"} | own
    stored = json.loads((folder / "thoughts.json").read_text())
    assert stored["tuned"] == {role: vars(Lora()) for role in ROLES}
    assert stored["flags"]["lora_r"] == 16 and stored["flags"]["lora_target"] == "q_proj,v_proj"
    assert stored["fingerprints"] == [fingerprint(load(tiny_pair, name)) for name in ("large", "small")]
    config = json.loads((folder / "base_model" / tuning.CONFIG_FILE).read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"] and config["inference_mode"] is True
    moved = {name: value.abs().max() > 1e-3 for name, value in adapters("tuned").items() if "lora_B" in name}
    assert len(moved) == 2 * 2 + 2 and all(moved.values())
    assert not list(Path("results/tuned").glob("states-*"))

    shared = ["--data_dir", gsm8k_data, "--output_dir"]
    models = ["--base_model_id", tiny_pair / "large", "--assistant_model_id", tiny_pair / "small"]
    published = ["--params_file_name", "moved/projection.bin", "--att_file_name", "moved/TransformerBlock.bin"]
    published += ["--base_model_ckpt", "moved/base_model", "--assistant_model_ckpt", "moved/assistant_model"]
    whole = run_evaluation("--checkpoint", folder, *shared, "whole")
    assert run_evaluation("--checkpoint", "results/tuned/checkpoint-2", *shared, "resumed") == whole
    shutil.copytree(folder, "moved")
    assert run_evaluation(*models, *published[:4], *shared, "by_meta") == whole  # its thoughts.json says it all
    Path("moved/thoughts.json").unlink()
    assert run_evaluation(*models, *published, *shared, "by_flags") == whole
    settings = [json.loads(Path(name, "settings.json").read_text()) for name in ("whole", "by_meta", "by_flags")]
    assert settings[0] == settings[1] and {*own} <= settings[2].keys()
    assert {name: settings[0][name] for name in own} == {name: settings[2][name] for name in own}
    assert settings[0]["fingerprints"] == dict(zip(("large", "small"), stored["fingerprints"], strict=True))
    for left_out in (2, 4):  # each adapter has its part in what is said
        some = [*published[:4], *(published[4:6] if left_out == 2 else published[6:8])]
        assert run_evaluation(*models, *some, *shared, f"without_{left_out}") != whole


def test_adapter_of_another_llm_is_refused(checkpoint, tiny_pair, gsm8k_data, tmp_path):
    """An adapter that is named without its thoughts is for the LLM that it was trained with, too."""
    shutil.copytree(tiny_pair / "large", tmp_path / "other" / "large")
    path = tmp_path / "other" / "large" / "model.safetensors"
    save_file({name: 1.01 * value for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    bare = ["--thought_generator", "none", "--base_model_ckpt", checkpoint / "base_model", "--data_dir", gsm8k_data]
    run_evaluation("--base_model_id", tiny_pair / "large", *bare, "--output_dir", "own")
    with pytest.raises(SystemExit) as error:
        run_evaluation("--base_model_id", tmp_path / "other" / "large", *bare, "--output_dir", "of_another")
    one_line(error, "other/large: not the weights that these thoughts were trained with (thoughts.json)")


def test_tuned_llm_matches_peft(flags, checkpoint, tiny_pair, gsm8k_data, capsys):
    """The tuned LLM alone says what it says as peft loads it. Its samples are never mixed with the bare LLM's, and a
    comparison takes the adapter for what is compared."""
    train.run([*flags, *FAST, "--tune_base_model", "--lora_r", "4", "--output_name", "alone"])
    folder = final("alone")
    assert not (folder / "assistant_model").exists()
    from peft import PeftModel

    ids = torch.tensor([[5, 9, 30, 7]])
    theirs = PeftModel.from_pretrained(load(tiny_pair, "large"), str(folder / "base_model")).eval()
    ours = load(tiny_pair, "large")
    with torch.no_grad():
        bare = ours(ids).logits
        load_adapter(ours, read_adapter(folder / "base_model", "--base_model_ckpt"))
        assert torch.equal(ours(ids).logits, theirs(ids).logits) and not torch.allclose(ours(ids).logits, bare)

    shared = ["--thought_generator", "none", "--data_dir", gsm8k_data, "--base_model_id", tiny_pair / "large"]
    adapter = ["--base_model_ckpt", folder / "base_model"]
    lora, bare = run_evaluation(*shared, *adapter, "--output_dir", "lora"), run_evaluation(*shared, "--output_dir", "b")
    assert lora != bare
    assert "note: " not in capsys.readouterr().out
    assert run_evaluation("--checkpoint", folder, *shared, "--output_dir", "of_checkpoint") == bare
    assert "note: --thought_generator none: the bare LLM" in capsys.readouterr().out
    assert run_evaluation("--checkpoint", folder, *shared, *adapter, "--output_dir", "both") == lora
    for there, other in ((["lora"], []), (["b"], adapter)):
        with pytest.raises(SystemExit, match="samples were made with base_model/adapter_model.safetensors"):
            run_evaluation(*shared, *other, "--output_dir", *there)
    figures = compare("b/report.json", "lora/report.json")
    assert figures.titles == ["no thoughts, 2 samples", "no thoughts, LoRA, 2 samples"] and not figures.differ
    run_evaluation(*shared, "--base_model_ckpt", checkpoint / "base_model", "--output_dir", "other")
    assert not compare("lora/report.json", "other/report.json").differ
    evaluate.main([*map(str, [*shared, *adapter]), "--max_new_tokens", "2", "--test_k", "1"])
    assert Path(f"results/eval-none-large-gsm8k-{folder.name}/test-n0-x1-seed41-max_new_tokens2/report.json").is_file()


def test_tuned_checkpoint_works_from_python(checkpoint):
    """From Python a tuned checkpoint is loaded, asked and saved again with its adapters, which have their part in the
    answer."""
    model = lta_thinker.LatentThoughtModel.from_pretrained(checkpoint)
    model.save_pretrained("again")
    for path in checkpoint.rglob("*.safetensors"):
        first, again = load_file(path), load_file("again" / path.relative_to(checkpoint))
        assert first.keys() == again.keys() and all(first[name].equal(again[name]) for name in first)
    assert not any(weight.requires_grad for weight in model.models.thoughts.adapters.parameters())
    said = [lta_thinker.LatentThoughtModel.from_pretrained("again"), model]
    said = [one.solve("How many pens?", num_samples=3, max_new_tokens=8) for one in said]
    assert said[0] == said[1]
    for weight in model.models.thoughts.adapters["base_model"].parameters():
        weight.data.zero_()
    assert model.solve("How many pens?", num_samples=3, max_new_tokens=8) != said[0]  # the adapter is in what is said


STILL = ["--max_steps", "1", "--learning_rate", "1e-12"]
BARE = [*STILL, "--output_name", "bare"]


def test_untuned_run_mentions_no_adapters(ended):
    """A run without the flags says and saves nothing of adapters."""
    folder, printed = ended(*BARE)
    (path,) = folder.glob("ckpt/bare-*/thoughts.json")
    stored = json.loads(path.read_text())
    assert "tuned" not in stored and not any(name.startswith("lora_") for name in stored["flags"])
    assert "padding: " in printed and "lora_" not in printed
    states = load_file(folder / "results/bare/checkpoint-1/model.safetensors")
    assert not any(name.startswith("adapters") for name in states)


def test_adapters_leave_generator_start_unchanged(flags, ended):
    """With adapters the generator starts as it does without them."""
    shutil.copytree(ended(*BARE)[0] / "ckpt", "ckpt")
    train.run([*flags, *STILL, *BOTH, "--output_name", "tuned"])
    assert_close("bare", "tuned", 1e-9)


def test_states_are_kept_if_untuned(flags):
    """The small LM's states are kept only where it is not tuned."""

    def kept(*more):
        args = train.parse_flags(train.TrainArguments, [*flags, "--output_name", "x", *more], "train.py")
        return train.can_keep_states(args, num_rows=5)

    assert kept() and kept("--tune_base_model") and not kept("--tune_assistant_model")


def test_two_tuning_ranks_equal_one_process(flags):
    """With adapters too, two ranks train the weights and gradient norms of one process with twice the accumulation."""
    flags += ["--k_shot", "12", *BOTH, "--lora_dropout", "0", "--max_steps", "3"]
    two_ranks(ROOT / "train.py", *flags, "--output_name", "ranks", "--gradient_accumulation_steps", "1")
    train.run([*flags, "--output_name", "one"])
    assert_same_run("ranks", "one", 1e-6)
    grads = [[log["grad_norm"] for log in logs(name) if "grad_norm" in log] for name in ("ranks", "one")]
    assert len(grads[0]) == 3 and grads[0] == pytest.approx(grads[1], abs=1e-5)


@pytest.mark.parametrize("cut_at", [2, 3, 4])  # inside the first epoch, at its end, inside the second
def test_resumed_tuning_ends_with_same_weights(flags, ended, cut_at):
    """A resumed run with adapters ends with the weights of the run that was never cut, to the bit, inside an epoch and
    at its end. Resuming without a tuning flag is refused."""
    more = ["--k_shot", "6", "--gradient_accumulation_steps", "1", *BOTH, "--eval_strategy", "steps"]
    more += ["--eval_steps", "1", "--save_total_limit", "20", "--output_name", "cut", *FAST, "--max_steps", "5"]
    whole, flags = ended(*more)[0], [*flags, *more]
    shutil.copytree(whole / "results", "results")
    for step in range(cut_at + 1, 6):
        shutil.rmtree(f"results/cut/checkpoint-{step}")
    with pytest.raises(InputError, match="started with tune_base_model = True, not False"):
        train.run([*(flag for flag in flags if flag != "--tune_base_model"), "--resume"])
    train.run([*flags, "--resume"])
    shutil.copytree(next((whole / "ckpt").iterdir()), "ckpt/before-x")
    assert_same_run("before", "cut", 0)


def test_recomputed_tuned_layers_change_no_weight(flags):
    """Recomputed layers change no weight: with adapters the prefix has gradients, and the second pass must have the
    dropout of the first."""
    flags += [*BOTH, "--optim", "sgd", "--max_steps", "1"]
    train.run([*flags, "--output_name", "plain"])
    train.run([*flags, "--output_name", "recomputed", "--gradient_checkpointing", "True"])
    assert_same_run("plain", "recomputed", 1e-7)


def test_dev_answers_use_tuned_lms(flags, monkeypatch):
    """Dev answers are given by the tuned LMs without dropout, and with --bf16 the adapters stay float32."""
    seen, own = [], trainer.count_right

    def count_right(models, *args):
        model = models.thoughts
        seen.append((list(model.adapters), any(module.training for module in model.modules())))
        return own(models, *args)

    monkeypatch.setattr(trainer, "count_right", count_right)
    more = ["--best_metric", "accuracy", "--max_new_tokens", "4", "--max_steps", "1"]
    train.run([*flags, *BOTH, *more, "--output_name", "accuracy", "--bf16"])
    assert seen and all(one == (list(ROLES), False) for one in seen)
    assert {value.dtype for value in adapters("accuracy").values()} == {torch.float32}


def test_every_generator_trains_with_adapters(flags, kind):
    """Every generator trains with adapters, with --thoughts_see_steps too (without it and with two LMs: all others)."""
    mine = BOTH if GENERATORS[kind].uses_small_lm else BOTH[:1]
    mine = [*flags, "--thought_generator", kind, *mine, "--max_steps", "1"]
    train.run([*mine, "--output_name", "leak", "--thoughts_see_steps"])
    if kind == "block":
        train.run([*mine, "--output_name", "a"])


# ---------------------------------------------------------------------------------------------------------------------
# An adapter alone: --thought_generator none --tune_base_model

ALONE = ["--thought_generator", "none", "--tune_base_model", "--align_loss_weight", "0", "--focus_loss_weight", "0"]


def plain_lora(tiny_pair, gsm8k_data, rows: int, steps: int, rate: float):
    """peft's model and AdamW over the first rows, one by one, with nothing of ours but the text of a target."""
    from peft import get_peft_model
    from transformers import set_seed

    source = LmSource(str(tiny_pair / "large"), "--large_model_id")
    tokenizer, llm = load_tokenizer(source), load_frozen_lm(source)
    set_seed(41)
    model = get_peft_model(llm, Lora(4, 8, 0.0).config("x")).train()
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=rate, weight_decay=0.0)
    conversations = []
    for example in load_split(TASKS["gsm8k"], "train", str(gsm8k_data)).examples[:rows]:
        user = {"role": "user", "content": PROMPTS["number"]["problem"].replace("{question}", example.question)}
        answer = {"role": "assistant", "content": target_text(example, "\n")}
        settings = {"enable_thinking": False, "return_dict": True}
        prompt = tokenizer.apply_chat_template([user], add_generation_prompt=True, **settings)["input_ids"]
        whole = tokenizer.apply_chat_template([user, answer], **settings)["input_ids"]
        end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)  # behind it there is a line break
        conversations.append((whole[:end], len(prompt)))
    for _ in range(steps):
        total = 0.0
        for ids, start in conversations:
            logits = model(input_ids=torch.tensor([ids])).logits[0]
            total += F.cross_entropy(logits[start - 1 : -1], torch.tensor(ids[start:]), reduction="sum")
        (total / sum(len(ids) - start for ids, start in conversations)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_adapter_alone_equals_plain_peft(flags, tiny_pair, gsm8k_data, capsys):
    """Trained alone, the adapter is that of a plain loop with peft and AdamW. The run has one loss, and says nothing
    about thoughts. Its checkpoint has peft's files and thoughts.json."""
    rate = ["--learning_rate", "1e-2", "--lr_scheduler_type", "constant", "--max_grad_norm", "0", "--k_shot", "4"]
    lora = ["--lora_r", "4", "--lora_alpha", "8", "--lora_dropout", "0", "--sft_loss_weight", "1"]
    train.run([*flags, *ALONE, *lora, *rate, "--max_steps", "3", "--output_name", "alone"])
    printed, folder = capsys.readouterr().out, final("alone")
    assert "warning" not in printed and folder.name == "alone-gsm8k-none-10-0-large-none"
    assert {path.name for path in folder.iterdir()} == {"base_model", "thoughts.json"}
    for log in logs("alone"):
        assert not {"align_loss", "focus_loss"} & log.keys() and not any("variance" in name for name in log)
    trained, plain = load_file("results/alone/checkpoint-3/model.safetensors"), {}
    for name, weight in plain_lora(tiny_pair, gsm8k_data, rows=4, steps=3, rate=1e-2).named_parameters():
        if weight.requires_grad:
            name = name.removeprefix(tuning.FILE_PREFIX).replace(".default", "")
            plain[f"adapters.base_model.{name}"] = weight.detach()
    assert trained.keys() == plain.keys()
    assert all(value.abs().max() > 1e-2 for value in trained.values())
    for name, value in plain.items():
        torch.testing.assert_close(trained[name], value, atol=1e-5, rtol=0, msg=name)


def test_adapter_alone_is_evaluated_from_everywhere(flags, tiny_pair, gsm8k_data, capsys):
    """The checkpoint of an adapter alone, its resume checkpoint and the adapter's folder give the same texts, which are
    not the bare LLM's. It works from Python too. Thoughts, an engine and another adapter are refused."""
    train.run([*flags, *FAST, *ALONE, "--best_metric", "accuracy", "--max_new_tokens", "4", "--output_name", "alone"])
    folder, shared = final("alone"), ["--data_dir", gsm8k_data, "--output_dir"]
    best = json.loads((folder / "thoughts.json").read_text())["best"]
    assert best["metric"] == "accuracy"
    capsys.readouterr()
    whole = run_evaluation("--checkpoint", folder, *shared, "whole")
    printed = capsys.readouterr().out
    assert "note: " not in printed and "next: " not in printed  # it has no other side
    report = json.loads(Path("whole/report.json").read_text())
    assert report["thought_variance"] is None and report["checkpoint"]["run"] == "alone"
    assert report["checkpoint"]["name"] == folder.name and "eval_sft_loss" in report["checkpoint"]["dev"]
    assert run_evaluation("--checkpoint", f"results/alone/checkpoint-{best['step']}", *shared, "resumed") == whole
    bare = ["--thought_generator", "none", "--base_model_id", tiny_pair / "large"]
    assert run_evaluation(*bare, "--base_model_ckpt", folder / "base_model", *shared, "named") == whole
    assert run_evaluation("--checkpoint", folder, "--thought_generator", "none", *shared, "again") == whole
    default = ["--data_dir", gsm8k_data, "--max_new_tokens", "2", "--test_k", "1"]
    capsys.readouterr()
    evaluate.main(["--checkpoint", *map(str, (folder, *default))])
    assert "next: " not in capsys.readouterr().out
    assert run_evaluation(*bare, *shared, "bare") != whole
    title = "no thoughts, LoRA, 2 samples"
    assert compare("resumed/report.json", "whole/report.json").titles == [title, title]

    model = lta_thinker.LatentThoughtModel.from_pretrained(folder)
    model.save_pretrained("saved", report="whole/report.json")
    assert "A LoRA adapter of" in Path("saved/README.md").read_text()
    assert run_evaluation("--checkpoint", "saved", *shared, "of_saved") == whole
    asked = json.loads(whole[0])
    assert model.solve(asked["question"], 2, max_new_tokens=8).texts == asked["responses"]

    for more, message in (
        (["--backend", "vllm"], "the engine has the bare LLM, and here it is tuned; use --backend hf"),
        (["--inspect", "2"], "--inspect 2: there are no thoughts to look into"),
        (["--recipe", "paper"], "--num_thought_tokens 2: this checkpoint is an adapter alone, without thoughts"),
        (["--thought_generator", "prompt"], "the checkpoint's thoughts.json says none"),
        (["--thought_generator", "none", "--base_model_ckpt", "x"], "names the adapter already"),
    ):
        assert message in fails("--checkpoint", folder, *more, *shared, "out")
    assert not Path("out").exists()


def test_two_ranks_train_an_adapter_alone(flags):
    """Two ranks train the adapter of one process with twice the accumulation."""
    flags += ["--k_shot", "12", *ALONE, "--lora_dropout", "0", "--max_steps", "3"]
    two_ranks(ROOT / "train.py", *flags, "--output_name", "ranks", "--gradient_accumulation_steps", "1")
    train.run([*flags, "--output_name", "one"])
    assert_same_run("ranks", "one", 1e-6)


def test_adapter_alone_resumes_to_same_weights(flags):
    """A run of an adapter alone that is cut and resumed ends with the weights of the run that never was, to the bit."""
    flags += ["--k_shot", "6", "--gradient_accumulation_steps", "1", *ALONE, "--eval_strategy", "steps"]
    flags += ["--eval_steps", "1", "--save_total_limit", "20", "--output_name", "cut", *FAST, "--max_steps", "4"]
    train.run(flags)
    shutil.move("ckpt", "before")
    for step in (3, 4):
        shutil.rmtree(f"results/cut/checkpoint-{step}")
    train.run([*flags, "--resume"])
    shutil.copytree(next(Path("before").iterdir()), "ckpt/before-x")
    assert_same_run("before", "cut", 0)


# ---------------------------------------------------------------------------------------------------------------------
# Wrong input


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--lora_r 8", "--lora_r: no adapter is trained without --tune_base_model or --tune_assistant_model"),
        ("--lora_target k_proj", "--lora_target: no adapter is trained without"),
        ("--tune_base_model --lora_r 0", "--lora_r 0: must be at least 1"),
        ("--tune_base_model --lora_alpha 0", "--lora_alpha 0: must be above 0"),
        ("--tune_base_model --lora_dropout 1", "--lora_dropout 1.0: must be at least 0 and below 1"),
        ("--tune_base_model --lora_dropout nan", "--lora_dropout nan: must be finite"),
        ("--tune_base_model --lora_target q_proj,", "--lora_target q_proj,: names with commas"),
        ("--tune_assistant_model --thought_generator block", "the generator block has no small LM"),
        ("--thought_generator none", "there is nothing to train without --tune_base_model"),
        ("--thought_generator none --tune_base_model", "none reads no question: --align_loss_weight 0"),
        ("--thought_generator none --tune_base_model --num_thought_chains 2", "--num_thought_chains: it is about"),
        ("--thought_generator none --tune_base_model --params_file_name x", "--params_file_name: it is about thoughts"),
        ("--tune_base_model --sft_loss_weight 0", "no other loss reads what the large LLM says"),
    ],
)
def test_wrong_tuning_flags_are_refused(flags, wrong, message):
    """Wrong tuning flags are refused in one line, and nothing is written."""
    with pytest.raises(InputError) as error:
        train.run([*flags, "--output_name", "wrong", *wrong.split()])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not Path("ckpt").exists() and not Path("results").exists()


def test_any_dropout_below_one_is_a_dropout(flags):
    """--lora_dropout 0 and 0.9 are taken."""
    for dropout in ("0", "0.9"):
        given = [*flags, "--output_name", "x", "--tune_base_model", "--lora_dropout", dropout]
        assert parse_flags(TrainArguments, given, "train.py").lora_dropout == float(dropout)


@pytest.mark.parametrize("target", ["query", "lm_head", "embed_tokens", "self_attn", "proj"])
def test_impossible_lora_targets_are_refused(tiny_pair, target):
    """A target that is no linear layer below the head is refused, and the message names those that are."""
    with pytest.raises(InputError) as error:
        inject(load(tiny_pair, "large"), Lora(target=f"q_proj,{target}").config("x"), "--lora_target")
    assert f"has no linear layer '{target}' to tune; it has down_proj, gate_proj, k_proj, o_proj" in str(error.value)


@pytest.mark.parametrize(("version", "said"), [(None, "peft is missing"), ("0.9.0", "peft 0.9.0 is too old")])
def test_missing_or_old_peft_is_refused(flags, monkeypatch, version, said):
    """A missing or old peft is refused in both scripts."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: version)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(InputError, match=f'--tune_base_model: {said}; pip install "peft>='):
        train.run([*flags, "--output_name", "wrong", "--tune_base_model"])
    with pytest.raises(InputError, match=f"--base_model_ckpt: {said}"):
        read_adapter(Path("folder"), "--base_model_ckpt")


def change_config(**values):
    def change(folder: Path):
        path = folder / "base_model" / tuning.CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def change_weights(change):
    def write(folder: Path):
        path = folder / "base_model" / tuning.WEIGHTS_FILE
        state = load_file(path)
        change(state)
        save_file(state, path)

    return write


BROKEN = [  # what is done to the checkpoint's folder, flags besides it, what is said
    (lambda folder: shutil.rmtree(folder / "assistant_model"), "", "trained with an adapter, ckpt/run"),
    (lambda folder: (folder / "base_model" / tuning.CONFIG_FILE).unlink(), "", "adapter_config.json: no such file"),
    (lambda folder: (folder / "base_model" / tuning.CONFIG_FILE).write_text("{"), "", "not the folder of a LoRA"),
    (lambda folder: (folder / "base_model" / tuning.WEIGHTS_FILE).write_text(""), "", "not the folder of a LoRA"),
    (change_config(r=8), "", "is (16, 32), "),
    (change_config(target_modules=["q_proj"]), "", "unknown tensor model.layers.0.self_attn.v_proj.lora_A.weight"),
    (change_config(target_modules=["q_proj", "v_proj", "o_proj"]), "", "no tensor model.layers.0.self_attn.o_proj"),
    (change_config(target_modules=["query"]), "", "has no linear layer 'query' to tune"),
    (change_config(target_modules="nothing.*"), "", "Target modules nothing.* not found"),
    (change_config(target_modules=".*embed_tokens"), "", "it tunes model.embed_tokens; only linear layers"),
    (change_config(target_modules="lm_head"), "", "it tunes lm_head; only linear layers below the head"),
    (change_config(use_dora=True), "", "use_dora = True; only plain LoRA is read"),
    (change_config(init_lora_weights="pissa"), "", "init_lora_weights = pissa; only plain LoRA is read"),
    (change_config(peft_type="IA3"), "", "says IA3, not LORA"),
    (change_weights(lambda state: next(iter(state.values())).fill_(math.nan)), "", "values that are not finite"),
    (None, "--base_model_ckpt x", "--checkpoint names the adapters already"),
    (None, "--thought_generator none --assistant_model_ckpt x", "without thoughts there is no small LM"),
    (None, "--thought_generator none --base_model_ckpt x", "--base_model_ckpt x/adapter_model.safetensors: no such"),
]


@pytest.mark.parametrize(("break_it", "more", "message"), BROKEN)
def test_adapters_that_misfit_are_refused(checkpoint, gsm8k_data, break_it, more, message):
    """An adapter that is missing, broken, or does not fit the LM or our reader is refused in one line, and no sample is
    written; also beside a thoughts.json that has no digests."""
    path = checkpoint / "thoughts.json"
    if break_it:
        break_it(checkpoint)
        with pytest.raises(InputError, match="the checkpoint had it|not the file that"):
            TrainingRecord.read(checkpoint).check_files(checkpoint)
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "files"})
        )
    with pytest.raises(SystemExit) as stop:
        run_evaluation("--checkpoint", checkpoint, "--data_dir", gsm8k_data, *more.split(), "--output_dir", "out")
    said = str(stop.value.code)
    assert message in said and said.startswith("error: ") and "\n" not in said
    assert not list(Path("out").glob("*"))


def test_contradicting_adapter_flags_are_refused(checkpoint, ended, tiny_pair, gsm8k_data):
    """Adapter flags that contradict thoughts.json or the generator, and a broken entry in thoughts.json, are
    refused."""
    (bare,) = (ended(*BARE)[0] / "ckpt").iterdir()
    files = ["--params_file_name", bare / "projection.bin", "--att_file_name", bare / "TransformerBlock.bin"]
    models = [*pair_flags(tiny_pair), "--data_dir", gsm8k_data]
    with pytest.raises(SystemExit, match="thoughts.json says that these thoughts were trained with the bare LM"):
        run_evaluation(*files, *models, "--base_model_ckpt", checkpoint / "base_model", "--output_dir", "out")
    block = [*published(Path("published"), 32, block=True), "--num_thought_tokens", "4"]
    with pytest.raises(SystemExit, match="the generator block has no small LM"):
        run_evaluation(*block, *models, "--assistant_model_ckpt", checkpoint / "assistant_model", "--output_dir", "out")
    path = checkpoint / "thoughts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tuned": {"base_model": 3}}))
    with pytest.raises(SystemExit, match="tuned.base_model: is 3, not Lora"):
        run_evaluation("--checkpoint", checkpoint, "--output_dir", "out")
