"""Saves the large LLM of a shape with its tokenizer, for what reads an LLM from a folder: evaluate.py, vLLM.

python benchmarks/save_large.py --shape cpu results/large-cpu
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from benchmarks import shapes  # noqa: E402


def main() -> None:
    parser = shapes.flags(__doc__)
    parser.add_argument("folder", type=Path)
    args = shapes.read_flags(parser, None)
    pair = shapes.load_pair(args.shape, getattr(torch, args.dtype), args.device, False, args.data_dir)
    pair.llm.save_pretrained(args.folder)
    pair.llm_tokenizer.save_pretrained(args.folder)


if __name__ == "__main__":
    main()
