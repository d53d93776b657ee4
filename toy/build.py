"""Remake the embedded default from nothing: the arithmetic task, its tokenizer, and two tiny Qwen3 models.

    python toy/build.py            # everything: data/arithmetic/*.jsonl, toy/large, toy/small
    python toy/build.py --data     # only the data
    python toy/build.py --check    # accuracy of the built models on the test split, one sample an answer

The two models have different strengths, and the thoughts are the bridge between them (the world: toy/world.py).
`large` calculates well by either method, but nothing in its pretraining tells which question wants which method: a
hint's word decides the method whatever the question says, and without a useful hint half of the written solutions use
the wrong one. `small` always names the right method, and is too small to calculate reliably.

Takes about 11 minutes on two cores, one for each model.
"""

import argparse
import json
import math
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lta_thinker.answers import answers_equal, extract_answer  # noqa: E402
from lta_thinker.data_loader import PROMPTS, TASKS, load_split  # noqa: E402
from lta_thinker.rows.batch import pad  # noqa: E402
from lta_thinker.rows.examples import parse_row  # noqa: E402
from lta_thinker.rows.layout import answer_line, chat_layout  # noqa: E402
from toy import world  # noqa: E402

os.environ["TOKENIZERS_PARALLELISM"] = "false"
SEED = 41
ROWS = {"train": 3000, "dev": 200, "test": 600, "sample": 20}
VOCAB = 512  # at most: the corpus runs out of pairs to merge a little earlier
PAD, OPEN, CLOSE = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
MAX_SLOTS = 32  # hints in pretraining are 1 to this many tokens long
SHAPES = {
    "large": {
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "head_dim": 32,
        "intermediate_size": 384,
    },
    "small": {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "head_dim": 16,
        "intermediate_size": 160,
    },
}
TRAINING = {
    "large": {"steps": 2400, "batch": 16, "lr": 2e-3},
    "small": {"steps": 1500, "batch": 32, "lr": 3e-3},
}
INIT_STD = 0.08  # about 1/sqrt(d): with the library's 0.02, made for wide models, these stay on a plateau for long
WARMUP, BETAS, WEIGHT_DECAY, CLIP = 0.05, (0.9, 0.98), 0.01, 1.0
LOG_STEPS = 100  # a line of log for each so many
POOL = 16  # this many batches are drawn at once and sorted by length
DRILL_SHARE, HINT_SHARE, SLOTS_SHARE = 0.3, 0.75, 0.8
OTHER_PROMPTS = [PROMPTS["number"]["problem"], "Problem: {question}", "{question}"]  # small LM, besides the generator's


def write_data():
    """data/arithmetic/{train,dev,test,sample}.jsonl; splits share no problem by construction (world.split_of)."""
    folder = ROOT / "data" / "arithmetic"
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in ROWS.items():
        text = "".join(json.dumps(row) + "\n" for row in world.rows(split, n, SEED))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Pretraining texts. A text is a list of pieces (string, does the loss count it?), tokenised one by one


def written(problem, method):
    """The assistant's text: the solution by `method` as data_loader writes a target."""
    _, steps, answer, _ = parse_row(TASKS["arithmetic"], {"question": "-", "answer": world.solve(problem, method)})
    return "\n".join((*steps, answer_line(answer)))


def filler(rng):
    """Up to half of MAX_SLOTS tokens that say nothing: none at all, padding, or words and numbers."""
    length = rng.randint(1, MAX_SLOTS // 2)
    words = rng.choices([*world.ITEMS, *world.NAMES, *map(str, range(10))], k=length)
    return rng.choice(("", PAD * length, " ".join(words)))


def draw_hint(rng, problem, method):
    """What stands in the thoughts' place: seven in ten times words that tell `method`, and filler around them."""
    said = ""
    if rng.random() < 0.7:
        numbers = [problem["known"], *map(abs, problem["moves"])] if rng.random() < 0.3 else []
        said = " ".join([method] * rng.choice((1, 1, 2, 4, 8)) + [str(number) for number in numbers])
    hint = " ".join(part for part in (filler(rng), said, filler(rng)) if part)
    return hint or PAD * rng.randint(1, MAX_SLOTS)


def draw_sum(rng):
    """A sum and its result."""
    change = rng.choice((-1, 1)) * rng.randint(1, world.MAX_NUMBER)
    count = rng.randint(max(0, -change), min(99, 99 - change))
    return f"{count}{change:+d}=", count + change


def drill_text(rng, layout, draw_sum=draw_sum):
    """A text for the large LLM that holds nothing but sums; the loss counts the results."""
    pieces = [(layout.before + "Calculate." + layout.suffix, False)]
    for _ in range(12):
        asked, result = draw_sum(rng)
        pieces += [(asked, False), (f"{result}\n", True)]
    return pieces


def solved_text(rng, layout, question, hint, solution):
    """A question with a hint in the thoughts' place ("" where the layout has none), and its solution, which counts."""
    prompt = [layout.before + question + layout.after, hint, layout.suffix]
    if rng.random() < 0.5:  # words are tokenised with their neighbours, thoughts stand apart: it should know both
        prompt = ["".join(prompt)]
    return [(piece, False) for piece in prompt] + [(solution, True), (layout.end, True)]


def large_text(rng, layouts):
    """A text for the large LLM: the method is random, and only a hint's word tells which one the solution takes."""
    if rng.random() < DRILL_SHARE:
        return drill_text(rng, layouts["drill"])
    problem, method = world.draw_problem(rng, "train"), rng.choice(world.METHODS)
    hinted = rng.random() < HINT_SHARE
    hint = draw_hint(rng, problem, method) if hinted else ""
    layout = layouts["thoughts" if hinted else "none"]
    return solved_text(rng, layout, problem["question"], hint, written(problem, method))


def reading(rng, problem):
    """What the question says, in words, in any order: who, what is asked, and so the method."""
    words = [problem["who"], problem["asked"], problem["method"]]
    rng.shuffle(words)
    return "".join(" " + word for word in words)


def small_text(rng, layouts):
    """A text for the small LM, always by the right method: a solution, or slots and then at once its reading."""
    problem = world.draw_problem(rng, "train")
    layout = rng.choice(layouts["small"])
    turn = layout.before + problem["question"] + layout.suffix.removesuffix(layout.header)
    if rng.random() < SLOTS_SHARE:
        return [(turn + PAD * rng.randint(0, MAX_SLOTS), False), (reading(rng, problem), True)]
    return [(turn + layout.header, False), (written(problem, problem["method"]), True), (layout.end, True)]


# ---------------------------------------------------------------------------------------------------------------------
# Tokenizer and models


def tokenizer_corpus():
    """Texts of the world, and the prompts as often as they come in them."""
    rng = random.Random(SEED)
    corpus = [PROMPTS["number"]["problem"] + PROMPTS["number"]["thoughts"] + PROMPTS["number"]["generator"]] * 300
    corpus += ["\nassistant"] * 300
    for _ in range(3000):
        problem = world.draw_problem(rng, "train")
        corpus += [problem["question"], written(problem, problem["method"]), reading(rng, problem)]
    return corpus


def train_tokenizer(corpus, vocab):
    """Byte-level BPE with single digits, so that any text can be encoded, of at most `vocab` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[PAD, OPEN, CLOSE], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=CLOSE,
        pad_token=PAD,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def texts_of(name, tokenizer):
    """(rng, rng -> a text) of one model."""
    prompts = PROMPTS["number"]
    layouts = {
        "none": chat_layout(tokenizer, prompts["problem"]),
        "thoughts": chat_layout(tokenizer, prompts["problem"] + prompts["thoughts"]),
        "drill": chat_layout(tokenizer, "{question}"),
        "small": [
            chat_layout(tokenizer, prompt) for prompt in (prompts["generator"], prompts["generator"], *OTHER_PROMPTS)
        ],
    }
    draw = {"large": large_text, "small": small_text}[name]
    return random.Random(f"{SEED} {name}"), lambda rng: draw(rng, layouts)


def batches(rng, draw, tokenizer, size):
    """Endless (ids, labels), both (B, T), right-padded, of texts draw(rng); texts of like length stand together."""
    while True:
        texts = [draw(rng) for _ in range(POOL * size)]
        encoded = iter(tokenizer([piece for text in texts for piece, _ in text], add_special_tokens=False).input_ids)
        rows = []
        for text in texts:
            ids, labels = [], []
            for (_, counts), piece in zip(text, encoded, strict=False):  # text first: it ends before a piece is taken
                ids += piece
                labels += piece if counts else [-100] * len(piece)
            rows.append((ids, labels))
        rows.sort(key=lambda row: len(row[0]))
        starts = list(range(0, len(rows), size))
        rng.shuffle(starts)
        for start in starts:
            batch = rows[start : start + size]
            yield (
                pad([ids for ids, _ in batch], tokenizer.pad_token_id, left=False)[0],
                pad([labels for _, labels in batch], -100, left=False)[0],
            )


def pretrain(name):
    """Train one model of the toy world and save it in toy/<name>; returns its last loss."""
    tokenizer = train_tokenizer(tokenizer_corpus(), VOCAB)
    rng, draw = texts_of(name, tokenizer)
    source = batches(rng, draw, tokenizer, TRAINING[name]["batch"])
    position = list(SHAPES).index(name)
    return train_model(name, SHAPES[name], TRAINING[name], tokenizer, source, ROOT / "toy" / name, position)


def train_model(name, shape, settings, tokenizer, source, folder, position=0):
    """Train one model on one core and save it, rounded to bf16; returns its last loss (running mean)."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=INIT_STD,
        num_key_value_heads=shape["num_attention_heads"],
        **shape,
    )
    model = Qwen3ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], betas=BETAS, weight_decay=WEIGHT_DECAY)
    total, warmup = settings["steps"], WARMUP * settings["steps"]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * i / total))
    )
    start, running = time.time(), None
    bar = tqdm(range(total), desc=f"pretrain {name}", position=position, mininterval=2, disable=None)
    for step in bar:
        ids, labels = next(source)
        counted = labels[:, 1:] != -100
        hidden = model.base_model(ids).last_hidden_state[:, :-1]  # (B, T-1, d); padding stands right: no mask needed
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[counted]), labels[:, 1:][counted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        bar.set_postfix(loss=f"{running:.4f}", refresh=False)
        if (step + 1) % LOG_STEPS == 0:
            minutes = (time.time() - start) / 60
            tqdm.write(f"{name}: step {step + 1} of {total}, loss {running:.4f}, {minutes:.1f} minutes", sys.stderr)
    save(model, tokenizer, folder)
    return running


def save(model, tokenizer, folder):
    """bf16 safetensors, config, generation settings and tokenizer, readable by transformers 4.53 and 5."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **SAMPLING
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 5 writes a name that 4.53 does not know
    path.write_text(json.dumps(settings, indent=2) + "\n")


# ---------------------------------------------------------------------------------------------------------------------
# Check


@torch.no_grad()
def sample(model, tokenizer, texts, batch_size=100):
    """One sampled answer for each rendered prompt."""
    torch.manual_seed(SEED)
    answers = []
    for start in tqdm(range(0, len(texts), batch_size), desc="check", leave=False):
        prompts = tokenizer(texts[start : start + batch_size], add_special_tokens=False).input_ids
        ids, mask = pad(prompts, tokenizer.pad_token_id, left=True)
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=100, **SAMPLING)
        answers += tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return answers


def check():
    """Print, for the test split and one sample an answer: share of right answers, share that names the right method."""
    examples = load_split(TASKS["arithmetic"], "test", str(ROOT / "data")).examples
    methods = [example.steps[0].split()[-1] for example in examples]
    prompts = PROMPTS["number"]
    keep, flip = world.METHODS
    for title, name, prompt, hints in (
        ("large, without thoughts", "large", prompts["problem"], {}),
        ("large, right method in words", "large", prompts["problem"] + prompts["thoughts"], {keep: keep, flip: flip}),
        ("large, wrong method in words", "large", prompts["problem"] + prompts["thoughts"], {keep: flip, flip: keep}),
        ("small, the generator's prompt", "small", prompts["generator"], {}),
    ):
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "toy" / name)
        model = AutoModelForCausalLM.from_pretrained(ROOT / "toy" / name).float().eval()
        layout = chat_layout(tokenizer, prompt)
        asked = [
            layout.before + example.question + layout.after + hints.get(method, "") + layout.suffix
            for example, method in zip(examples, methods, strict=True)
        ]
        right = named = 0
        for text, example, method in zip(sample(model, tokenizer, asked), examples, methods, strict=True):
            right += answers_equal(extract_answer(text, "number"), example.answer, "number")
            named += text.split("\n")[0].endswith(method)
        n = len(examples)
        print(f"{title:30} {n} questions: answer right {right / n:6.1%}, method right {named / n:6.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="store_true", help="only write data/arithmetic")
    parser.add_argument("--check", action="store_true", help="only check the built models")
    args = parser.parse_args()
    if not args.check:
        write_data()
    if not (args.check or args.data):
        start = time.time()
        with ProcessPoolExecutor(len(SHAPES), mp_context=get_context("spawn")) as pool:
            losses = dict(zip(SHAPES, pool.map(pretrain, SHAPES), strict=True))
        print(f"training loss at the end: {losses}; {(time.time() - start) / 60:.1f} minutes")
    if not args.data:
        check()
