"""The processes of the command line and of a sweep's workers: memory, import of torch, exit, and end with the parent.

A library user's process keeps its own settings.
"""

import atexit
import ctypes
import gc
import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

SWEEP_PROCESS = "MNIST_LAB_SWEEP_PROCESS"  # variable of a job's subprocess: the id of the process that waits for it
SWEEP_GPUS = "MNIST_LAB_SWEEP_GPUS"  # variable of a worker that sees one of several GPUs: all that its sweep sees


def keep_freed_memory() -> None:
    """Let this process keep up to 1 GB of freed memory for later use; this needs glibc, and does nothing elsewhere."""
    # By default, the kernel takes large blocks back and clears them in every step: up to half of a CNN's time.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 32 * 2**20)  # glibc allows no more.
        mallopt(m_trim_threshold, 2**30)


def import_torch(task: str | None = None) -> None:
    """Import torch and Lightning into a process of the lab's own, while a terminal shows the task that needs them.

    It takes seconds, a third less without garbage collection: the collector would search their 700,000 objects again
    and again. They live as long as the process, so that from now on it leaves out all objects that exist.
    """
    if "torch" in sys.modules:
        return
    from mnist_lab.console import working_on  # Most commands that do not import torch do not need rich either.

    shown: AbstractContextManager[Any] = working_on(task) if task else nullcontext()
    gc.disable()
    with shown:
        importlib.import_module("lightning.pytorch")
    gc.freeze()
    gc.enable()


def take_gpu(worker: int) -> None:
    """Let this process see one GPU, where there are several: the workers of a sweep, by their numbers, take turns."""
    if SWEEP_GPUS in os.environ:  # An earlier job has taken it.
        return
    count = importlib.import_module("torch").cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = (visible.split(",") if visible else [str(index) for index in range(count)])[:count]
    if len(gpus) > 1:
        os.environ |= {SWEEP_GPUS: ",".join(gpus), "CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]}


@contextmanager
def exit_before_teardown() -> Iterator[None]:
    """Exit the process before Python finalises, once its exit functions have run.

    To free what torch and Lightning have made takes a second. After a distributed run on CPUs it may also fail: a
    thread of gloo may still hold tensors of the last exchange. If it frees them while Python finalises, the process
    aborts, with exit status 134 after a finished run (torch 2.14, seen once in some 500 runs;
    https://github.com/pytorch/pytorch/pull/179291).
    """
    status = 1

    def exit_now() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)

    atexit.register(exit_now)  # Python calls exit functions in reverse order, so this one is the last.
    try:
        yield
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise


def end_with_parent(parent: int) -> None:
    """Watch the parent process from a thread, and exit when it is gone: a killed process cannot stop its children."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(128 + 9)  # An exit as by kill -9 is safe: the files on the disk are complete at any moment.

    name = f"ends with {parent}"
    if all(thread.name != name for thread in threading.enumerate()):
        threading.Thread(target=watch, name=name, daemon=True).start()
