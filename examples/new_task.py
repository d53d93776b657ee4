"""A task of your own: rows in a file, thoughts trained on them, questions answered with them.

    python examples/new_task.py                # the toy pair on a CPU, in a temporary folder; --steps 5 for a look

The folder stays where the program is stopped, and goes at its end.
For a real pair change the two model ids, and leave out the toy's settings and the temporary folder. (docs/ has
the flags; `python train.py` and `python evaluate.py` take the same.)
"""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # not needed after `pip install .`

import lta_thinker  # noqa: E402
from lta_thinker import evaluate  # noqa: E402


def row(rng: random.Random) -> dict:
    """What a friend has after two presents, one each way: the toy LLM can count, but guesses whose pens are meant."""
    name, had = rng.choice(["Ann", "Ben", "Eva", "Tom"]), rng.randint(20, 70)
    gave, got = rng.randint(1, 9), rng.randint(1, 9)
    more, end = had + gave, had + gave - got
    story = f"I gave {name} {gave} pens. I got {got} pens from {name}. {name} had {had} pens. How many in the end?"
    steps = ["Which method? flip", f"Gave {gave}? {had}+{gave}={more}", f"Got {got}? {more}-{got}={end}"]
    return {"question": story, "steps": steps, "answer": end}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="of training")
    parser.add_argument("--questions", type=int, default=100, help="of the test split")
    args, rng = parser.parse_args(), random.Random(41)
    test, rows = ([row(rng) for _ in range(count)] for count in (args.questions, 500))
    task = {"task_name": "presents", "answer_type": "number", "steps_field": "steps"}
    toy = {"num_thought_tokens": 8, "batch_size": 16, "gradient_accumulation_steps": 1, "learning_rate": 2e-3}
    length = {"max_steps": args.steps, "eval_strategy": "steps", "eval_steps": args.steps, "disable_tqdm": True}
    large, small = f"{ROOT}/toy/large", f"{ROOT}/toy/small"
    model = lta_thinker.train(rows, test=test, large=large, small=small, output_name="mine", **task, **toy, **length)

    # the run's name stands for its checkpoint, which knows the task and the LMs
    sampling = ["--num_return_sequences", "10", "--max_new_tokens", "96", "--batch_size", "8"]
    evaluate.main(["--checkpoint", "mine", "--thought_generator", "none", *sampling, "--output_dir", "bare"])
    evaluate.main(["--checkpoint", "mine", *sampling, "--output_dir", "thoughts"])
    evaluate.main(["--compare", "bare/report.json", "thoughts/report.json"])

    question = row(rng)["question"]
    solution = model.solve(question, num_samples=10, max_new_tokens=96)
    print(f"{question}\n{solution.text}\nanswer: {solution.answer}, votes: {solution.votes}")


if __name__ == "__main__":
    folder = tempfile.mkdtemp(prefix="new_task-")
    print(f"in {folder}", flush=True)
    with contextlib.chdir(folder):
        main()
    shutil.rmtree(folder)
