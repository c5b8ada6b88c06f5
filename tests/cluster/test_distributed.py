"""Distributed runs over two machines: torchrun over two network namespaces, srun over two nodes of a SLURM."""

from __future__ import annotations

import pytest
from slurm import Slurm

pytest_plugins = ["engines"]
pytestmark = pytest.mark.cluster


def test_srun_reaches_both_nodes(slurm: Slurm) -> None:
    assert sorted(slurm.run("srun", "-N2", "hostname").split()) == ["node1", "node2"]
