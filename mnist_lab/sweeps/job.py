"""Run one job of a sweep: skip it if finished, resume or start it otherwise, and record a failure."""

import logging
import os
import socket
import time
import traceback
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_lab.config.keys import SWEEP_KEYS, SWEEP_ONLY_KEYS
from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.config.overrides import without_keys
from mnist_lab.config.settings import original_overrides
from mnist_lab.errors import Interrupted, LabError
from mnist_lab.runs.locks import RunInUse, run_lock
from mnist_lab.runs.record import JobProcess, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, read_job, write_job
from mnist_lab.sweeps.launchers.launcher import make_launcher

log = logging.getLogger(__name__)


def run_job(cfg: DictConfig) -> float | None:
    """Run a job, unless it is finished, another process runs it, or the sweep is stopping."""
    folder = Path(cfg.folder)
    sweep = Sweep(folder.parent)
    if sweep.stop_file.exists():
        return None
    launcher = make_launcher(HydraConfig.get())
    if cfg.threads is None:
        cfg.threads = launcher.threads
    overrides = tuple(without_keys(original_overrides(cfg), *SWEEP_KEYS))
    cfg.overrides = without_keys(original_overrides(cfg), *SWEEP_ONLY_KEYS)
    try:
        with run_lock(folder, patience=launcher.lock_patience):
            job = read_job(folder) if Run(folder).job_path.exists() else Job(overrides, folder)
            job = replace(job, overrides=overrides)  # not in a damaged record
            start = sweep.record["start"]
            same_start = job.process.get("start") == start and job.state != RunState.PAUSED
            attempts = job.attempts if same_start else 0
            if job.state != RunState.FINISHED:
                process: JobProcess = {
                    "start": start,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "began": time.time(),
                }
                job = replace(job, state=RunState.RUNNING, attempts=attempts + 1, error=None, process=process)
                job = _attempted(cfg, job)
                while job.state == RunState.FAILED and job.attempts <= cfg.retries:
                    job = _attempted(cfg, replace(job, state=RunState.RUNNING, attempts=job.attempts + 1, error=None))
            if job.state == RunState.FAILED and cfg.fail_fast:
                sweep.stop_file.touch()
            accuracy = job.info.get("metrics", {}).get(VAL_ACC)
            return None if accuracy is None else float(accuracy)
    except RunInUse:
        return None


def _attempted(cfg: DictConfig, job: Job) -> Job:
    """Return the job after one attempt, which resumes a stopped run and starts a failed one anew."""
    from mnist_lab.sweeps.subprocess_job import is_distributed, train_in_subprocess
    from mnist_lab.training.progress import console  # torch and Lightning: not for --cfg
    from mnist_lab.training.train import train

    cfg = cfg.copy()
    info = job.info
    checkpoint = Run(job.folder).newest_whole_checkpoint() if info else None
    if info and info["status"] != RunState.FAILED and checkpoint is not None:
        cfg.resume = str(checkpoint)
    elif Run(job.folder).exists:
        Run(job.folder).clear()
    write_job(job)
    quiet, console.quiet = console.quiet, True  # the sweep shows the states of its jobs
    try:
        train_in_subprocess(cfg) if is_distributed(cfg) else train(cfg)
        job = replace(job, state=Run(job.folder).info["status"])  # finished or paused
    except Interrupted as stop:
        write_job(replace(job, state=RunState.INTERRUPTED, error=f"signal {int(str(stop)) - 128}"))
        raise
    except (Exception, SystemExit) as error:
        log.info("the job failed", exc_info=True)
        told = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        job = replace(job, state=RunState.FAILED, error=told.strip() or traceback.format_exc(limit=1))
    finally:
        console.quiet = quiet
    write_job(job)
    return job
