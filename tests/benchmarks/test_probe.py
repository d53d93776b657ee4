"""The linear probe: which formulas have a class, what is read of an LM, that the probe is the convex problem's answer,
and its run."""

import json

import pytest
import torch
from helpers import EXAMPLES, write_jsonl

from benchmarks import probe
from lta_thinker.llm.forward import first_layers
from lta_thinker.rows.layout import Layout

ENDS = {
    "+": "are there altogether",
    "-": "are left then",
    "*": "do all boxes hold",
    "/": "does each friend get",
}


@pytest.mark.parametrize(
    ("formula", "sign"),
    [
        ("9+7=16", "+"),
        ("105 - 23 = 82", "-"),
        ("(3)*1.5=4.5", "*"),
        ("94/8=11 r6", "/"),
        ("11 (hour)*60 (min/hour) = 660 (min)", "*"),  # the / is the unit's
        ("99+99=198 cents", "+"),
        ("2+2+2=6", None),
        ("10-(3+2)=5", None),
        ("LCM[20,10,8]=40", None),
        ("GCD(32,80)=16; 80/16=5", None),
        ("x:The number; x+15=96", None),  # what is needed is a difference
        ("3^2*3.14=28.26", None),
        ("(7-3):10=20:50", None),
        ("-5+3=-2", None),
        ("10+x=20", None),
    ],
)
def test_formulas_of_one_operation_have_a_class(formula, sign):
    """A formula is classed where it is one operation on two numbers, and left out otherwise."""
    assert probe.operation([formula]) == sign


def test_several_steps_have_no_class():
    """Rows with no step or two are left out."""
    assert probe.operation([]) is None and probe.operation(["9+7=16", "16/2=8"]) is None


def test_states_are_those_of_the_first_layers(tiny_models):
    """In a padded batch a question's states of layer k are those of its first k layers and the last norm alone, at the
    turn's last token and as the mean over the question's own tokens."""
    lm, tokenizer = tiny_models.llm, tiny_models.llm_tokenizer
    layout = Layout(tokenizer, tokenizer, probe.PROMPTS["number"])
    questions = [example.question for example in EXAMPLES]
    rows = probe.prompt_rows(layout, questions)
    states = probe.read_states(lm, layout, rows, batch_size=2)
    for i, (row, question) in enumerate(zip(rows, questions, strict=True)):
        assert row["question"] == layout.prompt(question)["question"]
        own = torch.tensor(row["inside"]).bool()
        assert tokenizer.decode(torch.tensor(row["question"])[own]).strip() == question
        for layer in (1, 2):
            alone = first_layers(lm, layer)(torch.tensor([row["question"]])).last_hidden_state[0]
            torch.testing.assert_close(states["last_token"][layer, i], alone[-1], atol=1e-5, rtol=0)
            torch.testing.assert_close(states["question_mean"][layer, i], alone[own].mean(0), atol=1e-5, rtol=0)


def test_fit_is_the_least_of_the_penalised_loss():
    """At the fit the gradient of mean cross-entropy + penalty / 2 * |weight|^2, written out, is zero."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=random, dtype=torch.float64)
    labels = torch.randint(4, (60,), generator=random)
    weight, bias = probe.fit(features, labels, 0.1)
    misses = (features @ weight.T + bias).softmax(-1) - torch.eye(4, dtype=torch.float64)[labels]
    torch.testing.assert_close(misses.T @ features / 60 + 0.1 * weight, 0 * weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(misses.mean(0), 0 * bias, atol=1e-5, rtol=0)


def test_separable_states_are_told_apart_and_random_labels_are_not():
    """The probe gets all test rows of separable states, and about a quarter where labels are drawn: nothing of the test
    rows is in the fit."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (400,), generator=random)
    states = 8 * torch.eye(4)[labels] @ torch.randn(4, 20, generator=random) + torch.randn(400, 20, generator=random)
    figures, right = probe.probe(states[:200], labels[:200], states[200:], labels[200:])
    assert (
        figures["accuracy"]["value"] == figures["accuracy"]["high"] == 1 > figures["accuracy"]["low"] > 0.95
        and right.all()
    )
    drawn = torch.randint(4, (400,), generator=random)
    assert 0.1 < probe.probe(states[:200], drawn[:200], states[200:], drawn[200:])[0]["accuracy"]["value"] < 0.4


def write_asdiv(folder):
    """Rows of the four operations, told by their last words; every tenth train row has two operations."""
    for split, count in (("train", 100), ("test", 30)):
        rows = []
        for i in range(count):
            sign = "-+*/-"[i % 5]
            formula = f"{i + 9}{sign}3=1" if split == "test" or i % 10 < 9 else "2+2+2=6"
            question = f"Box {i} has {i + 9} pens and Tom 3. How many {ENDS[sign]}?"
            rows.append({"question": question, "answer": f"{formula}\n#### 1"})
        write_jsonl(folder / "asdiv" / f"{split}.jsonl", rows)


def test_differing_is_the_share_that_is_not_common():
    """Of states that all have a common part, `differing` is the rest's share of the mean square."""
    common, rest = torch.tensor([3.0, -1.0]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert probe.differing(common + rest) == pytest.approx(1 / 6)
    assert probe.differing(common.expand(3, 2)) == 0


def test_run_writes_all_figures(tiny_pair, tmp_path, capsys):
    """The run counts its rows, probes every layer at both places, and prints what it wrote. The last token's embedding
    is the same in all rows and gives the majority; words that tell the operation give 100 %."""
    write_asdiv(tmp_path)
    out = tmp_path / "probe.json"
    probe.main([str(tiny_pair / "large"), "--data_dir", str(tmp_path), "--batch_size", "7", "--out", str(out)])
    figures = json.loads(out.read_text())
    assert figures["train"] == {"rows": 90, "left_out": 10, "operations": {"+": 20, "-": 30, "*": 20, "/": 20}}
    assert figures["test"] == {"rows": 30, "left_out": 0, "operations": {"+": 6, "-": 12, "*": 6, "/": 6}}
    assert figures["majority"]["operation"] == "-" and figures["majority"]["accuracy"]["value"] == 12 / 30
    assert figures["token_counts"]["accuracy"]["value"] == 1.0
    layers = figures["layers"]
    assert [layer["layer"] for layer in layers] == [0, 1, 2]
    assert layers[0]["last_token"]["accuracy"] == figures["majority"]["accuracy"]
    assert layers[0]["last_token"]["over_counts"]["value"] == pytest.approx(12 / 30 - 1)
    assert layers[0]["question_mean"]["accuracy"]["value"] == 1.0
    assert layers[0]["last_token"]["differing"] < 1e-9 < layers[2]["last_token"]["differing"] < 1
    assert capsys.readouterr().out == probe.table(figures) + "\n"


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ("nowhere --data_dir DATA --out OUT", "model nowhere"),
        ("MODEL --data_dir nowhere --out OUT", "nowhere"),
        ("MODEL --data_dir DATA --out nowhere/x.json", "--out nowhere/x.json"),
        ("MODEL --data_dir DATA --batch_size 0 --out OUT", "--batch_size"),
        ("MODEL --data_dir DATA", "--out"),
    ],
)
def test_wrong_input_is_one_line(tiny_pair, tmp_path, flags, part):
    """What cannot be run is refused in one line that names it, and nothing is written."""
    write_asdiv(tmp_path)
    names = {"MODEL": tiny_pair / "large", "DATA": tmp_path, "OUT": tmp_path / "out.json"}
    with pytest.raises(SystemExit) as stop:
        probe.main([str(names.get(word, word)) for word in flags.split()])
    message = str(stop.value.code)
    assert message.startswith("error: ") and "\n" not in message and part in message
    assert [path.name for path in tmp_path.iterdir()] == ["asdiv"]
