"""Jobs of a sweep on a real SLURM of two nodes die, are cancelled, preempted or wait, and continue."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from lab import Command, Tiny, wait_for
from slurm import Slurm
from sweeping import DIES, FOLDER, SLOW, age_locks, are_training, jobs, same_as_undisturbed, swept, while_training

from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep

pytest_plugins = ["engines"]


def numbers() -> list[str]:
    """Return SLURM's numbers of the jobs."""
    return [Sweep(FOLDER).record["submitted"][job.id]["number"] for job in jobs()]


@pytest.mark.thorough
def test_job_whose_process_dies_twice_has_failed_with_slurms_reason_and_others_run(tiny: Tiny, slurm: Slurm) -> None:
    out = swept(tiny, slurm, "seed=0,1", DIES, status=1)
    assert [job.state for job in jobs()] == ["finished", "failed"]
    assert jobs()[1].attempts == 2
    assert "its process died (SLURM " in out and "FAILED, signal 9" in out, out


@pytest.mark.thorough
def test_refused_submission_is_reported_in_a_line_and_leaves_nothing(tiny: Tiny, slurm: Slurm) -> None:
    out = swept(tiny, slurm, "seed=0,1", "hydra.launcher.partition=none", status=2)
    assert out.count("\n") == 1, out
    refusal = "sbatch refuses the jobs: Batch job submission failed: Invalid partition name specified"
    assert out.startswith(f"mnist_lab: hydra.launcher.partition=none: {refusal}")
    assert not FOLDER.exists()


@pytest.mark.thorough
def test_cancelled_jobs_are_reported_and_run_by_the_next_start(tiny: Tiny, slurm: Slurm) -> None:
    def cancel() -> None:
        slurm.run("scancel", numbers()[0])
        wait_for(lambda: slurm.jobs()[numbers()[0]][0] == "CANCELLED", "the cancelled job's end")
        assert [slurm.jobs()[number][0] for number in numbers()[1:]] == ["RUNNING", "RUNNING"]
        slurm.run("scancel", numbers()[0].partition("_")[0])

    out = swept(tiny, slurm, "seed=0,1,2", *SLOW, then=while_training(3, cancel), status=1)
    assert out.count("cancelled") >= 1 and all(f"SLURM {number}" in out for number in numbers()), out
    assert not {job.state for job in jobs()} & {"finished", "failed"}
    assert all(len(Run(job.folder).epochs()) >= 2 for job in jobs())
    swept(tiny, slurm, "seed=0,1,2", *SLOW)
    assert [job.state for job in jobs()] == ["finished"] * 3


def test_preempted_job_saves_is_requeued_and_continues_bit_for_bit(tiny: Tiny, slurm: Slurm, command: Command) -> None:
    def preempt(process: subprocess.Popen[str]) -> None:
        while_training(1, slurm.take_all_nodes)(process)
        wait_for(lambda: slurm.jobs()[numbers()[0]][0] == "PENDING", "the requeued job")
        (job,) = jobs()
        assert (job.state, job.info["status"]) == ("interrupted", "interrupted"), "it has saved"
        assert 2 <= len(Run(job.folder).epochs()) < 40
        slurm.requeue_until(lambda: process.poll() is not None, "the sweep's end")

    swept(tiny, slurm, "seed=range(1)", *SLOW, then=preempt)
    assert [(job.state, job.attempts) for job in jobs()] == [("finished", 2)]
    assert same_as_undisturbed(command, "seed=range(1)", "trainer.max_epochs=40")


@pytest.mark.thorough
def test_job_at_its_time_limit_saves_is_requeued_and_continues(tiny: Tiny, slurm: Slurm, command: Command) -> None:
    """SLURM warns 20 seconds before the limit of a minute, or up to 30 seconds earlier."""

    def wait(process: subprocess.Popen[str]) -> None:
        slurm.requeue_until(lambda: process.poll() is not None, "the sweep's end")

    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20", "hydra.launcher.max_num_timeout=9")
    swept(tiny, slurm, "seed=range(1)", SLOW[0], "trainer.max_epochs=150", *limit, then=wait)
    (job,) = jobs()
    assert job.state == "finished" and job.attempts >= 2
    log = Path(Sweep(FOLDER).record["submitted"][job.id]["log"]).read_text(encoding="utf-8")
    assert "Caught signal SIGUSR2" in log and "Requeued job" in log
    assert same_as_undisturbed(command, "seed=range(1)", "trainer.max_epochs=150")


@pytest.mark.thorough
def test_lost_node_is_waited_for_and_its_job_continues_on_the_other(tiny: Tiny, slurm: Slurm, command: Command) -> None:
    def lose() -> None:
        lost = [job.process["host"] for job in jobs()].index("node2")
        slurm.kill_node("node2")
        number = numbers()[lost]
        wait_for(lambda: slurm.jobs()[number][0] == "PENDING", "the job of the lost node in the queue")
        slurm.requeue_until(lambda: slurm.jobs()[number][0] == "RUNNING", "the job on the other node")
        time.sleep(10)  # It waits for the lock, which the lost node still seems to hold.
        age_locks()

    cpus = "hydra.launcher.cpus_per_task=2"  # Each job fills a node.
    swept(tiny, slurm, "seed=0,1", *SLOW, cpus, "threads=1", then=while_training(2, lose))
    assert sorted(job.attempts for job in jobs()) == [1, 2]
    assert {job.process["host"] for job in jobs()} == {"node1"}
    assert same_as_undisturbed(command, "seed=0,1", "trainer.max_epochs=40")


@pytest.mark.thorough
def test_jobs_wait_in_a_full_queue_and_a_detached_sweep_continues(tiny: Tiny, slurm: Slurm, command: Command) -> None:
    """Two jobs fill the nodes and a third waits. One node is drained while its job runs."""
    sweep = ("seed=0,1,2", "hydra.launcher.cpus_per_task=2", "threads=1", *SLOW)
    assert "python -m mnist_lab status s" in swept(tiny, slurm, *sweep, "--detach")
    wait_for(lambda: are_training(2), "two jobs that train")
    slurm.run("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    shown = command("status", "s", data=False).out
    for number, node in zip(numbers(), ("node1", "node2"), strict=False):
        assert re.search(rf"running .* {node} \(SLURM {number}\) .*train\.log", shown), shown
    assert re.search(rf"2 +waiting .* Resources \(SLURM {numbers()[2]}\)", shown), shown
    assert "3 jobs: 2 running, 1 waiting" in shown
    rows = json.loads(command("status", "--json", data=False).out)
    assert [(row["state"], row["reason"]) for row in rows][2] == ("waiting", "Resources")
    before = numbers()
    swept(tiny, slurm, *sweep)
    assert numbers() == before
    assert [(job.state, job.attempts) for job in jobs()] == [("finished", 1)] * 3
    assert [job.process["host"] for job in jobs()] == ["node1", "node2", "node1"]


@pytest.mark.thorough
def test_runs_dir_that_the_nodes_do_not_share_is_refused_in_a_line(tiny: Tiny, slurm: Slurm) -> None:
    out = swept(tiny, slurm, "seed=0,1", f"runs_dir={slurm.local_folder}", status=1)
    (line,) = [line for line in out.splitlines() if line.startswith("mnist_lab: ")]
    assert re.search(r"seed=0: ended before it began \(SLURM \d+.*; .* was not written: choose a runs_dir", line), out


@pytest.mark.thorough
def test_killed_and_interrupted_sweep_finds_its_jobs_again(tiny: Tiny, slurm: Slurm) -> None:
    """Two jobs fill the nodes and a third waits, which Ctrl-C cancels."""
    sweep = ("seed=0,1,2", SLOW[0], "trainer.max_epochs=60", "hydra.launcher.cpus_per_task=2", "threads=1")
    before: list[str] = []
    for sent, status, third in ((signal.SIGKILL, -9, "PENDING"), (signal.SIGINT, 130, "CANCELLED")):
        swept(tiny, slurm, *sweep, status=status, then=while_training(2, sent))
        assert [slurm.jobs()[number][0] for number in numbers()] == ["RUNNING", "RUNNING", third]
        before = before or numbers()
    swept(tiny, slurm, *sweep)
    assert numbers()[:2] == before[:2] and numbers()[2] != before[2]
    assert [(job.state, job.attempts) for job in jobs()] == [("finished", 1)] * 3
