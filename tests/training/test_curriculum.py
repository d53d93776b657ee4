"""Coconut's curriculum, and runs of what learns in stages: coconut, pause tokens, the answer alone, all weights."""

import contextlib
import functools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.data_loader import SeedableRandomSampler
from helpers import EXAMPLES, ROOT, fails, meta, train_flags, two_ranks, weights, write_jsonl
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

import lta_thinker
from lta_thinker import evaluate, train
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS, TASKS, load_split
from lta_thinker.evaluation.compare import compare
from lta_thinker.evaluation.report import Report
from lta_thinker.evaluation.runs import is_baseline
from lta_thinker.flags import parse_flags
from lta_thinker.generation.prompts import PromptEmbedder, make_requests
from lta_thinker.llm.frozen import LmSource, fingerprint, load_frozen_lm, load_tokenizer
from lta_thinker.llm.lora import tune
from lta_thinker.model import Models
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import answer_line
from lta_thinker.training.curriculum import Form, StagedRows, StageOrder, in_stages
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.trainer import ThoughtTrainer

SFT = ["--align_loss_weight", "0", "--focus_loss_weight", "0", "--sft_loss_weight", "1"]
STAGES = ["--coconut_stages", "1", "--thoughts_per_step", "4", "--n_epochs", "3", "--max_steps", "-1", "--k_shot", "4"]
# two steps an epoch, which is a stage, and a checkpoint after each
STAGES += ["--batch_size", "1", "--eval_strategy", "steps", "--eval_steps", "1", "--save_total_limit", "9"]
STAGES += ["--coconut_mix", "0.3", "--learning_rate", "0.03", *SFT]
COCONUT = ["--thought_generator", "coconut", "--tune_base_model", "--lora_dropout", "0", *STAGES]
FULL_COCONUT = ["--thought_generator", "coconut", "--full_tuning", *STAGES]
PAUSE = ["--thought_generator", "prompt", "--full_tuning", *STAGES]


@pytest.fixture(scope="module")
def staged(tiny_pair, gsm8k_data, tmp_path_factory):
    """The folder in which a run named `run` of a learner has ended, made once."""

    @functools.cache
    def ended(*learner: str) -> Path:
        folder = tmp_path_factory.mktemp("staged")
        with contextlib.chdir(folder):
            train.run([*train_flags(tiny_pair, gsm8k_data), *learner, "--output_name", "run"])
        return folder

    return ended


def order_of(steps: list[int], epoch: int, mix: float = 0.0) -> dict[int, int]:
    """{row: stage} of an epoch, for rows with so many steps in two stages of 2 epochs."""
    order = StageOrder(SeedableRandomSampler(range(len(steps)), data_seed=1), in_stages(2, 3, 2, mix), steps, seed=5)
    order.set_epoch(epoch)
    places = [*order]
    assert len(places) == len(order) == len(steps)
    return {place % len(steps): place // len(steps) for place in places}


def everything(name: str, step: int) -> dict[str, torch.Tensor]:
    """All trained tensors of a checkpoint, of generator and LLM."""
    return load_file(f"results/{name}/checkpoint-{step}/model.safetensors")


def test_stages_leave_out_steps_as_published():
    """Stage k leaves out the first k steps for k x c thoughts, of a row with fewer too; the last has the answer
    alone."""
    curriculum, example = in_stages(2, 3, 1, 0.0), EXAMPLES[0]
    assert [form.thoughts for form in curriculum.forms] == [0, 3, 6, 6]
    assert [form.of(example).steps for form in curriculum.forms] == [example.steps, example.steps[1:], (), ()]
    assert [len(form.of(Example(0, "", ("a", "b", "c", "d"), "")).steps) for form in curriculum.forms] == [4, 3, 2, 0]
    rows = StagedRows([{"row": i} for i in range(8)], curriculum)
    assert [rows[i]["thoughts"] for i in (0, 1, 2, 4, 6, 7)] == [0, 0, 3, 6, 6, 6] and rows[5]["row"] == 5


def test_epochs_decide_stages():
    """Every stage lasts its epochs, the last to the end; every epoch has each row once, whatever came before it."""
    for epoch, stage in enumerate([0, 0, 1, 1, 2, 2, 3, 3, 3]):
        assert order_of([2] * 5, epoch) == dict.fromkeys(range(5), stage)


def test_mix_draws_stages_up_to_a_rows_steps():
    """--coconut_mix draws a stage of 0 to the number of the row's steps for that share of rows, each epoch anew, the
    same when the epoch is repeated."""
    steps = [1, 5] * 3000
    drawn = order_of(steps, 2, mix=0.5)
    assert drawn == order_of(steps, 2, mix=0.5) != order_of(steps, 3, mix=0.5)
    few, many = (np.bincount([drawn[row] for row in range(start, 6000, 2)], minlength=4) / 3000 for start in (0, 1))
    # half in stage 1; of the others 0, 1; or 0, 1, 2, and 3 to 5 as the last
    np.testing.assert_allclose(few, [1 / 4, 3 / 4, 0, 0], atol=0.04)
    np.testing.assert_allclose(many, [1 / 12, 7 / 12, 1 / 12, 1 / 4], atol=0.04)


@pytest.mark.parametrize("kind", ["coconut", "prompt"])
def test_rows_of_several_stages_are_each_as_alone(tiny_models, tiny_pair, kind):
    """A row in a batch with rows of other stages has the loss that it has alone."""
    model, layout = tiny_models.model(kind, weights={"sft": 1.0, "align": 0, "focus": 0, "diversity": 0}), None
    layout = tiny_models.layout_for(kind)
    llm = load_frozen_lm(LmSource(str(tiny_pair / "large"), ""))
    model.frozen, model.adapters["base_model"] = (llm, None), tune(llm, None, "")
    forms = [Form(0, 0), Form(1, 2), Form(None, 4)]
    rows = [layout.training(form.of(row)) | {"thoughts": form.thoughts} for form in forms for row in EXAMPLES[::2]]
    collate = TrainingCollator(layout, steps=False)
    together = model(**collate(rows))["sft"]
    alone = sum(model(**collate([row]))["sft"] for row in rows)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
    for weight, one, other in zip(
        model.parameters(),
        torch.autograd.grad(together, [*model.parameters()]),
        torch.autograd.grad(alone, [*model.parameters()]),
        strict=True,
    ):
        assert weight.shape == one.shape
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_thoughts_of_training_are_those_of_evaluation(tiny_models):
    """Coconut's thoughts in a training step and in an evaluation of other batches are the same."""
    model, layout = tiny_models.model("coconut"), tiny_models.layout_for("coconut")
    model(**TrainingCollator(layout, steps=False)([layout.training(row) for row in EXAMPLES]))
    trained = model.last_thoughts
    embed = PromptEmbedder(Models(tiny_models.llm, model.eval(), layout), num_chains=1)
    for request, thoughts in zip(make_requests(layout, EXAMPLES), trained, strict=True):
        torch.testing.assert_close(embed.make_thoughts([request])[0, 0], thoughts, atol=1e-5, rtol=1e-5)
    first = model.thoughts(*(embed.batch(make_requests(layout, EXAMPLES))[f"question_{x}"] for x in ("ids", "mask")))
    model.make_only(2)
    both = embed.batch(make_requests(layout, EXAMPLES))
    assert torch.equal(model.thoughts(both["question_ids"], both["question_mask"])[1], first[1][:, :2])


@pytest.mark.parametrize(("learner", "cuts"), [(COCONUT, (1, 3, 5)), (PAUSE, (2, 4))], ids=["coconut", "pause"])
def test_run_in_stages_resumes_in_every_stage(flags, staged, learner, cuts):
    """A run that is cut inside a stage or between two goes on to the uncut run's weights, to the bit. At the start of a
    stage the optimiser forgets, and the dev loss is of the last stage's form."""
    folder = staged(*learner)
    with contextlib.chdir(folder):
        whole, choice = everything("run", 6), meta("run")["dev_curve"]
    for step, moments in zip(range(1, 7), (1, 2, 1, 2, 1, 2), strict=True):
        optimizer = torch.load(folder / f"results/run/checkpoint-{step}/optimizer.pt", weights_only=True)
        assert {state["step"].item() for state in optimizer["state"].values()} == {moments}, step
    for step in cuts:
        shutil.copytree(folder / "results", "results")
        for later in range(step + 1, 7):
            shutil.rmtree(f"results/run/checkpoint-{later}")
        train.run([*flags, *learner, "--output_name", "run", "--resume"])
        here = everything("run", 6)
        assert here.keys() == whole.keys() and all(torch.equal(here[name], whole[name]) for name in whole), step
        assert meta("run")["dev_curve"] == choice
        shutil.rmtree("results")
        shutil.rmtree("ckpt")


@pytest.mark.parametrize("learner", [COCONUT, PAUSE], ids=["coconut", "pause"])
def test_two_ranks_train_in_stages_as_one_process(flags, staged, learner):
    """Two ranks train the weights of one process with twice the accumulation, in all stages."""
    shutil.copytree(staged(*learner), ".", dirs_exist_ok=True)
    two_ranks(ROOT / "train.py", *flags, *learner, "--gradient_accumulation_steps", "1", "--output_name", "ranks")
    ranks, one = everything("ranks", 6), everything("run", 6)
    for name, value in one.items():
        torch.testing.assert_close(ranks[name], value, atol=1e-5, rtol=1e-4, msg=name)
    curves = [[point["eval_sft_loss"] for point in meta(name)["dev_curve"]] for name in ("ranks", "run")]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


@pytest.mark.parametrize("tuned", ["lora", "full"])
def test_trained_coconut_is_read_from_everywhere(staged, gsm8k_data, tmp_path, monkeypatch, capsys, tuned):
    """The final weights, a resume checkpoint and from_pretrained give the same texts, not the bare LLM's; an engine is
    refused, --inspect looks into its thoughts, and the card says what was trained."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(staged(*{"lora": COCONUT, "full": FULL_COCONUT}[tuned]), ".", dirs_exist_ok=True)
    (folder,) = Path("ckpt").glob("run-*")
    best = meta("run")["best"]["step"]
    weight_file = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}[tuned]
    assert weights("run").keys() == {"0.marks"} and (folder / "base_model" / weight_file).is_file()

    def texts(name, *given) -> list[list[str]]:
        shared = ["--data_dir", str(gsm8k_data), "--max_new_tokens", "8", "--test_k", "2"]
        shared += ["--num_return_sequences", "2"]
        evaluate.main([*map(str, given), *shared, "--output_dir", name])
        return [json.loads(line)["responses"] for line in Path(name, "samples.jsonl").read_text().splitlines()]

    whole = texts("whole", "--checkpoint", "run")
    assert texts("resumed", "--checkpoint", f"results/run/checkpoint-{best}") == whole
    assert texts("bare", "--checkpoint", "run", "--thought_generator", "none") != whole
    assert json.loads(Path("whole/report.json").read_text())["thought_variance"]["num_thoughts"] == 4
    model = lta_thinker.LatentThoughtModel.from_pretrained(folder)
    asked = json.loads(Path("whole/samples.jsonl").read_text().splitlines()[0])
    assert model.solve(asked["question"], 2, max_new_tokens=8).texts == asked["responses"]
    model.save_pretrained("saved")
    compared = compare("whole/report.json", "whole/report.json").titles[0]
    assert ("LoRA" in compared, "all weights of the LLM trained" in compared) == (tuned == "lora", tuned == "full")
    assert texts("of_saved", "--checkpoint", "saved") == whole
    words = {"lora": "has an adapter in base_model/", "full": "all its weights are in base_model/"}
    card = Path("saved/README.md").read_text()
    assert words[tuned] in card and "Coconut ([arXiv 2412.06769]" in card
    refused = fails("--checkpoint", "run", "--backend", "vllm", "--data_dir", str(gsm8k_data))
    assert "the engine has the bare LLM, and here it is tuned" in refused
    if tuned == "lora":
        capsys.readouterr()
        evaluate.main(["--checkpoint", "run", "--inspect", "1", "--data_dir", str(gsm8k_data), "--max_new_tokens", "4"])
        assert "nearest words of the thoughts" in capsys.readouterr().out


def test_a_coconut_run_is_repeated_by_its_flags(staged, tmp_path, monkeypatch):
    """--config of a run in stages makes the same weights again. Its trackers are told of each row once an epoch."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(staged(*COCONUT), ".", dirs_exist_ok=True)
    told, log = [], ThoughtTrainer.log
    monkeypatch.setattr(ThoughtTrainer, "log", lambda self, logs, *args: told.append(logs) or log(self, logs, *args))
    train.run(["--config", "results/run/flags.json", "--output_name", "again"])
    rows = told[-1]["train_samples_per_second"] * told[-1]["train_runtime"]
    assert rows == pytest.approx(4 * 3, rel=0.01)
    first, again = everything("run", 6), everything("again", 6)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("recipe", ["sft", "paper", "paper-run"])
@pytest.mark.parametrize("learner", ["coconut", "prompt --coconut_stages 3", "prompt --coconut-stages 3"])
@pytest.mark.parametrize("flag", ["--thought_generator", "--thought-generator"])
def test_recipes_leave_the_number_of_thoughts_to_the_stages(recipe, flag, learner):
    """A --recipe's number of thoughts does not stand against that of the stages."""
    words = ["--recipe", recipe, "--output_name", "run", "--full_tuning", flag, *learner.split()]
    assert parse_flags(TrainArguments, words, "train.py").num_thought_tokens == 6


def test_rows_without_steps_have_no_stages(flags):
    """Stages replace steps: rows without any are refused in one line. Their dev losses have no focus loss."""
    write_jsonl(Path("rows.jsonl"), [{"question": f"What is {i} and 1?", "answer": str(i + 1)} for i in range(12)])
    own = [*flags, "--task_name", "own", "--answer_type", "number", "--train_file", "rows.jsonl"]
    with pytest.raises(InputError, match="rows.jsonl: no row has steps, which --coconut_stages replaces"):
        train.run([*own, *COCONUT, "--output_name", "run"])
    train.run([*own, "--max_steps", "1", "--output_name", "run"])
    assert {name for name in meta("run")["dev"] if name.endswith("_loss")} >= {"eval_sft_loss", "eval_align_loss"}
    assert "eval_focus_loss" not in meta("run")["dev"]


def test_last_stage_is_estimated_as_the_refusal_says(flags, tiny_pair, capsys):
    """A run in stages is not estimated; its last stage is, with the flags that the one line names."""
    flags += ["--large_model_id", str(tiny_pair / "small"), "--batch_size", "1", "--gradient_accumulation_steps", "1"]
    learner = ["--thought_generator", "coconut", "--full_tuning", "--estimate", "--output_name", "run", *SFT]
    stages = ["--coconut_stages", "1", "--thoughts_per_step", "2", "--n_epochs", "3", "--max_steps", "-1"]
    stages += ["--num_thought_tokens", "2"]
    with pytest.raises(InputError) as error:
        train.run([*flags, *learner, *stages])
    named = str(error.value).partition("stages, ")[2].split()
    assert named == ["--coconut_stages", "0", "--answer_only", "--num_thought_tokens", "2"]
    train.run([*flags, *learner, *named])
    assert "estimate of a training: coconut" in capsys.readouterr().out


def test_full_tuned_llm_is_never_taken_for_the_bare_one(flags, tiny_pair, gsm8k_data, capsys):
    """Samples of an LLM all of whose weights were trained are not those of the bare LLM, in a folder or as a baseline;
    in bf16 its rounded weights are not saved. Missing and wrong weights are one line with their path."""
    train.run(
        [*flags, "--thought_generator", "none", "--full_tuning", *SFT, "--max_steps", "1", "--output_name", "run"]
    )
    (folder,) = Path("ckpt").glob("run-*")
    shared = ["--data_dir", str(gsm8k_data), "--max_new_tokens", "4", "--test_k", "2", "--output_dir"]
    bare = ["--thought_generator", "none", "--base_model_id", str(tiny_pair / "large"), "--task_name", "gsm8k"]
    evaluate.main(["--checkpoint", str(folder), *shared, "tuned"])
    assert "0 of the generator" in capsys.readouterr().out
    assert "full_tuning" in fails(*bare, *shared, "tuned")
    evaluate.main([*bare, *shared, "bare"])
    evaluate.main([*bare, "--base_model_ckpt", str(folder / "base_model"), *shared, "named"])
    of_bare, named = (Report.read(Path(name, "report.json")) for name in ("bare", "named"))
    assert is_baseline(of_bare, [named]) and not is_baseline(named, [of_bare])

    rounded = lta_thinker.LatentThoughtModel.from_pretrained(folder, dtype="bfloat16")
    with pytest.raises(InputError, match="trained in float32"):
        rounded.save_pretrained("rounded")
    assert not Path("rounded").exists()
    weights_file = folder / "base_model" / "model.safetensors"
    state = load_file(weights_file)
    for change, message in (
        (state | {"model.embed_tokens.weight": torch.zeros(1, 32)}, "model.safetensors: tensor model.embed_tokens"),
        ({**state, "more": torch.zeros(1)}, "model.safetensors: unknown tensor more"),
        (None, "model.safetensors: no such file"),
    ):
        given = ["--base_model_ckpt", str(folder / "base_model")]
        if change is None:
            weights_file.unlink()
            given = ["--checkpoint", str(folder)]
        else:
            save_file(change, weights_file)
        assert message in fails(*(given if change is None else [*bare, *given]), *shared, "wrong")


def test_norms_of_a_full_tuned_llm_have_no_decay(tmp_path):
    """Weight decay goes to the weights that the library decays in the LLM itself, though their names say nothing."""
    llm = GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=1, n_layer=1, vocab_size=16, n_positions=8))
    model = torch.nn.Module()
    model.llm, model.adapters = (llm,), torch.nn.ModuleDict({"base_model": tune(llm, None, "")})
    trainer = object.__new__(ThoughtTrainer)
    trainer.args, trainer.model = SimpleNamespace(full_tuning=True), SimpleNamespace(llm=llm)
    decayed = set(trainer.get_decay_parameter_names(model))
    assert "adapters.base_model.transformer.h.0.attn.c_attn.weight" in decayed
    assert decayed and not any(".ln_" in name or name.endswith("bias") for name in decayed)


def test_full_tuning_of_the_answer_alone_equals_a_plain_loop(flags, tiny_pair, gsm8k_data):
    """--full_tuning --answer_only without thoughts trains the weights of a plain loop with AdamW over the LLM."""
    more = ["--thought_generator", "none", "--full_tuning", "--answer_only", *SFT, "--k_shot", "4", "--max_steps", "3"]
    rate = ["--learning_rate", "1e-2", "--lr_scheduler_type", "constant", "--max_grad_norm", "0"]
    train.run([*flags, *more, *rate, "--output_name", "run"])
    source = LmSource(str(tiny_pair / "large"), "--large_model_id")
    tokenizer, llm = load_tokenizer(source), load_frozen_lm(source).requires_grad_(True)
    optimizer = torch.optim.AdamW(llm.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        losses, count = 0.0, 0
        for example in load_split(TASKS["gsm8k"], "train", str(gsm8k_data)).examples[:4]:
            user = {"role": "user", "content": PROMPTS["number"]["problem"].replace("{question}", example.question)}
            settings = {"enable_thinking": False, "return_dict": True}
            prompt = tokenizer.apply_chat_template([user], add_generation_prompt=True, **settings)["input_ids"]
            answer = {"role": "assistant", "content": answer_line(example.answer)}
            whole = tokenizer.apply_chat_template([user, answer], **settings)["input_ids"]
            whole = whole[: len(whole) - whole[::-1].index(tokenizer.eos_token_id)]
            logits = llm(input_ids=torch.tensor([whole])).logits[0, len(prompt) - 1 : -1]
            losses = losses + F.cross_entropy(logits, torch.tensor(whole[len(prompt) :]), reduction="sum")
            count += len(whole) - len(prompt)
        (losses / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = everything("run", 3)
    assert trained.keys() == {f"adapters.base_model.{name}" for name, _ in llm.named_parameters()}
    for name, weight in llm.named_parameters():
        torch.testing.assert_close(trained[f"adapters.base_model.{name}"], weight.detach(), atol=1e-4, rtol=1e-3)
    assert meta("run")["fingerprints"][0] == fingerprint(load_frozen_lm(source))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("--thought_generator coconut", "what learns is the LLM; --tune_base_model or --full_tuning"),
        ("--thought_generator coconut --tune_base_model --reader_layers 1", "--reader_layers: not with"),
        ("--thought_generator coconut --tune_base_model --num_thought_chains 2", "--num_thought_chains: not with"),
        ("--thought_generator coconut --tune_base_model --att_file_name x", "--att_file_name: not with"),
        ("--thought_generator coconut --tune_base_model --focus_loss_weight 1", "makes no z of the question"),
        ("--thought_generator coconut --tune_base_model --steps_as_turns", "--steps_as_turns: the generator coconut"),
        ("--thought_generator coconut --tune_base_model --max_steps 5", "--max_steps 5: stages are counted in epochs"),
        ("--thought_generator coconut --tune_base_model --n_epochs 4", "4 x 1 epochs go before the last of the 5"),
        ("--thought_generator coconut --tune_base_model --num_thought_tokens 5", "3 x --thoughts_per_step 2 are 6"),
        ("--thought_generator coconut --tune_base_model --coconut_stages 2 --answer_only", "--answer_only with"),
        ("--coconut_stages 2", "of coconut and prompt; small_block makes all N at once"),
        ("--thought_generator prompt --coconut_stages 2", "2: the LLM learns in stages; --tune_base_model or"),
        ("--thoughts_per_step 2", "--thoughts_per_step: there are no stages without --coconut_stages"),
        ("--coconut_mix 0.5", "--coconut_mix: there are no stages without --coconut_stages"),
        ("--coconut_mix 1.5", "--coconut_mix 1.5: must be at least 0 and at most 1"),
        ("--answer_only --focus_loss_weight 0.33", "--answer_only leaves no steps for L_focus"),
        ("--full_tuning --bf16", "--full_tuning with --bf16"),
        ("--full_tuning --lora_r 4", "--lora_r: no adapter is trained"),
        ("--full_tuning --shard_llm", "--full_tuning with --shard_llm"),
    ],
)
def test_wrong_flags_of_stages_are_refused(tmp_path, monkeypatch, wrong, message):
    """Flags that contradict each other are one line that names them, before anything is loaded."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        train.run(["--output_name", "wrong", "--large_model_id", "nosuch", *wrong.split()])
    assert message in str(error.value) and "\n" not in str(error.value)
