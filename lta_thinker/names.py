"""Names and numbers that several rooms know and that need no library: what is imported from here costs no time."""

GENERATOR_NAMES = ("small_block", "block", "small", "prompt")  # the keys of model.GENERATORS
KIND_NAMES = (*GENERATOR_NAMES, "none")  # of model.KINDS
MAX_BLOCKS = 64  # TransformerBlocks of a generator: each stands in the one behind it
META_FILE = "thoughts.json"  # of every checkpoint
RESUME_FILE = "model.safetensors"  # the weights of a resume checkpoint
CARD_NAMES = ("a100", "h100", "h200", "4090")  # of estimate.cards.CARDS, which imports torch
