"""How a script ends, files all or nothing, strict JSON, the lock of a folder."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, one_line

from lta_thinker.common import (
    InputError,
    check_can_meet,
    counted,
    lock_folder,
    parse_json,
    read_json,
    run_program,
    write_json,
    write_text,
)
from lta_thinker.training import start as training_start

HOLDER = """
import sys, time
from pathlib import Path
from lta_thinker.common import lock_folder
lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def raising(error):
    def run(*_):
        raise error

    return run


@pytest.mark.parametrize(
    "error, line",
    [
        (InputError("--flag x: wrong"), "error: --flag x: wrong"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "error: a/b: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "File name too long", b"a/b"), "error: a/b: File name too long"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device; all is kept"),
    ],
)
def test_what_the_user_can_mend_ends_a_script_with_one_line(error, line):
    with pytest.raises(SystemExit) as ended:
        run_program(raising(error), [], "all is kept")
    assert ended.value.code == line  # Python prints it, and exits with status 1


@pytest.mark.parametrize(
    "name, value, why",
    [
        ("WORLD_SIZE", "x", "not a whole number from 1 on"),
        ("WORLD_SIZE", "0", "not a whole number from 1 on"),
        ("LOCAL_RANK", "", "not a whole number from 0 on"),
        ("RANK", "-1", "not a whole number from 0 on"),
        ("RANK", "1", "not below WORLD_SIZE=1"),
    ],
)
def test_a_rank_that_is_none_ends_a_script_with_one_line(monkeypatch, name, value, why):
    """An environment variable of torchrun's that cannot be is named before anything runs."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        run_program(lambda argv: pytest.fail("it ran"), [], "")
    unset = f"torchrun sets this environment variable; without torchrun: unset {name}"
    assert ended.value.code == f"error: {name}={value}: {why}; {unset}"


def test_processes_that_cannot_meet_are_one_line(monkeypatch):
    """WORLD_SIZE alone, which some clusters set, names torchrun and the way back; torchrun's variables are enough."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError) as error:
        training_start.answer(["--output_name", "x"])
    one_line(error, "WORLD_SIZE=2, but RANK, LOCAL_RANK, MASTER_ADDR not set: torchrun", "for one: unset WORLD_SIZE")
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    check_can_meet()


def test_one_is_counted_in_the_singular():
    assert [counted(n, "micro-batch") for n in (0, 1, 2)] == ["0 micro-batches", "1 micro-batch", "2 micro-batches"]
    assert (counted(1, "GPU"), counted(1319, "question")) == ("1 GPU", "1,319 questions")


def test_a_full_gpu_ends_a_script_with_one_line():
    class OutOfMemoryError(RuntimeError):  # torch's has this name
        pass

    with pytest.raises(SystemExit) as ended:
        run_program(raising(OutOfMemoryError("CUDA out of memory. Tried\nmore")), [], "")
    line = "error: out of GPU memory (CUDA out of memory. Tried): try a smaller --batch_size; in training "
    assert ended.value.code == line + "with more --gradient_accumulation_steps, or --gradient_checkpointing"


def test_a_fault_of_the_program_keeps_its_traceback():
    for error in (KeyError("x"), RuntimeError("x"), OSError(errno.EIO, "Input/output error")):
        with pytest.raises(type(error)):
            run_program(raising(error), [], "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_script_with_one_line(number, capsys):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        run_program(lambda argv: os.kill(os.getpid(), number), [], "all is kept")
    assert ended.value.code == 128 + number and signal.getsignal(number) is before
    assert capsys.readouterr().err == f"stopped by {number.name}: all is kept\n"


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_program(lambda argv: os.kill(os.getpid(), signal.SIGHUP), [], "") is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_of_the_output_that_leaves_is_no_traceback():
    program = (
        "from lta_thinker.common import run_program; run_program(lambda argv: [print(i) for i in range(10**5)], [], '')"
    )
    ended = subprocess.run(
        f'{sys.executable} -c "{program}" | head -1', shell=True, capture_output=True, text=True, cwd=ROOT
    )
    assert (ended.stdout, ended.stderr) == ("0\n", "")


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "data_loader.py"])
def test_a_ctrl_c_during_the_imports_is_no_traceback(script):
    """It ends the script at once, without a word."""
    program = f"""
import os, runpy, sys

class Interrupt:
    def find_spec(name, *_):
        if name == "lta_thinker":
            os.kill(os.getpid(), {int(signal.SIGINT)})

sys.meta_path.insert(0, Interrupt)
runpy.run_path({script!r}, run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


def test_closed_streams_are_no_traceback():
    """A script whose output is closed (>&-, 2>&-) runs to its end."""
    end = "open('/dev/fd/9', 'w').write('end')"
    program = f"from lta_thinker.common import run_program; run_program(lambda argv: print(1), [], ''); {end}"
    command = f'{sys.executable} -c "{program}" 9>&1 >&- 2>&-'
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (0, "end")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_no_memory_is_one_line(error):
    with pytest.raises(SystemExit) as ended:
        run_program(raising(error), [], "")
    assert ended.value.code == "error: out of memory: try a smaller --batch_size"


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_text(path, "old")

    def full(self, text, **_):
        with open(self, "w") as file:
            file.write(text[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"file.json: cannot be written \(No space left on device\); make room"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]


def test_a_write_that_a_signal_ends_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_text(path, "old")
    monkeypatch.setattr(Path, "replace", raising(KeyboardInterrupt(signal.SIGTERM)))
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]


def test_json_that_is_written_is_finite(tmp_path):
    with pytest.raises(InputError, match="a.b would not be finite|not written, .*b"):
        write_json(tmp_path / "x.json", {"a": {"b": [1.0, float("nan")]}, "c": 1.0})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "text, why",
    [
        ("NaN", "finite"),
        ('{"a": [-Infinity]}', "finite"),
        ("[1e999]", "finite"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
        ("[" * 10**5, "nested too deep"),
        ('{"a":' * 10**5, "nested too deep"),
        ('{"a":[' * 60 + "]}" * 60, "nested too deep"),  # any Python reads this one
        ('{"a": "\\ud800"}', "surrogates"),
        ('{"\\udc00": 1}', "surrogates"),
        ("1" * 5000, "digits"),
        ("", "Expecting value"),
        ("{} {}", "Extra data"),
        ('{"a": 01}', "Expecting"),
    ],
)
def test_json_that_python_takes_or_breaks_on_is_refused_in_one_line(text, why):
    with pytest.raises(InputError, match=f"^here: .*{why}") as refused:
        parse_json(text, "here")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


def test_json_of_whole_surrogate_pairs_and_large_numbers_is_read():
    text = json.dumps({"a": "\U0001f600 \u00e9 \\u d800", "b": 1e308, "c": -12345678901234567890, "d": None})
    assert parse_json(text, "") == json.loads(text)


def test_a_file_that_cannot_be_read_as_json_is_named(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    (tmp_path / "folder").mkdir()
    reasons = {"bytes.json": "not UTF-8", "none.json": "no such file", "bytes.json/x": "no such file"}
    for name, why in (reasons | {"folder": r"cannot be read \(Is a directory\)"}).items():
        with pytest.raises(InputError, match=f"{name}: {why}"):
            read_json(tmp_path / name)


def test_a_locked_folder_is_refused_until_its_holder_ends_even_by_a_kill(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=f"process {holder.pid} on .* since .* is writing here; wait"):
        lock_folder(tmp_path, "; wait for it")
    holder.kill()
    holder.wait()
    lock_folder(tmp_path)
    lock_folder(tmp_path)  # its own lock is no obstacle
    run_program(lambda _: None, [], "")  # the end of a run in this process is an end too
    assert not list(tmp_path.iterdir())
    subprocess.run(
        [sys.executable, "-c", HOLDER.replace("time.sleep(60)", ""), tmp_path],
        check=True,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
