"""Which LM it is: what tells two apart, and when they count as one. What is compared here, frozen.py finds out."""

from typing import NamedTuple

import numpy as np

# relative distances. TF32 makes 1e-3 of float32; SmolLM2 in bfloat16 is 0.03 from float32, other experts are more
CLOSE_STATES = {"float32": 2e-3, "bfloat16": 0.15}


class Identity(NamedTuple):
    """What tells LMs apart, each None where it is not known. weights: their fingerprint; states: known_states; tokens:
    the digest of the tokenizer with its chat template (rows/tokens.py)."""

    weights: str | None
    states: str | None
    tokens: str | None

    def differs(self, trained: "Identity", dtype: str | None) -> str | None:
        """What of this LM is not that of the training's; None where all is. dtype: of both, None where they have two:
        then weights and states are not compared."""
        if dtype and not same_weights(self.weights, trained.weights):
            return "not the weights that these thoughts were trained with"
        if dtype and not same_states(self.states, trained.states, dtype):
            return "its weights are those of the training, what it computes is not: its config.json, or a version"
        if None not in (self.tokens, trained.tokens) and self.tokens != trained.tokens:
            return "not the tokenizer or chat template that these thoughts were trained with"
        return None


def same_states(one: str | None, other: str | None, dtype: str) -> bool:
    """Whether two known_states are of one LM: within what other kernels and devices make of it in this dtype. None,
    what is not known, is like any."""
    if one is None or other is None:
        return True
    try:
        a, b = (np.array([float(number) for number in str(text).split()]) for text in (one, other))
    except ValueError:  # in a file that something else wrote
        return False
    if len(a) != len(b):
        return False
    return bool(np.linalg.norm(a - b) <= CLOSE_STATES.get(dtype, 0) * np.linalg.norm(b))


def same_weights(one: str | None, other: str | None) -> bool:
    """Whether two fingerprints are of the same weights, by the digits that both have. None, what is not known, is like
    any."""
    a, b = str(one), str(other)
    return one is None or other is None or a[: len(b)] == b[: len(a)]
