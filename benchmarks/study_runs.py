"""The stages of the study, and what is stored of each run.

A run is a line of JSON in benchmarks/study/<world>.jsonl (<world>-tuned.jsonl where it tunes the LLM), by its name:
flags, curves, and for every question how many samples were right and whether the vote was.
"""

import json
import threading
from collections.abc import Callable
from pathlib import Path

from benchmarks.study_worlds import (
    ALONE,
    ARITHMETIC,
    ASDIV,
    BROAD,
    CONTESTANTS,
    DEFAULT,
    FEW_ALONE,
    FEW_RATES,
    FEW_SEEDS,
    GSM8K,
    INSPECT,
    LONGER,
    LTA,
    MADE_TWO,
    MAIN,
    NOISY,
    REAL_SEEDS,
    REWORDED,
    SEEDS,
    SHORT,
    SMALL_ALONE,
    TELLER,
    TUNED,
    WEIGHTS,
    WORLDS,
    Evaluation,
    Run,
    World,
    sampled,
)
from lta_thinker.common import write_text


def rounded(value):
    """A JSON value with its floats at six significant digits: no table shows more."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value


def file_of(record: dict) -> str:
    """The name of the file that a run's record stands in: what tunes the LLM has its own."""
    return f"{record['world']}{'-tuned' if record['contestant'] in TUNED else ''}.jsonl"


DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def as_digits(counts: list[int]) -> str:
    """Counts below 36, a digit each: as they are stored."""
    return "".join(DIGITS[count] for count in counts)


def from_digits(text: str) -> list[int]:
    """What as_digits wrote."""
    return [int(digit, 36) for digit in text]


# ---------------------------------------------------------------------------------------------------------------------
# Stages; a stage may need what the stages before it found


def world_of(title: str) -> World:
    """The world of a stage."""
    return WORLDS[title.rpartition(" ")[2]] if " " in title else ARITHMETIC


Wanted = list[tuple[Run, list[Evaluation]]]  # a stage: each of its runs with the evaluations that it asks for


class Study:
    """The stages, and the stored runs of a folder: one <world>.jsonl a world, one line a run."""

    def __init__(self, folder: Path, quick: bool = False):
        self.folder, self.quick, self.prefix = folder, quick, "quick" if quick else "study"
        self.seeds = FEW_SEEDS if quick else SEEDS
        self.main_evaluation = SHORT if quick else MAIN
        self.stored: dict[str, dict[str, dict]] = {}  # world -> name of a run -> its record
        self.lock = threading.Lock()

    def read(self, world: str) -> dict[str, dict]:
        """The stored records of a world by the names of their runs."""
        lines = []
        for path in (self.folder / f"{world}.jsonl", self.folder / f"{world}-tuned.jsonl"):
            lines += path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        records = [json.loads(line) for line in lines]
        return {Run.of(record).name: record for record in records}

    def by_name(self, world: str) -> dict[str, dict]:
        """As `read`, but the file is read once."""
        known = self.stored.get(world)
        if known is None:
            known = self.stored[world] = self.read(world)
        return known

    def record(self, run: Run) -> dict:
        """What is known of a run; empty where nothing is."""
        return self.by_name(run.world).get(run.name, {})

    def records(self, world: str) -> list[dict]:
        """Of all runs in a world, whatever stage they are of."""
        return list(self.by_name(world).values())

    def save(self, run: Run, **parts) -> None:
        """Put these parts (training=..., evaluations=...) into the run's record; the other lines stay."""
        with self.lock:
            records = self.read(run.world)  # anew: another study.py may have written there
            before = records.get(run.name, {})
            record = {"world": run.world, "contestant": run.contestant, "seed": run.seed, "options": dict(run.options)}
            record |= before | parts
            record["evaluations"] = before.get("evaluations", {}) | parts.get("evaluations", {})
            records[run.name] = record
            file = file_of(record)
            short = [rounded(records[name]) for name in sorted(records) if file_of(records[name]) == file]
            lines = [json.dumps(record, separators=(",", ":")) + "\n" for record in short]
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / file, "".join(lines))
            self.stored[run.world] = records

    def dev_loss(self, run: Run) -> float | None:
        """The best dev SFT loss of a run; None where it was not trained, or where its training failed."""
        training = self.record(run).get("training")
        return training["best_sft_loss"] if training else None

    def rates(self, world: str) -> tuple[float, ...]:
        """The learning rates to choose from."""
        return FEW_RATES if self.quick else WORLDS[world].rates

    def tuned(self, world: str, contestant: str, seed: int, **options) -> Run:
        """The contestant's run at its best learning rate by dev SFT loss, with other options."""
        if CONTESTANTS[contestant].flags is None:
            return Run(world, contestant, seed)
        on = WORLDS[world].tuned_on
        rates = WORLDS[on].tuning_rates if contestant in TUNED else self.rates(on)
        losses = {rate: self.dev_loss(self.at_rate(on, contestant, SEEDS[0], rate)) for rate in rates}
        known = [rate for rate, loss in losses.items() if loss is not None]
        return self.at_rate(world, contestant, seed, min(known, key=losses.get), **options)

    def at_rate(self, world: str, contestant: str, seed: int, rate: float, **options) -> Run:
        return Run(world, contestant, seed, tuple(sorted((options | {"learning_rate": rate}).items())))

    def best_lta(self, world: str) -> str:
        """The LTA contestant with the lowest dev SFT loss."""
        known = [name for name in LTA if name in self.contestants(WORLDS[world])]
        loss = {name: self.dev_loss(self.tuned(world, name, SEEDS[0])) for name in known}
        return min(loss, key=loss.get)

    def contestants(self, world: World) -> list[str]:
        left_out: tuple[str, ...] = ()
        if self.quick:
            left_out = ("softcotpp", "block-three", "block", "block-sft", "small_block", "leak")
        return [name for name in world.contestants if name not in left_out]

    def stages(self) -> dict[str, Callable[[], Wanted]]:
        """{title: function that lists the stage's runs}, cheap parts first."""
        stages = {
            "tuning": lambda: self.tuning(ARITHMETIC),
            "main": lambda: self.main(ARITHMETIC, self.seeds, self.main_evaluation),
        }
        if self.quick:
            return stages
        stages |= {
            "looks": lambda: self.looks("arithmetic"),
            "balance": self.balance,
            "losses": self.losses,
            "collapse": self.collapse,
            "shape": self.shape,
            "block arithmetic": lambda: self.block(ARITHMETIC),
            "block teller": lambda: self.block(TELLER),
            "steps": self.steps,
            "rows": self.rows,
            "noise": self.noise,
            "transfer": self.transfer,
            "thoughts": self.thoughts,
            "samples": self.samples,
            "ways-tuning arithmetic": lambda: self.ways_tuning(ARITHMETIC),
            "ways arithmetic": lambda: self.ways(ARITHMETIC, SEEDS, MAIN),
            "ways-alone arithmetic": lambda: self.ways(ARITHMETIC, SEEDS[:1], ALONE),
        }
        stages["tuning broad-number"] = lambda: self.tuning(BROAD[0])
        for world in BROAD:
            stages[f"main {world.name}"] = lambda world=world: self.main(world, FEW_SEEDS, SHORT)
        stages |= {"looks broad-number": lambda: self.looks("broad-number"), "headroom": self.headroom}
        return stages | {
            f"tuning {ASDIV.name}": lambda: self.tuning(ASDIV),
            f"main {ASDIV.name}": lambda: self.main(ASDIV, REAL_SEEDS, SHORT),
            f"dev {ASDIV.name}": lambda: self.dev_losses(ASDIV, REAL_SEEDS) + self.question() + self.longer(),
            f"longer {ASDIV.name}": self.longer,
            f"dev {GSM8K.name}": lambda: self.dev_losses(GSM8K, SEEDS[:1]),
            f"tasks {ASDIV.name}": self.tasks,
            f"looks {ASDIV.name}": lambda: self.looks(ASDIV.name),
            f"ways-tuning {ASDIV.name}": lambda: self.ways_tuning(ASDIV),
            f"ways {ASDIV.name}": lambda: self.ways(ASDIV, SEEDS[:2], SHORT),
            f"ways-alone {ASDIV.name}": lambda: self.ways(ASDIV, SEEDS[:1], FEW_ALONE),
        }

    def ready(self, title: str) -> bool:
        """Whether the stage can be listed: its world is tuned."""
        runs = [run for run, _ in self.tuning(WORLDS[world_of(title).tuned_on])]
        known = {run.contestant for run in runs if self.dev_loss(run) is not None}  # a rate may have diverged
        return title.startswith("tuning") or known == {run.contestant for run in runs}

    def tuning(self, world: World) -> Wanted:
        names = [name for name in self.contestants(world) if CONTESTANTS[name].flags is not None]
        rates = self.rates(world.name)
        return [(self.at_rate(world.name, name, SEEDS[0], rate), []) for name in names for rate in rates]

    def main(self, world: World, seeds, evaluation: Evaluation) -> Wanted:
        """The leak is measured in `arithmetic` and on the second world's number family."""
        names = [name for name in self.contestants(world) if name != "leak" or world.tuned_on == world.name]
        return [(self.tuned(world.name, name, seed), [evaluation]) for seed in seeds for name in names]

    def variants(self, contestant: str, *options: dict, evaluations=(SHORT,), seeds=FEW_SEEDS) -> Wanted:
        """The tuned run of the contestant and its variants with these seeds."""
        runs = [self.tuned("arithmetic", contestant, seed, **o) for o in options for seed in seeds]
        return [(run, list(evaluations)) for run in runs]

    def looks(self, world: str) -> Wanted:
        names = [self.best_lta(world), "softcot", "prompt"]
        if DEFAULT in self.contestants(WORLDS[world]):
            names.insert(0, DEFAULT)
        return [(self.tuned(world, name, SEEDS[0]), [INSPECT]) for name in names]

    def losses(self) -> Wanted:
        """Which losses of a plain sum, in which weights and forms."""
        base, three = self.best_lta("arithmetic"), dict.fromkeys(WEIGHTS, 0.33)
        weights = [(0.33, 0.33, 0), (0.33, 0, 0.33), (0.33, 0.33, 0.33), (1, 1, 0), (1, 10, 0), (1, 0, 0.1)]
        weights += [(1, 0, 0.01), (1, 0.01, 0.01)]
        forms = [
            {"align_stop_gradient": True},
            {"align_mean": True},
            {"align_temperature": 10.0},
            {"align_variance_floor": 0.5},
            {"decay_extra_losses": True},
        ]
        options = [dict(zip(WEIGHTS, weight, strict=True)) for weight in weights]
        options += [three | form for form in forms]
        options += [{"sft_loss_weight": 1, "align_loss_weight": 10, "focus_loss_weight": 0} | form for form in forms]
        return self.variants(base, {}, *options)

    def balance(self) -> Wanted:
        """The default's parts: its weights, each of its losses, and what makes them train together."""
        weights = [(1, 0.1, 0.1), (1, 1, 1), (1, 0.33, 0), (1, 0, 0.33)]
        options: list[dict] = [dict(zip(WEIGHTS, weight, strict=True)) for weight in weights]
        options += [{"align_stop_gradient": False}, {"balance_losses": False}, {"decay_extra_losses": True}]
        return self.variants(DEFAULT, {}, *options)

    def collapse(self) -> Wanted:
        """Long trainings at one rate: which part of the plain sum makes the thoughts collapse."""
        long = {"max_steps": 500, "eval_steps": 100}
        options = [{}, {"align_stop_gradient": True}, {"align_loss_weight": 0}, {"focus_loss_weight": 0}]
        runs = [self.at_rate("arithmetic", "small_block", SEEDS[0], 3e-3, **long, **option) for option in options]
        runs.append(self.at_rate("arithmetic", DEFAULT, SEEDS[0], 3e-3, **long))
        return [(run, [SHORT]) for run in runs]

    def shape(self) -> Wanted:
        """The generator's parts; and what was tried with `block`, which reads no small LM."""
        base = self.best_lta("arithmetic")
        parts = [{"freeze_prior": True}, {"num_blocks": 2}, {"match_scale": True}, {"projection": "after"}]
        tried = [{"num_blocks": 2}, {"match_scale": True}, {"projection": "before"}, {"num_thought_tokens": 32}]
        tried += [{"max_steps": 1000, "eval_steps": 250}]
        return (
            self.variants(base, {}, *parts)
            + self.variants("block-sft", {}, *tried)
            + self.variants("block-three", {}, *tried)
            + self.variants("softcot", {}, {"match_scale": True})
        )

    def block(self, world: World) -> Wanted:
        """Longer trainings of `block` at one rate, also with positions and with the LLM's first layers as its reader,
        beside the default."""
        long = {"max_steps": 400, "eval_steps": 100}
        reads: dict = {"reader_layers": 2}
        tried = ({}, {"block_positions": True}, reads) if world == TELLER else (reads,)
        names = {"block-sft": tried, "block-three": tried, DEFAULT: ({},)}
        runs = [
            self.at_rate(world.name, name, seed, 3e-3, **long, **option)
            for name, options in names.items()
            for option in options
            for seed in FEW_SEEDS
        ]
        return [(run, [SHORT]) for run in runs]

    def steps(self) -> Wanted:
        """The longest training with all seeds: is one contestant the better, or only the sooner?"""
        *counts, longest = [{"max_steps": steps, "eval_steps": steps // 2} for steps in (25, 50, 200, 400)]
        names = (DEFAULT, self.best_lta("arithmetic"), "softcot", "prompt")
        few = [pair for name in names for pair in self.variants(name, {}, *counts)]
        return few + [pair for name in names for pair in self.variants(name, longest, seeds=SEEDS)]

    def rows(self) -> Wanted:
        counts = [{"k_shot": rows} for rows in (100, 300, 1000)]
        names = (DEFAULT, self.best_lta("arithmetic"), "softcot", "prompt")
        return [pair for name in names for pair in self.variants(name, {}, *counts)]

    def noise(self) -> Wanted:
        """Wrong answers in the training rows: all of them, and few."""
        names, options = ("none", DEFAULT, self.best_lta("arithmetic"), "softcot"), ({}, {"k_shot": 300})
        runs = [
            self.tuned(NOISY.name, name, seed, **option)
            for name in names
            for option in options
            for seed in FEW_SEEDS
            if name != "none" or not option
        ]
        return [(run, [SHORT]) for run in runs]

    def transfer(self) -> Wanted:
        """The main runs on longer problems, in other words, and at other temperatures."""
        warm = [sampled(f"temperature{t}", 4, temperature=t) for t in (0.3, 1.0, 1.3)]
        names = ("none", "prompt", "softcot", self.best_lta("arithmetic"), DEFAULT)
        runs = [self.tuned("arithmetic", name, seed) for name in names for seed in FEW_SEEDS]
        return [(run, [SHORT, LONGER, REWORDED, *warm]) for run in runs]

    def thoughts(self) -> Wanted:
        """N in training by n in evaluation: the first n of N made, or (MADE_TWO) no more made than n."""
        pairs = []
        for name, counts in ((self.best_lta("arithmetic"), (4, 8, 16, 32)), (DEFAULT, (2, 8, 32))):
            for trained in counts:
                options = {} if trained == ARITHMETIC.num_thoughts else {"num_thought_tokens": trained}
                few = [sampled(f"n{n}", 4, num_thought_tokens=n) for n in (1, 2, 4, 8, 16, 32) if n <= trained]
                if name == DEFAULT and trained > 2:
                    few.append(MADE_TWO)
                pairs += self.variants(name, options, evaluations=few)
        return pairs

    def samples(self) -> Wanted:
        names = ("none", "softcot", self.best_lta("arithmetic"), DEFAULT)
        return [(self.tuned("arithmetic", name, seed), [sampled("test", 20)]) for name in names for seed in FEW_SEEDS]

    def ways_tuning(self, world: World) -> Wanted:
        """Learning rates of the ways that are not in the main table."""
        return [
            (self.at_rate(world.name, name, SEEDS[0], rate), [])
            for name in world.ways
            if name not in world.contestants
            for rate in (world.tuning_rates if name in TUNED else self.rates(world.name))
        ]

    def ways(self, world: World, seeds, evaluation: Evaluation) -> Wanted:
        """Every way of thinking side by side: text, vectors of each kind, pause tokens, no steps at all; those whose
        learning rate is chosen."""
        rated = self.tuning(WORLDS[world.tuned_on]) + self.ways_tuning(world)
        chosen = {run.contestant for run, _ in rated if self.dev_loss(run) is not None}
        names = [name for name in world.ways if name in chosen or CONTESTANTS[name].flags is None]
        longer = dict(world.longer_ways)
        return [
            (self.tuned(world.name, name, seed, **(longer if name in TUNED else {})), [evaluation])
            for seed in seeds
            for name in names
        ]

    def headroom(self) -> Wanted:
        """The second world's questions to its large LM, and to its small one alone."""
        return [(Run(world.name, "none", seed), [SHORT, SMALL_ALONE]) for world in BROAD for seed in FEW_SEEDS]

    def longer(self) -> Wanted:
        """Three times as many steps: who gains then, and what standardized states and another place of the projection
        do to the information of the thoughts."""
        steps: dict = {"max_steps": 360, "eval_steps": 60}
        fitted, after = {"standardize_states": True}, {"projection": "after"}
        most = (DEFAULT, "prompt", "softcot", "block-three", "lora")
        runs = [self.tuned(ASDIV.name, name, seed, **steps) for seed in REAL_SEEDS for name in most]
        runs += [self.tuned(ASDIV.name, "small_block-sft", seed, **steps, **after) for seed in REAL_SEEDS]
        runs += [self.tuned(ASDIV.name, name, SEEDS[0], **steps) for name in ("small_block-sft", "lora-three")]
        runs += [
            self.tuned(ASDIV.name, "small_block-sft", SEEDS[0], **steps, **option)
            for option in (fitted, fitted | after)
        ]
        runs.append(self.tuned(ASDIV.name, "softcot", SEEDS[0], **steps, **fitted))
        runs.append(self.at_rate(ASDIV.name, DEFAULT, SEEDS[0], 1e-3, **steps, **fitted, **after))
        return [(run, [SHORT]) for run in runs]

    def question(self) -> Wanted:
        """What could make the thoughts depend on the question, in dev figures: what is read, how many thoughts, what
        makes them; and with the gold steps seen, what could be had at most."""
        options: list[dict] = [{"reader_layers": layers} for layers in (12, 30)]
        options += [{"standardize_states": True}, {"standardize_states": True, "projection": "after"}]
        options += [{"num_thought_tokens": 2}, {"num_thought_tokens": 32}, {"num_thought_chains": 4}]
        options += [{"match_scale": True}, {"num_blocks": 2}, {"thoughts_see_steps": True}]
        return [(self.tuned(ASDIV.name, DEFAULT, SEEDS[0], **option), []) for option in options]

    def dev_losses(self, world: World, seeds: tuple[int, ...]) -> Wanted:
        """The contestants' trainings, for their dev figures."""
        names = [name for name in self.contestants(world) if CONTESTANTS[name].flags is not None]
        return [(self.tuned(world.name, name, seed), []) for name in names for seed in seeds]

    def tasks(self) -> Wanted:
        """Trained on one task, asked on the other."""
        asked = [
            (ASDIV, sampled("on-gsm8k", 4, task_name="gsm8k", test_k=200)),
            (GSM8K, sampled("on-asdiv", 4, task_name="asdiv")),
        ]
        pairs: Wanted = [(Run(ASDIV.name, "none", SEEDS[0]), [asked[0][1]])]
        for world, evaluation in asked:
            for name in ("prompt", "softcot", DEFAULT, "lora"):
                pairs.append((self.tuned(world.name, name, SEEDS[0]), [evaluation]))
        return pairs
