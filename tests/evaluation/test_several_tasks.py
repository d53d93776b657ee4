"""Several tasks in one evaluation, and the list of what there is."""

import json
from pathlib import Path

import pytest
from helpers import ROOT, fails, gsm8k_row, two_ranks, write_jsonl

from lta_thinker import evaluate
from lta_thinker.data_loader import TASKS

SHORT = ["--test_k", "4", "--max_new_tokens", "3", "--num_return_sequences", "2"]


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> list[str]:
    """A folder to work in with rows of gsm8k and aqua -> the flags of an evaluation of the trained checkpoint."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("rows/gsm8k/test.jsonl"), [gsm8k_row(i) for i in range(40, 52)])
    rows = [{"question": f"{i} + 1?", "options": [f"A){i + 1}", f"B){i}"], "correct": "A"} for i in range(12)]
    write_jsonl(Path("rows/aqua/test.jsonl"), rows)
    return ["--checkpoint", str(trained), "--data_dir", "rows", *SHORT]


def samples(folder: str) -> str:
    return Path(folder, "samples.jsonl").read_text()


def test_several_tasks_load_the_lms_once(place, monkeypatch, capsys):
    """--task_name a,b asks both with LMs that are loaded once, ends with one table, and writes what two runs write."""
    own, loaded = evaluate.load_models, []
    monkeypatch.setattr(evaluate, "load_models", lambda *given: loaded.append(given) or own(*given))
    evaluate.main([*place, "--task_name", "gsm8k,aqua", "--output_dir", "both"])
    assert len(loaded) == 1
    printed = capsys.readouterr().out
    table = printed.partition("2 tasks, % right")[2].splitlines()[1:]
    assert [line.split()[0] for line in table] == ["task", "gsm8k", "aqua"] and printed.endswith(table[-1] + "\n")
    assert table[1].split()[1] == "4" and "note: --task_name aqua; the thoughts were trained with gsm8k" in printed
    for task in ("gsm8k", "aqua"):
        evaluate.main([*place, "--task_name", task, "--output_dir", task])
        assert samples(f"both/{task}") == samples(task)
        reports = [json.loads(Path(folder, "report.json").read_text()) for folder in (f"both/{task}", task)]
        for report in reports:
            for name in ("speed", "wall_seconds"):
                del report[name]
        assert reports[0] == reports[1] and reports[0]["settings"]["task_name"] == task


def test_several_tasks_of_two_ranks(place, capsys):
    """Under torchrun each rank takes its share of every task; default folders are those of single tasks."""
    two_ranks(ROOT / "evaluate.py", *place, "--task_name", "aqua,gsm8k")
    (root,) = Path("results").iterdir()
    folders = sorted(folder.name for folder in root.iterdir())
    assert len(folders) == 2 and folders[0].startswith("aqua-test-") and folders[1].startswith("test-")
    evaluate.main([*place, "--task_name", "aqua", "--output_dir", "alone"])
    assert samples(str(root / folders[0])) == samples("alone")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--task_name gsm8k,nix", "--task_name nix: no such task; there are gsm8k, "),
        ("--task_name gsm8k,du", "rows/du: no test.jsonl or "),
        ("--task_name gsm8k,", "--task_name gsm8k,: names with commas between them, each once"),
        ("--task_name gsm8k,gsm8k", "each once"),
        ("--task_name gsm8k,aqua --ask 1+1?", "--task_name gsm8k,aqua with --ask: one task"),
        ("--task_name gsm8k,aqua --inspect 2", "--task_name gsm8k,aqua with --inspect: one task"),
        ("--task_name gsm8k,aqua --backend vllm", "an engine takes one task at a time"),
    ],
)
def test_wrong_second_task_is_told_before_an_lm_is_loaded(place, monkeypatch, more, said):
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("an LM was loaded"))
    assert said in fails(
        *[word for word in place if "inspect" not in more or word not in ("--test_k", "4")], *more.split()
    )


def test_list_of_tasks_says_where_rows_are(place, capsys):
    """--list_tasks has every task and split, how many rows were found where, and what to do where there are none."""
    evaluate.main(["--list_tasks", "--data_dir", "rows"])
    lines = capsys.readouterr().out.splitlines()
    found = {line.split()[0]: i for i, line in enumerate(lines) if line[:1] != " "}
    assert set(TASKS) < found.keys()
    gsm8k = [line.split() for line in lines[found["gsm8k"] : found["strategyqa"]]]
    assert gsm8k[0] == ["gsm8k", "number", "train", *"hub:openai/gsm8k:socratic:train (no file in rows/gsm8k)".split()]
    assert gsm8k[1][:2] == ["dev", "5%"] and gsm8k[2] == ["test", "12", "rows/gsm8k/test.jsonl"]
    du = "\n".join(lines[found["du"] : found["arithmetic"]])
    assert "none: rows/du: no test.jsonl" in du and "--task du --from task.json" in du and "train " not in du[:60]
