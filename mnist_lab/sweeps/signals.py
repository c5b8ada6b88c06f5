"""End a sweep by a signal: forward it to the jobs."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mnist_lab.errors import Interrupted
from mnist_lab.runs.locks import holder_of
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.launchers.launcher import Launcher

PATIENCE = 60  # seconds for jobs to save after a signal


@contextmanager
def forward_signals(sweep: Sweep, launcher: Launcher) -> Iterator[None]:
    """Forward Ctrl-C, SIGTERM and SIGHUP to the jobs of a sweep, and wait until they have saved.

    A job in this process handles them itself while it trains. Jobs that outlive this process go on; those that had not
    begun will not, but for a closed terminal. A second signal ends the wait.
    """

    def stop(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            signal.signal(number, signal.SIG_IGN)  # the kernel, the shell and tmux may each send one
        if stopped or (launcher.outlives and number == signal.SIGHUP):
            raise Interrupted(128 + number)
        stopped.append(number)
        sweep.stop_file.touch()
        told = launcher.cancel()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(holder_of(sweep.job(id).folder) for id in told):
            time.sleep(0.1)
        raise Interrupted(128 + number)

    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
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
