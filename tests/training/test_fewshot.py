"""--num_fewshot in both scripts: which examples, that no row sees its own answer, that checkpoints keep them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import fails, gsm8k_row, logs, meta, pair_flags, write_jsonl

import lta_thinker
from lta_thinker import evaluate, train
from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS, TASKS, load_split
from lta_thinker.evaluation.compare import compare, rank
from lta_thinker.llm.frozen import LmSource, load_frozen_lm, load_tokenizer
from lta_thinker.rows.layout import DATE_STRING

SHORT = ["--max_new_tokens", "4", "--num_return_sequences", "2", "--test_k", "3"]
PROMPT = ["--thought_generator", "prompt", "--align_loss_weight", "0", "--focus_loss_weight", "0"]


def settings_of(folder: str) -> dict:
    return json.loads(Path(folder, "settings.json").read_text())


def test_dev_loss_is_that_of_the_whole_conversation(flags, tiny_pair):
    """The first K rows stand in the prompts of training and dev, and are no training rows. The dev loss is the plain
    cross-entropy of the chat template's conversation with the examples before each question (with a LoRA adapter that
    has not moved and no thoughts, so that the bare LLM gives it)."""
    alone = ["--thought_generator", "none", "--tune_base_model", "--learning_rate", "1e-12", "--max_steps", "1"]
    train.run([*flags[:-6], *alone, "--num_fewshot", "2", "--output_name", "shots"])
    stored, task = meta("shots"), TASKS["gsm8k"]
    rows, dev = (load_split(task, split, flags[5]).examples for split in ("train", "dev"))
    assert [shot["question"] for shot in stored["worked_examples"]] == [row.question for row in rows[:2]]
    assert stored["rows"]["train"]["kept"] == len(rows) - 2 and stored["rows"]["dev"]["kept"] == len(dev)
    source = LmSource(str(tiny_pair / "large"), "--large_model_id")
    llm, tokenizer = load_frozen_lm(source), load_tokenizer(source)
    total, tokens, earlier = 0.0, 0, []
    for shot in stored["worked_examples"]:
        question = PROMPTS["number"]["problem"].replace("{question}", shot["question"])
        earlier += [{"role": "user", "content": question}, {"role": "assistant", "content": shot["target"]}]

    def ids(messages, opened):
        settings = {"enable_thinking": False, "date_string": DATE_STRING, "return_dict": True}
        return tokenizer.apply_chat_template(messages, add_generation_prompt=opened, **settings)["input_ids"]

    for example in dev:
        user = {"role": "user", "content": PROMPTS["number"]["problem"].replace("{question}", example.question)}
        target = "\n".join([*example.steps, f"The answer is \\boxed{{{example.answer}}}."])
        prompt = ids([*earlier, user], True)
        whole = ids([*earlier, user, {"role": "assistant", "content": target}], False)
        end = len(whole) - whole[::-1].index(tokenizer.eos_token_id)  # behind it there is a line break
        logits = llm(torch.tensor([whole[:end]])).logits[0]
        asked = torch.tensor(whole[len(prompt) : end])
        total += F.cross_entropy(logits[len(prompt) - 1 : -1], asked, reduction="sum").item()
        tokens += len(asked)
    [point] = stored["dev_curve"]
    assert point["eval_sft_loss"] == pytest.approx(total / tokens, abs=2e-5)


def test_checkpoint_keeps_its_worked_examples(flags, gsm8k_data, tmp_path, capsys):
    """A checkpoint is evaluated, asked and loaded with the examples that it was trained with, without the train file;
    its resume checkpoint too. Another number is refused. It resumes with the same number alone."""
    flags += ["--max_steps", "1"]
    train.run([*flags, *PROMPT, "--num_fewshot", "2", "--output_name", "shots"])
    (folder,) = Path("ckpt").iterdir()
    target = meta("shots")["worked_examples"][0]["target"]
    assert "Both boxes hold" in target and target.endswith("}.")
    test = tmp_path / "no_train"
    shutil.copytree(gsm8k_data, test)
    (test / "gsm8k" / "train_socratic.jsonl").unlink()
    shared = ["--data_dir", str(test), *SHORT, "--output_dir"]
    evaluate.main(["--checkpoint", str(folder), "--num_fewshot", "2", "--print_input", *shared, "whole"])
    assert capsys.readouterr().out.count(target) == 3  # one in each prompt
    evaluate.main(["--checkpoint", "results/shots/checkpoint-1", *shared, "resumed"])
    assert Path("whole/samples.jsonl").read_text() == Path("resumed/samples.jsonl").read_text()
    assert settings_of("whole")["worked_examples"] == settings_of("resumed")["worked_examples"]
    assert target in settings_of("whole")["layout.llm"]["before"]
    said = fails("--checkpoint", folder, "--num_fewshot", "3", *shared, "other")
    assert said == "error: --num_fewshot 3: the checkpoint was trained with 2 worked examples"
    evaluate.main(["--checkpoint", str(folder), "--ask", "How many?", "--print_input", "--max_new_tokens", "4"])
    assert target in capsys.readouterr().out
    model = lta_thinker.LatentThoughtModel.from_pretrained(folder)
    model.save_pretrained("again")
    assert json.loads(Path("again/thoughts.json").read_text())["worked_examples"] == meta("shots")["worked_examples"]
    assert target in model.models.layout.llm.before

    with pytest.raises(InputError, match="started with num_fewshot = 2, not 0"):
        train.run([*flags, *PROMPT, "--output_name", "shots", "--resume"])


@pytest.mark.parametrize("more, said", [("--reader_layers 1", "reader_layers = None"), ("--block_positions", "False")])
def test_older_run_takes_no_newer_flag(flags, trained, more, said):
    """A run of a train.py without a flag that decides the weights is not resumed with it."""
    shutil.copytree(trained.parent.parent / "results", "results")
    path = Path("results/run/flags.json")
    stored = json.loads(path.read_text())
    del stored["reader_layers"], stored["block_positions"]
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=f"started with .*{said}"):
        train.run([*flags, "--output_name", "run", "--resume", *more.split()])


def test_older_run_has_no_worked_examples(flags):
    """A run of a train.py without the flag goes on without examples, and not with some."""
    flags = [*flags, *PROMPT, "--output_name", "old", "--gradient_accumulation_steps", "1", "--max_steps", "2"]
    flags += ["--eval_strategy", "steps", "--eval_steps", "1", "--save_total_limit", "20"]
    train.run(flags)
    path = Path("results/old/flags.json")
    stored = json.loads(path.read_text())
    del stored["num_fewshot"]
    path.write_text(json.dumps(stored))
    assert "worked_examples" not in meta("old")
    shutil.rmtree("results/old/checkpoint-2")
    shutil.rmtree("ckpt")
    with pytest.raises(InputError, match="started with num_fewshot = 0, not 1"):
        train.run([*flags, "--resume", "--num_fewshot", "1"])
    train.run([*flags, "--resume"])
    assert logs("old")[-1]["step"] == 2


def test_bare_llm_with_worked_examples(tiny_pair, gsm8k_data, tmp_path, monkeypatch, capsys):
    """The bare LLM is asked behind the first K train rows. Its samples are never mixed with those behind others, a
    comparison and a ranking take the examples for what is compared, and no example is asked."""
    monkeypatch.chdir(tmp_path)
    bare = [*pair_flags(tiny_pair)[:2], "--thought_generator", "none", "--data_dir", str(gsm8k_data), *SHORT]
    evaluate.main([*bare, "--output_dir", "zero"])
    assert not {"num_fewshot", "worked_examples"} & settings_of("zero").keys()
    evaluate.main([*bare, "--num_fewshot", "2"])
    (two,) = Path("results").glob("eval-none-large-gsm8k/test-n0-x2-seed41-shots2-*")
    assert Path("zero/samples.jsonl").read_text() != Path(two, "samples.jsonl").read_text()
    rows = load_split(TASKS["gsm8k"], "train", str(gsm8k_data)).examples
    assert all(row.question in settings_of(str(two))["layout.llm"]["before"] for row in rows[:2])
    assert "samples were made with num_fewshot = None, now it is 2" in fails(
        *bare, "--num_fewshot", "2", "--output_dir", "zero"
    )
    assert "samples were made with num_fewshot = 2, now it is None" in fails(*bare, "--output_dir", two)
    figures = compare("zero/report.json", two / "report.json")
    assert figures.titles == ["no thoughts, 2 samples", "no thoughts, 2 worked examples, 2 samples"]
    assert not figures.differ
    assert len(rank(["zero/report.json", str(two / "report.json")])) == 2
    capsys.readouterr()
    evaluate.main([*bare, "--num_fewshot", "2", "--split", "train", "--output_dir", "train"])
    assert "2 of these questions are worked examples in the prompt" in capsys.readouterr().out
    asked = [json.loads(line)["index"] for line in Path("train/samples.jsonl").read_text().splitlines()]
    assert asked == [row.index for row in rows[2:5]]


REFUSED = {
    "more than there are": (["--num_fewshot", "39"], "train_socratic.jsonl has only 38 train rows"),
    "all of them": (["--num_fewshot", "38"], "no row is left beside the dev rows and --num_fewshot"),
    "negative": (["--num_fewshot", "-1"], "--num_fewshot -1: must be at least 0"),
    "too long": (["--num_fewshot", "30"], "and the LLM has positions for 1,024; take fewer examples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_worked_examples_are_refused(flags, case):
    """A number of examples that the train rows or the LLM's positions have no room for is refused in one line, and
    nothing is written."""
    more, message = REFUSED[case]
    with pytest.raises(InputError) as error:
        train.run([*flags, "--output_name", "wrong", *more])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not Path("ckpt").exists() and not Path("results").exists()


def test_evaluation_refuses_impossible_worked_examples(tiny_pair, tmp_path, monkeypatch, gsm8k_data):
    """So does an evaluation; and a task without train rows has no examples."""
    monkeypatch.chdir(tmp_path)
    bare = [*pair_flags(tiny_pair)[:2], "--thought_generator", "none", "--output_dir", "out"]
    data = [*bare, "--data_dir", gsm8k_data, "--num_fewshot"]
    assert "has only 38 train rows" in fails(*data, "39")
    assert "--num_fewshot -1: must be at least 0" in fails(*data, "-1")
    assert "positions for 1,024; take fewer examples" in fails(*data, "30")
    write_jsonl(tmp_path / "test.jsonl", [gsm8k_row(0)])
    own = ["--task_name", "own", "--answer_type", "number", "--test_file", "test.jsonl", "--num_fewshot", "1"]
    said = fails(*bare, *own)
    assert said.startswith("error: --num_fewshot 1 takes rows of train: ") and "--train_file names its file" in said
    assert not Path("out/samples.jsonl").exists()
