"""--report_to, and what a training log says: gradient norms by part, variance of the thoughts, tokens a second."""

import contextlib
import itertools
import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import EXAMPLES, PROGRAMS, logs, sampled, two_ranks, weights

from lta_thinker import train
from lta_thinker.answers import extract_answer
from lta_thinker.common import InputError
from lta_thinker.flags import parse_flags
from lta_thinker.generation.prompts import PromptEmbedder, make_requests
from lta_thinker.generation.samplers import greedy_settings
from lta_thinker.model import Models
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.rows.examples import Example
from lta_thinker.training.texts import LogTexts, dev_texts
from lta_thinker.training.trainer import ThoughtTrainer, thought_spread

PARTS = ("projection", "block", "prior")
WATCHED = {"tokens_per_second", "thought_variance_questions", "thought_variance_slots"}
WATCHED |= {f"grad_norm_{part}" for part in PARTS} | {"balance_align", "balance_focus"}
TRACKER_FOLDERS = ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "TRACKIO_DIR", "WANDB_PROJECT")


@pytest.fixture
def no_tracker_set(monkeypatch):
    """What another run of this process, or the user, has set is not there."""
    for name in TRACKER_FOLDERS:
        monkeypatch.delenv(name, raising=False)


def training_logs(name: str) -> list[dict]:
    return [log for log in logs(name) if "loss" in log]


def test_tensorboard_file_holds_whole_log(flags, no_tracker_set):
    """The file of TensorBoard in logs/<run> holds every value of the run's log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = ["--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "1"]
    train.run([*flags, "--output_name", "run", "--report_to", "tensorboard", *steps])
    (file,) = Path("logs/run").glob("events.*")
    events = EventAccumulator(str(file))
    events.Reload()
    expected = defaultdict(list)
    for log in logs("run"):
        for key, value in log.items():
            title = f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"
            expected[title].append((log["step"], value))
    losses = {f"{name}_loss" for name in ("sft", "align", "focus")}
    told = {f"train/{key}" for key in {"loss", "grad_norm", "learning_rate"} | losses | WATCHED}
    assert told | {f"eval/{key}" for key in losses} <= expected.keys()
    for title in expected.keys() - {"train/step", "train/epoch"}:
        found = [(event.step, event.value) for event in events.Scalars(title)]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected[title]], title


def test_gradient_norms_precede_clipping(flags):
    """The gradient norms of the parts are those of the whole step's gradient before clipping. By hand: one step of
    plain SGD moves each weight by its gradient."""
    flags += ["--k_shot", "4", "--max_steps", "1", "--optim", "sgd", "--lr_scheduler_type", "constant"]
    # two micro-batches of two rows, which move nothing
    train.run([*flags, "--output_name", "run", "--max_grad_norm", "0.01", "--learning_rate", "1e-30"])
    whole = ["--batch_size", "4", "--gradient_accumulation_steps", "1", "--max_grad_norm", "0"]
    train.run([*flags, "--output_name", "moved", *whole, "--learning_rate", "1"])
    start, moved, squares = weights("run"), weights("moved"), dict.fromkeys(PARTS, 0.0)
    for name in start:
        part = "prior" if name == "0.prior" else PARTS[1 - int(name[0])]  # TransformerBlock.bin, projection.bin
        squares[part] += (moved[name] - start[name]).square().sum().item()
    (log,) = training_logs("run")
    assert log["grad_norm"] > 0.02  # clipped
    for part in PARTS:
        assert log[f"grad_norm_{part}"] == pytest.approx(squares[part] ** 0.5, rel=1e-4), part
    assert sum(log[f"grad_norm_{part}"] ** 2 for part in PARTS) == pytest.approx(log["grad_norm"] ** 2, rel=1e-5)


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--thought_generator", "small"], {"projection"}),
        (["--thought_generator", "prompt", "--align_loss_weight", "0", "--focus_loss_weight", "0"], {"prior"}),
        (["--freeze_prior"], {"projection", "block"}),
    ],
)
def test_logged_parts_are_trained_parts(flags, more, parts):
    """Gradient norms are logged for the parts that the generator trains, and no others."""
    one = ["--max_steps", "1", "--gradient_accumulation_steps", "1", "--k_shot", "2"]
    train.run([*flags, "--output_name", "run", *one, *more])
    (log,) = training_logs("run")
    assert {key.removeprefix("grad_norm_") for key in log if key.startswith("grad_norm_")} == parts


def test_two_ranks_log_as_one_process(flags, monkeypatch):
    """Two ranks log the gradient norms and tokens a second of one process. In this test a second goes by whenever the
    clock is read."""
    flags += ["--k_shot", "8", "--max_steps", "2"]
    program = PROGRAMS / "train_by_a_counting_clock.py"
    two_ranks(program, *flags, "--output_name", "ranks", "--gradient_accumulation_steps", "1")
    monkeypatch.setattr("lta_thinker.training.trainer.time", SimpleNamespace(perf_counter=itertools.count().__next__))
    train.run([*flags, "--output_name", "alone"])
    for one, other in zip(training_logs("ranks"), training_logs("alone"), strict=True):
        for key in ("tokens_per_second", *(f"grad_norm_{part}" for part in PARTS)):
            assert one[key] == pytest.approx(other[key], rel=1e-4)


def test_training_variance_matches_report_variance(tiny_models):
    """The variance of the thoughts in the training log is defined as in a report."""
    model, layout = tiny_models.model("small_block"), tiny_models.layout
    examples = [Example(i, f"Mia has {i} pens and buys {2 * i} more.", ("12",), f"{3 * i}", None) for i in range(5)]
    model(**TrainingCollator(layout, steps=True)(layout.training_rows(examples)))
    embed, requests = PromptEmbedder(Models(model.llm, model, layout), num_chains=1), make_requests(layout, examples)
    for start in (0, 2, 4, 0):  # a question that is asked again counts once
        embed.make_thoughts(requests[start : start + 2])
    expected = embed.variance.figures()
    found = {name: value.item() for name, value in thought_spread(model.last_thoughts).items()}
    assert found == {name: pytest.approx(expected[f"over_{name}"], rel=1e-4) for name in ("questions", "slots")}
    assert thought_spread(model.last_thoughts[:1]).keys() == {"slots"}


def test_tokens_per_second_counts_training_only(flags, monkeypatch):
    """Tokens a second count no padding, and no time of dev evaluations and checkpoints."""
    clock, trainers = [0.0], []
    monkeypatch.setattr("lta_thinker.training.trainer.time.perf_counter", lambda: clock[0])

    def takes(seconds: float, name: str):
        own = getattr(ThoughtTrainer, name)

        def slow(self, *args, **kwargs):
            clock[0] += seconds
            trainers.append(self)
            return own(self, *args, **kwargs)

        monkeypatch.setattr(ThoughtTrainer, name, slow)

    takes(1, "compute_loss")
    takes(100, "evaluate")
    takes(1000, "_save_checkpoint")
    takes(10, "log")  # on a GPU: it waits there until the steps are done
    # every step has the same four rows, of different lengths, in two micro-batches
    steps = ["--k_shot", "4", "--max_steps", "4", "--eval_strategy", "steps", "--eval_steps", "1"]
    train.run([*flags, "--output_name", "run", *steps, "--logging_steps", "2"])
    step_tokens = sum(prefix + rest for prefix, rest in trainers[0].rows.widths)  # rest: thoughts, suffix and target
    assert len({prefix for prefix, _ in trainers[0].rows.widths}) > 1
    seconds = [log["tokens_per_second"] for log in training_logs("run")]
    # four micro-batches and a log, but the clock starts behind the first second
    assert seconds == pytest.approx([2 * step_tokens / 13, 2 * step_tokens / 14])


def test_watching_changes_no_weight(flags, trained, monkeypatch):
    """The figures that are watched change no weight and no other figure of the log."""
    with contextlib.chdir(trained.parent.parent):
        watched, one = training_logs("run"), weights("run")
    monkeypatch.setattr("lta_thinker.training.trainer.gradient_norms", lambda model: {})
    monkeypatch.setattr(ThoughtTrainer, "_watched", lambda self: {})
    train.run([*flags, "--output_name", "plain"])
    other = weights("plain")
    assert all(torch.equal(one[name], other[name]) for name in one)
    kept = [{key: value for key, value in log.items() if key not in WATCHED} for log in watched]
    assert kept == training_logs("plain")


def test_trackers_use_the_output_name(flags, no_tracker_set):
    """Trackers call a run by its --output_name and write to logs/<run>, unless the user says otherwise. A resumed run
    may have another name."""

    def parsed(*more):
        return parse_flags(train.TrainArguments, [*flags, "--output_name", "first", *more], "train.py")

    args = parsed()
    assert (args.run_name, args.project) == ("first", "lta-thinker")
    set_here = {name: train.os.environ[name] for name in TRACKER_FOLDERS}
    assert set_here == dict.fromkeys(TRACKER_FOLDERS[:3], "logs/first") | {"WANDB_PROJECT": "lta-thinker"}
    own = parsed("--run_name", "mine", "--project", "ours")
    assert (own.run_name, own.project) == ("mine", "ours")
    assert own.resolved() == args.resolved()  # a resumed run may have another name
    assert parsed("--projection", "after").resolved() != args.resolved()  # not another generator


def test_missing_tracker_is_refused_early(flags, monkeypatch):
    """A tracker that is not installed is refused in one line, before anything is loaded."""
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    with pytest.raises(InputError, match="^--report_to: .*tensorboard.*install") as error:
        train.run([*flags, "--output_name", "run", "--report_to", "tensorboard", "--large_model_id", "nowhere"])
    assert "\n" not in str(error.value)


def test_finished_run_keeps_whole_log(trained, monkeypatch):
    """A finished run keeps its whole log and its best step in its folder."""
    monkeypatch.chdir(trained.parent.parent)
    state = json.loads(Path("results/run/trainer_state.json").read_text())
    assert state["log_history"][:-1] == logs("run") and "train_loss" in state["log_history"][-1]
    assert state["best_global_step"] == 5


# ---------------------------------------------------------------------------------------------------------------------
# --log_texts


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for wandb in Trainer and in ours: what it was told, in `told`."""
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    told = []
    stand_in = SimpleNamespace(Table=lambda dataframe: dataframe, log=told.append, told=told)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", TrainerCallback)
    return stand_in


EVERY_ONE = ["--max_steps", "2", "--learning_rate", "0.1", "--eval_strategy", "steps", "--eval_steps", "1"]


def test_texts_are_told_and_change_no_bit(flags, wandb):
    """--log_texts K: each dev evaluation tells the tracker a table of the first K dev questions with what is written
    for them at this step, and the weights, the dev losses and the random state of the run are those without it."""
    states = []
    for name, more in (("plain", []), ("told", ["--report_to", "wandb", "--log_texts", "2", "--max_new_tokens", "12"])):
        train.run([*flags, *EVERY_ONE, "--output_name", name, *more])
        states.append(torch.get_rng_state())
    one, other = weights("plain"), weights("told")
    assert all(torch.equal(one[name], other[name]) for name in one) and torch.equal(*states)
    losses = [Path("results", name, "dev_losses.jsonl").read_bytes() for name in ("plain", "told")]
    assert losses[0] == losses[1]
    assert [log["train/global_step"] for log in wandb.told] == [1, 2]
    tables = [log["dev_texts"] for log in wandb.told]
    for step, table in zip((1, 2), tables, strict=True):
        assert list(table.columns) == ["step", "question", "gold", "text", "answer", "right"]
        assert len(table) == 2 and set(table["step"]) == {step}
    assert list(tables[0]["question"]) == list(tables[1]["question"])
    assert list(tables[0]["text"]) != list(tables[1]["text"])  # of other weights


def test_texts_are_those_of_an_evaluation(tiny_models):
    """A row has the question, the reference's answer, the text that greedy decoding writes behind all thoughts, its
    answer and whether that is right, in the order of the questions."""
    models, settings = tiny_models.models("small_block"), greedy_settings(tiny_models.llm, 8)
    rows = dev_texts(models, EXAMPLES, "number", 8, batch_size=2)
    texts = {example.index: texts[0] for example, _, texts in sampled(models, EXAMPLES, settings, 1)}
    assert [row[:3] for row in rows] == [[one.question, one.answer, texts[one.index]] for one in EXAMPLES]
    found = [extract_answer(row[2], "number", (), False) for row in rows]
    assert [row[3:] for row in rows] == [
        [answer or "", answer == row[1]] for answer, row in zip(found, rows, strict=True)
    ]


def test_only_the_first_rank_tells_the_texts(tiny_models, wandb):
    """Other ranks write no texts: one table an evaluation."""
    callback = LogTexts(tiny_models.models("small_block"), EXAMPLES[:1], "number")
    args = SimpleNamespace(max_new_tokens=2, per_device_eval_batch_size=1, table_trackers=["wandb"])
    for first in (False, True):
        callback.on_evaluate(args, SimpleNamespace(is_world_process_zero=first, global_step=3), None)
        assert len(wandb.told) == first


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--log_texts", "3"], "--log_texts 3: needs a tracker that holds tables, --report_to wandb or trackio"),
        (["--log_texts", "3", "--report_to", "tensorboard"], "--log_texts 3: needs a tracker"),
        (["--log_texts", "-1"], "--log_texts -1: must be at least 0"),
        (["--log_texts", "3", "--shard_llm"], "--log_texts with --shard_llm: "),
    ],
)
def test_texts_need_a_tracker_that_holds_them(flags, more, line):
    """A tracker that holds no table, and a sharded LLM, are one line before anything is loaded."""
    with pytest.raises(InputError, match=f"^{line}"):
        train.run([*flags, "--output_name", "run", *more])


def test_texts_must_fit(flags, wandb):
    """Texts that do not fit into the LLM's positions behind the longest question are refused before the first step."""
    more = ["--report_to", "wandb", "--log_texts", "1", "--max_new_tokens", "1000"]
    with pytest.raises(InputError, match=r"--max_new_tokens 1000: .*row \d+ has .* fit behind it"):
        train.run([*flags, "--output_name", "run", *more])
