"""LTA-Thinker as a package: its modules are `lta_thinker.train`, `lta_thinker.model`, ...

    from lta_thinker import LatentThoughtModel

    model = LatentThoughtModel.from_pretrained("ckpt/NAME")
    print(model.solve("A pen costs 3 and a book 7. How much are two pens and a book?", num_samples=10).answer)

The modules lie beside this file: at the top of a checkout, where it is `lta_thinker.py`, and in site-packages, where it
is `lta_thinker/__init__.py` (pyproject.toml puts them there). So none of them is a top-level `evaluate` or `model`.
"""

import os

__path__ = [os.path.dirname(os.path.abspath(__file__))]


def __getattr__(name: str):
    if name == "LatentThoughtModel":
        from lta_thinker.model import LatentThoughtModel  # torch and transformers take seconds

        return LatentThoughtModel
    raise AttributeError(f"module 'lta_thinker' has no attribute {name!r}")
