"""--help and wrong flags: at once, in groups, with the names near a wrong one."""

import subprocess
import sys
from dataclasses import fields

import pytest
from helpers import ROOT, line_of, one_line, write_evaluation
from transformers import TrainingArguments

from lta_thinker import model
from lta_thinker.common import InputError
from lta_thinker.evaluation import harness
from lta_thinker.evaluation import start as evaluation_start
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.harness import HarnessArguments
from lta_thinker.names import GENERATOR_NAMES, KIND_NAMES
from lta_thinker.parser import Parser
from lta_thinker.training import start as training_start
from lta_thinker.training.declared import REFUSED, TrainFlags, library_words
from lta_thinker.training.flags import TrainArguments
from lta_thinker.usage import FIRST, flag_name, flag_words

SCRIPTS = {
    "train.py": (training_start.answer, TrainFlags),
    "evaluate.py": (evaluation_start.answer, EvaluationArguments),
    "-m lta_thinker.lm_eval": (harness.answer, HarnessArguments),
}


def help_of(script: str, capsys, *more: str) -> str:
    with pytest.raises(SystemExit) as stop:
        SCRIPTS[script][0](["--help", *more])
    assert not stop.value.code
    return capsys.readouterr().out


def named(text: str) -> list[str]:
    """The flags that a help text lists, in its order."""
    return [line.split()[0] for line in text.splitlines() if line.startswith("  --")]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_each_own_flag_once(script, capsys, monkeypatch):
    """--help has each of the program's own flags once, in groups, the ten that matter first, and no other's; in a
    terminal of 120 columns on under 130 lines."""
    monkeypatch.setenv("COLUMNS", "120")
    printed, own = help_of(script, capsys), {field.name: field for field in fields(SCRIPTS[script][1])}
    assert sorted(named(printed)) == sorted(map(flag_name, own.values()))
    assert named(printed)[:10] == [flag_name(own[name]) for name in FIRST[script]] and len(FIRST[script]) == 10
    titles = [line for line in printed.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles[:4] == ["the ten that matter first:", "models:", "data:", "method:"] and "output:" in titles
    assert max(map(len, printed.splitlines())) <= 120 and len(printed.splitlines()) < 130


def test_help_says_each_default_once(capsys):
    """A default stands behind the flag or in its text; of a switch that is on, the one that turns it off is listed."""
    text = help_of("train.py", capsys)
    assert "--learning_rate 0.0001" in text and text.count("0.0001") == 1
    assert "--lora_r                          rank of the adapters (default 16)\n" in text
    assert "--no_thought_cache                do not keep the small LM's states" in text and " True" not in text


def test_help_all_adds_the_library_without_what_is_refused(capsys):
    """--help all has Hugging Face's flags too, but for those that are refused."""
    own, text = set(named(help_of("train.py", capsys))), help_of("train.py", capsys, "all")
    everything = set(named(text))
    own_names = {field.name for field in fields(TrainFlags)}
    theirs = [
        field for field in fields(TrainingArguments) if field.init and field.name not in REFUSED.keys() | own_names
    ]
    assert everything - own == set(map(flag_name, theirs)) > {"--max_steps", "--weight_decay"}
    assert own < everything and "turns off: " in text and "do not Whether" not in text


def test_known_words_are_those_of_the_parser():
    """What is read from the sources, without an import, is what the parser takes: in this version of the library."""
    parsers = {
        cls: set(Parser(cls, add_help=False)._option_string_actions) for cls in (TrainArguments, TrainingArguments)
    }
    known = flag_words(fields(TrainFlags)) | library_words()
    assert library_words() == parsers[TrainingArguments]
    assert parsers[TrainArguments] <= known
    assert all(word.startswith("--no") for word in known - parsers[TrainArguments])  # of switches with our own defaults
    for cls in (EvaluationArguments, HarnessArguments):
        assert flag_words(fields(cls)) == set(Parser(cls, add_help=False)._option_string_actions)
    assert tuple(model.GENERATORS) == GENERATOR_NAMES and tuple(model.KINDS) == KIND_NAMES


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("train.py", "--learning_rat 1 --seed 3", "no such flag: --learning_rat (--learning_rate?); python train.py"),
        ("train.py", "--num-thought-token=3", "--num-thought-token (--num_thought_tokens, "),
        (
            "train.py",
            "--max_step 3 --batchsize 2",
            "--max_step (--max_steps, --max_len, --eval_steps?), --batchsize (--batch_size?); ",
        ),
        ("train.py", "--fsd x", "no such flag: --fsd (--seed?); "),  # --fsdp is refused
        ("evaluate.py", "--checkpont x", "no such flag: --checkpont (--checkpoint, --checkpoints_of?); python"),
        ("evaluate.py", "--zzz", "no such flag: --zzz; "),
    ],
)
def test_wrong_flag_names_its_neighbours(script, words, said):
    with pytest.raises(InputError) as error:
        SCRIPTS[script][0](words.split())
    one_line(error, said)


def test_what_may_be_right_passes():
    """Hyphens, the = form, what stands behind -- and texts with spaces are no wrong flags."""
    training_start.answer(["--max-steps", "3", "--no-balance-losses", "--seed=3", "--", "--y"])
    evaluation_start.answer(["--ask", "--how many pens?"])


def test_help_and_wrong_flags_and_comparisons_need_no_library(tmp_path):
    """--help, a wrong flag, --compare and --rank import neither torch nor transformers: they take a second, not ten."""
    reports = [str(write_evaluation(tmp_path / name, [line_of(0, [18, 17]), line_of(1, [18, 18])])) for name in "ab"]
    for script, flags, status in (
        ("train.py", ["--help"], 0),
        ("train.py", ["--learning_rat", "1"], 1),
        ("evaluate.py", ["--help"], 0),
        ("evaluate.py", ["--compare", *reports], 0),
        ("evaluate.py", ["--rank", *reports], 0),
    ):
        command = [sys.executable, "-X", "importtime", str(ROOT / script), *flags]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time" in line}
        assert done.returncode == status and "lta_thinker.common" in imported
        assert not imported & {"torch", "transformers"}
        assert done.stdout.startswith("2 " if len(flags) > 2 else "") and (
            done.stdout or "error: no such flag" in done.stderr
        )
