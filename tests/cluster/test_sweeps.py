"""Sweeps on a real SLURM and a real Ray have the results of one process, bit for bit."""

import pytest
from lab import Command, Tiny, thorough
from sweeping import jobs, same_as_undisturbed, swept

from mnist_lab.runs.run import Run

pytest_plugins = ["engines"]
GRID = ("optimizer.lr=0.001,0.01", "seed=0,1")
RUNGS = ("optimizer.lr=0.05,0.01,0.001,0.0001", "trainer.max_epochs=4", "hydra/sweeper=halving", "hydra.sweeper.eta=2")


@pytest.mark.parametrize(
    ("sweep", "epochs"), [(GRID, [2] * 4), *thorough((RUNGS, [1, 1, 2, 4]))], ids=["grid", "halving"]
)
@pytest.mark.parametrize(
    "engine", [*thorough("slurm"), pytest.param("ray_cluster", marks=pytest.mark.xdist_group("ray"))]
)
def test_jobs_on_two_nodes_end_as_in_one_process(
    tiny: Tiny, command: Command, request: pytest.FixtureRequest, engine: str, sweep: tuple[str, ...], epochs: list[int]
) -> None:
    swept(tiny, request.getfixturevalue(engine), *sweep)
    assert same_as_undisturbed(command, *sweep)
    assert {job.process["host"] for job in jobs()} <= {"node1", "node2"}
    assert sorted(len(Run(job.folder).epochs()) for job in jobs()) == epochs
