"""`Forked` starts Python command lines as forks of one server process, which has imported torch once for all."""

import atexit
import functools
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

# The environment of the session. What single tests set is not in it.
ENVIRONMENT = os.environ.copy()
# Python, OpenMP and rich read variables with these prefixes when they start, which a fork does not do again.
READ_AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
IMPORTED = ("lightning.pytorch", "torch._dynamo", "mnist_lab.training.train", "mnist_lab.viz.dashboard")


class Forked(subprocess.Popen):
    """A subprocess.Popen that forks `python [-u] (-m MODULE | -c PROGRAM) ...` where a fork behaves like a process.

    A fork has its own signals, exit status, session, streams, environment and current folder. Its parent is the server.
    A new process is started for other programs and options, for changed variables that Python reads at its start, and
    on other systems than Linux.
    """

    _report: socket.socket | None = None  # The server sends the process's id, and later its exit status.

    def _execute_child(self, args: Any, *settings: Any) -> None:
        _, preexec, _, inherited, cwd, env, _, _, _, *rest = settings
        environment = os.environ.copy() if env is None else env
        python, *program = map(str, args) if isinstance(args, (list, tuple)) else [args]
        unbuffered = program[:1] == ["-u"]
        program = program[unbuffered:]
        changed = {*environment.items()} ^ {*ENVIRONMENT.items()}
        if (
            sys.platform != "linux"
            or python != sys.executable
            or program[:1] not in (["-m"], ["-c"])
            or preexec
            or inherited
            or any(name.startswith(READ_AT_START) for name, _ in changed)
        ):
            super()._execute_child(args, *settings)  # type: ignore[misc]
            return
        pipes, session = rest[:6], bool(rest[11])
        folder = str(Path(cwd or "").absolute())
        request = json.dumps([program, unbuffered, session, folder, dict(environment)]).encode()
        streams = [end if end >= 0 else number for number, end in enumerate((pipes[0], pipes[3], pipes[5]))]
        self._report, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with end:
            socket.send_fds(server(), [request], [*streams, end.fileno()])
        self.pid = int(self._report.recv(20))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._report is None:
            return super()._try_wait(flags)  # type: ignore[misc]
        if flags & os.WNOHANG and not select.select([self._report], [], [], 0)[0]:
            return 0, 0
        status = int(self._report.recv(20))
        self._report.close()
        return self.pid, status

    def _internal_poll(self, *args: Any, **kwargs: Any) -> int | None:
        if self._report is None:
            return super()._internal_poll(*args, **kwargs)  # type: ignore[misc]
        with suppress(subprocess.TimeoutExpired):
            self._wait(timeout=0)  # type: ignore[attr-defined]
        return self.returncode


@functools.cache
def server() -> socket.socket:
    """Start the server, which ends with this process, and return the connection to it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        command = [sys.executable, __file__, str(there.fileno())]
        process = subprocess.Popen(command, env=ENVIRONMENT, pass_fds=[there.fileno()], stdout=subprocess.DEVNULL)
    atexit.register(lambda: (here.close(), process.wait()))
    return here


def serve(requests: socket.socket) -> list[str]:
    """Fork a process for each request and report its id and exit status; in the fork, return the program to run."""
    running: dict[int, tuple[int, int]] = {}  # By process descriptor: its id, and the socket for its status.
    while True:
        for ready in select.select([requests.fileno(), *running], [], [])[0]:
            if ready in running:
                pid, report = running.pop(ready)
                with suppress(OSError):  # The test has ended before its process.
                    os.write(report, str(os.waitpid(pid, 0)[1]).encode())
                os.close(report)
                os.close(ready)
                continue
            request, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
            if not request:
                os._exit(0)
            pid = os.fork()
            if not pid:
                requests.detach()
                return become(*json.loads(request), descriptors[:3])
            *streams, report = descriptors
            os.write(report, str(pid).encode())
            running[os.pidfd_open(pid)] = pid, report
            for stream in streams:
                os.close(stream)


def become(
    program: list[str], unbuffered: bool, session: bool, folder: str, environment: dict[str, str], streams: list[int]
) -> list[str]:
    """Give this fork the session, streams, folder and environment of a new process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if session:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 4096)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder if program[0] == "-m" else ""
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    for name, old in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        direct = unbuffered or old.write_through
        file = open(old.fileno(), "wb", 0 if direct else -1, closefd=False)  # noqa: SIM115
        new = io.TextIOWrapper(
            file, old.encoding, old.errors, line_buffering=old.line_buffering and not direct, write_through=direct
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    return program


def run(kind: str, program: str, *arguments: str) -> None:
    """Run `python -m PROGRAM` or `python -c PROGRAM` in this process."""
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(program, vars(sys.modules["__main__"]))


def leave() -> None:
    """Exit before Python frees its objects: a fork would first copy every page of memory, which takes longest."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, which end this process.
    atexit.register(leave)  # Registered first, it is called last.
    for name in IMPORTED:
        importlib.import_module(name)
    importlib.import_module("mnist_lab.config.compose").compose()  # The parsers of settings fill their caches.
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not be forked"  # noqa: PTH208
    gc.freeze()
    status = 1
    try:
        run(*serve(socket.socket(fileno=int(sys.argv[1]))))
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except KeyboardInterrupt:
        status = -signal.SIGINT
        raise
