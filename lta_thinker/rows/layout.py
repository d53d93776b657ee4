"""Layout: Example -> token ids (batch.py pads them).

The chat template is rendered once with sentinels in the text and split at them, so no position in a prompt is counted
by hand:

    LLM input         [ prefix (left-padded) | N thoughts | suffix + target (right-padded) ]
    generator input   [ question turn (left-padded) | N slots ]
    focus loss only   [ question turn (left-padded) | header + steps (right-padded) ]
      as published    [ question turn (left-padded) | a turn for each step (right-padded) ]

The LLM's text is tokenised whole, with one special token in the place of the thoughts. So a tokenizer treats the start
of a text, spaces between words and the text after a special token as in the template's own conversation.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import AddedToken

from lta_thinker.common import InputError
from lta_thinker.rows.examples import Example

DATE_STRING = "26 Jul 2024"  # for templates that print today's date
QUESTION, THOUGHTS, TARGET = "\ue000question\ue001", "\ue000thoughts\ue001", "\ue000target\ue001"
# for LMs without a chat template: question, blank line, answer
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{{ '\n\n' if message.role == 'user' else eos_token }}{% endfor %}"
)
# some templates call this function for today's date, others use date_string
FIXED_DATE = "{% macro strftime_now(format) %}{{ date_string }}{% endmacro +%}"
WORD = "a"  # stands before a piece that begins with a line break; no tokenizer merges the two


def answer_line(answer: str) -> str:
    """The last line of every written solution."""
    return f"The answer is \\boxed{{{answer}}}."


def target_text(example: Example, separator: str) -> str:
    """What the LLM is trained to write for an example: its steps with `separator` between them, and the answer line."""
    return separator.join((*example.steps, answer_line(example.answer)))


@dataclass(frozen=True)
class WorkedExample:
    """A question and its written solution (target_text), which stand in the LLM's prompt before the question that is
    asked (--num_fewshot)."""

    question: str
    target: str


@dataclass(frozen=True)
class ChatLayout:
    """A chat template with one user turn, cut at the sentinels.

    A conversation is before + question + after + [thoughts] + suffix + lead + target + end.

    before: with the turns of the worked examples, where there are some. after: empty without thoughts. suffix: ends the
    user turn, and opens the assistant's turn with `header`. header: empty where the template has none. lead: what the
    template writes before an answer and not in an open turn, for example a space. end: of the assistant's turn; the
    end-of-text token where the template writes nothing there.
    """

    before: str
    after: str
    suffix: str
    header: str
    lead: str
    end: str

    @property
    def text(self) -> str:
        """All that the template writes."""
        return "".join(vars(self).values())


def render(tokenizer, messages: list[dict[str, str]], opened: bool, date_string: str, what: str) -> str:
    """A conversation as the tokenizer's chat template writes it (PLAIN_TEMPLATE where it has none), `opened` for an
    answer or not. Raises InputError where the template fails on it; `what` names it there."""
    template = PLAIN_TEMPLATE if tokenizer.chat_template is None else tokenizer.get_chat_template()
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=FIXED_DATE + template,
            tokenize=False,
            add_generation_prompt=opened,
            enable_thinking=False,
            date_string=date_string,
        )
    except Exception as error:  # a template is a program and can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{tokenizer.name_or_path}: its chat template fails on {what} ({reason})") from None


def chat_layout(
    tokenizer, prompt: str, date_string: str = DATE_STRING, earlier: Sequence[dict[str, str]] = ()
) -> ChatLayout:
    """Render `prompt` (with {question}, perhaps {thoughts}) as the user turn of the tokenizer's chat template, or of
    PLAIN_TEMPLATE where it has none. `earlier`: messages before it, the turns of worked examples.

    Raises InputError when the template fails, changes the texts that it is given, or marks no end of an answer.
    """
    name, eos = tokenizer.name_or_path, tokenizer.eos_token
    if tokenizer.chat_template is None and eos is None:
        raise InputError(f"{name}: its tokenizer has no chat template, and no end-of-text token to do without one")
    user = {"role": "user", "content": prompt.replace("{question}", QUESTION).replace("{thoughts}", THOUGHTS)}
    assistant = {"role": "assistant", "content": TARGET}
    what = "worked examples before a question (--num_fewshot)" if earlier else "a question and an answer"

    def rendered(messages, opened):
        return render(tokenizer, [*earlier, *messages], opened, date_string, what)

    unopened, opened = rendered([user], opened=False), rendered([user], opened=True)
    turn = unopened.rstrip()  # ends with the end-of-turn marker
    closed = rendered([user, assistant], opened=False).rstrip()
    if eos and not opened.startswith(turn):  # Phi 3.5 writes eos behind every text without a generation prompt
        turn, closed = (text.removesuffix(eos).rstrip() for text in (turn, closed))
    sentinels = [mark for mark in (QUESTION, THOUGHTS) if mark in user["content"]]
    kept = closed.count(TARGET) == 1 and all(opened.count(mark) == turn.count(mark) == 1 for mark in sentinels)
    if not kept or not opened.startswith(turn):
        raise InputError(f"{name}: its chat template does not render a plain question and answer")
    answered, end = closed.split(TARGET)
    if not answered.startswith(opened):
        raise InputError(f"{name}: its chat template opens another turn for an answer than it writes one in")
    if unopened == opened:  # the template opens no answer (Mistral), or opens one after every text
        following = rendered([user, assistant, {"role": "user", "content": WORD}], opened=False).split(TARGET)[1]
        if not following.startswith(end):
            raise InputError(f"{name}: its chat template opens an answer after every text, asked for or not")
    if not (end or eos):
        raise InputError(f"{name}: its chat template ends no answer, and its tokenizer has no end-of-text token")
    before, suffix = opened.split(QUESTION)
    check_turns(name, before, earlier)
    after, suffix = suffix.split(THOUGHTS) if THOUGHTS in sentinels else ("", suffix)
    return ChatLayout(before, after, suffix, opened.removeprefix(turn), answered.removeprefix(opened), end or eos)


def check_turns(name: str, text: str, messages: Sequence[dict[str, str]]) -> None:
    """InputError where a rendered text has not the contents of all messages in it, one behind the other."""
    for message in messages:
        _, found, text = text.partition(message["content"].strip())
        if not found:
            raise InputError(f"{name}: its chat template leaves out or changes worked examples (--num_fewshot)")


def step_openings(tokenizer, prompt: str, layout: ChatLayout, count: int, date_string: str) -> list[str]:
    """What the chat template writes before each of `count` steps, when each is an assistant's turn of its own behind
    the question's turn (`prompt`, of which `layout` is chat_layout). Every step's turn ends with layout.end.

    Raises InputError when the template takes no such turns, or ends them otherwise.
    """
    if not count:
        return []
    user = {"role": "user", "content": prompt.replace("{question}", QUESTION)}
    turns = count * [{"role": "assistant", "content": TARGET}]
    whole = render(tokenizer, [user, *turns], False, date_string, "a turn for each step (--steps_as_turns)")
    first, *others = whole.split(TARGET)
    turn = layout.before + QUESTION + layout.suffix.removesuffix(layout.header)
    if len(others) != count or not first.startswith(turn) or not all(text.startswith(layout.end) for text in others):
        name = tokenizer.name_or_path
        raise InputError(f"{name}: its chat template does not end a turn for each step alike (--steps_as_turns)")
    return [first.removeprefix(turn), *(text.removeprefix(layout.end) for text in others[:-1])]


def encode(tokenizer, text: str) -> list[int]:
    """Token ids of a piece of rendered text, without special tokens around it."""
    return tokenizer(text, add_special_tokens=False).input_ids


def encode_in_text(tokenizer, pieces: list[tuple[str, str]]) -> list[list[int]]:
    """Token ids of pieces inside a text, each given as (text before it, piece): some tokenizers put a space before
    every text. Raises InputError where the tokenizer merges a piece with the text before it."""
    if not pieces:
        return []
    starts = list(dict.fromkeys(before for before, _ in pieces))
    ids = tokenizer(starts + [before + piece for before, piece in pieces], add_special_tokens=False).input_ids
    start_ids = dict(zip(starts, ids, strict=False))
    rows = []
    for (before, piece), row in zip(pieces, ids[len(starts) :], strict=True):
        start = start_ids[before]
        if row[: len(start)] != start:
            raise InputError(f"{tokenizer.name_or_path}: its tokenizer merges {piece!r:.40} with the text before it")
        rows.append(row[len(start) :])
    return rows


def pad_token_id(tokenizer) -> int:
    """The padding token's id, else the end-of-text token's. InputError for a tokenizer with neither."""
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: its tokenizer has neither a padding nor an end-of-text token")
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


class Layout:
    """Example -> token ids of the LLM's and of the generator's input (lists of ints, no padding).

    generator_tokenizer: of the small LM, or of the large LLM where the generator has no small LM; None: no thoughts and
    no slots. separator: stands between the steps of a solution and before its answer line. steps_as_turns: the
    generator reads each written step as a turn of its own (published), which ends with the end-of-turn marker; else one
    behind the other in one turn. The question's turn ends with its marker in any case, if the template has one there:
    PLAIN_TEMPLATE has none. worked_examples: turns of the LLM's prompt before the question's; the generator does not
    read them.
    Raises InputError as chat_layout does, and for a tokenizer without a fast version.
    """

    def __init__(
        self,
        llm_tokenizer,
        generator_tokenizer,
        prompts: dict[str, str],
        date_string: str = DATE_STRING,
        separator: str = "\n",
        steps_as_turns: bool = False,
        worked_examples: Sequence[WorkedExample] = (),
    ):
        self.worked_examples = list(worked_examples)
        self.steps_as_turns, self.date_string, self.generator_prompt = steps_as_turns, date_string, prompts["generator"]
        self.llm_tokenizer, self.generator_tokenizer, self.separator = llm_tokenizer, generator_tokenizer, separator
        tokenizers = [llm_tokenizer]
        if generator_tokenizer is not None and generator_tokenizer is not llm_tokenizer:
            tokenizers.append(generator_tokenizer)
        for tokenizer in tokenizers:
            if not tokenizer.is_fast:
                raise InputError(f"{tokenizer.name_or_path}: its tokenizer has no fast version (tokenizers library)")
            if tokenizer.chat_template is None:
                print(f"note: {tokenizer.name_or_path} has no chat template: plain question and answer layout")
        self.marked = copy.deepcopy(llm_tokenizer.backend_tokenizer)
        self.marked.no_truncation()
        self.marked.no_padding()
        self.mark: int | None = None  # id of the token in the place of the thoughts
        prompt = prompts["problem"]
        if generator_tokenizer is not None:
            self.marked.add_special_tokens([AddedToken(THOUGHTS, special=True, normalized=False)])
            self.mark = self.marked.token_to_id(THOUGHTS)
            prompt += prompts["thoughts"]
            self.generator = chat_layout(generator_tokenizer, prompts["generator"], date_string)
            self.header: list[int] = []
            if not steps_as_turns:
                (self.header,) = encode_in_text(generator_tokenizer, [(self._turn(WORD), self.generator.header)])
        earlier = []
        for example in worked_examples:
            question = prompts["problem"].replace("{question}", example.question)
            earlier += [{"role": "user", "content": question}, {"role": "assistant", "content": example.target}]
        self.llm = chat_layout(llm_tokenizer, prompt, date_string, earlier)
        if self.llm.lead.strip():
            lead = repr(self.llm.lead)
            print(f"note: {llm_tokenizer.name_or_path}: answers begin with {lead}, as its chat template has it")

    def _turn(self, question: str) -> str:
        """The question's turn as the generator reads it."""
        return self.generator.before + question + self.generator.suffix.removesuffix(self.generator.header)

    def openings(self, examples: list[Example]) -> dict[int, list[str]]:
        """step_openings by the numbers of steps that the examples have; empty where steps are no turns."""
        counts = sorted({len(example.steps) for example in examples}) if self.steps_as_turns else []
        own = (self.generator_tokenizer, self.generator_prompt, self.generator)
        return {count: step_openings(*own, count, self.date_string) for count in counts}

    def _steps(self, examples: list[Example]) -> list[list[list[int]]]:
        """Token ids of each example's steps, as they stand behind the question's turn (and `header`)."""
        turn, openings = self._turn(WORD), self.openings(examples)
        pieces = []  # (text before, text), as encode_in_text takes them
        for example in examples:
            if self.steps_as_turns:
                before = turn
                for opening, step in zip(openings[len(example.steps)], example.steps, strict=True):
                    pieces.append((before, opening + step + self.generator.end))
                    before = WORD + self.generator.end
            else:
                # the line break between two steps belongs to the second: a step ends with a token of its own words
                opened = turn + self.generator.header
                pieces += [(opened, self.generator.lead + step) for step in example.steps[:1]]
                pieces += [(WORD, self.separator + step) for step in example.steps[1:]]
        ids = iter(encode_in_text(self.generator_tokenizer, pieces))
        return [[next(ids) for _ in example.steps] for example in examples]

    def _conversations(self, pairs: list[tuple[str, str]]) -> list[list[int]]:
        """Token ids of the LLM's prompt and answer, of each (question, answer or ""), `mark` in the thoughts' place."""
        llm, thoughts = self.llm, "" if self.mark is None else THOUGHTS
        texts = [llm.before + question + llm.after + thoughts + llm.suffix + answer for question, answer in pairs]
        rows = [encoding.ids for encoding in self.marked.encode_batch_fast(texts, add_special_tokens=False)]
        for (question, _), ids in zip(pairs, rows, strict=True):
            if self.mark is not None and ids.count(self.mark) != 1:
                raise InputError(f"{question!r:.60}: this row has the very characters that stand for the thoughts")
        return rows

    def prompts(self, questions: list[str]) -> list[dict[str, list[int]]]:
        """Of each question `prefix` and `suffix` (LLM), and `question` (generator: the question's whole turn).

        Raises InputError for a question with the characters that stand for the thoughts.
        """
        conversations = self._conversations([(question, "") for question in questions])
        if self.mark is None:
            return [{"prefix": ids, "suffix": []} for ids in conversations]
        turns = [self._turn(question) for question in questions]
        turns = self.generator_tokenizer(turns, add_special_tokens=False).input_ids
        rows = []
        for ids, turn in zip(conversations, turns, strict=True):
            cut = ids.index(self.mark)
            rows.append({"prefix": ids[:cut], "suffix": ids[cut + 1 :], "question": turn})
        return rows

    def prompt(self, question: str) -> dict[str, list[int]]:
        """`prompts` of one question."""
        return self.prompts([question])[0]

    def training_rows(self, examples: list[Example]) -> list[dict[str, list]]:
        """`prompts`, and `target` (with the end of turn), `answer` (LLM); `header`, `steps` where there is a generator
        (with steps_as_turns the header is empty, and each of the steps is a whole turn).

        With many examples at once the tokenizers use all cores. Raises InputError as `prompts` does, and where an
        answer changes the tokens of the prompt before it.
        """
        rows = self.prompts([example.question for example in examples])
        targets = [target_text(example, self.separator) for example in examples]
        pairs = [
            (example.question, self.llm.lead + target + self.llm.end)
            for example, target in zip(examples, targets, strict=True)
        ]
        mark = [] if self.mark is None else [self.mark]
        for row, target, whole in zip(rows, targets, self._conversations(pairs), strict=True):
            prompt = row["prefix"] + mark + row["suffix"]
            if whole[: len(prompt)] != prompt:
                name = self.llm_tokenizer.name_or_path
                raise InputError(f"{name}: its tokenizer merges the end of the prompt with the answer {target!r:.40}")
            row["target"] = whole[len(prompt) :]
        if self.mark is not None:
            for row, steps in zip(rows, self._steps(examples), strict=True):
                row |= {"header": self.header, "steps": steps}
        answers = encode_in_text(self.llm_tokenizer, [(WORD + "\n", example.answer) for example in examples])
        for row, answer in zip(rows, answers, strict=True):
            row["answer"] = answer
        return rows

    def training(self, example: Example) -> dict[str, list]:
        """`training_rows` of one example."""
        return self.training_rows([example])[0]
