"""Inspection: what a checkpoint's thoughts are, and whether the frozen LLM uses them, on K questions.

    python evaluate.py --checkpoint ckpt/NAME --inspect 20

It shows the words whose embeddings lie nearest to the thoughts, how far the thoughts lie outside the embedding table,
how much attention the answer pays to them, and accuracy and SFT loss when they are replaced by another question's, by
the mean over the questions, or by zeros. By how much the loss rises is their information. inspect_thoughts writes
inspection.json, inspection.svg and inspection.png (needs matplotlib).

Shapes: K questions, n thoughts of each in the prompt, d hidden size, V rows of the embedding table, L attention layers.
"""

import contextlib
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lta_thinker.common import InputError, counted, write_json
from lta_thinker.evaluation.intervals import Interval, mean_interval, nats, share_interval
from lta_thinker.evaluation.plots import load_matplotlib
from lta_thinker.evaluation.report import INSPECTION_FILE
from lta_thinker.generation.decoding import decode
from lta_thinker.generation.prompts import PromptEmbedder, Request
from lta_thinker.generation.samplers import decode_texts, is_right, stop_token_ids
from lta_thinker.generation.sampling import Sample, SamplingSettings, check_log_probs
from lta_thinker.llm.forward import body, position_ids
from lta_thinker.model import Models
from lta_thinker.progress import track
from lta_thinker.rows.batch import TrainingCollator, sum_by_row

DRAWING_FILES = ("inspection.svg", "inspection.png")
NEAREST = 3  # words a thought
SLOTS_PRINTED = 6  # what a printed line has room for
ROWS_AT_A_TIME = 8192  # of the embedding table
SAMPLED_ROWS = 1000  # rows, evenly spaced, whose nearest other row is searched for
ATTENTION_TOKENS = 256  # the first of an answer: attention weights are (heads, T, T) in every layer
VARIANTS = {
    "own": "its own thoughts",
    "swapped": "the next question's",
    "mean": "mean over the questions",
    "zeros": "zeros",
}


@torch.no_grad()
def inspect_thoughts(
    models: Models,
    requests: list[Request],
    answer_type: str,
    num_injected: int,
    settings: SamplingSettings,
    batch_size: int,
    folder: Path,
) -> dict:
    """Inspect the first `num_injected` thoughts of the requests; print, draw and write it into `folder`.

    settings: greedy, for the answers. Returns what inspection.json holds: {"num_questions", "num_thoughts",
    "questions": indices, "nearest_words": [K][n][NEAREST] of {"row", "word", "cosine"}, "table": of table_distance,
    "attention": {"mass", "uniform": [K][L], shares of 1}, "accuracy": {variant: {"value", "low", "high"}}, "sft_loss":
    {variant: nats an answer}, "information": {variant but own: {"value", "low", "high", nats an answer, "per_token"}},
    each None for swapped and mean where there is only one question, "similarity": [K][K] cosines of the thoughts' means
    over slots}.

    Raises InputError without matplotlib, and for an LLM that does not give its attention weights.
    """
    matplotlib = load_matplotlib("--inspect")  # first of all: what is missing is said at once
    llm: Any = models.llm
    thoughts = make_thoughts(models, requests, batch_size)[:, :num_injected]
    thoughts = thoughts.to(llm.get_input_embeddings().weight.dtype)  # as the LLM reads them
    k, n, d = thoughts.shape
    words = name_rows(models.layout.llm_tokenizer, *nearest_rows(llm, thoughts.reshape(-1, d)))
    table, row_norms = table_distance(llm, thoughts.reshape(-1, d))

    embed = PromptEmbedder(models, num_chains=1)
    answers, accuracy, losses, rises = {}, {}, {}, {}
    for name, title in VARIANTS.items():
        injected = variant_of(thoughts, name)
        if injected is None:
            accuracy[name] = losses[name] = rises[name] = None
            continue
        losses[name], tokens = answer_losses(embed, requests, injected, batch_size)
        rise = losses[name] - losses["own"]
        rises[name] = information(rise, tokens)
        answers[name] = greedy_answers(embed, requests, injected, settings, batch_size, title)
        texts = decode_texts(models.layout, answers[name])
        right = [
            is_right(text, sample.finished, request.example, answer_type)
            for text, sample, request in zip(texts, answers[name], requests, strict=True)
        ]
        accuracy[name] = asdict(share_interval(right))
    unit = F.normalize(thoughts.float().mean(1), dim=-1)  # (K, d)
    figures = {
        "num_questions": k,
        "num_thoughts": n,
        "questions": [request.example.index for request in requests],
        "nearest_words": [words[i : i + n] for i in range(0, k * n, n)],
        "table": table,
        "attention": attention_by_layer(embed, requests, thoughts, answers["own"]),
        "accuracy": accuracy,
        "sft_loss": {name: None if found is None else found.mean().item() for name, found in losses.items()},
        "information": {name: rise for name, rise in rises.items() if name != "own"},
        "similarity": (unit @ unit.T).tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / INSPECTION_FILE, figures)
    paths = [folder / name for name in DRAWING_FILES]
    draw(matplotlib, figures, row_norms, thoughts.float().norm(dim=-1).flatten(), paths)
    print_inspection(figures)
    print(f"  {', '.join(map(str, (folder / INSPECTION_FILE, *paths)))}")
    return figures


def information(rise: Tensor, tokens: int) -> dict:
    """The mean of the questions' rises (K,), with its interval where there are two questions; per token of `tokens`."""
    found = mean_interval(rise.numpy())
    figures = asdict(found) if found else {"value": rise.mean().item(), "low": None, "high": None}
    return figures | {"per_token": rise.sum().item() / tokens}


def variant_of(thoughts: Tensor, name: str) -> Tensor | None:
    """The thoughts (K, n, d) that a variant of VARIANTS puts into the prompts; None where it needs other questions."""
    if name == "own":
        return thoughts
    if name == "zeros":
        return torch.zeros_like(thoughts)
    if len(thoughts) == 1:
        return None
    if name == "swapped":
        return thoughts.roll(-1, dims=0)
    return thoughts.float().mean(0, keepdim=True).to(thoughts.dtype).expand_as(thoughts)


# ---------------------------------------------------------------------------------------------------------------------
# Thoughts and the embedding table


@torch.no_grad()
def make_thoughts(models: Models, requests: list[Request], batch_size: int) -> Tensor:
    """All N thoughts (of the first chain) of the requests, (K, N, d), on the device of the LLM's embeddings."""
    embed = PromptEmbedder(models, num_chains=1)
    starts = range(0, len(requests), batch_size)
    return torch.cat([embed.make_thoughts(requests[start : start + batch_size])[:, 0] for start in starts])


def table_rows(llm: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The embedding table in chunks: row ids (C,) and the rows as the LLM reads them (C, d), float32."""
    embed = llm.get_input_embeddings()
    for ids in torch.arange(embed.num_embeddings, device=embed.weight.device).split(ROWS_AT_A_TIME):
        yield ids, embed(ids).float()


@torch.no_grad()
def nearest_rows(llm: Any, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (M, d) -> ids and cosines of the NEAREST rows by cosine, the nearest first, both (M, NEAREST)."""
    vectors = F.normalize(vectors.float(), dim=-1)
    best, best_ids = vectors[:, :0], torch.empty((len(vectors), 0), dtype=torch.long, device=vectors.device)
    for ids, rows in table_rows(llm):
        cosines = torch.cat([best, vectors @ F.normalize(rows, dim=-1).T], dim=1)
        best, chosen = cosines.topk(NEAREST, dim=1)
        best_ids = torch.cat([best_ids, ids.expand(len(vectors), -1)], dim=1).gather(1, chosen)
    return best_ids, best


def name_rows(tokenizer, ids: Tensor, cosines: Tensor) -> list[list[dict]]:
    """Ids and cosines of nearest_rows -> [M][NEAREST] of {"row", "word", "cosine"}; a row without a token is ''."""
    return [
        [{"row": i, "word": tokenizer.decode([i]), "cosine": cosine} for i, cosine in zip(*pair, strict=True)]
        for pair in zip(ids.tolist(), cosines.tolist(), strict=True)
    ]


@torch.no_grad()
def table_distance(llm: Any, vectors: Tensor) -> tuple[dict, Tensor]:
    """How far vectors (M, d) lie outside the embedding table, and the table's row norms (V,).

    {"thought_norm", "row_norm", "nearest_row" (distance of the vectors to it): each {"mean", "min", "max"},
    "nearest_row_of_rows": median distance of the table's rows to their nearest other row (of SAMPLED_ROWS at most),
    "outside": share of the vectors' features beyond the lowest or highest value of that feature in the table}.
    """
    embed, vectors = llm.get_input_embeddings(), vectors.float()
    sampled = torch.linspace(0, embed.num_embeddings - 1, min(SAMPLED_ROWS, embed.num_embeddings)).long()
    sampled = sampled.to(vectors.device)
    points = torch.cat([vectors, embed(sampled).float()])
    own = torch.cat([sampled.new_full((len(vectors),), -1), sampled])[:, None]  # a row is not its own neighbour
    nearest, near_ids = points.new_full((len(points),), torch.inf), own.new_zeros(len(points))
    low, high, norms = torch.inf, -torch.inf, []
    for ids, rows in table_rows(llm):
        distances, at = torch.cdist(points, rows).masked_fill(own == ids, torch.inf).min(1)
        near_ids = torch.where(distances < nearest, ids[at], near_ids)
        nearest = torch.minimum(nearest, distances)
        low, high = rows.amin(0).clamp(max=low), rows.amax(0).clamp(min=high)
        norms.append(rows.norm(dim=-1))
    nearest = (points - embed(near_ids).float()).norm(dim=-1)  # cdist takes differences of squares: too coarse near 0
    norms = torch.cat(norms)
    figures = {
        "thought_norm": spread(vectors.norm(dim=-1)),
        "row_norm": spread(norms),
        "nearest_row": spread(nearest[: len(vectors)]),
        "nearest_row_of_rows": nearest[len(vectors) :].median().item(),
        "outside": ((vectors < low) | (vectors > high)).float().mean().item(),
    }
    return figures, norms


def spread(values: Tensor) -> dict[str, float]:
    return {"mean": values.mean().item(), "min": values.min().item(), "max": values.max().item()}


# ---------------------------------------------------------------------------------------------------------------------
# The LLM behind given thoughts


@torch.no_grad()
def greedy_answers(
    embed: PromptEmbedder,
    requests: list[Request],
    thoughts: Tensor,
    settings: SamplingSettings,
    batch_size: int,
    title: str,
) -> list[Sample]:
    """The requests' answers behind these thoughts (K, n, d), in the order of the requests."""
    llm, written = embed.llm, {}
    given = [replace(request, thoughts=own) for request, own in zip(requests, thoughts, strict=True)]
    answers = decode(llm, settings, stop_token_ids(llm, embed.models.layout), given, embed, batch_size)
    for request, [sample] in track(answers, title, len(requests)):
        written[request.example.index] = sample
    return [written[request.example.index] for request in requests]


@torch.no_grad()
def answer_losses(
    embed: PromptEmbedder, requests: list[Request], thoughts: Tensor, batch_size: int
) -> tuple[Tensor, int]:
    """SFT loss of each request's written answer behind these thoughts (K, n, d), summed over its target tokens, (K,)
    float64 on the CPU, and the number of target tokens of all. InputError where a loss is not finite."""
    models, losses, tokens = embed.models, [], 0
    assert models.thoughts is not None
    rows = models.layout.training_rows([request.example for request in requests])
    collator = TrainingCollator(models.layout, steps=False)
    for start in range(0, len(rows), batch_size):
        batch = collator(rows[start : start + batch_size])
        inputs = {name: value.to(thoughts.device) for name, value in batch.items()}
        of_tokens = models.thoughts.target_losses(inputs, thoughts[start : start + batch_size, None])
        losses.append(sum_by_row(of_tokens.double().cpu(), batch))
        for request, loss in zip(requests[start : start + batch_size], losses[-1].tolist(), strict=True):
            check_log_probs([-loss], embed.llm.config.name_or_path, request.example.question)
        tokens += len(of_tokens)
    return torch.cat(losses), tokens


def attention_by_layer(
    embed: PromptEmbedder, requests: list[Request], thoughts: Tensor, answers: list[Sample]
) -> dict[str, list[list[float]]]:
    """attention_mass of every request with its thoughts (K, n, d) and its answer: {"mass", "uniform": [K][L]}."""
    shares = {"mass": [], "uniform": []}
    with eager_attention(embed.llm):
        for i in track(range(len(requests)), "attention", len(requests)):
            mass, uniform = attention_mass(embed, requests[i], thoughts[i], answers[i].tokens)
            shares["mass"].append(mass)
            shares["uniform"].append(uniform)
    return shares


@contextlib.contextmanager
def eager_attention(llm) -> Iterator[None]:
    """Within it the LLM computes its attention in the plain way, the only one that gives attention weights."""
    # layers and masks read this config in every forward pass (set_attn_implementation is not in transformers 4.53)
    config = llm.config.get_text_config()
    own = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = own


@torch.no_grad()
def attention_mass(
    embed: PromptEmbedder, request: Request, thoughts: Tensor, answer: list[int]
) -> tuple[list[float], list[float]]:
    """Attention on the thoughts (n, d) while the answer (token ids) is written, and what uniform attention would give.

    Returns two lists with a share of 1 for each of the L layers: means over heads and over the columns that write the
    answer, which are the prompt's last and those of the answer's first ATTENTION_TOKENS tokens. Uniform attention goes
    to every column that some head sees, so sliding windows count. Call it within eager_attention; raises InputError
    where the LLM gives no weights that sum to 1.
    """
    llm, batch = embed.llm, embed.batch([request])
    assert embed.models.thoughts is not None
    marks = embed.models.thoughts.generator.num_marks // 2  # on each side
    start = batch["prefix_ids"].shape[1] + marks
    slots = slice(start, start + len(thoughts))
    first = slots.stop + marks + batch["suffix_ids"].shape[1] - 1  # the column that writes the first token
    written = torch.tensor([answer[:ATTENTION_TOKENS]], dtype=torch.long, device=batch["suffix_ids"].device)
    batch["suffix_ids"] = torch.cat([batch["suffix_ids"], written], dim=1)
    batch["suffix_mask"] = torch.cat([batch["suffix_mask"], torch.ones_like(written)], dim=1)
    inputs = embed.models.thoughts.inputs(batch, thoughts[None])
    positions = position_ids(inputs["attention_mask"])
    output = body(llm)(**inputs, position_ids=positions, use_cache=False, output_attentions=True)
    layers = [weights for weights in output.attentions or () if weights is not None]  # each (1, heads, T, T)
    if not layers:
        raise InputError(f"--inspect: {type(llm).__name__} does not give its attention weights")
    mass, uniform = [], []
    for weights in layers:
        weights = weights[0, :, first:].float()  # (heads, A, T)
        if (weights.sum(-1) - 1).abs().max() > 0.02:  # in bf16 each weight is rounded
            raise InputError(f"--inspect: the attention weights of {type(llm).__name__} do not sum to 1")
        mass.append(weights[..., slots].sum(-1).mean().item())
        seen = (weights > 0).any(0).float()  # (A, T)
        uniform.append((seen[:, slots].sum(-1) / seen.sum(-1)).mean().item())
    return mass, uniform


# ---------------------------------------------------------------------------------------------------------------------
# Print and draw


def print_inspection(figures: dict) -> None:
    """What inspect_thoughts found, as text."""
    k, n, table = (figures[name] for name in ("num_questions", "num_thoughts", "table"))
    print(f"{counted(k, 'question')}, {counted(n, 'thought')} each")
    print("nearest words of the thoughts by slot (cosine with the LLM's input embeddings)")
    for index, slots in zip(figures["questions"], figures["nearest_words"], strict=True):
        if len({words[0]["row"] for words in slots}) == 1:
            first, *others = [f"{word['word']!r} {word['cosine']:.2f}" for word in slots[0]]
            print(f"  [{index}] all {n}: {first}; slot 1 then {', '.join(others)}")
        else:
            parts = [f"{i}: {words[0]['word']!r} {words[0]['cosine']:.2f}" for i, words in enumerate(slots, 1)]
            more = " ..." if n > SLOTS_PRINTED else ""
            print(f"  [{index}] {'  '.join(parts[:SLOTS_PRINTED])}{more}")
    print("thoughts beside the rows of the embedding table: mean (lowest to highest)")
    spreads = [table[name] for name in ("thought_norm", "row_norm", "nearest_row")]
    norms = [f"{values['mean']:.3g} ({values['min']:.3g} to {values['max']:.3g})" for values in spreads]
    print(f"  {'norm':32s} {norms[0]}; of the rows {norms[1]}")
    print(f"  {'distance to the nearest row':32s} {norms[2]}; of the rows, median {table['nearest_row_of_rows']:.3g}")
    print(f"  {'features outside their range':32s} {table['outside']:.1%}")
    print("attention on the thoughts while the answer is written, % in each layer (mean over questions)")
    for name, title in {"mass": "on the thoughts", "uniform": "if it were uniform"}.items():
        print(f"  {title:32s} {layer_line(torch.tensor(figures['attention'][name]).mean(0).tolist())}")
    print("greedy answers, % right [95 % interval over questions] with")
    for name, title in VARIANTS.items():
        found = figures["accuracy"][name]
        print(f"  {title:32s} {Interval(**found).percent if found else 'not asked: there is no other question'}")
    print("SFT loss of the written answers with, and information: by how much it is above that with their own thoughts")
    print(f"  {VARIANTS['own']:32s} {figures['sft_loss']['own']:.4g} nats an answer")
    for name, found in figures["information"].items():
        if found:
            rise = nats(**{name: found[name] for name in ("value", "low", "high")})
            loss = f"{figures['sft_loss'][name]:.4g}; information {rise}, {found['per_token']:.3g} a token"
            print(f"  {VARIANTS[name]:32s} {loss}")


def layer_line(shares: list[float]) -> str:
    """Shares of 1 as percents, wrapped; a single one where all are the same."""
    percents = [f"{100 * share:.1f}" for share in shares]
    if len(set(percents)) == 1:
        return percents[0]
    return f"\n{' ' * 35}".join(textwrap.wrap(" ".join(percents), 80))


def draw(matplotlib, figures: dict, row_norms: Tensor, thought_norms: Tensor, paths: list[Path]) -> None:
    """Four panels in shades of grey; the format is a path's suffix. row_norms (V,), thought_norms (K * n,)."""
    style = {"font.size": 10, "axes.titlesize": 11, "hatch.linewidth": 0.6, "svg.hashsalt": "inspection"}
    with matplotlib.rc_context(style):
        figure = matplotlib.figure.Figure(figsize=(10.5, 8), layout="constrained")
        panels = figure.subplots(2, 2).flatten()
        draw_attention(panels[0], figures["attention"])
        draw_norms(panels[1], row_norms.cpu(), thought_norms.cpu())
        draw_accuracy(panels[2], figures["accuracy"])
        draw_similarity(figure, panels[3], figures["similarity"])
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_attention(axes, attention: dict) -> None:
    mass, uniform = (100 * torch.tensor(attention[name]) for name in ("mass", "uniform"))  # (K, L)
    layers = range(1, mass.shape[1] + 1)
    for i, row in enumerate(mass):
        axes.plot(layers, row, color="0.7", linewidth=0.7, label="one question" if i == 0 else None)
    axes.plot(layers, mass.mean(0), color="0", linewidth=2.5, marker="o", label="mean over questions")
    squares = {"marker": "s", "markersize": 4, "markevery": len(layers) // 6 + 1}
    axes.plot(layers, uniform.mean(0), color="0", linestyle="--", **squares, label="if it were uniform")
    axes.set(title="Attention on the thoughts", xlabel="attention layer", ylabel="attention of the answer, %")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_ylim(bottom=0, top=1.4 * max(mass.max().item(), uniform.max().item(), 0.1))
    axes.legend(loc="upper right")


def draw_norms(axes, row_norms: Tensor, thought_norms: Tensor) -> None:
    bins = torch.linspace(0, 1.001 * torch.cat([row_norms, thought_norms]).max().item(), 51)
    groups = {"rows of the embedding table": (row_norms, "0.75", ""), "thoughts": (thought_norms, "none", "////")}
    for label, (norms, color, hatch) in groups.items():
        weights = torch.full_like(norms, 100 / len(norms))
        axes.hist(norms, bins, weights=weights, label=label, facecolor=color, hatch=hatch, edgecolor="0", linewidth=0.6)
    axes.set(title="Norms", xlabel="Euclidean norm", ylabel="share of the rows, of the thoughts, %")
    axes.set_ylim(top=1.2 * axes.get_ylim()[1])
    axes.legend(loc="upper center")


def draw_accuracy(axes, accuracy: dict) -> None:
    for x, (found, hatch) in enumerate(zip(accuracy.values(), ("", "////", "\\\\\\\\", "xxxx"), strict=True)):
        if found is None:
            axes.text(x, 2, "not\nasked", ha="center")
            continue
        value, low, high = (100 * found[name] for name in ("value", "low", "high"))
        axes.bar(x, value, width=0.7, facecolor="0.85", edgecolor="0", hatch=hatch)
        axes.errorbar(x, value, [[value - low], [high - value]], color="0", linewidth=1.5, capsize=5)
        axes.text(x, 104, f"{value:.0f}", ha="center")
    axes.set(title="Greedy answers, 95 % intervals", ylabel="right answers, %", ylim=(0, 114), xlim=(-0.6, 3.6))
    titles = ["its own\nthoughts", "the next\nquestion's", "mean over\nquestions", "zeros"]
    axes.set_xticks(range(len(titles)), titles)


def draw_similarity(figure, axes, similarity: list[list[float]]) -> None:
    edge = len(similarity) + 0.5
    lowest = min(0.9, *map(min, similarity))
    drawn = axes.imshow(similarity, "Greys", vmin=lowest, vmax=1, extent=(0.5, edge, edge, 0.5))
    axes.set(title="Pairs of questions: mean thoughts", xlabel="question, as asked", ylabel="question, as asked")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.colorbar(drawn, ax=axes, label="cosine similarity")
