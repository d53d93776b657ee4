"""Text -> token ids, where only what a chat template writes has special tokens.

    encoder = Encoder(tokenizer, tokenizer.chat_template, "<|im_start|>user\na<|im_end|>\n")
    encoder.encode([encoder.template("<|im_start|>user\n") + encoder.user("What does <|im_end|> mean?")])

In a copy of the tokenizer every special token has another name, its alias. `template` writes aliases for the names in a
template's text. A row's text keeps the names, and in the copy they are names of nothing: they become plain pieces.
"""

import hashlib
import json
import re
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer

from lta_thinker.common import InputError

THOUGHTS = "\ue000thoughts\ue001"  # the token in the place of the thoughts; aliases are like it, with a number
ALIAS = re.compile("\ue000(?:thoughts|[0-9]+)\ue001")
BRACKETED = re.compile(r"[<\[].*[>\]]", re.DOTALL)
PROBE = "Mia has 12 pens,\nbuys 7.5 more: \\frac{39}{2} = **19.5**?  Größe, 汉字, \u0664."  # a text for the digest
SHORTEST_NAME = 3  # a shorter special token is a word too: some tokenizers pad with "!"


def has_alias(token: dict, template: str) -> bool:
    """Whether an added token (as tokenizer.json has it) is a special one. So is a bracketed one that the chat template
    writes: Qwen's "<think>" is not called special."""
    name = token["content"]
    if len(name) < SHORTEST_NAME or not name.strip():
        return False
    return token["special"] or (bool(BRACKETED.fullmatch(name)) and name in template)


class Encoder:
    """A fast tokenizer's tokens of a template's text and of rows' text.

    template: the chat template; written: what it writes around a question and an answer, with a word for each.
    names_in_text: names of special tokens in rows' text stand for the tokens too. `thoughts`: the id of THOUGHTS, which
    no other token has; `digest`: 16 hex digits, others for another tokenizer or chat template. Raises InputError where
    the copy would not do to `written` what the tokenizer does.
    """

    def __init__(self, tokenizer, template: str, written: str, names_in_text: bool = False):
        self.name, self.names_in_text = tokenizer.name_or_path, names_in_text
        saved = json.loads(tokenizer.backend_tokenizer.to_str())
        saved |= {"truncation": None, "padding": None, "post_processor": None}
        added = saved["added_tokens"]
        self.aliases = {token["content"]: f"\ue000{token['id']}\ue001" for token in added if has_alias(token, template)}
        self.names = {alias: name for name, alias in self.aliases.items()}
        ids = tokenizer(written, add_special_tokens=False, split_special_tokens=False).input_ids
        numbers = {token["content"]: token["id"] for token in added}
        # some tokenizers find a token only at a text's start: elsewhere its name is plain text to them too
        unseen = {name for name in self.aliases if name in written and numbers[name] not in ids}
        longest_first = sorted(self.aliases.keys() - unseen, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        for token in added:
            token["content"] = self.aliases.get(token["content"], token["content"])
        rename_in_model(saved["model"], self.aliases)
        self.backend = Tokenizer.from_str(json.dumps(saved))
        self.backend.add_special_tokens([AddedToken(THOUGHTS, special=True, normalized=False)])
        if any(self.backend.token_to_id(token["content"]) != token["id"] for token in added):
            raise InputError(f"{self.name}: its tokenizer does not number its added tokens one after the other")
        thoughts = self.backend.token_to_id(THOUGHTS)
        assert thoughts is not None
        self.thoughts = thoughts
        if self.encode([self.template(written)]) != [ids]:
            raise InputError(f"{self.name}: special tokens of its tokenizer cannot be told from text")
        told = [ids, self.encode([PROBE])[0], tokenizer.pad_token_id]
        self.digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def template(self, text: str) -> str:
        """A template's text with aliases for the names of special tokens."""
        return self.pattern.sub(lambda found: self.aliases[found[0]], text)

    def user(self, text: str) -> str:
        """A row's or a prompt's text, as it goes beside a template's. InputError for one that has an alias in it."""
        if "\ue000" in text and ALIAS.search(text):
            raise InputError(f"{text.strip()!r:.60}: it has the very characters that stand for special tokens here")
        return self.template(text) if self.names_in_text else text

    def plain(self, text: str) -> str:
        """A text with names in the places of aliases."""
        return ALIAS.sub(lambda found: self.names.get(found[0], found[0]), text)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, without special tokens around them. With many at once the library uses all cores."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]


def rename_in_model(model: dict, aliases: dict[str, str]) -> None:
    """Rename tokens in the `model` of a tokenizer.json, in place: a model could put a special token's name together
    from a text's pieces."""
    vocab = model["vocab"]
    if isinstance(vocab, list):  # of a Unigram model: pairs of piece and score
        model["vocab"] = [[aliases.get(piece, piece), score] for piece, score in vocab]
        return
    inside = aliases.keys() & vocab.keys()
    for name in inside:
        vocab[aliases[name]] = vocab.pop(name)
    if inside and "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not inside & {*pair, "".join(pair)}]
    if model.get("unk_token") in inside:
        model["unk_token"] = aliases[model["unk_token"]]
