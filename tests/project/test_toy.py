"""The embedded default: the toy world's data and its two models keep what docs/results/study.md says of them."""

import json

import pytest
from helpers import ROOT

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.data_loader import PROMPTS, TASKS, load_split
from lta_thinker.rows.layout import chat_layout
from toy import build, world


@pytest.mark.parametrize("split", build.ROWS)
def test_the_data_files_are_what_the_generator_makes_from_its_seed(split):
    written = [json.loads(line) for line in open(ROOT / "data" / "arithmetic" / f"{split}.jsonl")]
    assert written == world.rows(split, build.ROWS[split], build.SEED)


def test_no_problem_of_one_split_is_in_another_in_whatever_words():
    rng, seen = build.random.Random(0), {}
    for split in world.SPLITS:
        for _ in range(2000):
            problem = world.draw_problem(rng, split)
            assert seen.setdefault((problem["known"], tuple(problem["moves"])), split) == split


def test_a_solution_by_the_wrong_method_stays_between_0_and_99_too():
    rng = build.random.Random(1)
    for _ in range(300):
        problem = world.draw_problem(rng, "train")
        for method in world.METHODS:
            counts = [int(line.rpartition(">>")[2]) for line in world.solve(problem, method).split("\n")[1:-1]]
            assert all(0 <= count <= 99 for count in counts)


def test_the_models_are_small_enough_to_be_committed():
    files = [path for name in ("large", "small") for path in (ROOT / "toy" / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 8_000_000


def accuracy(hints: dict[str, str]) -> float:
    """Share of right answers of the bare toy LLM on 100 test questions, with a hint in words for each method."""
    tokenizer = build.AutoTokenizer.from_pretrained(ROOT / "toy" / "large")
    llm = build.AutoModelForCausalLM.from_pretrained(ROOT / "toy" / "large").float().eval()
    examples = load_split(TASKS["arithmetic"], "test", str(ROOT / "data")).examples[:100]
    layout = chat_layout(tokenizer, PROMPTS["number"]["problem"] + (PROMPTS["number"]["thoughts"] if hints else ""))
    hint = [hints.get(example.steps[0].split()[-1], "") for example in examples]
    asked = [layout.before + e.question + layout.after + h + layout.suffix for e, h in zip(examples, hint, strict=True)]
    answers = [extract_answer(text, "number") for text in build.sample(llm, tokenizer, asked)]
    return sum(answers_equal(a, e.answer, "number") for a, e in zip(answers, examples, strict=True)) / len(examples)


def test_the_toy_llm_has_room_half_right_alone_and_nearly_all_right_with_the_method_in_words():
    assert 0.25 <= accuracy({}) <= 0.70
    assert accuracy({"keep": "keep", "flip": "flip"}) >= 0.90
    assert accuracy({"keep": "flip", "flip": "keep"}) <= 0.10
