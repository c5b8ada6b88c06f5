"""Jobs that train together leave what each leaves when it trains alone."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lab import Command, Tiny, run, slow
from torch import Tensor

from mnist_lab.models.mlp import MLP
from mnist_lab.models.stacked import Stack
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep

SWEEPS = Path("runs/sweeps")
STACKED = "hydra/launcher=stacked"
GRID = ("-m", "model=mlp", "optimizer.lr=0.01,0.02", "optimizer.momentum=0,0.9", "seed=0,1", "threads=1")


class FunctionalDropout(MLP):
    """Dropout that is no layer, and so is noticed only in training."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, training=self.training))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of networks whose steps were taken at once, each time that was done."""
    taken: list[int] = []
    take_steps = Stack.take_steps

    def noted(stack: Stack) -> Any:
        taken.append(len(stack.members))
        return take_steps(stack)

    monkeypatch.setattr(Stack, "take_steps", noted)
    return taken


def jobs(name: str) -> dict[str, Job]:
    return {job.id: job for job in Sweep(SWEEPS / name).jobs()}


def table(name: str) -> list[dict[str, Any]]:
    """A sweep's results, without what its roundings and its speed change."""
    results = json.loads(Sweep(SWEEPS / name).results_json.read_text())
    numbers = {"seconds", "train/loss", "val/loss", "test/loss"}
    return [{key: job[key] for key in job.keys() - numbers} for job in results["jobs"]]


def checkpoint(job: Job) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(job.folder / "checkpoints" / "last.ckpt", weights_only=True)
    return content


def assert_close(one: Any, other: Any) -> None:
    """Compare everything in two checkpoints, numbers up to the rounding of float32."""
    if isinstance(one, torch.Tensor) and one.is_floating_point():
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            if not str(key).startswith(("ModelCheckpoint", "ElapsedTime")) and key not in (
                "metrics_crc",  # of digits
                "best_model_path",
            ):
                assert_close(one[key], other[key])
    elif isinstance(one, list | tuple):
        for pair in zip(one, other, strict=True):
            assert_close(*pair)
    else:
        assert one == (pytest.approx(other, rel=1e-4) if isinstance(one, float) else other)


def test_jobs_leave_the_folders_curves_and_checkpoints_that_they_leave_alone(
    command: Command, sizes: list[int]
) -> None:
    assert command(*GRID, "sweep=alone").status == 0
    assert not sizes
    outcome = command(*GRID, "sweep=stacked", STACKED)
    assert (outcome.status, outcome.err) == (0, "")
    assert sum(sizes) >= 8 * 2
    together, alone = jobs("stacked"), jobs("alone")
    assert together.keys() == alone.keys()
    for id, job in alone.items():
        mine = together[id]
        names = [
            sorted(path.name for path in each.folder.rglob("*") if "tfevents" not in path.name) for each in (mine, job)
        ]
        assert names[0] == names[1]
        assert len(list(mine.folder.glob("*tfevents*"))) == len(list(job.folder.glob("*tfevents*")))
        rows = [[row | {"images_per_second": 0.0} for row in Run(each.folder).metrics()] for each in (mine, job)]
        assert rows[0] == [pytest.approx(row, rel=1e-4) for row in rows[1]]
        assert_close(checkpoint(mine), checkpoint(job))
        kept = ("model", "parameters", "seed", "epochs", "steps", "device", "max_epochs", "status", "error")
        assert [mine.info.get(key) for key in kept] == [job.info.get(key) for key in kept]
        log = Run(mine.folder).log_path.read_text()
        assert log.count("max_epochs=2") == 1, log  # its own, and nobody else's
    assert table("stacked") == table("alone")


@pytest.mark.parametrize(
    "settings",
    [
        ["model=mlp", "scheduler=onecycle"],
        ["model=mlp", "optimizer=adam", "optimizer.lr=0.001,0.002"],
        *slow(
            ["model=dropout_cnn"],
            ["model=mlp", "callbacks=ema"],
            ["model=mlp", "callbacks.checkpoint.every_n_train_steps=3"],
            ["model=mlp", "steps_per_execution=1", "+trainer.gradient_clip_val=1"],
            ["model=mlp", "+model._target_=test_stacked.FunctionalDropout"],
        ),
    ],
    ids=" ".join,
)
def test_jobs_that_cannot_be_stacked_run_as_usual(command: Command, sizes: list[int], settings: list[str]) -> None:
    settings = [setting.replace("+model._target_", "++model._target_") for setting in settings]
    for name, launcher in (("alone", "local"), ("stacked", "stacked")):
        outcome = command("-m", *settings, "seed=0,1", "threads=1", f"sweep={name}", f"hydra/launcher={launcher}")
        assert outcome.status == 0, outcome
    assert not sizes
    for id, job in jobs("alone").items():
        mine, theirs = checkpoint(jobs("stacked")[id])["state_dict"], checkpoint(job)["state_dict"]
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_jobs_that_differ_in_other_settings_are_stacked_apart(command: Command, sizes: list[int]) -> None:
    grid = ("-m", "model=mlp,dropout_cnn", "data.batch_size=16,20", "seed=0,1,2", "trainer.max_epochs=1", "sweep=s")
    assert command(*grid, STACKED).status == 0
    assert sizes == [3, 3]
    assert {job.state for job in jobs("s").values()} == {"finished"}


def test_job_that_diverges_fails_as_alone_and_disturbs_no_other(command: Command, sizes: list[int]) -> None:
    grid = ("-m", "model=mlp", "optimizer.lr=0.01,1e30,0.02", "threads=1")
    for name, launcher in (("alone", "local"), ("stacked", "stacked")):
        assert command(*grid, f"sweep={name}", f"hydra/launcher={launcher}").status == 1
    assert sizes
    states = [job.state for job in jobs("stacked").values()]
    assert states == ["finished", "failed", "finished"]
    for id, job in jobs("alone").items():
        mine = jobs("stacked")[id]
        assert (mine.error or "").replace("sweeps/stacked", "") == (job.error or "").replace("sweeps/alone", "")
        assert len(Run(mine.folder).metrics()) == len(Run(job.folder).metrics())
        if job.state == "finished":
            assert_close(checkpoint(mine)["state_dict"], checkpoint(job)["state_dict"])


def test_retries_and_pauses_work_within_a_stack(command: Command, sizes: list[int]) -> None:
    halving = ("-m", "hydra/sweeper=halving", "hydra.sweeper.n_candidates=4", "optimizer.lr=interval(0.001,0.1)")
    assert command(*halving, "model=mlp", "trainer.max_epochs=4", "sweep=s", STACKED, "retries=1").status == 0
    assert max(sizes) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_stopped_sweep_continues_to_the_weights_of_an_undisturbed_one(
    tiny: Tiny, sent: signal.Signals, status: int
) -> None:
    grid = ("-m", "model=mlp", "seed=0,1", "optimizer.lr=0.01,0.02", "trainer.max_epochs=150", "logger=csv", STACKED)

    def stop(process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            runs = Run.below(SWEEPS / "s") if (SWEEPS / "s").exists() else []
            if len(runs) == 4 and all(len(run.epochs()) >= 2 for run in runs):
                process.send_signal(sent)
                return
            time.sleep(0.02)

    ended, out = run(tiny, *grid, "sweep=s", then=stop)
    assert ended == status, out
    assert "Traceback" not in out, out
    state = "killed" if sent == signal.SIGKILL else "interrupted"
    assert {job.state for job in jobs("s").values()} == {state}
    assert run(tiny, *grid, "sweep=s")[0] == 0
    assert run(tiny, *grid, "sweep=undisturbed")[0] == 0
    for id, job in jobs("undisturbed").items():
        mine = jobs("s")[id]
        assert mine.info["steps"] == job.info["steps"]
        assert [row["epoch"] for row in mine.epochs] == [row["epoch"] for row in job.epochs]
        ours, theirs = checkpoint(mine)["state_dict"], checkpoint(job)["state_dict"]
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
