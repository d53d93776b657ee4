"""When thoughts count as collapsed."""

from typing import Any

# of the thoughts' mean square; in the toy world 0.0009 to 0.0013 in runs that have collapsed, 0.07 and more in others
COLLAPSED = 3e-3


def collapsed(figures: dict[str, Any]) -> bool:
    """Whether the thoughts (figures of ThoughtVariance) are the same for every question: then nothing of a question
    reaches the LLM through them. One question alone does not tell."""
    return figures["num_questions"] > 1 and figures["over_questions"] < COLLAPSED * figures["mean_square"]
