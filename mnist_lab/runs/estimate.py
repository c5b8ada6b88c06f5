"""How long a run will take, by the runs before it on this machine."""

from __future__ import annotations

import statistics
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mnist_lab.errors import UsageError
from mnist_lab.runs.environment import processor_name
from mnist_lab.runs.run import Run
from mnist_lab.runs.state import RunState

LOOKED_AT = 20  # latest runs of the network
SAME = ("data.batch_size", "data.source.name", "trainer.accelerator", "augmentation._target_")  # what speed depends on


def seconds_an_epoch(cfg: DictConfig, runs_dir: Path) -> tuple[float, int] | None:
    """Return the median seconds of an epoch in earlier runs, and their number; None if there is none to go by.

    Earlier runs are finished ones below the folder on a processor of the same name, of the same network, batch size,
    data set and accelerator, with or without augmentation as this one.

    Args:
        cfg: the configuration of the run to come.
        runs_dir: the folder of the runs.
    """
    here, wanted = processor_name(), [OmegaConf.select(cfg, key) for key in SAME]
    records = Run.records(runs_dir) if runs_dir.is_dir() else {}
    candidates = [
        (run, info["seconds"]["fit"] / info["epochs"])
        for run, info in records.items()
        if info["status"] == RunState.FINISHED
        and (info["model"], info["processor"]) == (cfg.name, here)
        and info["epochs"]
        and "fit" in info["seconds"]
    ]
    found = [seconds for run, seconds in candidates[-LOOKED_AT:] if _values(run) == wanted]
    return (statistics.median(found), len(found)) if found else None


def _values(run: Run) -> list[object]:
    try:
        return [OmegaConf.select(run.config, key) for key in SAME]
    except UsageError:  # a damaged configuration
        return []
