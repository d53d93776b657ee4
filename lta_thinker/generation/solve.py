"""One question: samples, their answers and the vote. evaluate.py --ask, LatentThoughtModel.solve.

solution = solve(models, as_example(question, "number"), settings, "number", num_injected=2)
"""

from collections import Counter
from dataclasses import dataclass

from lta_thinker.answers import extract_answer
from lta_thinker.answers.votes import vote
from lta_thinker.common import InputError
from lta_thinker.generation.prompts import make_requests
from lta_thinker.generation.samplers import TransformersSampler
from lta_thinker.generation.sampling import SamplingSettings
from lta_thinker.model import Models
from lta_thinker.rows.examples import Example, is_text, is_visible, read_options, with_options


@dataclass(frozen=True)
class Solution:
    """The samples of one question and their vote.

    answer: the vote's, None where no sample has an answer. votes: {answer: number of samples}, the winner first, then
    the most frequent; samples without an answer are not counted. texts, tokens: each sample's text and its number of
    tokens. text: that of the first sample with the vote's answer, None where no sample has an answer.
    """

    answer: str | None
    votes: dict[str, int]
    texts: list[str]
    tokens: list[int]
    text: str | None


def as_example(question: str, answer_type: str, options: tuple[str, ...] = ()) -> Example:
    """A question as the first row of a file would be.

    options: of a choice question, texts without letters. Raises InputError for an empty question and for wrong options.
    """
    if not isinstance(question, str) or not is_visible(question):
        raise InputError("an empty question: there is nothing to ask")
    if options and answer_type != "choice":
        raise InputError(f"options: this task's answers are of the type {answer_type}, options are for choice")
    try:
        _, options = read_options(list(options) or None)
    except ValueError as error:
        raise InputError(f"options: {error}") from None
    question = with_options(question.strip(), options)
    if not is_text(question):
        raise InputError("the question has half a character (a lone surrogate)")
    return Example(0, question, (), "", options)


def solve(
    models: Models, example: Example, settings: SamplingSettings, answer_type: str, num_injected: int
) -> Solution:
    """Sample answers to one question and vote, as an evaluation does: the same seed and question give the same texts.

    num_injected: n, how many of the N thoughts go into the prompt.
    """
    sampler = TransformersSampler(models, settings, 1, num_injected)
    [answer] = sampler.answers(make_requests(models.layout, [example]))
    texts = zip(answer.texts, answer.samples, strict=True)
    answers = [extract_answer(text, answer_type, example.options, sample.finished) for text, sample in texts]
    result = vote(answers, answer_type, [sample.score for sample in answer.samples])
    sizes = Counter(group for group in result.groups if group is not None)
    ranked = sorted(sizes, key=lambda group: (group != result.winner, -sizes[group]))
    return Solution(
        answer=result.answer,
        votes={str(answers[result.groups.index(group)]): sizes[group] for group in ranked},
        texts=answer.texts,
        tokens=[sample.num_tokens for sample in answer.samples],
        text=None if result.winner is None else answer.texts[result.groups.index(result.winner)],
    )
