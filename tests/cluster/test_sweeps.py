"""Sweeps on a real SLURM and on a real Ray, of two nodes each, have the results of one process, bit for bit."""

import pytest
from lab import Command, Tiny, run
from sweeping import HALVING, jobs, results

from mnist_lab.runs.run import Run

pytest_plugins = ["engines"]
pytestmark = pytest.mark.cluster


@pytest.fixture(params=["slurm", pytest.param("ray_cluster", marks=pytest.mark.xdist_group("ray"))])
def launcher(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The settings of a cluster's launcher."""
    settings: tuple[str, ...] = request.getfixturevalue(request.param).launcher
    return settings


def assert_results_of_one_process(tiny: Tiny, command: Command, launcher: tuple[str, ...], *sweep: str) -> None:
    status, out = run(tiny, "-m", "model=mlp", "logger=csv", "sweep=s", *launcher, *sweep)
    assert status == 0, out
    assert command("-m", "model=mlp", "logger=csv", "sweep=alone", "threads=1", *sweep).status == 0
    assert results("s") == results("alone")
    assert {job.process["host"] for job in jobs()} <= {"node1", "node2"}


def test_grid(tiny: Tiny, command: Command, launcher: tuple[str, ...]) -> None:
    assert_results_of_one_process(tiny, command, launcher, "optimizer.lr=0.001,0.01", "seed=0,1")


@pytest.mark.thorough
def test_halving_continues_the_best_on_any_node(tiny: Tiny, command: Command, launcher: tuple[str, ...]) -> None:
    rates = "optimizer.lr=0.05,0.01,0.001,0.0001"
    assert_results_of_one_process(tiny, command, launcher, rates, "trainer.max_epochs=4", *HALVING)
    assert sorted(len(Run(job.folder).epochs()) for job in jobs()) == [1, 1, 2, 4]
