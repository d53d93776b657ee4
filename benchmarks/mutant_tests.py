"""Runs the tests that a mutant can fail: those that run the function it is in, those of its own file first.

python benchmarks/mutant_tests.py TABLE        # in a clone with one mutant; cosmic-ray calls it (mutants.py)

TABLE is what the coverage of the room's tests says: {"tests": [node, ...], "functions": {file: [[first
line, last line, [node, ...], run in a fixture], ...]}}. What a fixture runs counts for one test only, though many may
use what it made: then the room's other tests follow. A mutant outside of functions meets all tests of the room.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PYTEST = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:warnings"]
NOTHING_RUN = (4, 5)  # pytest's: a wrong argument, or no test


def write_table(clone: Path, files: list[Path], coverage: Path, table: Path) -> None:
    """Make the table of a room's files (in `clone`) from the coverage of its tests, with a context a test."""
    from coverage import CoverageData

    data = CoverageData(str(coverage))
    data.read()
    nodes = sorted({context.rsplit("|", 1)[0] for context in data.measured_contexts() if context})
    functions: dict[str, list] = {}
    for path in files:
        found = functions.setdefault(str(path.relative_to(clone)), [])
        contexts = data.contexts_by_lineno(str(path.resolve()))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                run = {context for line in lines for context in contexts.get(line, ()) if context}
                tests = sorted({context.rsplit("|", 1)[0] for context in run})
                in_fixture = any(not context.endswith("|run") for context in run)
                found.append([node.lineno, lines[-1], tests, in_fixture])
    table.write_text(json.dumps({"tests": nodes, "functions": functions}))


def tests_of(table: dict, file: str, line: int) -> list[str]:
    """The tests that a mutant at a line of a file can fail, those of its own name first."""
    around = [function for function in table["functions"].get(file, []) if function[0] <= line <= function[1]]
    if not around:
        return table["tests"]
    _, _, tests, in_fixture = max(around, key=lambda function: function[0])
    stem = Path(file).stem
    own = [test for test in tests if stem in Path(test.split("::")[0]).stem]
    chosen = [*own, *(test for test in tests if test not in set(own))]
    if in_fixture or not chosen:
        chosen += [test for test in table["tests"] if test not in set(chosen)]
    return chosen


def run(tests: list[str]) -> int:
    """pytest's exit status."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(tests))
        file.flush()
        return subprocess.run([*PYTEST, f"@{file.name}"]).returncode


def main() -> None:
    """See the file's top."""
    table = json.loads(Path(sys.argv[1]).read_text())
    diff = subprocess.run(["git", "diff", "-U0"], capture_output=True, text=True, check=True).stdout
    file = re.search(r"^--- a/(.*)$", diff, re.M)
    line = re.search(r"^@@ -(\d+)", diff, re.M)
    if not (file and line):
        sys.exit("error: nothing is mutated here")
    tests = tests_of(table, file[1], int(line[1]))
    print(f"{file[1]}:{line[1]}: {len(tests)} tests", flush=True)
    status = run(tests)
    sys.exit(run(table["tests"]) if status in NOTHING_RUN else status)


if __name__ == "__main__":
    main()
