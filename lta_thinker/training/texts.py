"""--log_texts: what the LLM writes for a few dev questions, as a table in a tracker at each dev evaluation."""

import importlib
from collections.abc import Sequence
from typing import Any

from pandas import DataFrame
from transformers import TrainerCallback

from lta_thinker.answers import answers_equal, extract_answer
from lta_thinker.generation.prompts import make_requests
from lta_thinker.generation.samplers import TransformersSampler, greedy_settings
from lta_thinker.model import Models
from lta_thinker.rows.examples import Example

COLUMNS = ["step", "question", "gold", "text", "answer", "right"]
TABLE_NAME = "dev_texts"


def dev_texts(
    models: Models, examples: Sequence[Example], answer_type: str, max_new_tokens: int, batch_size: int
) -> list[list]:
    """A row (question, gold, text, answer or "", right) for each example, in their order: written greedily behind all N
    thoughts (of the first chain), as they are now. Nothing is drawn, so no random state changes."""
    settings, rows = greedy_settings(models.llm, max_new_tokens), {}
    for one in TransformersSampler(models, settings, batch_size).answers(make_requests(models.layout, examples)):
        example, (text,), (sample,) = one.request.example, one.texts, one.samples
        answer = extract_answer(text, answer_type, example.options, sample.finished)
        right = answers_equal(answer, example.answer, answer_type)
        rows[example.index] = [example.question, example.answer, text, answer or "", right]
    return [rows[example.index] for example in examples]


class LogTexts(TrainerCallback):
    """At each dev evaluation a table of dev_texts goes to those of the trackers that hold one, from rank 0 alone."""

    def __init__(self, models: Models, examples: Sequence[Example], answer_type: str):
        """examples: the questions that are asked, each time the same."""
        self.models, self.examples, self.answer_type = models, examples, answer_type

    def on_evaluate(self, args: Any, state, control, **kwargs):  # args: TrainArguments
        """Write the table, of the weights after this step. The model is in eval mode."""
        if not state.is_world_process_zero:
            return
        texts = dev_texts(
            self.models, self.examples, self.answer_type, args.max_new_tokens, args.per_device_eval_batch_size
        )
        rows = [[state.global_step, *row] for row in texts]
        for name in args.table_trackers:
            tracker = importlib.import_module(name)  # Trainer's own callback has begun the run in it
            # the step goes with it under the name that the library's callbacks give it
            table = tracker.Table(dataframe=DataFrame(rows, columns=COLUMNS))
            tracker.log({TABLE_NAME: table, "train/global_step": state.global_step})
