"""Data: where the rows of a task are, row -> Example, Example -> token ids, token ids -> batch.

The chat template is rendered once with sentinels in the text and split at them, so no position in a prompt is ever
counted by hand (design: "layout by construction"):

    LLM input         [ prefix (left-padded) | N thoughts | suffix + target (right-padded) ]
    generator input   [ question turn (left-padded) | N slots ]
    focus loss only   [ question turn (left-padded) | header + steps (right-padded) ]

A new task is one entry of TASKS.
"""

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from answers import extract_answer

ROOT = Path(__file__).resolve().parent
DEV_SHARE, DEV_SEED = 0.05, 41  # the dev rows of a task never depend on a run's --seed
DATE_STRING = "26 Jul 2024"  # for templates that print today's date
QUESTION, THOUGHTS, TARGET = "\ue000question\ue001", "\ue000thoughts\ue001", "\ue000target\ue001"

PROMPTS = {
    "number": {
        "problem": "Solve the problem step by step. Put the final answer in \\boxed{}.\n\nProblem: {question}",
        "thoughts": "\n\nHint: {thoughts}",
        "generator": "Read the problem and prepare hints for solving it.\n\nProblem: {question}",
    },
}


class InputError(Exception):
    """Something that the user gave is wrong: the message is the one line that says what, where and what to do."""


@dataclass(frozen=True)
class Example:
    """One question with its written solution; `index` counts its source's rows, `answer` is the canonical gold."""

    index: int
    question: str
    steps: tuple[str, ...]
    answer: str


# ---------------------------------------------------------------------------------------------------------------------
# Tasks: where rows are, row -> Example


@dataclass(frozen=True)
class Task:
    """One task: kind of answer, accepted file names of each split (the first found is read), hub source, row parser.

    A split without file names is taken from the others: dev is a seeded 5 % of train.
    """

    answer_type: str
    files: dict[str, tuple[str, ...]]
    hub: tuple[str, str] | None
    parse: Callable[[dict], tuple[str, list[str], str]]


def parse_gsm8k(row: dict) -> tuple[str, list[str], str]:
    """Row of the published GSM8K layout -> (question, steps, gold answer); ValueError says what is wrong with it.

    `<<16-3=13>>` and ` ** ` (socratic sub-question ** step) are mark-up and leave the text.
    """
    for field in ("question", "answer"):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise ValueError(f'field "{field}" is missing or not a text')
    solution, mark, final = row["answer"].rpartition("####")
    if not mark:
        raise ValueError('no final answer: "answer" has no line "#### <number>"')
    answer = extract_answer(final, "number")
    if answer is None:
        raise ValueError(f'no final answer: "{final.strip()}" after #### is not a number')
    steps = [re.sub(r"<<.*?>>", "", line).replace(" ** ", " ").strip() for line in solution.split("\n")]
    return row["question"].strip(), [step for step in steps if step], answer


TASKS = {
    "gsm8k": Task(
        answer_type="number",
        files={
            "train": ("train_socratic.jsonl", "train.jsonl"),
            "test": ("test_socratic.jsonl", "test.jsonl"),
        },
        hub=("openai/gsm8k", "socratic"),
        parse=parse_gsm8k,
    ),
    "arithmetic": Task(
        answer_type="number",
        files={"train": ("train.jsonl",), "dev": ("dev.jsonl",), "test": ("test.jsonl",)},
        hub=None,
        parse=parse_gsm8k,
    ),
}
SPLITS = ("train", "dev", "test", "sample")


@dataclass(frozen=True)
class Split:
    """The examples of one split, and what a report says of them: the source and how many rows it had."""

    examples: list[Example]
    source: str
    read: int
    bad: int


def get_task(name: str) -> Task:
    if name not in TASKS:
        raise InputError(f"--task_name {name}: no such task; there are {', '.join(TASKS)}")
    return TASKS[name]


def load_split(task_name: str, split: str, data_dir: str, skip_bad_rows: bool = False) -> Split:
    """Examples of one split of a task, from `data_dir/<task>/`, else from the hub (`sample`: from this repository).

    Raises InputError for an unknown task or split, for data that is nowhere to be found, and for a bad row
    (file:line and the reason), unless `skip_bad_rows` leaves such rows out and counts them.
    """
    task = get_task(task_name)
    if split not in SPLITS:
        raise InputError(f"--split {split}: no such split; there are {', '.join(SPLITS)}")
    if split == "sample":
        path = ROOT / "data" / task_name / "sample.jsonl"
        return _parse_rows(task, _read_jsonl(path), str(path), skip_bad_rows)
    if split in task.files:
        return _load_source(task_name, split, data_dir, skip_bad_rows, train_rows=split == "train")
    return _load_source(task_name, "train", data_dir, skip_bad_rows, train_rows=False)


def _load_source(task_name: str, split: str, data_dir: str, skip_bad_rows: bool, train_rows: bool) -> Split:
    task = TASKS[task_name]
    folder = Path(data_dir) / task_name
    path = next((folder / name for name in task.files[split] if (folder / name).is_file()), None)
    if path is not None:
        whole = _parse_rows(task, _read_jsonl(path), str(path), skip_bad_rows)
    else:
        whole = _parse_rows(task, _read_hub(task_name, split, folder), f"hub:{task.hub[0]}", skip_bad_rows)
    if split != "train" or "dev" in task.files:
        return whole
    examples = whole.examples
    held_out = set(random.Random(DEV_SEED).sample(range(len(examples)), max(1, round(DEV_SHARE * len(examples)))))
    kept = [example for i, example in enumerate(examples) if (i in held_out) != train_rows]
    return Split(kept, whole.source, whole.read, whole.bad)


def _read_jsonl(path: Path) -> Iterable[tuple[str, bytes]]:
    try:
        with open(path, "rb") as file:  # bytes: a line that is not UTF-8 is a bad row, not the end of the file
            yield from ((f"{path}:{number}", line) for number, line in enumerate(file, 1) if line.strip())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None


def _read_hub(task_name: str, split: str, folder: Path) -> Iterable[tuple[str, dict]]:
    task = TASKS[task_name]
    names = " or ".join(task.files[split])
    if task.hub is None:
        raise InputError(f"{folder}: no {names} there; python toy/build.py --data makes it, --data_dir looks elsewhere")
    try:
        import datasets  # imported here: machines that only run local files need not have it

        rows = datasets.load_dataset(*task.hub, split=split)
    except Exception as error:  # the hub's clients raise errors of several unrelated libraries
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"{folder}: no {names} there, and the hub's {task.hub[0]} ({task.hub[1]}) cannot be loaded ({reason}); "
            f"put {names} into {folder}, or point --data_dir to a folder that has {task_name}/{task.files[split][0]}"
        ) from None
    return ((f"hub:{task.hub[0]}:{split}:{number}", row) for number, row in enumerate(rows, 1))


def _parse_rows(task: Task, rows: Iterable[tuple[str, bytes | dict]], source: str, skip_bad_rows: bool) -> Split:
    examples, read, bad = [], 0, 0
    for place, row in rows:
        read += 1
        try:
            if isinstance(row, bytes):
                row = json.loads(row)
            if not isinstance(row, dict):
                raise ValueError("not a JSON object")
            question, steps, answer = task.parse(row)
        except ValueError as error:
            broken = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError))
            reason = f"not JSON ({error})" if broken else str(error)
            if not skip_bad_rows:
                raise InputError(f"{place}: {reason}; mend the row, or leave such rows out: --skip_bad_rows") from None
            bad += 1
            continue
        examples.append(Example(read - 1, question, tuple(steps), answer))
    if not examples:
        raise InputError(f"{source}: no usable row")
    return Split(examples, source, read, bad)


def answer_line(answer: str) -> str:
    """The last line of every written solution."""
    return f"The answer is \\boxed{{{answer}}}."


# ---------------------------------------------------------------------------------------------------------------------
# Layout: Example -> token ids


@dataclass(frozen=True)
class ChatLayout:
    """A chat template with one user turn, cut at the sentinels.

    A conversation is before + question + after + [thoughts] + suffix + target + end. `suffix` ends the user turn and
    opens the assistant's turn with `header`; without thoughts `after` is empty.
    """

    before: str
    after: str
    suffix: str
    header: str
    end: str


def chat_layout(tokenizer, prompt: str, date_string: str = DATE_STRING) -> ChatLayout:
    """Render `prompt` (with {question}, perhaps {thoughts}) as the user turn of the tokenizer's chat template.

    Raises InputError when there is no template, or when it does not keep the texts that it is given.
    """
    if tokenizer.chat_template is None:
        raise InputError(f"{tokenizer.name_or_path}: its tokenizer has no chat template")
    if tokenizer.decode(encode(tokenizer, "a") * 2, clean_up_tokenization_spaces=False) != "aa":
        raise InputError(f"{tokenizer.name_or_path}: its tokenizer puts a space before every text; not supported")
    user = {"role": "user", "content": prompt.replace("{question}", QUESTION).replace("{thoughts}", THOUGHTS)}
    assistant = {"role": "assistant", "content": TARGET}

    def render(messages, opened):
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=opened, enable_thinking=False, date_string=date_string
        )

    turn = render([user], opened=False).rstrip()  # ends with the end-of-turn marker
    opened = render([user], opened=True)
    closed = render([user, assistant], opened=False)
    sentinels = [mark for mark in (QUESTION, THOUGHTS) if mark in user["content"]]
    if not opened.startswith(turn) or closed.count(TARGET) != 1 or any(turn.count(mark) != 1 for mark in sentinels):
        raise InputError(f"{tokenizer.name_or_path}: its chat template does not render a plain question and answer")
    before, suffix = opened.split(QUESTION)
    after, suffix = suffix.split(THOUGHTS) if THOUGHTS in sentinels else ("", suffix)
    return ChatLayout(before, after, suffix, opened.removeprefix(turn), closed.split(TARGET)[1].rstrip())


def encode(tokenizer, text: str) -> list[int]:
    """Token ids of a piece of rendered text, nothing added."""
    return tokenizer(text, add_special_tokens=False).input_ids


def pad_token_id(tokenizer) -> int:
    """The padding token, else the end-of-text token: what stands where the mask says nothing stands."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


class Layout:
    """Example -> token ids of the LLM's and of the generator's input (lists of ints, no padding).

    `generator_tokenizer` is the small LM's, the large LLM's for `block`, or None: no thoughts and no slots.
    """

    def __init__(self, llm_tokenizer, generator_tokenizer, prompts: dict[str, str], date_string: str = DATE_STRING):
        self.llm_tokenizer, self.generator_tokenizer = llm_tokenizer, generator_tokenizer
        thoughts = "" if generator_tokenizer is None else prompts["thoughts"]
        self.llm = chat_layout(llm_tokenizer, prompts["problem"] + thoughts, date_string)
        if generator_tokenizer is not None:
            self.generator = chat_layout(generator_tokenizer, prompts["generator"], date_string)

    def prompt(self, question: str) -> dict[str, list[int]]:
        """What evaluation needs: `prefix`, `suffix` (LLM) and `question` (generator: the question's whole turn)."""
        prefix, suffix = self.llm.before + question + self.llm.after, self.llm.suffix
        if self.generator_tokenizer is None:
            return {"prefix": encode(self.llm_tokenizer, prefix + suffix), "suffix": []}
        turn = self.generator.before + question + self.generator.suffix.removesuffix(self.generator.header)
        return {
            "prefix": encode(self.llm_tokenizer, prefix),
            "suffix": encode(self.llm_tokenizer, suffix),
            "question": encode(self.generator_tokenizer, turn),
        }

    def training(self, example: Example) -> dict[str, list]:
        """`prompt`, and `target` (with the end of turn), `header`, `steps` (generator) and `answer` (LLM)."""
        target = "\n".join((*example.steps, answer_line(example.answer)))
        return self.prompt(example.question) | {
            "target": encode(self.llm_tokenizer, target) + encode(self.llm_tokenizer, self.llm.end),
            "header": encode(self.generator_tokenizer, self.generator.header),
            # a line break opens every step but the first, so that a step ends with a token of its own words
            "steps": [encode(self.generator_tokenizer, "\n" * (i > 0) + s) for i, s in enumerate(example.steps)],
            "answer": encode(self.llm_tokenizer, example.answer),
        }


# ---------------------------------------------------------------------------------------------------------------------
# Token ids -> batch


def pad(rows: list[list[int]], value: int, left: bool) -> tuple[Tensor, Tensor]:
    """Rows of ids -> (ids, mask), both (B, longest row), int64; padded with `value` on the given side."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), value)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        columns = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, columns] = torch.tensor(row, dtype=torch.long)
        mask[i, columns] = 1
    return ids, mask


class PromptCollator:
    """Prompts (Layout.prompt) -> batch for evaluation: {prefix,suffix,question}_{ids,mask}, all left-padded."""

    def __init__(self, layout: Layout):
        self.llm_pad = pad_token_id(layout.llm_tokenizer)
        self.generator_pad = layout.generator_tokenizer and pad_token_id(layout.generator_tokenizer)

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        batch = {}
        for name, value in (("prefix", self.llm_pad), ("suffix", self.llm_pad), ("question", self.generator_pad)):
            if name in rows[0]:
                batch[f"{name}_ids"], batch[f"{name}_mask"] = pad([row[name] for row in rows], value, left=True)
        return batch


class TrainingCollator(PromptCollator):
    """Rows (Layout.training) -> batch of one training or dev step.

    prefix_*, question_* (B, ·) left-padded; suffix_* (B, S) suffix + target, right-padded; labels (B, S), -100
    outside the target; answer_* (B, A). With `steps`: step_* (B, T) header + steps, right-padded; step_ends (B, M)
    column of each step's last token in step_ids; step_valid (B, M) bool.
    """

    def __init__(self, layout: Layout, steps: bool):
        super().__init__(layout)
        self.steps = steps

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        batch = super().__call__([{name: row[name] for name in ("prefix", "question")} for row in rows])
        batch["suffix_ids"], batch["suffix_mask"] = pad(
            [row["suffix"] + row["target"] for row in rows], self.llm_pad, left=False
        )
        batch["labels"], _ = pad([[-100] * len(row["suffix"]) + row["target"] for row in rows], -100, left=False)
        if self.steps:
            batch["answer_ids"], batch["answer_mask"] = pad([row["answer"] for row in rows], self.llm_pad, left=False)
            texts = [sum(row["steps"], row["header"]) for row in rows]
            batch["step_ids"], batch["step_mask"] = pad(texts, self.generator_pad, left=False)
            ends = []
            for row in rows:
                end = len(row["header"]) - 1
                ends.append([end := end + len(step) for step in row["steps"]] or [0])
            batch["step_ends"], _ = pad(ends, 0, left=False)
            counts = torch.tensor([len(row["steps"]) for row in rows])
            batch["step_valid"] = torch.arange(batch["step_ends"].shape[1]) < counts[:, None]
        return batch


def loss_counts(batch: dict[str, Tensor]) -> Tensor:
    """What the loss sums of a batch are divided by: (3,) float32 of target tokens, rows, rows with steps."""
    tokens = (batch["labels"] != -100).sum()
    rows = batch["labels"].shape[0]
    with_steps = batch["step_valid"].any(-1).sum() if "step_valid" in batch else 0
    return torch.tensor([tokens, rows, with_steps], dtype=torch.float32)
