"""Runs of several processes: in a sweep, and under torchrun; SLURM's srun is not tried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Outcome, Tiny, run
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.config.distributed import share_run_folder
from mnist_lab.config.validate import validate
from mnist_lab.errors import UsageError
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep

Command = Callable[..., Outcome]
DDP = ("model=mlp", "trainer=ddp", "trainer.max_epochs=1")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "mnist_lab")


class SecondProcessDies(Callback):
    """Of the job with seed 2, the second process is killed."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.datamodule.seed == 2 and trainer.global_rank == 1:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_jobs_of_a_sweep_are_trained_once_each_as_alone_and_one_that_dies_leaves_the_others(
    tiny: Tiny, command: Command
) -> None:
    dies = "+callbacks.dies._target_=test_distributed.SecondProcessDies"
    before = dict(os.environ)
    outcome = command("-m", "sweep=s", "seed=0,2,1", *DDP, dies)
    assert outcome.status == 1, outcome.err
    assert dict(os.environ) == before
    assert sys.argv[-1] == dies and "-m" in sys.argv
    jobs = Sweep(Path("runs/sweeps/s")).jobs()
    assert [job.state for job in jobs] == ["finished", "failed", "finished"]
    assert jobs[1].error  # gloo's word, or that Lightning killed the first process
    assert sorted(Path("runs").rglob("run.json")) == sorted(Path("runs/sweeps/s").glob("*/run.json"))
    assert [path.name for path in Path("runs/sweeps").iterdir()] == ["s"]
    assert [job.attempts for job in jobs] == [1, 1, 1]
    (ranked,) = json.loads(Path("runs/sweeps/s/results.json").read_text())["ranked"]
    assert ranked["jobs"] == 2
    for job in (jobs[0], jobs[2]):
        assert job.info["device"].startswith("2 × cpu")
        assert len(Run(job.folder).epochs()) == 1
    assert run(tiny, "seed=1", *DDP, "hydra.run.dir=alone")[0] == 0
    assert Run(Path("alone")).info["metrics"] == jobs[2].info["metrics"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere its jobs are not told")
def test_killed_sweep_leaves_no_process_of_its_job(tiny: Tiny) -> None:
    def alive() -> list[bytes]:
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended meanwhile
                lines += [path.read_bytes()]
        return [line for line in lines if b"runs/killed/" in line]

    def kill(process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until and not any(run.epochs() for run in Run.below("runs/killed")):
            time.sleep(0.05)
        assert len(alive()) == 2
        process.kill()

    endless = "trainer.max_epochs=100000"
    status, _ = run(tiny, "-m", "seed=0,1", "hydra.sweep.dir=runs/killed", *DDP[:2], endless, then=kill)
    assert status == -signal.SIGKILL
    until = time.monotonic() + 60
    while alive() and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive()


@pytest.mark.slow
def test_processes_of_torchrun_share_one_folder_and_speak_once(tiny: Tiny) -> None:
    status, out = run(tiny, *DDP, program=TORCHRUN)
    assert status == 0, out
    (made,) = Run.below("runs")
    assert out.count("run folder:") == 1
    assert (made.info["status"], len(made.epochs())) == ("finished", 1)
    assert made.info["device"].startswith("2 × cpu")
    assert (made.folder / "train_ddp_process_1.log").is_file()


@pytest.mark.parametrize(
    ("gpus", "accelerator", "devices"), [(8, "auto", 8), (1, "gpu", 1), (8, "cpu", 2), (0, "auto", 2)]
)
def test_ddp_has_a_process_for_each_gpu_or_two_on_the_cpu(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, gpus: int, accelerator: str, devices: int
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert tiny.compose("trainer=ddp", f"trainer.accelerator={accelerator}").trainer.devices == devices
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert tiny.compose("trainer=ddp").trainer.devices == 3


def test_sweep_under_torchrun_and_other_numbers_of_devices_are_refused(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="-m: not supported where several processes are started"):
        share_run_folder(["seed=0,1"], sweep=True)
    with pytest.raises(UsageError, match=r"trainer\.devices=1: torchrun started 3 processes; trainer=ddp"):
        validate(tiny.compose("model=mlp", "hydra.run.dir=x"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    validate(tiny.compose("model=mlp", "trainer=ddp", "hydra.run.dir=x"))


def test_srun_without_a_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(UsageError, match=r"srun: its processes need one folder; add hydra\.run\.dir="):
        share_run_folder(["trainer=ddp"], sweep=False)
    given = ["trainer=ddp", "hydra.run.dir=x"]
    assert share_run_folder(given, sweep=False) == [*given, "hydra.job.name=train_ddp_process_1"]


@pytest.mark.parametrize(
    ("name", "number", "lines"), [("RANK", "1", 0), ("SLURM_PROCID", "1", 0), ("SLURM_PROCID", "0", 1)]
)
def test_error_of_a_run_of_several_processes_is_printed_by_the_first(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, name: str, number: str, lines: int
) -> None:
    monkeypatch.setenv(name, number)
    outcome = command("test", "nowhere", data=False)
    assert (outcome.status, outcome.err.count("\n")) == (2, lines)
