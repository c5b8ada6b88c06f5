"""--check: validate a command line, say what it would run, where and for how long, and stop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from omegaconf import DictConfig

from mnist_lab.config.compose import job_config
from mnist_lab.config.overrides import compose_with_hydra, override_key, parse_override
from mnist_lab.formatting import display_path, format_duration
from mnist_lab.runs.listing import seconds_an_epoch
from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.grid import combinations


def check(options: Sequence[str], overrides: Sequence[str], *, multirun: bool) -> None:
    """Validate a command line, and print what it would run.

    Args:
        options: Hydra's options.
        overrides: the overrides.
        multirun: whether they start a sweep.

    Raises:
        UsageError: it cannot be run.
    """
    from mnist_lab.config.validate import validate  # torch
    from mnist_lab.training.build import make_model

    values = dict(pairwise(options))
    parsed = [parse_override(override) for override in overrides]
    swept = [override_key(override.input_line or "") for override in parsed if override.is_sweep_override()]
    is_grid = all(override.is_discrete_sweep() for override in parsed if override.is_sweep_override())
    jobs = combinations(parsed) if multirun and is_grid else [list(overrides)]
    configs: list[DictConfig] = []
    for job in jobs:
        composed = compose_with_hydra(
            job, values.get("--config-dir"), values.get("--config-name", "train"), sweep=multirun
        )
        cfg = job_config(composed)
        validate(cfg, Run(Path(cfg.folder)).config if cfg.resume else None)
        configs.append(cfg)
    parameters = sum(parameter.numel() for parameter in make_model(configs[0]).parameters())
    first = configs[0]
    print(f"valid: {first.name}, {parameters:,} parameters, {first.trainer.max_epochs} epochs, seed {first.seed}")
    if multirun:
        sweep = Sweep(Path(composed.hydra.sweep.dir))
        done = sum(job.state == RunState.FINISHED for job in sweep.jobs()) if sweep.exists else 0
        print(f"{len(jobs)} jobs over {', '.join(swept)}; {done} are finished")
        print(f"sweep folder: {display_path(sweep.folder.absolute())}")
    elif first.resume:
        print(f"continues: {Run(Path(first.folder))}, from {display_path(Path(first.resume))}")
    else:
        print(f"run folder: {display_path(Path(first.folder).absolute())}")
    print(describe_time(configs))


def describe_time(configs: Sequence[DictConfig]) -> str:
    """Describe how long the jobs take one after the other, by earlier runs."""
    seconds, numbers = 0.0, []
    for cfg in configs:
        found = seconds_an_epoch(cfg, Path(cfg.runs_dir))
        if found is None:
            return f"time: unknown, without an earlier run of {cfg.name} like this one below {cfg.runs_dir}"
        seconds += found[0] * cfg.trainer.max_epochs
        numbers.append(found[1])
    together = " for all jobs, one after the other" if len(configs) > 1 else ""
    runs = f"{min(numbers)} earlier run{'s' * (min(numbers) > 1)}"
    return f"time: about {format_duration(seconds)}{together}, by {runs}"
