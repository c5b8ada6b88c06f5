"""Engines for the tests of this folder, started once: a SLURM with accounting, one without, a Ray of two nodes."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from ray_cluster import RayCluster
from slurm import Slurm, missing_programs

START = FileLock(Path(tempfile.gettempdir()) / "mnist_lab-engine.lock")  # one engine at a time looks for free ports


@contextmanager
def slurm_of(*, accounting: bool) -> Iterator[Slurm]:
    missing = missing_programs()
    assert not missing and os.geteuid() == 0, f".ci/cluster installs what is missing, as root: {', '.join(missing)}"
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # short: SLURM makes sockets there
        engine = Slurm(Path(folder), accounting=accounting)
        try:
            with START:
                engine.start()
            yield engine
        finally:
            engine.stop()


@pytest.fixture(scope="session")
def slurm_with_accounting() -> Iterator[Slurm]:
    with slurm_of(accounting=True) as engine:
        yield engine


@pytest.fixture
def slurm_without_accounting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A SLURM of two idle nodes that keeps no accounts, for the commands of this process and those that it starts."""
    with slurm_of(accounting=False) as engine:
        for name, value in engine.environment.items():
            monkeypatch.setenv(name, value)
        yield engine


@pytest.fixture
def slurm(slurm_with_accounting: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A SLURM of two idle nodes, for the commands of this process and those that it starts."""
    engine = slurm_with_accounting
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    yield engine
    engine.settle()


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
    """A Ray cluster of two nodes, for the commands that this process starts."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    yield two_ray_nodes
    if "node2" not in two_ray_nodes.nodes:
        two_ray_nodes.start_node("node2")
