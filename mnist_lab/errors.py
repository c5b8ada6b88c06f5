"""Define the errors that a user can cause, and explain each in one line; a programming error keeps its traceback."""

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mnist_lab.formatting import print_lines

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class LabError(Exception):
    """A failure whose message says what is wrong, where, and what to do."""

    exit_status = 1


class UsageError(LabError, ValueError):
    """A setting, a file or a folder that cannot be used; nothing was started."""

    exit_status = 2


def not_installed(what: str, extra: str) -> UsageError:
    """Return the error for a setting or an option that needs an extra which is not installed."""
    return UsageError(f"{what}: needs packages that are not installed: pip install 'mnist-lab[{extra}]'")


class Interrupted(SystemExit):
    """Ctrl-C, SIGTERM or SIGHUP ended a run, which has recorded that; its sweep ends, too. Status: 128 + signal."""


def signal_name(number: int) -> str:
    """Return what a person calls a signal."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextmanager
def handle_signals(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Install signal handlers within the block. An ignored signal, such as SIGHUP under nohup, stays ignored."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not signal.SIG_IGN or handlers[number] is signal.SIG_IGN:
                signal.signal(number, handler or signal.SIG_DFL)


def ignore_repeated_hangup(number: int) -> None:
    """Ignore SIGHUP after the first one: the kernel, the shell and tmux may each send one."""
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)


class JobsFailed(SystemExit):
    """A sweep has ended, and printed which of its jobs failed."""


class ProcessLost(LabError):
    """Another process of a distributed run died; each survivor prints that, since rank 0 may be the one that died."""


class DataUnavailable(LabError, ConnectionError):
    """The data set is not on this machine, and no source delivered it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether Python or torch raised an error because a GPU or a CPU ran out of memory."""
    on_gpu, on_cpu = type(error).__name__ == "OutOfMemoryError", "DefaultCPUAllocator" in str(error)
    return on_gpu or on_cpu or isinstance(error, MemoryError)


@contextmanager
def exit_on_user_error(*, is_first_process: bool = True) -> Iterator[None]:
    """Turn a LabError or a full disk into one line on stderr, from the first process of a run, and an exit status."""
    shows_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        yield
    except LabError as error:
        if shows_traceback:
            print_lines(*traceback.format_exc().split("\n"), file=sys.stderr)
        if is_first_process or isinstance(error, ProcessLost):
            print_lines(*re.split(r"\n(?=  )", f"mnist_lab: {error}"), file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except OSError as error:
        if error.errno not in DISK_FULL or shows_traceback:
            raise
        if is_first_process:
            where = error.filename or "the run folder"
            print_lines(f"mnist_lab: {where}: {error.strerror}; make room", file=sys.stderr)
        raise SystemExit(LabError.exit_status) from None
