"""Launch jobs by each of Hydra's launchers: how many at once, with how many threads, and if a process dies."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from omegaconf import DictConfig, open_dict

from mnist_lab.config.settings import to_plain
from mnist_lab.errors import UsageError
from mnist_lab.sweeps.signals import end_with_parent

GIGABYTES = 1.3  # that a job takes at most: docs/results/benchmarks.md


def launcher_name(launcher: Any) -> str:
    """Return the name of a launcher's class, such as LocalLauncher, SlurmLauncher, RayLauncher."""
    return str(launcher.get("_target_", "")).rpartition(".")[2]


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_jobs(launcher: Any) -> int:
    """Return how many jobs run at once by a launcher's settings; without a setting, as many as fit this machine."""
    if launcher_name(launcher) == "SlurmLauncher":
        return int(launcher.get("array_parallelism") or 1)
    if launcher_name(launcher) in ("LocalLauncher", "RayLauncher"):
        init = launcher.get("ray", {}).get("init", {})
        return max(1, (init.get("num_cpus") or processors()) // max(1, cpus_per_job(launcher) or 1))
    jobs = launcher.get("n_jobs") or 1
    return int(jobs) if jobs > 0 else max(1, processors() + 1 + jobs)


def cpus_per_job(launcher: Any) -> int | None:
    """Return the processors, and so the threads, that a job requests from submitit or Ray; None for other launchers."""
    if launcher_name(launcher) in ("LocalLauncher", "SlurmLauncher"):
        return launcher.get("cpus_per_task") or 1
    if launcher_name(launcher) == "RayLauncher":
        return max(1, int(launcher.get("ray", {}).get("remote", {}).get("num_cpus") or 1))
    return None


def threads(launcher: Any) -> int | None:
    """Return the threads of a job without threads=N: those it requested, or its share; None for all."""
    parallel = parallel_jobs(launcher)
    return cpus_per_job(launcher) or (max(1, processors() // parallel) if parallel > 1 else None)


def end_workers_with_this_process(launcher: Any) -> None:
    """Make joblib's workers end when this process is killed, also those that never get a job.

    Before joblib 1.5 its Parallel takes no initializer; there, a worker ends with this process once it has had a job.
    """
    if "backend_kwargs" in inspect.signature(import_module("joblib").Parallel).parameters:
        launcher.joblib |= {"initializer": end_with_parent, "initargs": (os.getpid(),)}


def capacity_key(launcher: Any) -> str | None:
    """Return the setting that limits the jobs at once on this machine; None where jobs run elsewhere."""
    if launcher_name(launcher) == "RayLauncher":
        return None if launcher.ray.init.get("address") else "hydra.launcher.ray.init.num_cpus"
    settings = {"SlurmLauncher": None, "LocalLauncher": "hydra.launcher.cpus_per_task"}
    return settings.get(launcher_name(launcher), "hydra.launcher.n_jobs")


def refuse_more_than_memory(launcher: Any, jobs: int) -> None:
    """Raise UsageError if the jobs that run at once on this machine need more memory than is free."""
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


def launch_jobs(launcher: Any, jobs: Sequence[Sequence[str]], first: int) -> list[Exception | None]:
    """Launch jobs and wait for all of them, even if the process of one dies.

    Hydra's launchers for submitit and Ray would raise an exception for it at once, and lose sight of the other jobs. So
    the jobs are submitted here, with these launchers' settings. Their processes and joblib's do not hear of Ctrl-C on
    the terminal: the sweep does, and tells them.

    Args:
        launcher: Hydra's.
        jobs: the overrides of each job.
        first: the number of the first job.

    Returns:
        For each job None, or the exception that stands for the death of its process.
    """
    name = launcher_name(launcher.config.hydra.launcher)
    if name in ("LocalLauncher", "SlurmLauncher"):
        with ctrl_c_kept_from_children():
            return _launch_with_submitit(launcher, jobs, first)
    if name == "RayLauncher":
        _start_ray(launcher)
        with ctrl_c_kept_from_children():
            return _launch_with_ray(launcher, jobs, first)
    in_this_process = name != "JoblibLauncher" or parallel_jobs(launcher.config.hydra.launcher) == 1
    with nullcontext() if in_this_process else ctrl_c_kept_from_children():
        launcher.launch(jobs, initial_job_idx=first)
    return [None] * len(jobs)


def _launch_with_submitit(launcher: Any, jobs: Sequence[Sequence[str]], first: int) -> list[Exception | None]:
    submitit, plugin = (import_module(name) for name in ("submitit", "hydra_plugins.hydra_submitit_launcher.config"))
    cluster = "slurm" if launcher_name(launcher.config.hydra.launcher) == "SlurmLauncher" else "local"
    settings = dict(launcher.params)
    own = {"folder": settings.pop("submitit_folder")}
    if "max_num_timeout" in settings:
        own[f"{cluster}_max_num_timeout"] = settings.pop("max_num_timeout")
    executor = submitit.AutoExecutor(cluster=cluster, **own)
    of_every_cluster = {field.name for field in fields(plugin.BaseQueueConf)}
    executor.update_parameters(
        **{key if key in of_every_cluster else f"{cluster}_{key}": value for key, value in settings.items()}
    )
    numbers, state = range(first, first + len(jobs)), Singleton.get_state()
    arguments = [
        (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
        for number, overrides in zip(numbers, jobs, strict=True)
    ]
    submitted = executor.map_array(launcher, *zip(*arguments, strict=True))
    return [_error_of(job.results) for job in submitted]


def _start_ray(launcher: Any) -> None:
    """Start Ray or join its cluster. Signal handlers stay: by Ray's own, the sweep would not hear of Ctrl-C."""
    ray = import_module("ray")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    settings = to_plain(launcher.ray_cfg.init)
    if settings.get("address"):
        settings["object_store_memory"] = None  # Ray refuses it where it does not start the store
    if not ray.is_initialized():
        ray.init(**settings)
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            signal.signal(number, handler)


def _launch_with_ray(launcher: Any, jobs: Sequence[Sequence[str]], first: int) -> list[Exception | None]:
    ray = import_module("ray")
    task = ray.remote(_run_ray_task).options(**to_plain(launcher.ray_cfg.remote))
    references = []
    for number, overrides in enumerate(jobs, first):
        config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"job_id_for_{number}", number
        references.append(task.remote(launcher.hydra_context, config, launcher.task_function, Singleton.get_state()))
    return [_error_of(partial(ray.get, reference)) for reference in references]


def _run_ray_task(context: Any, config: DictConfig, task: Any, state: Any) -> JobReturn:
    """Run a job in a process of Ray's, as Hydra runs it in its own."""
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _error_of(wait: Callable[[], Any]) -> Exception | None:
    """Wait for a job; return the exception that this raises, if any."""
    try:
        wait()
    except Exception as error:
        return error
    return None


@contextmanager
def ctrl_c_kept_from_children() -> Iterator[None]:
    """Block SIGINT and SIGHUP, which a terminal sends to every process: they would end a job before it has saved.

    Processes that this thread starts inherit the block. Python itself handles the signals by the sweep's other thread.
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
    """Let submitit handle SIGUSR2, the warning before a time limit or a preemption, after the job has saved."""
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
