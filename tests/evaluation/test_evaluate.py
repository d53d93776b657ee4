"""evaluate.py: which thoughts run, what is an error, resuming, one rank against two."""

import itertools
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import CHAT_TEMPLATE, D_LARGE, D_SMALL, ROOT, N, pair_flags, published, record_of, two_ranks
from safetensors.torch import load_file, save_file

from lta_thinker import evaluate
from lta_thinker.checkpoint import META_FILE, save_checkpoint
from lta_thinker.generation.samplers import Sampler
from lta_thinker.weights import ATT_FILE, PARAMS_FILE


def samples_of(folder) -> list[dict]:
    return [json.loads(line) for line in (Path(folder) / "samples.jsonl").read_text().splitlines()]


def texts_of(folder) -> list[list[str]]:
    return [record["responses"] for record in samples_of(folder)]


# ---------------------------------------------------------------------------------------------------------------------
# Which thoughts run


def test_checkpoint_can_be_named_two_ways(run, checkpoints, tiny_pair):
    """The files' flags and --checkpoint give the same texts, with n of N thoughts. The report, the samples and the
    printed lines have all that is promised."""
    files = [checkpoints / "small_block" / name for name in (PARAMS_FILE, ATT_FILE)]
    common = ["--batch_size", "4", "--task_name", "gsm8k", "--num_thought_tokens", "2", "--num_return_sequences", "3"]
    flags = [*pair_flags(tiny_pair), "--params_file_name", files[0], "--att_file_name", files[1], *common]
    printed = run(*flags, "--print_response", "--print_input")
    folder = Path("results/eval-small_block/test-n2-x3-seed41-max_new_tokens4")
    lines = samples_of(folder)
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert set(lines[0]) == {"index", "question", "options", "gold", "responses", "num_tokens", "finished", "scores"}
    graded = [json.loads(line) for line in (folder / "graded.jsonl").read_text().splitlines()]
    assert set(graded[0]) == {"index", "question", "gold", "answers", "hits", "vote", "correct"} and len(graded) == 4
    assert all(line["responses"][0].strip() in printed and line["question"] in printed for line in lines)
    assert printed.count("<2 thoughts>") == 4
    figures = json.loads((folder / "report.json").read_text())
    assert set(figures["vote_accuracy"]) == set(figures["sample_accuracy"]) == {"value", "low", "high"}
    assert list(figures["maj_at_k"]) == list(figures["pass_at_k"]) == ["1", "2", "3"]
    assert figures["settings"]["sampling"]["temperature"] == 0.7  # Qwen3's published setting
    assert (figures["settings"]["num_thought_tokens"], figures["settings"]["num_thoughts_made"]) == (2, N)
    written = {"settings": figures["settings"], "starts": figures["starts"]}
    assert written["settings"] | {"starts": written["starts"]} == json.loads((folder / "settings.json").read_text())
    assert figures["starts"] == [figures["versions"]]
    assert figures["thought_variance"]["over_questions"] > 0 < figures["thought_variance"]["over_slots"]
    assert figures["speed"]["tokens"] > 0 and "vote of 3" in printed

    run("--checkpoint", checkpoints / "small_block", *common[-4:], "--output_dir", "by_checkpoint")
    assert texts_of("by_checkpoint") == texts_of(folder)


@pytest.mark.parametrize("kind", ["block", "small"])
def test_generators_run_from_checkpoint_alone(run, checkpoints, kind):
    """--checkpoint alone is enough: generator, ids, task and N come from thoughts.json."""
    assert "one sample, % right" in run("--checkpoint", checkpoints / kind)
    settings = json.loads(Path(f"results/eval-{kind}/test-n{N}-x1-seed41-max_new_tokens4/settings.json").read_text())
    assert (settings["thought_generator"], settings["num_thought_tokens"]) == (kind, N)
    assert (settings["assistant_model_id"] is None) == (kind == "block")


def test_none_runs_the_llm_alone(run, checkpoints, tiny_pair):
    """Without thoughts the LLM gives the same texts by ids or with a checkpoint's ids, prompts and task. With thoughts
    it gives others."""
    run("--base_model_id", tiny_pair / "large", "--thought_generator", "none")
    run("--checkpoint", checkpoints / "small_block", "--thought_generator", "none", "--output_dir", "other")
    assert texts_of("results/eval-none-large-gsm8k/test-n0-x1-seed41-max_new_tokens4") == texts_of("other")
    assert json.loads(Path("other/report.json").read_text())["thought_variance"] is None
    run("--checkpoint", checkpoints / "small_block", "--output_dir", "thoughts")
    assert texts_of("thoughts") != texts_of("other")


@pytest.mark.parametrize(("kind", "d_in", "block"), [("block", D_LARGE, True), ("small", D_SMALL, False)])
def test_published_weights_are_evaluated(run, tiny_pair, tmp_path, kind, d_in, block):
    """Plain state dicts with the published names load, and the generator is found. It makes 32 thoughts, and the first
    n are injected."""
    files = published(tmp_path / "weights", d_in, block)
    printed = run(*pair_flags(tiny_pair), *files, "--num_thought_tokens", "2", "--output_dir", "out")
    settings = json.loads(Path("out/settings.json").read_text())
    assert [settings[key] for key in ("thought_generator", "num_thoughts_made", "num_thought_tokens")] == [kind, 32, 2]
    assert ("no learnable prior" in printed) == block
    assert "--num_thought_tokens is needed" in run(*pair_flags(tiny_pair), *files)


def test_only_n_thoughts_are_made(run, checkpoints):
    """--make_only_n makes n thoughts, which are not the first n of N. Its answers and the others stay apart."""
    flags = ["--checkpoint", checkpoints / "block", "--num_thought_tokens", "2"]
    printed = run(*flags, "--make_only_n", "--output_dir", "only")
    assert "note: 2 thoughts made, 4 were trained together (--make_only_n)\n" in printed
    report = json.loads(Path("only/report.json").read_text())
    assert [report["settings"][key] for key in ("num_thoughts_made", "num_thought_tokens")] == [2, 2]
    assert report["thought_variance"]["num_thoughts"] == 2
    assert "note: 2 of 4 thoughts go into the prompt" in run(*flags, "--output_dir", "first")
    scores = [[line["scores"] for line in samples_of(folder)] for folder in ("only", "first")]
    assert scores[0] != scores[1]
    assert "made with num_thoughts_made = 2, now it is 4" in run(*flags, "--output_dir", "only")
    assert "made with num_thoughts_made = 4, now it is 2" in run(*flags, "--make_only_n", "--output_dir", "first")


def test_answers_of_other_slots_stay_apart(run, tiny_pair, tmp_path):
    """An evaluation with --distinct_slot_ids goes on with it, and one without goes on without."""
    files = published(tmp_path / "weights", D_SMALL, False)
    flags = [*pair_flags(tiny_pair), *files, "--num_thought_tokens", "2"]
    run(*flags, "--output_dir", "one")
    run(*flags, "--distinct_slot_ids", "--output_dir", "distinct")
    assert texts_of("one") != texts_of("distinct")
    assert "distinct_slot_ids = None, now it is True" in run(*flags, "--distinct_slot_ids", "--output_dir", "one")
    assert "distinct_slot_ids = True, now it is None" in run(*flags, "--output_dir", "distinct")
    block = [*pair_flags(tiny_pair), *published(tmp_path / "block", D_LARGE, True), "--num_thought_tokens", "2"]
    assert "the generator block has no small LM" in run(*block, "--distinct_slot_ids")


def test_generator_is_found_from_files(run, tiny_pair, tmp_path):
    """An att file and a projection from d_small make small_block. Equal sizes leave the generator open: then the flag
    is required."""
    files = published(tmp_path / "weights", D_SMALL, True)
    printed = run(*pair_flags(tiny_pair), *files, "--num_thought_tokens", "2")
    assert " with 2 thoughts of small_block behind " in printed
    files = published(tmp_path / "equal", D_LARGE, True)
    equal = ["--base_model_id", tiny_pair / "large", "--assistant_model_id", tiny_pair / "large", *files]
    assert "error: --thought_generator is needed" in run(*equal, "--num_thought_tokens", "2")
    printed = run(*equal, "--num_thought_tokens", "2", "--thought_generator", "small_block")
    assert " thoughts of small_block behind " in printed


def test_prior_rows_count_the_thoughts(run, checkpoints, tiny_pair, tmp_path):
    """Weights with a prior but without thoughts.json make as many thoughts as the prior has rows, and no more."""
    for name in (PARAMS_FILE, ATT_FILE):
        shutil.copy(checkpoints / "block" / name, tmp_path / name)
    files = ["--params_file_name", tmp_path / PARAMS_FILE, "--att_file_name", tmp_path / ATT_FILE]
    run(*pair_flags(tiny_pair), *files, "--output_dir", "out")
    run("--checkpoint", checkpoints / "block", "--output_dir", "same")
    assert texts_of("out") == texts_of("same")
    assert "make only 4 thoughts" in run(*pair_flags(tiny_pair), *files, "--num_thought_tokens", "5")
    assert not run(*pair_flags(tiny_pair), *files, "--num_thought_tokens", "4").startswith("error")


# ---------------------------------------------------------------------------------------------------------------------
# What is an error, in one line and before a model is loaded


CKPT = "CKPT"  # stands for the small_block checkpoint

ERRORS = {
    "n > N": (["--checkpoint", CKPT, "--num_thought_tokens", "5"], "makes only 4 thoughts"),
    "other generator": (["--checkpoint", CKPT, "--thought_generator", "block"], "says small_block"),
    "assistant flag": (
        ["--checkpoint", CKPT, "--use_assistant_model"],
        "--thought_generator small: .* says small_block",
    ),
    "other LLM": (["--checkpoint", CKPT, "--base_model_id", "Qwen/Qwen3-4B"], "Qwen3-4B: .* trained with .*large"),
    "other small LM": (["--checkpoint", CKPT, "--assistant_model_id", "x/y"], "x/y: .* trained with .*small"),
    "no thoughts named": ([], "which thoughts"),
    "no checkpoint there": (
        ["--checkpoint", "nowhere"],
        "--checkpoint nowhere: no such folder, and no run of that name; there are no weights in ckpt/",
    ),
    "no params there": (["--params_file_name", "no.bin"], "no.bin: no such file"),
    "att alone": (["--att_file_name", f"{CKPT}/{ATT_FILE}"], f"small_block needs {PARAMS_FILE}"),
    "att alone with none": (["--thought_generator", "none", "--att_file_name", "b.bin"], "injects no thoughts"),
    "att missing": (["--params_file_name", f"{CKPT}/{PARAMS_FILE}"], f"small_block needs {ATT_FILE}"),
    "both": (["--checkpoint", CKPT, "--params_file_name", f"{CKPT}/{PARAMS_FILE}"], "--params_file_name"),
    "none with files": (
        ["--thought_generator", "none", "--params_file_name", f"{CKPT}/{PARAMS_FILE}"],
        "none injects no thoughts",
    ),
    "not weights": (
        ["--params_file_name", f"{CKPT}/{META_FILE}", "--att_file_name", f"{CKPT}/{ATT_FILE}"],
        "not a PyTorch file",
    ),
    "greedy, many": (["--checkpoint", CKPT, "--greedy", "--num_return_sequences", "2"], "--greedy .* the same"),
    "temperature": (["--checkpoint", CKPT, "--temperature", "0"], "--temperature 0.0: must be above 0"),
    "task": (["--checkpoint", CKPT, "--task_name", "poetry"], "poetry: no such task"),
    "split": (["--checkpoint", CKPT, "--split", "tests"], "tests: no such split"),
    "batch": (["--checkpoint", CKPT, "--batch_size", "0"], "--batch_size 0"),
    "batch, no number": (["--checkpoint", CKPT, "--batch_size", "abc"], "--batch_size abc: .* or auto"),
    "no thoughts": (["--checkpoint", CKPT, "--num_thought_tokens", "0"], "--thought_generator none"),
    "none made": (
        ["--thought_generator", "none", "--make_only_n", "--num_thought_tokens", "2"],
        "--make_only_n: without",
    ),
    "make only what": (["--checkpoint", CKPT, "--make_only_n"], "--make_only_n needs --num_thought_tokens"),
    "other slots": (["--checkpoint", CKPT, "--distinct_slot_ids"], "--distinct_slot_ids True: .* says False"),
    "unknown flag": (["--checkpoint", CKPT, "--temprature", "1"], "--temprature"),
    "nothing in a flag": (["--thought_generator", "none", "--base_model_id", ""], "--base_model_id '': nothing in it"),
    "infinite temperature": (["--checkpoint", CKPT, "--temperature", "inf"], "--temperature inf: must be finite"),
    "top_p that is none": (["--checkpoint", CKPT, "--top_p", "nan"], "--top_p nan: must be finite"),
    "nothing for a folder": (["--checkpoint", CKPT, "--output_dir", ""], "--output_dir '': nothing in it"),
    "one file with none": (["--thought_generator", "none", "--att_file_name", "b.bin"], "leave --att_file_name out"),
    "one file with both": (["--checkpoint", CKPT, "--att_file_name", "b.bin"], "already: leave --att_file_name out"),
    "no number": (["--checkpoint", CKPT, "--seed", "one"], "invalid int value"),
    "missing LLM": (
        ["--base_model_id", "Qwen/Qwen3-8B-Instruct", "--thought_generator", "none"],
        "near it: Qwen/Qwen3-8B",
    ),
}


def test_missing_block_is_named(run, tiny_pair, tmp_path):
    """A published final folder has no TransformerBlock.bin. Where the generator needs it, the error names that file."""
    params = published(tmp_path / "final", D_LARGE, False)
    for more in ([], ["--thought_generator", "block"]):
        error = run(*pair_flags(tiny_pair), *params, "--num_thought_tokens", "2", *more)
        assert re.fullmatch(f"error: --att_file_name: .*{ATT_FILE}.*", error), error
    error = run(*pair_flags(tiny_pair), "--checkpoint", tmp_path / "final", "--thought_generator", "block")
    assert f"final/{META_FILE}: no such file" in error and f"no {ATT_FILE} either" in error and "\n" not in error
    published(tmp_path / "whole", D_LARGE, True)
    error = run(*pair_flags(tiny_pair), "--checkpoint", tmp_path / "whole")
    assert "--att_file_name" in error and ATT_FILE not in error


@pytest.mark.parametrize(("flags", "reason"), ERRORS.values(), ids=ERRORS)
def test_wrong_evaluation_flags_are_refused(run, checkpoints, monkeypatch, flags, reason):
    """Wrong flags end in one line that starts with `error:`. No LM is loaded and nothing is written."""
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("a model was loaded"))
    error = run(*(flag.replace(CKPT, str(checkpoints / "small_block")) for flag in flags))
    assert re.fullmatch(f"error: .*{reason}.*", error), error
    assert os.listdir() == []


def test_messages_name_what_was_given(run, checkpoints, tiny_models, tiny_pair, tmp_path, monkeypatch):
    """A message names the flag that the user gave, not those that --checkpoint, --recipe or thoughts.json stand for."""
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("a model was loaded"))
    model = tiny_models.model("prompt", 1)
    save_checkpoint(tmp_path / "few", model, record_of(model, large_model_id=str(tiny_pair / "large")))
    said = run("--checkpoint", "few", "--recipe", "paper")
    assert said == "error: --recipe paper's --num_thought_tokens 2: this checkpoint makes only 1 thought"
    assert run("--checkpoint", "few", "--num_thought_tokens", "3").startswith("error: --num_thought_tokens 3: this")
    for name in (PARAMS_FILE, ATT_FILE):
        folder = shutil.copytree(checkpoints / "small_block", tmp_path / name)
        torch.save({"weight": torch.zeros(2, 2)}, folder / name)
        said = run("--checkpoint", folder)
        assert said.startswith(f"error: {folder / name}: ") and "_file_name" not in said
        (folder / name).unlink()
        assert run("--checkpoint", folder).startswith(f"error: {folder / name}: no such file")
    gone = tmp_path / "gone" / "large"
    save_checkpoint(tmp_path / "moved", model, record_of(model, large_model_id=str(gone)))
    assert run("--checkpoint", "moved").startswith(f"error: thoughts.json's --base_model_id {gone}: no such folder")


def test_models_of_other_sizes_are_refused(run, checkpoints, tiny_pair, tmp_path, monkeypatch):
    """A model that was moved to another folder is the same model. One of another size under the same name is
    refused."""
    moved = shutil.copytree(tiny_pair / "large", tmp_path / "moved" / "large")
    assert "% right" in run("--checkpoint", checkpoints / "small_block", "--base_model_id", f"{moved}/")
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"intermediate_size": 80}))
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("a model was loaded"))
    error = run("--checkpoint", checkpoints / "small_block", "--base_model_id", moved)
    assert error == f"error: {META_FILE}: d_ff was 64 in training, these models and flags have 80"


def other_weights(tiny_pair, folder: Path) -> Path:
    """A copy of the large model, of the same name, with one tensor changed."""
    shutil.copytree(tiny_pair / "large", folder / "large")
    path = folder / "large" / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"] += 0.01
    save_file(weights, path, metadata={"format": "pt"})
    return folder / "large"


def test_llm_with_other_weights_is_refused(run, checkpoints, tiny_pair, tmp_path):
    """An LLM of the same name with other weights is refused: thoughts are for the LLM that they were trained with."""
    model = other_weights(tiny_pair, tmp_path)
    error = run("--checkpoint", checkpoints / "small", "--base_model_id", model)
    assert error.startswith("error: ") and "not the weights that these thoughts were trained with" in error


def test_flags_say_where_lms_are_now(run, trained, tiny_pair, tmp_path):
    """LMs whose folders are gone since the training are found where flags say; without these the line names them."""
    shutil.copytree(trained, tmp_path / "moved")
    values = json.loads((tmp_path / "moved" / META_FILE).read_text())
    gone = {f"{role}_model_id": f"pair/{role}" for role in ("large", "small")}
    gone |= {f"{role}_model_path": f"/gone/pair/{role}" for role in ("large", "small")}
    (tmp_path / "moved" / META_FILE).write_text(json.dumps(values | gone))
    flags = ("--checkpoint", tmp_path / "moved", "--task_name", "gsm8k")
    assert "/gone/pair/large: no such folder" in run(*flags)
    printed = run(*flags, *pair_flags(tiny_pair))
    assert "one sample" in printed


def test_speed_is_questions_over_seconds(run, checkpoints, tiny_pair, monkeypatch):
    """The report's speed is that of this start: its questions over the seconds in which they were answered."""
    clock = itertools.count(100, 2)  # two seconds between a look at it and the next
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(time=lambda: next(clock)))
    run("--checkpoint", checkpoints / "small", "--base_model_id", tiny_pair / "large", "--output_dir", "out")
    assert json.loads(Path("out/report.json").read_text())["speed"]["questions"] == 4 / 2


def test_auto_counts_prompt_and_thoughts(monkeypatch):
    """--batch_size auto is told the longest prompt with its thoughts, and how many questions there are."""
    told = []
    monkeypatch.setattr(evaluate, "auto_batch_size", lambda *given: told.append(given) or 7)
    requests = [SimpleNamespace(length=length) for length in (5, 9, 3)]
    args, models = SimpleNamespace(batch_size="auto"), SimpleNamespace(llm="llm")
    assert evaluate.choose_batch_size(args, models, "sampling", requests, 4) == 7
    assert told == [("llm", "sampling", 13, 3)]


@pytest.mark.parametrize(
    ("role", "change"),
    [("large", "another chat template"), ("small", "another chat template")]
    + [("large", "another pad token"), ("small", "other merges")],
)
def test_other_tokenizers_are_refused(role, change, run, trained, tiny_pair, tmp_path):
    """Thoughts are for the tokenizers and chat templates that they were trained with: others are refused, whatever the
    weights' fingerprints say."""
    shutil.copytree(tiny_pair, tmp_path / "pair")
    folder = tmp_path / "pair" / role
    if change == "another chat template":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("<|im_end|>\\n", "<|im_end|>"))
    elif change == "another pad token":
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<|im_start|>"}))
    else:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:20]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    models = ("--base_model_id", tmp_path / "pair" / "large", "--assistant_model_id", tmp_path / "pair" / "small")
    error = run("--checkpoint", trained, *models)
    assert f"pair/{role}: not the tokenizer or chat template that these thoughts were trained with" in error


# what no weight and no size shows
CONFIGS = {"another rotary base": {"rope_theta": 1e6}, "another activation": {"hidden_act": "gelu"}}


def with_config(pair, role, changes):
    """Change an LM's config.json in a folder of two."""
    path = pair / role / "config.json"
    config = json.loads(path.read_text())
    if "rope_theta" in changes and "rope_parameters" in config:  # transformers 5
        changes = {"rope_parameters": config["rope_parameters"] | changes}
    path.write_text(json.dumps(config | changes))


@pytest.mark.parametrize("role", ["large", "small"])
@pytest.mark.parametrize("change", CONFIGS)
def test_lms_that_compute_otherwise_are_refused(role, change, run, trained, tiny_pair, tmp_path):
    """LMs with the weights of the training and a config that differs: what they compute is compared too."""
    pair = tmp_path / "pair"
    shutil.copytree(tiny_pair, pair)
    models = ("--base_model_id", pair / "large", "--assistant_model_id", pair / "small")
    with_config(pair, role, CONFIGS[change])
    error = run("--checkpoint", trained, *models)
    assert f"pair/{role}: its weights are those of the training, what it computes is not" in error


def test_answers_of_an_llm_that_computes_otherwise_stay_apart(run, tiny_pair, tmp_path):
    """A folder is not gone on with by an LLM of the same weights and another config."""
    shutil.copytree(tiny_pair, tmp_path / "pair")
    flags = ("--base_model_id", tmp_path / "pair" / "large", "--thought_generator", "none", "--output_dir", "out")
    run(*flags)
    with_config(tmp_path / "pair", "large", CONFIGS["another rotary base"])
    assert "computes otherwise" in run(*flags, "--test_k", "8")


def test_answers_of_replaced_llm_stay_apart(run, tiny_pair, tmp_path):
    """The same folder and flags with other weights on disk: the run does not go on, and the old answers stay."""
    model = tmp_path / "model" / "large"
    shutil.copytree(tiny_pair / "large", model)
    flags = ("--base_model_id", model, "--thought_generator", "none", "--output_dir", "out")
    run(*flags)
    before = samples_of("out")
    other_weights(tiny_pair, tmp_path)
    shutil.copy(tmp_path / "large" / "model.safetensors", model)
    error = run(*flags, "--test_k", "8")
    assert "fingerprints.large" in error and samples_of("out") == before


def test_impossible_output_folder_is_refused_early(run, checkpoints, tmp_path, monkeypatch):
    """An output folder that cannot be made is refused in one line, before the LLM is loaded."""
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "file").touch()
    error = run("--checkpoint", checkpoints / "small", "--output_dir", tmp_path / "file" / "out")
    assert error.startswith("error: ") and "cannot be made" in error and "\n" not in error


def test_missing_data_folder_is_refused(run, checkpoints, monkeypatch):
    """Where there are neither files nor a hub, one line says what to put where."""
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("a model was loaded"))
    error = run("--checkpoint", checkpoints / "small", "--data_dir", "nowhere", data=False)
    assert error.startswith("error: nowhere/gsm8k: no test_socratic.jsonl") and "\n" not in error


def test_departures_from_training_are_noted(run, checkpoints, tmp_path):
    """The checkpoint's prompts are used, whatever the code's are. Another dtype and other prompts are noted."""
    folder = shutil.copytree(checkpoints / "small", tmp_path / "small")
    meta = json.loads((folder / META_FILE).read_text())
    meta["prompts"] = {name: "Well: " + prompt for name, prompt in meta["prompts"].items()}
    (folder / META_FILE).write_text(json.dumps(meta))
    printed = run("--checkpoint", folder, "--dtype", "bfloat16", "--print_input")
    assert "note: --dtype bfloat16; the thoughts were trained with float32" in printed
    assert "note: the prompt" not in printed and printed.count("Well: Solve the problem") >= 4
    (tmp_path / "prompts.json").write_text(json.dumps({"problem": "Oh: {question}"}))
    asked = ["--checkpoint", folder, "--prompt_file", tmp_path / "prompts.json", "--print_input"]
    printed = run(*asked)
    (of_prompts,) = Path("results/eval-small").glob("*-prompts-*")  # their own folder, by eight digits of their digest
    assert re.fullmatch("[0-9a-f]{8}", of_prompts.name.rpartition("-prompts-")[2])
    assert "note: the prompt 'problem' is not the one that the thoughts were trained with" in printed
    assert "note: the prompt 'generator'" not in printed
    assert printed.count("Oh: ") >= 4 and "Well: Solve" not in printed


# ---------------------------------------------------------------------------------------------------------------------
# Samples: the same for every batch size and number of ranks, and after a kill


def test_batch_size_changes_no_text(run, checkpoints):
    """Batch sizes 1, 3 and auto give identical texts for questions of mixed lengths, in float32 on the CPU."""
    flags = ["--checkpoint", checkpoints / "small_block", "--num_return_sequences", "2", "--test_k", "5"]
    for size in ("1", "3", "auto"):
        printed = run(*flags, "--batch_size", size, "--output_dir", size)
        assert ("  batch_size = 5 (auto): a question takes up to" in printed) == (size == "auto")
    assert len(texts_of("1")) == 5
    assert texts_of("1") == texts_of("3") == texts_of("auto")


def test_two_ranks_give_texts_of_one(run, checkpoints, gsm8k_data):
    """Two ranks write the samples.jsonl of one process, report once, and leave no files of a rank."""
    flags = ["--checkpoint", str(checkpoints / "small_block"), "--num_return_sequences", "2", "--test_k", "5"]
    flags += ["--data_dir", str(gsm8k_data), "--max_new_tokens", "8", "--batch_size", "2"]
    run(*flags, "--output_dir", "one", data=False)
    printed = two_ranks(ROOT / "evaluate.py", *flags, "--output_dir", "two")
    assert printed.count("one sample, % right") == 1
    assert sorted(os.listdir("two")) == ["graded.jsonl", "report.html", "report.json", "samples.jsonl", "settings.json"]
    assert texts_of("two") == texts_of("one")


def test_killed_evaluation_continues_where_it_stopped(run, checkpoints, whole, monkeypatch):
    """After a kill in the middle of a line only the missing questions are asked, and the texts are those of one run."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--batch_size", "1"]
    shutil.copytree(whole, "cut")
    path = Path("cut/samples.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[2])  # as after a run with two ranks: some lines in each file, the last one torn
    Path("cut/samples.rank1.jsonl").write_text(lines[0] + lines[3][:20])
    Path("cut/report.json").unlink()
    asked = []
    answers = Sampler.answers

    def watch(sampler, requests):
        asked.extend(request.example.index for request in requests)
        return answers(sampler, requests)

    monkeypatch.setattr(Sampler, "answers", watch)
    run(*flags, "--output_dir", "cut", "--batch_size", "8")
    assert asked == [1, 3]
    assert texts_of("cut") == texts_of(whole)
    assert sorted(os.listdir("cut")) == ["graded.jsonl", "report.html", "report.json", "samples.jsonl", "settings.json"]
    one, other = (json.loads(Path(folder, "report.json").read_text()) for folder in (whole, "cut"))
    assert one["thought_variance"] == pytest.approx(other["thought_variance"])
    assert one["vote_accuracy"] == other["vote_accuracy"]

    run(*flags, "--output_dir", "cut")  # finished: nothing is asked, the report is made again
    assert asked == [1, 3]
    assert json.loads(Path("cut/report.json").read_text())["speed"] is None


def test_empty_run_does_not_bind_next(run, checkpoints):
    """A run that ended before its first answer does not bind the next one to its settings."""
    flags = ["--checkpoint", checkpoints / "small", "--test_k", "1", "--output_dir", "out"]
    Path("out").mkdir()
    Path("out/settings.json").write_text('{"backend": "vllm"}')
    Path("out/samples.jsonl").touch()
    run(*flags)
    assert json.loads(Path("out/settings.json").read_text())["split"] == "test"


def test_folder_with_other_settings_stays_untouched(run, checkpoints, whole):
    """Other settings than the folder's are refused in one line that names the first that differs, and the files stay as
    they are. Flags that decide no text may change."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", "out"]
    shutil.copytree(whole, "out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    for more, key in ((["--seed", "5"], "sampling.seed"), (["--num_thought_tokens", "1"], "num_thought_tokens")):
        error = run(*flags, *more)
        assert error.startswith(f"error: out: its samples were made with {key} = ")
        assert error.endswith("use another --output_dir")
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    assert "% right" in run(*flags, "--batch_size", "3", "--print_response")  # these decide no text
