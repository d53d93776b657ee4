"""LTA-Thinker: latent thoughts for frozen LLMs (arXiv 2509.12875).

    from lta_thinker import LatentThoughtModel

    model = LatentThoughtModel.from_pretrained("ckpt/NAME")
    print(model.solve("A pen costs 3 and a book 7. How much are two pens and a book?", num_samples=10).answer)

    model = lta_thinker.train(rows, large="Qwen/Qwen3-8B", output_name="mine", answer_type="number", task_name="mine")

train, evaluate, data_loader, model and losses are the five files at the top of the repository, seen through links. The
module train can be called: from_rows.train.
"""

import importlib
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lta_thinker.api import LatentThoughtModel
    from lta_thinker.from_rows import train

__all__ = ["LatentThoughtModel", "train"]


class CallableTrain(types.ModuleType):
    """The module lta_thinker.train: called, it is from_rows.train."""

    def __call__(self, *args, **kwargs):
        from lta_thinker.from_rows import train

        return train(*args, **kwargs)


def __getattr__(name: str):
    if name == "LatentThoughtModel":
        from lta_thinker.api import LatentThoughtModel  # torch and transformers take seconds

        return LatentThoughtModel
    if name == "train":
        return importlib.import_module("lta_thinker.train")
    raise AttributeError(f"module 'lta_thinker' has no attribute {name!r}")
