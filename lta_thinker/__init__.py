"""LTA-Thinker: latent thoughts for frozen LLMs (arXiv 2509.12875).

    from lta_thinker import LatentThoughtModel

    model = LatentThoughtModel.from_pretrained("ckpt/NAME")
    print(model.solve("A pen costs 3 and a book 7. How much are two pens and a book?", num_samples=10).answer)

train, evaluate, data_loader, model and losses are the five files at the top of the repository, seen through links.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lta_thinker.api import LatentThoughtModel

__all__ = ["LatentThoughtModel"]


def __getattr__(name: str):
    if name == "LatentThoughtModel":
        from lta_thinker.api import LatentThoughtModel  # torch and transformers take seconds

        return LatentThoughtModel
    raise AttributeError(f"module 'lta_thinker' has no attribute {name!r}")
