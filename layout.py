"""Layout: Example -> token ids, token ids -> batch.

The chat template is rendered once with sentinels in the text and split at them, so no position in a prompt is ever
counted by hand (design: "layout by construction"):

    LLM input         [ prefix (left-padded) | N thoughts | suffix + target (right-padded) ]
    generator input   [ question turn (left-padded) | N slots ]
    focus loss only   [ question turn (left-padded) | header + steps (right-padded) ]
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from data_loader import DATE_STRING, Example, InputError

QUESTION, THOUGHTS, TARGET = "\ue000question\ue001", "\ue000thoughts\ue001", "\ue000target\ue001"


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
