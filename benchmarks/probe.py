"""A linear probe: what the layers of a frozen LM know about the operation that a question needs.

    python benchmarks/probe.py models/smollm2-135m --out benchmarks/study/probe.json

rows     the task asdiv, train and test, where the formula is one operation on two numbers; its sign is the label
states   of the question's turn as small_block gives it to a small LM, behind each layer k and the LM's last norm: what
         --reader_layers k reads, k = 0 the embeddings. Of the last token, and the mean over the question's own tokens
probe    logistic regression on standardised states with an L2 penalty. Those of PENALTIES are tried on a held-out fifth
         of the train rows; the best is fitted to all of them

Beside it are the operation that train has most often, and the same probe on counts of the question's tokens (centred,
not scaled): what its words say without an LM. `differing` is the share of the states' mean square that is variance over
the questions: a generator reads them as they are, with all that the questions have in common. Intervals are 95 %
intervals over the test rows; `over_counts` is the paired difference to the probe on counts. On two cores
SmolLM2-135M takes 6 minutes.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks import shapes  # noqa: E402
from lta_thinker.common import InputError, versions, write_text  # noqa: E402
from lta_thinker.data_loader import PROMPTS, TASKS, load_split  # noqa: E402
from lta_thinker.evaluation.intervals import Interval, difference_interval, share_interval  # noqa: E402
from lta_thinker.llm.forward import attention_mask, body, position_ids  # noqa: E402
from lta_thinker.llm.frozen import LmSource, check_vocabulary, fingerprint, load_frozen_lm, load_tokenizer  # noqa: E402
from lta_thinker.rows.batch import PromptCollator, pad  # noqa: E402
from lta_thinker.rows.layout import Layout  # noqa: E402

OPERATIONS = "+-*/"
UNIT = re.compile(r"\([^()\d]*[A-Za-z][^()\d]*\)")  # (min/hour)
ONE_OPERATION = re.compile(r"[\d.,() ]+([-+*/])[\d.,() ]+=[^-+*/^=:;]*")  # 94/8=11 r6
PLACES = ("last_token", "question_mean")
PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
SEED = 41  # of the held-out fifth

# ---------------------------------------------------------------------------------------------------------------------
# Rows and states


def operation(steps: Sequence[str]) -> str | None:
    """The sign of a formula that is one operation on two numbers; None for any other, such as an equation in x."""
    found = ONE_OPERATION.fullmatch(UNIT.sub("", "; ".join(steps)).strip())
    return found[1] if found else None


def prompt_rows(layout: Layout, questions: list[str]) -> list[dict]:
    """Rows of Layout.prompts, and of each `inside`: for every token of its `question` 1 where it is of the question's
    own words, else 0 (the template's, the instruction's)."""
    turn, rows = layout.generator, layout.prompts(questions)
    texts = [turn.before + question + turn.suffix.removesuffix(turn.header) for question in questions]
    encoded = layout.generator_tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    begin = len(turn.before)
    for row, question, spans in zip(rows, questions, encoded.offset_mapping, strict=True):
        row["inside"] = [int(first < begin + len(question) and last > begin) for first, last in spans]
    return rows


@torch.no_grad()
def read_states(lm, layout: Layout, rows: list[dict], batch_size: int) -> dict[str, Tensor]:
    """R rows of prompt_rows -> by place, the states behind each layer and the last norm: (L + 1, R, d) float32."""
    base, collator = body(lm), PromptCollator(layout)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["question"]))  # less padding
    found = {place: [] for place in PLACES}
    for start in tqdm(range(0, len(rows), batch_size), desc="states", disable=None):
        part = [rows[i] for i in order[start : start + batch_size]]
        batch = {name: columns.to(lm.device) for name, columns in collator(part).items()}
        ids, mask = batch["question_ids"], batch["question_mask"]
        allowed, positions = attention_mask(lm, mask, mask.shape[1]), position_ids(mask)
        out = base(
            input_ids=ids, attention_mask=allowed, position_ids=positions, use_cache=False, output_hidden_states=True
        )
        *inner, last = out.hidden_states  # the last ones are normed
        states = torch.stack([*map(base.norm, inner), last])
        inside = pad([row["inside"] for row in part], 0, left=True)[0].to(states)
        found["last_token"].append(states[:, :, -1].to("cpu", copy=True))  # a view would keep all columns
        found["question_mean"].append(torch.einsum("lbtd,bt->lbd", states, inside / inside.sum(1, True)).cpu())
    back = torch.tensor(order).argsort()
    return {place: torch.cat(parts, dim=1)[:, back] for place, parts in found.items()}


def differing(states: Tensor) -> float:
    """Share of the mean square of states (R, d) that is variance over the rows; the rest is the same in all of them."""
    return (states.double().var(0, correction=0).mean() / states.double().square().mean()).item()


def token_counts(rows: list[dict], num_train: int) -> Tensor:
    """Rows of prompt_rows -> (R, V) float32: how often each has the tokens of the first `num_train` rows' questions."""
    counts = [Counter(token for token, own in zip(row["question"], row["inside"], strict=True) if own) for row in rows]
    known = sorted(set().union(*counts[:num_train]))
    return torch.tensor([[float(count[token]) for token in known] for count in counts])


# ---------------------------------------------------------------------------------------------------------------------
# The probe


def centred(fitted: Tensor, asked: Tensor, scale: bool) -> tuple[Tensor, Tensor]:
    """Both (., F) less the mean of `fitted`, in float64; with `scale` over its standard deviation too, zeros where it
    is constant."""
    fitted, asked = fitted.double(), asked.double()
    mean, deviation = fitted.mean(0), fitted.std(0)
    constant = deviation < 1e-6 * (1 + mean.abs())  # but for rounding
    divisor = deviation.masked_fill(constant, torch.inf) if scale else torch.ones_like(mean)
    return (fitted - mean) / divisor, (asked - mean) / divisor


def fit(features: Tensor, labels: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """The least of mean cross-entropy + penalty / 2 * |weight|^2 on features (R, F) float64 and labels (R,) int64:
    weight (4, F) and bias (4,). The problem is convex and the start is zero: no seed."""
    weight = features.new_zeros(len(OPERATIONS), features.shape[1], requires_grad=True)
    bias = features.new_zeros(len(OPERATIONS), requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=1000, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(features, weight, bias), labels) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)  # pyright: ignore[reportArgumentType] (a Tensor, as its own examples have it)
    return weight.detach(), bias.detach()


def predict(fitted: Tensor, labels: Tensor, asked: Tensor, penalty: float, scale: bool) -> tuple[Tensor, Tensor]:
    """Fit on `fitted` (R, F) with labels (R,) -> log-probabilities of its own rows (R, 4) and of those asked."""
    own, others = centred(fitted, asked, scale)
    weight, bias = fit(own, labels, penalty)
    return F.linear(own, weight, bias).log_softmax(-1), F.linear(others, weight, bias).log_softmax(-1)


def probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, scale: bool = True
) -> tuple[dict, Tensor]:
    """Features (., F) and labels (.,) int64 of both splits -> the figures, and which test rows are right, (.,) bool.

    The penalty is the one of PENALTIES with the least cross-entropy on the held-out fifth of train. `scale`: features
    are standardised, not only centred.
    """
    shuffled = torch.randperm(len(train), generator=torch.Generator().manual_seed(SEED))
    held, kept = shuffled[: len(train) // 5], shuffled[len(train) // 5 :]
    tried = []
    for penalty in PENALTIES:
        _, guesses = predict(train[kept], train_labels[kept], train[held], penalty, scale)
        share = (guesses.argmax(-1) == train_labels[held]).double().mean().item()
        tried.append((F.nll_loss(guesses, train_labels[held]).item(), penalty, share))
    _, penalty, held_out = min(tried)
    own, guesses = predict(train, train_labels, test, penalty, scale)
    right = guesses.argmax(-1) == test_labels
    figures = {
        "penalty": penalty,
        "held_out_accuracy": held_out,
        "train_accuracy": (own.argmax(-1) == train_labels).double().mean().item(),
        "accuracy": asdict(share_interval(right)),
    }
    return figures, right


# ---------------------------------------------------------------------------------------------------------------------
# The run


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; python benchmarks/probe.py --help")


def load_rows(split: str, data_dir: str) -> tuple[list[str], Tensor, dict]:
    """Questions of one operation in a split of asdiv, their labels (R,) int64, and the counts. Raises InputError for
    missing files, and where fewer than five rows have one operation."""
    found = load_split(TASKS["asdiv"], split, data_dir)
    pairs = [(example.question, sign) for example in found.examples if (sign := operation(example.steps))]
    if len(pairs) < 5:
        raise InputError(f"{found.source}: {len(pairs)} formulas are of one operation, and a probe needs 5")
    signs = Counter(sign for _, sign in pairs)
    counts = {
        "rows": len(pairs),
        "left_out": len(found.examples) - len(pairs),
        "operations": {sign: signs[sign] for sign in OPERATIONS},
    }
    return [question for question, _ in pairs], torch.tensor([OPERATIONS.index(sign) for _, sign in pairs]), counts


def load_lm(folder: str) -> tuple:
    """(LM in float32, its layout). Raises InputError where it cannot be loaded, or has no `norm` behind its layers."""
    source = LmSource(folder, "model", device="cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, lm = load_tokenizer(source), load_frozen_lm(source)
    layout = Layout(tokenizer, tokenizer, PROMPTS["number"])
    check_vocabulary(lm, tokenizer, layout.generator_ids, source.flag)
    if not hasattr(body(lm), "norm"):
        raise InputError(f"{source.name}: {type(body(lm)).__name__} has no `norm` behind its layers")
    return lm, layout


def run(args: argparse.Namespace) -> dict:
    """All figures of the model args.model."""
    begin = time.perf_counter()
    (train, train_labels, train_counts), (test, test_labels, test_counts) = (
        load_rows(split, args.data_dir) for split in ("train", "test")
    )
    lm, layout = load_lm(args.model)
    rows, n = prompt_rows(layout, train + test), len(train)
    states = read_states(lm, layout, rows, args.batch_size)
    read = time.perf_counter()

    most = int(train_labels.bincount(minlength=len(OPERATIONS)).argmax())
    counts = token_counts(rows, n)
    # standardised, a word that is there once would weigh most: less is right then
    of_counts, counts_right = probe(counts[:n], train_labels, counts[n:], test_labels, scale=False)
    layers = []
    for layer in tqdm(range(len(states["last_token"])), desc="probes", disable=None):
        figures: dict = {"layer": layer}
        for place in PLACES:
            features = states[place][layer]
            figures[place], right = probe(features[:n], train_labels, features[n:], test_labels)
            figures[place]["differing"] = differing(features)
            figures[place]["over_counts"] = asdict(difference_interval(counts_right, right))
        layers.append(figures)
    return {
        "benchmark": "probe",
        "model": Path(args.model).name,
        "fingerprint": fingerprint(lm),
        "train": train_counts,
        "test": test_counts,
        "majority": {"operation": OPERATIONS[most], "accuracy": asdict(share_interval(test_labels == most))},
        "token_counts": {"tokens": counts.shape[1]} | of_counts,
        "layers": layers,
        "penalties": PENALTIES,
        "device": shapes.machine(lm.device.type),
        "versions": versions(),
        "seconds": {"states": read - begin, "probes": time.perf_counter() - read},
    }


def table(figures: dict) -> str:
    """The test accuracies as lines of text, in % with their intervals."""

    def percent(found: dict) -> str:
        return Interval(**found["accuracy"]).percent

    lines = [f"majority ({figures['majority']['operation']}): {percent(figures['majority'])}"]
    lines += [f"token counts: {percent(figures['token_counts'])}", f"{'layer':8}{PLACES[0]:22}{PLACES[1]}"]
    for layer in figures["layers"]:
        lines.append(f"{layer['layer']:<8}{percent(layer[PLACES[0]]):22}{percent(layer[PLACES[1]])}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line; an InputError is one line."""
    parser = _Parser(
        prog="benchmarks/probe.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="the LM's folder or hub id")
    parser.add_argument("--data_dir", default="data", help="folder with asdiv/train.jsonl and asdiv/test.jsonl")
    parser.add_argument("--batch_size", type=shapes.positive, default=16, help="questions at a time")
    parser.add_argument("--out", type=Path, required=True, help="the file of the figures, one JSON object")
    try:
        args = parser.parse_args(argv)
        if not args.out.parent.is_dir() or args.out.is_dir():
            raise InputError(f"--out {args.out}: not a file in a folder that is there")
        figures = run(args)
    except InputError as error:
        sys.exit(f"error: {error}")
    write_text(args.out, json.dumps(figures) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
