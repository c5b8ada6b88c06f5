"""A job of several processes (trainer=ddp): a command of its own, beside the sweep's.

Lightning starts the other processes of a run with the command line of the first, which in a sweep is the whole
sweep's; it leaves its variables to the next job; and when one process dies it kills the first. None may reach a sweep.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from mnist_lab.config.keys import PASSED_TO_JOBS, SWEEP_KEYS
from mnist_lab.config.overrides import quote_path, without_keys
from mnist_lab.config.settings import original_overrides
from mnist_lab.errors import Interrupted, LabError
from mnist_lab.formatting import format_value
from mnist_lab.runs.run import Run
from mnist_lab.sweeps.signals import SWEEP_PROCESS
from mnist_lab.training.checkpointing import STOP_SIGNALS, stop_signal, stop_signals_raise

PATIENCE = 60  # seconds in which a run that was told to stop is to have ended


def is_distributed(cfg: DictConfig) -> bool:
    """Whether a job asks for more than one device, or for a strategy, which may start processes."""
    return cfg.trainer.get("strategy", "auto") != "auto" or cfg.trainer.get("devices", 1) not in (1, "1")


def train_in_subprocess(cfg: DictConfig) -> None:
    """Run `python -m mnist_lab` with the job's settings, in the job's folder, and wait for it.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP, which was passed on.
        LabError: the run failed, or one of its processes was killed.
    """
    folder = Path(cfg.folder)
    overrides = without_keys(original_overrides(cfg), *SWEEP_KEYS)
    own = [f"{key}={format_value(cfg[key])}" for key in PASSED_TO_JOBS] + [f"hydra.run.dir={quote_path(folder)}"]
    resume = [f"resume={quote_path(Path(cfg.resume))}"] if cfg.resume else []
    options = ["--config-dir", cfg.config_dir] if cfg.config_dir else []
    command = [sys.executable, "-m", "mnist_lab", *options, *overrides, *own, *resume]
    with (
        stop_signals_raise(),
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {SWEEP_PROCESS: str(os.getpid())},  # it ends when this process is killed
        ) as process,
    ):
        try:
            told = process.communicate()[1].strip()
        except BaseException as stop:
            number = stop_signal(stop) or signal.SIGINT
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=PATIENCE)
            raise Interrupted(128 + number) from stop
        finally:
            if hasattr(os, "killpg"):  # not on Windows
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # the others, should they hang without the first
    if process.returncode - 128 in STOP_SIGNALS:
        raise Interrupted(process.returncode)
    if process.returncode < 0:  # Lightning kills the first process when another one has died
        raise LabError(f"one of its processes died (signal {-process.returncode})")
    if process.returncode > 0:
        error = Run(folder).info["error"] if Run(folder).exists else None
        raise LabError(error or told.removeprefix("mnist_lab: ") or f"exit status {process.returncode}")
