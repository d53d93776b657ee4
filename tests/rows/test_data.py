"""Tasks and splits: where rows come from, which rows are dev, and what a broken row says."""

import json
import random

import datasets
import pytest
import torch
from helpers import SHARED, gsm8k_row, write_jsonl

from lta_thinker import data_loader
from lta_thinker.common import InputError
from lta_thinker.data_loader import TASKS, get_task, load_split, worked_examples
from lta_thinker.rows.examples import gold_answer

GSM8K = TASKS["gsm8k"]


def message(call, *args, **kwargs):
    """The one line of the InputError that a call ends with."""
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def unreachable_hub(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub\nwith a second line")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_gsm8k_rows_give_question_steps_answer(gsm8k_data, tmp_path):
    """Socratic and plain rows of GSM8K give the question, the steps without mark-up, and the answer."""
    split = load_split(GSM8K, "test", str(gsm8k_data))
    assert (len(split.examples), split.read, split.bad) == (12, 12, 0)
    assert split.source == str(gsm8k_data / "gsm8k" / "test_socratic.jsonl")
    example = split.examples[1]  # row 41
    assert example.index == 1 and example.answer == "1725" and example.question == gsm8k_row(41)["question"]
    assert example.steps == (
        "How many in both boxes? Both boxes hold 44 + 1683 = 1727 pens.",
        "How many are left? 1727 - 2 = 1725 are left.",
    )
    rows = [gsm8k_row(41) | {"answer": gsm8k_row(41)["answer"].replace("How many are left? ** ", "")}]
    write_jsonl(tmp_path / "gsm8k" / "test.jsonl", rows)
    plain = load_split(GSM8K, "test", str(tmp_path))
    assert plain.source.endswith("test.jsonl") and plain.examples[0].steps[1] == "1727 - 2 = 1725 are left."


def test_socratic_files_come_first(gsm8k_data, tmp_path):
    """Where there is a socratic file, the plain one is not read."""
    write_jsonl(tmp_path / "gsm8k" / "train_socratic.jsonl", [gsm8k_row(i) for i in range(40)])
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", ["not read"])
    assert load_split(GSM8K, "train", str(tmp_path)).source.endswith("train_socratic.jsonl")


def test_dev_is_fixed_twentieth_of_train(gsm8k_data):
    """The dev rows are a twentieth of train, the same at any seed, no longer in train and never of test."""

    def questions(split):
        return {example.question for example in load_split(GSM8K, split, str(gsm8k_data)).examples}

    train, dev, test = (questions(split) for split in ("train", "dev", "test"))
    assert len(dev) == 2 and len(train) == 38 and not dev & train and not dev & test
    assert train | dev == {gsm8k_row(i)["question"] for i in range(40)}
    assert load_split(GSM8K, "dev", str(gsm8k_data)).read == 40
    random.seed(1)
    torch.manual_seed(1)
    assert questions("dev") == dev, "the dev rows depend on a run's seed"


def test_splits_need_only_their_own_file(gsm8k_data, tmp_path, unreachable_hub):
    """Dev needs no test file, and test no train file."""
    write_jsonl(tmp_path / "a" / "gsm8k" / "train.jsonl", [gsm8k_row(i) for i in range(20)])
    write_jsonl(tmp_path / "b" / "gsm8k" / "test.jsonl", [gsm8k_row(0)])
    assert len(load_split(GSM8K, "dev", str(tmp_path / "a")).examples) == 1
    assert len(load_split(GSM8K, "test", str(tmp_path / "b")).examples) == 1
    message(load_split, GSM8K, "test", str(tmp_path / "a"))
    message(load_split, GSM8K, "dev", str(tmp_path / "b"))


def test_dev_file_leaves_train_whole(tmp_path):
    """A task with a dev file reads it and keeps all of train."""
    for i, name in enumerate(("train", "dev", "test")):
        write_jsonl(tmp_path / "arithmetic" / f"{name}.jsonl", [gsm8k_row(100 * i + k) for k in range(20)])
    for i, name in enumerate(("train", "dev", "test")):
        examples = load_split(TASKS["arithmetic"], name, str(tmp_path)).examples
        assert [example.question for example in examples] == [gsm8k_row(100 * i + k)["question"] for k in range(20)]


GOOD = gsm8k_row(0)
BAD_ROWS = {
    "not JSON": '{"question": "How many?", "answer": ',
    "not a JSON object": "[1, 2]",
    'field "question"': {"answer": "#### 1"},
    'field "answer" is missing or not a text': {"question": "How many?", "answer": [18]},
    'field "question" is missing or not a text': {"question": "  ", "answer": "#### 1"},
    "no final answer": {"question": "How many?", "answer": "3 + 4 = 7\n7"},
    'no final answer: "nothing here"': {"question": "How many?", "answer": "3 + 4 = 7\n#### nothing here"},
    '"several" is not a number answer': {"question": "How many?", "answer": "3 + 4 = 7\n#### several"},
}


def test_bad_gold_is_shown_by_its_last_line():
    """Of a gold answer of several lines that has none the last line is shown."""
    with pytest.raises(ValueError, match='no final answer: "no idea" is not a number answer'):
        gold_answer("It is late.\nno idea", "number")


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_bad_row_stops_with_its_line(tmp_path, reason):
    """A bad row stops the run with its file, its line, the reason and the flag that skips it."""
    path = tmp_path / "gsm8k" / "test.jsonl"
    write_jsonl(path, [GOOD, "", BAD_ROWS[reason], GOOD])
    said = message(load_split, GSM8K, "test", str(tmp_path))
    assert said.startswith(f"{path}:3: ") and reason in said and "--skip_bad_rows" in said


def test_line_that_is_not_utf8_is_bad(tmp_path):
    """A line that is not UTF-8 is a bad row like others."""
    path = tmp_path / "gsm8k" / "test.jsonl"
    write_jsonl(path, [GOOD])
    path.write_bytes(path.read_bytes() + json.dumps(GOOD).encode().replace(b"pens", b"p\xe4ns") + b"\r\n")
    said = message(load_split, GSM8K, "test", str(tmp_path))
    assert said.startswith(f"{path}:2: not JSON ('utf-8' codec")
    assert load_split(GSM8K, "test", str(tmp_path), skip_bad_rows=True).bad == 1


def test_skip_bad_rows_counts_them(tmp_path):
    """--skip_bad_rows leaves bad rows out and counts them. The others keep their index, and a file without any usable
    row is refused."""
    write_jsonl(tmp_path / "gsm8k" / "test.jsonl", [GOOD, *BAD_ROWS.values(), gsm8k_row(1)])
    split = load_split(GSM8K, "test", str(tmp_path), skip_bad_rows=True)
    assert (len(split.examples), split.read, split.bad) == (2, 2 + len(BAD_ROWS), len(BAD_ROWS))
    assert [example.index for example in split.examples] == [0, 1 + len(BAD_ROWS)]
    write_jsonl(tmp_path / "gsm8k" / "test.jsonl", list(BAD_ROWS.values()))
    assert "no usable row" in message(load_split, GSM8K, "test", str(tmp_path), skip_bad_rows=True)


def test_missing_files_say_what_to_do(tmp_path, unreachable_hub):
    """Where files are missing and the hub cannot be reached, the message says which file to put where."""
    said = message(load_split, GSM8K, "train", str(tmp_path))
    folder = tmp_path / "gsm8k"
    assert f"put train_socratic.jsonl or train.jsonl into {folder}" in said and "--data_dir" in said
    assert "openai/gsm8k" in said and "Couldn't reach" in said and "second line" not in said
    said = message(load_split, TASKS["arithmetic"], "test", str(tmp_path))
    assert f"{tmp_path / 'arithmetic'}: no test.jsonl there" in said and "toy/build.py" in said


def test_missing_files_come_from_hub(tmp_path, monkeypatch):
    """Missing files are read from the hub, and a bad row there is named by its number."""
    rows, asked = [gsm8k_row(i) for i in range(20)], []
    monkeypatch.setattr(datasets, "load_dataset", lambda **kwargs: asked.append(kwargs) or rows)
    split = load_split(GSM8K, "train", str(tmp_path))
    assert asked == [{"path": "openai/gsm8k", "name": "socratic", "split": "train"}]
    assert len(split.examples) == 19 and split.source == "hub:openai/gsm8k:socratic:train"
    rows[4] = {"question": "How many?"}
    assert message(load_split, GSM8K, "dev", str(tmp_path)).startswith("hub:openai/gsm8k:socratic:train: row 5: field")


def test_sample_stands_for_no_other_split(tmp_path, monkeypatch, unreachable_hub):
    """The sample is read from the repository only, and it never stands in for train, dev or test."""
    monkeypatch.setattr(data_loader, "ROOT", tmp_path / "repository")
    write_jsonl(tmp_path / "repository" / "data" / "gsm8k" / "sample.jsonl", [gsm8k_row(7)])
    write_jsonl(tmp_path / "user" / "gsm8k" / "sample.jsonl", [gsm8k_row(8)])
    split = load_split(GSM8K, "sample", str(tmp_path / "user"))
    assert [example.question for example in split.examples] == [gsm8k_row(7)["question"]]
    for name in ("train", "dev", "test"):
        message(load_split, GSM8K, name, str(tmp_path / "user"))
        message(load_split, GSM8K, name, str(tmp_path / "repository" / "data"))
    assert "sample.jsonl: no such file" in message(load_split, TASKS["arithmetic"], "sample", str(tmp_path / "user"))


def test_worked_examples_are_the_first_train_rows(gsm8k_data, tmp_path):
    """Worked examples are as many of the first train rows as are asked for, up to all of them; more are refused, and so
    is a broken row unless it may be left out."""
    train = [example.question for example in load_split(GSM8K, "train", str(gsm8k_data)).examples]
    for count in (0, 1, len(train)):
        assert [one.question for one in worked_examples(GSM8K, count, str(gsm8k_data))] == train[:count]
    assert "has only 38 train rows" in message(worked_examples, GSM8K, len(train) + 1, str(gsm8k_data))
    rows = [gsm8k_row(i) for i in range(40)]
    write_jsonl(tmp_path / "gsm8k" / "train_socratic.jsonl", [rows[0], {"question": "?"}, *rows[1:]])
    assert "train_socratic.jsonl:2: " in message(worked_examples, GSM8K, 2, str(tmp_path))
    assert len(worked_examples(GSM8K, 2, str(tmp_path), True)) == 2


def test_unknown_tasks_list_known_ones(gsm8k_data):
    """An unknown task or split is refused in one line that lists the known ones."""
    assert "gsm8k, strategyqa, math, asdiv-aug, asdiv, aqua, du, arithmetic" in message(get_task, "gsm9k")
    assert "train, dev, test, sample" in message(load_split, GSM8K, "validation", str(gsm8k_data))


def test_every_real_gsm8k_row_parses(unreachable_hub, monkeypatch):
    """Every row of the real GSM8K gives steps without mark-up and a number, and the splits have their known sizes."""
    if not (SHARED / "data" / "gsm8k" / "train.jsonl").is_file():
        pytest.skip(f"{SHARED}/data/gsm8k is not here")
    parse, parsed = data_loader.parse_rows, {}  # train and dev are rows of one file, which is parsed once

    def parse_once(task, source, *rest):
        if source not in parsed:
            parsed[source] = parse(task, source, *rest)
        return parsed[source]

    monkeypatch.setattr(data_loader, "parse_rows", parse_once)
    splits = {name: load_split(GSM8K, name, str(SHARED / "data")) for name in ("train", "dev", "test")}
    assert {name: len(split.examples) for name, split in splits.items()} == {"train": 7099, "dev": 374, "test": 1319}
    for split in splits.values():
        for example in split.examples:
            assert example.steps and not any(mark in step for step in example.steps for mark in ("<<", ">>", " ** "))
            assert example.answer.removeprefix("-").replace(".", "", 1).isdigit()
