"""Distributed runs over two machines: torchrun over two network namespaces, srun over two nodes of a SLURM."""

from __future__ import annotations

from slurm import Slurm


def test_srun_reaches_both_nodes(slurm: Slurm) -> None:
    assert sorted(slurm.run("srun", "-N2", "hostname").split()) == ["node1", "node2"]
