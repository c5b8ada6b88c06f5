"""Engines for the tests of this folder, started once: a SLURM with accounting, one without, a Ray of two nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm import Slurm, missing_programs


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if not config.getoption("--cluster"):
                item.add_marker(pytest.mark.skip(reason="starts a SLURM and a Ray: .ci/cluster runs it"))


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    missing = missing_programs()
    assert not missing and os.geteuid() == 0, f".ci/cluster installs what is missing, as root: {', '.join(missing)}"


@pytest.fixture(scope="session")
def slurm_with_accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    engine = Slurm(tmp_path_factory.mktemp("slurm"), accounting=True)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def slurm(slurm_with_accounting: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A SLURM of two idle nodes, for the commands of this process and those that it starts."""
    engine = slurm_with_accounting
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    yield engine
    engine.settle()
