"""A stand-in for a tokenizer that is not here (--estimate): it knows no word, but makes about as many tokens."""

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# a digit, up to LETTERS other characters of a word with the space before it, or another space: on GSM8K's test
# rows 0.2 % fewer tokens than a byte-level BPE of 8,000 tokens with single digits that is trained on them
LETTERS = 6
TOKEN = rf"\d| ?[^\W\d]{{1,{LETTERS}}}| ?[^\w\s]|\s"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASSUMPTION = f"no tokenizer there: a token is taken to be a digit, a sign, or up to {LETTERS} letters of a word"


def stand_in_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer with ChatML's template and its special tokens; every other token is unknown to it."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), "isolated")
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHATML, name_or_path="stand-in", **special)
