"""The study: does it work, against whom, and by how much. Rules first, then runs, then tables.

    python benchmarks/study.py               # runs whatever is missing; kill it and start it again as often as needed
    python benchmarks/study.py --list        # what there is to run, and how much of it is missing
    python benchmarks/study.py --report      # the tables of docs/results/{study,real}.md and RESULTS.md, and the plots
    python benchmarks/study.py --world asdiv-smollm2 gsm8k-smollm2      # a real LLM's stages alone (toy/real.py first)
    python benchmarks/study.py --quick       # a reduced study from nothing (results/study-quick), under 20 minutes

A run is a contestant with a seed and some flags: train.py, then evaluate.py as often as the stages ask
(benchmarks/study_worlds.py, study_runs.py). It is one line of benchmarks/study/<world>.jsonl, and every table, interval
and plot is made from these lines alone. Weights and texts stay in ckpt/ and results/study/ (not in git); where only the
line is left and an evaluation is missing, the run is trained again.

Rules, fixed before the runs: the same frozen pair, rows, steps and batch for every contestant; the learning rate is the
best of LEARNING_RATES by dev SFT loss with seed 41, for each contestant; five seeds for the main table and the longest
training, two elsewhere; the ablations start from the LTA contestant that is best on dev. Nothing is chosen on test
questions. The second world has two seeds, 4 samples a question, rates of FEW_RATES that are chosen on its number
family, and the leak in that family alone. The real LLM's worlds have their own steps, and REAL_RATES, chosen on ASDiv.
What tunes the LLM has TUNING_RATES and its own epochs; on the real LLM one rate and as many rows as the others.
"""

import argparse
import json
import os
import re
import shutil
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import study_pages  # noqa: E402
from benchmarks.runner import Command, Runner, stop_on_signals  # noqa: E402
from benchmarks.study_runs import Study, Wanted, as_digits, world_of  # noqa: E402
from benchmarks.study_worlds import (  # noqa: E402
    ALONE,
    CONTESTANTS,
    FEW_ALONE,
    INSPECT,
    LLM,
    REWORDED_PROMPT,
    WORLDS,
    Evaluation,
    Run,
)
from lta_thinker.checkpoint import DEV_LOSSES_FILE, STATE_FILE, TrainingRecord  # noqa: E402
from lta_thinker.common import make_folder, write_text  # noqa: E402

# glibc keeps the memory of the growing KV cache instead of giving it back at every step: a fifth of the time
ENVIRONMENT = {f"MALLOC_{name}_": str(1 << 33) for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD")}
# what is kept of the dev evaluations, and how many points of the training loss
DEV_FIGURES = ("step", "eval_sft_loss", "eval_align_loss", "eval_focus_loss")
DEV_FIGURES += tuple(f"eval_information{end}" for end in ("", "_low", "_high", "_per_token"))
CURVE_POINTS = 20
ENVIRONMENT |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}

# ---------------------------------------------------------------------------------------------------------------------
# Running


def argv_of(flags: dict) -> list[str]:
    """{flag: value}, True for a bare flag."""
    argv = []
    for name, value in flags.items():
        argv.append(f"--{name}")
        if value is not True:
            argv.append(str(value))
    return argv


class StudyRunner:
    """Runs what is missing of a stage, `jobs` runs at a time."""

    def __init__(self, study: Study, jobs: int):
        self.study, self.jobs, self.failed = study, jobs, []
        self.work = Path("results/study-quick/work" if study.quick else "results/study")

    def stage(self, title: str, pairs: Wanted) -> None:
        wanted: dict[Run, list[Evaluation]] = {}
        for run, evaluations in pairs:
            asked = wanted.setdefault(run, [])
            asked += [evaluation for evaluation in evaluations if evaluation not in asked]
        missing = [run for run, evaluations in wanted.items() if any(self.missing(run, evaluations))]
        print(f"{title}: {len(wanted)} runs, {len(missing)} with something missing", flush=True)
        without_llm = [run for run in missing if not Path(WORLDS[run.world].large).exists()]
        if without_llm:
            self.failed += [run.name for run in without_llm]
            print(f"  left out {len(without_llm)} runs: no folder {LLM}; python toy/real.py makes it", flush=True)
            missing = [run for run in missing if run not in without_llm]
        with Runner([""] * self.jobs) as self.runner:
            for _, line in self.runner.each(lambda run, _: self.run(run, *self.missing(run, wanted[run])), missing):
                print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)

    def missing(self, run: Run, evaluations: list[Evaluation]) -> tuple[bool, list[Evaluation]]:
        """(is it to be trained, its evaluations that are missing)."""
        record = self.study.record(run)
        left = [e for e in evaluations if e.label not in record.get("evaluations", {})]
        trained = "training" in record and (not left or self.checkpoint(run))
        return CONTESTANTS[run.contestant].flags is not None and not trained, left

    def checkpoint(self, run: Run) -> Path | None:
        return next(Path("ckpt").glob(f"{self.study.prefix}.{run.name}-*/thoughts.json"), None)

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
        """Its output. RuntimeError with what it says where it fails."""
        threads = os.environ.get("OMP_NUM_THREADS", "1")  # tiny models: one thread a process is fastest
        environment = ENVIRONMENT | {"OMP_NUM_THREADS": threads}
        command = [sys.executable, "-u", f"{name}.py", *argv_of(flags)]
        ended = self.runner.run(Command(command, log, environment))
        if ended.failure is not None:
            raise RuntimeError(f"{name}.py failed, see {log}: {ended.failure}")
        return ended.output

    def train(self, run: Run) -> None:
        flags = run.train_flags(self.study.prefix)
        resumable = Path("results", flags["output_name"])
        shutil.rmtree(resumable, ignore_errors=True)
        for old in Path("ckpt").glob(f"{self.study.prefix}.{run.name}-*"):
            shutil.rmtree(old)
        log = self.script("train", flags, self.work / run.name / "train.log")
        flags = {name: value for name, value in flags.items() if name != "output_name"}
        self.study.save(run, training={"flags": flags} | trained(self.checkpoint(run).parent, resumable, log))
        shutil.rmtree(resumable)  # the weights are in ckpt/

    def evaluate(self, run: Run, evaluation: Evaluation) -> None:
        world, folder = WORLDS[run.world], self.work / run.name / evaluation.label
        flags = {"batch_size": 32, "max_new_tokens": world.max_new_tokens, "seed": run.seed, "test_k": world.test_k}
        if self.study.quick:
            flags["test_k"] = 200
        contestant = CONTESTANTS[run.contestant]
        if contestant.flags is None:
            flags |= {"base_model_id": world.large, "thought_generator": "none", **dict(world.task)}
            flags |= contestant.asked_with
        else:
            flags["checkpoint"] = self.checkpoint(run).parent
        flags |= dict(evaluation.flags) | {"output_dir": folder}
        start = time.time()
        self.script("evaluate", flags, folder.with_name(f"{folder.name}.log"))
        seconds = {"seconds": time.time() - start}
        if evaluation == INSPECT:
            result = inspected(folder) | seconds
        elif evaluation in (ALONE, FEW_ALONE):
            result = {"speed": evaluated(folder)["speed"]} | seconds
        else:
            result = evaluated(folder) | seconds
        self.study.save(run, evaluations={evaluation.label: result})


def trained(checkpoint: Path, resumable: Path, log: str) -> dict:
    """What is kept of a training: of its weights' folder, its results/ folder and what it printed."""
    record = TrainingRecord.read(checkpoint)
    losses = [json.loads(line) for line in (resumable / DEV_LOSSES_FILE).read_text().splitlines()]
    history = json.loads((resumable / STATE_FILE).read_text())["log_history"]
    logs = [log for log in history if "sft_loss" in log]
    return {
        "best_sft_loss": record.best.value,
        "best_step": record.best.step,
        "dev_losses": {line["step"]: line["nats"] for line in losses}[record.best.step],
        "dev_curve": [{key: point[key] for key in DEV_FIGURES if key in point} for point in record.dev_curve or []],
        "curve": [[log["step"], log["sft_loss"]] for log in logs[:: max(1, len(logs) // CURVE_POINTS)]],
        "trained_parameters": int(re.search(r"parameters: ([\d,]+) trained", log)[1].replace(",", "")),
        "seconds": next(log["train_runtime"] for log in reversed(history) if "train_runtime" in log),
        "versions": record.versions,
    }


def inspected(folder: Path) -> dict:
    """What is kept of --inspect: no similarities, and of each thought the nearest word alone."""
    result = json.loads((folder / "inspection.json").read_text())
    del result["similarity"]
    result["nearest_words"] = [[words[0]["word"] for words in question] for question in result["nearest_words"]]
    return result


def evaluated(folder: Path) -> dict:
    """What is kept of an evaluation's report and samples."""
    from lta_thinker.evaluation.compare import Evaluated
    from lta_thinker.evaluation.report import REPORT_FILE, Figures

    found = Evaluated.read(folder / REPORT_FILE)
    report = found.report
    kept = [field.name for field in fields(Figures) if field.name != "pass_at_k"] + [
        "thought_variance",
        "versions",
        "speed",
    ]
    result = {name: value for name, value in asdict(report).items() if name in kept}
    result["sampling"] = report.settings["sampling"]
    result["hits"] = as_digits([sum(one.hits) for one in found.graded])  # right samples of each question
    result["votes"] = as_digits([int(one.correct) for one in found.graded])
    return result


def noisy(rows: list[dict], split: str) -> list[dict]:
    """The rows; of the training rows three in ten are solved by the wrong method."""
    from toy import world

    if split != "train":
        return rows
    return [world.solved_wrongly(row) if i % 10 in (1, 4, 7) else row for i, row in enumerate(rows)]


def about_the_teller(rows: list[dict]) -> list[dict]:
    """The rows whose count is the teller's: the asked time alone decides their method."""
    return [row for row in rows if " I had " in row["question"]]


def write_inputs() -> None:
    """Longer problems and a reworded prompt for the stage `transfer`, the first world's other rows, and the second
    world's."""
    from toy import build_broad, world

    folder = Path("results/study")
    folder.mkdir(parents=True, exist_ok=True)
    rows = world.rows("test", 500, 41, lengths=(4, 5))
    write_text(folder / "longer.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text(folder / "reworded.json", json.dumps(REWORDED_PROMPT))
    for split in ("train", "dev", "test"):
        official = [json.loads(line) for line in Path(f"data/arithmetic/{split}.jsonl").read_text().splitlines()]
        for name, rows in (("noisy", noisy(official, split)), ("teller", about_the_teller(official))):
            make_folder(folder / name)
            write_text(folder / name / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    if not Path("toy/broad/data").exists():
        build_broad.write_data(Path("toy/broad"))


def run_stages(study: Study, runner: StudyRunner, titles: list[str]) -> None:
    if study.quick:
        shutil.rmtree(study.folder, ignore_errors=True)
    write_inputs()
    for title in titles:
        if not study.ready(title):
            sys.exit(f"error: {title}: a contestant has no tuned run; --stages tuning comes first")
        runner.stage(title, study.stages()[title]())


def list_stages(study: Study, runner: StudyRunner, titles: list[str]) -> None:
    for title in titles:
        state = "waits for its tuning"
        if study.ready(title):
            pairs = study.stages()[title]()
            left = [run.name for run, evaluations in pairs if any(runner.missing(run, evaluations))]
            state = f"{len(pairs)} runs, {len(left)} with something missing"
        print(f"{title:26s} {state}")


def report_all(study: Study) -> None:
    tables = study_pages.make(study)
    if study.quick:
        del tables["accuracies"]  # it is the first of the main tables too
        print("\n\n".join(f"{title}\n\n{table}" for title, table in tables.items()))
    else:
        study_pages.fill_all(ROOT, tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a reduced study, from nothing, in results/study-quick")
    parser.add_argument("--report", action="store_true", help="only make the tables and the plots")
    parser.add_argument("--list", action="store_true", help="only list the stages")
    parser.add_argument("--world", nargs="+", choices=WORLDS, help="only the stages of these worlds")
    parser.add_argument("--stages", nargs="+", help="only these (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (one core each)")
    args = parser.parse_args()
    if args.jobs < 1:
        sys.exit(f"error: --jobs {args.jobs}: must be at least 1")
    os.chdir(ROOT)
    study = Study(ROOT / "results/study-quick" if args.quick else ROOT / "benchmarks/study", args.quick)
    unknown = set(args.stages or ()) - study.stages().keys()
    if unknown:
        sys.exit(f"error: --stages {' '.join(unknown)}: there are {', '.join(study.stages())}")
    titles = [title for title in study.stages() if not args.stages or title in args.stages]
    titles = [title for title in titles if not args.world or world_of(title).name in args.world]
    if not titles:
        sys.exit(f"error: --stages {' '.join(args.stages)}: none of --world {' '.join(args.world)}")
    runner = StudyRunner(study, args.jobs)
    if args.list:
        list_stages(study, runner, titles)
    elif not args.report:
        run_stages(study, runner, titles)
    if args.report or (args.quick and not args.list):
        report_all(study)
    if runner.failed:
        failed = list(dict.fromkeys(runner.failed))  # a run may be in several stages
        sys.exit(f"error: {len(failed)} runs failed: {', '.join(failed)}")


if __name__ == "__main__":
    stop_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
