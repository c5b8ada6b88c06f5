"""End a sweep: forward signals to its jobs, and end their processes when the sweep's process dies."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mnist_lab.errors import Interrupted
from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.state import RunState
from mnist_lab.runs.sweep import Sweep

SWEEP_PROCESS = "MNIST_LAB_SWEEP_PROCESS"  # set for a job in a subprocess: the id of the process that waits for it
PATIENCE = 60  # seconds for jobs to save after a signal


def end_with_parent(parent: int) -> None:
    """Watch the parent process from a thread, and end this process at once when the parent is gone.

    A killed process cannot stop its children, and orphaned workers would wait for work for ever.

    Args:
        parent: the id of the parent process.
    """
    name = f"ends with {parent}"
    if all(thread.name != name for thread in threading.enumerate()):
        threading.Thread(target=_watch_parent, args=(parent,), name=name, daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(128 + 9)  # as after kill -9: the files on the disk are intact at any moment


@contextmanager
def forward_signals(sweep: Sweep) -> Iterator[None]:
    """Forward Ctrl-C, SIGTERM and SIGHUP to jobs in other processes of this machine, and wait until they have saved.

    A job in this process handles them itself while it trains; one on another machine runs to its end. A second signal
    ends the wait.
    """

    def stop(number: int, frame: Any) -> None:
        # All of it before the exception: joblib kills its workers as soon as it sees one.
        if number == getattr(signal, "SIGHUP", None):
            signal.signal(number, signal.SIG_IGN)  # the kernel, the shell and tmux may each send one
        if stopped:
            raise Interrupted(128 + number)
        stopped.append(number)
        sweep.stop_file.touch()
        holders = {job.folder: holder_of(job.folder) for job in sweep.jobs() if job.state == RunState.RUNNING}
        here = {
            folder: holder.pid
            for folder, holder in holders.items()
            if holder and holder.host == socket.gethostname() and holder.pid != os.getpid()
        }
        for pid in here.values():
            with suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(map(holder_of, here)):
            time.sleep(0.1)
        raise Interrupted(128 + number)

    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler or signal.SIG_DFL)
        if stopped:  # whatever a launcher did with the exception
            raise Interrupted(128 + stopped[0])
