"""Settings for a whole process: the command line's own, or a worker's of a sweep. From Python none is made."""

import atexit
import ctypes
import gc
import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SWEEP_PROCESS = "MNIST_LAB_SWEEP_PROCESS"  # set for a job in a subprocess: the id of the process that waits for it
_is_own = False  # whether `own_process` was called


def own_process() -> None:
    """Make the settings for a process that nobody but the lab uses."""
    global _is_own
    _is_own = True
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 1 GB, for its next use: on Linux, with glibc; nothing elsewhere.

    By default large blocks go back to the kernel in every step, which clears them page by page to give them out again
    in the next one: up to half of a convolutional network's step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 32 * 2**20)  # the most that glibc takes
        mallopt(m_trim_threshold, 2**30)


def import_torch() -> None:
    """Import torch and Lightning, in a process of our own without the garbage collector: it takes a third of the time.

    It would search their 700,000 objects again and again, in the imports and in the run. They stay as long as the
    process, so from then on it passes over all that is there.
    """
    if not _is_own or "torch" in sys.modules:
        return
    gc.disable()
    try:
        importlib.import_module("lightning.pytorch")
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def exit_before_teardown() -> Iterator[None]:
    """Let a process that ends after this block, and has trained with others on CPUs, exit before Python is taken apart.

    A thread of gloo may still hold tensors of the last exchange. If it frees them while Python is taken apart, the
    process aborts, with exit status 134 after a finished run (torch 2.14, seen once in some 500 runs;
    https://github.com/pytorch/pytorch/pull/179291). The exit functions registered in the block have run by then.
    """
    status = 0

    def leave() -> None:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
            os._exit(status)

    atexit.register(leave)  # exit functions are called in reverse order
    try:
        yield
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except BaseException:
        status = 1
        raise


def end_with_parent(parent: int) -> None:
    """Watch the parent process from a thread, and end this process at once when the parent is gone.

    A killed process cannot stop its children, and orphaned workers would wait for work for ever.
    """
    name = f"ends with {parent}"
    if all(thread.name != name for thread in threading.enumerate()):
        threading.Thread(target=_watch_parent, args=(parent,), name=name, daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(128 + 9)  # as after kill -9: the files on the disk are intact at any moment
