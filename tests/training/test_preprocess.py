"""preprocess.py: rows are tokenised once and read from the cache after that; nothing stale is ever read."""

import copy
import dataclasses
import errno
import hashlib
import json
import shutil

import pytest
from helpers import CHAT_TEMPLATE, gsm8k_row, write_jsonl

from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS
from lta_thinker.flags import parse_flags
from lta_thinker.rows.examples import Example
from lta_thinker.rows.layout import THOUGHTS, Layout
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.rows import cache_key, prepare_rows, tell_of_names, token_rows

EXAMPLES = [
    Example(0, "Mia has 12 pens.", ("12 + 7 = 19", "Mia buys 7."), "19"),
    Example(1, "Tom reads 8 pages.", (), "40"),
]
COLUMNS = {"prefix", "suffix", "question", "target", "header", "steps", "answer", "sha256"}
COLUMNS |= {"length", "prefix_length", "prompt_length", "question_length", "steps_length"}


def arguments(tiny_pair, data_dir, *more: str) -> TrainArguments:
    models = ["--large_model_id", str(tiny_pair / "large"), "--small_model_id", str(tiny_pair / "small")]
    return parse_flags(TrainArguments, [*models, "--data_dir", str(data_dir), "--output_name", "x", *more], "train.py")


def test_rows_are_tokenised_once(tiny_pair, tiny_models, tmp_path, monkeypatch):
    """Rows are tokenised once and then read from the cache with the same ids and counts, also for another length or
    number of thoughts."""
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", [gsm8k_row(i) for i in range(60)])  # rows of no other test
    args = arguments(tiny_pair, tmp_path)
    first = prepare_rows(args, tiny_models.layout)
    sizes = [(row["prefix_length"], 32 + row["length"] - row["prefix_length"]) for row in first.train]
    assert args.num_thought_tokens == 32 and first.widths == sizes
    monkeypatch.setattr(Layout, "training_rows", lambda *_: pytest.fail("tokenised again"))
    again = prepare_rows(args, tiny_models.layout)
    assert list(again.train) == list(first.train) and dataclasses.replace(again, train=first.train) == first
    short = arguments(tiny_pair, tmp_path, "--max_len", "190", "--num_thought_tokens", "2")  # of the same file
    kept = prepare_rows(short, tiny_models.layout).train
    assert list(kept) == [row for row in first.train if row["length"] <= 188] and 0 < len(kept) < len(first.train)


def test_one_letter_golds_are_told_before_training(tiny_pair, tiny_models, tmp_path, capsys):
    """What is odd about the rows is said once, also where train and dev are of one file."""
    rows = [{"question": f"{i}?", "options": ["x", "y"], "correct": "A", "rationale": f"It is {i}."} for i in range(40)]
    write_jsonl(tmp_path / "aqua" / "train.json", rows)
    write_jsonl(tmp_path / "aqua" / "dev.json", rows[:30])
    prepare_rows(arguments(tiny_pair, tmp_path, "--task_name", "aqua"), tiny_models.layout)
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2 and "train.json: 40 of 40 golds are option A" in warned[1]


def test_row_beyond_the_positions_is_named(tiny_pair, tiny_models, tmp_path):
    """A row that is longer than an LM's positions is named by its number in the file, the first one being row 1."""
    rows = [gsm8k_row(i) for i in range(4)]
    rows[2]["question"] += " pens" * 1100
    for split in ("train", "dev"):
        write_jsonl(tmp_path / "gsm8k" / f"{split}.jsonl", rows)
    with pytest.raises(
        InputError, match="train.jsonl: row 3: it has .* the LLM has positions for 1,024; --max_len 1024"
    ):
        prepare_rows(arguments(tiny_pair, tmp_path), tiny_models.layout)


@pytest.mark.parametrize("sees_steps", [False, True])
def test_longest_row_just_fits_the_small_lm(tiny_pair, tiny_models, tmp_path, sees_steps):
    """The small LM reads the question with the slots or with the steps, with --thoughts_see_steps with both: as many
    positions are enough, one less is not."""
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", [gsm8k_row(i) for i in range(4)])
    write_jsonl(tmp_path / "gsm8k" / "dev.jsonl", [gsm8k_row(9)])
    shutil.copytree(tiny_pair, tmp_path / "pair")
    path = tmp_path / "pair" / "small" / "config.json"
    config = json.loads(path.read_text())
    flags = ["--num_thought_tokens", "5", "--small_model_id", str(tmp_path / "pair" / "small")]
    flags += ["--thoughts_see_steps"] if sees_steps else []
    rows = prepare_rows(arguments(tiny_pair, tmp_path, *flags), tiny_models.layout)
    lengths = [(row["question_length"], row["steps_length"]) for row in [*rows.train, *rows.dev]]
    needed = max(question + (5 + steps if sees_steps else max(5, steps)) for question, steps in lengths)
    for positions in (needed, needed - 1):
        path.write_text(json.dumps(config | {"max_position_embeddings": positions}))
        args = arguments(tiny_pair, tmp_path, *flags)
        if positions == needed:
            prepare_rows(args, tiny_models.layout)
        else:
            with pytest.raises(InputError, match=f"the small LM has positions for {positions}"):
                prepare_rows(args, tiny_models.layout)


def test_rows_of_an_own_task_need_steps_only_where_a_field_is_named(tiny_pair, tiny_models, tmp_path):
    """Rows without steps are trained on; where --steps_field names a field, some row must have it."""
    path = tmp_path / "rows.jsonl"
    own = ["--task_name", "mine", "--train_file", str(path), "--dev_file", str(path), "--answer_type", "number"]
    write_jsonl(path, [{"question": f"{i}?", "answer": f"{i}"} for i in range(8)])
    assert len(prepare_rows(arguments(tiny_pair, tmp_path, *own), tiny_models.layout).train) == 8
    own += ["--steps_field", "how"]
    with pytest.raises(InputError, match=r"no row has steps in the field how \(--steps_field\)"):
        prepare_rows(arguments(tiny_pair, tmp_path, *own), tiny_models.layout)
    write_jsonl(path, [{"question": f"{i}?", "answer": f"{i}", "how": "Count." if i else ""} for i in range(8)])
    assert len(prepare_rows(arguments(tiny_pair, tmp_path, *own), tiny_models.layout).train) == 8


@pytest.mark.parametrize(
    ("flags", "steps"),
    [([], 0), (["--warmup_ratio", "0.1"], 10), (["--warmup_ratio", "0.001"], 1), (["--warmup_steps", "7"], 7)]
    + [(["--warmup_steps", "7", "--warmup_ratio", "0.1"], 7)],
)
def test_warmup_is_a_share_or_steps(tiny_pair, tmp_path, flags, steps):
    """--warmup_steps, else --warmup_ratio of all steps, rounded up."""
    flags = flags or ["--warmup_ratio", "0"]
    assert arguments(tiny_pair, tmp_path, *flags).get_warmup_steps(100) == steps


def test_row_has_ids_lengths_and_digest(tiny_models):
    """A cached row has the layout's ids, their lengths and their digest."""
    rows = list(token_rows(tiny_models.layout, EXAMPLES))
    assert [row.keys() for row in rows] == [COLUMNS] * 2
    for row, example in zip(rows, EXAMPLES, strict=True):
        ids = tiny_models.layout.training(example)
        assert {name: row[name] for name in ids} == ids
        assert row["prefix_length"] == len(ids["prefix"])
        assert row["prompt_length"] == len(ids["prefix"] + ids["suffix"])
        assert row["length"] == row["prompt_length"] + len(ids["target"])
        assert row["question_length"] == len(ids["question"])
        assert row["steps_length"] == len(sum(ids["steps"], ids["header"]))
        assert row["sha256"] == hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def tokenizer_that(tokenizer, change):
    tokenizer = copy.deepcopy(tokenizer)
    change(tokenizer)
    return tokenizer


DATED = CHAT_TEMPLATE.replace("{%- for", "{{- date_string }}{%- for", 1)
CHANGES = {
    "rows": lambda a: a | {"examples": EXAMPLES[::-1]},
    "an answer": lambda a: a | {"examples": [dataclasses.replace(EXAMPLES[0], answer="20"), EXAMPLES[1]]},
    "the LLM's prompt": lambda a: a | {"prompts": a["prompts"] | {"problem": "Solve: {question}"}},
    "the generator's prompt": lambda a: a | {"prompts": a["prompts"] | {"generator": "Read: {question}"}},
    "the separator": lambda a: a | {"separator": "\n\n"},
    "steps as turns": lambda a: a | {"steps_as_turns": True},
    "the date": lambda a: a | {"date_string": "1 Jan 2020"},
    "the LLM's tokenizer": lambda a: a | {"large": a["small"]},
    "the generator's tokenizer": lambda a: a | {"small": a["large"]},
    "a token of the LLM's": lambda a: a | {"large": tokenizer_that(a["large"], lambda t: t.add_tokens(["pens"]))},
    "a token of the generator's": lambda a: a | {"small": tokenizer_that(a["small"], lambda t: t.add_tokens(["Mia"]))},
    "the chat template": lambda a: (
        a | {"large": tokenizer_that(a["large"], lambda t: setattr(t, "chat_template", CHAT_TEMPLATE))}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_inputs_are_tokenised_again(tiny_models, change):
    """Where rows, prompts, tokenizers, template, separator or date are others, rows are tokenised anew and their
    digests differ."""

    def rows(large, small, prompts, examples, **more):
        layout = Layout(large, small, prompts, **more)
        return list(token_rows(layout, examples)), layout.training_rows(examples)

    large, small = (copy.deepcopy(t) for t in (tiny_models.llm_tokenizer, tiny_models.small_tokenizer))
    large.chat_template = small.chat_template = DATED
    plain = {"large": large, "small": small, "prompts": PROMPTS["number"], "examples": EXAMPLES}
    before, _ = rows(**plain)
    after, expected = rows(**CHANGES[change](plain))
    assert [{name: row[name] for name in ids} for row, ids in zip(after, expected, strict=True)] == expected
    assert [row["sha256"] for row in after] != [row["sha256"] for row in before]


def test_row_without_layout_is_refused(tiny_pair, tiny_models, tmp_path):
    """A row that holds our own marks is refused."""
    rows = [gsm8k_row(i) for i in range(40)]
    rows[20]["question"] += THOUGHTS
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", rows)
    with pytest.raises(InputError, match="the very characters that stand for special tokens"):
        prepare_rows(arguments(tiny_pair, tmp_path), tiny_models.layout)


def test_single_row_and_impossible_cache_are_refused(tiny_pair, tiny_models, tmp_path, monkeypatch):
    """A single row, which leaves none beside the dev rows, and a cache folder that cannot be made are refused."""
    write_jsonl(tmp_path / "gsm8k" / "train.jsonl", [gsm8k_row(0)])
    with pytest.raises(InputError, match="train: no row is left beside the dev rows"):
        prepare_rows(arguments(tiny_pair, tmp_path), tiny_models.layout)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "gsm8k" / "train.jsonl"))
    with pytest.raises(InputError, match="HF_DATASETS_CACHE names another"):
        token_rows(tiny_models.layout, EXAMPLES)


@pytest.mark.parametrize("damage", ["cut in a batch", "cut to nothing", "rows of another file", "no Arrow"])
def test_broken_cache_is_made_again(tiny_models, damage, tmp_path, monkeypatch):
    """A file of the cache that was cut off, or has fewer rows, is made again: neither an error nor fewer rows."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    expected = list(token_rows(tiny_models.layout, EXAMPLES))
    token_rows(tiny_models.layout, EXAMPLES[:1])
    file, other = (
        tmp_path / "lta-thinker" / f"{cache_key(tiny_models.layout, e)}.arrow" for e in (EXAMPLES, EXAMPLES[:1])
    )
    content = file.read_bytes()
    length = {"cut in a batch": len(content) * 2 // 3, "cut to nothing": 0}.get(damage)
    file.unlink()  # it is open for reading
    file.write_bytes(b"no" if damage == "no Arrow" else other.read_bytes() if length is None else content[:length])
    assert list(token_rows(tiny_models.layout, EXAMPLES)) == expected


def test_full_disk_of_the_cache_is_one_line(tiny_models, tmp_path, monkeypatch):
    """Where there is no room for the cache, one line names its file and the variable that names another folder; there
    is no file then, and the next run with room makes it."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("datasets.arrow_writer.ArrowWriter.write_batch", no_room)
        with pytest.raises(InputError, match=r"arrow: cannot be written \(.*No space left.*HF_DATASETS_CACHE") as error:
            token_rows(tiny_models.layout, EXAMPLES)
    assert "\n" not in str(error.value) and not list((tmp_path / "lta-thinker").iterdir())
    assert len(token_rows(tiny_models.layout, EXAMPLES)) == 2


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_names_of_special_tokens_in_rows_are_told_of(tiny_models, capsys):
    """Rows with names of special tokens are counted in one line, with the names: they are read as text."""
    rows = [
        dataclasses.replace(EXAMPLES[0], steps=("<|im_end|> a <|im_start|>",)),
        EXAMPLES[1],
        dataclasses.replace(EXAMPLES[1], question="<|im_end|>"),
    ]
    tell_of_names(tiny_models.layout, rows, "train")
    said = capsys.readouterr().out
    assert said.startswith(
        "note: 2 train rows have names of special tokens (<|im_end|>, <|im_start|>); they are read as"
    )
    tell_of_names(tiny_models.layout, EXAMPLES, "train")
    assert not capsys.readouterr().out
