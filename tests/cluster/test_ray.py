"""Jobs of a sweep on a real Ray cluster of two nodes die, lose their node or are stopped, and continue."""

import signal
import subprocess
import time

import pytest
from lab import Command, Tiny
from ray_cluster import RayCluster
from sweeping import DIES, SLOW, age_locks, jobs, same_as_undisturbed, swept, while_training

from mnist_lab.runs.run import Run

pytest_plugins = ["engines"]
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.thorough]


def test_job_whose_process_always_dies_is_failed_and_the_other_runs(tiny: Tiny, ray_cluster: RayCluster) -> None:
    def pass_time(process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            age_locks()
            time.sleep(0.5)

    once = "hydra.launcher.ray.remote.max_retries=0"
    out = swept(tiny, ray_cluster, "seed=0,1", DIES, once, then=pass_time, status=1)
    assert [(job.state, job.attempts) for job in jobs()] == [("finished", 1), ("failed", 2)]
    assert "its process died (Ray: WorkerCrashedError)" in out, out


def test_job_of_a_lost_node_continues_on_the_other(tiny: Tiny, ray_cluster: RayCluster, command: Command) -> None:
    def lose() -> None:
        ray_cluster.kill_node("node2")
        age_locks()

    swept(tiny, ray_cluster, "seed=0,1", *SLOW, then=while_training(2, lose))
    assert sorted(job.attempts for job in jobs()) == [1, 2]
    assert {job.process["host"] for job in jobs()} == {"node1"}
    assert same_as_undisturbed(command, "seed=0,1", "trainer.max_epochs=40")


def test_jobs_on_nodes_continue_after_ctrl_c_and_kill(tiny: Tiny, ray_cluster: RayCluster, command: Command) -> None:
    swept(tiny, ray_cluster, "seed=0,1", *SLOW, then=while_training(2, signal.SIGINT), status=130)
    assert [(job.state, job.info["status"]) for job in jobs()] == [("interrupted", "interrupted")] * 2
    swept(tiny, ray_cluster, "seed=0,1", *SLOW, then=while_training(2, signal.SIGKILL), status=-signal.SIGKILL)
    age_locks()
    swept(tiny, ray_cluster, "seed=0,1", *SLOW)
    assert [job.state for job in jobs()] == ["finished"] * 2
    assert [len(Run(job.folder).epochs()) for job in jobs()] == [40, 40]
    assert same_as_undisturbed(command, "seed=0,1", "trainer.max_epochs=40")


def test_runs_dir_that_the_nodes_do_not_share_is_refused_in_a_line(tiny: Tiny, ray_cluster: RayCluster) -> None:
    out = swept(tiny, ray_cluster, "seed=0,1", f"runs_dir={ray_cluster.local_folder}", status=2)
    assert out.count("\n") == 1, out
    assert "s is not on node" in out and "choose a runs_dir on a file system that all machines share" in out
