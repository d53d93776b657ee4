"""The large LLM where an engine (vLLM) runs it: its config, its settings and its embeddings, without its layers.

source = LmSource("Qwen/Qwen3-8B", "--base_model_id", torch.bfloat16, "cuda")
llm = load_embeddings(source)                # 1.2 GB instead of 16
weights_fingerprint(source, llm)             # as frozen.fingerprint of the whole LLM

The weights are in the model's safetensors files, which are memory-mapped: only the tensors that are used are read.
"""

import re

from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM

from lta_thinker.common import InputError
from lta_thinker.llm.files import WeightFiles
from lta_thinker.llm.frozen import (
    DTYPE_ARGUMENT,
    LmSource,
    check_files,
    check_names,
    load_config,
    load_generation_config,
    weights_hash,
)


def load_embeddings(source: LmSource):
    """The causal LM with its embedding module on the device; all other parameters are on the meta device.

    Raises InputError as load_config does, for a model without safetensors, and where these lack tensors or have unknown
    ones.
    """
    config = load_config(source)
    files = WeightFiles(source)
    # buffers are real: some modules have a scale in a buffer that no file has
    with init_empty_weights(include_buffers=False):
        arguments = {DTYPE_ARGUMENT: source.dtype, "trust_remote_code": source.trust_remote_code}
        lm = AutoModelForCausalLM.from_config(config, **arguments)
    lm.generation_config = load_generation_config(source.model_id, config)
    embed = lm.get_input_embeddings()
    name = next(name for name, weight in lm.named_parameters() if weight is embed.weight)
    if name not in files.places:
        raise InputError(f"{source.name}: its safetensors have no {name}")
    embed.weight = nn.Parameter(files[name].to(device=source.device, dtype=source.dtype), requires_grad=False)
    embed.to(source.device)  # its buffers
    lm.tie_weights()
    check_complete(source, files, lm)
    check_files(source, files, lm)
    return lm.requires_grad_(False).eval()


def check_complete(source: LmSource, files: WeightFiles, lm) -> None:
    """InputError where the files lack tensors of the LM, or have unknown ones. Where both is so they may have other
    names, which the engine knows: then it is the engine that refuses them."""
    missing = {name for name, _ in lm.named_parameters()} - files.places.keys()
    known = {name for name, _ in lm.named_parameters(remove_duplicate=False)} | {name for name, _ in lm.named_buffers()}
    ignored = [*(lm._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq"]
    unknown = {name for name in files.places.keys() - known if not any(re.search(pattern, name) for pattern in ignored)}
    if not (missing and unknown):
        check_names(source, "have no", missing)
        check_names(source, "have the unknown", unknown)


def weights_fingerprint(source: LmSource, lm) -> str | None:
    """frozen.fingerprint of the whole LM in its dtype, read from the files. None where the files name the tensors in
    another way than the model (the library renames them when it loads them)."""
    files = WeightFiles(source)
    names = [name for name, _ in lm.named_parameters()]
    if not files.places.keys() >= set(names):
        print(f"note: {source.name}: its files name the weights in another way: no fingerprint of them")
        return None
    return weights_hash(((name, files[name]) for name in names), lm.dtype)
