"""The table of tasks, published and official files, tasks of the user's own, prompts: all by flags, in both scripts."""

import json
from pathlib import Path

import datasets
import pytest
from helpers import ROOT, SHARED, write_jsonl

from lta_thinker import evaluate, train
from lta_thinker.common import InputError
from lta_thinker.data.convert import convert_du
from lta_thinker.data.convert import main as convert_main
from lta_thinker.data_loader import PROMPTS, TASKS, OwnTask, load_split, own_task, read_prompts
from lta_thinker.evaluation.report import grade
from lta_thinker.evaluation.samples import sample_line
from lta_thinker.flags import parse_flags
from lta_thinker.generation.prompts import Request
from lta_thinker.generation.samplers import Answer
from lta_thinker.rows.examples import Example, Fields, parse_row

# ---------------------------------------------------------------------------------------------------------------------
# Rows -> examples

ROWS = {
    "socratic mark-up leaves the text": (
        "gsm8k",
        {
            "question": " Who?\n",
            "answer": "How many? ** 6 - 2 = <<6-2=4>>4 left.\n\n He pays $<<4*3=12>>12. \n#### 1,200",
        },
        ("Who?", ("How many? 6 - 2 = 4 left.", "He pays $12."), "1200", ()),
    ),
    "a step that is nothing but mark-up keeps its inside": (
        "asdiv-aug",
        {"question": "Who?", "answer": "<<5+3=8>>\n<<8*2=16>>\n#### 16"},
        ("Who?", ("5+3=8", "8*2=16"), "16", ()),
    ),
    "facts are the steps": (
        "strategyqa",
        {"qid": "x", "question": "Is it?", "answer": False, "facts": "One.\nTwo.\n"},
        ("Is it?", ("One.", "Two."), "no", ()),
    ),
    "facts may be a list": (
        "strategyqa",
        {"question": "Is it?", "answer": True, "facts": ["One.", "Two."]},
        ("Is it?", ("One.", "Two."), "yes", ()),
    ),
    "a solution's paragraphs are its steps, lines are not": (
        "math",
        {"problem": "Find $x$.", "solution": "First\n$x=\n2$.\n\nSo \\boxed{\\frac{1}{2}}.", "level": "Level 1"},
        ("Find $x$.", ("First\n$x=\n2$.", "So \\boxed{\\frac{1}{2}}."), "\\frac{1}{2}", ()),
    ),
    "a box without braces": (
        "math",
        {"problem": "?", "solution": "So $x=\\fbox 2$."},
        ("?", ("So $x=\\fbox 2$.",), "2", ()),
    ),
    "GSM-style rows of math": (
        "math",
        {"question": "Find $x$.", "answer": "First\n$x=2$.\n\nSo half.\n\n#### \\frac{1}{2}"},
        ("Find $x$.", ("First\n$x=2$.", "So half."), "\\frac{1}{2}", ()),
    ),
    "options are lettered and belong to the question": (
        "aqua",
        {"question": "How fast?", "options": ["A)32,400", "B)60"], "rationale": "Well.\n2 ** 3", "correct": "B"},
        ("How fast?\n\nOptions:\n(A) 32,400\n(B) 60", ("Well.", "2 ** 3"), "B", ("32,400", "60")),
    ),
    "GSM-style rows of aqua": (
        "aqua",
        {"question": "How fast?", "options": ["B) or not B)", "60"], "answer": "Well.\n#### B"},
        ("How fast?\n\nOptions:\n(A) B) or not B)\n(B) 60", ("Well.",), "B", ("B) or not B)", "60")),
    ),
    "an answer without steps": (
        "du",
        {"question": "What date?", "options": ["05/01/2021", "05/02/2021"], "answer": "B"},
        ("What date?\n\nOptions:\n(A) 05/01/2021\n(B) 05/02/2021", (), "B", ("05/01/2021", "05/02/2021")),
    ),
    "evaluation needs no steps": (
        "strategyqa",
        {"question": "Is it?", "answer": 1},
        ("Is it?", (), "yes", ()),
    ),
    "options under labels of their own": (
        "du",
        {"question": "?", "options": {"label": ["1", "2", "3"], "text": ["3", "1", "2"]}, "answer": "1"},
        ("?\n\nOptions:\n(A) 3\n(B) 1\n(C) 2", (), "A", ("3", "1", "2")),
    ),
    "options by letter, numbers, letters before letters": (
        "du",
        {"question": "?", "options": {"a": 7, "b": "b) b) x"}, "answer": "b"},
        ("?\n\nOptions:\n(A) 7\n(B) b) b) x", (), "B", ("7", "b) b) x")),
    ),
    "letters that stand twice": (
        "aqua",
        {"question": "?", "options": ["A)A)59", "b) x"], "rationale": "", "correct": "A"},
        ("?\n\nOptions:\n(A) 59\n(B) x", (), "A", ("59", "x")),
    ),
    "a sub-question without a step": (
        "gsm8k",
        {"question": "?", "answer": "How much? **\n#### 2 1/2 km"},
        ("?", ("How much?",), "2.5", ()),
    ),
    "options may stand in the question": (
        "du",
        {"question": "What date? (A) 05/01/2021 (B) 05/02/2021", "answer": "#### (B)"},
        ("What date? (A) 05/01/2021 (B) 05/02/2021", (), "B", ()),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_row_becomes_question_steps_answer(name):
    """A row of each layout becomes question, steps, answer and options."""
    task, row, example = ROWS[name]
    assert parse_row(TASKS[task], row) == example


BAD_ROWS = {
    "facts that are none": ("strategyqa", {"question": "?", "answer": True, "facts": 3}, '"facts" is neither a text'),
    "eleven options": ("du", {"question": "?", "options": list("abcdefghijk"), "answer": "A"}, "11 options"),
    "labels of none": ("du", {"question": "?", "options": {"label": 3, "text": ["x"] * 2}, "answer": "A"}, "labels"),
    "options cut off": ("du", {"question": "?", "options": '["x", ', "answer": "A"}, "not a JSON list"),
    "half a character": ("math", {"question": "?", "answer": "\ud800"}, "half a character"),
    "an unseen option": ("du", {"question": "?", "options": ["x", "\u200b"], "answer": "A"}, "an option is empty"),
    "an empty option": ("du", {"question": "?", "options": ["x", ""], "answer": "A"}, "an option is empty"),
    "neither yes nor no": ("strategyqa", {"question": "?", "answer": "so", "facts": "x"}, "not a boolean answer"),
    "a letter too far": ("du", {"question": "?", "options": ["x", "y"], "answer": "C"}, "not a choice answer"),
    "one option": ("du", {"question": "?", "options": ["x"], "answer": "A"}, "1 options: from 2 to 10"),
    "options in a text": ("aqua", {"question": "?", "options": "A)1 B)2", "correct": "A"}, "not a list of texts"),
    "a solution without a box": ("math", {"problem": "?", "solution": ""}, '"solution" is missing'),
    "a clock time": ("gsm8k", {"question": "?", "answer": "#### 12:30"}, '"12:30" is more than one number'),
    "two numbers": ("gsm8k", {"question": "?", "answer": "3 to 5"}, "more than one number"),
    "nothing after ####": ("gsm8k", {"question": "?", "answer": "one\n#### "}, "nothing after ####"),
    "an empty cell of a table": ("gsm8k", {"question": "?", "answer": float("nan")}, '"answer" is missing'),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_says_what_is_wrong(name):
    """A row that cannot be read is an error that says what is wrong."""
    task, row, reason = BAD_ROWS[name]
    with pytest.raises(ValueError, match=reason):
        parse_row(TASKS[task], row)


def test_row_without_an_answer_names_the_tasks_own_field():
    """Of a task with rows in two forms, a row that is in neither is told what the project's own form lacks."""
    with pytest.raises(ValueError, match='^field "answer" is missing or not a text$'):
        parse_row(TASKS["math"], {"question": "How many?"})


def test_published_folders_load_unchanged(tmp_path):
    """The published file and folder names load as they are, JSON lists under a .jsonl name too. The task's own folder
    comes first, and dev is never the test file."""
    aqua = [{"question": "?", "options": ["A)1", "B)2"], "answer": f"x\n#### {letter}"} for letter in "AB"]
    math = {"question": "?", "answer": "x\n\ny\n\n#### 2"}
    (tmp_path / "AQuA-master").mkdir()
    (tmp_path / "AQuA-master" / "gsm_style_test.jsonl").write_text(json.dumps(aqua, indent=1))
    write_jsonl(tmp_path / "math-500" / "math-500-test.jsonl", [math])
    write_jsonl(tmp_path / "strategy-qa" / "strategyqa_test.jsonl", [{"question": "?", "answer": True, "facts": "x"}])
    write_jsonl(tmp_path / "strategy-qa" / "strategyqa_dev.jsonl", ["not read"])
    write_jsonl(tmp_path / "asdiv-aug" / "aug-dev.jsonl", [{"question": "?", "answer": "<<1+1=2>>\n#### 2"}])
    write_jsonl(tmp_path / "asdiv-aug" / "aug-train.jsonl", [{"question": "?", "answer": "1+1=2\n#### 2"}] * 40)
    for task, answers in {"aqua": ["A", "B"], "math": ["2"], "strategyqa": ["yes"], "asdiv-aug": ["2"]}.items():
        assert [example.answer for example in load_split(TASKS[task], "test", str(tmp_path)).examples] == answers
    assert len(load_split(TASKS["asdiv-aug"], "dev", str(tmp_path)).examples) == 2, "dev is not the test file"
    write_jsonl(tmp_path / "aqua" / "test.jsonl", aqua[1:])
    assert len(load_split(TASKS["aqua"], "test", str(tmp_path)).examples) == 1, "the task's own folder comes first"
    (tmp_path / "aqua" / "test.jsonl").unlink()
    (tmp_path / "AQuA-master" / "gsm_style_test.jsonl").write_text("[" + json.dumps(aqua[0]) + ", {")
    with pytest.raises(InputError, match=r"gsm_style_test.jsonl: not a JSON list \("):
        load_split(TASKS["aqua"], "test", str(tmp_path))


def test_one_letter_golds_give_warning(tmp_path):
    """A file whose golds are nearly all one letter loads with a warning. Fair files load without one."""
    rows = [{"question": f"{i}?", "options": ["x", "y"], "answer": "B" if i % 10 == 0 else "A"} for i in range(30)]
    write_jsonl(tmp_path / "du" / "date_understanding_gsm_style.json", rows)
    split = load_split(TASKS["du"], "test", str(tmp_path))
    assert "27 of 30 golds are option A" in split.warning
    for fair in ([row | {"answer": "AB"[i % 2]} for i, row in enumerate(rows)], rows[1:10], rows[:23] + rows[:1] * 4):
        write_jsonl(tmp_path / "du" / "test.jsonl", fair)
        assert load_split(TASKS["du"], "test", str(tmp_path)).warning == ""
    same = [row | {"answer": "A"} for row in rows]
    for count, others, warned in ((19, 0, False), (20, 0, True), (20, 4, True), (20, 5, False)):
        write_jsonl(tmp_path / "du" / "test.jsonl", same[: count - others] + rows[:1] * others)
        assert bool(load_split(TASKS["du"], "test", str(tmp_path)).warning) is warned


def test_du_has_no_train_split():
    """du has no train or dev split, and one line says why."""
    for split in ("train", "dev"):
        with pytest.raises(InputError, match="du: no train split .*asks never to be trained on") as error:
            load_split(TASKS["du"], split, "data")
        assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# Official files


def convert(task, source, target) -> str:
    """The error line of a conversion, or ""."""
    try:
        convert_main(["--task", task, "--from", str(source), "--to", str(target)], TASKS)
    except SystemExit as stop:
        return str(stop.code)
    return ""


def test_du_options_are_shuffled():
    """The options of du are shuffled by the row's number, the same each time, and the gold goes with them. Two right
    options are an error."""
    row = {"input": "What date?", "target_scores": {f"0{i}/01/2021": int(i == 1) for i in range(1, 7)}}
    rows = [convert_du(row, number) for number in range(1, 201)]
    assert rows == [convert_du(row, number) for number in range(1, 201)]
    assert {row["options"]["ABCDEF".index(row["answer"])] for row in rows} == {"01/01/2021"}
    counts = [sum(row["answer"] == letter for row in rows) for letter in "ABCDEF"]
    assert min(counts) >= 15 and sum(counts) == 200
    with pytest.raises(ValueError, match="2 options are right"):
        convert_du({"input": "?", "target_scores": {"x": 1, "y": 1}}, 1)


ASDIV = """<Corpus><ProblemSet>
<Problem ID="a"><Body>Two </Body><Question>How many?</Question><Answer>2 (m)</Answer><Formula>1+1=2</Formula></Problem>
<Problem ID="e"><Body>Two</Body><Question>How few?</Question><Answer>1</Answer><Formula>2-1=1</Formula></Problem>
<Problem ID="b"><Body>Who?</Body><Question>Well?</Question><Answer>Tom</Answer><Formula>2>1</Formula></Problem>
<Problem ID="c"><Body>Half.</Body><Question>x?</Question><Answer>-(1/2)</Answer><Formula>x=-1/2</Formula></Problem>
<Problem ID="f"><Body>Seven.</Body><Question>x?</Question><Answer>7</Answer><Formula>x=7</Formula></Problem>
<Problem ID="d"><Body>Two.</Body><Question>x, y?</Question><Answer>1 (m); 2 (m)</Answer><Formula>x=1</Formula></Problem>
</ProblemSet></Corpus>
"""


def test_official_rows_convert_or_are_named(tmp_path, capsys):
    """Every official row is converted, or named with its line and the reason, and ASDiv's stand in a fixed split in
    which a story's questions are together. An existing file is not replaced."""
    (tmp_path / "ASDiv.xml").write_text(ASDIV)
    assert convert("asdiv", tmp_path / "ASDiv.xml", tmp_path / "asdiv") == ""
    made = {split: load_split(TASKS["asdiv"], split, str(tmp_path)).examples for split in ("train", "dev", "test")}
    assert {split: [(e.question, e.steps, e.answer) for e in examples] for split, examples in made.items()} == {
        "train": [("Seven. x?", ("x=7",), "7")],
        "dev": [("Half. x?", ("x=-1/2",), "-0.5")],
        "test": [("Two How many?", ("1+1=2",), "2"), ("Two How few?", ("2-1=1",), "1")],
    }
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f'left out: {tmp_path}/ASDiv.xml:4: the answer "Tom" is not one number',
        f'left out: {tmp_path}/ASDiv.xml:7: the answer "1 (m); 2 (m)" is not one number',
        f"{tmp_path}/asdiv/train.jsonl: 1 of 6 rows of {tmp_path}/ASDiv.xml",
        f"{tmp_path}/asdiv/dev.jsonl: 1 of 6 rows of {tmp_path}/ASDiv.xml",
        f"{tmp_path}/asdiv/test.jsonl: 2 of 6 rows of {tmp_path}/ASDiv.xml",
        "2 of 6 rows left out",
    ]
    assert convert("asdiv", tmp_path / "ASDiv.xml", tmp_path / "asdiv").endswith("delete it, or give another --to")


REAL = {  # file made: (rows, left out)
    "gsm8k": {"train.jsonl": (7473, 0), "test.jsonl": (1319, 0), "test_socratic.jsonl": (1319, 0)},
    "strategyqa": {"strategyqa_train.jsonl": (1832, 0), "strategyqa_dev.jsonl": (458, 0)},
    "aqua": {"dev.jsonl": (254, 0), "test.jsonl": (254, 0)},
    "du": {"test.jsonl": (369, 0)},
    "asdiv": {"train.jsonl": (1484, 212), "dev.jsonl": (197, 0), "test.jsonl": (412, 0)},
}


@pytest.mark.parametrize("task", REAL)
def test_real_official_rows_convert_and_load(task, tmp_path, capsys):
    """The real official files convert, row for row but for the known ones left out, and load."""
    if not (SHARED / "data" / task).is_dir():
        pytest.skip(f"{SHARED}/data/{task} is not here")
    assert convert(task, SHARED / "data" / task, tmp_path / task) == ""
    told = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("left out: ") for line in told) == sum(left for _, left in REAL[task].values())
    for name, (rows, _) in REAL[task].items():
        source = str(tmp_path / task / name)
        if rows > 5000:  # the rows themselves, and test_data.py has them loaded
            given, made = (open(Path(folder, task, name)).readlines() for folder in (SHARED / "data", tmp_path))
            assert [json.loads(line) for line in made] == [json.loads(line) for line in given] and len(made) == rows
            continue
        again = own_task("again", OwnTask({"test": source}, {}, TASKS[task].answer_type))
        split = load_split(TASKS[task] if task in ("strategyqa", "aqua") else again, "test", str(tmp_path))
        assert len(Path(source).read_text().split("\n")) == rows + 1 and split.bad == 0
    if task == "du":
        assert split.warning == ""


# ---------------------------------------------------------------------------------------------------------------------
# Prompts


def test_prompt_file_replaces_its_prompts(tmp_path):
    """A prompt file replaces the prompts that it has, other braces in them included, and leaves the others."""
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"problem": "Put it in \\boxed{answer}, \\frac{a}{b} or {1}: {question}"}))
    assert read_prompts(str(path), PROMPTS["choice"]) == PROMPTS["choice"] | json.loads(path.read_text())


WRONG_PROMPTS = {
    '{"problem": "Solve {questoin}"}': "problem has the unknown placeholder {questoin}; it takes {question}",
    '{"problem": "Solve \\\\boxed{question}"}': "problem must have {question} once, as an argument of no command",
    '{"problem": "\\\\boxed{question}: {question}"}': "problem must have {question} once, as an argument of no command",
    '{"problem": "Solve { question }: {question}"}': "unknown placeholder { question }",
    '{"problem": "\\ud800 {question}"}': "half a character",
    '{"problem": "Solve {question} {thoughts}"}': "unknown placeholder {thoughts}",
    '{"problem": "Solve it"}': "problem must have {question} once",
    '{"thoughts": "{thoughts} {thoughts}"}': "thoughts must have {thoughts} once",
    '{"hint": "{thoughts}"}': "no such prompt 'hint'; there are problem, thoughts, generator",
    '["{question}"]': "not a JSON object of texts",
    '{"problem": 3}': "not a JSON object of texts",
    '{"problem": ': "not JSON",
}


@pytest.mark.parametrize("content", WRONG_PROMPTS)
def test_wrong_prompt_files_are_refused(content, tmp_path):
    """A wrong prompt file is refused in one line that names the fault."""
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(InputError) as error:
        read_prompts(str(tmp_path / "p.json"), PROMPTS["number"])
    assert WRONG_PROMPTS[content] in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------------------
# End to end


def run_evaluate(capsys, *flags) -> str:
    """What evaluate.py printed, or its error line."""
    try:
        evaluate.main([str(flag) for flag in flags])
    except SystemExit as stop:
        return str(stop.code)
    return capsys.readouterr().out


TOY = ["--large_model_id", str(ROOT / "toy" / "large"), "--small_model_id", str(ROOT / "toy" / "small")]
SHORT = ["--num_thought_tokens", "2", "--batch_size", "2", "--gradient_accumulation_steps", "1", "--max_steps", "2"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_trained_and_evaluated(task, trained_on, tiny_pair, tmp_path, monkeypatch, capsys):
    """Every task is evaluated on its sample and trained for two steps. du is refused in training."""
    monkeypatch.chdir(tmp_path)
    evaluation = ["--max_new_tokens", "2", "--batch_size", "20", "--split", "sample"]
    bare = ["--base_model_id", tiny_pair / "large", "--thought_generator", "none", "--task_name", task]
    printed = run_evaluate(capsys, *bare, *evaluation, "--output_dir", "bare")
    assert "sample.jsonl: 20 rows, 0 left out as broken, 20 asked" in printed and "warning" not in printed
    report = json.loads(Path("bare/report.json").read_text())
    assert report["num_questions"] == 20 and report["settings"]["answer_type"] == TASKS[task].answer_type
    if task == "du":
        with pytest.raises(InputError, match="for evaluation only"):
            train.run([*TOY, *SHORT, "--task_name", task, "--output_name", "x"])
        return
    checkpoint = trained_on(task)
    meta = json.loads((checkpoint / "thoughts.json").read_text())
    assert meta["best"]["step"] == 2 and meta["prompts"] == PROMPTS[TASKS[task].answer_type]
    run_evaluate(capsys, "--checkpoint", checkpoint, *evaluation, "--test_k", "4", "--output_dir", "thoughts")
    assert json.loads(Path("thoughts/report.json").read_text())["settings"]["task_name"] == task


@pytest.mark.parametrize(("task", "separator"), [("math", "\n\n"), ("gsm8k", "\n")])
def test_steps_are_joined_by_task_separator(task, separator):
    """The steps of a target are joined by the separator of the task."""
    flags = [*TOY, "--task_name", task, "--output_name", "x"]
    args = parse_flags(train.TrainArguments, flags, "train.py")
    layout = train.build_layout(args.spec, args.prompts, separator=args.task.separator)
    target = layout.training(Example(0, "?", ("One.", "Two."), "2"))["target"]
    said = layout.llm_tokenizer.decode(target, skip_special_tokens=True)
    assert said == separator.join(["One.", "Two.", "The answer is \\boxed{2}."])


MINE = [{"frage": f"Is {i} even?", "weg": [f"{i} % 2 = {i % 2}"], "antwort": i % 2 == 0, "nr": i} for i in range(40)]
FIELDS = ["--question_field", "frage", "--steps_field", "weg", "--answer_field", "antwort"]


def test_own_task_works_by_flags(tmp_path, monkeypatch, capsys):
    """A task of the user's own is trained and evaluated by flags alone. The checkpoint knows it, from another folder
    too, and takes another file for it."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", MINE)
    datasets.Dataset.from_list(MINE[:6]).to_parquet("b.parquet")
    Path("p.json").write_text(json.dumps({"problem": "Yes or no, in \\boxed{}: {question}"}))
    own = ["--task_name", "mytask", "--train_file", "a.jsonl", "--test_file", "b.parquet", "--answer_type", "boolean"]
    train.run([*TOY, *SHORT, *own, *FIELDS, "--prompt_file", "p.json", "--output_name", "own"])
    (checkpoint,) = Path("ckpt").iterdir()
    assert checkpoint.name.startswith("own-mytask-small_block")
    meta = json.loads((checkpoint / "thoughts.json").read_text())
    assert meta["answer_type"] == "boolean" and meta["prompts"]["problem"].startswith("Yes or no")
    assert (meta["rows"]["train"]["kept"], meta["rows"]["dev"]["kept"]) == (38, 2)
    short = ["--max_new_tokens", "2", "--num_return_sequences", "2", "--print_input"]
    # the checkpoint knows its task; the same in words
    printed = run_evaluate(capsys, "--checkpoint", checkpoint, *short, "--output_dir", "stored")
    assert (
        "b.parquet: 6 rows" in printed and "Yes or no, in \\boxed{}: Is 3 even?" in printed and "note:" not in printed
    )
    run_evaluate(capsys, "--checkpoint", checkpoint, *short, *own, *FIELDS, "--output_dir", "given")
    assert Path("stored/samples.jsonl").read_bytes() == Path("given/samples.jsonl").read_bytes()
    golds = [json.loads(line)["gold"] for line in Path("stored/samples.jsonl").read_text().splitlines()]
    assert golds == ["yes", "no"] * 3
    # from another folder
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run_evaluate(capsys, "--checkpoint", tmp_path / checkpoint, *short, "--output_dir", tmp_path / "far")
    assert Path("../stored/samples.jsonl").read_bytes() == Path("../far/samples.jsonl").read_bytes()
    monkeypatch.chdir(tmp_path)
    # another file for the same task
    other = ["--test_file", "a.jsonl", "--test_k", "2", "--output_dir", "a"]
    printed = run_evaluate(capsys, "--checkpoint", checkpoint, *short, *other)
    assert "a.jsonl: 40 rows" in printed
    # without thoughts, by flags alone, dev rows taken from the train rows
    bare = ["--base_model_id", ROOT / "toy" / "large", "--thought_generator", "none", "--split", "dev"]
    assert "a.jsonl: 40 rows, 0 left out as broken, 2 asked" in run_evaluate(capsys, *bare, *own, *FIELDS, *short)


def test_checkpoint_evaluates_other_answer_type(trained_on, tmp_path, monkeypatch, capsys):
    """A checkpoint is evaluated on a task of another answer type with that type's prompts, and notes say so."""
    monkeypatch.chdir(tmp_path)
    flags = ["--task_name", "aqua", "--split", "sample", "--test_k", "2", "--max_new_tokens", "4", "--print_input"]
    printed = run_evaluate(capsys, "--checkpoint", trained_on("arithmetic"), *flags)
    assert "note: --task_name aqua; the thoughts were trained with arithmetic" in printed
    assert "note: the prompt 'problem' is not the one" in printed and "the right option's letter" in printed


def test_csv_table_is_read_unchanged(tmp_path):
    """Cells of a table are read as they are written: 007, NA, line breaks and lists. A bad row is named with its
    line."""
    path = tmp_path / "rows.CSV"
    path.write_text('\ufeffquestion,answer,options\n007,NA,"[""NA"", ""1.0""]"\n"two\nlines",B,"[""x"", ""y""]"\n,A,\n')
    task = own_task("mine", OwnTask({"test": str(path)}, {}, "choice"))
    split = load_split(task, "test", "data", skip_bad_rows=True)
    assert [(e.question.split("\n\n")[0], e.answer) for e in split.examples] == [("007", "A"), ("two\nlines", "B")]
    with pytest.raises(InputError, match='rows.CSV:5: field "question" is missing'):
        load_split(task, "test", "data")


def test_options_reach_the_answers():
    """An answer in the words of an option counts as its letter, and a letter beyond the options is no answer."""
    sample = type("Sample", (), {"score": 0.0, "num_tokens": 1, "finished": True})()
    example = Example(0, "?", (), "B", ("12", "15"))
    texts = ["\\boxed{15}", "The answer is 15.", "The answer is C."]
    line = sample_line(Answer(Request(example, {}), [sample] * 3, texts))
    assert grade(line, "choice").answers == ["B", "B", None]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_own_rows_load_from_every_format(kind, tmp_path):
    """A task's own rows are read from jsonl, json, csv and parquet files."""
    rows = [{"question": f"{i}+1?", "answer": i + 1, "steps": f"{i}+1={i + 1}\nso {i + 1}"} for i in range(30)]
    table = datasets.Dataset.from_list(rows)
    path = str(tmp_path / f"rows.{kind}")
    if kind == "jsonl":
        write_jsonl(Path(path), rows)
    elif kind == "json":
        Path(path).write_text(json.dumps(rows, indent=2))
    else:
        getattr(table, f"to_{kind}")(path)
    task = own_task("mine", OwnTask({"train": path, "test": path}, {"steps": "steps"}, "number"))
    split = load_split(task, "test", "data")
    assert [e.answer for e in split.examples] == [str(i + 1) for i in range(30)]
    assert split.examples[2].steps == ("2+1=3", "so 3") and split.source == path
    assert len(load_split(task, "train", "data").examples) == 28 and len(load_split(task, "dev", "data").examples) == 2


def test_own_rows_load_from_hub(monkeypatch):
    """A task's own rows are read from the hub, with the configuration and split that its name gives."""
    asked = []
    rows = [{"q": "?", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "B"}] * 30
    monkeypatch.setattr(datasets, "load_dataset", lambda **kwargs: asked.append(kwargs) or rows)
    files = {"train": "hub:me/mine:small", "dev": "hub:me/mine", "test": "hub:me/mine::held_out"}
    task = own_task("mine", OwnTask(files, {"question": "q", "options": "choices", "answer": "answerKey"}, "choice"))
    for split in files:
        [example, *_] = load_split(task, split, "data").examples
        assert example.question == "?\n\nOptions:\n(A) x\n(B) y" and example.answer == "B"
    assert asked == [
        {"path": "me/mine", "name": "small", "split": "train"},
        {"path": "me/mine", "name": None, "split": "validation"},
        {"path": "me/mine", "name": None, "split": "held_out"},
    ]


def test_unnamed_fields_have_usual_names():
    """Fields that no flag names have their usual names."""
    assert own_task("mine", OwnTask({}, {}, "choice")).fields == (Fields("question", None, "answer", "options"),)


@pytest.mark.parametrize("files, fields", [({"nix": "hub:a/b"}, {}), ({}, {"nix": "q"})])
def test_unknown_names_of_own_task_are_one_line(files, fields):
    """A thoughts.json that names a split or a field that no task has is refused, and the name is told."""
    with pytest.raises(InputError, match="--task_name mine: a task of your own has no nix"):
        own_task("mine", OwnTask(files, fields, "number"))
