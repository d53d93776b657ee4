"""A Python that starts warm: its server has imported the libraries and lta_thinker once, and forks for each program.

A start of torch and transformers costs 4 to 5 CPU seconds, a fork of the server 0.05. conftest.py starts one server for
all workers of a session (it imports only when the first program is asked for), and writes a command, PYTHON, that
stands in for sys.executable: `PYTHON [-u] script.py ...`, `PYTHON -m module ...`, `PYTHON -c code ...`. With any other
option it becomes the real Python. Signals that PYTHON gets go to the program; its end is the program's end; if PYTHON
is killed, so is the program. sys.executable of the program is PYTHON: what torchrun starts is warm too, and the
server of data workers.

    python tests/warm.py NUMBER      the server, with its listening socket; it ends when its stdin is closed
"""

import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

MOST_FILES = 64  # of a program at its start
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def python() -> str:
    """PYTHON of this session."""
    return os.environ["WARM_PYTHON"]


# ---------------------------------------------------------------------------------------------------------------------
# PYTHON


def as_python(address: str) -> None:
    """What PYTHON does: have the server run the words of this command, and end as that ends."""
    words = sys.argv[1:]
    script = next((i for i, word in enumerate(words) if word != "-u"), None)
    if script is None or (words[script].startswith("-") and words[script] not in ("-m", "-c")):
        os.execv(sys.executable, [sys.executable, *words])
    files = _open_files()
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    ignored = [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is somebody to pass them on to
    asked = pickle.dumps((words, files, os.getcwd(), dict(os.environ), ignored))
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], files)
    server.sendall(asked)
    program = _number(server)
    for number in PASSED_ON:
        if number not in ignored:
            signal.signal(number, lambda number, frame: os.kill(program, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    for file in files:
        os.close(file)  # a reader of our output waits for the program alone
    code = _number(server)
    if code < 0:
        if -code in PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _open_files() -> list[int]:
    """Numbers of the files that this process was given."""
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            os.fstat(int(name))
            found.append(int(name))
        except OSError:  # that of the listing
            pass
    return found


def _number(server: socket.socket) -> int:
    told = server.recv(8, socket.MSG_WAITALL)
    if len(told) < 8:
        os._exit(99)  # the server is gone
    return int.from_bytes(told, "big", signed=True)


# ---------------------------------------------------------------------------------------------------------------------
# The server


def serve(listener: socket.socket) -> None:
    """Fork for each program that is asked for, until stdin is closed."""
    ended, end = socket.socketpair()  # a byte comes at each SIGCHLD
    end.setblocking(False)
    signal.set_wakeup_fd(end.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[socket.socket, int] = {}  # its client: the program
    warm = False
    while True:
        ready, _, _ = select.select([0, listener, ended, *running], [], [])
        if 0 in ready:  # the session has ended
            for program in running.values():
                os.kill(program, signal.SIGKILL)
            os._exit(0)
        if ended in ready:
            ended.recv(4096)
            for client, program in [*running.items()]:
                found, status = os.waitpid(program, os.WNOHANG)
                if found:
                    _tell(client, os.waitstatus_to_exitcode(status))
                    del running[client]
                    client.close()
        for client in [client for client in ready if client in running]:  # it was killed
            os.kill(running[client], signal.SIGKILL)
            os.waitpid(running.pop(client), 0)
            client.close()
        if listener in ready:
            if not warm:
                warm_up()
                warm = True
            client, _ = listener.accept()
            length, files, _, _ = socket.recv_fds(client, 8, MOST_FILES)
            asked = pickle.loads(_whole(client, int.from_bytes(length, "big")))
            program = os.fork()
            if not program:
                signal.set_wakeup_fd(-1)
                for other in (listener, ended, end, client, *running):
                    other.close()
                become(files, *asked)
            running[client] = program
            _tell(client, program)
            for file in files:
                os.close(file)


def _tell(client: socket.socket, number: int) -> None:
    try:
        client.sendall(number.to_bytes(8, "big", signed=True))
    except BrokenPipeError:  # it was killed just now
        pass


def _whole(client: socket.socket, length: int) -> bytes:
    told = b""
    while len(told) < length:
        told += client.recv(length - len(told))
    return told


def warm_up() -> None:
    """Import what nearly every program imports."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import datasets  # noqa: F401
    import torch
    import torch.distributed.fsdp  # noqa: F401
    import torch.distributed.launcher.api  # noqa: F401
    import transformers.trainer  # noqa: F401

    import lta_thinker.evaluate  # noqa: F401
    import lta_thinker.train  # noqa: F401

    torch.set_num_threads(1)
    del sys.path[0]
    gc.collect()
    gc.freeze()  # of no interest to a fork's garbage collector


def become(
    files: list[int],
    words: list[str],
    numbers: list[int],
    folder: str,
    environment: dict[str, str],
    ignored: list[int],
) -> None:
    """In the fork: be the program, up to the exit of the process. files: to have these numbers."""
    import atexit
    import fcntl
    import multiprocessing
    import runpy
    import threading
    import traceback

    above = [fcntl.fcntl(file, fcntl.F_DUPFD, 1 + max(numbers)) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(above, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    sys.executable = python()
    multiprocessing.set_executable(sys.executable)
    os.environ.clear()
    os.environ.update(environment)
    for number in (signal.SIGCHLD, *PASSED_ON):
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    unbuffered = words[0] == "-u" or "PYTHONUNBUFFERED" in environment
    words = words[1:] if words[0] == "-u" else words
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", 1 if unbuffered or os.isatty(1) else -1, closefd=False)
    sys.stderr = open(2, "w", 1, closefd=False)
    code = 0
    try:
        if words[0] == "-m":
            sys.path[0], sys.argv = folder, words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            main = types.ModuleType("__main__")
            sys.modules["__main__"] = main
            if words[0] == "-c":
                sys.path[0], sys.argv, text = "", ["-c", *words[2:]], words[1]
            else:
                main.__file__ = os.path.abspath(words[0])
                sys.path[0], sys.argv = os.path.dirname(os.path.realpath(words[0])), words
                text = Path(words[0]).read_text(encoding="utf-8")
            exec(compile(text, getattr(main, "__file__", "<string>"), "exec"), main.__dict__)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    os._exit(code & 0xFF)


# ---------------------------------------------------------------------------------------------------------------------
# The session


SERVER: list[subprocess.Popen] = []  # it lives as long as this process, which holds its stdin


def start_server(folder: str) -> None:
    """Start the server of this session with its socket in that folder, and write PYTHON there."""
    address, command = f"{folder}/socket", Path(folder, "python")
    here = Path(__file__).resolve()
    command.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(here.parent)!r})\n"
        f"import warm\nwarm.as_python({address!r})\n"
    )
    command.chmod(0o755)
    os.environ |= {"WARM_PYTHON": str(command), "WARM_PYTHON_OF": __file__}
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    SERVER.append(
        subprocess.Popen(
            [sys.executable, *(["-B"] if sys.dont_write_bytecode else []), str(here), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    )
    listener.close()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
