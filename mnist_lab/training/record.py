"""Write config.yaml, and run.json at the start of a run and at each change of its status."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from mnist_lab.config.compose import config_options
from mnist_lab.config.overrides import without_keys
from mnist_lab.config.settings import original_overrides
from mnist_lab.errors import Interrupted, LabError, ProcessLost, UsageError
from mnist_lab.formatting import format_command
from mnist_lab.runs.checkpoints import completed_epochs, read_checkpoint
from mnist_lab.runs.locks import wait_for_release
from mnist_lab.runs.record import RunRecord, RunState, current_time, package_versions, processor_name, record_source
from mnist_lab.runs.run import Run
from mnist_lab.streams import stop_waiting_for_readers
from mnist_lab.training.callbacks import ElapsedTime
from mnist_lab.training.checkpointing import sigterm_ignored, stop_signal, stop_signals_raise
from mnist_lab.training.progress import console
from mnist_lab.training.runtime import is_process_lost, launch_command, process_name

PROCESS_DIED = "another process of the run died"
PATIENCE = 10.0  # seconds for the first process to record the end of the run
log = logging.getLogger(__name__)


@contextmanager
def record_run(cfg: DictConfig, parameters: int, elapsed: ElapsedTime) -> Iterator[Run]:
    """Start or resume the run in cfg.folder, and record in run.json how the with-block ends.

    In a run of several processes only the first one writes.
    """
    run = Run(Path(cfg.folder))
    first_process = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if first_process:
        _start_record(run, cfg, parameters)
    try:
        with stop_signals_raise():
            yield run
    except BaseException as error:
        if first_process and not run.exists:
            raise LabError(f"{run}: the run folder was removed during the run, which cannot continue") from error
        if is_process_lost(error):
            with sigterm_ignored():
                if first_process or _has_lost_first_process(run):
                    _record_early_end(run, RunState.INTERRUPTED, PROCESS_DIED, elapsed.seconds())
                log.info(PROCESS_DIED, exc_info=error)
                raise ProcessLost(f"{process_name()}: {PROCESS_DIED}; {_resume_hint(run)}") from error
        interrupted = stop_signal(error)
        if first_process:
            if interrupted:
                reason = "Ctrl-C" if interrupted == signal.SIGINT else interrupted.name
                _record_early_end(run, RunState.INTERRUPTED, reason, elapsed.seconds())
                stop_waiting_for_readers()
                console.print(f"interrupted ({reason}); {_resume_hint(run)}", soft_wrap=True)
            else:
                _record_early_end(run, RunState.FAILED, f"{type(error).__name__}: {error}", elapsed.seconds())
                log.info("the run failed", exc_info=error)
        if interrupted:
            raise Interrupted(128 + interrupted) from error
        raise


def _has_lost_first_process(run: Run) -> bool:
    """Return whether a run's first process, which has its lock and writes its record, ended without recording that."""
    return wait_for_release(run.folder, PATIENCE) and run.info["status"] in (RunState.RUNNING, RunState.KILLED)


def _record_early_end(run: Run, status: RunState, reason: str, seconds: dict[str, float]) -> None:
    """Record a run that failed or was interrupted, with the progress of its last checkpoint."""
    last = run.checkpoint("last")
    content = read_checkpoint(last) if last else {"global_step": 0}
    run.update(
        status=status,
        error=reason,
        finished=current_time(),
        epochs=completed_epochs(content),
        steps=content.get("global_step", 0),
        seconds=seconds,
        checkpoints=run.checkpoints(),
    )


def _resume_hint(run: Run) -> str:
    if run.checkpoint("last") is None:
        return f"nothing was saved yet; start again: {run.info['command']}"
    return f"to resume: {launch_command([f'resume={run}'])}"


def _start_record(run: Run, cfg: DictConfig, parameters: int) -> None:
    overrides = without_keys(original_overrides(cfg), "resume")
    options = config_options(cfg.config_dir, cfg.config_name)
    info: RunRecord = {
        "status": RunState.RUNNING,
        "error": None,
        "command": format_command([*options, *overrides]),
        "overrides": overrides,
        "max_epochs": cfg.trainer.max_epochs,
        "versions": package_versions(),
    }
    if cfg.resume:
        try:
            run.update(**info | {"git": record_source(run.source_path)})
            run.save_config(cfg)
        except OSError as error:
            raise UsageError(f"resume={run}: cannot be written ({error.strerror})") from error
    else:
        info |= {
            "config_dir": cfg.config_dir,
            "config_name": cfg.config_name,
            "model": cfg.name,
            "parameters": parameters,
            "seed": cfg.seed,
            "started": current_time(),
            "processor": processor_name(),
        }
        Run.create(run.folder, info, cfg)


def device_name(trainer: pl.Trainer) -> str:
    """Return the kind of device that a run used, and their number."""
    device, threads = trainer.strategy.root_device, torch.get_num_threads()
    name = f"{device.type}, {threads} thread{'s' * (threads > 1)}"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return f"{trainer.world_size} × {name}" if trainer.world_size > 1 else name
