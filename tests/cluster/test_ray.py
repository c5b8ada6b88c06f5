"""Sweeps on a real Ray cluster of two nodes, and what may happen to their jobs there."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from lab import Tiny, run
from ray_cluster import RayCluster
from sweeping import DIES, HALVING, SLOW, Command, age_locks, jobs, results, same_as_undisturbed, while_training

from mnist_lab.runs.run import Run

pytest_plugins = ["engines"]
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("ray")]


def sweep(cluster: RayCluster, *overrides: str) -> list[str]:
    """The arguments of a sweep on a cluster."""
    ray = ("hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster.address}")
    return ["-m", "model=mlp", "logger=csv", "sweep=s", *ray, *overrides]


def test_four_jobs_give_the_results_of_one_process_bit_for_bit(
    tiny: Tiny, ray_cluster: RayCluster, command: Command
) -> None:
    grid = ("optimizer.lr=0.001,0.01", "seed=0,1")
    status, out = run(tiny, *sweep(ray_cluster, *grid))
    assert status == 0, out
    assert command("-m", "model=mlp", "logger=csv", "sweep=alone", "threads=1", *grid).status == 0
    assert results("s") == results("alone")
    assert {job.process["host"] for job in jobs()} == {"node1", "node2"}


def test_halving_continues_the_best_on_any_node_as_one_process_does(
    tiny: Tiny, ray_cluster: RayCluster, command: Command
) -> None:
    given = ("optimizer.lr=0.05,0.01,0.001,0.0001", "trainer.max_epochs=4", *HALVING)
    status, out = run(tiny, *sweep(ray_cluster, *given))
    assert status == 0 and "continued" in out, out
    assert command("-m", "model=mlp", "logger=csv", "sweep=alone", "threads=1", *given).status == 0
    assert results("s") == results("alone")
    assert sorted(len(Run(job.folder).epochs()) for job in jobs()) == [1, 1, 2, 4]


def test_job_whose_process_always_dies_is_failed_and_the_other_runs(tiny: Tiny, ray_cluster: RayCluster) -> None:
    def pass_time(process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            age_locks()
            time.sleep(0.5)

    once = "hydra.launcher.ray.remote.max_retries=0"
    status, out = run(tiny, *sweep(ray_cluster, "seed=0,1", DIES, once), then=pass_time)
    assert (status, "Traceback" in out) == (1, False), out
    assert [(job.state, job.attempts) for job in jobs()] == [("finished", 1), ("failed", 2)]
    assert "its process died (Ray: WorkerCrashedError)" in out, out


def test_job_of_a_lost_node_continues_on_the_other(tiny: Tiny, ray_cluster: RayCluster, command: Command) -> None:
    def lose() -> None:
        ray_cluster.kill_node("node2")
        age_locks()

    status, out = run(tiny, *sweep(ray_cluster, "seed=0,1", *SLOW), then=while_training(2, lose))
    assert (status, "Traceback" in out) == (0, False), out
    assert sorted(job.attempts for job in jobs()) == [1, 2]
    assert {job.process["host"] for job in jobs()} == {"node1"}
    assert same_as_undisturbed(command, "seed=0,1", "trainer.max_epochs=40")


def test_ctrl_c_lets_jobs_on_both_nodes_save_and_a_kill_ends_them_and_the_next_start_continues(
    tiny: Tiny, ray_cluster: RayCluster, command: Command
) -> None:
    status, out = run(tiny, *sweep(ray_cluster, "seed=0,1", *SLOW), then=while_training(2, signal.SIGINT))
    assert (status, "Traceback" in out) == (130, False), out
    assert [(job.state, job.info["status"]) for job in jobs()] == [("interrupted", "interrupted")] * 2
    status, out = run(tiny, *sweep(ray_cluster, "seed=0,1", *SLOW), then=while_training(2, signal.SIGKILL))
    assert status == -signal.SIGKILL
    age_locks()
    status, out = run(tiny, *sweep(ray_cluster, "seed=0,1", *SLOW))
    assert (status, [job.state for job in jobs()]) == (0, ["finished"] * 2), out
    assert [len(Run(job.folder).epochs()) for job in jobs()] == [40, 40]
    assert same_as_undisturbed(command, "seed=0,1", "trainer.max_epochs=40")


def test_runs_dir_that_the_nodes_do_not_share_is_refused_in_a_line(tiny: Tiny, ray_cluster: RayCluster) -> None:
    status, out = run(tiny, *sweep(ray_cluster, "seed=0,1", f"runs_dir={ray_cluster.own}"))
    assert (status, out.count("\n")) == (2, 1), out
    assert "s is not on node" in out and "choose a runs_dir on a file system that all machines share" in out
