"""SLURM's queue, asked by squeue and scontrol, which need no accounting."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mnist_lab.runs.record import Submission
from mnist_lab.sweeps.launchers.launcher import LaunchedJob, Stage

# States by SLURM's names; a job in any other state has ended.
PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


def query_jobs(submitted: Mapping[str, Submission]) -> dict[str, LaunchedJob]:
    """Return submitted jobs as squeue reports them, by their ids; nothing if SLURM does not answer."""
    arrays = {submission["number"].partition("_")[0] for submission in submitted.values()}
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N", f"--jobs={','.join(arrays)}"]
    answer = run_slurm(*command) if arrays else ""
    if answer is None:
        return {}
    rows = dict(line.split("|", 1) for line in answer.splitlines())
    return {
        id: replace(parse_row(submission["number"], rows.get(submission["number"])), log=Path(submission["log"]))
        for id, submission in submitted.items()
    }


def parse_row(number: str, row: str | None) -> LaunchedJob:
    """Return a job from squeue's STATE|REASON|NODES, or from None: squeue has forgotten it some time after its end."""
    if row is None:
        return LaunchedJob(Stage.ENDED, f"SLURM {number}")
    state, reason, nodes = row.split("|")
    job = LaunchedJob(Stage.RUNNING, f"SLURM {number}", nodes)
    if state in PENDING:
        return replace(job, stage=Stage.PENDING, reason=reason)
    if state in RUNNING:
        return job
    end = "" if state == "COMPLETED" else describe_end(number, state)
    return replace(job, stage=Stage.ENDED, reason=end, cancelled=state == "CANCELLED")


def describe_end(number: str, state: str) -> str:
    """Describe how a job ended: SLURM's state, with the exit status or the signal."""
    match = re.search(r" ExitCode=(\d+):(\d+)", run_slurm("scontrol", "show", "job", "--oneliner", number) or "")
    status, signal_number = map(int, match.groups()) if match else (0, 0)
    if signal_number == 0 and status > 128:  # srun reports a signal to the process as such a status.
        status, signal_number = 0, status - 128
    if signal_number:
        return f"{state}, signal {signal_number}"
    return f"{state}, exit status {status}" if status else state


def read_max_array_size() -> int:
    """Return the greatest number of jobs in an array."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", run_slurm("scontrol", "show", "config") or "")
    return max(1, int(match[1]) - 1) if match else 1000


def is_running() -> bool:
    """Return whether SLURM reports this job as running, so that nobody has cancelled it."""
    answer = run_slurm("squeue", "--noheader", "--format=%T", f"--jobs={os.environ['SLURM_JOB_ID']}")
    return answer is not None and answer.strip() == "RUNNING"


def run_slurm(*command: str) -> str | None:
    """Return the output of one of SLURM's commands; None if SLURM is not installed or does not answer."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    jobs_are_forgotten = "Invalid job id" in answer.stderr  # squeue fails so when all have ended some time ago.
    return answer.stdout if answer.returncode == 0 or jobs_are_forgotten else None
