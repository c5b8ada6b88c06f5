"""Fixtures of this folder: a SLURM and a Ray of two nodes each, started once."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from ray_cluster import RayCluster
from slurm import Slurm

# Engines that start at the same time could choose the same free ports.
START = FileLock(Path(tempfile.gettempdir()) / "mnist_lab-engine.lock")


@pytest.fixture(scope="session")
def two_slurm_nodes() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # The paths of SLURM's sockets must be short.
        engine = Slurm(Path(folder))
        try:
            with START:
                engine.start()
            yield engine
        finally:
            engine.stop()


@pytest.fixture
def slurm(two_slurm_nodes: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A SLURM of two idle nodes, for the commands of this process and its children."""
    for name, value in two_slurm_nodes.environment.items():
        monkeypatch.setenv(name, value)
    yield two_slurm_nodes
    two_slurm_nodes.settle()


@pytest.fixture(scope="session")
def two_ray_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    cluster = RayCluster(tmp_path_factory.mktemp("ray"))
    try:
        with START:
            cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def ray_cluster(two_ray_nodes: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """A Ray cluster of two nodes, for the children of this process."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    yield two_ray_nodes
    if "node2" not in two_ray_nodes.nodes:
        two_ray_nodes.start_node("node2")
