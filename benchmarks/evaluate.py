"""Speed of a sampled evaluation: this project's way against the published one, with answers of given lengths.

    python benchmarks/evaluate.py --shape cpu

ours       TransformersSampler: a prompt is computed once, a finished sample's row goes to the next question
published  transformers' generate(num_return_sequences=10) on a left-padded batch of questions, until the longest of its
           answers is done (our own plain rendering of how the published evaluation works)

Both ask the same questions behind the same thoughts with the same settings, in turn, in one process. Random weights
never end an answer, so a rule does: sample s of question q ends after so many tokens as a seeded log-normal draw says
(mean 250, no more than 1,500, on CUDA; 40 and 240 on a CPU). The last line is one JSON object; speedup is the ratio of
questions a second, ours : published. `same_answers`: in float32, batches of --batch_size and of one question give the
same tokens.
"""

import argparse
import json
import math
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from tqdm import tqdm  # noqa: E402
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList  # noqa: E402

from benchmarks import shapes  # noqa: E402
from lta_thinker.common import versions  # noqa: E402
from lta_thinker.data_loader import PROMPTS  # noqa: E402
from lta_thinker.generation import decoding  # noqa: E402
from lta_thinker.generation.decoding import Rows  # noqa: E402
from lta_thinker.generation.prompts import PromptEmbedder, make_requests  # noqa: E402
from lta_thinker.generation.samplers import TransformersSampler  # noqa: E402
from lta_thinker.generation.sampling import PUBLISHED_SAMPLING, SamplingSettings, gumbel_noise, noise_keys  # noqa: E402
from lta_thinker.model import LatentThoughtModel, Models, llm_inputs  # noqa: E402
from lta_thinker.rows.examples import Example  # noqa: E402
from lta_thinker.rows.layout import Layout, pad_token_id  # noqa: E402

MADE, INJECTED = 32, 2  # thoughts, as published
SPREAD = 0.7  # of the logarithm of a length: the longest of 640 answers is about six times the mean


def lengths_of(keys: Tensor, mean: int, longest: int) -> Tensor:
    """Tokens of the answers of rows with these noise keys, (R, 1)."""
    uniform = (-(-gumbel_noise(keys, torch.full_like(keys, -1), torch.zeros_like(keys))).exp()).exp()
    normal = math.sqrt(2) * torch.erfinv(2 * uniform - 1)
    return (mean * (SPREAD * normal - SPREAD**2 / 2).exp()).long().clamp(1, longest)


def rows_that_end(mean: int) -> type[Rows]:
    """Rows whose answers end by their length alone."""

    class RowsThatEnd(Rows):
        keys = None  # whose lengths are known

        def ended(self, tokens: Tensor, counts: Tensor) -> Tensor:
            if self.keys is not self.state["keys"]:  # other rows than in the last step
                self.keys = self.state["keys"]
                self.lengths = lengths_of(self.keys, mean, self.settings.max_new_tokens)
            return counts >= self.lengths

    return RowsThatEnd


class Ends(StoppingCriteria):
    """The same rule for transformers' generate."""

    def __init__(self, lengths: Tensor):
        self.lengths = lengths[:, 0]

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        return input_ids.shape[1] >= self.lengths


class Evaluation:
    """The models of a shape and the questions asked of them."""

    def __init__(self, args: argparse.Namespace, dtype: str, questions: int):
        self.mean, self.batch_size = args.mean, args.batch_size
        pair = shapes.load_pair(args.shape, getattr(torch, dtype), args.device, data_dir=args.data_dir)
        layout = Layout(pair.llm_tokenizer, pair.small_tokenizer, PROMPTS["number"])
        pair.llm.generation_config = GenerationConfig()  # its end token would end an answer
        slot_id = pad_token_id(pair.small_tokenizer)
        thoughts = LatentThoughtModel("small_block", pair.llm, pair.small_lm, MADE, slot_id).to(args.device)
        self.models = Models(pair.llm, thoughts.eval(), layout)
        rows = shapes.benchmark_rows(args.shape, questions, args.data_dir)
        self.examples = [replace(row, index=i) for i, row in enumerate(rows)]
        self.requests = make_requests(layout, self.examples)
        cuts = PUBLISHED_SAMPLING["qwen3"]
        self.settings = SamplingSettings(
            args.longest, **cuts, repetition_penalty=1.0, greedy=False, num_return_sequences=args.samples, seed=41
        )

    def ours(self, batch_size: int | None = None) -> dict[int, list[list[int]]]:
        """Tokens of every sample by question."""
        sampler = TransformersSampler(self.models, self.settings, batch_size or self.batch_size, INJECTED)
        answers = sampler.answers(self.requests)
        with mock.patch.object(decoding, "Rows", rows_that_end(self.mean)):
            answers = tqdm(answers, desc="ours", total=len(self.examples), leave=False, disable=None)
            return {one.request.example.index: [sample.tokens for sample in one.samples] for one in answers}

    @torch.no_grad()
    def published_batch(self, examples: list[Example]) -> list[str]:
        settings, (llm, model, layout) = self.settings, (self.models.llm, self.models.thoughts, self.models.layout)
        device, s = llm.get_input_embeddings().weight.device, settings.num_return_sequences
        requests = [self.requests[example.index] for example in examples]
        batch = PromptEmbedder(self.models, num_chains=1).batch(requests)
        thoughts = model.thoughts(batch["question_ids"], batch["question_mask"])[1]
        numbers = torch.tensor([request.noise for request in requests], device=device).repeat_interleave(s)
        keys = noise_keys(settings.seed, numbers, torch.arange(s, device=device).repeat(len(examples)))
        config = GenerationConfig(
            do_sample=True,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            num_return_sequences=s,
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=0,
        )
        tokens = llm.generate(
            **llm_inputs(llm, batch, thoughts[:, :INJECTED]),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([Ends(lengths_of(keys, self.mean, settings.max_new_tokens))]),
        )
        return layout.llm_tokenizer.batch_decode(tokens, skip_special_tokens=True)

    def published(self) -> None:
        starts = range(0, len(self.examples), self.batch_size)
        for start in tqdm(starts, desc="published", leave=False, disable=None):
            self.published_batch(self.examples[start : start + self.batch_size])


def main(argv: list[str] | None = None) -> dict:
    parser = shapes.flags(__doc__)
    parser.add_argument("--questions", type=shapes.positive, default=64)
    parser.add_argument("--samples", type=shapes.positive, default=10, help="of each question")
    parser.add_argument("--mean", type=shapes.positive, help="tokens of an answer (250 on CUDA, 40 on a CPU)")
    parser.add_argument("--longest", type=shapes.positive, help="tokens of an answer (1500 on CUDA, 240 on a CPU)")
    parser.add_argument(
        "--rounds", type=shapes.positive, default=3, help="of ours and published, in turn; medians count"
    )
    parser.add_argument("--checked", type=shapes.positive, default=8, help="questions whose answers are compared")
    args = shapes.read_flags(parser, argv)
    on_cpu = args.device == "cpu"
    args.mean, args.longest = args.mean or (40 if on_cpu else 250), args.longest or (240 if on_cpu else 1500)

    evaluation = Evaluation(args, args.dtype, args.questions)
    shapes.start_peak(args.device)
    loaded, peaks = shapes.memory(args.device)[0], {"ours": [], "published": []}
    tokens = [len(one) for samples in evaluation.ours().values() for one in samples]  # not timed: warms up
    evaluation.published_batch(evaluation.examples[: args.batch_size])
    seconds = {"ours": [], "published": []}
    for i in range(args.rounds):
        for name, times in seconds.items():
            shapes.start_peak(args.device)
            times.append(shapes.seconds_of(getattr(evaluation, name), args.device))
            peaks[name].append(shapes.memory(args.device)[1])
            print(f"round {i + 1}: {name} {args.questions / times[-1]:.3f} questions/s", flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    peak = {name: statistics.median(found) for name, found in peaks.items()}
    del evaluation
    small = Evaluation(args, "float32", args.checked)
    same = small.ours() == small.ours(batch_size=1)
    figures = {
        "benchmark": "evaluate",
        "speedup": medians["published"] / medians["ours"],
        "questions_per_second": {name: args.questions / time for name, time in medians.items()},
        "tokens_per_second": {name: sum(tokens) / time for name, time in medians.items()},
        "seconds": seconds,
        "memory_ratio": (peak["ours"] - loaded) / (peak["published"] - loaded),
        "peak_above_models": {name: found - loaded for name, found in peak.items()},
        "peak": peak,
        "generator": "small_block",
        "same_answers": same,
        "shape": args.shape,
        "dtype": args.dtype,
        "batch": args.batch_size,
        "questions": args.questions,
        "samples": args.samples,
        "tokens_per_answer": {"mean": statistics.mean(tokens), "longest": max(tokens)},
        "rows": shapes.rows_source(args.shape, args.data_dir),
        "device": shapes.machine(args.device),
        "versions": versions(),
    }
    line = json.dumps(figures)
    if args.out:
        args.out.write_text(line + "\n")
    print(line)
    return figures


if __name__ == "__main__":
    main()
