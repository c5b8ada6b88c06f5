"""What a user can cause, told in one line; a programming error is none of these and keeps its traceback."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_lab.formatting import printable
from mnist_lab.streams import rank

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class LabError(Exception):
    """A failure that its message explains: what, where, and the remedy."""

    exit_status = 1


class UsageError(LabError, ValueError):
    """A setting, a file or a folder that cannot be used; nothing was started."""

    exit_status = 2


def not_installed(what: str, extra: str) -> UsageError:
    """The error of what needs an extra of ours that is not installed."""
    return UsageError(f"{what}: needs packages that are not installed: pip install 'mnist-lab[{extra}]'")


class Interrupted(SystemExit):
    """Ctrl-C, SIGTERM or SIGHUP ended a run, which has been recorded; a sweep ends with it."""


class JobsFailed(SystemExit):
    """A sweep has come to its end, and some of its jobs have failed, which it has told."""


class DataUnavailable(LabError, ConnectionError):
    """The data set is not on this machine, and no source could bring it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is Python's or torch's for running out of memory, on a GPU or a CPU."""
    on_gpu, on_cpu = type(error).__name__ == "OutOfMemoryError", "DefaultCPUAllocator" in str(error)
    return on_gpu or on_cpu or isinstance(error, MemoryError)


@contextmanager
def explain_out_of_memory(batch_size: int, eval_batch_size: int) -> Iterator[None]:
    """Turn torch's running out of memory, on a GPU or a CPU, into a LabError that suggests smaller batches."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = (
            f"try data.batch_size={max(1, batch_size // 2)}, or in validation and test "
            f"data.eval_batch_size={max(1, eval_batch_size // 2)}"
        )
        raise LabError(
            f"data.batch_size={batch_size}: out of memory; {remedy} ({str(error).splitlines()[0]})"
        ) from error


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a LabError, or a full disk, into one line on stderr and an exit status; HYDRA_FULL_ERROR=1 shows where."""
    try:
        yield
    except LabError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        _print_error(f"mnist_lab: {printable(str(error))}")
        raise SystemExit(error.exit_status) from None
    except OSError as error:
        if error.errno not in DISK_FULL or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _print_error(f"mnist_lab: {error.filename or 'the run folder'}: {error.strerror}; make room")
        raise SystemExit(LabError.exit_status) from None


def _print_error(line: str) -> None:
    if rank() == 0:  # all of a run's processes meet it
        print(line, file=sys.stderr)


def silence_disk_errors_in_threads() -> None:
    """Leave a full disk and a removed run folder to the main thread, which meets them too.

    The log and TensorBoard's thread would show a traceback of their own.
    """
    logging.raiseExceptions = False

    def hook(caught: threading.ExceptHookArgs) -> None:
        if not _is_met_by_main_thread(caught.exc_value):
            threading.__excepthook__(caught)

    threading.excepthook = hook


def _is_met_by_main_thread(error: BaseException | None) -> bool:
    if isinstance(error, FileNotFoundError) and error.filename:
        return not Path(os.fsdecode(error.filename)).parent.exists()
    return isinstance(error, OSError) and error.errno in DISK_FULL
