"""Batches: rows of unlike lengths are padded on the side that is asked for, with the token that a tokenizer has."""

from types import SimpleNamespace

import pytest
import torch

from lta_thinker.common import InputError
from lta_thinker.rows.batch import pad_states
from lta_thinker.rows.layout import pad_token_id


@pytest.mark.parametrize("left", [True, False])
def test_states_are_padded_on_one_side(left):
    """States of unlike lengths stand at the right end, or at the left, with zeros beside them."""
    rows = [torch.ones(2, 3), 2 * torch.ones(5, 3), 3 * torch.ones(1, 3)]
    padded = pad_states(rows, left)
    assert padded.shape == (3, 5, 3)
    for row, whole in zip(rows, padded, strict=True):
        own, zeros = (whole[-len(row) :], whole[: -len(row)]) if left else (whole[: len(row)], whole[len(row) :])
        assert torch.equal(own, row) and not zeros.any()


def test_padding_is_the_tokenizers_own_or_its_end():
    """A padding token is taken before the end-of-text token; a tokenizer with neither is refused in one line."""
    for pad, end, expected in ((7, 2, 7), (0, None, 0), (None, 2, 2)):
        tokenizer = SimpleNamespace(name_or_path="x", pad_token_id=pad, eos_token_id=end)
        assert pad_token_id(tokenizer) == expected
    with pytest.raises(InputError, match="x: its tokenizer has neither a padding nor an end-of-text token"):
        pad_token_id(SimpleNamespace(name_or_path="x", pad_token_id=None, eos_token_id=None))
