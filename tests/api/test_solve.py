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
def test_a_question_gets_the_texts_and_the_vote_that_an_evaluation_gives_it(
    model, trained, gsm8k_data, tmp_path, flags, arguments
):
    """Its neighbours in the batch and the settings' way in change nothing."""
    flags = ["--checkpoint", trained, "--data_dir", gsm8k_data, "--test_k", "4", "--output_dir", tmp_path, *flags]
    evaluate.main([*map(str, flags), *SHORT])
    record = json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])
    assert (record["index"], record["question"]) == (0, QUESTION)
    solution = model.solve(f" {QUESTION}\n", **{"num_samples": 1, "max_new_tokens": 8} | arguments)
    assert (solution.texts, solution.tokens) == (record["responses"], record["num_tokens"])
    assert solution.answer == record["vote"] and len(solution.texts) == len(record["answers"])
    assert sum(solution.votes.values()) == sum(answer is not None for answer in record["answers"])


def test_the_shell_asks_as_python_does(model, trained, ask):
    solution = model.solve(QUESTION, 3, max_new_tokens=8)
    printed = ask("--checkpoint", trained, "--ask", QUESTION, "--num_return_sequences", "3", "--print_response", *SHORT)
    assert all(text in printed for text in solution.texts)
    said = f"answer: {'none' if solution.answer is None else solution.answer}\n"
    assert said in printed and f"  tokens: {', '.join(map(str, solution.tokens))}\n" in printed


def test_the_shell_asks_the_bare_llm_and_published_weights_too(ask, tiny_pair, tmp_path_factory):
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


def test_equal_answers_are_one_and_the_winner_comes_first(monkeypatch, solve_with):
    """A tie goes to the better score, as in an evaluation; what has no answer has no vote."""
    fake_samples(monkeypatch, ["so 2", "0.75", "hm", "3/4", "2.0", "9"], [-3, -1, 0, -1, -3, 0])
    solution = solve_with("number")
    assert [*solution.votes] == ["0.75", "2", "9"]
    assert solution == Solution(
        "0.75", {"0.75": 2, "2": 2, "9": 1}, ["so 2", "0.75", "hm", "3/4", "2.0", "9"], [1, 2, 3, 4, 5, 6]
    )
    fake_samples(monkeypatch, ["hm", "no idea"], [0, 0])
    assert solve_with("number") == Solution(None, {}, ["hm", "no idea"], [1, 2])


def test_options_are_asked_as_a_rows_are(monkeypatch, solve_with):
    row = {"question": "How much is 2 + 3?", "options": ["A) 4", "B) 5"], "answer": "B"}
    question, _, _, options = parse_row(Task("mine", "choice", {}), row)
    example = as_example(row["question"], "choice", tuple(row["options"]))
    assert (example.question, example.options, example.index) == (question, options, 0)
    fake_samples(monkeypatch, ["The answer is 5.", "The answer is \\boxed{B}"], [0, 0])
    assert solve_with("choice", ("4", "5")).votes == {"B": 2}


def test_what_cannot_be_asked_is_one_line(model):
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
def test_a_wrong_ask_is_one_line(ask, flags, said):
    printed = ask(*flags)
    assert printed.startswith("error: ") and said in printed and "\n" not in printed


def test_ask_is_for_one_process(ask, trained, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun" in ask("--checkpoint", trained, "--ask", "Why?")
