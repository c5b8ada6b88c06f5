"""Experiment trackers: what arrives in an MLflow store and on its page, and in the offline folder of W&B."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lab import Command, Tiny
from lightning.pytorch import Callback, LightningModule, Trainer
from mlflow import MlflowClient
from mlflow.entities import Run as Remote
from playwright.sync_api import expect, sync_playwright

from mnist_lab.runs.run import Run
from mnist_lab.training.train import train

CHROMIUM = shutil.which("chromium")
RUN = Path("runs/a")
# MLflow's own use of its packages is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
QUICK = ("model=mlp", f"hydra.run.dir={RUN}", "logger=mlflow")


class FailAt(Callback):
    """Fails after a step, when points beyond the last checkpoint have been sent; or is interrupted there."""

    def __init__(self, step: int, *, interrupted: bool = False) -> None:
        self.step, self.interrupted = step, interrupted

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step >= self.step:
            raise KeyboardInterrupt if self.interrupted else RuntimeError("as the test wants it")


class StopServer(Callback):
    """Ends a server after a step."""

    process: subprocess.Popen[bytes]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            os.killpg(StopServer.process.pid, signal.SIGKILL)  # the server, and the process of its page
            StopServer.process.wait()


FAIL = ("+callbacks.fail._target_=test_trackers.FailAt", "+callbacks.fail.step=20", "steps_per_execution=1")


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "true")
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def database(path: str = "runs/mlflow.db") -> str:
    """The address of a database: MLflow keeps one open by its name, and each test has another folder."""
    return f"sqlite:///{Path(path).absolute()}"


def remote_runs(store: str | None = None) -> list[Remote]:
    store = store or database()
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("mnist_lab")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def points(remote: Remote, store: str | None = None) -> dict[str, list[tuple[int, float]]]:
    """All points of a run in MLflow's store, by metric."""
    client = MlflowClient(store or database())
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(remote.info.run_id, name))
        for name in remote.data.metrics
    }


def curves(run: Run, *without: str) -> dict[str, list[tuple[int, float]]]:
    """All points of metrics.csv, by metric."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in run.metrics():
        for name, value in row.items():
            if name not in ("step", *without):
                found.setdefault(name, []).append((int(row["step"]), value))
    return found


def only_final(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name.startswith("final/")}


def without_final(found: dict[str, Any], *more: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if not name.startswith("final/") and name not in more}


def test_settings_metrics_figures_and_checkpoint_arrive_in_a_database_beside_the_runs(command: Command) -> None:
    outcome = command(*QUICK, "optimizer.lr=0.07", "figures=true")
    assert (outcome.status, outcome.err) == (0, "")
    (remote,) = remote_runs()
    run = Run(RUN)
    assert remote.info.status == "FINISHED" and remote.info.run_name == "a"
    assert run.info["trackers"] == {"mlflow": remote.info.run_id}
    assert without_final(points(remote)) == curves(run)
    finals = {f"final/{name}": value for name, value in run.info["metrics"].items()}
    assert only_final(remote.data.metrics) == pytest.approx(finals)
    params = remote.data.params
    assert (params["model"], params["optimizer.lr"], params["trainer.max_epochs"]) == ("mlp", "0.07", "2")
    assert "folder" not in params and not any(name.startswith("logger") for name in params)
    assert remote.data.tags["mlflow.note.content"] == run.info["command"]
    client = MlflowClient(database())
    here = Path(client.download_artifacts(remote.info.run_id, ""))
    assert (here / "checkpoints/best.ckpt").read_bytes() == run.chosen_checkpoint().read_bytes()
    assert {path.name for path in (here / "figures").iterdir()} == {path.name for path in run.figures_folder.iterdir()}
    assert (here / "config.yaml").read_text() == run.config_path.read_text()
    assert here.is_relative_to(Path("runs/mlartifacts").absolute())


def test_failed_and_resumed_run_is_one_run_there_with_each_point_once(tiny: Tiny, command: Command) -> None:
    assert command(*QUICK, *FAIL).status != 0
    (remote,) = remote_runs()
    assert remote.info.status == "FAILED"
    sent = points(remote)
    assert max(step for step, _ in sent["train/loss_step"]) > json.loads((RUN / "run.json").read_text())["steps"]
    outcome = command(f"resume={RUN}", "callbacks.fail=null")
    assert outcome.status == 0 and "warning" not in outcome.err
    (remote,) = remote_runs()
    assert remote.info.status == "FINISHED"
    assert without_final(points(remote), "images_per_second") == curves(Run(RUN), "images_per_second")
    assert command("model=mlp", "hydra.run.dir=runs/b", "logger=csv", "steps_per_execution=1").status == 0
    undisturbed = curves(Run(Path("runs/b")), "images_per_second")
    assert curves(Run(RUN), "images_per_second") == undisturbed


@pytest.mark.slow
def test_interrupted_run_is_killed_there_and_finished_once_it_was_resumed(command: Command) -> None:
    assert command(*QUICK, *FAIL, "+callbacks.fail.interrupted=true").status == 130
    assert [remote.info.status for remote in remote_runs()] == ["KILLED"]
    assert command(f"resume={RUN}", "callbacks.fail=null").status == 0
    assert [remote.info.status for remote in remote_runs()] == ["FINISHED"]


@pytest.mark.slow
def test_resumed_run_that_mlflow_does_not_know_gets_its_whole_history_there(command: Command) -> None:
    command("model=mlp", f"hydra.run.dir={RUN}")
    assert command(f"resume={RUN}", "trainer.max_epochs=3", "logger=mlflow").status == 0
    assert command(f"resume={RUN}", "trainer.max_epochs=4", "logger.mlflow.tracking_uri=sqlite:///other.db").status == 0
    for store, epochs in ((database(), 3), (database("other.db"), 4)):
        (remote,) = remote_runs(store)
        assert len(points(remote, store)["train/loss"]) == epochs


@pytest.mark.slow
def test_resume_with_more_epochs_keeps_mlflow_parameters_of_the_first_start(command: Command) -> None:
    command(*QUICK)
    outcome = command(f"resume={RUN}", "trainer.max_epochs=3")
    assert (outcome.status, outcome.err) == (0, "")
    (remote,) = remote_runs()
    assert remote.data.params["trainer.max_epochs"] == "2"
    assert len(points(remote)["train/loss"]) == 3


@pytest.mark.slow
def test_jobs_of_a_sweep_side_by_side_are_runs_of_their_own_with_the_name_of_the_sweep(command: Command) -> None:
    sweep = ("-m", "model=mlp", "optimizer.lr=0.1,0.01", "seed=0,1", "sweep=s", "logger=[tensorboard,mlflow]")
    outcome = command(*sweep, "hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    assert outcome.status == 0 and "warning" not in outcome.err
    assert re.search(r"best, test accuracy .* 'logger=\[tensorboard,mlflow\]'", outcome.out)
    found = remote_runs()
    assert {remote.data.tags["sweep"] for remote in found} == {"s"}
    assert sorted((remote.data.params["optimizer.lr"], remote.data.params["seed"]) for remote in found) == [
        ("0.01", "0"),
        ("0.01", "1"),
        ("0.1", "0"),
        ("0.1", "1"),
    ]
    assert command(*sweep).status == 0 and len(remote_runs()) == 4
    assert all(Run(Path(remote.data.tags["folder"])).event_paths for remote in found)


@pytest.mark.slow
def test_paused_job_is_scheduled_there_until_it_continues(command: Command) -> None:
    halving = ("-m", "model=mlp", "optimizer.lr=0.3,0.0001", "sweep=s", "logger=mlflow", "hydra/sweeper=halving")
    rungs = ("hydra.sweeper.min_epochs=1", "hydra.sweeper.eta=2", "trainer.max_epochs=2")
    assert command(*halving, *rungs).status == 0
    assert sorted((run.info.status, len(points(run)["train/loss"])) for run in remote_runs()) == [
        ("FINISHED", 2),
        ("SCHEDULED", 1),
    ]


@pytest.mark.parametrize("uri", ["http://teacher:secret@127.0.0.1:9", "sqlite:////dev/null/x.db"])
def test_store_that_cannot_be_used_is_told_in_one_line_before_anything_is_made(command: Command, uri: str) -> None:
    outcome = command(*QUICK, f"logger.mlflow.tracking_uri={uri}")
    assert outcome.status == 2 and outcome.out == ""
    assert outcome.err.startswith("mnist_lab: logger.mlflow.tracking_uri=") and outcome.err.count("\n") == 1
    assert "secret" not in outcome.err
    assert not RUN.exists()


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_package_that_is_not_installed_is_told(command: Command, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    outcome = command("model=mlp", f"logger={package}")
    assert outcome.status == 2 and f"pip install '{package}'" in outcome.err
    assert not Path("runs").exists()


@dataclass
class Server:
    address: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def server(tiny: Tiny) -> Iterator[Server]:
    """An MLflow server with a database and artifacts of its own, in the current folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ("--backend-store-uri", "sqlite:///server.db", "--port", str(port), "--workers", "1")
    program = [sys.executable, "-m", "mlflow", "server", *options]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        try:
            yield Server(address, process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_page_of_mlflow_shows_run_settings_metrics_and_figures(
    command: Command, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CHROMIUM, "this test needs chromium"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    assert command(*QUICK, "figures=true").status == 0
    assert not Path("runs/mlflow.db").exists()
    (remote,) = remote_runs(server.address)
    assert server.address not in (RUN / "config.yaml").read_text()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{server.address}/#/experiments/{remote.info.experiment_id}/runs/{remote.info.run_id}")
        expect(page.get_by_text("optimizer.lr", exact=True)).to_be_visible(timeout=60_000)
        expect(page.get_by_text("final/test/acc", exact=True)).to_be_visible()
        page.goto(
            f"{server.address}/#/experiments/{remote.info.experiment_id}/runs/{remote.info.run_id}/artifacts/figures/confusion.png"
        )
        expect(page.locator("img[src^='blob:'], img[src*='confusion']").first).to_be_visible(timeout=60_000)
        browser.close()


@pytest.mark.slow
def test_server_that_dies_in_mid_training_does_not_end_it_and_gets_the_rest_later(
    command: Command, server: Server
) -> None:
    StopServer.process = server.process
    stop = "+callbacks.stop._target_=test_trackers.StopServer"
    outcome = command(*QUICK, f"logger.mlflow.tracking_uri={server.address}", stop)
    assert outcome.status == 0 and Run(RUN).info["status"] == "finished"
    assert outcome.err.count("warning: logger.mlflow") == 1
    more = ("trainer.max_epochs=3", "callbacks.stop=null", "logger.mlflow.tracking_uri=sqlite:///server.db")
    assert command(f"resume={RUN}", *more).status == 0
    (remote,) = remote_runs(database("server.db"))
    assert len(points(remote, database("server.db"))["train/loss"]) == 3


def offline_records(folder: Path) -> list[Any]:
    """The records that `wandb sync` would send from the only offline run of a run folder.

    The file is a log of LevelDB's form behind seven bytes: blocks of 32 kB with pieces of records, each behind its
    checksum (4 bytes), length (2) and type (1: whole, 2: first, 3: middle, 4: last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    content, at, parts, records = path.read_bytes(), 7, b"", []
    while at + 7 < len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            records.append(Record.FromString(parts))
            parts = b""
    return records


def offline_points(records: list[Any]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                if not name.startswith(("_", "figures/")) and name != "step":
                    found.setdefault(name, []).append((row["step"], math.nan if value == "NaN" else value))
    return found


def test_offline_folder_of_wandb_has_settings_metrics_figures_and_checkpoint(command: Command) -> None:
    outcome = command("model=mlp", f"hydra.run.dir={RUN}", "logger=wandb", "optimizer.lr=0.07", "figures=true")
    assert (outcome.status, outcome.err) == (0, "")
    records = offline_records(RUN)
    assert without_final(offline_points(records)) == curves(Run(RUN))
    (started,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
    settings = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert (started.project, started.display_name, started.run_id) == (
        "mnist_lab",
        "a",
        Run(RUN).info["trackers"]["wandb"],
    )
    assert (settings["model"], settings["optimizer.lr"]) == ("mlp", 0.07)
    ended = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    assert ended == [0]
    media = {path.name.split("_")[0] for path in (RUN / "wandb").glob("offline-run-*/files/media/images/figures/*")}
    assert {"confusion", "loss", "accuracy"} <= media
    artifacts = [record for record in records if "artifact" in str(record)[:400]]
    assert artifacts


def test_resumed_run_of_wandb_offline_has_its_whole_history_in_one_folder(command: Command) -> None:
    assert command("model=mlp", f"hydra.run.dir={RUN}", "logger=wandb", *FAIL).status != 0
    first = offline_records(RUN)
    assert [record.exit.exit_code for record in first if record.WhichOneof("record_type") == "exit"] == [1]
    known = Run(RUN).info["trackers"]
    assert command(f"resume={RUN}", "callbacks.fail=null").status == 0
    assert Run(RUN).info["trackers"] == known
    assert without_final(offline_points(offline_records(RUN))) == curves(Run(RUN))


def test_jobs_of_a_sweep_are_a_group_of_wandb(command: Command) -> None:
    assert command("-m", "model=mlp", "optimizer.lr=0.1,0.01", "sweep=s", "logger=[csv,wandb]").status == 0
    groups = []
    for run in Run.below("runs/sweeps/s"):
        (started,) = (record.run for record in offline_records(run.folder) if record.WhichOneof("record_type") == "run")
        groups.append(started.run_group)
    assert groups == ["s", "s"]


@pytest.mark.slow
def test_nothing_of_a_tracker_is_left_in_the_process(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    before = dict(os.environ)
    train(tiny.compose("model=mlp", "logger=[mlflow,wandb]", f"hydra.run.dir={RUN}"))
    assert dict(os.environ) == before
    assert wandb.run is None
