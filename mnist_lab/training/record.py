"""What a run writes of itself: config.yaml, and run.json at its start and at each change of its status."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from mnist_lab.config.settings import given_overrides
from mnist_lab.errors import BadInput, Interrupted, LabError
from mnist_lab.formatting import command_line
from mnist_lab.runs.checkpoints import epochs_done, read_checkpoint
from mnist_lab.runs.environment import git_state, now, processor, versions
from mnist_lab.runs.run import Run
from mnist_lab.streams import stop_waiting_for_readers
from mnist_lab.training.checkpointing import stop_signal, stop_signals_raise
from mnist_lab.training.progress import console

log = logging.getLogger(__name__)


@contextmanager
def recorded(cfg: DictConfig, parameters: int) -> Iterator[Run]:
    """The run in cfg.folder, new or resumed, whose run.json says how what happens in the with-block ends.

    Ctrl-C, SIGTERM and SIGHUP end in Interrupted, a SystemExit of 130, 143 and 129. In a run of several processes only
    the first one writes.
    """
    run = Run(Path(cfg.folder))
    first_process = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if first_process:
        _open(run, cfg, parameters)
    started = time.perf_counter()
    try:
        with stop_signals_raise():
            yield run
    except BaseException as error:
        interrupted = stop_signal(error)
        if first_process and not (run.folder / "run.json").exists():
            raise LabError(f"{run}: the run folder was removed during the run, which cannot continue") from error
        if first_process:
            reason = interrupted.name if interrupted else f"{type(error).__name__}: {error}"
            reason = "Ctrl-C" if reason == "SIGINT" else reason
            seconds = time.perf_counter() - started
            _close_early(run, "interrupted" if interrupted else "failed", reason, seconds)
            if interrupted:
                stop_waiting_for_readers()
                console.print(f"interrupted ({reason}); {_how_to_go_on(run)}", soft_wrap=True)
            else:
                log.info("the run failed", exc_info=error)
        if interrupted:
            raise Interrupted(128 + interrupted) from error
        raise


def _close_early(run: Run, status: str, reason: str, seconds: float) -> None:
    """Record a run that did not come to its end, with what its last checkpoint has."""
    last = run.checkpoint("last")
    content = read_checkpoint(last) if last else {"global_step": 0}
    run.update(
        status=status,
        error=reason,
        finished=now(),
        epochs=epochs_done(content),
        steps=content.get("global_step", 0),
        seconds=run.seconds_with(total=seconds, fit=seconds),
        checkpoints=run.checkpoints(),
    )


def _how_to_go_on(run: Run) -> str:
    if run.checkpoint("last") is None:
        return f"nothing was saved yet, so start anew: {run.info['command']}"
    return f"to go on: {command_line([f'resume={run}'])}"


def _open(run: Run, cfg: DictConfig, parameters: int) -> None:
    overrides = [override for override in given_overrides(cfg) if not override.lstrip("+").startswith("resume=")]
    options = ["--config-dir", cfg.config_dir] if cfg.config_dir else []
    info = {
        "status": "running",
        "error": None,
        "command": command_line([*options, *overrides]),
        "overrides": overrides,
        "config_dir": cfg.config_dir,
        "model": cfg.name,
        "parameters": parameters,
        "seed": cfg.seed,
        "started": now(),
        "finished": None,
        "max_epochs": cfg.trainer.max_epochs,
        "epochs": 0,
        "steps": 0,
        "metrics": {},
        "seconds": {},
        "images_per_second": None,
        "device": None,
        "processor": processor(),
        "versions": versions(),
        "git": git_state(),
        "checkpoints": {"best": None, "last": None},
    }
    if not cfg.resume:
        Run.create(run.folder, info, cfg)
    else:
        kept_up = ("status", "error", "command", "overrides", "max_epochs", "versions", "git")
        try:
            run.update(**{name: info[name] for name in kept_up})
            run.save_config(cfg)
        except OSError as error:
            raise BadInput(f"resume={run}: cannot be written ({error.strerror})") from error


def device_name(trainer: pl.Trainer) -> str:
    """The kind of device that a run used, and how many."""
    device, threads = trainer.strategy.root_device, torch.get_num_threads()
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {threads} thread{'s' * (threads > 1)}"
    )
    return f"{trainer.world_size} × {name}" if trainer.world_size > 1 else name
