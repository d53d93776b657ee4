"""Prompts: the ids are the chat template's own conversation, every position follows from construction, nothing is lost.

Every minimal template of our own with every kind of tokenizer, every real one (where ../shared is) with one."""

import copy

import pytest
import torch
from helpers import OWN_TEMPLATES, SHARED, TOKENIZER_KINDS, family_tokenizer
from tokenizers import AddedToken
from transformers import ByT5Tokenizer

from lta_thinker.common import InputError
from lta_thinker.data_loader import PROMPTS, TASKS
from lta_thinker.rows.batch import PromptCollator, TrainingCollator, loss_counts
from lta_thinker.rows.examples import Example, parse_row
from lta_thinker.rows.layout import DATE_STRING, PLAIN_TEMPLATE, THOUGHTS, Layout, WorkedExample, answer_line

EXAMPLES = [
    Example(0, "Mia has 12 pens and buys 7 more. How many has she?", ("12 + 7 = 19 pens.", "So she has 19."), "19"),
    Example(1, "How many?", (), "-3.5"),
    Example(2, "Tom reads 8 pages a day for 5 days.", ("He reads 8 * 5 = 40 pages.",), "40"),
]
ODD = "Odd “marks” – {question} {thoughts} {0} %s <b>&amp;</b> \\frac{1}{2} $5\t50% ½ 日本語 😀 e\u0301 \ue000x\ue001?"
REAL_TEMPLATES = {  # in ../shared/chat_templates: end of turn, kind of tokenizer
    "qwen3": ("<|im_end|>", "byte_level"),
    "qwen3_instruct_2507": ("<|im_end|>", "metaspace"),
    "qwen2_5": ("<|im_end|>", "gemma"),
    "qwen3_6": ("<|im_end|>", "byte_level"),
    "llama3": ("<|eot_id|>", "byte_level"),
    "llama3_1": ("<|eot_id|>", "metaspace"),
    "llama3_2": ("<|eot_id|>", "legacy"),
    "gemma3": ("<end_of_turn>", "gemma"),
    "phi3_5": ("<|end|>", "legacy"),
}
TEMPLATED = [(name, kind) for kind in TOKENIZER_KINDS for name in OWN_TEMPLATES]
TEMPLATED += [(f"real {name}", kind) for name, (_, kind) in REAL_TEMPLATES.items()]


@pytest.fixture(scope="module", params=TEMPLATED, ids="-".join)
def templated(request):
    """(tokenizer with a chat template, the template's end of turn)."""
    given, tokenizer_kind = request.param
    name = given.removeprefix("real ")
    if name == given:
        template, end = OWN_TEMPLATES[name]
    else:
        path, end = SHARED / "chat_templates" / f"{name}.jinja", REAL_TEMPLATES[name][0]
        if not path.is_file():
            pytest.skip(f"{path} is not here")
        template = path.read_text(encoding="utf-8")
    return family_tokenizer(tokenizer_kind, template), end


ROUND = "{% for m in messages %}{{ m.content }}|{% endfor %}"


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def text(tokenizer, tokens):
    return tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def conversation(tokenizer, user, *answers, earlier=()):
    """Ids of the whole conversation as the template gives them, the answers one behind the other; open for an answer
    where there is none. earlier: messages before it."""
    messages = [{"role": "user", "content": user}, *({"role": "assistant", "content": text} for text in answers)]
    messages = [*earlier, *messages]
    template = PLAIN_TEMPLATE if tokenizer.chat_template is None else None
    settings = {"enable_thinking": False, "date_string": DATE_STRING, "return_dict": True}
    return tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=not answers, **settings
    )["input_ids"]


def assert_whole(tokenizer, got, whole):
    """`got` is the conversation up to the end of its last turn: what may follow is white space, Phi's end of text."""
    assert got == whole[: len(got)]
    assert text(tokenizer, whole[len(got) :]).strip() in ("", tokenizer.eos_token)


def target_text(example, separator="\n"):
    return separator.join((*example.steps, answer_line(example.answer)))


def user_text(question, thoughts=""):
    user = PROMPTS["number"]["problem"] + (PROMPTS["number"]["thoughts"] if thoughts else "")
    return user.replace("{thoughts}", thoughts).replace("{question}", question)


def test_prompt_and_target_follow_template(templated):
    """Prompt and target are the template's own conversation with one place for the thoughts. Evaluation's prompt is the
    same, and the user's tokenizer is not changed."""
    tokenizer, _ = templated
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"])
    marked = copy.deepcopy(tokenizer)
    marked.add_tokens([AddedToken(THOUGHTS, special=True, normalized=False)], special_tokens=True)
    mark = [marked.convert_tokens_to_ids(THOUGHTS)]
    for example in EXAMPLES:
        row, user = layout.training(example), user_text(example.question, THOUGHTS)
        whole = conversation(marked, user, target_text(example))
        assert whole.count(*mark) == 1
        assert_whole(tokenizer, row["prefix"] + mark + row["suffix"] + row["target"], whole)
        # evaluation's prompt is the same, and it is what the template gives to generate from
        prompt = layout.prompt(example.question)
        assert prompt == {name: row[name] for name in ("prefix", "suffix", "question")}
        assert prompt["prefix"] + mark + prompt["suffix"] == conversation(marked, user)
    assert THOUGHTS not in tokenizer.get_vocab(), "the user's tokenizer was changed"


def test_worked_examples_are_turns_before_the_question(templated):
    """Worked examples are the turns of the template's own conversation: a user's with the task's prompt, an assistant's
    with the target as it is trained. The generator does not read them."""
    tokenizer, _ = templated
    worked = [WorkedExample(example.question, target_text(example, "\n\n")) for example in EXAMPLES[:2]]
    earlier = []
    for example in worked:
        earlier += [{"role": "user", "content": user_text(example.question)}]
        earlier += [{"role": "assistant", "content": example.target}]
    bare = Layout(tokenizer, None, PROMPTS["number"], worked_examples=worked)
    row, user = bare.training(EXAMPLES[2]), user_text(EXAMPLES[2].question)
    whole = conversation(tokenizer, user, target_text(EXAMPLES[2]), earlier=earlier)
    assert row["prefix"] == conversation(tokenizer, user, earlier=earlier)
    assert_whole(tokenizer, row["prefix"] + row["target"], whole)
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"], worked_examples=worked)
    marked = copy.deepcopy(tokenizer)
    marked.add_tokens([AddedToken(THOUGHTS, special=True, normalized=False)], special_tokens=True)
    mark, row = [marked.convert_tokens_to_ids(THOUGHTS)], layout.training(EXAMPLES[2])
    user = user_text(EXAMPLES[2].question, THOUGHTS)
    assert row["prefix"] + mark + row["suffix"] == conversation(marked, user, earlier=earlier)
    zero = Layout(tokenizer, tokenizer, PROMPTS["number"]).training(EXAMPLES[2])
    same = ("suffix", "target", "question", "header", "steps", "answer")
    assert {name: row[name] for name in same} == {name: zero[name] for name in same}


REFUSALS = {  # what a template does with worked examples: what is said
    "{% if messages | length > 2 %}{{ raise_exception('one question only') }}{% endif %}": "fails on worked examples",
    "{% set messages = messages[-2 if messages[-1].role == 'assistant' else -1:] %}": "leaves out or changes worked",
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_templates_without_room_for_worked_examples_are_refused(fault):
    """A chat template that takes no earlier turns, or drops them, is refused in one line."""
    tokenizer = family_tokenizer("byte_level", fault + OWN_TEMPLATES["qwen2"][0])
    Layout(tokenizer, None, PROMPTS["number"])
    worked = [WorkedExample(example.question, target_text(example)) for example in EXAMPLES]
    with pytest.raises(InputError, match=rf"its chat template {REFUSALS[fault]}.*\(--num_fewshot\)") as error:
        Layout(tokenizer, None, PROMPTS["number"], worked_examples=worked)
    assert "\n" not in str(error.value)


def test_without_thoughts_conversation_is_plain(templated):
    """Without thoughts, prompt and target are the plain conversation of the template."""
    tokenizer, _ = templated
    layout = Layout(tokenizer, None, PROMPTS["number"])
    for example in EXAMPLES:
        row, user = layout.training(example), user_text(example.question)
        assert_whole(tokenizer, row["prefix"] + row["target"], conversation(tokenizer, user, target_text(example)))
        assert layout.prompt(example.question) == {"prefix": conversation(tokenizer, user), "suffix": []}
        assert row.keys() == {"prefix", "suffix", "target", "answer"}
    batch = PromptCollator(layout)([layout.prompt("How many?")] * 2)
    assert batch["suffix_ids"].shape == (2, 0) and "question_ids" not in batch


def test_generator_reads_the_templates_order(templated):
    """The generator reads the question's turn, the header and the steps in the order of the template's conversation."""
    tokenizer, end = templated
    for separator in ("\n", "\n\n"):
        layout = Layout(tokenizer, tokenizer, PROMPTS["number"], separator=separator)
        for example in EXAMPLES:
            row = layout.training(example)
            user = PROMPTS["number"]["generator"].replace("{question}", example.question)
            assert text(tokenizer, row["question"]).endswith(end or example.question)
            assert row["question"] + row["header"] == conversation(tokenizer, user)
            read = row["question"] + sum(row["steps"], row["header"])
            assert read == conversation(tokenizer, user, separator.join(example.steps))[: len(read)]
            for m, step in enumerate(row["steps"]):
                assert text(tokenizer, step).strip() == example.steps[m]


def test_steps_can_be_turns_themselves(templated):
    """With steps_as_turns the generator reads the template's own conversation, in which each step is an assistant's
    turn that ends with its end-of-turn marker. A template that takes no two such turns in a row is refused in one line.
    """
    tokenizer, end = templated
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"], steps_as_turns=True)
    plain = Layout(tokenizer, tokenizer, PROMPTS["number"])
    for example in EXAMPLES:
        user = PROMPTS["number"]["generator"].replace("{question}", example.question)
        try:
            whole = conversation(tokenizer, user, *example.steps)
        except Exception:  # roles must alternate
            with pytest.raises(InputError, match=r"fails on a turn for each step \(--steps_as_turns\)") as error:
                layout.training(example)
            assert "\n" not in str(error.value)
            continue
        row = layout.training(example)
        assert {**row, "steps": [], "header": []} == {**plain.training(example), "steps": [], "header": []}
        assert row["header"] == [] and text(tokenizer, row["question"]).endswith(end or example.question)
        if not example.steps:
            assert row["steps"] == []
            continue
        read = sum(row["steps"], row["question"])
        assert_whole(tokenizer, read, whole)
        marker = ids(tokenizer, "a" + layout.generator.end)[len(ids(tokenizer, "a")) :]
        for step, turn in zip(example.steps, row["steps"], strict=True):
            assert text(tokenizer, turn).count(step) == 1 and turn[-len(marker) :] == marker


def test_target_is_steps_answer_and_end(templated):
    """The target is the steps, the boxed answer and the end of turn."""
    tokenizer, _ = templated
    for separator in ("\n", "\n\n"):
        layout = Layout(tokenizer, tokenizer, PROMPTS["number"], separator=separator)
        row = layout.training(EXAMPLES[0])
        answer = f"12 + 7 = 19 pens.{separator}So she has 19.{separator}The answer is \\boxed{{19}}."
        end = layout.llm.end
        assert text(tokenizer, row["target"]).removeprefix(" ") == answer + end and end
        assert "".join(tokenizer.convert_ids_to_tokens(row["answer"])) == "19"  # no dummy space: it stands in a box


def test_odd_characters_of_questions_survive(templated):
    """Odd characters in a question, marks of our own prompts among them, come through unchanged."""
    tokenizer, _ = templated
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"])
    prompt, plain = layout.prompt(ODD), layout.prompt("plain")
    for name in ("prefix", "question"):
        assert text(tokenizer, prompt[name]) == text(tokenizer, plain[name]).replace("plain", ODD)
    assert prompt["suffix"] == plain["suffix"]


def test_tokenizer_truncation_cuts_nothing():
    """Truncation and padding that a tokenizer comes with change no prompt."""
    tokenizer = family_tokenizer("byte_level", OWN_TEMPLATES["qwen3"][0])
    rows = [Layout(tokenizer, None, PROMPTS["number"]).prompt(EXAMPLES[0].question)]
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=500)
    rows.append(Layout(tokenizer, None, PROMPTS["number"]).prompt(EXAMPLES[0].question))
    assert rows[0] == rows[1]


@pytest.mark.parametrize("date", ["{{ date_string }}", "{{ strftime_now('%d %b %Y') }}"])
def test_date_is_fixed_on_both_sides(date):
    """A template that prints a date prints the layout's own, for the LLM and for the generator."""
    tokenizer = family_tokenizer("byte_level", f"\nToday: {date} " + ROUND)
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"], "1 Jan 2000")
    assert layout.llm.before.startswith("\nToday: 1 Jan 2000 ")
    assert layout.generator.before.startswith("\nToday: 1 Jan 2000 ")


NEVER_ENDED = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{{ '<|assistant|>' if add_generation_prompt }}"
)


def test_unended_answer_ends_the_text():
    """Where the template does not end an answer, the target ends with the tokenizer's end of text."""
    layout = Layout(family_tokenizer("byte_level", NEVER_ENDED), None, PROMPTS["number"])
    assert layout.llm.end == "</s>"
    assert text(layout.llm_tokenizer, layout.training(EXAMPLES[0])["target"]).endswith("\\boxed{19}.</s>")


THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ '<think></think>' if m.role == 'assistant' }}{{ m.content }}|"
    "{% endfor %}"
    "{{ '<|assistant|><think>' if add_generation_prompt }}"
)


def test_text_before_answers_is_noted(capsys):
    """A template that writes more than white space before an answer is noted, and the target begins with that text."""
    layout = Layout(family_tokenizer("byte_level", THINKS), None, PROMPTS["number"])
    assert "answers begin with '</think>'" in capsys.readouterr().out
    assert text(layout.llm_tokenizer, layout.training(EXAMPLES[0])["target"]).startswith("</think>12 + 7")


def test_template_settings_reach_the_prompt():
    """Thinking is off, the template's system turn stands, and the date is fixed."""

    def opened(name):
        tokenizer = family_tokenizer("byte_level", OWN_TEMPLATES[name][0])
        layout = Layout(tokenizer, tokenizer, PROMPTS["number"])
        prompt = layout.prompt("How many?")
        return text(tokenizer, prompt["prefix"]), text(tokenizer, prompt["suffix"])

    assert opened("qwen3")[1] == "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert opened("qwen2")[0].startswith("<|im_start|>system\nYou answer questions.<|im_end|>\n<|im_start|>user\n")
    assert f"Today: {DATE_STRING}\n" in opened("llama3")[0]


@pytest.mark.parametrize(
    "template, reason",
    [
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "does not render"),  # drops the texts
        ("{% for m in messages %}{{ m.content }}{{ m.content }}|{% endfor %}", "does not render"),  # repeats them
        ("{% for m in messages %}{{ m.content | upper }}|{% endfor %}", "does not render"),  # changes them
        (ROUND + "{{ '<think>' if add_generation_prompt }}", "opens another turn"),  # as some reasoning models'
        (
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}|{% endfor %}<|assistant|>",
            "opens an answer after every",
        ),
        ("{{ messages[1].content.text }}" + ROUND, "UndefinedError"),
        ("{{ raise_exception('no\nway') }}" + ROUND, "TemplateError: no way"),
        ("{% for m in messages %}{{ m.content }}", "TemplateSyntaxError"),
    ],
)
def test_unusable_templates_are_refused(template, reason):
    """A template that drops, repeats or changes texts, opens other turns or fails is refused in one line."""
    with pytest.raises(InputError, match=f"template .*{reason}") as error:
        Layout(family_tokenizer("byte_level", template), None, PROMPTS["number"])
    assert "\n" not in str(error.value)


def test_missing_template_gives_plain_layout(capsys):
    """Without a chat template the layout is a plain question and answer, and a notice says so once a tokenizer. Without
    an end-of-text token it is refused."""
    tokenizer, other = family_tokenizer("byte_level", None), family_tokenizer("legacy", None)
    row = Layout(tokenizer, tokenizer, PROMPTS["number"]).training(EXAMPLES[0])
    assert capsys.readouterr().out.count("has no chat template: plain question and answer layout\n") == 1
    Layout(tokenizer, other, PROMPTS["number"])
    assert capsys.readouterr().out.count("note: ") == 2
    prompt = f"<s>{PROMPTS['number']['problem']}\n\nHint: ".replace("{question}", EXAMPLES[0].question)
    assert text(tokenizer, row["prefix"]) == prompt and text(tokenizer, row["suffix"]) == "\n\n"
    assert text(tokenizer, row["target"]) == target_text(EXAMPLES[0]) + "</s>"
    tokenizer.bos_token = None
    assert Layout(tokenizer, tokenizer, PROMPTS["number"]).prompt(EXAMPLES[0].question)["prefix"] == row["prefix"][1:]
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no chat template, and no end-of-text token"):
        Layout(tokenizer, None, PROMPTS["number"])


def test_impossible_tokenizers_are_refused():
    """A question with our own marks, a tokenizer without a fast version, and one that merges tokens across a border are
    refused."""
    tokenizer = family_tokenizer("byte_level", ROUND)
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"])
    with pytest.raises(InputError, match="the very characters that stand for special tokens"):
        layout.prompt(f"How {THOUGHTS}?")
    with pytest.raises(InputError, match="no fast version"):
        Layout(ByT5Tokenizer(), None, PROMPTS["number"])
    tokenizer.backend_tokenizer.add_tokens(["|1"])  # an open turn ends in |
    with pytest.raises(InputError, match="merges the end of the prompt with the answer '12 "):
        Layout(tokenizer, None, PROMPTS["number"]).training(EXAMPLES[0])
    with pytest.raises(InputError, match="merges '12 "):
        Layout(family_tokenizer("byte_level", ROUND), tokenizer, PROMPTS["number"]).training(EXAMPLES[0])


def test_markup_is_gone_from_targets(tiny_models):
    """GSM8K's mark-up is gone from question, steps and target."""
    answer = "How many? ** 6 - 2 = <<6-2=4>>4 left.\n\n He pays $<<4*3=12>>12. \n#### 1,200"
    question, steps, gold, _ = parse_row(TASKS["gsm8k"], {"question": " Who?\n", "answer": answer})
    assert (question, steps, gold) == ("Who?", ("How many? 6 - 2 = 4 left.", "He pays $12."), "1200")
    row = tiny_models.layout.training(Example(0, question, tuple(steps), gold))
    target = text(tiny_models.llm_tokenizer, row["target"])
    assert target == "How many? 6 - 2 = 4 left.\nHe pays $12.\nThe answer is \\boxed{1200}.<|im_end|>"


# ---------------------------------------------------------------------------------------------------------------------
# Batches


@pytest.fixture(scope="module")
def rows(tiny_models):
    return [tiny_models.layout.training(example) for example in EXAMPLES]


def test_training_batch_columns_are_right(tiny_models, rows):
    """In a training batch every token, mask and label stands in its column, padding is the tokenizer's own, and the
    question ends with its end of turn."""
    batch = TrainingCollator(tiny_models.layout, steps=True)(rows)
    for i, row in enumerate(rows):
        for name in ("prefix", "question"):  # left-padded: the last column is the last token
            assert batch[f"{name}_ids"][i, -len(row[name]) :].tolist() == row[name]
            assert (
                batch[f"{name}_mask"][i].sum() == len(row[name]) and batch[f"{name}_mask"][i, -len(row[name]) :].all()
            )
        for name, tokens in {"suffix": row["suffix"] + row["target"], "answer": row["answer"]}.items():
            assert batch[f"{name}_ids"][i, : len(tokens)].tolist() == tokens
            assert batch[f"{name}_mask"][i].sum() == len(tokens) and batch[f"{name}_mask"][i, : len(tokens)].all()
        asked = batch["labels"][i] != -100
        assert batch["labels"][i][asked].tolist() == row["target"] == batch["suffix_ids"][i][asked].tolist()
    # padding is what the tokenizers say it is
    for name in ("prefix", "question", "suffix", "answer", "step"):
        hidden = batch[f"{name}_ids"][batch[f"{name}_mask"] == 0]
        tokenizer = tiny_models.small_tokenizer if name in ("question", "step") else tiny_models.llm_tokenizer
        assert len(hidden) and (hidden == tokenizer.pad_token_id).all()
    assert (batch["question_ids"][:, -1] == tiny_models.small_tokenizer.eos_token_id).all(), "z_q: the end of the turn"


def test_step_ends_are_last_step_tokens(tiny_models, rows):
    """The step ends point to the last token of each step, and rows with fewer steps are marked."""
    batch = TrainingCollator(tiny_models.layout, steps=True)(rows)
    assert batch["step_valid"].tolist() == [[True, True], [False, False], [True, False]]
    header = text(tiny_models.small_tokenizer, rows[0]["header"])
    for i, example in enumerate(EXAMPLES):
        for m in range(len(example.steps)):
            end = batch["step_ends"][i, m]
            read = text(tiny_models.small_tokenizer, batch["step_ids"][i, : end + 1])
            assert read == header + "\n".join(example.steps[: m + 1])
            assert batch["step_mask"][i, end] == 1
    assert batch["step_ends"][~batch["step_valid"]].eq(-1).all()


def test_loss_counts_count_tokens_and_rows(tiny_models, rows):
    """The losses are counted over target tokens, rows, and rows with steps."""
    tokens = sum(len(row["target"]) for row in rows)
    assert loss_counts(TrainingCollator(tiny_models.layout, steps=True)(rows)).tolist() == [tokens, 3, 2, 3]
    assert loss_counts(TrainingCollator(tiny_models.layout, steps=False)(rows)).tolist() == [tokens, 3, 0, 3]


def test_evaluation_batches_are_left_padded(tiny_models):
    """In evaluation every part of a batch is padded on the left."""
    # suffixes are equal in practice; rows of different lengths show the side
    rows = [
        {"prefix": [5, 6], "suffix": [7], "question": [8, 9, 10]},
        {"prefix": [5], "suffix": [7, 8], "question": [9]},
    ]
    batch = PromptCollator(tiny_models.layout)(rows)
    assert batch["prefix_ids"].tolist() == [[5, 6], [0, 5]] and batch["prefix_mask"].tolist() == [[1, 1], [0, 1]]
    assert batch["suffix_ids"].tolist() == [[0, 7], [7, 8]] and batch["suffix_mask"].tolist() == [[0, 1], [1, 1]]
    assert batch["question_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_rows_without_steps_make_batch():
    """Rows without steps and header still make a batch, alone and among others."""
    tokenizer = family_tokenizer("metaspace", OWN_TEMPLATES["mistral"][0])
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"])
    rows = [layout.training(example) for example in EXAMPLES]
    assert rows[1]["header"] == rows[1]["steps"] == []
    batch = TrainingCollator(layout, steps=True)(rows[1:2] * 2)
    assert batch["step_ids"].shape == batch["step_mask"].shape == (2, 0)
    assert batch["step_ends"].tolist() == [[-1], [-1]] and not batch["step_valid"].any()
    batch = TrainingCollator(layout, steps=True)(rows)
    assert batch["step_ends"][:, 0].tolist() == [len(rows[0]["steps"][0]) - 1, -1, len(rows[2]["steps"][0]) - 1]
