"""The output folder: whose files are merged, which lines are used, what an evaluation that goes on may change, and what
no evaluation replaces."""

import fcntl
import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from helpers import line_of, write_evaluation

from lta_thinker import evaluate
from lta_thinker.common import LOCK_FILE, InputError
from lta_thinker.evaluation import report as reports
from lta_thinker.evaluation.compare import compare
from lta_thinker.evaluation.folder import check_folder
from lta_thinker.evaluation.samples import SET_ASIDE_FILE, merge_samples, read_samples
from lta_thinker.generation.samplers import Sampler
from lta_thinker.rows.examples import Example

EXAMPLES = [Example(i, f"Question {i}?", (), "18") for i in range(4)]


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """The questions that are asked from now on, by index."""
    asked, answers = [], Sampler.answers

    def watch(sampler, requests):
        asked.extend(request.example.index for request in requests)
        return answers(sampler, requests)

    monkeypatch.setattr(Sampler, "answers", watch)
    return asked


@pytest.fixture
def own_data(gsm8k_data, tmp_path) -> Path:
    """A --data_dir of the test's own."""
    return Path(shutil.copytree(gsm8k_data, tmp_path / "own"))


def test_settings_are_compared_after_an_lm_elsewhere(tmp_path):
    """An LM that lies elsewhere, or was computed on another device, is no other LM; what is set after it is compared
    all the same."""
    known = {"known_states": {"large": "1.0 2.0"}}
    settings = {"backend": "hf", "base_model_id": "here/large", "dtype": "float32", **known, "num_fewshot": 2}
    elsewhere = {"base_model_id": "there/large", "known_states": {"large": "1.0 2.0000001"}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "samples.jsonl").write_text(line_of(0, ["18"]).json())
    check_folder(tmp_path, settings | elsewhere)
    with pytest.raises(InputError, match="made with num_fewshot = 2, now it is 3; use another --output_dir"):
        check_folder(tmp_path, settings | elsewhere | {"num_fewshot": 3})


def report_of(folder) -> dict:
    return json.loads(Path(folder, "report.json").read_text())


# ---------------------------------------------------------------------------------------------------------------------
# Whose files are merged


@pytest.mark.parametrize(
    "name",
    ["samples_bare.jsonl", "samples.old.jsonl", "samples (copy).jsonl", "samples.rank.jsonl", "samples.rankx.jsonl"]
    + ["samples.rank1.old.jsonl", "samples.rank01.jsonl", "samples.rank-1.jsonl", "samples.jsonl.bak", "samples2.jsonl"]
    + ["xsamples.rank1.jsonl", "samples.rank1.jsonl~", "samples.rank١.jsonl"],
)
def test_files_of_the_user_stay(tmp_path, name):
    """Only samples.jsonl and the files of ranks are merged: a user's copy is neither read nor removed."""
    (tmp_path / name).write_text(line_of(0, ["7"]).json() + "not JSON\n")
    before = (tmp_path / name).read_bytes()
    (tmp_path / "samples.rank0.jsonl").write_text(line_of(2, ["18"]).json())
    (tmp_path / "samples.rank12.jsonl").write_text(line_of(1, ["18"]).json())
    assert list(merge_samples(tmp_path, EXAMPLES, 1)) == [1, 2]
    assert sorted(os.listdir(tmp_path)) == sorted([name, "samples.jsonl"])
    assert (tmp_path / name).read_bytes() == before


def test_one_process_writes_samples_itself(run, checkpoints, monkeypatch):
    """One process adds its lines to samples.jsonl, a question at a time: no file of a rank is there while it runs."""
    seen, answers = [], Sampler.answers

    def watch(sampler, requests):
        for answer in answers(sampler, requests):
            yield answer
            seen.append((len(Path("out/samples.jsonl").read_text().splitlines()), list(Path("out").glob("*.rank*"))))

    monkeypatch.setattr(Sampler, "answers", watch)
    run("--checkpoint", checkpoints / "small", "--batch_size", "2", "--test_k", "3", "--output_dir", "out")
    assert seen == [(1, []), (2, []), (3, [])]


# ---------------------------------------------------------------------------------------------------------------------
# Which lines are used


def changed(**values):
    return lambda line: json.dumps(json.loads(line) | values) + "\n"


def without(name: str):
    return lambda line: json.dumps({key: value for key, value in json.loads(line).items() if key != name}) + "\n"


BROKEN = {
    "another question": (changed(question="Question 2?"), "its question is not that of question 1"),
    "other options": (changed(options=["a", "b"]), "its options is not that of question 1"),
    "an index that is not asked": (changed(index=77), "there is no question 77"),
    "the next question's index": (changed(index=2), "its question is not that of question 2"),
    "an index below 0": (changed(index=-1), "there is no question -1"),
    "an index that is a text": (changed(index="1"), "index: is '1', not int"),
    "an index that is true": (changed(index=True), "index: is True, not int"),
    "fewer samples": (changed(responses=["x"], num_tokens=[1], finished=[True], scores=[-1.0]), "1 samples, not 2"),
    "no samples": (changed(responses=[], num_tokens=[], finished=[], scores=[]), "not one of each for a sample"),
    "a text too many": (changed(responses=["a", "b", "c"]), "not one of each for a sample (3 responses"),
    "a score too few": (changed(scores=[-0.5]), "not one of each for a sample"),
    "negative tokens": (changed(num_tokens=[5, -5]), "num_tokens: -5 is below 0"),
    "tokens that are no numbers": (changed(num_tokens=["5", 5]), "num_tokens[0]: is '5', not int"),
    "half a token": (changed(num_tokens=[0.5, 5]), "num_tokens[0]: is 0.5, not int"),
    "an end that is a number": (changed(finished=[1, 0]), "finished[0]: is 1, not bool"),
    "texts that are none": (changed(responses=[None, None]), "responses[0]: is None, not str"),
    "no texts": (without("responses"), "has no responses"),
    "no scores": (without("scores"), "has no scores"),
    "NaN": (changed(scores=[float("nan"), -1.0]), "NaN"),
    "infinite": (changed(scores=[float("-inf"), -1.0]), "-Infinity"),
    "too large": (lambda line: line.replace("-0.5", "-1e999"), "-1e999"),
    "a key twice": (lambda line: line.replace('{"index": 1', '{"index": 0, "index": 1'), "twice"),
    "half a line": (lambda line: line[:40] + "\n", "not JSON"),
    "two lines in one": (lambda line: line[:-1] * 2 + "\n", "not JSON"),
    "a list": (lambda line: "[1, 2]\n", "not a JSON object"),
    "nested deep": (lambda line: "[" * 100_000 + "\n", "not JSON"),
    "nested deep inside": (lambda line: line.replace("[-0.5", "[" * 5000 + "]" * 5000 + ", [-0.5"), "JSON"),
    "bytes that are no text": (lambda line: line.replace("Question", "Qu\udce4stion"), "not UTF-8"),
    "half a character": (lambda line: line.replace("Question", "\\ud800"), "half a character"),
    "an older version's": (lambda line: '{"index": 1, "question": "Question 1?", "vote": "18"}\n', "has no gold"),
}


@pytest.mark.parametrize(("change", "reason"), BROKEN.values(), ids=BROKEN)
def test_lines_that_cannot_be_used_are_set_aside(tmp_path, capsys, change, reason):
    """A line that is not this question's, or not whole, is named in one line, kept in a file of its own, and not used;
    the other lines are."""
    lines = [line_of(i, ["18", "7"]).json() for i in range(3)]
    broken = change(lines[1])
    assert broken != lines[1]
    whole = "".join([lines[0], broken, lines[2]]).encode(errors="surrogateescape")
    (tmp_path / "samples.jsonl").write_bytes(whole)
    found = merge_samples(tmp_path, EXAMPLES[:3], 2)
    assert list(found) == [0, 2] and read_samples(tmp_path / "samples.jsonl") == list(found.values())
    said = capsys.readouterr().out
    assert said.startswith(f"note: {tmp_path / 'samples.jsonl'}:2: ") and reason in said and said.count("\n") == 1
    assert (tmp_path / SET_ASIDE_FILE).read_bytes() == broken.encode(errors="surrogateescape")
    merge_samples(tmp_path, EXAMPLES[:3], 2)  # now all is well
    assert capsys.readouterr().out == ""


def test_line_cut_by_a_kill_is_no_fault(tmp_path, capsys):
    """The last line without its end is what a kill leaves: it is dropped without a word."""
    (tmp_path / "samples.jsonl").write_text(line_of(0, ["18"]).json() + line_of(1, ["18"]).json()[:-1])
    assert list(merge_samples(tmp_path, EXAMPLES, 1)) == [0]
    assert capsys.readouterr().out == "" and not (tmp_path / SET_ASIDE_FILE).exists()


def test_broken_lines_are_asked_again(run, checkpoints, whole, asked):
    """The questions of lines that cannot be used are asked again, and the texts are those of an untouched folder."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--batch_size", "1"]
    flags += ["--output_dir", "out"]
    shutil.copytree(whole, "out")
    path, before = Path("out/samples.jsonl"), Path("out/samples.jsonl").read_text()
    lines = before.splitlines(keepends=True)
    path.write_text("".join([lines[0], changed(index=3)(lines[1]), changed(num_tokens=[-1, 1])(lines[2]), lines[3]]))
    said = run(*flags)
    assert asked == [1, 2] and path.read_text() == before
    assert said.count("set aside in samples.set-aside.jsonl") == 1 and "(and 1 more such lines)" in said


def test_corrected_gold_counts_and_nothing_is_asked_again(run, checkpoints, whole, own_data, asked):
    """A gold answer that was corrected in the file is the one that counts, for the texts that are there."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", "out"]
    flags += ["--data_dir", own_data]
    shutil.copytree(whole, "out")
    path = own_data / "gsm8k" / "test_socratic.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    row = json.loads(rows[2])
    steps = row["answer"].rpartition("#### ")[0]
    path.write_text("".join([*rows[:2], json.dumps(row | {"answer": f"{steps}#### 9,977"}) + "\n", *rows[3:]]))
    assert "note: 1 answered questions have another gold answer in the rows by now" in run(*flags) and asked == []
    graded = [json.loads(line) for line in Path("out/graded.jsonl").read_text().splitlines()]
    assert graded[2]["gold"] == "9977"


def test_other_questions_are_another_folder(run, checkpoints, whole, own_data):
    """Where a question of the file has changed, the folder's answers are left as they are."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", "out"]
    flags += ["--data_dir", own_data]
    shutil.copytree(whole, "out")
    before, path = Path("out/samples.jsonl").read_bytes(), own_data / "gsm8k" / "test_socratic.jsonl"
    path.write_text(path.read_text().replace("Box 41", "Crate 41"))
    assert run(*flags) == (
        "error: out: its samples are of other questions than the rows now have; use another --output_dir"
    )
    assert Path("out/samples.jsonl").read_bytes() == before


# ---------------------------------------------------------------------------------------------------------------------
# An evaluation that goes on


def test_answers_are_found_anew_for_each_report(run, checkpoints, whole, asked, monkeypatch):
    """Answers and gold answers are of the code that makes the report: with another extraction the same texts get
    another report, and a comparison sees it too."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", "out"]
    assert report_of(whole)["sample_accuracy"]["value"] == 0  # random LMs are never right
    for folder in ("before", "out"):
        shutil.copytree(whole, folder)
    monkeypatch.setattr(reports, "extract_answer", lambda text, answer_type, options, finished: "18")
    monkeypatch.setattr(reports, "gold_answer", lambda text, answer_type, options: "18")
    assert compare("before/report.json", "out/report.json").sample.a.value == 1
    run(*flags)
    assert asked == [] and report_of("out")["sample_accuracy"]["value"] == 1
    assert Path("out/samples.jsonl").read_bytes() == Path("before/samples.jsonl").read_bytes()


def test_versions_of_every_start_are_told(run, checkpoints, monkeypatch, tmp_path):
    """A report whose texts were written by two versions says so, and a comparison of reports by different versions
    too. A start that asks nothing adds none."""
    flags = ["--checkpoint", checkpoints / "small", "--output_dir", "out"]
    now = evaluate.versions()
    assert "several versions" not in run(*flags, "--test_k", "2")
    monkeypatch.setattr(evaluate, "versions", lambda: now | {"lta_thinker": "newer"})
    assert "several versions" not in run(*flags, "--test_k", "2")
    assert len(report_of("out")["starts"]) == 1 and report_of("out")["versions"]["lta_thinker"] == "newer"
    told = f"the texts are of several versions: lta_thinker {now['lta_thinker']}, then newer"
    assert f"note: {told}\n" in run(*flags)
    assert f"note: {told}\n" in run(*flags)
    assert [start["lta_thinker"] for start in report_of("out")["starts"]] == [now["lta_thinker"], "newer"]
    run("--checkpoint", checkpoints / "small", "--output_dir", "new")
    printed = run("--compare", "out/report.json", "new/report.json", data=False)
    assert f"note: A: {told}\n" in printed
    assert (
        f"note: the two are of other versions: A lta_thinker {now['lta_thinker']}, then newer; B lta_thinker newer"
        in (printed)
    )
    old = write_evaluation(tmp_path / "x", [line_of(0, ["18"])], versions={"torch": "1"})
    new = write_evaluation(tmp_path / "y", [line_of(0, ["18"])], versions={"torch": "2"})
    assert "the two are of other versions: A torch 1; B torch 2" in run("--compare", old, new, data=False)
    assert "texts are not all of the same version: torch" in run("--rank", old, new, data=False)


def test_speed_is_that_of_this_start(run, checkpoints, monkeypatch):
    """The speed of a run that goes on counts the questions and the tokens of this start alone."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", "out"]
    run(*flags, "--test_k", "1")
    own = evaluate.answer_questions
    monkeypatch.setattr(evaluate, "answer_questions", lambda *given: (2.0, own(*given)[1]))
    run(*flags)
    written = [sum(line.num_tokens) for line in read_samples(Path("out/samples.jsonl"))]
    assert report_of("out")["speed"] == {"questions": 3 / 2, "tokens": sum(written[1:]) / 2}


def test_line_is_on_disk_before_the_next_question(run, checkpoints, monkeypatch):
    """An answered question's line is in the file when the next one is begun."""
    answers, counts = Sampler.answers, []

    def watch(sampler, requests):
        for answer in answers(sampler, requests):
            counts.append(Path("out/samples.jsonl").read_bytes().count(b"\n"))
            yield answer

    monkeypatch.setattr(Sampler, "answers", watch)
    run("--checkpoint", checkpoints / "small", "--batch_size", "1", "--output_dir", "out")
    assert counts == [0, 1, 2, 3]


def test_foreign_graded_file_is_not_replaced(run, checkpoints):
    """A graded.jsonl that is no evaluation's stays: without settings.json the folder is refused."""
    Path("out").mkdir()
    Path("out/graded.jsonl").write_text("mine")
    error = run("--checkpoint", checkpoints / "small", "--output_dir", "out")
    assert error == "error: out: has graded.jsonl but no settings.json; use another --output_dir"
    assert Path("out/graded.jsonl").read_text() == "mine"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_evaluation_says_what_is_kept(run, checkpoints, whole, monkeypatch, capsys, stop):
    """A Ctrl-C, a SIGTERM and a lost terminal end in one line that says what is kept; the same command answers the
    rest, with the texts of an uncut run."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--batch_size", "1"]
    answers = Sampler.answers

    def cut(sampler, requests):
        for i, answer in enumerate(answers(sampler, requests)):
            if i == 2:
                os.kill(os.getpid(), stop)
            yield answer

    monkeypatch.setattr(Sampler, "answers", cut)
    capsys.readouterr()
    assert run(*flags, "--output_dir", "cut") == str(128 + stop)
    lines = [line for line in capsys.readouterr().err.split("\n") if "%|" not in line and line.strip()]
    assert lines == [f"stopped by {stop.name}: what was answered is kept, and the same command answers the rest"]
    assert len(read_samples(Path("cut/samples.jsonl"))) == 2 and not Path("cut/report.json").exists()
    monkeypatch.setattr(Sampler, "answers", answers)
    run(*flags, "--output_dir", "cut")
    assert Path("cut/samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def test_full_disk_keeps_what_is_complete(run, checkpoints):
    """Where the disk is full one line says so, and what was answered stays. After room was made the same command ends
    with the files of an uncut run. (The limit of a file's size stands for the disk.)"""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "16", "--batch_size", "1"]
    flags += ["--max_new_tokens", "24", "--test_k", "3"]
    run(*flags, "--output_dir", "whole")
    sizes = [len(line) for line in Path("whole/samples.jsonl").read_bytes().splitlines(keepends=True)]
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (100, 4000):  # settings.json has 3,100
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, own[1]))
            said = run(*flags, "--output_dir", "cut")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, own)
        assert said.startswith("error: cut/") and "make room, and run the same command again" in said
        assert "\n" not in said and sum(sizes) > room
        assert not [path for path in Path("cut").iterdir() if path.name.endswith(".partial")]
    run(*flags, "--output_dir", "cut")
    for name in ("samples.jsonl", "graded.jsonl", "settings.json"):
        assert Path("cut", name).read_bytes() == Path("whole", name).read_bytes()


def test_second_evaluation_in_a_folder_is_told(run, checkpoints, monkeypatch):
    """A second evaluation in the folder of a running one ends in one line that says who is there, before a model is
    loaded."""
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("a model was loaded"))
    Path("out").mkdir()
    with open(Path("out") / LOCK_FILE, "w") as file:
        file.write("process 77 on this machine\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        said = run("--checkpoint", checkpoints / "small", "--output_dir", "out")
    assert said.startswith("error: ") and "process 77 on this machine is writing here" in said
    assert said.endswith("; wait for it, or use another --output_dir") and os.listdir("out") == [LOCK_FILE]


def test_lost_rank_is_one_line(monkeypatch):
    """Where another process of the run has ended, waiting for it is one line that says how to go on."""

    def barrier():
        raise RuntimeError("Connection closed by peer\n[more]")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(evaluate.dist, "barrier", barrier)
    with pytest.raises(InputError, match="^another process of this run has ended; what was answered is kept, .*rest$"):
        evaluate.wait_for_all()


def test_a_world_without_torchrun_is_one_line(monkeypatch):
    """WORLD_SIZE=2 that was left in the environment is one line that names it."""
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="^WORLD_SIZE=2, but .*RANK expected.*; start them by torchrun, .*unset WORLD"):
        evaluate.join_ranks()


# ---------------------------------------------------------------------------------------------------------------------
# What no evaluation replaces, and the default folders


def test_larger_report_is_not_replaced(run, checkpoints, whole):
    """A report is replaced by one of fewer questions only with --replace_report; the models are not even loaded."""
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", "out"]
    shutil.copytree(whole, "out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    said = run(*flags, "--test_k", "3")
    assert said == (
        "error: out/report.json: is about 4 questions, and would be replaced by a report of 3; use another "
        "--output_dir, or --replace_report"
    )
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    run(*flags, "--test_k", "3", "--replace_report")
    assert report_of("out")["num_questions"] == 3
    run(*flags)  # more questions: nothing to ask for
    assert report_of("out")["num_questions"] == 4


@pytest.mark.parametrize("name", ["report.json", "settings.json"])
@pytest.mark.parametrize("content", ['{"my": "own"}', "[]", "{", "\xff", "[" * 100_000, '{"a": NaN}', ""])
def test_files_of_other_programs_are_not_replaced(run, checkpoints, monkeypatch, name, content):
    """A report.json and a settings.json that evaluate.py did not write stay, and one line says what to do."""
    monkeypatch.setattr(evaluate, "load_models", lambda *_: pytest.fail("a model was loaded"))
    Path("out").mkdir()
    Path("out", name).write_bytes(content.encode("latin-1"))
    said = run("--checkpoint", checkpoints / "small", "--output_dir", "out")
    assert said.startswith(f"error: out/{name}: ") and said.endswith("use another --output_dir") and "\n" not in said
    assert Path("out", name).read_bytes() == content.encode("latin-1")


def test_default_folders_tell_departures(run, checkpoints, own_data):
    """The default folder's name has the task where it is not the training's, and what departs from the defaults; a
    default that is given in words is none."""
    flags = ["--checkpoint", checkpoints / "small", "--data_dir", own_data, "--test_k", "1", "--max_new_tokens", "2"]
    (own_data / "asdiv-aug").mkdir()
    shutil.copy(own_data / "gsm8k" / "test_socratic.jsonl", own_data / "asdiv-aug" / "test.jsonl")
    departures = {
        "test-n4-x1-seed41-max_new_tokens2": ["--temperature", "0.7", "--top_k", "20", "--dtype", "float32"],
        "asdiv-aug-test-n4-x1-seed41-max_new_tokens2": ["--task_name", "asdiv-aug"],
        "test-n4-x1-seed41-max_new_tokens2-temperature0.35": ["--temperature", "0.35"],
        "test-n4-x1-seed41-max_new_tokens2-top_p0.9-top_k7-min_p0.05": [
            *("--top_p", "0.9", "--top_k", "7", "--min_p", "0.05")
        ],
        "test-n4-x1-seed41-max_new_tokens2-bfloat16": ["--dtype", "bfloat16"],
        "test-n2-x1-seed41-greedy-max_new_tokens2-make_only_n": [
            "--greedy",
            "--make_only_n",
            "--num_thought_tokens",
            "2",
        ],
        "test-n4-x1-seed41-max_new_tokens2-eager": ["--attn_implementation", "eager"],
    }
    for name, more in departures.items():
        run(*flags, *more, data=False)
        assert Path("results/eval-small", name, "report.json").is_file(), os.listdir("results/eval-small")
    assert len(os.listdir("results/eval-small")) == len(departures)


def test_long_names_are_shortened(run, checkpoints, tmp_path):
    """A checkpoint's name that leaves no room for more gets a folder of its own."""
    for end in "ab":
        name = "x" * 229 + end
        shutil.copytree(checkpoints / "small", tmp_path / name)
        run("--checkpoint", tmp_path / name, "--test_k", "1")
    assert len(os.listdir("results")) == 2 and len(list(Path("results").rglob("report.json"))) == 2
