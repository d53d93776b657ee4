"""Wrong input of every kind: one line that says what is wrong, a non-zero exit, no traceback, nothing half-written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from helpers import ROOT, write_jsonl
from transformers import AutoTokenizer

from lta_thinker import evaluate, train
from lta_thinker.common import LOCK_FILE
from lta_thinker.data import convert
from lta_thinker.data_loader import TASKS

GOOD = [{"question": f"{i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}"} for i in range(20)]
OWN = "--task_name mine --answer_type number --train_file rows.jsonl --test_file rows.jsonl"
TRAIN = "--large_model_id pair/large --small_model_id pair/small --output_name x --num_thought_tokens 2 --max_steps 1"
BARE = "--base_model_id pair/large --thought_generator none --max_new_tokens 2"
CHECKPOINT = "--checkpoint ckpt --max_new_tokens 2"


@pytest.fixture
def place(tiny_pair, tmp_path, monkeypatch):
    """An empty folder to run in, with rows.jsonl and a copy of the tiny pair that a case may break."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_pair, "pair")
    write_jsonl(Path("rows.jsonl"), GOOD)
    return tmp_path


def edit_json(path: str, **values) -> None:
    content = json.loads(Path(path).read_text()) | values
    Path(path).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def config(folder: str, **values):
    return lambda: edit_json(f"pair/{folder}/config.json", **values)


def template(text: str | None, **values):
    def write():
        edit_json("pair/large/tokenizer_config.json", chat_template=None, **values)
        Path("pair/large/chat_template.jinja").unlink(missing_ok=True)
        if text is not None:
            Path("pair/large/chat_template.jinja").write_text(text)

    return write


def cut(path: str):
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:-100])


def write(path: str, content: str | bytes):
    return lambda: Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def rows(**changes):
    """rows.jsonl with fields changed (None: taken away)."""
    changed = [{k: v for k, v in (row | changes).items() if v is not None} for row in GOOD]
    return lambda: write_jsonl(Path("rows.jsonl"), changed)


def add_tokens(folder: str, *words: str):
    def write():
        tokenizer = AutoTokenizer.from_pretrained(f"pair/{folder}")
        tokenizer.add_tokens(list(words))
        tokenizer.save_pretrained(f"pair/{folder}")

    return write


def nothing():
    pass


T5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
MAMBA = {"model_type": "mamba", "architectures": ["MambaForCausalLM"], "state_size": 4, "num_heads": None}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_layer": 1, "n_head": 2}
TWICE = "{% for m in messages %}{{ m.content }}{{ m.content }}|{% endfor %}"
RAISES = "{{ raise_exception('only system turns here') }}"

CASES = {
    # files
    "train file that is not there": (
        nothing,
        train,
        f"{TRAIN} {OWN} --train_file no.jsonl",
        "--train_file {}/no.jsonl: no such file",
    ),
    "file of an unknown kind": (
        write("rows.txt", "x"),
        train,
        f"{TRAIN} {OWN} --train_file rows.txt",
        "rows.txt: rows are read from .jsonl",
    ),
    "line that is not JSON": (write("rows.jsonl", '{"question": '), train, f"{TRAIN} {OWN}", "rows.jsonl:1: not JSON"),
    "line that is not UTF-8": (
        write("rows.jsonl", b'{"question": "\xe4"}'),
        train,
        f"{TRAIN} {OWN}",
        "rows.jsonl:1: not JSON ('utf-8'",
    ),
    "list that is not JSON": (
        write("rows.json", "[{}, "),
        train,
        f"{TRAIN} {OWN} --train_file rows.json",
        "rows.json: not a JSON list",
    ),
    "row that is no object": (
        write("rows.jsonl", "[1]\n"),
        train,
        f"{TRAIN} {OWN}",
        "rows.jsonl: row 1: not a JSON object",
    ),
    "line that is too deep": (
        write("rows.jsonl", '{"a":' * 10**5),
        train,
        f"{TRAIN} {OWN}",
        "rows.jsonl:1: not JSON (",
    ),
    "half a character": (
        write("rows.jsonl", '{"question": "\\ud800", "answer": "1"}'),
        train,
        f"{TRAIN} {OWN}",
        "rows.jsonl:1: half a character",
    ),
    "table that is not UTF-8": (
        write("rows.csv", b"question,answer\n\xe4,1\n"),
        train,
        f"{TRAIN} {OWN} --train_file rows.csv",
        "rows.csv:",
    ),
    "empty file": (write("rows.jsonl", ""), train, f"{TRAIN} {OWN}", "rows.jsonl: no usable row"),
    "parquet that is none": (
        write("rows.parquet", "x"),
        train,
        f"{TRAIN} {OWN} --train_file rows.parquet",
        "rows.parquet: cannot be loaded",
    ),
    "hub that is out of reach": (
        nothing,
        train,
        f"{TRAIN} {OWN} --train_file hub:me/mine",
        "--train_file hub:me/mine::train: cannot be loaded",
    ),
    "task whose files are nowhere": (
        nothing,
        evaluate,
        f"{BARE} --task_name aqua --data_dir d",
        "put gsm_style_test.jsonl or test.jsonl or test.json into d/aqua",
    ),
    "train rows that are all dev": (
        write("rows.jsonl", json.dumps(GOOD[0])),
        train,
        f"{TRAIN} {OWN}",
        "no row is left beside the dev rows",
    ),
    # fields
    "question field that is not there": (
        nothing,
        train,
        f"{TRAIN} {OWN} --question_field q",
        'rows.jsonl:1: field "q" is missing',
    ),
    "answer field that is not there": (
        rows(answer=None),
        evaluate,
        f"{BARE} {OWN}",
        'rows.jsonl:1: field "answer" is missing',
    ),
    "steps field that is not there": (
        nothing,
        train,
        f"{TRAIN} {OWN} --steps_field s",
        "rows.jsonl: no row has steps in the field s (--steps_field)",
    ),
    "answers of another type": (nothing, evaluate, f"{BARE} {OWN} --answer_type boolean", "is not a boolean answer"),
    "answer of several lines": (rows(answer="one\ntwo"), evaluate, f"{BARE} {OWN}", 'no line "#### <number>"'),
    "options that are no list": (
        rows(options="A B"),
        evaluate,
        f"{BARE} {OWN} --answer_type choice",
        "options are not a list",
    ),
    # flags
    "unknown task": (nothing, train, f"{TRAIN} --task_name gsm9k", "--task_name gsm9k: no such task; there are gsm8k"),
    "own files for a known task": (
        nothing,
        evaluate,
        f"{BARE} --task_name arithmetic --test_file rows.jsonl",
        "--task_name arithmetic: is known; a task of your own needs another name and --answer_type",
    ),
    "own task without an answer type": (
        nothing,
        evaluate,
        f"{BARE} --task_name mine --test_file rows.jsonl",
        "needs --answer_type",
    ),
    "task name that is no name": (
        nothing,
        evaluate,
        f"{BARE} {OWN} --task_name a/b",
        "--task_name a/b: letters, digits",
    ),
    "answer type that is none": (
        nothing,
        evaluate,
        f"{BARE} {OWN} --answer_type poem",
        "--answer_type poem: one of number",
    ),
    "own files under a known task's name": (nothing, train, f"{TRAIN} {OWN} --task_name gsm8k", "under another name"),
    "test questions of a task without test rows": (
        nothing,
        evaluate,
        f"{BARE} --task_name mine --answer_type number --train_file rows.jsonl",
        "no test split (--test_file names its file)",
    ),
    "hub name that is none": (nothing, train, f"{TRAIN} {OWN} --train_file hub:", "hub:owner/name[:config[:split]]"),
    "sample of a task that has none": (nothing, evaluate, f"{BARE} {OWN} --split sample", "mine has none"),
    "training without train rows": (
        nothing,
        train,
        f"{TRAIN} --task_name mine --answer_type number --test_file rows.jsonl",
        "--train_file names its file",
    ),
    "training on du": (nothing, train, f"{TRAIN} --task_name du", "for evaluation only"),
    "prompt file that is not there": (
        nothing,
        train,
        f"{TRAIN} {OWN} --prompt_file p.json",
        "--prompt_file p.json: cannot be read",
    ),
    "unknown placeholder": (
        write("p.json", '{"problem": "{q}"}'),
        evaluate,
        f"{BARE} {OWN} --prompt_file p.json",
        "unknown placeholder {q}",
    ),
    "flag that does not exist": (
        nothing,
        evaluate,
        f"{BARE} {OWN} --no_such_flag",
        "no such flag: --no_such_flag; python evaluate.py --help lists them",
    ),
    "more thoughts than the vocabulary has rows": (
        nothing,
        train,
        f"{TRAIN} {OWN} --num_thought_tokens 500",
        "has only 400 rows",
    ),
    "checkpoint that is not there": (
        nothing,
        evaluate,
        CHECKPOINT,
        "--checkpoint ckpt: no such folder, and no run of that name; there are no weights in ckpt/ here",
    ),
    "weights that are no weights": (
        write("p.bin", "x"),
        evaluate,
        "--base_model_id pair/large --params_file_name p.bin --num_thought_tokens 2",
        "p.bin: not a PyTorch file",
    ),
    "output folder that cannot be made": (
        nothing,
        evaluate,
        f"{BARE} {OWN} --output_dir rows.jsonl/x",
        "use another --output_dir",
    ),
    # templates
    "template that refuses the turns": (template(RAISES), train, f"{TRAIN} {OWN}", "only system turns here"),
    "template that is no template": (template("{% for m in %}"), train, f"{TRAIN} {OWN}", "pair/large"),
    "template that repeats its texts": (
        template(TWICE),
        train,
        f"{TRAIN} {OWN}",
        "does not render a plain question and answer",
    ),
    "longest text that is a word": (
        lambda: edit_json("pair/large/tokenizer_config.json", model_max_length="x"),
        evaluate,
        f"{BARE} {OWN}",
        "pair/large: tokenizer_config.json: model_max_length: is 'x', not a number",
    ),
    "longest text that is a list": (
        lambda: edit_json("pair/small/tokenizer_config.json", model_max_length=[]),
        train,
        f"{TRAIN} {OWN}",
        "pair/small: tokenizer_config.json: model_max_length: is [], not a number",
    ),
    "neither template nor end token": (template(None, eos_token=None), evaluate, f"{BARE} {OWN}", "pair/large"),
    # models
    "model that is not there": (
        nothing,
        train,
        f"{TRAIN} {OWN} --large_model_id pair/huge",
        "--large_model_id pair/huge: no such folder",
    ),
    "config that is not JSON": (
        write("pair/large/config.json", "{"),
        train,
        f"{TRAIN} {OWN}",
        "--large_model_id pair/large: cannot be loaded",
    ),
    "weights that were cut off": (
        cut("pair/large/model.safetensors"),
        train,
        f"{TRAIN} {OWN}",
        "--large_model_id pair/large: cannot be loaded",
    ),
    "folder without a tokenizer": (
        lambda: Path("pair/small/tokenizer.json").unlink(),
        train,
        f"{TRAIN} {OWN}",
        "--small_model_id pair/small: cannot be loaded",
    ),
    "encoder and decoder": (config("large", **T5), train, f"{TRAIN} {OWN}", "encoder"),
    "state-space model": (config("large", **MAMBA), evaluate, f"{BARE} {OWN}", "pair/large"),
    "config without a hidden size": (config("large", **GPT2), train, f"{TRAIN} {OWN}", "its config has no hidden_size"),
    "tokens beyond the embedding table": (
        add_tokens("large", "pens"),
        evaluate,
        f"{BARE} {OWN}",
        "token 'pens' is beyond the 400 rows",
    ),
    "head with softcapping": (
        config("large", final_logit_softcapping=30.0),
        evaluate,
        f"{BARE} {OWN}",
        "final_logit_softcapping",
    ),
    # raw files
    "task without raw files": (
        nothing,
        convert,
        "--task math --from rows.jsonl --to d",
        "--task math: there are raw files",
    ),
    "raw file under another name": (
        nothing,
        convert,
        "--task aqua --from rows.jsonl --to d",
        "must have train.json or dev.json or test.json",
    ),
    "raw file that is no XML": (
        write("ASDiv.xml", "<a>"),
        convert,
        "--task asdiv --from ASDiv.xml --to d",
        "ASDiv.xml: not XML",
    ),
    "raw rows that are none": (
        write("task.json", '{"examples": [{"input": "?", "target_scores": [1]}]}'),
        convert,
        "--task du --from task.json --to d",
        "task.json: example 1: ",
    ),
    "two raw files for one": (
        lambda: [shutil.copy("rows.jsonl", f"strategyqa_train.{kind}") for kind in ("json", "jsonl")],
        convert,
        "--task strategyqa --from . --to d",
        "two files there make the same one",
    ),
    "raw file of another task": (
        write("task.json", "{}"),
        convert,
        "--task du --from task.json --to d",
        "not BIG-bench's task.json",
    ),
}


def run(script, flags: str, monkeypatch) -> str:
    """The script's error line; fails where it ends in any other way."""
    if script is convert:
        call = lambda: convert.main(flags.split(), TASKS)  # noqa: E731
    else:
        monkeypatch.setattr(sys, "argv", [script.__name__ + ".py", *flags.split()])
        call = script.main
    with pytest.raises(SystemExit) as stop:
        call()
    return str(stop.value.code)


def files_in(place: Path) -> dict[Path, bytes]:
    """Every file but a lock, which a run takes before it loads an LM."""
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and path.name != LOCK_FILE}


@pytest.mark.parametrize("kind", CASES)
def test_wrong_inputs_end_in_one_line(kind, place, monkeypatch):
    """Wrong input of every kind ends in one line that says what is wrong, and no file is written or changed."""
    prepare, script, flags, message = CASES[kind]
    prepare()
    before = files_in(place)
    said = run(script, flags, monkeypatch)
    assert said.startswith("error: ") and "\n" not in said and message.replace("{}", str(place)) in said
    assert before == files_in(place), "files were written"


def test_at_least_thirty_wrong_inputs():
    """The list of wrong inputs has at least thirty kinds."""
    assert len(CASES) >= 30


@pytest.mark.parametrize("script", ["evaluate.py", "data_loader.py"])  # train.py: see test_train.py
def test_scripts_end_with_that_line(script, place):
    """The scripts themselves end with that line, without a traceback, and exit status 1."""
    flags = {
        "evaluate.py": f"{BARE} {OWN} --question_field q",
        "data_loader.py": "--task aqua --from rows.jsonl --to d",
    }[script]
    done = subprocess.run([warm.python(), ROOT / script, *flags.split()], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
