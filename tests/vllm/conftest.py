"""Of the tests on a real vLLM engine: the toy pair, and thoughts that were trained for it for a few steps."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
TOY = {name: str(ROOT / "toy" / name) for name in ("large", "small")}
DATA = ("--data_dir", str(ROOT / "data"), "--task_name", "arithmetic", "--max_new_tokens", "96")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Thoughts of two chains, made by train.py in 30 steps."""
    from lta_thinker import train

    folder, before = tmp_path_factory.mktemp("train"), os.getcwd()
    os.chdir(folder)
    lms = ("--large_model_id", TOY["large"], "--small_model_id", TOY["small"])
    run = "--output_name vllm --num_thought_tokens 4 --num_thought_chains 2 --batch_size 8 --max_steps 30"
    run += " --gradient_accumulation_steps 1 --learning_rate 2e-3 --k_shot 300 --disable_tqdm True"
    train.run([*lms, *DATA[:4], *run.split()])
    os.chdir(before)
    [made] = (folder / "ckpt").iterdir()
    return made
