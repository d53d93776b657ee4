"""How near --estimate comes: a training step and a decode step over real tensors, and the same over fake ones.

    python benchmarks/estimate.py --shape cpu --dtype float32 --rows 40        # live bytes and operations; JSON last
    python benchmarks/estimate.py --shape 8b --batches 4,16 --rows 40,160      # on a GPU: its peak, seconds, shares
    python benchmarks/estimate.py --shape 8b --recorded --data_dir ../shared/data   # the steps of docs/results/speed.md

real       the models with random weights on the device: of a CPU the bytes of live tensors, of a GPU PyTorch's own peak
           and the seconds (the median of --rounds)
estimated  the same code over fake tensors, as train.py and evaluate.py --estimate run it

The three losses are balanced, the optimiser is the library's default, gradients are there already: a micro-batch in the
middle of a step. A decode step writes a token in each of --rows rows behind --columns columns of cache. --recorded
needs no GPU: it estimates the steps that benchmarks/train_step.py has timed on an H200, beside what was measured.
"""

import contextlib
import gc
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks import shapes  # noqa: E402
from benchmarks.train_step import our_loss, row_length  # noqa: E402
from lta_thinker.common import versions, write_text  # noqa: E402
from lta_thinker.data_loader import PROMPTS  # noqa: E402
from lta_thinker.estimate.cards import CARDS, MEASURED, seconds_of  # noqa: E402
from lta_thinker.estimate.cost import Cost, Counter, on_fake_tensors  # noqa: E402
from lta_thinker.evaluation.estimate import TABLES, hold_cache, lengthen  # noqa: E402
from lta_thinker.generation import sampling  # noqa: E402
from lta_thinker.generation.decoding import ReadPrompts, Rows  # noqa: E402
from lta_thinker.generation.prompts import make_requests  # noqa: E402
from lta_thinker.generation.sampling import PUBLISHED_SAMPLING, SamplingSettings  # noqa: E402
from lta_thinker.losses import Objective  # noqa: E402
from lta_thinker.model import GENERATORS, LatentThoughtModel, llm_inputs  # noqa: E402
from lta_thinker.rows.batch import PromptCollator, TrainingCollator  # noqa: E402
from lta_thinker.rows.layout import Layout, pad_token_id  # noqa: E402
from lta_thinker.training.estimate import Step, with_fake_states  # noqa: E402
from lta_thinker.training.flags import TrainArguments  # noqa: E402

OBJECTIVE = Objective({"sft": 1.0, "align": 0.33, "focus": 0.33, "diversity": 0.0})
CARD = {"H100": "h100", "H200": "h200", "A100": "a100", "4090": "4090"}  # by what a device's name has in it


# a row of speed.md's table: generator, batch, our seconds, our peak above the models in GB
RECORDED = re.compile(
    r"^\| `(\w+)`, (\d+)[^|]*\|[^|]*\|[^|]*\| ([\d.]+) \|[^|]*\| [\d.]+, ([\d.]+): .*TFLOP/s", re.MULTILINE
)


class Side:
    """The models of a shape, on a device or on fake tensors (device "fake")."""

    def __init__(self, args, layout: Layout, device: str):
        self.args, self.layout, self.fake, self.device = args, layout, device == "fake", device
        self.device = "cpu" if self.fake else device
        dtype, attention = getattr(torch, args.dtype), "sdpa"
        uses_small = GENERATORS[args.generator].uses_small_lm
        self.lms = [
            shapes.random_lm(sizes, shapes.VOCABULARY, dtype, self.device, attention)
            for sizes in shapes.SHAPES[args.shape][: 1 + uses_small]
        ]
        torch.manual_seed(0)
        small, slot_id = self.lms[1] if uses_small else None, pad_token_id(layout.generator_tokenizer)
        self.model = LatentThoughtModel(args.generator, self.lms[0], small, args.num_thoughts, slot_id, OBJECTIVE)
        if not self.fake:
            self.model.to(self.device)

    def put(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch on the device."""
        if self.fake:
            return {name: torch.empty(value.shape, dtype=value.dtype) for name, value in batch.items()}
        return {name: value.to(self.device) for name, value in batch.items()}

    def training(self, batch: dict[str, Tensor], size: int) -> dict:
        """A micro-batch and the update behind it."""
        flags = {"thought_generator": self.args.generator, "use_cpu": self.device == "cpu"}
        given = TrainArguments(output_name="check", per_device_train_batch_size=size, report_to="none", **flags)
        batch = self.put(batch)
        if self.model.small_lm is not None:
            batch = with_fake_states(self.model, batch)
            batch = {name: value.to(self.device) for name, value in batch.items()}
        counter, found = Counter(), {}
        with counter if self.counts else contextlib.nullcontext():  # the optimiser's states are made here
            step = Step(given, self.model.train(), counter)
        for _ in range(1 if self.counts else 1 + self.args.rounds):
            with counter if self.counts else contextlib.nullcontext():
                step.start()
            with self.measuring(counter, found, "micro"):
                step.micro_batch(batch)
            with self.measuring(counter, found, "update"):
                step.update()
        return found

    @torch.no_grad()
    def decoding(self, prompts: dict[str, Tensor], requests: list, count: int) -> dict:
        """A token in each of `count` rows."""
        cuts = PUBLISHED_SAMPLING["qwen3"]
        samples = count // len(requests)
        settings = SamplingSettings(
            512, **cuts, repetition_penalty=1.0, greedy=False, num_return_sequences=samples, seed=41
        )
        self.model.eval()
        batch, counter, found = self.put(prompts), Counter(), {}
        _, thoughts = self.model.thoughts(batch["question_ids"], batch["question_mask"])
        inputs = llm_inputs(self.model.llm, batch, thoughts[:, :2])
        widths = [inputs["attention_mask"].shape[1]] * len(requests)
        read = ReadPrompts(self.model.llm, settings, dict(enumerate(requests)), inputs, widths)
        rows = Rows(self.model.llm, settings, [0], read)
        del read, inputs, thoughts
        lengthen(rows, self.args.columns)
        counter.hold("models", [*(p for lm in self.lms for p in lm.parameters()), *self.model.parameters()])
        hold_cache(counter, rows)
        rows.step()  # the cache grows
        for _ in range(1 if self.counts else 1 + self.args.rounds):
            with self.measuring(counter, found, "token"):
                for _ in range(1 if self.counts else 10):
                    rows.step()
        if not self.counts:
            found["token"]["seconds"] = [seconds / 10 for seconds in found["token"]["seconds"]]
        return found

    @property
    def counts(self) -> bool:
        """Whether the dispatcher's counts are taken, not a GPU's own figures."""
        return self.device == "cpu"

    @contextlib.contextmanager
    def measuring(self, counter: Counter, found: dict, name: str) -> Iterator[None]:
        """Put what runs within it into `found`: a Cost, or of a GPU the peak and the seconds."""
        if self.counts:
            with counter:
                counter.restart()
                yield
                found[name] = counter.restart()
            return
        shapes.start_peak(self.device)
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        yield
        end.record()
        torch.cuda.synchronize()
        kept = found.setdefault(name, {"peak": 0, "seconds": []})
        kept["peak"] = shapes.memory(self.device)[1]
        kept["seconds"].append(start.elapsed_time(end) / 1000)


def recorded(args, layout: Layout, examples: list) -> list[dict]:
    """The steps in speed.md's table of the 8B shape (the plain sum of the losses, no gradients before): peak above the
    LMs and seconds, measured and estimated."""
    page = (shapes.ROOT / "docs" / "results" / "speed.md").read_text(encoding="utf-8")
    lines = []
    for generator, size, seconds, peak in RECORDED.findall(page):
        args.generator, args.device = generator, "fake"
        rows = sorted(layout.training_rows(examples[: int(size)]), key=row_length, reverse=True)
        batch = TrainingCollator(layout, steps=True)(rows)
        with on_fake_tensors("cuda"):
            side = Side(args, layout, "fake")
            batch = side.put(batch)
            batch = batch if side.model.small_lm is None else with_fake_states(side.model, batch)
            with Counter() as counter:
                counter.hold("LMs", [weight for lm in side.lms for weight in lm.parameters()])
                counter.hold("generator", side.model.parameters())
                our_loss(side.model.train(), batch).backward()
                cost, lms = counter.restart(), counter.live("LMs")
        measured = {"measured_peak_above_lms": 1e9 * float(peak), "measured_seconds": float(seconds)}
        estimated = {"estimated_peak_above_lms": cost.peak - lms}
        estimated |= {"estimated_seconds": seconds_of(cost, CARDS["h200"], args.dtype)}
        ratio = {"peak_ratio": (cost.peak - lms) / (1e9 * float(peak))}
        lines.append({"what": f"{generator} {size}"} | measured | estimated | ratio | {"operations": cost.operations})
    return lines


def compare(name: str, real, estimated: Cost, card: str | None, dtype: str) -> dict:
    """One line of the comparison."""
    line: dict = {"what": name, "estimated_peak": estimated.peak, "operations": estimated.operations}
    line |= {"moved": estimated.moved, "kernels": estimated.kernels}
    if isinstance(real, Cost):
        same = {"real_operations": real.operations, "real_moved": real.moved, "real_kernels": real.kernels}
        return line | {"real_peak": real.peak, "peak_ratio": estimated.peak / real.peak} | same
    seconds = statistics.median(real["seconds"][1:])  # the first warms up
    line |= {"real_peak": real["peak"], "peak_ratio": estimated.peak / real["peak"], "real_seconds": seconds}
    if card:
        sheet = CARDS[card]
        line |= {
            "estimated_seconds": seconds_of(estimated, sheet, dtype),
            "share_of_arithmetic": estimated.operations / seconds / sheet.rates[dtype],
            "share_of_bandwidth": estimated.moved / seconds / sheet.bandwidth,
            "microseconds_a_kernel": seconds / estimated.kernels * 1e6,
        }
    return line


def both_sides(args, layout: Layout, run: Callable[[Side], dict]) -> list[dict]:
    """What `run` finds over real tensors and over fake ones, line by line."""
    # a CPU would count how many candidates tie, and fake ones have no values
    with mock.patch.dict(sampling.ALL_TIES, cpu=False):
        real = run(Side(args, layout, args.device))
        gc.collect()
        with on_fake_tensors(args.device, TABLES if args.device == "cuda" else ()):
            estimated = run(Side(args, layout, "fake"))
    named = [card for word, card in CARD.items() if word in shapes.machine(args.device)]
    card = named[0] if named else None
    return [compare(name, real[name], estimated[name], card, args.dtype) for name in real]


def main(argv: list[str] | None = None) -> list[dict]:
    parser = shapes.flags(str(__doc__), tuple(shapes.SHAPES))  # the toy pair's LMs are no sizes
    parser.add_argument("--generator", choices=("block", "small", "small_block"), default="small_block")
    parser.add_argument("--batches", default="4", help="rows of a micro-batch, several with commas between them")
    parser.add_argument("--rows", default="", help="rows of a decode step, several with commas between them")
    parser.add_argument("--columns", type=shapes.positive, default=400, help="of the cache in a decode step")
    parser.add_argument("--num_thoughts", type=shapes.positive, default=32)
    parser.add_argument("--rounds", type=shapes.positive, default=3, help="timed, on a GPU")
    parser.add_argument("--recorded", action="store_true", help="estimate the steps of docs/results/speed.md instead")
    args = shapes.read_flags(parser, argv)
    batches, decoded = ([int(word) for word in words.split(",") if word] for words in (args.batches, args.rows))
    toy = shapes.load_tokenizer(shapes.LmSource(str(shapes.ROOT / "toy" / "large"), "--shape"))
    examples = shapes.benchmark_rows(args.shape, 1319, args.data_dir)
    texts = ["\n".join([row.question, *row.steps, row.answer]) for row in examples]
    tokenizer = shapes.bpe_tokenizer(texts, str(toy.chat_template))
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"])
    collator, prompts = TrainingCollator(layout, steps=True), {}
    training = {}
    for size in batches:
        rows = layout.training_rows(examples[:size])
        training[size] = collator(sorted(rows, key=row_length, reverse=True))
    for count in decoded:
        requests = make_requests(layout, examples[: max(1, count // 10)])
        prompts[count] = PromptCollator(layout)([request.prompt for request in requests]), requests

    def run(side: Side) -> dict:
        found = {}
        for size, batch in training.items():
            for name, cost in side.training(batch, size).items():
                found[f"{name} {size}"] = cost
        for count, (batch, requests) in prompts.items():
            found[f"token {count}"] = side.decoding(batch, requests, count)["token"]
        return found

    lines = recorded(args, layout, examples) if args.recorded else both_sides(args, layout, run)
    for line in lines:
        words = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items()]
        print(f"  {', '.join(words)}")
    result = {"benchmark": "estimate", "shape": args.shape, "dtype": args.dtype, "generator": args.generator}
    result |= {
        "lines": lines,
        "device": args.device if args.recorded else shapes.machine(args.device),
        "versions": versions(),
    }
    result |= {
        "measured": MEASURED.what,
        "columns": args.columns,
        "rows": shapes.rows_source(args.shape, args.data_dir),
    }
    if args.out:
        write_text(args.out, json.dumps(result) + "\n")
    print(json.dumps(result))
    return lines


if __name__ == "__main__":
    main()
