"""Prompts, thoughts and answers fit into the LMs' positions, or are refused before an LM is loaded."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import fails, gsm8k_row, write_jsonl

from lta_thinker import LatentThoughtModel, evaluate, train
from lta_thinker.common import InputError
from lta_thinker.data_loader import TASKS, load_split

LONG = "Why? " * 6_000  # 30,000 characters


@pytest.fixture
def no_lm(monkeypatch):
    """No LM may be loaded."""
    for name in ("load_frozen_lm", "load_embeddings", "load_sharded"):
        monkeypatch.setattr(f"lta_thinker.build.{name}", lambda source: pytest.fail("an LM was loaded"))


def rows_with(folder: Path, name: str, **changes) -> Path:
    """A data folder with 40 rows, of which the third has these fields."""
    rows = [gsm8k_row(i) for i in range(40)]
    rows[2] |= changes
    for split in ("train", "test"):
        write_jsonl(folder / "gsm8k" / f"{split}_socratic.jsonl", rows if split == name else rows[3:])
    return folder


def shorter(pair: Path, name: str, folder: Path, positions: int) -> Path:
    """A copy of one of the tiny LMs with fewer positions."""
    shutil.copytree(pair / name, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}))
    return folder


STEPS = "\n".join(["So it is."] * 400) + "\n#### 3"


@pytest.mark.parametrize("changes", [{"question": LONG}, {"answer": STEPS}])
def test_long_training_rows_are_refused(flags, tmp_path, no_lm, changes):
    """A row that is longer than the LLM's positions is refused, with its place and the flag that leaves it out."""
    data = rows_with(tmp_path / "rows", "train", **changes)
    with pytest.raises(InputError) as error:
        train.run([*flags, "--data_dir", str(data), "--output_name", "x"])
    said = str(error.value)
    assert "train_socratic.jsonl: row 3: it has " in said and "the LLM has positions for 1,024" in said
    assert "--max_len 1024 leaves longer rows out" in said and "\n" not in said
    assert not Path("results").exists()


def test_long_training_rows_can_be_left_out(flags, tmp_path, capsys):
    """--max_len leaves them out and counts them, and the run goes on."""
    data = rows_with(tmp_path / "rows", "train", question=LONG)
    train.run([*flags, "--data_dir", str(data), "--output_name", "x", "--max_len", "1024", "--max_steps", "1"])
    assert "1 too long" in capsys.readouterr().out


def test_small_lm_has_positions_too(flags, tiny_pair, tiny_models, tmp_path, no_lm):
    """So it is with the small LM, whose prompt and slots, and prompt and steps, must fit."""
    data = flags[flags.index("--data_dir") + 1]
    examples = [one for split in ("train", "dev") for one in load_split(TASKS["gsm8k"], split, data).examples]
    longest = max(len(tiny_models.layout.prompt(example.question)["question"]) for example in examples)
    small = shorter(tiny_pair, "small", tmp_path / "short", longest + 4)  # room for the slots, and not for the steps
    with pytest.raises(InputError, match=r"row \d+: it has .* the small LM has positions for \d+; --max_len"):
        train.run([*flags, "--small_model_id", str(small), "--output_name", "x"])


def test_slots_need_positions(trained, tiny_pair, tiny_models, gsm8k_data, tmp_path, no_lm):
    """In evaluation the small LM reads a question's turn and all N slots behind it."""
    examples = load_split(TASKS["gsm8k"], "test", str(gsm8k_data)).examples
    longest = max(len(tiny_models.layout.prompt(example.question)["question"]) for example in examples)
    small = shorter(tiny_pair, "small", tmp_path / "small", longest + 3)
    flags = ["--checkpoint", trained, "--assistant_model_id", small, "--data_dir", gsm8k_data]
    said = fails(*flags, "--num_thought_tokens", "2", "--output_dir", tmp_path / "out")
    assert f"it has {longest + 4} tokens with its thoughts, and the small LM has positions for {longest + 3}" in said


def test_dev_answers_must_fit(flags, no_lm):
    """So it is with the answers of --best_metric accuracy, before the first step."""
    with pytest.raises(InputError, match=r"--max_new_tokens 1000: .*row \d+ has .* fit behind it"):
        train.run([*flags, "--best_metric", "accuracy", "--max_new_tokens", "1000", "--output_name", "x"])


def test_long_questions_are_refused(trained, tiny_pair, tmp_path, no_lm, monkeypatch):
    """An evaluation refuses a question that is longer than the LLM's positions with its place, and answers that do not
    fit behind the longest question; --ask does the same."""
    monkeypatch.chdir(tmp_path)
    data = rows_with(tmp_path / "rows", "test", question=LONG)
    for flags in (["--checkpoint", trained], ["--base_model_id", tiny_pair / "large", "--thought_generator", "none"]):
        said = fails(*flags, "--data_dir", data, "--output_dir", "out", "--task_name", "gsm8k")
        assert "test_socratic.jsonl: row 3: it has " in said and "the LLM has positions for 1,024" in said
        said = fails(*flags, "--split", "train", "--max_new_tokens", "1024", "--data_dir", data, "--output_dir", "out")
        assert "--max_new_tokens 1024: " in said and "fit behind it" in said
        assert "--ask: it has" in fails(*flags, "--ask", LONG)
    assert not Path("out/samples.jsonl").exists()


def test_solve_refuses_long_questions(trained, monkeypatch):
    """So does solve."""
    model = LatentThoughtModel.from_pretrained(trained)
    with pytest.raises(InputError, match="the question: it has .* the LLM has positions for 1,024"):
        model.solve(LONG)
    with pytest.raises(InputError, match="--max_new_tokens 1000: the question has .* fit behind it"):
        model.solve("How many?", max_new_tokens=1000)


def test_answers_end_where_positions_end(tiny_pair, tmp_path, monkeypatch):
    """Without --max_new_tokens an evaluation of an LM with few positions runs: answers take half of them at most."""
    monkeypatch.chdir(tmp_path)
    lm = shorter(tiny_pair, "large", tmp_path / "short", 360)
    bare = ["--base_model_id", str(lm), "--thought_generator", "none", "--split", "sample"]
    evaluate.main([*bare, "--test_k", "1", "--output_dir", "out"])
    settings = json.loads(Path("out/settings.json").read_text())
    assert settings["sampling"]["max_new_tokens"] == 180


def test_folders_of_other_noise_are_not_continued(tiny_pair, tmp_path, monkeypatch):
    """Samples whose noise hung on the row's number are not mixed with others."""
    monkeypatch.chdir(tmp_path)
    bare = ["--base_model_id", str(tiny_pair / "large"), "--thought_generator", "none", "--split", "sample"]
    bare += ["--test_k", "1", "--output_dir", "out", "--max_new_tokens", "4"]
    evaluate.main(bare)
    path = Path("out/settings.json")
    settings = json.loads(path.read_text())
    settings["samples_format"] = 1
    path.write_text(json.dumps(settings))
    before = Path("out/samples.jsonl").read_text()
    assert "its samples are another version's, whose noise and lines were others" in fails(*bare)
    assert Path("out/samples.jsonl").read_text() == before
