"""Information of the thoughts on dev: by how much the SFT loss rises with another question's thoughts."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, gsm8k_row, logs, meta, two_ranks, write_jsonl

from lta_thinker import LatentThoughtModel, train
from lta_thinker.checkpoint import DEV_LOSSES_FILE
from lta_thinker.data_loader import TASKS, load_split
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.training.information import Information

NAMES = [f"eval_{name}" for name in Information.NAMES]
SFT = ["--align_loss_weight", "0", "--focus_loss_weight", "0"]
ONE = ["--max_steps", "1"]  # one evaluation; small_block has three
CASES = {
    "small_block": [],
    "block": ONE,
    "small": ONE,
    "chains": ["--num_thought_chains", "2", *ONE],
    "tuned": ["--tune_base_model", "--tune_assistant_model", "--learning_rate", "0.05", *ONE],
    "leaking": ["--thoughts_see_steps", "--no_balance_losses", *ONE],
}


@pytest.fixture
def dev_flags(flags, tmp_path):
    """Flags of a short run with nine dev rows, in batches of four."""
    write_jsonl(tmp_path / "rows" / "gsm8k" / "train_socratic.jsonl", [gsm8k_row(i) for i in range(180)])
    return [*flags, "--k_shot", "8", "--data_dir", str(tmp_path / "rows"), "--per_device_eval_batch_size", "4"]


@torch.no_grad()
def plain_loss(model, row: dict, thoughts: torch.Tensor) -> float:
    """SFT loss of one row's target behind thoughts (C, N, d), mean over the chains: no batch, no padding, no cache."""
    embed, target = model.llm.get_input_embeddings(), torch.tensor(row["target"])
    prefix, rest = (embed(torch.tensor(ids)) for ids in (row["prefix"], row["suffix"] + row["target"]))
    losses = []
    for of_chain in thoughts:
        logits = model.llm(inputs_embeds=torch.cat([prefix, of_chain, rest])[None]).logits[0]
        losses.append(F.cross_entropy(logits[-len(target) - 1 : -1].double(), target, reduction="sum").item())
    return sum(losses) / len(losses)


def dev_losses(run: str) -> dict[int, list[float]]:
    """{step: nats of every dev row} of a run's file."""
    lines = Path("results", run, DEV_LOSSES_FILE).read_text().splitlines()
    return {line["step"]: line["nats"] for line in map(json.loads, lines)}


@pytest.mark.parametrize("case", CASES)
def test_information_matches_plain_loop(dev_flags, tmp_path, case):
    """What a dev evaluation logs and thoughts.json keeps is the difference of a plain loop over the rows, each alone:
    with the thoughts of the row before it less with its own. The file of dev losses has the latter."""
    kind = case if case in ("block", "small") else "small_block"
    train.run([*dev_flags, *SFT, "--output_name", "run", "--thought_generator", kind, *CASES[case]])
    (folder,) = Path("ckpt").iterdir()
    models = LatentThoughtModel.from_pretrained(folder).models
    model, rows = models.thoughts, []
    for example in load_split(TASKS["gsm8k"], "dev", str(tmp_path / "rows")).examples:
        row = models.layout.training(example)
        question = torch.tensor([row["question"]])
        with torch.no_grad():
            rows.append((row, model.chain_thoughts(question, torch.ones_like(question))[1][0]))
    assert len(rows) == 9
    own = [plain_loss(model, row, thoughts) for row, thoughts in rows]
    rises = [plain_loss(model, row, rows[i][1]) - own[i + 1] for i, (row, _) in enumerate(rows[1:])]
    tokens = [len(row["target"]) for row, _ in rows]
    mean = sum(rises) / 8
    half = 1.96 * math.sqrt(sum((rise - mean) ** 2 for rise in rises) / 7 / 8)
    found = meta("run")["dev"]
    assert dev_losses("run")[found["step"]] == pytest.approx(own, rel=1e-4, abs=1e-4)
    assert found["eval_sft_loss"] == pytest.approx(sum(own) / sum(tokens), abs=1e-5)
    expected = [mean, mean - half, mean + half, sum(rises) / sum(tokens[1:])]
    assert [found[name] for name in NAMES] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert found["eval_information_per_token"] == pytest.approx(expected[3], abs=1e-5)
    assert max(map(abs, rises)) > 1e-2, "the thoughts say nothing, and this test neither"
    assert (
        found.items()
        <= next(log for log in logs("run") if log.get("step") == found["step"] and "eval_loss" in log).items()
    )


def test_two_ranks_find_one_information(dev_flags):
    """Two ranks, one of them without a row in the last round, find the information of one process, whatever the batch:
    the row before is that of all dev rows. Each row's loss is kept once, in dev order."""
    start = ["--learning_rate", "1e-12", "--max_steps", "1"]
    two_ranks(ROOT / "train.py", *dev_flags, *start, "--output_name", "ranks", "--per_device_eval_batch_size", "2")
    train.run([*dev_flags, *start, "--output_name", "alone"])
    one, other = meta("ranks")["dev"], meta("alone")["dev"]
    assert [one[name] for name in NAMES] == pytest.approx([other[name] for name in NAMES], rel=1e-4, abs=1e-5)
    (of_ranks,), (of_one,) = dev_losses("ranks").values(), dev_losses("alone").values()
    assert of_ranks == pytest.approx(of_one, rel=1e-4) and len(set(of_one)) == 9


def test_prompt_has_no_information(dev_flags, monkeypatch):
    """A constant prompt says nothing about a question: nothing is computed, logged or kept."""
    monkeypatch.setattr(train.LatentThoughtModel, "target_losses", None)
    train.run([*dev_flags, *SFT, "--output_name", "run", "--thought_generator", "prompt", "--max_steps", "1"])
    assert "eval_sft_loss" in meta("run")["dev"]
    assert not any("information" in key for log in (*logs("run"), meta("run")["dev"]) for key in log)


def test_thoughts_of_no_question_say_nothing(tiny_models):
    """Where all questions get the same thoughts the information is zero to the bit. Of one row nothing is said."""
    model, layout = tiny_models.model("small_block"), tiny_models.layout
    rows = [
        layout.training(example) for example in load_split(TASKS["gsm8k"], "sample", str(ROOT / "data")).examples[:3]
    ]
    batch, information = TrainingCollator(layout, steps=True)(rows), Information()
    with torch.no_grad():
        thoughts = model.generator.prior.expand(3, 1, -1, -1)
        model.eval()
        rise = model.target_losses(batch, thoughts.roll(1, dims=0)) - model.target_losses(batch, thoughts)
    information.add(rise, batch, slice(0, 1))
    assert information.figures() == {}
    information.add(rise, batch, slice(1, 3))
    assert information.figures() == dict.fromkeys(Information.NAMES, 0.0) and information.sums[0] == 3
