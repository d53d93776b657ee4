"""inspection.py: nearest words, distances, attention on the thoughts, exchanged thoughts, the files."""

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import sampled
from transformers import AutoModelForCausalLM

from lta_thinker.common import InputError
from lta_thinker.evaluation import inspection
from lta_thinker.evaluation.inspection import (
    DRAWING_FILES,
    INSPECTION_FILE,
    answer_losses,
    attention_mass,
    eager_attention,
    greedy_answers,
    inspect_thoughts,
    make_thoughts,
    name_rows,
    nearest_rows,
    print_inspection,
    table_distance,
)
from lta_thinker.generation.prompts import PromptEmbedder, make_requests
from lta_thinker.generation.samplers import decode_texts, greedy_settings
from lta_thinker.generation.sampling import Sample
from lta_thinker.llm.frozen import LmSource, load_frozen_lm
from lta_thinker.model import GENERATORS, Design, LatentThoughtModel, Models, llm_inputs
from lta_thinker.rows.examples import Example

N = 3
EXAMPLES = [
    Example(7, "Mia has 12 pens and buys 7 more. How many has she?", (), "19"),
    Example(8, "How many?", (), "3"),
    Example(9, "Tom reads 8 pages a day for 5 days.", (), "40"),
]


def test_word_thought_has_distance_zero(tiny_models, monkeypatch):
    """A thought that is a row of the embedding table has this row's word as its nearest, at cosine 1 and distance 0."""
    monkeypatch.setattr(inspection, "ROWS_AT_A_TIME", 64)  # the table in several chunks
    llm, tokenizer = tiny_models.llm, tiny_models.llm_tokenizer
    table = llm.get_input_embeddings().weight
    rows = [0, 1, 5, 70, len(table) - 1]
    ids, cosines = nearest_rows(llm, 3 * table[rows])  # the length is nothing to a cosine
    words = name_rows(tokenizer, ids, cosines)
    assert [slot[0]["row"] for slot in words] == rows
    assert [slot[0]["word"] for slot in words] == [tokenizer.decode([row]) for row in rows]
    assert [slot[0]["cosine"] for slot in words] == pytest.approx([1] * len(rows))
    figures, norms = table_distance(llm, table[rows])
    assert figures["nearest_row"] == {"mean": 0, "min": 0, "max": 0} and figures["outside"] == 0
    torch.testing.assert_close(norms, table.norm(dim=-1))


def test_distances_cover_the_whole_table(tiny_models, monkeypatch):
    """Distances and the range of the features are those of the whole embedding table, though it is read in parts."""
    monkeypatch.setattr(inspection, "ROWS_AT_A_TIME", 64)
    llm = tiny_models.llm
    table = llm.get_input_embeddings().weight
    vectors = table[:2].clone()
    vectors[0, :4] = table[:, :4].max(0).values + 1  # 4 of 2 x 32 features
    figures, _ = table_distance(llm, vectors)
    assert figures["outside"] == pytest.approx(4 / vectors.numel())
    lengths = vectors.norm(dim=-1)
    expected = {"mean": lengths.mean().item(), "min": lengths.min().item(), "max": lengths.max().item()}
    assert figures["thought_norm"] == pytest.approx(expected)
    assert figures["nearest_row"]["max"] == pytest.approx((vectors[0] - table).norm(dim=-1).min().item())
    between = (table[:, None] - table).norm(dim=-1).fill_diagonal_(torch.inf).min(1).values
    assert figures["nearest_row_of_rows"] == pytest.approx(between.median().item(), rel=1e-5)


def test_attention_mass_matches_eager_forward(tiny_models, tiny_pair):
    """The attention on the thoughts is that of a plain eager forward, layer by layer, beside that of uniform
    attention."""
    llm, layout = tiny_models.llm, tiny_models.layout
    eager = AutoModelForCausalLM.from_pretrained(tiny_pair / "large", attn_implementation="eager").eval()
    models, answer = tiny_models.models("small_block", num_thoughts=N), [40, 41, 42]
    requests, embed = make_requests(layout, EXAMPLES), PromptEmbedder(models, num_chains=1)
    thoughts = make_thoughts(models, requests, 2)[0]
    with eager_attention(llm):
        mass, uniform = attention_mass(embed, requests[0], thoughts, answer)
    prompt, embed = layout.prompt(EXAMPLES[0].question), eager.get_input_embeddings()
    before, after = (embed(torch.tensor(prompt[name])) for name in ("prefix", "suffix"))
    written = torch.cat([before, thoughts, after, embed(torch.tensor(answer))])
    with torch.no_grad():
        layers = eager(inputs_embeds=written[None], output_attentions=True).attentions
    start, width = len(before), len(written)
    queries = range(width - len(answer) - 1, width)  # the prompt's last column writes the first token
    for layer, found in zip(layers, mass, strict=True):
        by_hand = [layer[0, :, query, start : start + N].sum() / len(layer[0]) for query in queries]
        assert found == pytest.approx(float(sum(by_hand) / len(by_hand)), abs=1e-5)
    expected = sum(N / (query + 1) for query in queries) / len(queries)
    assert uniform == pytest.approx([expected] * len(layers))


def test_attention_implementation_is_restored(tiny_models):
    """After the inspection the LLM has its own attention implementation again, also after an error."""
    llm = tiny_models.llm
    own = llm.config._attn_implementation
    assert own != "eager"
    with pytest.raises(InputError, match="attention weights"), eager_attention(llm):
        assert llm.config._attn_implementation == "eager"
        raise InputError("no attention weights")
    assert llm.config._attn_implementation == own


class SaysItsQuestion:
    """A thought model whose thoughts of question i are i in every feature."""

    design, num_thoughts, generator = Design(), N, SimpleNamespace(num_marks=0)

    def __init__(self, llm):
        self.llm, self.made = llm, 0

    def chain_thoughts(self, question_ids, question_mask):
        values = torch.arange(self.made, self.made + len(question_ids)).float()
        self.made += len(question_ids)
        return None, values[:, None, None, None].expand(-1, 1, N, self.llm.config.hidden_size)

    def inputs(self, batch, thoughts):
        return llm_inputs(self.llm, batch, thoughts)

    def target_losses(self, batch, thoughts):
        """The loss of a target token is what the thoughts in its row's prompt are."""
        assert thoughts.shape[1:3] == (1, 2)
        return thoughts[:, 0, 0, 0][batch["target_rows"]]


@pytest.mark.parametrize("gold, right", [("012", "own"), ("120", "swapped")])
def test_exchanged_thoughts_decide_answers(no_drawing, tiny_models, tmp_path, monkeypatch, gold, right):
    """Own, swapped, mean and zero thoughts each get the answers that these thoughts give."""

    def say_the_thought(llm, settings, stop_ids, requests, embed, batch_size):
        """The answer is what stands in every feature of a prompt's columns: there are two thoughts, and all alike."""
        for request in reversed(requests):
            inputs = embed([request])
            (row,), (mask,) = inputs["inputs_embeds"], inputs["attention_mask"]
            said = row[(mask == 1) & (row == row[:, :1]).all(-1)][:, 0]
            assert len(said) == 2 and len(set(said.tolist())) == 1
            tokens = tiny_models.llm_tokenizer(f"{said[0]:g}").input_ids
            yield request, [Sample(tokens, len(tokens), True, 0.0)]

    monkeypatch.setattr(inspection, "decode", say_the_thought)
    examples = [Example(i, one.question, (), gold[i]) for i, one in enumerate(EXAMPLES)]
    llm = tiny_models.llm
    models = Models(llm, SaysItsQuestion(llm), tiny_models.layout)
    requests, settings = make_requests(tiny_models.layout, examples), greedy_settings(llm, None)
    figures = inspect_thoughts(models, requests, "number", 2, settings, batch_size=2, folder=tmp_path)
    accuracy = {name: found["value"] for name, found in figures["accuracy"].items()}
    expected = {"own": 0, "swapped": 0, "mean": pytest.approx(1 / 3), "zeros": pytest.approx(1 / 3)}
    assert accuracy == expected | {right: 1}
    assert figures["num_thoughts"] == 2
    a, b, c = (len(tiny_models.layout.training(example)["target"]) for example in examples)  # tokens
    losses = {"own": b + 2 * c, "swapped": a + 2 * b, "mean": a + b + c, "zeros": 0}
    assert figures["sft_loss"] == {name: pytest.approx(total / 3) for name, total in losses.items()}
    for name in ("swapped", "mean", "zeros"):
        found, rise = figures["information"][name], losses[name] - losses["own"]
        assert found["value"] == pytest.approx(rise / 3) and found["low"] <= rise / 3 <= found["high"]
        assert found["per_token"] == pytest.approx(rise / (a + b + c))


def test_own_thoughts_answer_as_in_evaluation(tiny_models):
    """With its own thoughts a question gets the answer of an evaluation."""
    models = tiny_models.models("small_block", num_thoughts=N)
    settings, requests = greedy_settings(models.llm, 8), make_requests(models.layout, EXAMPLES)
    thoughts = make_thoughts(models, requests, 2)
    answers = greedy_answers(PromptEmbedder(models, 1), requests, thoughts, settings, 2, "answers")
    evaluated = {example.index: text for example, _, [text] in sampled(models, EXAMPLES, settings, batch_size=3)}
    assert decode_texts(models.layout, answers) == [evaluated[example.index] for example in EXAMPLES]


def test_answer_losses_match_plain_loop(tiny_models, kind):
    """The SFT loss of a written answer behind the first two thoughts is that of the row alone, without padding and
    cache."""
    models = tiny_models.models(kind, num_thoughts=N)
    examples = [replace(one, steps=("So it is.",) * i) for i, one in enumerate(EXAMPLES)]
    requests, embed = make_requests(models.layout, examples), models.llm.get_input_embeddings()
    thoughts = make_thoughts(models, requests, 2)[:, :2]
    losses, tokens = answer_losses(PromptEmbedder(models, 1), requests, thoughts, batch_size=2)
    rows = models.layout.training_rows(examples)
    for row, own, loss in zip(rows, thoughts, losses.tolist(), strict=True):
        prefix, rest = (embed(torch.tensor(ids)) for ids in (row["prefix"], row["suffix"] + row["target"]))
        with torch.no_grad():
            logits = models.llm(inputs_embeds=torch.cat([prefix, own, rest])[None]).logits[0]
        target = torch.tensor(row["target"])
        plain = F.cross_entropy(logits[-len(target) - 1 : -1].double(), target, reduction="sum").item()
        assert loss == pytest.approx(plain, rel=1e-6, abs=1e-5)
    assert tokens == sum(len(row["target"]) for row in rows)


def test_inspection_writes_its_files(tiny_models, tiny_pair, kind, tmp_path, capsys, request):
    """The inspection writes its figures and its drawing, names the file, and leaves the LLM as it was, in bfloat16 (the
    tests above have float32). What is drawn hangs on no generator: one is drawn for real."""
    if kind != "small_block":
        request.getfixturevalue("no_drawing")
    dtype = torch.bfloat16
    llm, small_lm = (load_frozen_lm(LmSource(str(tiny_pair / name), "", dtype)) for name in ("large", "small"))
    model = LatentThoughtModel(kind, llm, small_lm if GENERATORS[kind].uses_small_lm else None, N, slot_id=0)
    models, own = Models(llm, model, tiny_models.layout_for(kind)), llm.config._attn_implementation
    folder, requests = tmp_path / "new" / "folder", make_requests(models.layout, EXAMPLES)
    figures = inspect_thoughts(models, requests, "number", N, greedy_settings(llm, 4), batch_size=2, folder=folder)
    assert json.loads((folder / INSPECTION_FILE).read_text()) == figures
    svg, png = (folder / name for name in DRAWING_FILES)
    assert svg.is_file() and png.is_file()
    if kind == "small_block":
        assert svg.read_text().rstrip().endswith("</svg>") and png.read_bytes()[1:4] == b"PNG"
    assert llm.config._attn_implementation == own
    assert figures["questions"] == [7, 8, 9]
    assert [len(slots) for slots in figures["nearest_words"]] == [N] * 3
    assert torch.tensor(figures["attention"]["mass"]).shape == (3, llm.config.num_hidden_layers)
    printed = capsys.readouterr().out
    assert str(folder / INSPECTION_FILE) in printed and printed.count("information") == 4

    def slot(row, *words):
        return [{"row": row + i, "word": word, "cosine": 0.9 - i / 10} for i, word in enumerate(words)]

    same, differ = [slot(5, "a", "b", "c"), slot(5, "a", "d", "e")], [slot(5, "a", "b"), slot(6, "f", "g")]
    print_inspection(figures | {"nearest_words": [same, differ, differ]})
    printed = capsys.readouterr().out
    thoughts, rows, near = (figures["table"][name]["mean"] for name in ("thought_norm", "row_norm", "nearest_row"))
    lengths, distances = (
        re.search(r" norm +(\S+) .*; of the rows (\S+) ", printed),
        re.search(r"nearest row +(\S+) ", printed),
    )
    assert lengths and distances
    assert [*lengths.groups(), distances[1]] == [f"{value:.3g}" for value in (thoughts, rows, near)]
    assert f"  [7] all {N}: 'a' 0.90; slot 1 then 'b' 0.80, 'c' 0.70\n  [8] 1: 'a' 0.90  2: 'f' 0.90\n" in printed


def test_single_question_has_no_exchange(no_drawing, tiny_models, tmp_path, capsys):
    """With one question there are no swapped and no mean thoughts, and a line says so."""
    models = tiny_models.models("small", num_thoughts=N)
    requests = make_requests(models.layout, EXAMPLES[:1])
    figures = inspect_thoughts(models, requests, "number", N, greedy_settings(models.llm, 4), 1, tmp_path)
    accuracy = figures["accuracy"]
    assert accuracy["swapped"] is accuracy["mean"] is None and accuracy["own"] and accuracy["zeros"]
    rises = figures["information"]
    assert rises["swapped"] is rises["mean"] is None and rises["zeros"]
    assert capsys.readouterr().out.count("there is no other question") == 2


def test_inspection_errors_are_one_line(tiny_models, tmp_path, monkeypatch):
    """An LLM that gives no attention weights is refused in one line, and so is a missing matplotlib, before anything is
    made."""
    models = tiny_models.models("small_block")
    requests = make_requests(models.layout, EXAMPLES)
    with pytest.raises(InputError, match="^--inspect: .* does not give its attention weights$"):
        attention_mass(PromptEmbedder(models, 1), requests[0], torch.zeros(N, 32), [])  # sdpa gives none
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="^matplotlib is needed .*pip install matplotlib$"):
        inspect_thoughts(models, requests, "number", N, greedy_settings(models.llm, 4), 1, tmp_path)  # first of all
