"""What launchers do differently: how many jobs run at once, where, with how many threads, and one's death."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mnist_lab.errors import UsageError
from mnist_lab.sweeps.signals import end_with_parent

GIGABYTES = 1.3  # that a job takes at most: README, "Measured"


def launcher_name(launcher: Any) -> str:
    """Which launcher it is, by its class, such as LocalLauncher, SlurmLauncher, RayLauncher."""
    return str(launcher.get("_target_", "")).rpartition(".")[2]


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_jobs(launcher: Any) -> int:
    """How many jobs run at once, as far as a launcher's settings say.

    Where they do not, as on a Ray cluster of other machines, as many as have room on this one.
    """
    if launcher_name(launcher) == "SlurmLauncher":
        return int(launcher.get("array_parallelism") or 1)
    if launcher_name(launcher) in ("LocalLauncher", "RayLauncher"):
        init = launcher.get("ray", {}).get("init", {})
        return max(1, (init.get("num_cpus") or processors()) // max(1, cpus_per_job(launcher) or 1))
    jobs = launcher.get("n_jobs") or 1
    return int(jobs) if jobs > 0 else max(1, processors() + 1 + jobs)


def cpus_per_job(launcher: Any) -> int | None:
    """How many processors a job asks submitit or Ray for, and so how many threads it has; 1 unless told otherwise."""
    if launcher_name(launcher) in ("LocalLauncher", "SlurmLauncher"):
        return launcher.get("cpus_per_task") or 1
    if launcher_name(launcher) == "RayLauncher":
        return max(1, int(launcher.get("ray", {}).get("remote", {}).get("num_cpus") or 1))
    return None


def threads(launcher: Any) -> int | None:
    """How many threads a job has unless threads=N says so: what it asked for, or its share; None for all."""
    parallel = parallel_jobs(launcher)
    return cpus_per_job(launcher) or (max(1, processors() // parallel) if parallel > 1 else None)


def end_workers_with_this_process(launcher: Any) -> None:
    """Have joblib's workers end when this process is killed, whether or not they ever have a job.

    Before joblib 1.5 its Parallel takes no initializer; there, a worker ends with this process once it has had a job.
    """
    if "backend_kwargs" in inspect.signature(import_module("joblib").Parallel).parameters:
        launcher.joblib |= {"initializer": end_with_parent, "initargs": (os.getpid(),)}


def capacity_key(launcher: Any) -> str | None:
    """The setting that says how many jobs this machine is to hold at once; None where jobs run elsewhere."""
    if launcher_name(launcher) == "RayLauncher":
        return None if launcher.ray.init.get("address") else "hydra.launcher.ray.init.num_cpus"
    settings = {"SlurmLauncher": None, "LocalLauncher": "hydra.launcher.cpus_per_task"}
    return settings.get(launcher_name(launcher), "hydra.launcher.n_jobs")


def refuse_more_than_memory(launcher: Any, jobs: int) -> None:
    """Raise UsageError if as many of so many jobs as run at once on this machine need more memory than is free."""
    setting, parallel = capacity_key(launcher), min(parallel_jobs(launcher), jobs)
    if setting is None:
        return
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (free,) = [int(line.split()[1]) / 1e6 for line in lines if line.startswith("MemAvailable")]
    except (OSError, ValueError):  # no Linux
        return
    if parallel > 1 and parallel * GIGABYTES > free:
        fit = max(1, int(free / GIGABYTES))
        remedy = -(-processors() // fit) if launcher_name(launcher) == "LocalLauncher" else fit
        raise UsageError(
            f"{setting}: {parallel} jobs at once need {parallel * GIGABYTES:.0f} GB, "
            f"{free:.0f} GB are free; {setting}={remedy} would do"
        )


@contextmanager
def collect_outcomes(launcher: Any) -> Iterator[None]:
    """Let submitit and Ray wait for each job, with an exception for the outcome of one whose process died.

    Their launchers raise it at once otherwise, and lose sight of the others, which run on. Theirs and joblib's
    processes do not hear of Ctrl-C on the terminal: the sweep does, and tells them.
    """
    owner: Any
    if launcher_name(launcher) in ("LocalLauncher", "SlurmLauncher"):
        owner, name = import_module("submitit").Job, "results"
    elif launcher_name(launcher) == "RayLauncher":
        owner, name = import_module("ray"), "get"
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if not owner.is_initialized():
            owner.init(**dict(launcher.ray.init))
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():  # Ray sets its own, by which the sweep would not hear of them
                signal.signal(number, handler)
    elif launcher_name(launcher) == "JoblibLauncher" and parallel_jobs(launcher) > 1:
        with ctrl_c_kept_from_children():
            yield
        return
    else:
        yield
        return
    wait: Callable[[Any], Any] = getattr(owner, name)

    def waited_for(job: Any) -> Any:
        try:
            return wait(job)
        except Exception as error:
            return [error] if name == "results" else error

    setattr(owner, name, waited_for)
    try:
        with ctrl_c_kept_from_children():
            yield
    finally:
        setattr(owner, name, wait)


@contextmanager
def ctrl_c_kept_from_children() -> Iterator[None]:
    """Block SIGINT and SIGHUP, which a terminal sends to every process: they would end a job before that has saved.

    What this thread blocks, the processes that it starts have blocked. It hears of them by the sweep's other thread.
    """
    watched = threading.current_thread() is threading.main_thread() and threading.active_count() > 1
    if not watched or not hasattr(signal, "pthread_sigmask"):  # which Windows has not
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def requeue_on_sigusr2() -> Iterator[None]:
    """Let submitit heed SIGUSR2, the warning before a time limit or a preemption, after the job has saved."""
    requeue = signal.getsignal(signal.SIGUSR2) if hasattr(signal, "SIGUSR2") else None
    if not callable(requeue) or threading.current_thread() is not threading.main_thread():
        yield
        return
    warned = []

    def stop(number: int, frame: Any) -> None:
        warned.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, requeue)
        if warned:
            requeue(signal.SIGUSR2, None)
