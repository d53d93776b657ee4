"""Remake the broad pair: data, tokenizer, and two tiny Qwen3 models that only difficulty holds back.

    python toy/build_broad.py                         # everything, into toy/broad: data/, small/, large/
    python toy/build_broad.py --steps 20 --out /tmp/b # a short try
    python toy/build_broad.py --check                 # accuracy of the built models on the test splits

The world is toy/broad.py. Both models see nothing but right solutions of its train splits; in half of the large one's
texts the thoughts' place holds padding or words that say nothing, so that slots do not confuse it, and no text has a
hint that helps. Each file of data is a task of one's own:

    python train.py --task_name broad-choice --answer_type choice --train_file toy/broad/data/choice/train.jsonl \\
        --steps_field rationale --answer_field correct ...      # boolean: --steps_field facts; number: no fields

Takes about an hour on one core, the small model first.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lta_thinker.answers import answers_equal, extract_answer  # noqa: E402
from lta_thinker.data_loader import PROMPTS, OwnTask, load_split, own_task  # noqa: E402
from lta_thinker.rows.examples import parse_row  # noqa: E402
from lta_thinker.rows.layout import answer_line, chat_layout  # noqa: E402
from toy import broad, build  # noqa: E402

SEED = 41
ROWS = {"train": 3000, "dev": 200, "test": 500}
VOCAB = 640
FIELDS = {"number": {}, "boolean": {"steps": "facts"}, "choice": {"steps": "rationale", "answer": "correct"}}
SHAPES = {
    "small": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 32,
        "intermediate_size": 320,
    },
    "large": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "head_dim": 64,
        "intermediate_size": 768,
    },
}
TRAINING = {
    "small": {"steps": 3000, "batch": 16, "lr": 3e-3},
    "large": {"steps": 2600, "batch": 16, "lr": 1.5e-3},
}
DRILL_SHARE, SLOTS_SHARE = 0.1, 0.5


def task_of(family, folder):
    """A family as a task of the user's own, its files in `folder`."""
    files = {split: str(folder / "data" / family / f"{split}.jsonl") for split in ROWS}
    return own_task(f"broad-{family}", OwnTask(files, FIELDS[family], family))


def write_data(folder):
    for family in broad.FAMILIES:
        (folder / "data" / family).mkdir(parents=True, exist_ok=True)
        for split, n in ROWS.items():
            text = "".join(json.dumps(row) + "\n" for row in broad.rows(family, split, n, SEED))
            (folder / "data" / family / f"{split}.jsonl").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Pretraining texts (toy/build.py says what a text is)


def draw_solved(rng, family):
    """(question, solution as data_loader writes a target) of a problem of the train split."""
    _, row = broad.draw_row(rng, family, "train")
    question, steps, answer, _ = parse_row(task_of(family, ROOT), row)
    return question, "\n".join((*steps, answer_line(answer)))


def draw_sum(rng):
    """A sum, difference, product or comparison, and its result."""
    a, b, sign = rng.randint(0, 99), rng.randint(1, 40), rng.choice("++--*?")
    if sign == "*":
        a, b = rng.randint(2, 9), rng.randint(2, 9)
    if sign == "?":
        return f"{a}, {b}: ", f"{a}{'>' if a > b else '<' if a < b else '='}{b}"
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    return (f"{a}{sign}{b}=", result) if 0 <= result <= 99 else draw_sum(rng)


def large_text(rng, layouts):
    if rng.random() < DRILL_SHARE:
        return build.drill_text(rng, layouts["drill"], draw_sum)
    family = rng.choice(list(broad.FAMILIES))
    question, solution = draw_solved(rng, family)
    slots = rng.random() < SLOTS_SHARE
    layout = layouts[family, "thoughts" if slots else "problem"]
    return build.solved_text(rng, layout, question, build.filler(rng) if slots else "", solution)


def small_text(rng, layouts):
    family = rng.choice(list(broad.FAMILIES))
    question, solution = draw_solved(rng, family)
    return build.solved_text(rng, layouts[family, rng.choice(("generator", "problem"))], question, "", solution)


def tokenizer_corpus():
    rng = random.Random(SEED)
    prompts = [prompt for family in broad.FAMILIES for prompt in PROMPTS[family].values()]
    solved = [draw_solved(rng, family) for family in broad.FAMILIES for _ in range(1000)]
    return [*prompts * 300, *["\nassistant", "Calculate."] * 300, *(text for pair in solved for text in pair)]


def pretrain(name, folder, steps):
    """Train one model and save it in `folder`; returns its last loss."""
    tokenizer = build.train_tokenizer(tokenizer_corpus(), VOCAB)
    layouts = {"drill": chat_layout(tokenizer, "{question}")}
    for family in broad.FAMILIES:
        prompts = PROMPTS[family]
        layouts |= {(family, kind): chat_layout(tokenizer, prompts[kind]) for kind in ("problem", "generator")}
        layouts[family, "thoughts"] = chat_layout(tokenizer, prompts["problem"] + prompts["thoughts"])
    draw = {"large": large_text, "small": small_text}[name]
    settings = TRAINING[name] | ({"steps": steps} if steps else {})
    rng = random.Random(f"{SEED} broad {name}")
    source = build.batches(rng, lambda rng: draw(rng, layouts), tokenizer, settings["batch"])
    return build.train_model(name, SHAPES[name], settings, tokenizer, source, folder / name)


def check(folder):
    """Print the share of right answers to the test questions, one sample an answer."""
    for title, name, thoughts in (
        ("large, without thoughts", "large", ""),
        ("large, eight padded slots", "large", build.PAD * 8),
        ("small, the generator's prompt", "small", ""),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        model = AutoModelForCausalLM.from_pretrained(folder / name).float().eval()
        for family in broad.FAMILIES:
            prompts, examples = PROMPTS[family], load_split(task_of(family, folder), "test", "").examples
            prompt = prompts["generator" if name == "small" else "problem"] + (prompts["thoughts"] if thoughts else "")
            layout = chat_layout(tokenizer, prompt)
            asked = [layout.before + example.question + layout.after + thoughts + layout.suffix for example in examples]
            right = sum(
                answers_equal(extract_answer(text, family, example.options), example.answer, family)
                for text, example in zip(build.sample(model, tokenizer, asked), examples, strict=True)
            )
            print(f"{title:30} {family:8} {len(examples)} questions: answer right {right / len(examples):6.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "toy" / "broad")
    parser.add_argument("--steps", type=int, help="of each model, in place of the recipe's")
    parser.add_argument("--check", action="store_true", help="only check the built models")
    args = parser.parse_args()
    if not args.check:
        write_data(args.out)
        start = time.time()
        losses = {name: pretrain(name, args.out, args.steps) for name in SHAPES}
        print(f"training loss at the end: {losses}; {(time.time() - start) / 60:.1f} minutes")
    check(args.out)
