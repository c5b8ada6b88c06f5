"""Run a distributed job (trainer=ddp) as a command of its own.

Lightning starts the further processes of a run with the command line of the first, which would be the whole sweep's. It
leaves environment variables behind for the next job, and kills the first process when another one dies.
"""

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
from mnist_lab.sweeps.process import SWEEP_PROCESS
from mnist_lab.training.checkpointing import STOP_SIGNALS, stop_signal, stop_signals_raise

PATIENCE = 60  # seconds for a run to end after a signal


def is_distributed(cfg: DictConfig) -> bool:
    """Return whether a job uses more than one device, or a strategy, which may start processes."""
    return cfg.trainer.get("strategy", "auto") != "auto" or cfg.trainer.get("devices", 1) not in (1, "1")


def train_in_subprocess(cfg: DictConfig) -> None:
    """Train a job with the command `python -m mnist_lab` in its folder, and wait for the process."""
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
            env=os.environ | {SWEEP_PROCESS: str(os.getpid())},  # so that it ends when this process is killed
        ) as process,
    ):
        try:
            message = process.communicate()[1].strip()
        except BaseException as stop:
            number = stop_signal(stop) or signal.SIGINT
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=PATIENCE)
            raise Interrupted(128 + number) from stop
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # the other processes, which may hang without the first
    if process.returncode - 128 in STOP_SIGNALS:
        raise Interrupted(process.returncode)
    if process.returncode < 0:  # Lightning kills the first process when another one has died
        raise LabError(f"one of its processes died (signal {-process.returncode})")
    if process.returncode > 0:
        error = Run(folder).info["error"] if Run(folder).exists else None
        raise LabError(error or message.removeprefix("mnist_lab: ") or f"exit status {process.returncode}")
