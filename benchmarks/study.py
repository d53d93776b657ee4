"""The study: does it work, against whom, and by how much. Rules first, then runs, then tables.

    python benchmarks/study.py               # runs whatever is missing; kill it and start it again as often as needed
    python benchmarks/study.py --list        # what there is to run, and how much of it is missing
    python benchmarks/study.py --report      # RESULTS.md's tables and the plots, from benchmarks/study/*.json alone
    python benchmarks/study.py --quick       # a reduced study from nothing (results/study-quick), under 20 minutes

A run is a contestant with a seed and some flags: train.py, then evaluate.py as often as the stages below ask, each in a
process of its own. Its JSON holds the flags, the curves, and for every question how many samples were right and whether
the vote was, so that every table, interval and plot is made from these files. Weights and texts stay in ckpt/ and
results/study/ (not in git); where only the JSON is left and an evaluation is missing, the run is trained again.

Rules, fixed before the runs: the same frozen pair, rows, steps and batch for every contestant; the learning rate is the
best of LEARNING_RATES by dev SFT loss with seed 41, for each contestant; five seeds for the main table and the longest
training, two elsewhere; the ablations start from the LTA contestant that is best on dev. Nothing is chosen on test
questions. The second world has two seeds, 4 samples a question, rates of FEW_RATES that are chosen on its number
family, and the leak in that family alone.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lta_thinker.common import write_text  # noqa: E402

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FEW_RATES = LEARNING_RATES[1:4]
SEEDS = (41, 42, 43, 44, 45)
FEW_SEEDS = SEEDS[:2]
SFT = {"sft_loss_weight": 1, "align_loss_weight": 0, "focus_loss_weight": 0}
PUBLISHED = {"sft_loss_weight": 0.33, "align_loss_weight": 0.33, "focus_loss_weight": 0.33}
CONTESTANTS = {  # name: (title, flags of train.py)
    "none": ("bare LLM", None),
    "prompt": ("constant prompt", {"thought_generator": "prompt"} | SFT),
    "softcot": ("SoftCoT", {"thought_generator": "small"} | SFT),
    "softcotpp": (
        "SoftCoT++, 5 chains",
        {"thought_generator": "small", "num_thought_chains": 5, "diversity_loss_weight": 0.1} | SFT,
    ),
    "block": ("LTA block, three losses", {"thought_generator": "block"} | PUBLISHED),
    "block-sft": ("LTA block, SFT alone", {"thought_generator": "block"} | SFT),
    "small_block": ("LTA small_block, three losses", {"thought_generator": "small_block"} | PUBLISHED),
    "small_block-sft": ("LTA small_block, SFT alone", {"thought_generator": "small_block"} | SFT),
    "leak": (
        "LTA small_block, SFT alone, steps seen",
        {"thought_generator": "small_block", "thoughts_see_steps": True} | SFT,
    ),
}
LTA = ("block", "block-sft", "small_block", "small_block-sft")


@dataclass(frozen=True)
class World:
    """A frozen pair and a task. `task`: flags of both scripts; `tuned_on`: the world whose learning rates are taken,
    one of `rates`; test_k questions, steps, N as in every run."""

    name: str
    pair: str
    tuned_on: str
    task: tuple[tuple[str, str], ...]
    rates: tuple[float, ...] = LEARNING_RATES
    steps: int = 100
    test_k: int = 500
    num_thoughts: int = 8
    max_new_tokens: int = 96


def broad(family: str, answer_type: str) -> World:
    """A task family of the second world (toy/broad.py)."""
    files = tuple((f"{split}_file", f"toy/broad/data/{family}/{split}.jsonl") for split in ("train", "dev", "test"))
    fields = {
        "boolean": (("steps_field", "facts"),),
        "choice": (("steps_field", "rationale"), ("answer_field", "correct")),
    }
    task = (("task_name", f"broad-{family}"), ("answer_type", answer_type), *files, *fields.get(family, ()))
    return World(f"broad-{family}", "toy/broad", "broad-number", task, FEW_RATES)


ARITHMETIC = World("arithmetic", "toy", "arithmetic", (("task_name", "arithmetic"),))
BROAD = tuple(broad(family, family) for family in ("number", "boolean", "choice"))
WORLDS = {world.name: world for world in (ARITHMETIC, *BROAD)}


@dataclass(frozen=True)
class Run:
    """A contestant in a world with a seed and flags that replace its own (sorted pairs)."""

    world: str
    contestant: str
    seed: int
    options: tuple[tuple[str, object], ...] = ()

    @property
    def name(self) -> str:
        """Also a valid --output_name, and the stem of the run's JSON."""
        options = "".join(f".{name}_{value}" for name, value in self.options)
        return f"{self.world}.{self.contestant}{options}.s{self.seed}"

    def train_flags(self, prefix: str) -> dict:
        """Flags of train.py; the prefix keeps two studies' folders apart."""
        world = WORLDS[self.world]
        common = {
            "large_model_id": f"{world.pair}/large",
            "small_model_id": f"{world.pair}/small",
            **dict(world.task),
            "output_name": f"{prefix}.{self.name}",
            "seed": self.seed,
            "num_thought_tokens": world.num_thoughts,
            "batch_size": 16,
            "per_device_eval_batch_size": 50,
            "gradient_accumulation_steps": 1,
            "max_steps": world.steps,
            "eval_strategy": "steps",
            "eval_steps": max(10, world.steps // 4),
            "logging_steps": 5,
            "disable_tqdm": "true",
        }
        return common | CONTESTANTS[self.contestant][1] | dict(self.options)


@dataclass(frozen=True)
class Evaluation:
    """A call of evaluate.py on a run: label and flags (sorted pairs) besides the common ones."""

    label: str
    flags: tuple[tuple[str, object], ...] = ()


def sampled(label: str, samples: int, **flags) -> Evaluation:
    """`samples` answers a question, under the label with their number."""
    return Evaluation(f"{label}-x{samples}", (("num_return_sequences", samples), *sorted(flags.items())))


MAIN, SHORT = sampled("test", 10), sampled("test", 4)
LONGER = sampled(
    "longer", 4, task_name="arithmetic-longer", answer_type="number", test_file="results/study/longer.jsonl"
)
REWORDED = sampled("reworded", 4, prompt_file="results/study/reworded.json")
SMALL_ALONE = sampled("small-alone", 4, base_model_id="toy/broad/small")
INSPECT = Evaluation("inspect", (("inspect", 100),))
REWORDED_PROMPT = {
    "problem": "Here is a question. Work it out in steps and write the final answer in \\boxed{}.\n\n{question}"
}

# ---------------------------------------------------------------------------------------------------------------------
# The table of runs, stage by stage; a stage may need what the stages before it found


class Study:
    """Where the JSON lies, and how large the study is."""

    def __init__(self, folder: Path, quick: bool = False):
        self.folder, self.quick, self.prefix = folder, quick, "quick" if quick else "study"
        self.seeds = FEW_SEEDS if quick else SEEDS

    def rates(self, world: str) -> tuple[float, ...]:
        """The learning rates to choose from."""
        return FEW_RATES if self.quick else WORLDS[world].rates

    def record(self, run: Run) -> dict:
        """What is known of a run; empty where nothing is."""
        path = self.folder / f"{run.name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def records(self, world: str) -> list[dict]:
        """Of all runs in a world, whatever stage they are of."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob(f"{world}.*.json"))]

    def tuned(self, world: str, contestant: str, seed: int, **options) -> Run:
        """The contestant's run at its best learning rate by dev SFT loss, with other options."""
        if contestant == "none":
            return Run(world, contestant, seed)
        on = WORLDS[world].tuned_on
        records = {r: self.record(self.at_rate(on, contestant, SEEDS[0], r)) for r in self.rates(on)}
        losses = {r: record["training"]["best_sft_loss"] for r, record in records.items() if "training" in record}
        return self.at_rate(world, contestant, seed, min(losses, key=losses.get), **options)

    def at_rate(self, world: str, contestant: str, seed: int, rate: float, **options) -> Run:
        return Run(world, contestant, seed, tuple(sorted((options | {"learning_rate": rate}).items())))

    def best_lta(self, world: str) -> str:
        """The LTA contestant with the lowest dev SFT loss."""
        known = [name for name in LTA if name in self.contestants()]
        loss = {name: self.record(self.tuned(world, name, SEEDS[0]))["training"]["best_sft_loss"] for name in known}
        return min(loss, key=loss.get)

    def contestants(self) -> list[str]:
        left_out = ("softcotpp", "block", "block-sft", "leak") if self.quick else ()
        return [name for name in CONTESTANTS if name not in left_out]

    def stages(self) -> dict:
        """{title: function that lists (run, its evaluations)}, cheap parts first."""
        if self.quick:
            return {"tuning": lambda: self.tuning(ARITHMETIC), "main": lambda: self.main(ARITHMETIC, self.seeds, SHORT)}
        stages = {
            "tuning": lambda: self.tuning(ARITHMETIC),
            "main": lambda: self.main(ARITHMETIC, self.seeds, MAIN),
            "looks": lambda: self.looks("arithmetic"),
            "losses": self.losses,
            "shape": self.shape,
            "steps": self.steps,
            "rows": self.rows,
            "transfer": self.transfer,
            "thoughts": self.thoughts,
            "samples": self.samples,
        }
        stages["tuning broad-number"] = lambda: self.tuning(BROAD[0])
        for world in BROAD:
            stages[f"main {world.name}"] = lambda world=world: self.main(world, FEW_SEEDS, SHORT)
        return stages | {"looks broad-number": lambda: self.looks("broad-number"), "headroom": self.headroom}

    def ready(self, title: str) -> bool:
        """Whether the stage can be listed: its world is tuned."""
        world = WORLDS[title.rpartition(" ")[2]] if " " in title else ARITHMETIC
        runs = [run for run, _ in self.tuning(WORLDS[world.tuned_on])]
        known = {run.contestant for run in runs if "training" in self.record(run)}  # a rate may have diverged
        return title.startswith("tuning") or known == {run.contestant for run in runs}

    def tuning(self, world: World):
        names = [name for name in self.contestants() if name != "none"]
        rates = self.rates(world.name)
        return [(self.at_rate(world.name, name, SEEDS[0], rate), []) for name in names for rate in rates]

    def main(self, world: World, seeds, evaluation: Evaluation):
        """The leak is measured in `arithmetic` and on the second world's number family."""
        names = [name for name in self.contestants() if name != "leak" or world.tuned_on == world.name]
        return [(self.tuned(world.name, name, seed), [evaluation]) for seed in seeds for name in names]

    def variants(self, contestant: str, *options: dict, evaluations=(SHORT,), seeds=FEW_SEEDS):
        """The tuned run of the contestant and its variants with these seeds."""
        runs = [self.tuned("arithmetic", contestant, seed, **o) for o in options for seed in seeds]
        return [(run, list(evaluations)) for run in runs]

    def looks(self, world: str):
        names = (self.best_lta(world), "softcot", "prompt")
        return [(self.tuned(world, name, SEEDS[0]), [INSPECT]) for name in names]

    def losses(self):
        """Which losses, in which weights and forms; the three losses' own contestant is in the main table."""
        base, three = self.best_lta("arithmetic"), PUBLISHED
        weights = [(0.33, 0.33, 0), (0.33, 0, 0.33), (0.33, 0.33, 0.33), (1, 1, 0), (1, 10, 0), (1, 0, 0.1)]
        weights += [(1, 0, 0.01), (1, 0.01, 0.01)]
        forms = [
            {"align_stop_gradient": True},
            {"align_mean": True},
            {"align_temperature": 10.0},
            {"align_variance_floor": 0.5},
            {"decay_extra_losses": True},
        ]
        options = [dict(zip(PUBLISHED, weight, strict=True)) for weight in weights]
        options += [three | form for form in forms]
        options += [{"sft_loss_weight": 1, "align_loss_weight": 10, "focus_loss_weight": 0} | form for form in forms]
        return self.variants(base, {}, *options)

    def shape(self):
        """The generator's parts; and what was tried with `block`, which reads no small LM."""
        base = self.best_lta("arithmetic")
        parts = [{"freeze_prior": True}, {"num_blocks": 2}, {"match_scale": True}, {"projection": "after"}]
        tried = [{"num_blocks": 2}, {"match_scale": True}, {"projection": "before"}, {"num_thought_tokens": 32}]
        tried += [{"max_steps": 1000, "eval_steps": 250}]
        return (
            self.variants(base, {}, *parts)
            + self.variants("block-sft", {}, *tried)
            + self.variants("softcot", {}, {"match_scale": True})
        )

    def steps(self):
        """The longest training with all seeds: is one contestant the better, or only the sooner?"""
        *counts, longest = [{"max_steps": steps, "eval_steps": steps // 2} for steps in (25, 50, 200, 400)]
        names = (self.best_lta("arithmetic"), "softcot", "prompt")
        few = [pair for name in names for pair in self.variants(name, {}, *counts)]
        return few + [pair for name in names for pair in self.variants(name, longest, seeds=SEEDS)]

    def rows(self):
        counts = [{"k_shot": rows} for rows in (100, 300, 1000)]
        names = (self.best_lta("arithmetic"), "softcot", "prompt")
        return [pair for name in names for pair in self.variants(name, {}, *counts)]

    def transfer(self):
        """The main runs on longer problems, in other words, and at other temperatures."""
        warm = [sampled(f"temperature{t}", 4, temperature=t) for t in (0.3, 1.0, 1.3)]
        names = ("none", "prompt", "softcot", self.best_lta("arithmetic"))
        runs = [self.tuned("arithmetic", name, seed) for name in names for seed in FEW_SEEDS]
        return [(run, [SHORT, LONGER, REWORDED, *warm]) for run in runs]

    def thoughts(self):
        """N in training by n in evaluation."""
        base, counts = self.best_lta("arithmetic"), (4, 8, 16, 32)
        pairs = []
        for made in counts:
            options = {} if made == ARITHMETIC.num_thoughts else {"num_thought_tokens": made}
            few = [sampled(f"n{n}", 4, num_thought_tokens=n) for n in (1, 2, 4, 8, 16, 32) if n <= made]
            pairs += self.variants(base, options, evaluations=few)
        return pairs

    def samples(self):
        names = ("none", "softcot", self.best_lta("arithmetic"))
        return [(self.tuned("arithmetic", name, seed), [sampled("test", 20)]) for name in names for seed in FEW_SEEDS]

    def headroom(self):
        """The second world's questions to its large LM, and to its small one alone."""
        return [(Run(world.name, "none", seed), [SHORT, SMALL_ALONE]) for world in BROAD for seed in FEW_SEEDS]


# ---------------------------------------------------------------------------------------------------------------------
# Running: each call of a script is a process of its own, forked from one that has imported the libraries


def call(script: str, argv: list[str], log: str) -> None:
    """In a child: the script's main with its output in `log`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [script, *argv]
    __import__(script).main()


def argv_of(flags: dict) -> list[str]:
    """{flag: value}, True for a bare flag."""
    return [text for name, value in flags.items() for text in ([f"--{name}"] + [str(value)] * (value is not True))]


class Runner:
    """Runs what is missing of (run, evaluations) pairs, several runs at a time."""

    def __init__(self, study: Study, jobs: int):
        self.study, self.jobs, self.failed, self.live = study, jobs, [], set()
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: one thread a process is fastest
        os.environ |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
        # glibc keeps the memory of the growing KV cache instead of giving it back at every step: a fifth of the time
        os.environ |= {f"MALLOC_{name}_": str(1 << 33) for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD")}
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["train", "evaluate"])
        self.work = Path("results/study-quick/work" if study.quick else "results/study")

    def stage(self, title: str, pairs: list) -> None:
        wanted: dict[Run, list] = {}
        for run, evaluations in pairs:
            wanted.setdefault(run, []).extend(e for e in evaluations if e not in wanted.get(run, []))
        missing = {run: self.missing(run, evaluations) for run, evaluations in wanted.items()}
        missing = {run: parts for run, parts in missing.items() if any(parts)}
        print(f"{title}: {len(wanted)} runs, {len(missing)} with something missing", flush=True)
        pool = concurrent.futures.ThreadPoolExecutor(self.jobs)
        try:
            futures = [pool.submit(self.run, run, *parts) for run, parts in missing.items()]
            for done in concurrent.futures.as_completed(futures):
                print(f"  {time.strftime('%H:%M:%S')} {done.result()}", flush=True)
        except BaseException:  # Ctrl-C, SIGTERM: nothing goes on, nothing new begins
            pool.shutdown(wait=False, cancel_futures=True)
            for process in self.live:
                process.terminate()
            raise
        pool.shutdown()

    def missing(self, run: Run, evaluations: list[Evaluation]) -> tuple[bool, list[Evaluation]]:
        """(is it to be trained, its evaluations that are missing)."""
        record = self.study.record(run)
        left = [e for e in evaluations if e.label not in record.get("evaluations", {})]
        trained = "training" in record and (not left or self.checkpoint(run))
        return run.contestant != "none" and not trained, left

    def checkpoint(self, run: Run) -> Path | None:
        return next(Path("ckpt").glob(f"{self.study.prefix}.{run.name}-*-large-*/thoughts.json"), None)

    def run(self, run: Run, train: bool, evaluations: list[Evaluation]) -> str:
        try:
            if train:
                self.train(run)
            for evaluation in evaluations:
                self.evaluate(run, evaluation)
            return run.name
        except Exception as error:  # one run's failure must not lose the others'
            self.failed.append(run.name)
            return f"FAILED {run.name}: {error}"

    def script(self, name: str, flags: dict, log: Path) -> str:
        """Its output. RuntimeError with the last line where it fails."""
        log.parent.mkdir(parents=True, exist_ok=True)
        process = self.context.Process(target=call, args=(name, argv_of(flags), str(log)))
        process.start()
        self.live.add(process)
        process.join()
        self.live.discard(process)
        text = log.read_text(encoding="utf-8")
        if process.exitcode:
            raise RuntimeError(f"{name}.py failed, see {log}: {text.strip().rpartition(chr(10))[2]}")
        return text

    def save(self, run: Run, **parts) -> None:
        record = {"world": run.world, "contestant": run.contestant, "seed": run.seed, "options": dict(run.options)}
        record |= self.study.record(run)
        record["evaluations"] = record.get("evaluations", {}) | parts.pop("evaluations", {})
        self.study.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record | parts, separators=(",", ":")) + "\n"
        write_text(self.study.folder / f"{run.name}.json", text)

    def train(self, run: Run) -> None:
        flags = run.train_flags(self.study.prefix)
        resumable = Path("results", flags["output_name"])
        shutil.rmtree(resumable, ignore_errors=True)
        for old in Path("ckpt").glob(f"{self.study.prefix}.{run.name}-*"):
            shutil.rmtree(old)
        log = self.script("train", flags, self.work / run.name / "train.log")
        meta = json.loads(self.checkpoint(run).read_text())
        last = max(
            resumable.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name.split("-")[1])
        )
        history = json.loads(last.read_text())["log_history"]
        training = {
            "flags": {name: value for name, value in flags.items() if name != "output_name"},
            "best_sft_loss": meta["best"]["value"],
            "best_step": meta["best"]["step"],
            "dev_curve": meta["dev_curve"],
            "curve": [[entry["step"], entry["sft_loss"]] for entry in history if "sft_loss" in entry],
            "trained_parameters": int(re.search(r"parameters: ([\d,]+) trained", log)[1].replace(",", "")),
            "seconds": float(re.search(r"'train_runtime': '?([\d.]+)", log)[1]),
            "versions": meta["versions"],
        }
        self.save(run, training=training)
        shutil.rmtree(resumable)  # the weights are in ckpt/

    def evaluate(self, run: Run, evaluation: Evaluation) -> None:
        from lta_thinker.evaluation import compare, report

        world, folder = WORLDS[run.world], self.work / run.name / evaluation.label
        flags = {"batch_size": 32, "max_new_tokens": world.max_new_tokens, "seed": run.seed, "test_k": world.test_k}
        if self.study.quick:
            flags["test_k"] = 200
        if run.contestant == "none":
            flags |= {"base_model_id": f"{world.pair}/large", "thought_generator": "none", **dict(world.task)}
        else:
            flags["checkpoint"] = self.checkpoint(run).parent
        flags |= dict(evaluation.flags) | {"output_dir": folder}
        start = time.time()
        self.script("evaluate", flags, folder.with_suffix(".log"))
        if evaluation == INSPECT:
            found = json.loads((folder / "inspection.json").read_text()) | {"seconds": time.time() - start}
            self.save(run, evaluations={evaluation.label: found})
            return
        figures, records = compare.read_report(folder / report.REPORT_FILE)
        kind = figures["settings"]["answer_type"]
        kept = "num_questions sample_accuracy vote_accuracy maj_at_k pass_at_k ties no_answer cut_off tokens_per_sample"
        result = {name: figures[name] for name in [*kept.split(), "thought_variance", "speed", "versions"]}
        result |= {"seconds": time.time() - start, "sampling": figures["settings"]["sampling"]}
        result["hits"] = [sum(report.sample_hits(record, kind)) for record in records]  # right samples of each question
        result["votes"] = "".join(str(int(record["correct"])) for record in records)
        self.save(run, evaluations={evaluation.label: result})


def write_inputs() -> None:
    """Longer problems and a reworded prompt for the stage `transfer`, and the second world's rows."""
    from toy import build_broad, world

    folder = Path("results/study")
    folder.mkdir(parents=True, exist_ok=True)
    rows = world.rows("test", 500, 41, lengths=(4, 5))
    write_text(folder / "longer.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text(folder / "reworded.json", json.dumps(REWORDED_PROMPT))
    if not Path("toy/broad/data").exists():
        build_broad.write_data(Path("toy/broad"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a reduced study, from nothing, in results/study-quick")
    parser.add_argument("--report", action="store_true", help="only make the tables and the plots")
    parser.add_argument("--list", action="store_true", help="only list the stages")
    parser.add_argument("--stages", nargs="+", help="only these (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (one core each)")
    args = parser.parse_args()
    if args.jobs < 1:
        sys.exit(f"error: --jobs {args.jobs}: must be at least 1")
    os.chdir(ROOT)
    study = Study(ROOT / "results/study-quick" if args.quick else ROOT / "benchmarks/study", args.quick)
    stages = {title: stage for title, stage in study.stages().items() if not args.stages or title in args.stages}
    unknown = set(args.stages or ()) - study.stages().keys()
    if unknown:
        sys.exit(f"error: --stages {' '.join(unknown)}: there are {', '.join(study.stages())}")
    runner = Runner(study, args.jobs)
    if args.quick and not (args.report or args.list):
        shutil.rmtree(study.folder, ignore_errors=True)
    if not (args.report or args.list):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
        write_inputs()
        for title, stage in stages.items():
            if not study.ready(title):
                sys.exit(f"error: {title}: a contestant has no tuned run; --stages tuning comes first")
            runner.stage(title, stage())
    if args.list:
        for title in stages:
            state = "waits for its tuning"
            if study.ready(title):
                pairs = study.stages()[title]()
                left = [run.name for run, evaluations in pairs if any(runner.missing(run, evaluations))]
                state = f"{len(pairs)} runs, {len(left)} with something missing"
            print(f"{title:24s} {state}")
    if args.report or args.quick:
        import study_report

        made = study_report.make(study, CONTESTANTS, MAIN.label, SHORT.label)
        if args.quick:
            print("\n\n".join(f"{title}\n\n{table}" for title, table in made.items()))
        else:
            study_report.fill(ROOT / "RESULTS.md", made)
    if runner.failed:
        sys.exit(f"error: {len(runner.failed)} runs failed: {', '.join(runner.failed)}")


if __name__ == "__main__":
    main()
