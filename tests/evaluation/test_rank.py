"""The ranked table of a run's checkpoints: evaluate.py --rank."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from helpers import fails, family_tokenizer, line_of, ranked, write_evaluation

from lta_thinker import evaluate
from lta_thinker.checkpoint import RESUME_FILE
from lta_thinker.data_loader import PROMPTS
from lta_thinker.evaluation import compare
from lta_thinker.rows.layout import Layout


def write_report(name: str, answers: list[str], loss: float | None = 0.5, gold: str = "18", **settings) -> str:
    """report.json and samples.jsonl of an evaluation with one line of single-letter answers a question: + right,
    - wrong, o none."""
    numbers = {"+": "18", "-": "7", "o": None}
    lines = [line_of(index, [numbers[letter] for letter in line], gold) for index, line in enumerate(answers)]
    checkpoint = {"name": name, "run": None, "dev": None if loss is None else {"step": 20, "eval_sft_loss": loss}}
    settings = {"num_thought_tokens": 4, "sampling": {"num_return_sequences": 3}, RESUME_FILE: name} | settings
    return str(write_evaluation(Path(name), lines, checkpoint, **settings))


def test_checkpoints_rank_by_vote_then_samples(tmp_path, monkeypatch, capsys):
    """Checkpoints are ranked by the vote's accuracy, then by that of single samples. A note says that the best of
    several was chosen by these figures."""
    monkeypatch.chdir(tmp_path)
    half = ["+o-", "+++", "---", "---"]  # vote 2 of 4 by a tie that the first answer wins
    paths = [
        write_report("poor", ["+--", "-+-", "+++", "o-+"], loss=0.4),
        write_report("half", half, loss=0.3),
        write_report("good", ["+++", "+++", "+++", "---"], loss=None, num_thought_tokens=2),
        write_report("steady", ["+++", "+++", "---", "---"], loss=0.01234567),
    ]
    evaluate.main(["--rank", *paths])
    printed = capsys.readouterr().out
    assert printed.startswith("4 dev questions, ") and "note: the best of 4 is chosen by these figures" in printed
    rows = ranked(printed)
    assert [row[0] for row in rows] == ["good", "steady", "half", "poor"]
    assert [row[1:3] for row in rows] == [["-", "2"], ["20", "4"], ["20", "4"], ["20", "4"]]
    assert [row[3].split()[0] for row in rows] == ["75.0", "50.0", "50.0", "25.0"]
    assert [row[4].split()[0] for row in rows] == ["75.0", "50.0", "33.3", "50.0"]
    folders = [str(Path(path).parent) for path in paths]
    evaluate.main(["--rank", *folders])
    assert ranked(capsys.readouterr().out) == rows, "a folder stands for its report.json"
    evaluate.main(["--rank", paths[0]])
    assert "note: the best" not in capsys.readouterr().out
    assert all(re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", cell) for row in rows for cell in row[3:5])
    assert [row[5:] for row in rows] == [
        ["0.0%", "5.0", "-"],
        ["0.0%", "5.0", "0.01235"],
        ["8.3%", "5.0", "0.3"],
        ["8.3%", "5.0", "0.4"],
    ]


def test_unfair_rankings_are_refused(tmp_path, monkeypatch):
    """Other questions, other sampling settings and files that are no current report are refused in one line."""
    monkeypatch.chdir(tmp_path)
    a = write_report("a", ["+++", "---"])
    assert "not about the same questions" in fails("--rank", a, write_report("fewer", ["+++"]))
    assert "not about the same gold answers" in fails("--rank", a, write_report("others", ["+++", "---"], gold="19"))
    assert fails("--rank", a, "--verbose").startswith("error: --verbose with --rank")
    cold = write_report("cold", ["+++", "---"], sampling={"num_return_sequences": 3, "temperature": 0.1})
    warm = write_report("warm", ["+++", "---"], sampling={"num_return_sequences": 3, "temperature": 0.9})
    assert "warm/report.json: sampling.temperature is 0.9, in cold/report.json it is 0.1" in fails("--rank", cold, warm)
    old = Path(write_report("old", ["+++", "---"]))
    old.write_text(json.dumps({k: v for k, v in json.loads(old.read_text()).items() if k != "checkpoint"}))
    assert "old/report.json: has no checkpoint" in fails("--rank", a, str(old))
    assert "a/samples.jsonl: not JSON" in fails("--rank", "a/samples.jsonl")


def test_prompts_differ_only_around_thoughts():
    """Two prompts may differ in the words around the thoughts. Any other difference is named."""
    template = (
        "{{ 'system ' + date_string }}{% for m in messages %}{{ ' ' + m.role + ': ' + m.content | trim + '</s>' }}"
        "{% endfor %}{{ ' assistant: ' if add_generation_prompt }}"
    )
    tokenizer = family_tokenizer("bpe", template)

    def settings(kind: str, date: str = "26 Jul 2024", template: str = template, **prompts):
        tokenizer.chat_template, prompts = template, PROMPTS["number"] | prompts
        made = Layout(tokenizer, None if kind == "none" else tokenizer, prompts, date)
        stored = {"thought_generator": kind, "prompts": prompts, "layout.llm": asdict(made.llm)}
        return SimpleNamespace(settings=stored)

    plain = settings("none", problem="{question} Think.")
    hints = settings("small", problem="{question} Think.", thoughts=" Hints: {thoughts}.", generator="Hint: {question}")
    other = settings("small", problem="{question} Think.", thoughts=" {thoughts} are hints.")
    for pair in ((plain, hints), (hints, plain), (hints, other)):
        assert compare.differing(*pair) == {}
    assert compare.differing(plain, settings("none")).keys() >= {"prompts.problem"}
    later = settings("small", "27 Jul 2024", problem="{question} Think.")
    assert compare.differing(plain, later).keys() == {"layout.llm.before"}
    ends = template.replace("+ '</s>'", "+ (' Be brief.' if m.role == 'user' else '') + '</s>'")
    same = {"problem": "{question} Think.", "thoughts": " Hints: {thoughts}."}
    assert compare.differing(hints, settings("small", template=ends, **same)).keys() == {"layout.llm.suffix"}
