"""Names and numbers that several rooms know and that need no library: what is imported from here costs no time."""

GENERATOR_NAMES = ("small_block", "block", "small", "prompt", "coconut")  # the keys of model.GENERATORS
READ_SMALL_LM = ("small_block", "small")  # those whose uses_small_lm is true
KIND_NAMES = (*GENERATOR_NAMES, "none")  # of model.KINDS
MAX_BLOCKS = 64  # TransformerBlocks of a generator: each stands in the one behind it
META_FILE = "thoughts.json"  # of every checkpoint
TABLE_TRACKERS = ("wandb", "trackio")  # those that hold a table: both have Table(dataframe=) and log
RESUME_FILE = "model.safetensors"  # the weights of a resume checkpoint
CARD_NAMES = ("a100", "h100", "h200", "4090")  # of estimate.cards.CARDS, which imports torch
