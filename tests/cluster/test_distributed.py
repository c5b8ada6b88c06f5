"""Distributed runs over two machines: torchrun over two network namespaces, srun over two nodes of a SLURM."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from instrumented import assert_each_image_is_seen_once_an_epoch
from lab import TRAIN, Tiny, run, same, thorough, tiny_data, wait_for, weights
from slurm import Slurm, free_port

from mnist_lab.runs.record import RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep

pytest_plugins = ["engines"]
pytestmark = pytest.mark.xdist_group("distributed")
PROGRAM = ("-m", "mnist_lab")
SETTINGS = ("model=mlp", "model._target_=instrumented.Spy", "trainer=ddp", "trainer.max_epochs=3", "optimizer.lr=0.1")
Launch = Callable[..., list[tuple[int, str]]]  # Returns exit status and output of each command.


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two processes that Lightning starts on one machine, whose result the others must have."""
    tiny = tiny_data(tmp_path_factory.mktemp("alone"))
    overrides = ["data=tiny", "trainer.accelerator=cpu", "trainer.log_every_n_steps=4", "figures=false"]
    status, out = run(tiny, *overrides, *SETTINGS, f"hydra.run.dir={tiny.folder}/run")
    assert status == 0, out
    return Run(tiny.folder / "run")


def arguments_of(tiny: Tiny, arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments of a new run on the tiny data set, or of a resumed one, unchanged."""
    return arguments if "resume=" in " ".join(arguments) else tiny.arguments(*arguments)


def run_together(*commands: Sequence[str]) -> list[tuple[int, str]]:
    """Run commands at the same time; return exit status and output of each."""
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=90)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, out) for process, out in zip(processes, outputs, strict=True)]


@contextmanager
def joined_namespaces() -> Iterator[list[tuple[str, str]]]:
    """Make two network namespaces that are joined like two machines by a cable; yield their names and addresses."""
    names = [f"lab{os.getpid()}{letter}" for letter in "ab"]
    addresses = ["10.213.57.1", "10.213.57.2"]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, addresses, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.fixture
def torchrun(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """Starts torchrun with one process on each of two machines."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "cable")
    with joined_namespaces() as machines:
        port = free_port()

        def launch(*arguments: str) -> list[tuple[int, str]]:
            commands = [
                [
                    *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                    *("--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d"),
                    *("--rdzv_endpoint", f"{machines[0][1]}:{port}", "--rdzv_conf", f"is_host={int(number == 0)}"),
                    *("--local_addr", address, *PROGRAM, *arguments_of(tiny, arguments)),
                ]
                for number, (name, address) in enumerate(machines)
            ]
            return run_together(*commands)

        yield launch


@pytest.fixture
def srun(tiny: Tiny, slurm: Slurm) -> Launch:
    """Starts srun with one task on each of two nodes."""

    def launch(*arguments: str) -> list[tuple[int, str]]:
        return run_together(["srun", "-N2", sys.executable, *PROGRAM, *arguments_of(tiny, arguments)])

    return launch


def assert_same_result(run: Run, alone: Run) -> None:
    """Check that a run has the metrics and the weights of the run on one machine."""
    assert run.info["status"] == RunState.FINISHED
    assert run.info["device"] == alone.info["device"]
    assert run.info["metrics"] == alone.info["metrics"]
    assert same(weights(run.checkpoint_path("last")), weights(alone.checkpoint_path("last")))


@pytest.mark.parametrize(("launcher", "rank"), [("srun", 0), *thorough(("torchrun", 1))])
def test_death_of_one_process_ends_the_run_on_both_machines_and_it_resumes(
    tiny: Tiny, alone: Run, request: pytest.FixtureRequest, launcher: str, rank: int
) -> None:
    launch: Launch = request.getfixturevalue(launcher)
    Path("seen").mkdir()
    outcomes = launch(*SETTINGS, f"+callbacks.kill={{_target_: instrumented.KillProcess, rank: {rank}}}")
    out = "".join(out for _, out in outcomes)
    assert Path("killed").is_file(), out
    assert time.time() - Path("killed").stat().st_mtime < 30
    assert 0 not in {status for status, _ in outcomes}, out
    (folder,) = Path("runs").glob("*/*")
    made = Run(folder)
    start = "srun ... python" if launcher == "srun" else "torchrun ..."
    (line,) = [line for line in out.splitlines() if line.startswith("mnist_lab:")]
    assert line.startswith(f"mnist_lab: process {1 - rank} of 2 on ")
    assert line.endswith(f": another process of the run died; to resume: {start} -m mnist_lab resume={made}")
    assert "gloo" not in out and "RuntimeError" not in out
    assert (made.info["status"], made.info["error"]) == (RunState.INTERRUPTED, "another process of the run died")

    outcomes = launch(f"resume={made}", "~callbacks.kill")
    out = "".join(out for _, out in outcomes)
    assert ({status for status, _ in outcomes}, out.count("run folder:")) == ({0}, 1), out
    assert_same_result(made, alone)
    assert_each_image_is_seen_once_an_epoch(epochs=3, images=TRAIN - 40)


@pytest.mark.thorough
def test_sigterm_of_slurm_ends_all_tasks_as_interrupted(tiny: Tiny, slurm: Slurm) -> None:
    arguments = arguments_of(tiny, ["model=mlp", "trainer=ddp", "trainer.max_epochs=100000", "hydra.run.dir=stopped"])
    command = ["srun", "-N2", sys.executable, *PROGRAM, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(Run(Path("stopped")).checkpoint_path("last").is_file, "the first checkpoint", seconds=180)
        slurm.run("scancel", "--signal=TERM", *slurm.run("squeue", "-h", "-o", "%i").split())
        out, _ = process.communicate(timeout=60)
    # The task whose signal arrives last may have noticed the death of the other one first.
    assert process.returncode in (143, 1), out
    message = r"(interrupted \(SIGTERM\)|another process of the run died); to resume: srun ... .* resume=stopped"
    assert re.search(message, out) and "Traceback" not in out, out
    assert Run(Path("stopped")).info["status"] == RunState.INTERRUPTED


@pytest.mark.thorough
def test_batch_script_without_srun_trains_with_two_processes(tiny: Tiny, alone: Run, slurm: Slurm) -> None:
    command = [sys.executable, *PROGRAM, *arguments_of(tiny, [*SETTINGS, "hydra.run.dir=batch"])]
    script = Path("batch.sh")
    script.write_text("#!/bin/sh\nexec " + subprocess.list2cmdline(command) + "\n")
    number = slurm.run("sbatch", "--parsable", "--ntasks=1", "--output=batch.out", str(script)).strip()
    wait_for(lambda: slurm.jobs()[number][0] in ("COMPLETED", "FAILED"), "the end of the job", seconds=180)
    assert slurm.jobs()[number][0] == "COMPLETED", Path("batch.out").read_text()
    assert_same_result(Run(Path("batch")), alone)


@pytest.mark.thorough
def test_jobs_of_a_sweep_on_slurm_train_with_two_processes_each(tiny: Tiny, alone: Run, slurm: Slurm) -> None:
    status, out = run(tiny, "-m", "seed=0,1", "sweep=s", *SETTINGS, *Slurm.launcher)
    assert status == 0, out
    jobs = Sweep(Path("runs/sweeps/s")).jobs()
    assert [job.state for job in jobs] == [RunState.FINISHED] * 2
    assert [job.info["device"] for job in jobs] == [alone.info["device"]] * 2
    assert jobs[0].info["metrics"] == alone.info["metrics"]
