"""Write config.yaml, and run.json at the start of a run and at each change of its status."""

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch import nn

from mnist_lab.config.compose import config_options
from mnist_lab.config.overrides import without_keys
from mnist_lab.config.settings import original_overrides
from mnist_lab.console import console
from mnist_lab.errors import Interrupted, LabError, ProcessLost, UsageError, handle_signals, signal_name
from mnist_lab.formatting import format_command, format_count
from mnist_lab.runs.checkpoints import completed_epochs, read_checkpoint
from mnist_lab.runs.locks import wait_for_release
from mnist_lab.runs.record import RunRecord, RunState, current_time, package_versions, processor_name, record_source
from mnist_lab.runs.run import Run
from mnist_lab.streams import stop_waiting_for_readers
from mnist_lab.training.callbacks import ElapsedTime
from mnist_lab.training.checkpointing import raise_stop_signals, stop_signal
from mnist_lab.training.runtime import is_first_process, is_process_lost, launch_command

PROCESS_DIED = "another process of the run died"
PATIENCE = 10.0  # seconds to wait for the first process to record the end of the run
log = logging.getLogger(__name__)


@contextmanager
def record_run(run: Run, cfg: DictConfig, model: nn.Module, elapsed: ElapsedTime) -> Iterator[None]:
    """Start or resume the record of a run, and write into run.json how the block ends.

    Of several processes the first one writes, or the others if they have lost it.
    """
    if is_first_process():
        _start_record(run, cfg, model)
    try:
        with raise_stop_signals():
            yield
    except BaseException as error:
        if is_first_process() and not run.exists:
            raise LabError(f"{run}: the run folder was removed during the run, which cannot continue") from error
        if is_process_lost(error):
            # A launcher sends SIGTERM to the other processes when one has died.
            with handle_signals({signal.SIGTERM: signal.SIG_IGN}):
                _record_lost_process(run, elapsed)
                log.info(PROCESS_DIED, exc_info=error)
                rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
                place = f"process {rank} of {world_size} on {socket.gethostname()}"
                raise ProcessLost(f"{place}: {PROCESS_DIED}; {_resume_hint(run)}") from error
        number = stop_signal(error)
        if number is None:
            if is_first_process():
                _record_early_end(run, RunState.FAILED, f"{type(error).__name__}: {error}", elapsed)
                log.info("the run failed", exc_info=error)
            raise
        if is_first_process():
            _record_early_end(run, RunState.INTERRUPTED, signal_name(number), elapsed)
            stop_waiting_for_readers()
            console.print(f"interrupted ({signal_name(number)}); {_resume_hint(run)}", soft_wrap=True)
        raise Interrupted(128 + number) from error


def _record_lost_process(run: Run, elapsed: ElapsedTime) -> None:
    """Record that another process died; if the first one did, which has the lock, any other process does so."""
    if not is_first_process():
        first_has_ended = wait_for_release(run.folder, PATIENCE)
        if not first_has_ended or run.info["status"] not in (RunState.RUNNING, RunState.KILLED):
            return
    _record_early_end(run, RunState.INTERRUPTED, PROCESS_DIED, elapsed)


def _record_early_end(run: Run, status: RunState, reason: str, elapsed: ElapsedTime) -> None:
    """Record a run that failed or was interrupted, with the progress of its last checkpoint."""
    last = run.checkpoint("last")
    content = read_checkpoint(last) if last else {"global_step": 0}
    run.update(
        status=status,
        error=reason,
        finished=current_time(),
        epochs=completed_epochs(content),
        steps=content.get("global_step", 0),
        seconds=elapsed.seconds(),
        checkpoints=run.checkpoints(),
    )


def _resume_hint(run: Run) -> str:
    if run.checkpoint("last") is None:
        return f"nothing was saved yet; start again: {run.info['command']}"
    return f"to resume: {launch_command([f'resume={run}'])}"


def _start_record(run: Run, cfg: DictConfig, model: nn.Module) -> None:
    """Write run.json and config.yaml of a new run, or change them for a resumed one."""
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
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seed": cfg.seed,
            "started": current_time(),
            "processor": processor_name(),
        }
        Run.create(run.folder, info, cfg)


def device_name(trainer: pl.Trainer) -> str:
    """Return the device of a trainer, with the number of its processes if there are several."""
    device, threads = trainer.strategy.root_device, torch.get_num_threads()
    name = f"{device.type}, {format_count(threads, 'thread')}"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return f"{trainer.world_size} × {name}" if trainer.world_size > 1 else name
