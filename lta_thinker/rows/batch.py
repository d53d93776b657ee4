"""Token ids of several rows -> one batch: padding, masks, and what the losses are divided by.

    LLM input         [ prefix (left-padded) | N thoughts | suffix + target (right-padded) ]
    generator input   [ question turn (left-padded) | N slots ]

Shapes: B rows, N thoughts, Q, S, T, A columns of question, suffix, steps, answer, M steps.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from lta_thinker.rows.layout import Layout, pad_token_id


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


def pad_states(rows: list[Tensor], left: bool) -> Tensor:
    """Rows of states (T_i, d) -> (B, longest row, d), padded with zeros on the given side."""
    width = max(len(row) for row in rows)
    sides = [(width - len(row), 0) if left else (0, width - len(row)) for row in rows]
    return torch.stack([F.pad(row, (0, 0, *side)) for row, side in zip(rows, sides, strict=True)])


class PromptCollator:
    """Prompts (Layout.prompt) -> batch for evaluation: {prefix,suffix,question}_{ids,mask}, all left-padded."""

    def __init__(self, layout: Layout):
        self.llm_pad = pad_token_id(layout.llm_tokenizer)
        self.generator_pad = 0 if layout.generator_tokenizer is None else pad_token_id(layout.generator_tokenizer)

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        batch = {}
        for name, value in (("prefix", self.llm_pad), ("suffix", self.llm_pad), ("question", self.generator_pad)):
            if name in rows[0]:
                batch[f"{name}_ids"], batch[f"{name}_mask"] = pad([row[name] for row in rows], value, left=True)
        return batch


class TrainingCollator(PromptCollator):
    """Rows (Layout.training) -> batch of one training or dev step.

    prefix_*, question_* (B, ·) left-padded; suffix_* (B, S) suffix + target, right-padded; labels (B, S), -100
    outside the target; target_{rows,columns,ids} (T,) of all target tokens in `labels`. With `steps`: answer_* (B, A);
    step_* (B, T) header + steps, right-padded; step_ends (B, M), the column of each step's last token in step_ids (its
    end-of-turn marker where steps are turns), -1 (that is the question's last token) for no step; step_valid (B, M)
    bool. Of rows in stages (training/curriculum.py), which have fewer thoughts or more: thought_mask (B, n), n those of
    the row with most, at least 1. Of rows with states (training/states.py): thought_states (B, Q + N, d_small) of
    question and slots, and with `steps` step_states (B, T, d_small).
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
        batch["target_rows"], batch["target_columns"] = (batch["labels"] != -100).nonzero(as_tuple=True)
        batch["target_ids"] = batch["labels"][batch["target_rows"], batch["target_columns"]]
        if "thoughts" in rows[0]:
            counts = torch.tensor([row["thoughts"] for row in rows])
            batch["thought_mask"] = (torch.arange(max(1, counts.max())) < counts[:, None]).long()
        if "thought_states" in rows[0]:
            batch["thought_states"] = pad_states([row["thought_states"] for row in rows], left=True)
            if self.steps:
                batch["step_states"] = pad_states([row["step_states"] for row in rows], left=False)
        if self.steps:
            batch["answer_ids"], batch["answer_mask"] = pad([row["answer"] for row in rows], self.llm_pad, left=False)
            texts = [list(itertools.chain(row["header"], *row["steps"])) for row in rows]
            batch["step_ids"], batch["step_mask"] = pad(texts, self.generator_pad, left=False)
            ends = [step_ends(row) for row in rows]
            batch["step_ends"], _ = pad([row_ends or [-1] for row_ends in ends], -1, left=False)
            counts = torch.tensor([len(row_ends) for row_ends in ends])
            batch["step_valid"] = torch.arange(batch["step_ends"].shape[1]) < counts[:, None]
        return batch


def step_ends(row: dict) -> list[int]:
    """The place of each step's last token in header + steps."""
    ends = itertools.accumulate((len(step) for step in row["steps"]), initial=len(row["header"]) - 1)
    return list(ends)[1:]


def sum_by_row(values: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Values (T,) of a TrainingCollator batch's target tokens -> their sums in each row, (B,)."""
    table = values.new_zeros(batch["labels"].shape)
    table[batch["target_rows"], batch["target_columns"]] = values
    return table.sum(-1)


def loss_counts(batch: dict[str, Tensor]) -> Tensor:
    """What the sums of losses.LOSSES are divided by: (4,) float32 of target tokens, rows, rows with steps, rows."""
    labels = batch["labels"]
    tokens, rows = (labels != -100).sum(), labels.new_full((), len(labels))
    with_steps = batch["step_valid"].any(-1).sum() if "step_valid" in batch else labels.new_zeros(())
    return torch.stack([tokens, rows, with_steps, rows]).float()
