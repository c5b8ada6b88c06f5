"""Signals to a sweep, which are passed on to its jobs."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mnist_lab.errors import Interrupted
from mnist_lab.locks import holder_of
from mnist_lab.sweeps.sweep import Sweep

PATIENCE = 60  # seconds in which jobs that were told to stop are to have saved


@contextmanager
def told_to_stop(sweep: Sweep) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on to jobs in other processes of this machine, and wait until they have saved.

    A job in this process hears of them itself while it trains. One on another machine runs to its end.
    """

    def stop(number: int, frame: Any) -> None:
        sweep.stop_file.touch()
        told = [
            job
            for job in sweep.jobs()
            if job.state == "running"
            and job.process.get("host") == socket.gethostname()
            and job.process.get("pid") != os.getpid()
            and holder_of(job.folder)
        ]
        for job in told:
            os.kill(job.process["pid"], signal.SIGTERM)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(holder_of(job.folder) for job in told):
            time.sleep(0.1)
        stopped.append(number)
        raise Interrupted(128 + number)

    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if stopped:  # whatever a launcher has made of the exception
            raise Interrupted(128 + stopped[0])
