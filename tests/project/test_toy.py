"""The embedded default: the toy world's data and its two models keep what docs/results/study.md says of them."""

import json

import pytest
from helpers import ROOT

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.data_loader import PROMPTS, TASKS, load_split
from lta_thinker.rows.layout import chat_layout
from toy import build, world


@pytest.mark.parametrize("split", build.ROWS)
def test_toy_files_follow_from_seed(split):
    """The data files are what the toy world's generator makes from its seed."""
    written = [json.loads(line) for line in open(ROOT / "data" / "arithmetic" / f"{split}.jsonl")]
    assert written == world.rows(split, build.ROWS[split], build.SEED)


def test_toy_splits_share_no_problem():
    """No problem of one split is in another, in whatever words."""
    rng, seen = build.random.Random(0), {}
    for split in world.SPLITS:
        for _ in range(400):  # of 60,000: were splits drawn alike, some 8 would be in two
            problem = world.draw_problem(rng, split)
            assert seen.setdefault((problem["known"], tuple(problem["moves"])), split) == split


def test_wrong_methods_stay_in_range():
    """A solution by the wrong method has only numbers from 0 to 99 too."""
    rng = build.random.Random(1)
    for _ in range(300):
        problem = world.draw_problem(rng, "train")
        for method in world.METHODS:
            counts = [int(line.rpartition(">>")[2]) for line in world.solve(problem, method).split("\n")[1:-1]]
            assert all(0 <= count <= 99 for count in counts)


def test_wrong_solutions_are_of_the_same_problem():
    """A row solved by the wrong method is its problem's wrong solution, and solved wrongly twice it is the row."""
    rng = build.random.Random(2)
    for _ in range(100):
        problem = world.draw_problem(rng, "train")
        right, wrong = ({"question": problem["question"], "answer": world.solve(problem, m)} for m in world.METHODS)
        assert world.solved_wrongly(right) == wrong and world.solved_wrongly(wrong) == right


def test_toy_models_are_small():
    """The two toy models together are below 8 MB."""
    files = [path for name in ("large", "small") for path in (ROOT / "toy" / name).iterdir()]
    assert sum(path.stat().st_size for path in files) < 8_000_000


def accuracies(*ways: dict[str, str]) -> list[float]:
    """Shares of right answers of the bare toy LLM on 60 test questions, with each way's hint in words for a method."""
    tokenizer = build.AutoTokenizer.from_pretrained(ROOT / "toy" / "large")
    llm = build.AutoModelForCausalLM.from_pretrained(ROOT / "toy" / "large").float().eval()
    examples = load_split(TASKS["arithmetic"], "test", str(ROOT / "data")).examples[:60]
    asked = []
    for hints in ways:
        layout = chat_layout(tokenizer, PROMPTS["number"]["problem"] + (PROMPTS["number"]["thoughts"] if hints else ""))
        hint = [hints.get(example.steps[0].split()[-1], "") for example in examples]
        asked += [
            layout.before + e.question + layout.after + h + layout.suffix for e, h in zip(examples, hint, strict=True)
        ]
    texts = build.sample(llm, tokenizer, asked, batch_size=len(asked))
    answers = [extract_answer(text, "number") for text in texts]
    right = [answers_equal(a, e.answer, "number") for a, e in zip(answers, examples * len(ways), strict=True)]
    return [sum(right[at : at + 60]) / 60 for at in range(0, len(right), 60)]


def test_toy_llm_has_room_to_improve():
    """The toy LLM alone is right on 25 to 70 % of 60 questions, with the method in words on at least 90 %, and with
    the wrong one on at most 10 %."""
    alone, told, misled = accuracies({}, {"keep": "keep", "flip": "flip"}, {"keep": "flip", "flip": "keep"})
    assert 0.25 <= alone <= 0.70 and told >= 0.90 and misled <= 0.10
