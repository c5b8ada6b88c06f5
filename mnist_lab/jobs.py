"""Hydra's part: one job, or a sweep of one for each combination of the swept values."""

from __future__ import annotations

import logging
import math
import re
import sys

import hydra
import yaml  # type: ignore[import-untyped]
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_lab import conf_dir, config_dirs
from mnist_lab.config import CheckBeforeRun, resolve
from mnist_lab.errors import BadInput, Interrupted, LabError, tell_a_full_disk_once, told_in_one_line
from mnist_lab.resume import continued

log = logging.getLogger(__name__)


def main() -> None:
    """Run what sys.argv says."""
    with told_in_one_line():
        tell_a_full_disk_once()
        sys.argv[1:] = continued(sys.argv[1:])
        refuse_what_hydra_cannot_tell(sys.argv[1:])
    Jobs().run()


def refuse_what_hydra_cannot_tell(arguments: list[str]) -> None:
    """Raise BadInput for what Hydra would answer with a traceback of its own, or would let pass."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        choices = sorted(path.stem for path in (conf_dir() / key).glob("*.yaml")) if key.isidentifier() else []
        if choices and re.fullmatch(r"null|[\d.]*|true|false", value):
            raise BadInput(f"{argument}: choose one of {', '.join(choices)}")
        if key.lstrip("+") in ("folder", "overrides", "config_dir"):
            raise BadInput(f"{argument}: follows from the other settings; hydra.run.dir is where the run goes")
    for folder in config_dirs(arguments):
        for path in folder.rglob("*.yaml"):
            try:
                yaml.safe_load(path.read_text())
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise BadInput(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error


class Jobs:
    """Hydra's run or sweep: one job, or one for each combination of the swept values."""

    def __init__(self) -> None:
        self.done = 0
        self.failed: list[str] = []

    def run(self) -> None:
        decorated = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(self.job)
        try:
            decorated()
        except SystemExit as stop:
            if stop.code == 1 and not self.done:  # Hydra has said what is wrong with the command line
                raise SystemExit(BadInput.exit_status) from None
            raise
        if self.failed:
            print(
                f"mnist_lab: {len(self.failed)} of {self.done} jobs failed:",
                *self.failed,
                sep="\n  ",
                file=sys.stderr,
            )
            raise SystemExit(LabError.exit_status)

    def job(self, cfg: DictConfig) -> float | None:
        """One job; in a sweep, one that fails is told and leaves the others alone."""
        self.done += 1
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            try:
                with told_in_one_line():
                    return objective(resolve(cfg, HydraConfig.get()))
            finally:
                CheckBeforeRun.take_back()
        try:
            if str(cfg.trainer.get("strategy", "")).startswith("ddp"):
                # Lightning starts the other processes with this one's command line, which would be the sweep again.
                raise BadInput("trainer=ddp: not in a sweep; start its jobs one by one")
            return objective(resolve(cfg, HydraConfig.get()))
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:
            log.info("the job failed", exc_info=True)
            self.failed.append(f"{cfg.folder}: {type(error).__name__}: {error}")
            print(f"mnist_lab: job failed: {error}", file=sys.stderr)
            return math.nan


def objective(cfg: DictConfig) -> float | None:
    """Train; what a sweeper goes by is validation accuracy, or None where there is no validation set."""
    from mnist_lab.train import train  # torch and Lightning: not for --cfg

    cfg.config_dir = next((str(folder.absolute()) for folder in config_dirs(sys.argv)), None)
    accuracy = train(cfg).info["metrics"].get("val/acc")
    return accuracy if accuracy is None else float(accuracy)
