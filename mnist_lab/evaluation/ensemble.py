"""Combine the networks of finished runs into one, a run folder like any other."""

import copy
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, open_dict

from mnist_lab.config.compose import compose
from mnist_lab.config.keys import DATA_CONTENT
from mnist_lab.config.overrides import quote_path
from mnist_lab.config.settings import differing_settings, to_plain
from mnist_lab.config.validate import validate
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.evaluate import make_tester, test_network
from mnist_lab.evaluation.predictions import TrainedRun
from mnist_lab.files import exists, make_folder
from mnist_lab.formatting import format_command, format_value, shorten
from mnist_lab.models.deployed import Ensemble
from mnist_lab.runs.checkpoints import SafeCheckpointIO
from mnist_lab.runs.listing import checkpoint_problem, select_runs
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
from mnist_lab.training.build import class_count, make_data, make_model
from mnist_lab.training.record import device_name
from mnist_lab.training.runtime import quiet_lightning

NAME = "ensemble"


@quiet_lightning()
def make_ensemble(found: Sequence[Run], folder: Path | None = None, runs_dir: Path = Path("runs")) -> tuple[Run, int]:
    """Write a run folder whose network averages the probabilities of other runs' networks.

    It holds their tested weights, so that the members' folders are not needed afterwards. Members and ensemble are
    tested on the whole test set, in float32, before anything is written.

    Args:
        found: two or more runs; those that are unfinished, without a checkpoint, or ensembles themselves are left out
            with a warning.
        folder: the folder to make; None for a new one below runs_dir.
        runs_dir: the folder of the runs.

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
    runs = select_runs(found, _member_problem)
    if len(runs) < 2:
        raise UsageError(f"{runs[0]}: is the only run that can be a member; give two or more")
    _require_same_data(runs)
    trained = [TrainedRun(run) for run in runs]
    cfg = _ensemble_config(trained, folder, runs_dir)
    validate(cfg)
    model = make_model(cfg)
    assert isinstance(model, Ensemble)
    tester = make_tester(cfg)
    members: list[Member] = []
    for member, each in zip(model.members, trained, strict=True):
        member.get_submodule("network").load_state_dict(each.model.state_dict())
        own = copy.deepcopy(cfg)
        own.data, info = each.run.config.data, each.run.info
        metrics = test_network(tester, own, each.model)
        members.append({"run": str(each.run), "model": info["model"], "seed": info["seed"], "metrics": metrics})
    record: RunRecord = {
        "status": RunState.FINISHED,
        "command": format_command([NAME, *map(str, runs)]),
        "model": cfg.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": cfg.seed,
        "started": started,
        "max_epochs": 0,
        "metrics": test_network(tester, cfg, model),
        "finished": current_time(),
        "seconds": {"total": time.perf_counter() - clock},
        "device": device_name(tester),
        "processor": processor_name(),
        "versions": package_versions(),
        "members": members,
    }
    return _write_run(cfg, model, record), len(make_data(cfg, model).test_set()[1])


def _member_problem(run: Run) -> str | None:
    """Return why a run cannot be a member, or None."""
    info = run.info
    if info["members"]:
        return "is an ensemble itself"
    if info["status"] != RunState.FINISHED:
        return f"is not finished (status: {info['status']})"
    return checkpoint_problem(run)


def _require_same_data(runs: Sequence[Run]) -> None:
    """Raise UsageError for runs that were trained on other images or classes than the first one."""
    for key, values in differing_settings(*(run.config for run in runs)).items():
        if DATA_CONTENT.match(key):
            i = next(i for i, value in enumerate(values) if value != values[0])
            here, there = shorten(format_value(values[i])), shorten(format_value(values[0]))
            raise UsageError(f"{runs[i]}: was trained on other data than {runs[0]} ({key}={here}, not {there})")


def _ensemble_config(trained: Sequence[TrainedRun], folder: Path | None, runs_dir: Path) -> DictConfig:
    """Return the configuration of an ensemble: the members' networks, their data, and the default settings."""
    own_dir = f"runs_dir={quote_path(runs_dir)}"
    if folder is None:
        usual = compose(own_dir)
        folder = Path(f"{usual.folder.removesuffix(usual.name)}{NAME}")
    cfg = compose(own_dir, f"hydra.run.dir={quote_path(folder)}")
    members = []
    for each in trained:
        own = each.run.config
        node = {"_target_": "mnist_lab.models.InferenceModule", "network": to_plain(own.model) | class_count(own)}
        views = {"views": to_plain(own.test_augmentation)} if own.test_augmentation else {}
        members.append(node | {"mean": each.data.mean, "std": each.data.std} | views)
    num_classes = trained[0].model.num_classes
    model = {"_target_": "mnist_lab.models.Ensemble", "members": members, "num_classes": num_classes}
    # Bytes are divided by 255 alone, because each member normalises by its own mean and std.
    data_node = to_plain(trained[0].run.config.data) | {"mean": 0.0, "std": 1.0}
    with open_dict(cfg):
        cfg.update(name=NAME, overrides=[], model=model, data=data_node, optimizer={})
        cfg.trainer.max_epochs = 0
    return cfg


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
            write_record(run.record_path, record)  # last: it makes the folder a run's
        except BaseException:
            shutil.rmtree(run.folder, ignore_errors=True)
            raise
    except OSError as error:
        raise UsageError(f"--to={run}: cannot be written ({error.strerror}); choose another") from error
    return run
