"""Runs of several processes work in a sweep, under torchrun, and as tasks of srun, by the variables that srun sets."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from lab import BATCH_SETS, SRUN_SETS, TORCHRUN_SETS, Command, Tiny, run, thorough, wait_for

from mnist_lab.config.distributed import PORTS, LaunchedProcess, launched_process, rendezvous, share_run_folder
from mnist_lab.config.validate import validate
from mnist_lab.errors import LabError, UsageError
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep

DDP = ("model=mlp", "trainer=ddp", "trainer.max_epochs=1")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "mnist_lab")


@pytest.mark.thorough
def test_jobs_of_a_sweep_are_trained_as_alone_and_one_that_dies_leaves_the_others(tiny: Tiny, command: Command) -> None:
    dies = "+callbacks.dies={_target_: instrumented.KillProcess, rank: 1, epoch: 0, seed: 2}"
    before = dict(os.environ)
    assert command("-m", "sweep=s", "seed=0,2,1", *DDP, dies).status == 1
    assert dict(os.environ) == before
    assert sys.argv[-1] == dies and "-m" in sys.argv
    jobs = Sweep(Path("runs/sweeps/s")).jobs()
    assert [job.state for job in jobs] == ["finished", "failed", "finished"]
    assert jobs[1].error in ("another process of the run died", "one of its processes died (signal 9)")
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


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere its jobs do not end with it")
def test_killed_sweep_leaves_no_process_of_its_job(tiny: Tiny) -> None:
    def alive() -> list[bytes]:
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # The process has ended meanwhile.
                lines += [path.read_bytes()]
        return [line for line in lines if b"runs/killed/" in line]

    def kill(process: subprocess.Popen[str]) -> None:
        wait_for(lambda: any(run.epochs() for run in Run.below("runs/killed")), "an epoch")
        assert len(alive()) == 2
        process.kill()

    endless = "trainer.max_epochs=100000"
    status, _ = run(tiny, "-m", "seed=0,1", "hydra.sweep.dir=runs/killed", *DDP[:2], endless, then=kill)
    assert status == -signal.SIGKILL
    wait_for(lambda: not alive(), "the ends of its processes")


@pytest.mark.thorough
def test_processes_of_torchrun_share_one_folder_and_speak_once(tiny: Tiny) -> None:
    status, out = run(tiny, *DDP, program=TORCHRUN)
    assert status == 0, out
    (made,) = Run.below("runs")
    assert out.count("run folder:") == 1
    assert (made.info["status"], len(made.epochs())) == ("finished", 1)
    assert made.info["device"].startswith("2 × cpu")
    assert (made.folder / "train_ddp_process_1.log").is_file()


@pytest.mark.parametrize(
    ("gpus", "accelerator", "devices"), [(8, "auto", 8), (8, "cpu", 2), *thorough((1, "gpu", 1), (0, "auto", 2))]
)
def test_ddp_has_a_process_for_each_gpu_or_two_on_the_cpu(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, gpus: int, accelerator: str, devices: int
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert tiny.compose("trainer=ddp", f"trainer.accelerator={accelerator}").trainer.devices == devices
    set_environment(monkeypatch, TORCHRUN_SETS)
    assert tiny.compose("trainer=ddp", "hydra.run.dir=x").trainer.devices == 3


def set_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (TORCHRUN_SETS, LaunchedProcess("torchrun", rank=1, world_size=6, local_world_size=3, machines=2)),
        (SRUN_SETS, LaunchedProcess("srun", rank=1, world_size=2, local_world_size=1, machines=2)),
        (SRUN_SETS | TORCHRUN_SETS, LaunchedProcess("torchrun", 1, 6, 3, 2)),  # srun may start torchrun.
        (SRUN_SETS | {"SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}, LaunchedProcess("srun", 1, 2, 2, 2)),
        (BATCH_SETS, None),
        (SRUN_SETS | {"SLURM_STEP_NUM_TASKS": "1"}, None),  # submitit starts its jobs like this.
    ],
)
def test_processes_of_torchrun_and_srun_are_recognised_by_their_variables(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: LaunchedProcess | None
) -> None:
    set_environment(monkeypatch, environment)
    assert launched_process() == expected


@pytest.mark.parametrize(("nodes", "first"), [("gpu[03,07-09]", "gpu03"), ("a,b", "a")])
def test_srun_tasks_meet_on_the_first_node_at_a_port(monkeypatch: pytest.MonkeyPatch, nodes: str, first: str) -> None:
    set_environment(monkeypatch, SRUN_SETS | {"SLURM_STEP_NODELIST": nodes})
    ports = []
    for job, step in (("7", "0"), ("7", "1"), ("8", "0"), ("123456789", "0")):
        set_environment(monkeypatch, {"SLURM_JOB_ID": job, "SLURM_STEP_ID": step})
        host, port = rendezvous()
        assert host == first
        ports.append(port)
    assert len(set(ports)) == 4 and set(ports) <= set(PORTS)
    set_environment(monkeypatch, {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4711"})
    assert rendezvous() == ("10.0.0.1", 4711)


def test_number_of_srun_tasks_decides_and_any_other_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, SRUN_SETS)
    cfg = tiny.compose("model=mlp", "trainer=ddp", "hydra.run.dir=x")
    assert (cfg.trainer.devices, cfg.trainer.num_nodes) == (1, 2)
    validate(cfg)
    with pytest.raises(UsageError, match=r"trainer\.devices=1: srun launched 2 processes; trainer=ddp"):
        validate(tiny.compose("model=mlp", "hydra.run.dir=x"))
    with pytest.raises(UsageError, match="-m: not supported where several processes are started"):
        share_run_folder(sweep=True)
    set_environment(monkeypatch, {"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1"})
    with pytest.raises(UsageError, match="srun launched 3 processes on 2 machines; each machine needs the same"):
        validate(tiny.compose("model=mlp", "trainer=ddp", "hydra.run.dir=x"))


def test_port_in_use_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        set_environment(monkeypatch, SRUN_SETS | {"SLURM_PROCID": "0", "MASTER_ADDR": "localhost"})
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(LabError, match=f"MASTER_PORT={port}: in use on localhost; set MASTER_PORT to a free port"):
            share_run_folder(sweep=False)


@pytest.mark.parametrize(
    ("name", "number", "lines"), [("RANK", "1", 0), ("SLURM_PROCID", "1", 0), ("SLURM_PROCID", "0", 1)]
)
def test_error_of_a_run_of_several_processes_is_printed_by_the_first(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, number: str, lines: int
) -> None:
    monkeypatch.setenv(name, number)
    outcome = command("test", "nowhere", data=False)
    assert (outcome.status, outcome.err.count("\n")) == (2, lines)
