"""What evaluate.py says: what is asked and how, how far it is, and what to type next."""

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from helpers import line_of, write_evaluation

from lta_thinker import evaluate, progress
from lta_thinker.evaluation.console import sampling_text
from lta_thinker.evaluation.report import Report, figure_rows
from lta_thinker.evaluation.tasks import print_tasks
from lta_thinker.generation.sampling import resolve_sampling


def test_start_tells_flags_models_sampling_rows_parameters_and_disk(run, checkpoints):
    """The given flags first, then what is asked; settings that nobody gave are under --verbose."""
    flags = ["--checkpoint", checkpoints / "small_block", "--num_return_sequences", "2", "--output_dir", "out"]
    lines = run(*flags).splitlines()
    at = next(i for i, line in enumerate(lines) if not line.startswith("  --"))
    assert 0 < at <= 5 and re.search("large with 4 thoughts of small_block behind .*small, float32$", lines[at])
    begins = [
        "  2 answers to each question of at most 4 tokens: temperature 0.",
        "  ",
        "  parameters: ",
        "  disk: out; ",
    ]
    assert all(line.startswith(begin) for line, begin in zip(lines[at + 1 :], begins, strict=False))
    assert lines[at + 2].endswith("test_socratic.jsonl: 12 rows, 0 left out as broken, 4 asked")
    verbose = run(*flags, "--verbose")
    assert "  sampling.temperature = " in verbose and not any("sampling.temperature" in line for line in lines)


def test_inspection_says_how_many_it_looks_into(run, checkpoints, monkeypatch):
    """--inspect 2 says 2 asked, and nothing of samples: its answers are greedy."""
    monkeypatch.setattr(evaluate, "inspect_thoughts", lambda *given: None)
    said = run("--checkpoint", checkpoints / "small_block", "--inspect", "2", "--output_dir", "out")
    assert "12 rows, 0 left out as broken, 2 asked\n" in said and "to each question" not in said


def test_sampling_is_told_as_it_is():
    greedy = resolve_sampling("qwen3", None, greedy=True, positions=1024, max_new_tokens=9)
    assert sampling_text(greedy) == "the likeliest answer to each question, of at most 9 tokens"


def test_progress_says_that_long_questions_come_first(run, checkpoints, monkeypatch):
    """In a pipe as plain lines: how many are done, how many of those are right, and that those were the long ones."""
    monkeypatch.setattr(progress, "EVERY", 0)
    lines = run("--checkpoint", checkpoints / "small_block", "--output_dir", "out").splitlines()
    told = [line for line in lines if line.startswith("questions ")]
    pattern = r"questions \d/4  [\d.]+% right so far, the longest questions first  ETA \d:\d\d"
    assert len(told) == 3 and all(re.fullmatch(pattern, line) for line in told)


def test_progress_is_a_bar_in_a_terminal(checkpoints, gsm8k_data, tmp_path, monkeypatch):
    """With the answers that --print_response asks for above it, each on lines of its own."""
    screens = [io.StringIO(), io.StringIO()]
    for name, screen in zip(("stdout", "stderr"), screens, strict=True):
        monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, name, screen)
    flags = ["--checkpoint", checkpoints / "small_block", "--data_dir", gsm8k_data, "--test_k", 2, "--print_response"]
    evaluate.main([*map(str, flags), "--max_new_tokens", "2", "--output_dir", str(tmp_path / "out")])
    out, bars = (screen.getvalue() for screen in screens)
    assert "questions:   0%|" in bars and "questions " not in out and "\r" not in out
    assert len(re.findall(r"^\[\d\.0\] answer ", out, re.MULTILINE)) == 2


def test_answered_questions_are_told(run, checkpoints):
    """A run that goes on says how many are left."""
    flags = ["--checkpoint", checkpoints / "small_block", "--output_dir", "out"]
    run(*flags, "--test_k", "3")
    assert "  3 questions answered already, 1 left\n" in run(*flags, "--test_k", "4")


def test_a_vote_of_one_is_not_told_twice(tmp_path, capsys):
    """One sample a question is told as one sample; several as vote, sample, maj@k and pass@k."""
    for count in (1, 2):
        path = write_evaluation(tmp_path / str(count), [line_of(0, [18, 17][:count]), line_of(1, [18, 18][:count])])
        titles = [title for title in figure_rows(Report.read(path)) if "@k" in title or "right" in title]
        vote = ["vote of 2, % right", "one sample, % right", "maj@k, %", "pass@k, %"]
        assert titles == (vote if count == 2 else ["one sample, % right"])
        evaluate.main(["--compare", str(path), str(path), "--output_dir", str(tmp_path)])
        evaluate.main(["--rank", str(path), "--output_dir", str(tmp_path)])
        print_tasks([Report.read(path)])
        assert len(re.findall(r"  vote\b", capsys.readouterr().out)) == (0 if count == 1 else 3)


def next_words(printed: str) -> list[str]:
    """The command behind "next: ", without its program."""
    last = printed.splitlines()[-1]
    assert last.startswith("next: python evaluate.py ")
    return shlex.split(last)[3:]


@pytest.mark.parametrize("folder", [None, "my answers"])
def test_the_next_commands_lead_to_the_comparison(run, checkpoints, folder):
    """Behind thoughts comes the bare LLM, by the same flags and in a folder of its own, then the paired comparison.
    Each command works as it is printed."""
    flags = ["--checkpoint", checkpoints / "small_block", "--num_thought_tokens", "2", "--num_return_sequences", "2"]
    flags += ["--output_dir", folder] if folder else []
    bare = next_words(run(*flags))
    for word in ("--num_return_sequences", "--max_new_tokens", "--test_k", "--data_dir"):
        assert word in bare
    assert "--num_thought_tokens" not in bare and bare[bare.index("--thought_generator") + 1] == "none"
    behind_bare, comparison = run(*bare, data=False), next_words(run(*flags))
    if folder:
        assert next_words(behind_bare) == comparison
    else:  # how many thoughts are injected is not said by the flags of the bare LLM
        assert "next: " not in behind_bare
    assert comparison[0] == "--compare" and all(Path(path).is_file() for path in comparison[1:])
    assert run(*comparison, data=False).startswith("4 questions, % right")


def test_bare_llm_leads_to_the_comparison_that_can_be_made(run, checkpoints):
    """Behind the bare LLM comes the comparison with the evaluation with thoughts by the same flags, where that is about
    the same questions; else nothing."""
    flags = ["--checkpoint", checkpoints / "small_block", "--num_return_sequences", "2"]
    assert "next: " not in run(*flags, "--thought_generator", "none")
    run(*flags)
    comparison = next_words(run(*flags, "--thought_generator", "none"))
    assert comparison[0] == "--compare" and "none" not in comparison[2]
    assert run(*comparison, data=False).startswith("4 questions, % right")
    assert "next: " not in run(*flags, "--thought_generator", "none", "--test_k", "5")
