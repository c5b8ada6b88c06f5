"""Experiment trackers: what an MLflow store receives, and what is sent to W&B."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest
from lab import Command, Tiny, assert_refused, thorough

from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.training.trackers import WandB
from mnist_lab.training.train import train

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Remote

RUN = Path("runs/a")
# These warnings are caused within MLflow.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
QUICK = ("model=mlp", f"hydra.run.dir={RUN}", "logger=mlflow")
Points = dict[str, set[tuple[int, float]]]
FAIL = "+callbacks.fail={{_target_: test_failures.Fault, kind: {}, step: 20}}"


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "true")
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def remote_runs(store: str = "") -> tuple[MlflowClient, list[Remote]]:
    from mlflow import MlflowClient

    client = MlflowClient(store or f"sqlite:///{Path('runs/mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("mnist_lab")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def points(client: MlflowClient, remote: Remote) -> Points:
    """Return all points of a run in MLflow's store, by metric; Lightning sends some twice."""
    names = [name for name in remote.data.metrics if not name.startswith("final/")]
    history = {name: client.get_metric_history(remote.info.run_id, name) for name in names}
    return {name: {(point.step, point.value) for point in found} for name, found in history.items()}


def curves(run: Run, *without: str) -> Points:
    """Return all points of metrics.csv, by metric."""
    found: Points = {}
    for row in run.metrics():
        for name in row.keys() - {"step", *without}:
            found.setdefault(name, set()).add((int(row["step"]), row[name]))
    return found


@pytest.mark.slow
def test_settings_metrics_and_checkpoint_arrive_in_a_database_beside_the_runs(command: Command) -> None:
    outcome = command(*QUICK, "optimizer.lr=0.07")
    assert (outcome.status, outcome.err) == (0, "")
    client, (remote,) = remote_runs()
    run = Run(RUN)
    assert remote.info.status == "FINISHED" and remote.info.run_name == "a"
    assert run.info["trackers"] == {"mlflow": remote.info.run_id}
    assert points(client, remote) == curves(run)
    finals = {name: remote.data.metrics[f"final/{name}"] for name in run.info["metrics"]}
    assert finals == pytest.approx(run.info["metrics"])
    params = remote.data.params
    assert (params["model"], params["optimizer.lr"], params["trainer.max_epochs"]) == ("mlp", "0.07", "2")
    assert "folder" not in params and not any(name.startswith("logger") for name in params)
    here = Path(client.download_artifacts(remote.info.run_id, ""))
    assert (here / "checkpoints/best.ckpt").read_bytes() == run.chosen_checkpoint().read_bytes()
    assert here.is_relative_to(Path("runs/mlartifacts").absolute())


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "status"), [("crash", "FAILED"), *thorough(("Ctrl-C", "KILLED"))])
def test_run_that_ended_early_is_continued_by_its_id_and_finished(command: Command, fault: str, status: str) -> None:
    assert command(*QUICK, FAIL.format(fault)).status != 0
    client, (before,) = remote_runs()
    assert before.info.status == status
    outcome = command(f"resume={RUN}", "~callbacks.fail", "trainer.max_epochs=3")
    assert (outcome.status, outcome.err) == (0, "")
    _, (after,) = remote_runs()
    assert (after.info.status, after.info.run_id) == ("FINISHED", before.info.run_id)
    assert after.data.params == before.data.params
    # Repeated steps have the same values, but not the same speed.
    sent = points(client, after)
    assert sent.pop("images_per_second") and sent == curves(Run(RUN), "images_per_second")


@pytest.mark.slow
def test_jobs_of_a_sweep_side_by_side_have_its_name_and_a_paused_one_is_scheduled(command: Command) -> None:
    halving = ("-m", "model=mlp", "optimizer.lr=0.3,0.0001", "sweep=s", "logger=[tensorboard,mlflow]")
    rungs = ("hydra/sweeper=halving", "hydra.sweeper.min_epochs=1", "hydra.sweeper.eta=2", "trainer.max_epochs=2")
    outcome = command(*halving, *rungs, "hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    assert outcome.status == 0 and "warning" not in outcome.err
    client, found = remote_runs()
    assert {remote.data.tags["sweep"] for remote in found} == {"s"}
    states = sorted((run.info.status, len(points(client, run)["train/loss"])) for run in found)
    assert states == [("FINISHED", 2), ("SCHEDULED", 1)]


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["http://teacher:secret@127.0.0.1:9", *thorough("sqlite:////dev/null/x.db")])
def test_store_that_cannot_be_used_is_reported_before_anything_is_made(command: Command, uri: str) -> None:
    outcome = command(*QUICK, f"logger.mlflow.tracking_uri={uri}")
    assert_refused(outcome, "logger.mlflow.tracking_uri=")
    assert "secret" not in outcome.err and outcome.out == ""
    assert not RUN.exists()


@pytest.mark.slow
def test_store_that_fails_in_training_causes_one_warning(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    log_batch, sent = MlflowClient.log_batch, count()

    def fail(*args: Any, **options: Any) -> None:
        if next(sent) >= 3:
            raise ConnectionError("http://teacher:secret@somewhere is gone")
        log_batch(*args, **options)

    store = f"sqlite:///{Path('own.db').absolute()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setattr(MlflowClient, "log_batch", fail)
    outcome = command(*QUICK)
    assert outcome.status == 0 and Run(RUN).info["status"] == "finished"
    assert outcome.err.count("warning: logger.mlflow") == outcome.err.count("\n") == 1 and "secret" not in outcome.err
    assert not Path("runs/mlflow.db").exists() and "own.db" not in (RUN / "config.yaml").read_text()
    _, (remote,) = remote_runs(store)
    assert remote.data.params["optimizer.lr"] and remote.data.metrics


@pytest.fixture
def wandb_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], MagicMock]]:
    """Record the runs that W&B is asked to start: the arguments of wandb.init, and a run that records its calls."""
    started: list[tuple[dict[str, Any], MagicMock]] = []

    def init(**settings: Any) -> MagicMock:
        started.append((settings, MagicMock(id=f"id{len(started)}")))
        return started[-1][1]

    monkeypatch.setattr("wandb.init", init)
    return started


@pytest.mark.slow
def test_wandb_gets_settings_metrics_and_checkpoint_and_a_resumed_offline_run_is_a_new_one(
    command: Command, wandb_runs: list[tuple[dict[str, Any], MagicMock]]
) -> None:
    run, own = Run(RUN), ("optimizer.lr=0.07", FAIL.format("crash"))
    assert command("model=mlp", f"hydra.run.dir={RUN}", "logger=wandb", *own).status != 0
    assert run.info["trackers"] == {"wandb": "id0"}
    assert command(f"resume={RUN}", "~callbacks.fail").status == 0
    assert run.info["trackers"] == {"wandb": "id1"}
    for settings, remote in wandb_runs:
        expected = {"project": "mnist_lab", "name": "a", "group": "a", "mode": "offline", "id": None}
        assert settings.items() >= expected.items()
        assert remote.config.update.call_args.args[0].items() >= {"model": "mlp", "optimizer.lr": 0.07}.items()
    (_, failed), (_, finished) = wandb_runs
    failed.finish.assert_called_once_with(exit_code=1)
    finished.finish.assert_called_once_with(exit_code=0)
    rows = [call.args[0] for remote in (failed, finished) for call in remote.log.call_args_list]
    for name, points in curves(run, "images_per_second").items():
        assert {(row["trainer/global_step"], row[name]) for row in rows if name in row} == points
    (artifact,) = finished.log_artifact.call_args.args
    assert not failed.log_artifact.called and list(artifact.manifest.entries) == ["best.ckpt"]
    assert command(f"resume={RUN}", "trainer.max_epochs=3", "logger.wandb.mode=disabled").status == 0
    assert wandb_runs[2][0]["id"] == "id1"


def test_sweeps_jobs_are_a_group_of_wandb(tmp_path: Path, wandb_runs: list[tuple[dict[str, Any], MagicMock]]) -> None:
    Sweep.open(tmp_path / "s", "", [], {})
    _ = WandB(str(tmp_path / "s" / "job")).experiment
    assert wandb_runs[0][0]["group"] == "s"


@pytest.mark.slow
def test_nothing_of_a_tracker_is_left_in_the_process(tiny: Tiny) -> None:
    import mlflow
    import wandb

    before = dict(os.environ)
    train(tiny.compose("model=mlp", "logger=[mlflow,wandb]", f"hydra.run.dir={RUN}"))
    assert dict(os.environ) == before and not mlflow.is_tracking_uri_set()
    assert wandb.run is None and list((RUN / "wandb").glob("offline-run-*/*.wandb"))
