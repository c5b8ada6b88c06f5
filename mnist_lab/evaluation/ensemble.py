"""Combine the networks of finished runs into one, a run folder like any other."""

import copy
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig, open_dict

from mnist_lab.config.compose import compose
from mnist_lab.config.keys import DATA_CONTENT
from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.config.overrides import quote_path
from mnist_lab.config.settings import differing_settings, to_plain
from mnist_lab.config.validate import validate
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.evaluate import evaluate_network, make_tester
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.files import exists, make_folder
from mnist_lab.formatting import format_command, format_value, print_warning, shorten
from mnist_lab.models.deployed import Ensemble, InferenceModule
from mnist_lab.runs.checkpoints import SafeCheckpointIO
from mnist_lab.runs.listing import checkpoint_problem, select_runs
from mnist_lab.runs.ranking import merit
from mnist_lab.runs.record import (
    Member,
    RunRecord,
    RunState,
    current_time,
    package_versions,
    processor_name,
    record_source,
    write_record,
)
from mnist_lab.runs.run import Run
from mnist_lab.training.build import num_classes_argument
from mnist_lab.training.record import device_name
from mnist_lab.training.runtime import guest

NAME = "ensemble"


@guest()
def make_ensemble(
    found: Sequence[Run], folder: Path | None = None, runs_dir: Path = Path("runs"), *, top: int | None = None
) -> tuple[Run, int]:
    """Write a run folder whose network averages the probabilities of other runs' networks.

    It holds the tested weights of these networks, so that the members' folders are not needed afterwards. Members and
    ensemble are tested on the whole test set, in float32, before anything is written.

    Args:
        found: two or more runs; those that are unfinished, without a checkpoint, or ensembles themselves are left out
            with a warning.
        folder: the folder to make; None for a new one below runs_dir.
        runs_dir: the folder of the runs.
        top: how many of the runs to take, the best by validation accuracy; None for all.

    Returns:
        The ensemble's run, and the number of test images.

    Raises:
        UsageError: fewer than two runs are left, their data or classes differ, a checkpoint is corrupt, or the folder
            exists or cannot be written.
        DataUnavailable: the test set is not available.
    """
    started, clock = current_time(), time.perf_counter()
    if folder is not None and exists(folder):
        raise UsageError(f"--to={folder}: exists already; choose another")
    if top is not None and top < 2:
        raise UsageError(f"--top={top}: must be 2 or more")
    runs = select_runs(found, _member_problem)
    if top is not None:
        runs = sorted(select_runs(runs, _ranking_problem), key=lambda run: merit([run], VAL_ACC), reverse=True)[:top]
        if len(runs) < top:
            print_warning(f"--top={top}: all {len(runs)} runs that can be members are taken; there are no more")
    if len(runs) < 2:
        raise UsageError(f"{runs[0]}: is the only run that can be a member; give two or more")
    _require_same_data(runs)
    members = [TrainedRun(run) for run in runs]
    cfg = _ensemble_config(members, folder, runs_dir)
    validate(cfg)
    parts = [InferenceModule(member.model, member.data.mean, member.data.std) for member in members]
    model, tester = Ensemble(parts, members[0].model.num_classes), make_tester(cfg)
    record: RunRecord = {
        "status": RunState.FINISHED,
        "command": format_command([NAME, *map(str, runs)]),
        "model": cfg.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": cfg.seed,
        "started": started,
        "max_epochs": 0,
        "members": [_test_member(tester, cfg, member) for member in members],
        "metrics": evaluate_network(tester, cfg, model),
        "finished": current_time(),
        "seconds": {"total": time.perf_counter() - clock},
        "device": device_name(tester),
        "processor": processor_name(),
        "versions": package_versions(),
    }
    return _write_run(cfg, model, record), len(members[0].data.raw_test_set()[1])


def _member_problem(run: Run) -> str | None:
    """Return why a run cannot be a member; None if it can."""
    info = run.info
    if info["members"]:
        return "is an ensemble itself"
    if info["status"] != RunState.FINISHED:
        return f"is not finished (status: {info['status']})"
    return checkpoint_problem(run)


def _ranking_problem(run: Run) -> str | None:
    """Return why a run cannot be ranked; None if it can."""
    is_measured = VAL_ACC in run.info["metrics"] and "val" not in run.info["partial"]
    return None if is_measured else "has no validation accuracy of all images"


def _require_same_data(runs: Sequence[Run]) -> None:
    """Raise UsageError for runs that were trained on other images or classes than the first one."""
    for key, values in differing_settings(*(run.config for run in runs)).items():
        if DATA_CONTENT.match(key):
            other = next(i for i, value in enumerate(values) if value != values[0])
            here, there = shorten(format_value(values[other])), shorten(format_value(values[0]))
            raise UsageError(f"{runs[other]}: was trained on other data than {runs[0]} ({key}={here}, not {there})")


def _ensemble_config(members: Sequence[TrainedRun], folder: Path | None, runs_dir: Path) -> DictConfig:
    """Return the configuration of an ensemble: the members' networks, their data, and the default settings."""
    overrides = [f"runs_dir={quote_path(runs_dir)}"]
    if folder is None:
        default = compose(*overrides)
        folder = Path(f"{default.folder.removesuffix(default.name)}{NAME}")
    cfg = compose(*overrides, f"hydra.run.dir={quote_path(folder)}")
    model = {
        "_target_": "mnist_lab.models.Ensemble",
        "members": [_member_node(member) for member in members],
        "num_classes": members[0].model.num_classes,
    }
    # The ensemble's images are only divided by 255, because each member normalises by its own mean and std.
    configs = [member.run.config.data for member in members]
    data = to_plain(configs[0]) | {"mean": 0.0, "std": 1.0}
    if any((each.val_size, each.split_seed) != (data["val_size"], data["split_seed"]) for each in configs):
        data["val_size"] = 0  # No images are held out by all members.
    with open_dict(cfg):
        cfg.update(name=NAME, overrides=[], model=model, data=data, optimizer={})
        cfg.trainer.max_epochs = 0
    return cfg


def _member_node(member: TrainedRun) -> dict[str, Any]:
    """Return the node of a member in the ensemble's configuration."""
    cfg = member.run.config
    node = {
        "_target_": "mnist_lab.models.InferenceModule",
        "network": to_plain(cfg.model) | num_classes_argument(cfg),
        "mean": member.data.mean,
        "std": member.data.std,
    }
    if cfg.test_augmentation:
        node["views"] = to_plain(cfg.test_augmentation)
    return node


def _test_member(tester: pl.Trainer, cfg: DictConfig, member: TrainedRun) -> Member:
    """Test a member with the ensemble's settings but its own data's, and return its entry in the record."""
    cfg = copy.deepcopy(cfg)
    cfg.data = member.run.config.data
    info, metrics = member.run.info, evaluate_network(tester, cfg, member.model)
    return {"run": str(member.run), "model": info["model"], "seed": info["seed"], "metrics": metrics}


def _write_run(cfg: DictConfig, model: Ensemble, record: RunRecord) -> Run:
    """Write the run folder, whole or not at all."""
    run = Run(Path(cfg.folder))
    try:
        make_folder(run.folder.parent)
        run.folder.mkdir()
        try:
            content = {"state_dict": model.state_dict(), "architecture": type(model).__name__}
            SafeCheckpointIO().save_checkpoint(content, run.checkpoint_path("last"))
            run.save_config(cfg)
            record |= {"checkpoints": run.checkpoints(), "git": record_source(run.source_path)}
            write_record(run.record_path, record)  # This comes last: it makes the folder a run's.
        except BaseException:
            shutil.rmtree(run.folder, ignore_errors=True)
            raise
    except OSError as error:
        raise UsageError(f"--to={run}: cannot be written ({error.strerror}); choose another") from error
    return run
