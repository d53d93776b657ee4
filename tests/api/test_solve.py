"""One question from Python and from the shell: the texts and the vote of an evaluation, and what is refused."""

import json
import os

import pytest
from helpers import pair_flags, published

from lta_thinker import LatentThoughtModel, evaluate
from lta_thinker.common import InputError
from lta_thinker.generation import solve
from lta_thinker.generation.samplers import Answer
from lta_thinker.generation.sampling import Sample, resolve_sampling
from lta_thinker.generation.solve import Solution, as_example
from lta_thinker.rows.examples import Task, parse_row

QUESTION = "Box 40 holds 43 pens and the next one 1602 pens. How many pens are there?"  # the first test row
SHORT = ["--max_new_tokens", "8"]


@pytest.fixture(scope="module")
def model(trained) -> LatentThoughtModel:
    return LatentThoughtModel.from_pretrained(trained)


@pytest.fixture
def ask(capsys, tmp_path, monkeypatch):
    """Run evaluate.py with --ask in an empty folder, where nothing may be written -> what it printed, or its error."""
    monkeypatch.chdir(tmp_path)

    def ask(*flags) -> str:
        try:
            evaluate.main([str(flag) for flag in flags])
        except SystemExit as stop:
            return str(stop.code)
        finally:
            assert os.listdir() == []
        return capsys.readouterr().out

    return ask


@pytest.mark.parametrize(
    "flags, arguments",
    [
        (["--num_return_sequences", "3"], {"num_samples": 3}),
        (["--num_thought_tokens", "2", "--seed", "5", "--top_k", "7"], {"num_thoughts": 2, "seed": 5, "top_k": 7}),
        (["--greedy"], {"greedy": True, "num_samples": 10}),
    ],
)
def test_solve_gives_answers_of_evaluation(model, trained, gsm8k_data, tmp_path, flags, arguments):
    """solve gives a question the texts, tokens and vote that an evaluation gives it: other rows and the way the
    settings come in change nothing."""
    flags = ["--checkpoint", trained, "--data_dir", gsm8k_data, "--test_k", "4", "--output_dir", tmp_path, *flags]
    evaluate.main([*map(str, flags), *SHORT])
    record = json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])
    assert (record["index"], record["question"]) == (0, QUESTION)
    graded = json.loads((tmp_path / "graded.jsonl").read_text().splitlines()[0])
    solution = model.solve(f" {QUESTION}\n", **{"num_samples": 1, "max_new_tokens": 8} | arguments)
    assert (solution.texts, solution.tokens) == (record["responses"], record["num_tokens"])
    assert solution.answer == graded["vote"] and len(solution.texts) == len(graded["answers"])
    assert sum(solution.votes.values()) == sum(answer is not None for answer in graded["answers"])


def test_ask_prints_what_solve_returns(model, trained, ask):
    """--ask prints the texts, the answer and the tokens that solve returns."""
    solution = model.solve(QUESTION, 3, max_new_tokens=8)
    printed = ask("--checkpoint", trained, "--ask", QUESTION, "--num_return_sequences", "3", "--print_response", *SHORT)
    assert all(text in printed for text in solution.texts)
    said = f"answer: {'none' if solution.answer is None else solution.answer}\n"
    assert said in printed and f"  tokens: {', '.join(map(str, solution.tokens))}\n" in printed


def test_ask_works_without_our_checkpoint(ask, tiny_pair, tmp_path_factory):
    """--ask works with the bare LLM and with published weights too."""
    bare = ["--base_model_id", tiny_pair / "large", "--thought_generator", "none"]
    assert "\nProblem: How many?<|im_end|>" in ask(*bare, "--ask", "How many?", "--print_input", *SHORT)
    weights = published(tmp_path_factory.mktemp("weights") / "block", 16, block=True)
    flags = [*pair_flags(tiny_pair), *weights, "--num_thought_tokens", "2", *SHORT]
    assert "Hint: <2 thoughts>" in ask(*flags, "--ask", "How many?", "--print_input")


def fake_samples(monkeypatch, texts: list[str], scores: list[float]) -> None:
    samples = [Sample([], i, True, score) for i, score in enumerate(scores, 1)]
    monkeypatch.setattr(
        solve.TransformersSampler, "answers", lambda self, requests: iter([Answer(requests[0], samples, texts)])
    )


@pytest.fixture
def solve_with(tiny_models):
    """Solve a question of an answer type, perhaps with options -> its Solution."""

    def solve_with(answer_type: str, options: tuple[str, ...] = ()) -> Solution:
        example = as_example("Which?", answer_type, options)
        settings = resolve_sampling("qwen3", tiny_models.llm.generation_config)
        return solve.solve(tiny_models.models("none"), example, settings, answer_type, 0)

    return solve_with


def test_solve_votes_as_in_evaluation(monkeypatch, solve_with):
    """Equal answers are one, and the winner comes first. A tie goes to the better score, as in an evaluation, and what
    has no answer has no vote."""
    fake_samples(monkeypatch, ["so 2", "0.75", "hm", "3/4", "2.0", "9"], [-3, -1, 0, -1, -3, 0])
    solution = solve_with("number")
    assert [*solution.votes] == ["0.75", "2", "9"]
    assert solution == Solution(
        "0.75", {"0.75": 2, "2": 2, "9": 1}, ["so 2", "0.75", "hm", "3/4", "2.0", "9"], [1, 2, 3, 4, 5, 6], "0.75"
    )
    fake_samples(monkeypatch, ["hm", "no idea"], [0, 0])
    assert solve_with("number") == Solution(None, {}, ["hm", "no idea"], [1, 2], None)


def test_options_are_asked_like_rows(monkeypatch, solve_with):
    """A question with options is asked as a row of such a task is."""
    row = {"question": "How much is 2 + 3?", "options": ["A) 4", "B) 5"], "answer": "B"}
    question, _, _, options = parse_row(Task("mine", "choice", {}), row)
    example = as_example(row["question"], "choice", tuple(row["options"]))
    assert (example.question, example.options, example.index) == (question, options, 0)
    fake_samples(monkeypatch, ["The answer is 5.", "The answer is \\boxed{B}"], [0, 0])
    assert solve_with("choice", ("4", "5")).votes == {"B": 2}


def test_impossible_questions_are_refused(model):
    """An empty question, half a character, and settings that cannot be are refused with the reason."""
    for wrong, said in [
        ({"question": " \n"}, "an empty question"),
        ({"question": "half \ud800"}, "half a character"),
        ({"num_samples": 0}, "must be at least 1"),
        ({"num_samples": 2.5}, "must be at least 1, and whole"),
        ({"num_thoughts": 5}, "num_thoughts 5"),
        ({"num_thoughts": 0}, "num_thoughts 0"),
        ({"temperature": 0.0}, "must be above 0"),
        ({"options": ("1", "2")}, "options are for choice"),
    ]:
        with pytest.raises(InputError, match=said):
            model.solve(**{"question": "How many?"} | wrong)
    with pytest.raises(InputError, match="1 options"):
        as_example("Which?", "choice", ("4",))


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--ask", ""], "--ask: an empty question"),
        (["--ask", "Why?", "--inspect", "2"], "--ask with --inspect"),
        (["--ask", "Why?", "--compare", "a", "b"], "--ask with --compare"),
        (["--ask", "Why?", "--plot", "a"], "--ask with --plot"),
        (["--ask", "Why?", "--backend", "vllm"], "--ask with --backend vllm"),
        (["--ask", "Why?", "--output_dir", "out"], "--ask with --output_dir"),
        (["--ask", "Why?"], "which thoughts?"),
    ],
)
def test_wrong_ask_flags_are_refused(ask, flags, said):
    """--ask with an empty question or with flags that it does not go with is refused in one line."""
    printed = ask(*flags)
    assert printed.startswith("error: ") and said in printed and "\n" not in printed


def test_ask_is_for_one_process(ask, trained, monkeypatch):
    """--ask under torchrun is refused."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun" in ask("--checkpoint", trained, "--ask", "Why?")
