"""The work of mutants.sh: draws mutants from cosmic-ray's, runs each against its room's tests, prints the survivors.

python benchmarks/mutants.py OUT PYTHON COUNT SEED [ROOM ...]

OUT/<room>.sqlite is cosmic-ray's session, OUT/<room>/ a clone of HEAD in which its mutants are made, OUT/<room>.json
which tests run which function. Without sessions mutants are drawn; else the run goes on with them.
"""

import argparse
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from mutant_tests import PYTEST, write_table

BROKEN = "tests/project/test_broken_files.py"
ROOMS = {  # name: its files, its tests (the quick and sharp ones first: the first failure ends a mutant)
    "losses": (["losses.py"], ["tests/model/test_losses.py", "tests/training/test_balance.py"]),
    "model": (["model.py"], ["tests/model", "tests/llm/test_tuning.py", "tests/api"]),
    "rows": (["data_loader.py", "lta_thinker/rows"], ["tests/rows", "tests/training/test_preprocess.py"]),
    "generation": (["lta_thinker/generation"], ["tests/generation", "tests/api", "tests/model/test_exact.py"]),
    "training": (
        ["train.py", "lta_thinker/training"],
        [
            "tests/training",
            "tests/model/test_states.py",
            "tests/model/test_published.py",
            "tests/project/test_wrong_inputs.py",
            BROKEN,
        ],
    ),
    "evaluation": (
        ["evaluate.py", "lta_thinker/evaluation"],
        [
            "tests/evaluation",
            "tests/api/test_hub.py",
            "tests/llm/test_tuning.py",
            "tests/training/test_fewshot.py",
            "tests/project/test_wrong_inputs.py",
            BROKEN,
        ],
    ),
    "answers": (["lta_thinker/answers"], ["tests/answers"]),
    "checkpoint": (
        ["lta_thinker/checkpoint.py"],
        [
            "tests/model/test_checkpoint.py",
            "tests/training/test_checkpoints.py",
            "tests/evaluation/test_dis_evaluate.py",
            "tests/api/test_hub.py",
            BROKEN,
        ],
    ),
}
ONLY_ELSEWHERE = {"lta_thinker/generation/vllm.py", "lta_thinker/generation/reaper.py"}  # their tests need vLLM
LOOKS = {"lta_thinker/evaluation/plots.py"}  # sizes, colours, places of labels: its tests look at what is drawn
# of which no mutant is a fault of what is computed: speed, memory, bars, drawings
SAME = re.compile(
    r"frozen=True|strict=(True|False)|@(lru_)?cache|daemon=True|@torch\.(inference_mode|no_grad)|flush=|(tqdm|track)\(|\baxes\."
)
AT_IMPORT = ("error during collection", "errors during collection", "ImportError while loading conftest")


def session(out: Path, room: str) -> Path:
    """cosmic-ray's session of a room."""
    return out / f"{room}.sqlite"


def write_config(out: Path, room: str, python: str, timeout: float) -> Path:
    """cosmic-ray's configuration of a room, with the seconds after which its tests count as failed."""
    values = {"module-path": ROOMS[room][0], "excluded-modules": sorted(ONLY_ELSEWHERE), "timeout": timeout}
    values["test-command"] = f"{python} {Path(__file__).with_name('mutant_tests.py')} {(out / room).resolve()}.json"
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    path = out / f"{room}.toml"
    path.write_text("\n".join(["[cosmic-ray]", *lines, "", "[cosmic-ray.distributor]", 'name = "local"', ""]))
    return path


def clone(out: Path, room: str) -> Path:
    """The room's own clone of HEAD, without what a killed run has left in it."""
    folder = out / room
    if not folder.exists():
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ".", folder], check=True)
    subprocess.run(["git", "-C", folder, "checkout", "--quiet", "."], check=True)
    return folder


def draw(out: Path, python: str, count: int, seed: int) -> None:
    """Sessions of all rooms with `count` mutants in all: so many places, and at each place one of its mutants.

    Not every mutant alike: a sum has eleven, a comparison five, a call none. Without those that make `|` another
    operator: in `int | None` and of dicts they end every import, which says nothing of the tests. And without the
    lines and the file of which no mutant is a fault that a test could name (SAME, LOOKS).
    """
    places: dict[tuple, list[tuple]] = {}
    for room in ROOMS:
        temporary = session(out, room).with_suffix(".new")
        temporary.unlink(missing_ok=True)
        config = write_config(out, room, python, 1.0).resolve()
        command = [(out / "tool/bin/cosmic-ray").resolve(), "init", config, temporary.resolve()]
        subprocess.run(command, cwd=clone(out, room), check=True)
        with sqlite3.connect(temporary) as table:
            columns = "module_path, start_pos_row, start_pos_col, operator_name, occurrence, job_id"
            rows = table.execute(f"select {columns} from mutation_specs")
            for file, line, column, operator, occurrence, job in rows:
                text = Path(file).read_text(encoding="utf-8").splitlines()[line - 1]
                if "BitOr" not in operator and file not in ONLY_ELSEWHERE | LOOKS and not SAME.search(text):
                    places.setdefault((room, file, line, column), []).append((operator, occurrence, job))
    rng = random.Random(seed)
    drawn = rng.sample(sorted(places), min(count, len(places)))
    kept = {rng.choice(sorted(places[place]))[2] for place in drawn}
    print(f"{len(kept)} mutants, at as many of {len(places)} places, seed {seed}")
    for room in ROOMS:
        temporary = session(out, room).with_suffix(".new")
        with sqlite3.connect(temporary) as table:
            jobs = {job for (job,) in table.execute("select job_id from work_items")} - kept
            for name in ("mutation_specs", "work_items"):
                table.executemany(f"delete from {name} where job_id = ?", [(job,) for job in jobs])
    for room in ROOMS:  # last, so that a run that was killed before draws anew
        session(out, room).with_suffix(".new").replace(session(out, room))


def run(out: Path, room: str, python: str) -> None:
    """Run the room's mutants that have no result yet."""
    with sqlite3.connect(session(out, room)) as table:
        [(left,)] = table.execute("select (select count(*) from work_items) - (select count(*) from work_results)")
    if not left:
        return
    folder, (names, tests), began = clone(out, room), ROOMS[room], time.monotonic()
    files = [file for name in names for file in sorted((folder / name).rglob("*.py")) or [folder / name]]
    original = files[0].read_text(encoding="utf-8")
    files[0].write_text(original + "# no mutant\n", encoding="utf-8")  # its tests meet a clone that git calls dirty
    coverage = out.resolve() / f"{room}.coverage"
    command = [python, *PYTEST[1:], f"--cov={folder.resolve()}", "--cov-context=test", "--cov-report=", *tests]
    environment = os.environ | {"COVERAGE_FILE": str(coverage)}
    plain = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    files[0].write_text(original, encoding="utf-8")
    if plain.returncode:
        sys.exit(f"error: {room}: its tests fail without a mutant:\n{plain.stdout[-2000:]}")
    write_table(folder, files, coverage, out / f"{room}.json")
    seconds = time.monotonic() - began
    print(f"{room}: {left} mutants to run, its tests take {seconds:.0f} s", flush=True)
    config = write_config(out, room, python, 60 + 4 * seconds).resolve()
    tool = (out / "tool/bin/cosmic-ray").resolve()
    command = [python, "-B", Path(__file__).with_name("mutant_tests.py").resolve(), "--serve"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        if server.stdout is None or server.stdout.readline() != "ready\n":
            sys.exit(f"error: {room}: no server of its tests")
        try:
            subprocess.run([tool, "exec", config, session(out, room).resolve()], cwd=folder, check=True)
        finally:
            server.terminate()


def report(out: Path) -> None:
    """Print the survivors with their diffs, and the shares."""
    in_all = [0, 0, 0]
    for room in ROOMS:
        with sqlite3.connect(session(out, room)) as table:
            [(mutants,)] = table.execute("select count(*) from work_items")
            results = table.execute(
                "select module_path, start_pos_row, operator_name, test_outcome, output, diff"
                " from work_results join mutation_specs using (job_id) order by module_path, start_pos_row"
            ).fetchall()
        alive = [row for row in results if row[3] == "SURVIVED"]
        imports = sum(any(mark in (row[4] or "") for mark in AT_IMPORT) for row in results)
        for file, line, operator, _, _, diff in alive:
            print(f"\nsurvived: {file}:{line} {operator}")
            changed = (one for one in diff.split("\n") if one[:1] in "+-" and one[:3] not in ("+++", "---"))
            print("\n".join(f"    {one}" for one in changed))
        print(f"\n{room}: {len(results)} of {mutants} run, {len(results) - len(alive)} killed ({imports} at import)")
        in_all = [a + b for a, b in zip(in_all, (mutants, len(results), len(results) - len(alive)), strict=True)]
    mutants, done, killed = in_all
    print(f"\nin all: {done} of {mutants} run, {killed} killed" + (f": {killed / done:.1%}" if done else ""))


def main() -> None:
    """See the file's top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("python")
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", choices=[*ROOMS, []], help=", ".join(ROOMS))
    args = parser.parse_args()
    if not all(session(args.out, room).exists() for room in ROOMS):
        draw(args.out, args.python, args.count, args.seed)
    for room in args.rooms or ROOMS:
        run(args.out, room, args.python)
    report(args.out)


if __name__ == "__main__":
    main()
