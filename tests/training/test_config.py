"""--config: flags from a file, below those of the command line; a run's flags.json repeats the run."""

import json
from pathlib import Path

import pytest
import torch
from helpers import ROOT, one_line, weights

from lta_thinker import evaluate, train
from lta_thinker.common import InputError, write_json
from lta_thinker.evaluation import start as evaluation_start
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.flags import parse_flags
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.repeat import flags_of_run


def parse(*flags: str) -> TrainArguments:
    return parse_flags(TrainArguments, list(flags), "train.py", of_record=flags_of_run)


def config(text: str, name: str = "run.yaml") -> str:
    Path(name).write_text(text)
    return name


def test_flags_win_over_the_config_and_that_over_defaults(flags):
    """What the command line gives wins over the file, whichever comes first; the file over a recipe and defaults."""
    path = config("recipe: paper\nseed: 5\nlearning_rate: 1e-5\nmax_len: null\nbalance_losses: yes\nn_epochs: 3\n")
    args = parse("--learning_rate", "2e-5", "--config", path, "--output_name", "x")
    assert (args.learning_rate, args.seed, args.max_len) == (2e-5, 5, None)
    assert args.thought_generator == "block" and args.steps_as_turns  # of the recipe
    assert args.balance_losses and args.num_train_epochs == 3  # the recipe says False and 10
    assert args.gradient_accumulation_steps == 4 and args.warmup_ratio == 0.1


def test_config_of_an_evaluation(flags):
    """evaluate.py reads such a file too; a list is the several words of a flag, else a text with commas."""
    path = config('{"rank": ["a.json", "b.json"], "seed": 7, "greedy": true, "task_name": ["gsm8k"]}', "run.json")
    args = parse_flags(EvaluationArguments, ["--config", path, "--seed", "8"], "evaluate.py")
    assert (args.rank, args.seed, args.greedy, args.task_name) == (["a.json", "b.json"], 8, True, "gsm8k")


def test_example_is_a_config():
    """examples/train.yaml is read, and says what it shows."""
    args = parse("--config", str(ROOT / "examples" / "train.yaml"), "--output_name", "x")
    assert (args.learning_rate, args.eval_steps, args.align_loss_weight) == (1e-4, 100, 0.33)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (
            "learning_rat: 1\nmax_step: 3\n",
            "c.yaml",
            "c.yaml: no such flag: learning_rat (learning_rate?), max_step (max_s",
        ),
        ("seed: 1\nconfig: b.yaml\n", "c.yaml", "c.yaml: no such flag: config"),
        ("no_balance_losses: true\n", "c.yaml", "no_balance_losses (balance_losses"),
        (
            "{a1: 1, a2: 1, a3: 1, a4: 1, a5: 1, a6: 1, a7: 1}",
            "c.yaml",
            "a5, 2 more; python train.py --help lists them",
        ),
        ("- 3\n", "c.yaml", "--config c.yaml: not a table of flags, like `batch_size: 4`"),
        ("", "c.yaml", "not a table of flags"),
        ("a: [\n", "c.yaml", "--config c.yaml: not YAML (while parsing"),
        ("{", "c.json", "--config c.json: not JSON ("),
        ("seed: 1", "c.toml", "--config c.toml: a file that ends in .yaml, .yml or .json"),
        ("seed: 2024-01-01", "c.yaml", "--config c.yaml: seed: datetime.date(2024, 1, 1) is no flag's value"),
        ("seed: [1, 2]", "c.yaml", "--seed: invalid int value: '1,2'"),
        ("seed: .nan", "c.yaml", "--config c.yaml: seed: nan is no flag's value"),
        ("starts: []", "c.yaml", "--config c.yaml: has no start"),
        ("starts: [{}]", "c.yaml", "--config c.yaml: not as train.py writes a run's flags.json"),
    ],
)
def test_wrong_configs_are_one_line(flags, text, name, said):
    """A file that is none, and keys and values that are no flags, are one line."""
    with pytest.raises(InputError) as error:
        parse("--config", config(text, name), "--output_name", "x")
    one_line(error, said)


def test_missing_config_is_one_line(flags):
    for words, said in (
        (["--config"], "--config: which file?"),
        (["--config", "no.json"], "--config no.json: no such"),
    ):
        with pytest.raises(InputError) as error:
            evaluation_start.answer(words)
        one_line(error, said)


REPEATED = {
    "plain": "",
    "own weights and steps": "--eval_strategy steps --eval_steps 3 --align_loss_weight 0.5 --no_balance_losses",
    "recipe": "--recipe paper-run --seed 7",
    "recomputed layers": "--gradient_checkpointing --bf16 --max_len 100",
    "library": '--optim sgd --lr_scheduler_type cosine --lr_scheduler_kwargs {"num_cycles":2} --weight_decay 0.1',
    "small": "--use_assistant_model --resume --run_name mine --save_total_limit 5",
    "own task": "--task_name mine --answer_type number --train_file a.jsonl --steps_field s --skip_bad_rows",
}


@pytest.mark.parametrize("kind", REPEATED)
def test_flags_json_gives_the_same_flags(flags, kind):
    """The flags of a run's flags.json are all that decided its weights, and the others but for those of one start."""
    before = parse(*flags, "--output_name", "x", *REPEATED[kind].split())
    values = before.resolved() | {"train_sha256": "", "starts": [{"versions": {}, "flags": before.free()}]}
    write_json(Path("flags.json"), values)
    after = parse("--config", "flags.json", "--output_name", "again")
    assert after.resolved() == before.resolved() | {"output_name": "again"}
    own = {"resume": False, "recipe": None, "config": "flags.json"}
    own |= {"run_name": before.run_name if before.run_name != "x" else "again"}
    own |= {"logging_dir": after.free().get("logging_dir")}
    assert {k: v for k, v in after.free().items() if v is not None} == {
        k: v for k, v in (before.free() | own).items() if v is not None
    }


def test_a_run_is_repeated_by_its_flags_json(flags, capsys):
    """train.py --config results/first/flags.json --output_name again makes the same weights, to the bit."""
    train.run([*flags, "--output_name", "first", "--max_steps", "2"])
    train.run(["--config", "results/first/flags.json", "--output_name", "again"])
    one, other = weights("first"), weights("again")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    written = json.loads(Path("results/first/flags.json").read_text())
    written["world_size"], written["starts"][-1]["flags"]["of_tomorrow"] = 4, 3
    write_json(Path("other.json"), written)
    with pytest.raises(InputError, match="ckpt/first-.* is there already"):
        train.run(["--config", "other.json"])
    printed = capsys.readouterr().out
    assert "note: other.json: of a run of 4 processes; here are 1" in printed
    assert "note: other.json: passed over, this version has no such flags: of_tomorrow" in printed


def test_a_config_evaluates(trained, tiny_pair, gsm8k_data, tmp_path, monkeypatch):
    """evaluate.py runs with a --config."""
    monkeypatch.chdir(tmp_path)
    path = config(f"checkpoint: {trained}\ndata_dir: {gsm8k_data}\ntest_k: 2\nmax_new_tokens: 2\noutput_dir: out\n")
    evaluate.main(["--config", path])
    assert json.loads(Path("out/report.json").read_text())["num_questions"] == 2
