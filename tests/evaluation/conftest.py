"""Fixtures of evaluation: a checkpoint of each generator, and evaluate.py run in this process."""

import functools
from pathlib import Path

import pytest
from helpers import N, record_of

from lta_thinker import build, evaluate
from lta_thinker.checkpoint import save_checkpoint


@pytest.fixture(scope="session")
def checkpoints(tiny_models, tiny_pair, tmp_path_factory) -> Path:
    """A folder with a checkpoint folder of each generator, as train.py writes them."""
    folder = tmp_path_factory.mktemp("ckpt")
    for kind in ("small_block", "block", "small"):
        model = tiny_models.model(kind, N)
        ids = {"large_model_id": str(tiny_pair / "large")}
        if kind != "block":
            ids["small_model_id"] = str(tiny_pair / "small")
        record = record_of(model, **ids)
        save_checkpoint(folder / kind, model, record)
    return folder


@pytest.fixture
def no_drawing(monkeypatch):
    """Figures are composed, but their files are empty: to draw one takes half a second."""
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(figure.Figure, "savefig", lambda figure, path, **kwargs: path.touch())


@pytest.fixture(scope="session")
def load_once(tiny_pair):
    """load_frozen_lm that reads each LM of the tiny pair once; nothing changes a loaded LM."""
    once = functools.cache(build.load_frozen_lm)
    return lambda source: (once if Path(source.model_id).parent == tiny_pair else once.__wrapped__)(source)


@pytest.fixture(scope="session")
def common(gsm8k_data) -> list[str]:
    """Flags of every short evaluation."""
    return ["--data_dir", str(gsm8k_data), "--max_new_tokens", "4", "--test_k", "4"]


@pytest.fixture(scope="session")
def whole(checkpoints, common, tmp_path_factory) -> Path:
    """What evaluate.py leaves with the checkpoint `small` and --num_return_sequences 2: to be copied, not changed."""
    folder = tmp_path_factory.mktemp("evaluation") / "whole"
    flags = ["--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", folder]
    evaluate.main([*common, "--batch_size", "1", *map(str, flags)])
    return folder


@pytest.fixture
def run(common, load_once, tmp_path, capsys, monkeypatch):
    """Run evaluate.py in this process, in an empty folder -> what it printed; a failed run gives its error line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "load_frozen_lm", load_once)

    def run(*flags, data=True) -> str:
        try:
            evaluate.main([str(flag) for flag in (*(common if data else []), *flags)])
        except SystemExit as stop:
            return str(stop.code)
        return capsys.readouterr().out

    return run
