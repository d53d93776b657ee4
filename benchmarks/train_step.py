"""Times a training step as this project runs it against the published way, in turn, in one process.

    python benchmarks/train_step.py --shape cpu --generator block --data_dir ../shared/data     # last line: JSON
    python benchmarks/train_step.py --shape 8b --batch_size 16 --baseline none                  # ours alone
    python benchmarks/train_step.py --shape cpu --generator small_block --baseline balanced     # what balancing costs
    python benchmarks/train_step.py --shape cpu --scaling --data_dir ../shared/data             # tokens, vocabulary

A step is forward and backward of --accumulation micro-batches of --batch_size rows; same weights, rows and losses on
both sides, ours with the rows of a step sorted by length, as train.py has them. The published way, in our own plain
words: one generator pass over question, steps and slots, its projection and block over all tokens; the small LM called
as a causal LM (logits and all) every step; logits of the large LM at every token, gradients through the whole prompt;
loops over rows and slots that read numbers back. Ours keeps the steps out of the thoughts (two generator passes); with
thoughts_see_steps both compute the same, and so losses and gradients are compared before the timing. The small LM's
states are at hand on our side, as train.py keeps them (it makes them once, before the first epoch).
"""

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from accelerate import Accelerator  # noqa: E402

from benchmarks import shapes  # noqa: E402
from lta_thinker.common import versions, write_text  # noqa: E402
from lta_thinker.data_loader import PROMPTS  # noqa: E402
from lta_thinker.losses import LOSSES, Objective  # noqa: E402
from lta_thinker.model import GENERATORS, LatentThoughtModel  # noqa: E402
from lta_thinker.rows.batch import TrainingCollator, loss_counts  # noqa: E402
from lta_thinker.rows.examples import Example  # noqa: E402
from lta_thinker.rows.layout import Layout, pad_token_id  # noqa: E402
from lta_thinker.training.balance import LossBalance  # noqa: E402

THREE = {"sft": 0.33, "align": 0.33, "focus": 0.33, "diversity": 0.0}


# ---------------------------------------------------------------------------------------------------------------------
# The published way


def right_padded(rows: list[list[int]], value: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [value] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask


def published_batch(model: LatentThoughtModel, layout: Layout, rows: list[dict], device: str) -> dict:
    """Right-padded ids with the slots inside, and each row's positions as Python numbers."""
    n, slots = model.num_thoughts, [model.slot_ids[0]] * model.num_thoughts
    llm_pad, generator_pad = pad_token_id(layout.llm_tokenizer), pad_token_id(layout.generator_tokenizer)
    prompts = [row["prefix"] + [llm_pad] * n + row["suffix"] for row in rows]
    labels = [[-100] * len(prompt) + row["target"] for prompt, row in zip(prompts, rows, strict=True)]
    texts = [row["question"] + sum(row["steps"], row["header"]) for row in rows]
    step_ends = []
    for row in rows:
        end = len(row["question"]) + len(row["header"]) - 1
        step_ends.append([end := end + len(step) for step in row["steps"]])
    targets = [prompt + row["target"] for prompt, row in zip(prompts, rows, strict=True)]
    return {
        "llm": right_padded(targets, llm_pad, device),
        "labels": right_padded(labels, -100, device)[0],
        "generator": right_padded([text + slots for text in texts], generator_pad, device),
        "llm_slots": [len(row["prefix"]) for row in rows],
        "slots": [len(text) for text in texts],
        "question_ends": [len(row["question"]) - 1 for row in rows],
        "step_ends": step_ends,
        "answers": [torch.tensor(row["answer"], device=device) for row in rows],
    }


def published_loss(model: LatentThoughtModel, batch: dict, temperature: float = 0.1) -> torch.Tensor:
    """The three losses' weighted sum, as one would write it without looking at the clock."""
    (llm, small_lm), generator, n = model.frozen, model.generator, model.num_thoughts
    ids, mask = batch["generator"]
    with torch.autocast(ids.device.type, dtype=llm.dtype, enabled=llm.dtype != torch.float32):
        if small_lm is None:
            x = llm.get_input_embeddings()(ids)
        else:
            x = small_lm(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
            x = generator.projection(x)
        if generator.has_block:
            x = x.float()
            for i, start in enumerate(batch["slots"]):
                slots = slice(start, start + n)
                x[i, slots] = generator.at_slots(x[i, slots], generator.prior)
            x = generator.block(x, mask, torch.arange(x.shape[1], device=x.device).expand(len(x), -1))
            x = x if generator.projection_first else generator.projection(x)
    ids, mask = batch["llm"]
    inputs = llm.get_input_embeddings()(ids)
    for i, start in enumerate(batch["llm_slots"]):
        thoughts = x[i, batch["slots"][i] : batch["slots"][i] + n]
        inputs[i, start : start + n] = thoughts.to(inputs.dtype)
    sft = llm(inputs_embeds=inputs, attention_mask=mask, labels=batch["labels"], use_cache=False).loss
    align, focus = [], []
    for i, start in enumerate(batch["slots"]):
        z_question = x[i, batch["question_ends"][i]].float()
        question = F.log_softmax(z_question, -1)
        for j in range(n):
            thought = F.log_softmax(x[i, start + j].float(), -1)
            align.append(F.kl_div(thought, question, reduction="sum", log_target=True))
        if not batch["step_ends"][i]:
            continue
        steps = torch.stack([x[i, end] for end in batch["step_ends"][i]]).float()
        answer = llm.get_input_embeddings()(batch["answers"][i]).float().mean(0)
        best, positive = -2.0, 0
        for k, step in enumerate(steps):
            similarity = F.cosine_similarity(answer, step, dim=0).item()
            if similarity > best:
                best, positive = similarity, k
        logits = torch.stack([F.cosine_similarity(z_question, step, dim=0) / temperature for step in steps])
        focus.append(F.cross_entropy(logits[None], torch.tensor([positive], device=logits.device)))
    losses = {"sft": sft, "align": torch.stack(align).mean(), "focus": torch.stack(focus).mean()}
    return sum(model.weights[name] * loss for name, loss in losses.items())


# ---------------------------------------------------------------------------------------------------------------------
# Ours


def our_loss(model: LatentThoughtModel, batch: dict) -> torch.Tensor:
    """The same weighted sum, as ThoughtTrainer.compute_loss makes it."""
    sums = model(**batch)
    counts = dict(zip(LOSSES, loss_counts(batch).clamp(min=1e-9), strict=True))
    return sum(model.weights[name] * total / counts[name] for name, total in sums.items())


# ---------------------------------------------------------------------------------------------------------------------
# Lower bound


def least_operations(model: LatentThoughtModel, batch: dict) -> float:
    """Floating-point operations that a step cannot do without: the large LM's prefix forward, the rest of its prompt
    and target forward and backward to its inputs; its head on the target tokens, once for the logits and once for the
    gradient; the generator forward and backward (to weights and, but for its first product, inputs). The small LM's
    states are kept, padding is not counted; nor is what is no matrix product."""
    llm = model.llm

    def body(lm, length: torch.Tensor, start: torch.Tensor) -> float:  # tokens start..length of rows, forward
        config = lm.config
        tables = {id(table.weight): table.weight.numel() for table in (lm.get_input_embeddings(), lm.lm_head)}
        weights = sum(p.numel() for p in lm.parameters()) - sum(tables.values())
        width = config.num_attention_heads * config.head_dim * config.num_hidden_layers
        pairs = (length * (length + 1) - start * (start + 1)) / 2  # a token and one that it attends to
        return float(2 * weights * (length - start).sum() + 4 * width * pairs.sum())

    prefix, suffix = batch["prefix_mask"].sum(1).double(), batch["suffix_mask"].sum(1).double() + model.num_thoughts
    total = body(llm, prefix, torch.zeros_like(prefix)) + 2 * body(llm, prefix + suffix, prefix)
    total += 4 * float((batch["labels"] != -100).sum()) * llm.lm_head.weight.numel()
    question, steps = batch["question_mask"].sum(1).double(), batch["step_mask"].sum(1).double()
    lengths = torch.stack([question + model.num_thoughts, question + steps])
    asked = float(len(question) * (1 + model.num_thoughts) + batch["step_valid"].sum())
    read = float(lengths.sum())
    generator = model.generator
    if generator.has_projection:
        tokens = read if generator.has_block and generator.projection_first else asked
        total += 4 * tokens * generator.projection.weight.numel()
    if generator.has_block:
        d = generator.prior.shape[1]
        total += 6 * 2 * d * d * (read + asked) + 6 * asked * 2 * generator.block.linear1.weight.numel()
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


class Side:
    """One way to run a step: its seconds and peaks, round by round."""

    def __init__(self, model: LatentThoughtModel, loss, batches: list[dict], device: str):
        self.model, self.loss, self.batches, self.device = model, loss, batches, device
        self.seconds, self.peaks, self.value = [], [], None

    def step(self) -> None:
        self.model.zero_grad(set_to_none=True)
        for batch in self.batches:
            loss = self.loss(self.model, batch)
            loss.backward()
            self.value = loss.detach()

    def measure(self) -> None:
        shapes.start_peak(self.device)
        self.seconds.append(shapes.seconds_of(self.step, self.device))
        self.model.zero_grad(set_to_none=True)
        self.peaks.append(shapes.memory(self.device)[1])

    def gradients(self) -> torch.Tensor:
        self.step()
        trained = [p.grad.flatten() for p in self.model.parameters() if p.grad is not None]
        return torch.cat(trained).float()


class BalancedSide(Side):
    """Our step with balanced losses (training/balance.py), over the same batches."""

    def step(self) -> None:
        self.model.zero_grad(set_to_none=True)
        balance = LossBalance(self.model, Accelerator(cpu=self.device == "cpu"))
        for batch in self.batches:
            sums = self.model(**batch)
            counts = dict(zip(LOSSES, loss_counts(batch).clamp(min=1e-9), strict=True))
            for name in ("align", "focus"):
                balance.add(name, sums[name] / counts[name])
            (self.model.weights["sft"] * sums["sft"] / counts["sft"]).backward()
        balance.finish(self.model.weights)


def in_turn(sides: list[Side], rounds: int) -> None:
    """A B A B ...; the first round warms up and is forgotten."""
    for _ in range(rounds + 1):
        for side in sides:
            side.measure()
    for side in sides:
        side.seconds, side.peaks = side.seconds[1:], side.peaks[1:]


def build(args, pair: shapes.Pair, generator: str, thoughts_see_steps: bool = False):
    """(model, layout) with seeded trained weights; the prior of small_block not left at its zeros."""
    uses_small = GENERATORS[generator].uses_small_lm
    tokenizer = pair.small_tokenizer if uses_small else pair.llm_tokenizer
    layout = Layout(pair.llm_tokenizer, tokenizer, PROMPTS["number"])
    torch.manual_seed(0)
    small_lm, slot_id = pair.small_lm if uses_small else None, pad_token_id(tokenizer)
    weights = THREE | ({"align": 0.0, "focus": 0.0} if args.sft_alone else {})
    objective = Objective(weights)
    model = LatentThoughtModel(
        generator,
        pair.llm,
        small_lm,
        args.num_thoughts,
        slot_id,
        objective=objective,
        thoughts_see_steps=thoughts_see_steps,
    )
    if generator == "small_block":
        torch.nn.init.normal_(model.generator.prior, std=0.02)
    return model.to(args.device).train(), layout


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def compare(args, pair: shapes.Pair, layout: Layout, rows: list[dict]) -> dict:
    """Relative differences of loss and gradients, ours against published, where both compute the same thing."""
    model, _ = build(args, pair, args.generator, thoughts_see_steps=True)
    ours, published = sides(args, model, layout, rows[: args.batch_size])
    gradients = relative(ours.gradients(), published.gradients())
    return {"loss": relative(ours.value, published.value), "gradients": gradients}


def row_length(row: dict) -> int:
    return len(row["prefix"]) + len(row["suffix"]) + len(row["target"])


def sides(args, model: LatentThoughtModel, layout: Layout, rows: list[dict]) -> list[Side]:
    """Ours with the plain sum of the losses, and --baseline's."""

    def micro_batches(rows: list[dict]) -> list[list[dict]]:
        return [rows[start : start + args.batch_size] for start in range(0, len(rows), args.batch_size)]

    collator, ours = TrainingCollator(layout, steps=not args.sft_alone or model.thoughts_see_steps), []
    for group in micro_batches(sorted(rows, key=row_length, reverse=True)):
        batch = {name: value.to(args.device) for name, value in collator(group).items()}
        if model.generator.uses_small_lm and not model.thoughts_see_steps:  # as from the file that train.py keeps
            of_thoughts, of_steps = model.states(batch)
            batch |= {"thought_states": of_thoughts} | ({"step_states": of_steps} if collator.steps else {})
        ours.append(batch)
    made = [Side(model, our_loss, ours, args.device)]
    if args.baseline == "published":
        published = [published_batch(model, layout, group, args.device) for group in micro_batches(rows)]
        made.append(Side(model, published_loss, published, args.device))
    if args.baseline == "balanced":
        made.append(BalancedSide(model, our_loss, ours, args.device))
    return made


def run(args, pair: shapes.Pair, loaded: int, rate: float) -> dict:
    """One comparison: a row of the results."""
    model, layout = build(args, pair, args.generator)
    count = args.batch_size * args.accumulation
    rows = [layout.training(row) for row in shapes.benchmark_rows(args.shape, count, args.data_dir)]
    names = ("generator", "shape", "dtype", "attention", "accumulation", "sft_alone")
    result = {name: getattr(args, name) for name in names} | {"batch": args.batch_size}
    if args.baseline == "published":
        result["differences"] = compare(args, pair, layout, rows)
    both = sides(args, model, layout, rows)
    in_turn(both, args.rounds)
    if args.profile:
        with torch.profiler.profile() as profile:
            both[0].step()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=50))
    batch = TrainingCollator(layout, steps=True)(rows)
    operations = least_operations(model, batch)
    tokens = sum(row_length(row) + args.num_thoughts for row in rows)
    seconds, peak = statistics.median(both[0].seconds), statistics.median(both[0].peaks)
    result |= {
        "tokens": tokens,
        "targets": sum(len(row["target"]) for row in rows),
        "seconds": seconds,
        "tokens_a_second": tokens / seconds,
        "share_of_matrix_rate": operations / seconds / rate,
        "least_seconds": operations / rate,
        "matrix_rate": rate,
        "peak_above_models": peak - loaded,
        "peak": peak,
    }
    if args.baseline == "balanced":
        balanced, its_peak = statistics.median(both[1].seconds), statistics.median(both[1].peaks)
        result |= {"balanced_over_plain": balanced / seconds, "balanced_peak_above_models": its_peak - loaded}
    if args.baseline == "published":
        published, its_peak = statistics.median(both[1].seconds), statistics.median(both[1].peaks)
        result |= {
            "published_seconds": published,
            "speedup": published / seconds,
            "memory_ratio": (peak - loaded) / (its_peak - loaded),
            "published_peak_above_models": its_peak - loaded,
            "published_peak": its_peak,
        }
    return result


def times_as_long(examples: list[Example], factor: int) -> list[Example]:
    """As many rows, each of `factor` neighbours' questions and steps one after the other."""
    rows = []
    for i in range(len(examples)):
        group = [examples[(i + k) % len(examples)] for k in range(factor)]
        question = " ".join(example.question for example in group)
        rows.append(Example(i, question, sum((example.steps for example in group), ()), group[-1].answer))
    return rows


def scaling(args, pair: shapes.Pair, loaded: int, doubled: shapes.Pair) -> dict:
    """Our step with rows 1, 2 and 4 times as long, and with twice the vocabulary, in turn."""
    examples = shapes.benchmark_rows(args.shape, args.batch_size * args.accumulation, args.data_dir)
    args.baseline, settings, found = "none", [(1, pair), (2, pair), (4, pair), (1, doubled)], []
    for factor, models in settings:
        model, layout = build(args, models, args.generator)
        rows = [layout.training(example) for example in times_as_long(examples, factor)]
        found.append((sum(row_length(row) + args.num_thoughts for row in rows), *sides(args, model, layout, rows)))
    in_turn([side for _, side in found], args.rounds)
    result = {"generator": args.generator, "shape": args.shape, "dtype": args.dtype, "batch": args.batch_size}
    result["runs"] = [
        {
            "times_as_long": factor,
            "vocabulary": models.llm.config.vocab_size,
            "tokens": tokens,
            "seconds": statistics.median(side.seconds),
            "peak_above_models": statistics.median(side.peaks) - loaded,
        }
        for (factor, models), (tokens, side) in zip(settings, found, strict=True)
    ]
    return result


def main(argv: list[str] | None = None) -> None:
    parser = shapes.flags(__doc__)
    parser.add_argument("--generator", choices=("block", "small", "small_block"), default="block")
    parser.add_argument("--baseline", choices=("published", "balanced", "none"), default="published")
    parser.add_argument("--accumulation", type=shapes.positive, default=4, help="micro-batches a step (published: 4)")
    parser.add_argument("--num_thoughts", type=shapes.positive, default=32)
    parser.add_argument("--rounds", type=shapes.positive, default=5, help="timed, each of ours and published")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="of both sides")
    parser.add_argument("--sft_alone", action="store_true", help="the SFT loss alone counts; published computes all")
    parser.add_argument("--scaling", action="store_true", help="ours alone: longer rows, a larger vocabulary")
    parser.add_argument("--profile", action="store_true", help="print our step's operators by their own time too")
    args = shapes.read_flags(parser, argv)
    dtype = getattr(torch, args.dtype)
    uses_small = GENERATORS[args.generator].uses_small_lm
    pair = shapes.load_pair(args.shape, dtype, args.device, uses_small, args.data_dir, attention=args.attention)
    if args.scaling:
        twice = 2 * pair.llm.config.vocab_size
        doubled = shapes.load_pair(args.shape, dtype, args.device, uses_small, args.data_dir, twice, args.attention)
    shapes.start_peak(args.device)
    loaded = shapes.memory(args.device)[0]
    rate = shapes.matrix_rate(dtype, args.device, 2048 if args.device == "cpu" else 8192)
    result = scaling(args, pair, loaded, doubled) if args.scaling else run(args, pair, loaded, rate)
    result |= {
        "rows": shapes.rows_source(args.shape, args.data_dir),
        "device": shapes.machine(args.device),
        "versions": versions(),
    }
    for name, value in result.items():
        print(f"  {name} = {value}")
    if args.out:
        write_text(args.out, json.dumps(result) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
