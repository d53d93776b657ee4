"""Runs the tests that a mutant can fail: those that run the function it is in, those of its own file first.

python benchmarks/mutant_tests.py TABLE         # in a clone with one mutant; cosmic-ray calls it (mutants.py)
python benchmarks/mutant_tests.py --serve       # in the clone: makes the processes in which the tests run

The server imports the libraries once and forks: their imports take longer than most mutants live. TABLE is what the
coverage of the room's tests says: {"tests": [node, ...], "functions": {file: [[first line, last line, [node, ...], run
in a fixture], ...]}}. What a fixture runs counts for one test only, though many may use what it made: then the room's
other tests follow. A mutant outside of functions meets all tests of the room.
"""

import ast
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

PYTEST = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:warnings"]
NOTHING_RUN = (4, 5)  # pytest's: a wrong argument, or no test
SOCKET = "mutant.sock"  # of the server, in the clone


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
    """pytest's exit status, from the server's child."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(SOCKET)
        server.sendall(json.dumps(tests).encode() + b"\n")
        answer = json.loads(server.makefile().readline())
    print(answer["output"], flush=True)
    return answer["status"]


def serve() -> None:
    """Fork a pytest for each list of tests, until it is stopped. One whose client went away is killed."""
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import pytest
    import torch  # noqa: F401
    import transformers.trainer  # noqa: F401

    Path(SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(SOCKET)
        server.listen()
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            tests, output = json.loads(client.makefile().readline()), Path("mutant.out")
            child = os.fork()
            if child == 0:
                os.setsid()
                file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
                os.dup2(file, 1)
                os.dup2(file, 2)
                sys.path[0] = os.getcwd()
                os._exit(pytest.main([*PYTEST[4:], *tests]))
            status = None
            while status is None and not select.select([client], [], [], 0.05)[0]:
                done, code = os.waitpid(child, os.WNOHANG)
                status = os.waitstatus_to_exitcode(code) if done else None
            with client:
                if status is None:
                    os.killpg(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                else:
                    answer = {"status": status, "output": output.read_text(errors="replace")[-2000:]}
                    client.sendall(json.dumps(answer).encode() + b"\n")


def main() -> None:
    """See the file's top."""
    if sys.argv[1] == "--serve":
        serve()
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
