"""Layout: Example -> token ids (batch.py pads them).

The chat template is rendered once with sentinels in the text and split at them, so no position in a prompt is counted
by hand:

    LLM input         [ prefix (left-padded) | N thoughts | suffix + target (right-padded) ]
    generator input   [ question turn (left-padded) | N slots ]       coconut: the LLM's prefix, as it is
    focus loss only   [ question turn (left-padded) | header + steps (right-padded) ]
      as published    [ question turn (left-padded) | a turn for each step (right-padded) ]

The LLM's text is tokenised whole, with one special token in the place of the thoughts. So a tokenizer treats the start
of a text, spaces between words and the text after a special token as in the template's own conversation.

Text is text: no question, step, prompt or worked example is rendered, so none can change what a template writes, and
names of special tokens in them are plain text (tokens.py).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lta_thinker.common import InputError
from lta_thinker.rows.examples import Example
from lta_thinker.rows.tokens import THOUGHTS, Encoder

DATE_STRING = "26 Jul 2024"  # for templates that print today's date
USER, TARGET = "\ue000user\ue001", "\ue000target\ue001"  # what is rendered in the places of texts
# for LMs without a chat template: question, blank line, answer
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{{ '\n\n' if message.role == 'user' else eos_token }}{% endfor %}"
)
# some templates call this function for today's date, others use date_string
FIXED_DATE = "{% macro strftime_now(format) %}{{ date_string }}{% endmacro +%}"
ANY_SENTINEL = re.compile("\ue000[a-z0-9 ]+\ue001")
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
    def turn_end(self) -> str:
        """What ends the user turn and opens none: the suffix without the header."""
        return self.suffix.removesuffix(self.header)

    def map(self, change: Callable[[str], str]) -> "ChatLayout":
        """The layout with every text changed."""
        return ChatLayout(**{name: change(text) for name, text in vars(self).items()})


def chat_template(tokenizer) -> str:
    """The tokenizer's chat template, PLAIN_TEMPLATE where it has none."""
    return PLAIN_TEMPLATE if tokenizer.chat_template is None else tokenizer.get_chat_template()


def render(tokenizer, messages: list[dict[str, str]], opened: bool, date_string: str, what: str) -> str:
    """A conversation as chat_template writes it, `opened` for an answer or not. Raises InputError where the template
    fails on it; `what` names it there."""
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=FIXED_DATE + chat_template(tokenizer),
            tokenize=False,
            add_generation_prompt=opened,
            enable_thinking=False,
            date_string=date_string,
        )
    except Exception as error:  # a template is a program and can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{tokenizer.name_or_path}: its chat template fails on {what} ({reason})") from None


def around(text: str, sentinel: str) -> str:
    """A sentinel in a text's place, with the text's outer white space: some templates strip it."""
    stripped = text.strip()
    start = text.index(stripped)
    return text[:start] + sentinel + text[start + len(stripped) :]


def chat_layout(
    tokenizer,
    prompt: str,
    date_string: str = DATE_STRING,
    worked: Sequence[tuple[str, str]] = (),
    encoder: Encoder | None = None,
) -> ChatLayout:
    """`prompt` (with {question}, perhaps {thoughts}) as the user turn of the tokenizer's chat template, or of
    PLAIN_TEMPLATE where it has none. `worked`: (user's text, answer) of the turns before it. With an `encoder` what the
    template writes has aliases for special tokens, and the others' texts have not.

    Raises InputError when the template fails, changes the texts that it is given, or marks no end of an answer.
    """
    name, eos = tokenizer.name_or_path, tokenizer.eos_token
    if tokenizer.chat_template is None and eos is None:
        raise InputError(f"{name}: its tokenizer has no chat template, and no end-of-text token to do without one")
    by_template, by_user = (encoder.template, encoder.user) if encoder else (str, str)
    user = {"role": "user", "content": around(prompt, USER)}
    assistant = {"role": "assistant", "content": TARGET}
    earlier, shown = worked_turns(worked)
    what = "worked examples before a question (--num_fewshot)" if earlier else "a question and an answer"

    def rendered(messages, opened):
        return render(tokenizer, [*earlier, *messages], opened, date_string, what)

    unopened, opened = rendered([user], opened=False), rendered([user], opened=True)
    turn = unopened.rstrip()  # ends with the end-of-turn marker
    closed = rendered([user, assistant], opened=False).rstrip()
    if eos and not opened.startswith(turn):  # Phi 3.5 writes eos behind every text without a generation prompt
        turn, closed = (text.removesuffix(eos).rstrip() for text in (turn, closed))
    kept = closed.count(TARGET) == opened.count(USER) == turn.count(USER) == 1
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
    before, suffix = opened.split(USER)
    start = ""
    for sentinel, text in shown:
        if before.count(sentinel) != 1:
            raise InputError(f"{name}: its chat template leaves out or changes worked examples (--num_fewshot)")
        written, before = before.split(sentinel)
        start += by_template(written) + by_user(text)
    if ANY_SENTINEL.search(before):
        raise InputError(f"{name}: its chat template changes the order of worked examples (--num_fewshot)")
    head, after, tail = cut_prompt(prompt.strip())
    return ChatLayout(
        before=start + by_template(before) + by_user(head),
        after=by_user(after),
        suffix=by_user(tail) + by_template(suffix),
        header=by_template(opened.removeprefix(turn)),
        lead=by_template(answered.removeprefix(opened)),
        end=by_template(end or eos),
    )


def worked_turns(worked: Sequence[tuple[str, str]]) -> tuple[list[dict[str, str]], list[tuple[str, str]]]:
    """Messages with a sentinel in the place of every text, and the pairs (sentinel, text) in their order."""
    messages, shown = [], []
    for i, texts in enumerate(worked):
        for role, text in zip(("user", "assistant"), texts, strict=True):
            sentinel = f"\ue000{role} {i}\ue001"
            messages.append({"role": role, "content": around(text, sentinel)})
            shown.append((sentinel, text.strip()))
    return messages, shown


def cut_prompt(prompt: str) -> tuple[str, str, str]:
    """A prompt's text before the question, between question and thoughts ("" where it has no {thoughts}), and behind.
    InputError where it has not {question} once, and behind it {thoughts} once or not at all."""
    if prompt.count("{question}") != 1 or prompt.count("{thoughts}") > 1:
        raise InputError(f"a prompt must have {{question}} once, and {{thoughts}} at most once: {prompt!r:.80}")
    head, tail = prompt.split("{question}")
    if "{thoughts}" in head:
        raise InputError(f"a prompt must have {{thoughts}} behind {{question}}: {prompt!r:.80}")
    after, found, rest = tail.partition("{thoughts}")
    return (head, after, rest) if found else (head, "", tail)


def step_openings(tokenizer, layout: ChatLayout, count: int, date_string: str, encoder: Encoder) -> list[str]:
    """What the chat template writes before each of `count` steps, when each is an assistant's turn of its own behind
    the user's turn. Every step's turn ends with layout.end (`layout`: chat_layout with this encoder).

    Raises InputError when the template takes no such turns, or ends them otherwise.
    """
    if not count:
        return []
    turns = [{"role": "user", "content": USER}, *(count * [{"role": "assistant", "content": TARGET}])]
    what = "a turn for each step (--steps_as_turns)"
    whole = render(tokenizer, turns, False, date_string, what)
    alone = render(tokenizer, turns[:1], True, date_string, what)
    first, *others = whole.split(TARGET)
    start, found, behind = first.partition(USER)
    # without the prompt's own text, which `layout` has there
    behind, *others = (encoder.template(text) for text in (behind, *others))
    turn_end = encoder.template(alone.partition(USER)[2]).removesuffix(layout.header)
    alike = found and alone.startswith(start + USER) and behind.startswith(turn_end)
    if len(others) != count or not alike or not all(text.startswith(layout.end) for text in others):
        name = tokenizer.name_or_path
        raise InputError(f"{name}: its chat template does not end a turn for each step alike (--steps_as_turns)")
    return [behind.removeprefix(turn_end), *(text.removeprefix(layout.end) for text in others[:-1])]


def encode(tokenizer, text: str) -> list[int]:
    """Token ids of a piece of a template's text, without special tokens around it."""
    return tokenizer(text, add_special_tokens=False).input_ids


def encode_in_text(encoder: Encoder, pieces: list[tuple[str, str]]) -> list[list[int]]:
    """Token ids of pieces inside a text, each given as (text before it, piece): some tokenizers put a space before
    every text. Raises InputError where the tokenizer merges a piece with the text before it."""
    if not pieces:
        return []
    starts = list(dict.fromkeys(before for before, _ in pieces))
    ids = encoder.encode(starts + [before + piece for before, piece in pieces])
    start_ids = dict(zip(starts, ids, strict=False))
    rows = []
    for (before, piece), row in zip(pieces, ids[len(starts) :], strict=True):
        start = start_ids[before]
        if row[: len(start)] != start:
            raise InputError(f"{encoder.name}: its tokenizer merges {piece!r:.40} with the text before it")
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
    read them. names_in_text: names of special tokens in rows and prompts stand for the tokens (tokens.py).
    reads_prompt: the generator reads the LLM's prefix, worked examples and all, in the place of the question's turn.

    llm, generator: what stands around a question, as text; llm_ids, generator_ids: the tokens of it.
    Raises InputError as chat_layout and Encoder do.
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
        names_in_text: bool = False,
        reads_prompt: bool = False,
    ):
        self.worked_examples = list(worked_examples)
        self.steps_as_turns, self.date_string, self.names_in_text = steps_as_turns, date_string, names_in_text
        self.llm_tokenizer, self.generator_tokenizer, self.separator = llm_tokenizer, generator_tokenizer, separator
        self.reads_prompt = reads_prompt
        self.llm_encoder = self._encoder(llm_tokenizer)
        self.mark: int | None = None  # id of the token in the place of the thoughts
        prompt = prompts["problem"]
        if generator_tokenizer is not None:
            self.mark = self.llm_encoder.thoughts
            prompt += prompts["thoughts"]
            other = generator_tokenizer is not llm_tokenizer
            self.generator_encoder = self._encoder(generator_tokenizer) if other else self.llm_encoder
            # the layouts with aliases, as the encoders take them
            self._generator = chat_layout(
                generator_tokenizer, prompts["generator"], date_string, encoder=self.generator_encoder
            )
            self.generator = self._generator.map(self.generator_encoder.plain)
            self.generator_ids = {*self.generator_encoder.encode(["".join(vars(self._generator).values())])[0]}
            self.header: list[int] = []
            if not steps_as_turns:
                opened = [(self._turn(WORD), self._generator.header)]
                (self.header,) = encode_in_text(self.generator_encoder, opened)
        worked = [
            (prompts["problem"].replace("{question}", example.question), example.target) for example in worked_examples
        ]
        self._llm = chat_layout(llm_tokenizer, prompt, date_string, worked, self.llm_encoder)
        self.llm = self._llm.map(self.llm_encoder.plain)
        self.llm_ids = {*self.llm_encoder.encode(["".join(vars(self._llm).values())])[0]}
        if self.llm.lead.strip():
            lead = repr(self.llm.lead)
            print(f"note: {llm_tokenizer.name_or_path}: answers begin with {lead}, as its chat template has it")

    @property
    def digests(self) -> list[str | None]:
        """Encoder.digest of the large LLM's tokenizer and of the small LM's (None without one)."""
        small = self.generator_tokenizer is not None and self.generator_encoder is not self.llm_encoder
        return [self.llm_encoder.digest, self.generator_encoder.digest if small else None]

    def _encoder(self, tokenizer) -> Encoder:
        """The tokenizer's encoder."""
        if not tokenizer.is_fast:
            raise InputError(f"{tokenizer.name_or_path}: its tokenizer has no fast version (tokenizers library)")
        if tokenizer.chat_template is None:
            print(f"note: {tokenizer.name_or_path} has no chat template: plain question and answer layout")
        turn = chat_layout(tokenizer, "{question}", self.date_string)
        written = turn.before + WORD + turn.suffix + turn.lead + WORD + turn.end
        return Encoder(tokenizer, chat_template(tokenizer), written, self.names_in_text)

    def _turn(self, question: str) -> str:
        """The question's turn as the generator reads it."""
        return self._generator.before + self.generator_encoder.user(question) + self._generator.turn_end

    def openings(self, examples: list[Example]) -> dict[int, list[str]]:
        """step_openings by the numbers of steps that the examples have; empty where steps are no turns."""
        counts = sorted({len(example.steps) for example in examples}) if self.steps_as_turns else []
        own = (self.generator_tokenizer, self._generator)
        return {count: step_openings(*own, count, self.date_string, self.generator_encoder) for count in counts}

    def _steps(self, examples: list[Example]) -> list[list[list[int]]]:
        """Token ids of each example's steps, as they stand behind the question's turn (and `header`)."""
        turn, openings, user = self._turn(WORD), self.openings(examples), self.generator_encoder.user
        pieces = []  # (text before, text), as encode_in_text takes them
        for example in examples:
            if self.steps_as_turns:
                before = turn
                for opening, step in zip(openings[len(example.steps)], example.steps, strict=True):
                    pieces.append((before, opening + user(step) + self._generator.end))
                    before = WORD + self._generator.end
            else:
                # the line break between two steps belongs to the second: a step ends with a token of its own words
                opened = turn + self._generator.header
                pieces += [(opened, self._generator.lead + user(step)) for step in example.steps[:1]]
                pieces += [(WORD, self.separator + user(step)) for step in example.steps[1:]]
        ids = iter(encode_in_text(self.generator_encoder, pieces))
        return [[next(ids) for _ in example.steps] for example in examples]

    def _conversations(self, pairs: list[tuple[str, str]]) -> list[list[int]]:
        """Token ids of the LLM's prompt and answer, of each (question, answer or ""), `mark` in the thoughts' place. An
        answer is with its lead and end."""
        llm, thoughts, user = self._llm, "" if self.mark is None else THOUGHTS, self.llm_encoder.user
        texts = [llm.before + user(question) + llm.after + thoughts + llm.suffix + answer for question, answer in pairs]
        return self.llm_encoder.encode(texts)

    def prompts(self, questions: list[str]) -> list[dict[str, list[int]]]:
        """Of each question `prefix` and `suffix` (LLM), and `question` (generator: the question's whole turn).

        Raises InputError for a question with the characters that stand for special tokens here.
        """
        conversations = self._conversations([(question, "") for question in questions])
        if self.mark is None:
            return [{"prefix": ids, "suffix": []} for ids in conversations]
        turns = self.generator_encoder.encode([self._turn(question) for question in questions])
        rows = []
        for ids, turn in zip(conversations, turns, strict=True):
            cut = ids.index(self.mark)
            question = ids[:cut] if self.reads_prompt else turn
            rows.append({"prefix": ids[:cut], "suffix": ids[cut + 1 :], "question": question})
        return rows

    def prompt(self, question: str) -> dict[str, list[int]]:
        """`prompts` of one question."""
        return self.prompts([question])[0]

    def continuations(self, pairs: list[tuple[str, str]]) -> list[dict[str, list[int]]]:
        """`prompts` of the questions of pairs (question, text), each with `target`: the text's tokens as the start of
        an answer, without an end of turn. Raises InputError as `training_rows` does."""
        return self._with_targets(pairs, "")

    def _with_targets(self, pairs: list[tuple[str, str]], end: str) -> list[dict[str, list[int]]]:
        """`prompts` of the questions of pairs (question, answer), each with `target`: the answer's tokens and those of
        `end` behind it."""
        rows, mark = self.prompts([question for question, _ in pairs]), [] if self.mark is None else [self.mark]
        lead, user = self._llm.lead, self.llm_encoder.user
        wholes = self._conversations([(question, lead + user(answer) + end) for question, answer in pairs])
        for row, (_, answer), whole in zip(rows, pairs, wholes, strict=True):
            prompt = row["prefix"] + mark + row["suffix"]
            if whole[: len(prompt)] != prompt:
                name = self.llm_tokenizer.name_or_path
                raise InputError(f"{name}: its tokenizer merges the end of the prompt with the answer {answer!r:.40}")
            row["target"] = whole[len(prompt) :]
        return rows

    def training_rows(self, examples: list[Example]) -> list[dict[str, list]]:
        """`prompts`, and `target` (with the end of turn), `answer` (LLM); `header`, `steps` where there is a generator
        (with steps_as_turns the header is empty, and each of the steps is a whole turn).

        With many examples at once the tokenizers use all cores. Raises InputError as `prompts` does, and where an
        answer changes the tokens of the prompt before it.
        """
        targets = [(example.question, target_text(example, self.separator)) for example in examples]
        rows, user = self._with_targets(targets, self._llm.end), self.llm_encoder.user
        if self.mark is not None:
            for row, steps in zip(rows, self._steps(examples), strict=True):
                row |= {"header": self.header, "steps": steps}
        answers = encode_in_text(self.llm_encoder, [(WORD + "\n", user(example.answer)) for example in examples])
        for row, answer in zip(rows, answers, strict=True):
            row["answer"] = answer
        return rows

    def training(self, example: Example) -> dict[str, list]:
        """`training_rows` of one example."""
        return self.training_rows([example])[0]
