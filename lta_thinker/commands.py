"""The commands of the installed package, lta-train and lta-evaluate."""

from lta_thinker.evaluation.start import answer_at_once as answer_evaluate
from lta_thinker.training.start import answer_at_once as answer_train


def train() -> None:
    """lta-train: as python train.py."""
    answer_train()
    from lta_thinker.train import main  # imported here: it takes seconds, which --help does not need

    main()


def evaluate() -> None:
    """lta-evaluate: as python evaluate.py."""
    answer_evaluate()
    from lta_thinker.evaluate import main

    main()
