"""Broken files of every kind, thrown at both scripts: each is refused in one line, or changes nothing.

A case breaks one file of a small run (rows, LMs, a checkpoint, a resume checkpoint, an evaluation's folder) and starts
a script in this process. It ends with one "error: " line; or it ends well, and then what it makes is what it makes with
the whole file, or the case is in ACCEPTED, with the reason. One case in three is tried; BROKEN=all has
all, with all values of all keys.
"""

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import gsm8k_row, write_jsonl

from lta_thinker import evaluate, train

TRAIN = (
    "--large_model_id pair/large --small_model_id pair/small --task_name gsm8k --data_dir data --num_thought_tokens 2 "
    "--batch_size 2 --gradient_accumulation_steps 1 --max_steps 4 --eval_strategy steps --eval_steps 2 "
    "--logging_steps 1 --disable_tqdm True --output_name run"
)
MODELS = "--base_model_id pair/large --assistant_model_id pair/small --task_name gsm8k --data_dir data"
ASK = f"--checkpoint {{}} {MODELS} --num_return_sequences 2 --max_new_tokens 3 --batch_size 2 --output_dir out"
ALL = os.environ.get("BROKEN") == "all"
VALUES = ("null", "true", "-1", "0.5", "1e999", "NaN", "1" + "0" * 30, '"x"', '""', "[]", "{}", "[null]")

# ---------------------------------------------------------------------------------------------------------------------
# Ways to break a file: (name, its bytes); None takes the file away, a Path makes a folder of it

Ways = Iterator[tuple[str, bytes | None | Path]]


def any_file(whole: bytes) -> Ways:
    yield "taken away", None
    yield "a folder", Path()
    yield "empty", b""
    yield "cut in half", whole[: len(whole) // 2]
    yield "a byte short", whole[:-1]
    yield "not UTF-8", b"\xff\xfe\x00" + whole
    yield "zeros before", b"\x00" * 20 + whole[20:]
    yield "zeros behind", whole + b"\x00" * 9


def json_file(whole: bytes) -> Ways:
    yield from any_file(whole)
    for name, text in (("list", "[]"), ("null", "null"), ("number", "5"), ("object", "{}"), ("deep", "[" * 10**5)):
        yield name, text.encode()
    yield from json_keys(whole)


def json_lines(whole: bytes) -> Ways:
    """The first line is broken as an object, and the lines stand otherwise."""
    yield from any_file(whole)
    first, *others = whole.splitlines(keepends=True)
    yield "a line twice", first + whole
    yield "an empty line", b"\n" + whole
    yield "other order", b"".join([*others, first])
    for name, line in json_keys(first):
        yield name, line + b"\n" + b"".join(others)


def json_keys(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """The object with a key, or a key of an object in it, that is taken away, is there twice, or has another value: one
    way for each key of the object (of flags.json, whose flags one loop compares, for every third) and for one inner key
    in fifteen, or all ways for all."""
    top, ways = json.loads(whole), (None, "twice", *VALUES)
    every = 3 if len(top) > 60 else 1
    for i, path in enumerate(paths(top)):
        if i % (every if len(path) == 1 else 15) and not ALL:
            continue
        for text in ways if ALL else (ways[i % len(ways)],):
            what = {None: "taken away", "twice": "twice"}.get(text, f"= {text}")
            yield f"{'.'.join(path)} {what}", changed(top, path, text)


def paths(value: dict, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, item in value.items():
        yield (*before, key)
        if isinstance(item, dict) and not before:
            yield from paths(item, (key,))


def changed(top: dict, path: tuple[str, ...], text: str | None) -> bytes:
    """The object as JSON with this text at the path."""
    mark, copy = "\x01", json.loads(json.dumps(top))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    name, value = json.dumps(path[-1]), json.dumps(inner[path[-1]])
    if text is None:
        del inner[path[-1]]
        return json.dumps(copy).encode()
    inner[path[-1]] = mark
    return json.dumps(copy).replace(json.dumps(mark), f"{value}, {name}: {value}" if text == "twice" else text).encode()


# ---------------------------------------------------------------------------------------------------------------------
# The runs, and what tells whether they made the same


def start(script, flags: str) -> tuple[str, str]:
    """How a script ends: ("well" | "refused" | "fault", its last words)."""
    printed, before = io.StringIO(), sys.argv
    sys.argv = [script.__name__, *flags.split()]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            script.main()
        return "well", ""
    except SystemExit as stop:
        line = str(stop.code)
        if stop.code in (None, 0):
            return "well", ""
        return ("refused" if line.startswith("error: ") and "\n" not in line else "fault"), line
    except Exception as error:
        return "fault", f"{type(error).__name__}: {error}"[:300]
    finally:
        sys.argv = before


def texts() -> object:
    lines = [json.loads(line) for line in Path("out/samples.jsonl").read_text().splitlines()]
    return [(line["question"], line["responses"]) for line in lines]


def report() -> object:
    figures = json.loads(Path("out/report.json").read_text())
    return texts(), figures["vote_accuracy"], figures["sample_accuracy"], figures["num_questions"]


def weights() -> object:
    (final,) = Path("ckpt").glob("run-*")
    return [path.read_bytes() for path in sorted(final.glob("*.bin"))]


def nothing() -> object:
    return None


@dataclass
class Run:
    """A script with its flags; before: the folders that it begins with are taken away; made: what it made."""

    script: object
    flags: str
    made: Callable[[], object]
    without: tuple[str, ...] = ()


RUNS = {
    "a training": Run(train, TRAIN, weights, ("results/run", "ckpt")),
    "a training goes on": Run(train, f"{TRAIN} --resume", weights, ("results/run/checkpoint-4", "ckpt")),
    "an evaluation": Run(evaluate, ASK + " --test_k 2", report, ("out",)),
    "an evaluation goes on": Run(evaluate, ASK + " --test_k 4", report),
    "two reports": Run(evaluate, "--compare out/report.json other/report.json", nothing),
    "a plot": Run(evaluate, "--plot run out/report.json --output_dir plots", nothing, ("plots",)),
}
LM = {"config.json": json_file, "generation_config.json": json_file, "tokenizer_config.json": json_file}
LM |= {"tokenizer.json": any_file, "model.safetensors": any_file}
# both LMs are read by the same functions, in both scripts: the small one is broken in the one, the large in the other
TRAINED_ON, ASKED = (("large", "small"), ("large", "small")) if ALL else (("small",), ("large",))
FILES: dict[str, dict[str, Callable[[bytes], Ways]]] = {
    "a training": {"data/gsm8k/train_socratic.jsonl": json_lines}
    | {f"pair/{role}/{name}": any_file for role in TRAINED_ON for name in LM},
    "a training goes on": {
        "results/run/flags.json": json_file,
        "results/run/dev_losses.jsonl": json_lines,
        **{f"results/run/checkpoint-2/{name}": json_file for name in ("thoughts.json", "trainer_state.json")},
        **{
            f"results/run/checkpoint-2/{name}": any_file
            for name in ("complete", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
        },
    },
    "an evaluation": {
        "data/gsm8k/test_socratic.jsonl": json_lines,
        "CKPT/thoughts.json": json_file,
        "CKPT/projection.bin": any_file,
        "CKPT/TransformerBlock.bin": any_file,
        **{f"pair/{role}/{name}": ways for role in ASKED for name, ways in LM.items()},
    },
    "an evaluation goes on": {f"out/{name}": json_file for name in ("settings.json", "report.json")}
    | {"out/samples.jsonl": json_lines},
    "two reports": {"out/report.json": json_file, "out/samples.jsonl": json_lines},
    "a plot": {"out/report.json": any_file},
}
# what ends well and makes something else: (run, file, the case or its key): why
TRAIN_ROWS, TEST_ROWS = "data/gsm8k/train_socratic.jsonl", "data/gsm8k/test_socratic.jsonl"
TOKENIZER = "pair/small/tokenizer_config.json"
ACCEPTED = {
    ("a training", TRAIN_ROWS, "a line twice"): "other rows, and good ones",
    ("a training", TRAIN_ROWS, "other order"): "other rows, and good ones",
    ("an evaluation", TEST_ROWS, "a line twice"): "other questions, and good ones",
    ("an evaluation", TEST_ROWS, "other order"): "other questions, and good ones",
    ("an evaluation", TEST_ROWS, 'question = "x"'): "another question, and a good one",
    ("an evaluation", "CKPT/thoughts.json", "design.distinct_slot_ids = true"): "a design with the same weights",
    ("an evaluation", "CKPT/thoughts.json", "design.block_positions = true"): "a design with the same weights",
    ("an evaluation", "pair/large/tokenizer_config.json", 'eos_token = "x"'): "an end that the vocabulary has",
    ("a training", TOKENIZER, "taken away"): "tokenizer.json alone is a tokenizer, of other special tokens",
    ("a training", TOKENIZER, "a folder"): "as without it",
}


@pytest.fixture(scope="module")
def whole(tiny_pair, tmp_path_factory) -> Path:
    """A folder with the tiny pair, rows, a finished training, an evaluation of it and one with one sample."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(tiny_pair, folder / "pair")
    write_jsonl(folder / "data/gsm8k/train_socratic.jsonl", [gsm8k_row(i) for i in range(20)])
    write_jsonl(folder / "data/gsm8k/test_socratic.jsonl", [gsm8k_row(i) for i in range(40, 44)])
    with contextlib.chdir(folder):
        assert start(train, TRAIN) == ("well", "")
        (checkpoint,) = Path("ckpt").iterdir()
        ask = ASK.format(checkpoint)
        assert start(evaluate, f"{ask} --test_k 2") == ("well", "")
        assert start(evaluate, f"{ask} --test_k 2 --num_return_sequences 1 --output_dir other") == ("well", "")
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_broken_file_is_refused_in_one_line_or_changes_nothing(name, whole, tmp_path, monkeypatch):
    run, place = RUNS[name], tmp_path / "place"
    (checkpoint,) = (path.relative_to(whole) for path in (whole / "ckpt").iterdir())
    flags = run.flags.format(checkpoint)
    monkeypatch.chdir(tmp_path)

    def fresh():
        os.chdir(tmp_path)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        os.chdir(place)
        for folder in run.without:
            shutil.rmtree(folder, ignore_errors=True)

    fresh()
    assert start(run.script, flags) == ("well", "")
    places = {file: Path(file.replace("CKPT", str(checkpoint))) for file in FILES[name]}
    cases = [(file, *way) for file, ways in FILES[name].items() for way in ways((whole / places[file]).read_bytes())]
    cases = cases if ALL else cases[::3]
    good, faults = run.made(), []
    for file, case, content in cases:
        fresh()
        path = places[file]
        path.unlink()
        if isinstance(content, Path):
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        how, words = start(run.script, flags)
        half = [str(path) for path in Path().rglob("*.partial")]
        on_purpose = {(name, file, case), (name, file, case.split()[0])} & ACCEPTED.keys()
        if how == "fault" or half:
            faults.append(f"{file}: {case}: {words} {half or ''}")
        elif how == "well" and not on_purpose and run.made() != good:
            faults.append(f"{file}: {case}: taken, and something else was made")
    print(f"{name}: {len(cases)} cases")
    assert not faults, f"{len(faults)} of {len(cases)}:\n" + "\n".join(faults)
