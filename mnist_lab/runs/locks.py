"""Lock run folders, so that only one process at a time works on each. Imports neither torch nor Lightning."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mnist_lab.errors import UsageError
from mnist_lab.files import make_folder, open_own, read_text, write_text
from mnist_lab.formatting import format_date

LOCK, HOLDER = ".lock", ".holder.json"  # The first is locked, the second names the holder.
HEARTBEAT = 10.0  # seconds between two heartbeats of a holder
STALE_AFTER = 60.0  # seconds without a heartbeat after which a holder on another machine counts as dead
# The thread that holds each folder: a lock of the operating system does not say who in this process has it.
_held: dict[Path, int] = {}


@dataclass(frozen=True)
class Holder:
    """The process that works on a run folder: its machine, its id, and when it took the lock (ISO 8601)."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {format_date(self.since)}"


class RunInUse(UsageError):
    """Another process has locked the run folder."""


@contextmanager
def run_lock(folder: Path, *, patience: float = 0) -> Iterator[None]:
    """Hold a run folder's lock during the block, after at most `patience` seconds; a missing folder is made.

    The lock is the operating system's (flock), which most shared file systems honour across machines. For the others, a
    holder on another machine counts as alive while it touches `.holder.json`. The thread that has the lock can take it
    again, and so can a process whose parent has it, since the parent waits for the process.
    """
    holder = holder_of(folder)
    is_parents = holder is not None and (holder.host, holder.pid) == (socket.gethostname(), os.getppid())
    if is_parents or _held.get(folder.resolve()) == threading.get_ident():
        yield
        return
    until = time.monotonic() + patience
    while holder is not None and time.monotonic() < until:
        time.sleep(0.5)
        holder = holder_of(folder)
    if holder is not None:
        raise _in_use(folder, holder)
    with _acquire(folder), _recorded_as_holder(folder):
        yield


def _acquire(folder: Path) -> contextlib.AbstractContextManager[object]:
    """Make a run folder if it is missing, and acquire its lock; the end of a with block releases it."""
    try:
        make_folder(folder)
        lock = FileLock(folder / LOCK, thread_local=False)
        return lock.acquire(timeout=1, poll_interval=0.05)  # `holder_of` in another process has it for a moment.
    except Timeout:
        raise _in_use(folder, holder_of(folder)) from None
    except OSError as error:
        raise not_writable(folder, error) from error


@contextmanager
def _recorded_as_holder(folder: Path) -> Iterator[None]:
    """Record this thread as the holder of a run folder, with heartbeats, during the block."""
    resolved, ended = folder.resolve(), threading.Event()
    heart = threading.Thread(target=_beat, args=(resolved / HOLDER, ended), daemon=True)
    heart.start()  # If the machine has no more threads, nothing is recorded.
    _held[resolved] = threading.get_ident()
    try:
        try:
            write_text(folder / HOLDER, json.dumps(asdict(_this_process())) + "\n", durable=False)
        except OSError as error:  # A full disk takes an empty lock file, but not this record.
            (folder / LOCK).unlink(missing_ok=True)
            raise not_writable(folder, error) from error
        yield
    finally:
        ended.set()
        heart.join()
        del _held[resolved]
        (resolved / HOLDER).unlink(missing_ok=True)


def holder_of(folder: Path) -> Holder | None:
    """Return the process that has locked a run folder, on this machine or another; None if it is free."""
    if folder.resolve() in _held:
        return _this_process()
    if not (folder / LOCK).exists():
        return None
    holder, age = None, STALE_AFTER
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        record = json.loads(read_text(folder / HOLDER, 10_000))
        holder = Holder(str(record["host"]), int(record["pid"]), str(record["since"]))
        age = time.time() - (folder / HOLDER).stat().st_mtime
    if _is_locked(folder / LOCK):
        return holder or Holder("an unknown machine", 0, "an unknown time")
    return holder if holder and holder.host != socket.gethostname() and age < STALE_AFTER else None


def release_if_held_by(machine: str, folder: Path) -> bool:
    """Free a run folder whose holder was on `machine` and is known to have ended; return whether it is free."""
    holder = holder_of(folder)
    if holder is not None and holder.host.partition(".")[0] == machine.partition(".")[0]:
        (folder / HOLDER).unlink(missing_ok=True)
    return holder_of(folder) is None


def wait_for_release(folder: Path, seconds: float) -> bool:
    """Wait at most so many seconds for a run folder's lock to be released, and return whether it was."""
    until = time.monotonic() + seconds
    while _is_locked(folder / LOCK):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _is_locked(path: Path) -> bool:
    """Return whether a process has the lock; writes nothing, as the folder may be read-only."""
    try:
        with open(path, "rb", opener=open_own) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # The file system has no locks.
        return False
    return False


def _this_process() -> Holder:
    return Holder(socket.gethostname(), os.getpid(), datetime.now().astimezone().isoformat(timespec="seconds"))


def not_writable(folder: Path, error: OSError) -> UsageError:
    """Return the error for a run folder that cannot be written."""
    return UsageError(f"hydra.run.dir={folder}: cannot be written ({error.strerror}); choose another")


def _in_use(folder: Path, holder: Holder | None) -> RunInUse:
    who = f" by {holder}" if holder else ""
    return RunInUse(f"{folder}: in use{who}; wait for it to end, or stop it")


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            path.touch()
