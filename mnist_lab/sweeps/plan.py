"""The plan of a sweep: its jobs, each composed once, with the id and the folder that follow from its settings."""

import hashlib
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.compose import CommandLine, HydraSettings, compose_job, config_options
from mnist_lab.config.hydra_aside import composer
from mnist_lab.config.keys import ADDED_KEYS, IGNORED_FOR_IDENTITY, SWEEP_KEYS
from mnist_lab.config.metric_names import VAL_ACC, VAL_BALANCED_ACC
from mnist_lab.config.overrides import (
    Override,
    override_key,
    parse_override,
    quote_path,
    without_keys,
)
from mnist_lab.config.settings import flatten, identity_settings, require_environment, to_plain
from mnist_lab.console import working_on
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_count
from mnist_lab.runs.record import SweepSettings
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.launchers.launcher import Launcher, make_launcher

UNNAMED = "<job>"  # stands for the folder of a job whose id is not known yet; no file has this name


@dataclass
class Plan:
    """What the command line of a sweep asks for."""

    line: CommandLine
    cfg: DictConfig  # the configuration of the first job
    hydra: HydraSettings
    # The plain configurations of composed jobs by id, for a launcher that runs them in this process.
    composed: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, line: CommandLine) -> "Plan":
        """Compose the first job of a sweep; the sweep's folder, sweeper and launcher follow from it."""
        return cls(line, *compose_job(line, is_sweep=True))

    @property
    def sweep(self) -> Sweep:
        """The sweep."""
        return Sweep(self.hydra.sweep_dir)

    @cached_property
    def overrides(self) -> list[Override]:
        """The overrides of the jobs, with the sweeper's params for keys that none of them sets."""
        composed = {override_key(text): text.partition("=")[0] for text in self.cfg.overrides}  # The + is right there.
        given = [
            text.replace(text.partition("=")[0], composed.get(override_key(text), text.partition("=")[0]), 1)
            for text in self.line.overrides
            if not parse_override(text).is_hydra_override()
        ]
        params = [f"{key}={value}" for key, value in (self.hydra.sweeper.get("params") or {}).items()]
        with composer(self.line.config_dir):
            return [parse_override(text) for text in (*given, *without_keys(params, *map(override_key, given)))]

    @cached_property
    def swept(self) -> list[str]:
        """The keys that have several values."""
        swept = [override_key(str(each.input_line)) for each in self.overrides if each.is_sweep_override()]
        for key in filter(SWEEP_KEYS.__contains__, swept):
            raise UsageError(f"{key}: applies to the whole sweep and cannot be swept")
        for key in filter(IGNORED_FOR_IDENTITY.match, swept):
            raise UsageError(f"{key}: jobs do not differ by it, as their results do not; give it one value")
        return swept

    @cached_property
    def common_overrides(self) -> list[str]:
        """The overrides of Hydra's settings and of the sweep's, which all jobs have in common."""
        hydra = [text for text in self.line.overrides if parse_override(text).is_hydra_override()]
        hydra = without_keys(hydra, "hydra.sweep.dir", "hydra.mode")
        sweep = [text for text in self.line.overrides if override_key(text) in SWEEP_KEYS]
        return [*hydra, f"hydra.sweep.dir={quote_path(self.sweep.folder)}", *sweep]

    @cached_property
    def launcher(self) -> Launcher:
        """The launcher of the sweep."""
        choice = self.hydra.choices["hydra/launcher"]
        launcher = make_launcher(choice, self.hydra.launcher)
        if self.cfg.detach and not launcher.outlives_sweep:
            raise UsageError(
                f"--detach: jobs of hydra/launcher={choice} end with this command; run it in tmux or by nohup"
            )
        return launcher

    def compose_jobs(self, jobs: Sequence[list[str]]) -> dict[str, tuple[list[str], DictConfig]]:
        """Compose jobs, and return the overrides and the configuration of each by its id; equal jobs have one id."""
        self.launcher.check(len(jobs))
        with working_on(f"sweep {self.sweep.folder.name}: composing {format_count(len(jobs), 'job')}"):
            composed = [self.compose_job(job, number) for number, job in enumerate(jobs)]
        return {id: (job, cfg) for job, (id, cfg) in zip(jobs, composed, strict=True)}

    def compose_job(self, overrides: Sequence[str], number: int) -> tuple[str, DictConfig]:
        """Compose a job, and return its id and its configuration."""
        line = replace(self.line, overrides=(*overrides, *self.common_overrides))
        cfg, _ = compose_job(line, is_sweep=True, folder=self.sweep.folder / UNNAMED, number=number)
        if not self.launcher.lock_patience:  # The jobs run on this machine, which must have what they read.
            require_environment(cfg)
            path = OmegaConf.select(cfg, "data.source.path")
            if path and not Path(path).exists():
                raise UsageError(f"data.source.path={path}: not found; no job was started")
        id = job_id(cfg)
        if self.launcher.in_this_process:
            self.composed[id] = to_plain(cfg)
        return id, cfg

    def settings(self) -> SweepSettings:
        """Return what the jobs have in common, for sweep.json."""
        is_balanced = OmegaConf.select(self.cfg, "callbacks.best.monitor") == VAL_BALANCED_ACC
        return {
            "overrides": self.common_overrides,
            "config_dir": self.line.config_dir and str(Path(self.line.config_dir).absolute()),
            "config_name": self.line.config_name,
            "folder": str(Path.cwd()),
            "search_path": [place for place in sys.path if not place.startswith((sys.prefix, sys.base_prefix))],
            "threads": self.launcher.threads,
            "lock_patience": self.launcher.lock_patience,
            "metric": VAL_BALANCED_ACC if is_balanced else VAL_ACC,
        }

    def arguments(self) -> list[str]:
        """Return the arguments that start, or continue, the sweep."""
        overrides = without_keys(self.line.overrides, "detach", "hydra.mode")  # A continued sweep waits for its jobs.
        if "sweep" not in map(override_key, overrides):
            overrides.append(f"sweep={self.sweep.folder.name}")
        return ["-m", *config_options(self.line.config_dir, self.line.config_name), *overrides]


def combine_overrides(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each job: every combination of the swept values, the last key's values fastest."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif override.is_sweep_override():
            raise UsageError(
                f"{override.input_line}: only a search can draw from it; add hydra/sweeper=optuna, "
                "or hydra/sweeper=halving and hydra.sweeper.n_candidates"
            )
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    return [list(job) for job in itertools.product(*values.values())]


def job_id(cfg: DictConfig) -> str:
    """Return the id of a job, 12 hexadecimal digits: a hash of the settings that identify it."""
    cfg = cfg.copy()
    OmegaConf.resolve(cfg)
    settings = identity_settings(flatten(cfg))
    # A key that a later version has added does not change the id while it has its default.
    settings = {key: value for key, value in settings.items() if ADDED_KEYS.get(key, ...) != value}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def set_job_folder(value: Any, folder: Path) -> Any:
    """Return plain values of a composed job with its folder in the place of UNNAMED."""
    if isinstance(value, str):
        return value.replace(str(folder.parent / UNNAMED), str(folder))
    if isinstance(value, dict):
        return {key: set_job_folder(entry, folder) for key, entry in value.items()}
    return [set_job_folder(entry, folder) for entry in value] if isinstance(value, list) else value
