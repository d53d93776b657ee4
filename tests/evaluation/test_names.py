"""A run's name does for its checkpoint, and one folder stands for a number however it is written."""

import shutil
from pathlib import Path

import pytest
from helpers import fails, one_line

from lta_thinker import LatentThoughtModel, train
from lta_thinker.checkpoint import beside, find_checkpoint
from lta_thinker.common import InputError
from lta_thinker.flags import parse_flags


@pytest.fixture
def folder(trained, tmp_path, monkeypatch) -> Path:
    """A folder to work in, with the weights of the run `run` in ckpt/."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, Path("ckpt", trained.name))
    return Path("ckpt", trained.name)


def test_a_runs_name_is_its_checkpoint(folder, gsm8k_data, trained):
    """--checkpoint and from_pretrained take a run's --output_name; a folder of that name with weights goes first."""
    from lta_thinker import evaluate

    short = ["--data_dir", str(gsm8k_data), "--test_k", "2", "--max_new_tokens", "2"]
    evaluate.main(["--checkpoint", "run", *short])
    report = Path("results", f"eval-{folder.name}", "test-n4-x1-seed41-max_new_tokens2", "report.json")
    assert report.is_file()  # as with the folder
    assert LatentThoughtModel.from_pretrained("run").num_thoughts == 4
    Path("run").mkdir()  # a folder without weights, as toy/ is, hides no run
    assert find_checkpoint("run") == folder
    shutil.copytree(folder, "run", dirs_exist_ok=True)
    assert find_checkpoint("run") == Path("run")


def test_copies_and_other_names_are_not_the_run(folder):
    """A copy, a link, and a run whose name only begins alike do not count; two folders of one run are told."""
    shutil.copytree(folder, "ckpt/copy")
    Path("ckpt/run-link").symlink_to(folder.name)
    assert find_checkpoint("run") == folder
    assert find_checkpoint("ru") is None and find_checkpoint("run-gsm8k") is None
    shutil.copytree(folder, "ckpt/run-aqua-small_block-10-4-large-small")
    with pytest.raises(InputError) as error:
        find_checkpoint("run")
    one_line(error, "run: a run with weights in 2 folders: ckpt/run-")


def test_a_wrong_name_lists_those_that_exist(folder, trained):
    """A name that is none lists the runs that there are; of a run without weights the last checkpoint is told."""
    assert "--checkpoint rum: no such folder, and no run of that name; in ckpt/ there are run" in fails(
        "--checkpoint", "rum"
    )
    with pytest.raises(InputError) as error:
        LatentThoughtModel.from_pretrained("rum")
    one_line(error, "rum: no such folder here, and no such hub repository could be read (", "; in ckpt/ there are run")
    shutil.copytree(trained.parent.parent / "results" / "run" / "checkpoint-5", "results/later/checkpoint-5")
    said = fails("--checkpoint", "later")
    assert said == (
        "error: later: this run has no weights in ckpt/ yet; its last checkpoint is results/later/checkpoint-5"
    )


def test_a_run_s_folder_is_no_checkpoint(folder, trained):
    """results/RUN is refused in one line that says what is meant instead."""
    shutil.copytree(trained.parent.parent / "results" / "run", "results/run")
    line = "results/run: a run's folder; one of its checkpoint-N is meant, or its name alone, run: its best weights"
    assert fails("--checkpoint", "results/run") == f"error: {line}"


def test_ten_is_one_folder_however_it_is_written(flags):
    """--n_epochs 10.0, 10 and 1e1 make one folder."""
    names = set()
    for number in ("10.0", "10", "1e1"):
        args = parse_flags(train.TrainArguments, [*flags, "--output_name", "x", "--n_epochs", number], "train.py")
        names.add(train.final_folder(args))
    assert names == {Path("ckpt/x-gsm8k-small_block-10-4-large-small")}


def test_the_longest_name_fills_what_a_file_system_takes(flags, tmp_path, monkeypatch):
    """A name whose folder has 255 bytes while it is written is taken, and can be made; one byte more is refused."""
    monkeypatch.chdir(tmp_path)

    def folder_of(length: int) -> Path:
        named = [*flags, "--output_name", "x" * length]
        return beside(train.final_folder(parse_flags(train.TrainArguments, named, "train.py")), "partial")

    longest = 255 - len(folder_of(1).name) + 1
    folder_of(longest).mkdir(parents=True)
    with pytest.raises(InputError, match="--output_name: 1 bytes too long"):
        folder_of(longest + 1)
