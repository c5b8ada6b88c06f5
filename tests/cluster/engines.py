"""Engines for the tests of this folder, started once: a SLURM with accounting, one without, a Ray of two nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from slurm import Slurm, missing_programs


@pytest.fixture(scope="session")
def slurm_with_accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    missing = missing_programs()
    assert not missing and os.geteuid() == 0, f".ci/cluster installs what is missing, as root: {', '.join(missing)}"
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
