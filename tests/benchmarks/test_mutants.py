"""mutants.sh: the rooms that it names are there, with their tests, and its report. (A run takes hours.)"""

import importlib
import sqlite3

import pytest
from helpers import ROOT


@pytest.fixture
def benchmarks(monkeypatch):
    """Imports a program of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.fixture
def mutants(benchmarks):
    return benchmarks("mutants")


def test_rooms_and_their_tests_are_there(mutants):
    """Each room's files and tests are in the repository."""
    for files, tests in mutants.ROOMS.values():
        assert all((ROOT / path).exists() for path in [*files, *tests])


def test_survivors_are_printed_with_their_diff(mutants, tmp_path, capsys):
    """The report names what survived with its line and diff, and says how many were killed, and how many by an import
    that failed."""
    for room in mutants.ROOMS:
        with sqlite3.connect(mutants.session(tmp_path, room)) as table:
            table.execute("create table work_items (job_id)")
            table.execute("create table mutation_specs (job_id, module_path, start_pos_row, operator_name)")
            table.execute("create table work_results (job_id, test_outcome, output, diff)")
            for job, outcome, output in (("a", "SURVIVED", ""), ("b", "KILLED", "1 error during collection")):
                table.execute("insert into work_items values (?)", (job,))
                table.execute("insert into mutation_specs values (?, ?, 7, 'core/AddNot')", (job, f"{room}.py"))
                table.execute(
                    "insert into work_results values (?, ?, ?, '--- x\n+++ y\n-if a:\n+if not a:')",
                    (job, outcome, output),
                )
            table.execute("insert into work_items values ('c')")
    mutants.report(tmp_path)
    said = capsys.readouterr().out
    assert (
        "survived: losses.py:7 core/AddNot\n    -if a:\n    +if not a:\n\nlosses: 2 of 3 run, 1 killed (1 at import)"
        in said
    )
    rooms = len(mutants.ROOMS)
    assert said.endswith(f"in all: {2 * rooms} of {3 * rooms} run, {rooms} killed: 50.0%\n")


def test_a_mutant_meets_the_tests_that_run_its_function(benchmarks):
    """Those of its own name first; all of the room where a fixture runs it, where none does, and outside functions."""
    tests_of = benchmarks("mutant_tests").tests_of
    other, own, third = "tests/a/test_x.py::f", "tests/a/test_losses.py::g[1]", "tests/a/test_y.py::h"
    functions = [[3, 20, [other, own], False], [5, 6, [own], True], [8, 9, [], False], [11, 12, [third], False]]
    table = {"tests": [own, other, third], "functions": {"losses.py": functions}}
    assert tests_of(table, "losses.py", 4) == [own, other]
    assert tests_of(table, "losses.py", 11) == [third]
    assert tests_of(table, "losses.py", 6) == [own, other, third]
    assert tests_of(table, "losses.py", 8) == tests_of(table, "losses.py", 30) == [own, other, third]
    assert tests_of(table, "model.py", 4) == [own, other, third]
