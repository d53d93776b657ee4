"""Prompts: the pieces are the chat template's own text, every position follows from construction, nothing is lost."""

import copy

import pytest
import torch
from conftest import SHARED

from data_loader import DATE_STRING, PROMPTS, Example, InputError, parse_gsm8k
from layout import Layout, PromptCollator, TrainingCollator, answer_line, chat_layout, loss_counts

EXAMPLES = [
    Example(0, "Mia has 12 pens and buys 7 more. How many has she?", ("12 + 7 = 19 pens.", "So she has 19."), "19"),
    Example(1, "How many?", (), "-3.5"),
    Example(2, "Tom reads 8 pages a day for 5 days.", ("He reads 8 * 5 = 40 pages.",), "40"),
]
ODD = "Odd “marks” – {question} {thoughts} {0} %s <b>&amp;</b> \\frac{1}{2} $5\t50% ½ 日本語 😀 e\u0301 \ue000x\ue001?"
END_OF_TURN = {
    "own": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_instruct_2507": "<|im_end|>",
    "qwen2_5": "<|im_end|>",
    "qwen3_6": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "llama3_2": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
}


def with_template(tokenizer, template):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template, tokenizer.bos_token = template, "<|endoftext|>"
    return tokenizer


@pytest.fixture(params=END_OF_TURN)
def templated(request, tiny_models):
    """(LLM tokenizer, small tokenizer, end of turn) for our own template and, where ../shared is, for real ones."""
    name, tokenizers = request.param, (tiny_models.llm_tokenizer, tiny_models.small_tokenizer)
    if name != "own":
        path = SHARED / "chat_templates" / f"{name}.jinja"
        if not path.is_file():
            pytest.skip(f"{path} is not here")
        tokenizers = [with_template(tokenizer, path.read_text(encoding="utf-8")) for tokenizer in tokenizers]
    return *tokenizers, END_OF_TURN[name]


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def text(tokenizer, tokens):
    return tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def conversation(tokenizer, user, assistant=None):
    """The whole conversation as the template writes it, up to the end of the last turn."""
    messages = [{"role": "user", "content": user}]
    if assistant is not None:
        messages.append({"role": "assistant", "content": assistant})
    return tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=assistant is None,
        enable_thinking=False,
        date_string=DATE_STRING,
    )


def test_pieces_are_the_whole_conversation_with_the_slots_cut_out(templated):
    llm, small, _ = templated
    layout = Layout(llm, small, PROMPTS["number"])
    for example in EXAMPLES:
        row = layout.training(example)
        user = PROMPTS["number"]["problem"] + PROMPTS["number"]["thoughts"]
        user = user.replace("{question}", example.question).replace("{thoughts}", "CUT")
        before, after = conversation(llm, user, "\n".join((*example.steps, answer_line(example.answer)))).split("CUT")
        assert row["prefix"] == ids(llm, before)
        assert row["suffix"] + row["target"] == ids(llm, after.rstrip())
        # evaluation's prompt is the same, and it is what the template gives to generate from
        prompt = layout.prompt(example.question)
        assert prompt == {name: row[name] for name in ("prefix", "suffix", "question")}
        assert [prompt["prefix"], prompt["suffix"]] == [ids(llm, part) for part in conversation(llm, user).split("CUT")]


def test_the_target_is_steps_answer_and_end_of_turn(templated):
    llm, small, end = templated
    row = Layout(llm, small, PROMPTS["number"]).training(EXAMPLES[0])
    assert text(llm, row["target"]) == f"12 + 7 = 19 pens.\nSo she has 19.\nThe answer is \\boxed{{19}}.{end}"
    assert text(llm, row["answer"]) == "19"


def test_the_generator_reads_the_question_turn_up_to_its_end_marker(templated):
    llm, small, end = templated
    row = Layout(llm, small, PROMPTS["number"]).training(EXAMPLES[0])
    user = PROMPTS["number"]["generator"].replace("{question}", EXAMPLES[0].question)
    turn = text(small, row["question"])
    assert turn.endswith(end) and turn + text(small, row["header"]) == conversation(small, user)


def test_without_thoughts_the_prompt_is_the_plain_chat_prompt(templated):
    llm, _, _ = templated
    prompt = Layout(llm, None, PROMPTS["number"]).prompt("How many?")
    user = PROMPTS["number"]["problem"].replace("{question}", "How many?")
    assert prompt == {"prefix": ids(llm, conversation(llm, user)), "suffix": []}
    batch = PromptCollator(Layout(llm, None, PROMPTS["number"]))([prompt, prompt])
    assert batch["suffix_ids"].shape == (2, 0) and "question_ids" not in batch


def test_odd_characters_of_a_question_survive(templated):
    llm, small, end = templated
    layout = Layout(llm, small, PROMPTS["number"])
    prompt, plain = layout.prompt(ODD), layout.prompt("plain")
    assert text(llm, prompt["prefix"]) == text(llm, plain["prefix"]).replace("plain", ODD)
    assert text(small, prompt["question"]) == text(small, plain["question"]).replace("plain", ODD)
    assert prompt["suffix"] == plain["suffix"]


def test_templates_that_print_the_date_get_the_fixed_one(tiny_models):
    dated = (
        "{{ 'Today: ' + (date_string or strftime_now('%d %b %Y')) + '\n' }}" + tiny_models.llm_tokenizer.chat_template
    )
    layout = Layout(with_template(tiny_models.llm_tokenizer, dated), None, PROMPTS["number"])
    assert text(layout.llm_tokenizer, layout.prompt("How many?")["prefix"]).startswith(f"Today: {DATE_STRING}\n")


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{% for m in messages %}{{ m.role }}{% endfor %}",  # drops the texts
        "{% for m in messages %}{{ m.content }}{{ m.content }}|{% endfor %}",  # repeats them
        "{% for m in messages %}{{ m.content | upper }}|{% endfor %}",  # changes them
    ],
)
def test_a_template_that_does_not_keep_its_texts_is_refused_in_one_line(tiny_models, template):
    with pytest.raises(InputError, match="template") as error:
        chat_layout(with_template(tiny_models.llm_tokenizer, template), "{question} {thoughts}")
    assert "\n" not in str(error.value)


def test_mark_up_is_gone_from_steps_and_targets(tiny_models):
    answer = "How many? ** 6 - 2 = <<6-2=4>>4 left.\n\n He pays $<<4*3=12>>12. \n#### 1,200"
    question, steps, gold = parse_gsm8k({"question": " Who?\n", "answer": answer})
    assert (question, steps, gold) == ("Who?", ["How many? 6 - 2 = 4 left.", "He pays $12."], "1200")
    row = tiny_models.layout.training(Example(0, question, tuple(steps), gold))
    target = text(tiny_models.llm_tokenizer, row["target"])
    assert target == "How many? 6 - 2 = 4 left.\nHe pays $12.\nThe answer is \\boxed{1200}.<|im_end|>"


# ---------------------------------------------------------------------------------------------------------------------
# Batches


@pytest.fixture(scope="module")
def rows(tiny_models):
    return [tiny_models.layout.training(example) for example in EXAMPLES]


def test_training_batches_put_every_token_where_its_column_says(tiny_models, rows):
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


def test_step_ends_are_the_last_tokens_of_the_steps(tiny_models, rows):
    batch = TrainingCollator(tiny_models.layout, steps=True)(rows)
    assert batch["step_valid"].tolist() == [[True, True], [False, False], [True, False]]
    header = text(tiny_models.small_tokenizer, rows[0]["header"])
    for i, example in enumerate(EXAMPLES):
        for m in range(len(example.steps)):
            end = batch["step_ends"][i, m]
            read = text(tiny_models.small_tokenizer, batch["step_ids"][i, : end + 1])
            assert read == header + "\n".join(example.steps[: m + 1])
            assert batch["step_mask"][i, end] == 1
    assert batch["step_ends"][~batch["step_valid"]].eq(0).all()


def test_loss_counts_are_target_tokens_rows_and_rows_with_steps(tiny_models, rows):
    tokens = sum(len(row["target"]) for row in rows)
    assert loss_counts(TrainingCollator(tiny_models.layout, steps=True)(rows)).tolist() == [tokens, 3, 2]
    assert loss_counts(TrainingCollator(tiny_models.layout, steps=False)(rows)).tolist() == [tokens, 3, 0]


def test_evaluation_batches_are_left_padded_throughout(tiny_models):
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


def test_a_tokenizer_that_puts_a_space_before_every_text_is_refused(tiny_models):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"\u2581a": 0, "\u2581<unk>": 1}, unk_token="\u2581<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    spaced = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=tiny_models.llm_tokenizer.chat_template)
    with pytest.raises(InputError, match="puts a space before every text"):
        chat_layout(spaced, "{question}")
