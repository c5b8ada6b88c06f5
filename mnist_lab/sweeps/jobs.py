"""Run one job of a sweep: skip it if it is finished, otherwise resume or start it, and record a failure."""

import logging
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

from omegaconf import DictConfig

from mnist_lab.config.compose import CommandLine, compose_job, config_options
from mnist_lab.config.keys import PASSED_TO_JOBS, SWEEP_KEYS, SWEEP_ONLY_KEYS
from mnist_lab.config.overrides import quote_path, without_keys
from mnist_lab.config.settings import original_overrides
from mnist_lab.console import console
from mnist_lab.errors import Interrupted, LabError, UsageError, signal_name
from mnist_lab.formatting import format_value
from mnist_lab.runs.locks import RunInUse, run_lock
from mnist_lab.runs.record import COMPLETE, JobProcess, RunState, SweepRecord
from mnist_lab.runs.run import Run
from mnist_lab.runs.run_log import run_log
from mnist_lab.runs.sweep import Job, Sweep, read_job, write_job
from mnist_lab.sweeps.process import SWEEP_GPUS, SWEEP_PROCESS, import_torch, keep_freed_memory, take_gpu

PATIENCE = 60  # seconds for a distributed run to end after a signal
log = logging.getLogger(__name__)


def run_in_own_process(folder: str, id: str, worker: int | None = None) -> bool:
    """Run a job in a process of its own; return whether it ended. If not, a signal interrupted it, and it has saved."""
    keep_freed_memory()
    sweep = Sweep(Path(folder))
    record = _enter_sweep_folder(sweep)
    import_torch()
    if worker is not None:
        take_gpu(worker)
    try:
        run_job(sweep, record, id, compose_planned_job(sweep, record, id))
    except (Interrupted, KeyboardInterrupt):
        return False
    return True


def compose_planned_job(sweep: Sweep, record: SweepRecord, id: str) -> DictConfig:
    """Compose a job from the record of its sweep."""
    settings, overrides = record["settings"], record["jobs"][id]
    line = CommandLine((*overrides, *settings["overrides"]), settings["config_dir"], settings["config_name"])
    number = list(record["jobs"]).index(id)
    cfg, _ = compose_job(line, is_sweep=True, folder=sweep.job_folder(record, id), number=number)
    return cfg


def _enter_sweep_folder(sweep: Sweep) -> SweepRecord:
    """Take over the current folder and the search path of the sweep's own process, and return the sweep's record."""
    here = socket.gethostname()
    if not sweep.exists:
        raise UsageError(
            f"runs_dir: {sweep.folder} is not on {here}; choose a runs_dir on a file system that all machines share"
        )
    record = sweep.record
    folder, search_path = record["settings"]["folder"], record["settings"]["search_path"]
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(f"{folder}: is not on {here}; start the sweep in a folder that all machines share") from error
    sys.path += [place for place in search_path if place not in sys.path]
    return record


def run_job(sweep: Sweep, record: SweepRecord, id: str, cfg: DictConfig) -> None:
    """Run a job, unless it is finished, in use by another process, or its sweep is stopping."""
    if sweep.stop_file.exists():
        return
    folder = Path(cfg.folder)
    cfg.callbacks.prune = record.get("prune", {}).get(id)
    if cfg.threads is None:
        cfg.threads = record["settings"]["threads"]
    overrides = tuple(without_keys(original_overrides(cfg), *SWEEP_KEYS))
    cfg.overrides = without_keys(original_overrides(cfg), *SWEEP_ONLY_KEYS)
    with suppress(RunInUse), run_lock(folder, patience=record["settings"]["lock_patience"]):
        job = read_job(folder, overrides)
        if job.state in COMPLETE:
            return
        is_same_start = job.process.get("start") == record["start"] and job.state != RunState.PAUSED
        process = JobProcess(start=record["start"], host=socket.gethostname(), pid=os.getpid(), began=time.time())
        job = replace(job, attempts=job.attempts if is_same_start else 0, process=process)
        with run_log(folder):
            while True:
                job = _attempt(replace(job, state=RunState.RUNNING, attempts=job.attempts + 1, error=None), cfg)
                if job.state != RunState.FAILED or job.attempts > cfg.retries:
                    break
        if job.state == RunState.FAILED and cfg.fail_fast:
            sweep.stop_file.touch()


def _attempt(job: Job, cfg: DictConfig) -> Job:
    """Train a job once, and return it with its new state; a stopped run is resumed, a failed one starts anew."""
    from mnist_lab.training.train import train  # This imports torch and Lightning.

    cfg, run = cfg.copy(), Run(job.folder)
    checkpoint = run.newest_whole_checkpoint() if job.info else None
    if job.info and job.info["status"] != RunState.FAILED and checkpoint is not None:
        cfg.resume = str(checkpoint)
    elif run.exists:
        run.clear()
    write_job(job)
    quiet, console.quiet = console.quiet, True  # The sweep shows the states of its jobs.
    try:
        train_in_subprocess(cfg) if is_distributed(cfg) else train(cfg)
        job = replace(job, state=run.info["status"])  # finished or paused
    except (Interrupted, KeyboardInterrupt) as stop:
        number = int(str(stop)) - 128 if isinstance(stop, Interrupted) else int(signal.SIGINT)
        write_job(replace(job, state=RunState.INTERRUPTED, error=f"stopped by {signal_name(number)}"))
        raise
    except (Exception, SystemExit) as error:
        log.info("the job has failed", exc_info=True)
        message = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        job = replace(job, state=RunState.FAILED, error=message.strip() or traceback.format_exc(limit=1))
    finally:
        console.quiet = quiet
    write_job(job)
    return job


def is_distributed(cfg: DictConfig) -> bool:
    """Return whether a job uses more than one device, or a strategy, which may start processes."""
    return cfg.trainer.get("strategy", "auto") != "auto" or cfg.trainer.get("devices", 1) not in (1, "1")


def train_in_subprocess(cfg: DictConfig) -> None:
    """Train a distributed job with the command `python -m mnist_lab` in its folder, and wait for the process.

    Lightning starts the further processes of a run with the command line of the first, which here would be that of the
    whole sweep. It also leaves environment variables behind, and kills the first process when another one dies.
    """
    command = [sys.executable, "-m", "mnist_lab", *_job_arguments(cfg)]
    environment = os.environ | {SWEEP_PROCESS: str(os.getpid())}  # When this process is killed, the other ends too.
    if SWEEP_GPUS in environment:
        environment["CUDA_VISIBLE_DEVICES"] = environment.pop(SWEEP_GPUS)
    folder = Path(cfg.folder)
    from mnist_lab.training.checkpointing import STOP_SIGNALS, raise_stop_signals, stop_signal

    with (
        raise_stop_signals(),
        Popen(command, stdout=DEVNULL, stderr=PIPE, text=True, start_new_session=True, env=environment) as process,
    ):
        try:
            message = process.communicate()[1].strip()
        except BaseException as stop:
            number = stop_signal(stop) or signal.SIGINT
            process.send_signal(number)
            with suppress(TimeoutExpired):
                process.communicate(timeout=PATIENCE)
            raise Interrupted(128 + number) from stop
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # The other processes may hang without the first.
    if process.returncode - 128 in STOP_SIGNALS:
        raise Interrupted(process.returncode)
    if process.returncode < 0:  # Lightning kills the first process when another one has died.
        raise LabError(f"one of its processes died (signal {-process.returncode})")
    if process.returncode > 0:
        error = Run(folder).info["error"] if Run(folder).exists else None
        raise LabError(error or message.removeprefix("mnist_lab: ") or f"exit status {process.returncode}")


def _job_arguments(cfg: DictConfig) -> list[str]:
    """Return the arguments that train a job without its sweep, in its folder."""
    overrides = without_keys(original_overrides(cfg), *SWEEP_KEYS)
    overrides += [f"{key}={format_value(cfg[key])}" for key in PASSED_TO_JOBS]
    overrides.append(f"hydra.run.dir={quote_path(Path(cfg.folder))}")
    if cfg.resume:
        overrides.append(f"resume={quote_path(Path(cfg.resume))}")
    return [*config_options(cfg.config_dir, cfg.config_name), *overrides]
