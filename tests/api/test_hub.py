"""The Python door: checkpoints from folders and from the hub, back to them, the model card, and what is refused."""

import json
import os
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from helpers import cache_with, record_of, train_flags
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from lta_thinker import LatentThoughtModel, build, evaluate, train
from lta_thinker.api import WEIGHTS_ON_HUB
from lta_thinker.checkpoint import META_FILE, TrainingRecord
from lta_thinker.common import InputError
from lta_thinker.evaluation.card import model_card
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.report import Report, figure_rows
from lta_thinker.llm.lora import Lora
from lta_thinker.training.flags import TrainArguments
from lta_thinker.weights import ATT_FILE, PARAMS_FILE

FILES = sorted([ATT_FILE, META_FILE, PARAMS_FILE, "README.md"])


@pytest.fixture(scope="module")
def model(trained) -> LatentThoughtModel:
    return LatentThoughtModel.from_pretrained(trained)


@pytest.fixture(scope="module")
def reports(trained, tiny_pair, gsm8k_data, tmp_path_factory) -> dict[str, Path]:
    """report.json of the checkpoint, of its bare LLM, and of the same on other questions."""
    folder = tmp_path_factory.mktemp("reports")
    bare = ["--base_model_id", str(tiny_pair / "large"), "--thought_generator", "none"]
    common = ["--data_dir", str(gsm8k_data), "--max_new_tokens", "8", "--num_return_sequences", "3"]
    for name, flags in {
        "thoughts": ["--checkpoint", str(trained), "--num_thought_tokens", "2", "--test_k", "4"],
        "bare": [*bare, "--test_k", "4"],
        "fewer": [*bare, "--test_k", "3"],
    }.items():
        evaluate.main([*flags, *common, "--output_dir", str(folder / name)])
    return {path.name: path / "report.json" for path in folder.iterdir()}


def one_line(call, *args, **kwargs) -> str:
    """The one line that a refused call raises."""
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def same_weights(one: LatentThoughtModel, other: LatentThoughtModel) -> bool:
    wanted = other.models.thoughts.state_dict()
    own = one.models.thoughts.state_dict()
    return own.keys() == wanted.keys() and all(torch.equal(value, wanted[name]) for name, value in own.items())


# ---------------------------------------------------------------------------------------------------------------------
# Folders


def test_from_pretrained_loads_whole_model(trained, model, monkeypatch):
    """from_pretrained gives the file's weights and the run's LMs, prompts and task. The final folder and the resume
    checkpoint give the same model."""
    record, thoughts = TrainingRecord.read(trained), model.models.thoughts
    for part, file in (("projection", PARAMS_FILE), ("block", ATT_FILE)):
        saved = torch.load(trained / file, weights_only=True)
        weights = getattr(thoughts.generator, part).state_dict()
        assert weights and all(torch.equal(value, saved[name]) for name, value in weights.items())
    assert not thoughts.training and (thoughts.kind, model.num_thoughts) == ("small_block", 4)
    assert model.plan.record == record and model.plan.prompts == record.prompts and model.plan.weights is None
    assert model.models.llm.config.name_or_path == record.large_model_id
    (resume,) = (trained.parent.parent / "results" / "run").glob("checkpoint-5")
    assert same_weights(LatentThoughtModel.from_pretrained(str(resume)), model)


def test_save_pretrained_writes_what_was_loaded(model, trained, tmp_path):
    """save_pretrained writes to the byte what was loaded, and a card, also where it replaces a folder of its own."""
    folder = tmp_path / "runs" / "copy-0.5"
    for _ in range(2):  # a second time it is replaced
        assert model.save_pretrained(folder) is None
        assert sorted(os.listdir(folder)) == FILES
    assert os.listdir(tmp_path / "runs") == ["copy-0.5"]
    for name in (PARAMS_FILE, ATT_FILE, META_FILE):  # to the byte: a report of the one is a report of the other
        assert (folder / name).read_bytes() == (trained / name).read_bytes()
    again = LatentThoughtModel.from_pretrained(folder)
    assert same_weights(again, model) and again.plan.record == model.plan.record


def test_folder_with_other_files_is_kept(model, tmp_path):
    """A folder that holds anything we did not write is not replaced, and one line names what is in the way."""
    (tmp_path / "notes.txt").write_text("mine")
    assert "notes.txt" in one_line(model.save_pretrained, tmp_path)
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("mine")  # nothing says that we wrote it
    assert "README.md" in one_line(model.save_pretrained, tmp_path / "card")
    assert "notes.txt" in one_line(model.save_pretrained, tmp_path / "notes.txt" / "below")
    assert sorted(os.listdir(tmp_path)) == ["card", "notes.txt"]
    assert (tmp_path / "card" / "README.md").read_text() == "mine"


def test_lms_are_looked_for_where_told(trained, tiny_pair, tmp_path, monkeypatch):
    """LMs are looked for where thoughts.json or the caller says, a relative folder from the current one. The same LM
    elsewhere will do, another one will not."""
    folder = tmp_path / "moved"
    shutil.copytree(trained, folder)
    meta = json.loads((folder / META_FILE).read_text())
    meta = {key: value for key, value in meta.items() if not key.endswith("_model_path")}  # of before they were stored
    (folder / META_FILE).write_text(json.dumps(meta | {"large_model_id": "pair/large", "small_model_id": "pair/small"}))
    monkeypatch.chdir(tmp_path)
    said = one_line(LatentThoughtModel.from_pretrained, "moved")
    assert "--base_model_id pair/large: no such folder here" in said
    elsewhere = {"base_model_id": str(tiny_pair / "large"), "assistant_model_id": str(tiny_pair / "small")}
    assert LatentThoughtModel.from_pretrained("moved", **elsewhere).models.llm.config.name_or_path == str(
        tiny_pair / "large"
    )
    (tmp_path / "pair").symlink_to(tiny_pair)
    assert LatentThoughtModel.from_pretrained("moved", device="cpu").num_thoughts == 4
    other = meta | {"fingerprints": ["0" * 16, meta["fingerprints"][1]]}
    (folder / META_FILE).write_text(json.dumps(other))
    assert "not the weights that these thoughts were trained with" in one_line(
        LatentThoughtModel.from_pretrained, "moved"
    )


def test_checkpoint_of_relative_folders_loads_from_anywhere(tiny_pair, gsm8k_data, tmp_path, monkeypatch):
    """A training that was given folders by relative paths has a checkpoint that loads from any folder: the absolute
    path is stored beside what was given. Where the folder is gone, one line says where it was, and asks no hub; another
    LM at the relative place is refused by its fingerprint."""
    place, other = tmp_path / "a", tmp_path / "b"
    shutil.copytree(tiny_pair, place / "pair")
    other.mkdir()
    monkeypatch.chdir(place)
    train.run([*train_flags(Path("pair"), gsm8k_data), "--output_name", "run", "--max_steps", "1"])
    (folder,) = (place / "ckpt").iterdir()
    record = TrainingRecord.read(folder)
    assert (record.large_model_id, record.large_model_path) == ("pair/large", str(place / "pair" / "large"))
    assert LatentThoughtModel.from_pretrained(folder).plan.spec.large.model_id == "pair/large"
    monkeypatch.chdir(other)
    assert LatentThoughtModel.from_pretrained(folder).plan.spec.small.model_id == str(place / "pair" / "small")
    (place / "pair").rename(other / "pair")
    assert LatentThoughtModel.from_pretrained(folder).plan.spec.large.model_id == "pair/large"
    weights = load_file(other / "pair" / "large" / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, other / "pair" / "large" / "model.safetensors", metadata={"format": "pt"})
    assert "not the weights that these thoughts were trained with" in one_line(
        LatentThoughtModel.from_pretrained, folder
    )
    shutil.rmtree(other / "pair")
    said = one_line(LatentThoughtModel.from_pretrained, folder)
    why = "no such folder; it was the large LM of this training, --base_model_id says where it is now"
    assert said == f"{place}/pair/large: {why}"


def test_folder_of_an_lm_is_no_checkpoint(tiny_pair):
    """An LM's own folder has a model.safetensors too, and is no checkpoint that was cut off."""
    with pytest.raises(InputError, match="large/thoughts.json: no such file"):
        LatentThoughtModel.from_pretrained(str(tiny_pair / "large"))


@pytest.mark.parametrize("wrong", [{"dtype": "float16"}, {"device": "gpu"}])
def test_wrong_model_arguments_are_refused(trained, wrong):
    """A wrong dtype or device is refused in one line."""
    ((name, value),) = wrong.items()
    assert f"{name} {value}" in one_line(LatentThoughtModel.from_pretrained, trained, **wrong)


# ---------------------------------------------------------------------------------------------------------------------
# The hub


def test_trust_remote_code_reaches_the_configs(trained, monkeypatch):
    """trust_remote_code reaches the loading of both configs."""
    asked, own = [], build.load_config
    monkeypatch.setattr(build, "load_config", lambda source: asked.append(source) or own(source))
    LatentThoughtModel.from_pretrained(trained, trust_remote_code=True)
    assert [source.trust_remote_code for source in asked] == [True, True]


def test_no_code_from_the_hub_runs_unasked():
    """--trust_remote_code is off in both scripts where nobody turns it on."""
    for arguments in (TrainArguments, EvaluationArguments):
        assert {item.name: item.default for item in fields(arguments)}["trust_remote_code"] is False


def test_hub_id_is_read_from_cache(trained, model, tmp_path):
    """A hub id is read from the cache without a network. Names that are neither a folder nor a repository are refused
    in one line."""
    cache = cache_with(trained, tmp_path / "hub", "owner/thoughts")
    assert same_weights(LatentThoughtModel.from_pretrained("owner/thoughts", cache_dir=cache), model)
    for name in ("owner/other", "ckpt/run/deeper", "owner/thoughts-"):
        said = one_line(LatentThoughtModel.from_pretrained, name, cache_dir=cache)
        assert said.startswith(f"{name}: no such folder here, and no such hub repository could be read (")


def test_only_needed_files_are_downloaded():
    """Of a hub repository only the files that are read, adapters among them, are downloaded."""
    adapters = ["base_model/adapter_model.safetensors", "assistant_model/adapter_config.json"]
    there = [*FILES, ".gitattributes", "optimizer.pt", *adapters]
    assert [*filter_repo_objects(there, allow_patterns=WEIGHTS_ON_HUB)] == [ATT_FILE, PARAMS_FILE, META_FILE, *adapters]


def test_push_uploads_what_is_saved(model, reports, monkeypatch):
    """push_to_hub uploads the files that are saved, with a card that says how to load them. With another model's report
    nothing goes up."""
    uploads = []

    class Repository:
        repo_id = "owner/thoughts"

    def upload_folder(self, *, repo_id, repo_type, folder_path, commit_message, **_):
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        uploads.append((repo_id, repo_type, commit_message, files))
        return "https://there"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, **_: Repository)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert "other weights" in one_line(model.push_to_hub, "owner/thoughts", report=reports["bare"])
    assert uploads == []
    where = model.push_to_hub("owner/thoughts", report=reports["thoughts"], commit_message="first")
    [(repo_id, kind, message, files)] = uploads
    assert (where, repo_id, kind, message) == ("https://there", "owner/thoughts", "model", "first")
    assert sorted(files) == FILES
    card = files["README.md"].decode()
    assert "LatentThoughtModel.from_pretrained('owner/thoughts')" in card and "## Evaluation" in card
    assert files[META_FILE] == (model.plan.files[0].parent / META_FILE).read_bytes()


def test_unreachable_hub_is_one_line(model):
    """A push to a hub that cannot be reached ends in one line."""
    assert one_line(model.push_to_hub, "owner/thoughts").startswith("owner/thoughts: not pushed to the hub (")


# ---------------------------------------------------------------------------------------------------------------------
# The card


def test_card_without_report_describes_training(model, trained, tmp_path, monkeypatch):
    """Without a report the card describes the training and has no figure of an evaluation. It names a base model only
    if that is on the hub."""
    model.save_pretrained(tmp_path / "copy")
    card = ModelCard.load(tmp_path / "copy" / "README.md")
    assert card.data.library_name == "lta-thinker" and card.data.pipeline_tag == "text-generation"
    assert card.data.datasets == ["openai/gsm8k"] and card.data.base_model is None  # a folder of this machine
    record = TrainingRecord.read(trained)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy" / "large").mkdir(parents=True)
    for folder in ("toy/large", "../large"):
        assert "base_model:" not in model_card(replace(record, large_model_id=folder), "x")
    for fact in ("| thoughts | 4 |", "| loss weights | sft 0.33, align 0.33, focus 0.33 |", "after step 5 (epoch"):
        assert fact in card.text
    assert f"sft {record.dev['eval_sft_loss']:.4g}" in card.text and record.versions["lta_thinker"] in card.text
    assert "Evaluation" not in card.text and "%" not in card.text
    assert str(card) == str(model.generate_model_card(name=str(tmp_path / "copy")))
    other = model_card(replace(record, large_model_id="Qwen/Qwen3-8B", tuned={"base_model": Lora()}), "x")
    assert "base_model: Qwen/Qwen3-8B\n" in other
    assert f"| small LM, frozen | `{record.small_model_id}` |" in card.text
    assert "| small LM, frozen | none |" in model_card(replace(record, small_model_id=None), "x")
    assert "is frozen" in card.text and "is frozen" not in other and "large LLM, LoRA adapter" in other


def test_card_figures_are_the_reports(model, reports, tmp_path):
    """The card's figures are the report's, with intervals and settings, and with a baseline the paired difference."""
    report = json.loads(reports["thoughts"].read_text())
    for name, value in (("sample", 0.4), ("vote", 0.6)):  # random LMs are never right
        report[f"{name}_accuracy"] = {"value": value, "low": value - 0.1, "high": value + 0.1}
    shutil.copytree(reports["thoughts"].parent, tmp_path / "better")
    (tmp_path / "better" / "report.json").write_text(json.dumps(report))
    card = model.generate_model_card("x", report=tmp_path / "better" / "report.json").text
    rows = "|  | one sample | vote of 3 |\n| --- | --- | --- |\n"
    assert f"{rows}| with 2 thoughts | 40.0 [30.0, 50.0] | 60.0 [50.0, 70.0] |\n" in card and "paired" not in card
    assert "4 test questions of gsm8k" in card and "max_new_tokens 8, temperature 0.7, top_p 0.8, top_k 20" in card
    card = model.generate_model_card("x", report=reports["thoughts"], baseline=reports["bare"]).text
    own, difference = r"0\.0 \[0\.0, \d+\.\d\]", r"0\.0 \[-(\d+\.\d), \1\]"
    for title, cell in {"compared with: no thoughts, 3 samples": own, "with 2 thoughts": own}.items():
        assert re.search(rf"\| {title} \| {cell} \| {cell} \|\n", card)
    assert re.search(rf"\| difference, paired \| {difference} \|", card)


def test_card_leaves_no_figure_of_the_report_out(model, reports, trained, tmp_path):
    """Every figure that report.json has and that is of no one machine is in the card: maj@k, pass@k, ties, samples
    without an answer and cut off, tokens, comparisons given up, the thoughts' variance, and of the training their
    information; a text of several versions is noted."""
    values = json.loads(reports["thoughts"].read_text())
    values |= {"unsettled": 2, "ties": 3, "speed": {"questions": 9.25, "tokens": 99.5}}
    values["maj_at_k"], values["pass_at_k"] = {"1": 0.4, "2": 0.5, "3": 0.6}, {"1": 0.4, "2": 0.7, "3": 0.8}
    values["starts"] = [values["versions"], values["versions"] | {"torch": "0.1"}]
    information = {"eval_information": 1.25, "eval_information_low": 1.0, "eval_information_high": 1.5}
    values["checkpoint"]["dev"] |= information
    shutil.copytree(reports["thoughts"].parent, tmp_path / "all")
    path = tmp_path / "all" / "report.json"
    path.write_text(json.dumps(values))
    record = TrainingRecord.read(trained)
    card = model_card(replace(record, dev=record.dev | information | {"eval_accuracy": 0.25}), "x", path)
    for row in (
        "maj@k, % | 1: 40.0  2: 50.0  3: 60.0",
        "pass@k, % | 1: 40.0  2: 70.0  3: 80.0",
        "tied votes | 3",
        "information of the thoughts | 1.25 nats an answer [1, 1.5] (on dev; normal interval)",
        "dev accuracy, greedy | 0.25",
    ):
        assert card.count(f"| {row} |") == 1
    for start in (
        "samples without an answer | ",
        "samples cut off | ",
        "tokens a sample | ",
        "comparisons given up | 2",
    ):
        assert f"\n| {start}" in card
    assert "| variance of the 4 thoughts | " in card and "torch " in card and "0.1" in card.partition("| note | ")[2]
    shown = {title for title in figure_rows(Report.read(path)) if title in card}
    assert figure_rows(Report.read(path)).keys() - shown == {
        "questions, tokens a second",
        "vote of 3, % right",  # both with their intervals in the table above
        "one sample, % right",
    }


def test_foreign_reports_make_no_card(model, reports, trained, tmp_path):
    """A report of other weights, a baseline alone or over other questions, and a file that is no report are refused,
    and nothing is written."""
    assert "other weights" in one_line(model.generate_model_card, "x", report=reports["bare"])
    assert "without a report" in one_line(model.generate_model_card, "x", baseline=reports["bare"])
    both = {"report": reports["thoughts"], "baseline": reports["fewer"]}
    assert "not about the same questions" in one_line(model.save_pretrained, tmp_path / "new", **both)
    assert "not a report" in one_line(model.save_pretrained, tmp_path / "new", report=trained / META_FILE)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [PARAMS_FILE, ATT_FILE])
def test_report_is_of_every_weight_file(model, reports, tmp_path, name):
    """A report is of these weights only if it is of each of their files."""
    folder = shutil.copytree(reports["thoughts"].parent, tmp_path / "report")
    values = json.loads((folder / "report.json").read_text())
    values["settings"][name] = values["settings"][name][::-1]
    (folder / "report.json").write_text(json.dumps(values))
    said = one_line(model.generate_model_card, "x", report=folder / "report.json")
    assert said.endswith(f"an evaluation of other weights than {model.plan.files[0].parent / name}")


def test_minimal_thoughts_json_has_a_card(tiny_models):
    """With no more than evaluation needs."""
    card = model_card(record_of(tiny_models.model("small_block")), "x")
    assert "thought generator" in card and "dev losses" not in card and "None" not in card
