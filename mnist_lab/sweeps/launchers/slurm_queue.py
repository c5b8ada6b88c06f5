"""SLURM's queue, asked by squeue and scontrol, which every cluster has; accounting it need not have."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mnist_lab.runs.record import Submission
from mnist_lab.sweeps.launchers.launcher import Placement, Stage

# As SLURM names them; a state that is neither of these is an end.
PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


def look_up(submitted: Mapping[str, Submission]) -> dict[str, Placement]:
    """Return how jobs stand in the queue, by their ids; nothing while SLURM does not answer.

    A job that is not in the queue has ended a while ago.
    """
    arrays = {submission["number"].partition("_")[0] for submission in submitted.values()}
    asked = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N", f"--jobs={','.join(arrays)}"]
    answer = run(*asked) if arrays else ""
    if answer is None:
        return {}
    rows = dict(line.split("|", 1) for line in answer.splitlines())
    return {
        id: replace(placement(submission["number"], rows.get(submission["number"])), log=Path(submission["log"]))
        for id, submission in submitted.items()
    }


def placement(number: str, row: str | None) -> Placement:
    """Return what squeue tells about a job: STATE|REASON|NODES, or nothing."""
    if row is None:
        return Placement(Stage.ENDED, f"SLURM {number}")
    state, reason, nodes = row.split("|")
    here = Placement(Stage.RUNNING, f"SLURM {number}", nodes)
    if state in PENDING:
        return replace(here, stage=Stage.PENDING, reason=reason)
    if state in RUNNING:
        return here
    how = "" if state == "COMPLETED" else ending(number, state)
    return replace(here, stage=Stage.ENDED, reason=how, cancelled=state == "CANCELLED")


def ending(number: str, state: str) -> str:
    """Describe how a job ended: SLURM's state, with the exit status or the signal."""
    found = re.search(r" ExitCode=(\d+):(\d+)", run("scontrol", "show", "job", "--oneliner", number) or "")
    status, sent = map(int, found.groups()) if found else (0, 0)
    if sent == 0 and status > 128:  # as srun tells of a signal to the process
        status, sent = 0, status - 128
    details = [f"signal {sent}"] * bool(sent) + [f"exit status {status}"] * bool(status)
    return ", ".join([state, *details])


def cancel_pending(numbers: Iterable[str]) -> None:
    """Cancel jobs that have not begun."""
    pending = list(numbers)
    if pending:
        run("scancel", "--state=PENDING", *pending)


def largest_array() -> int:
    """Return how many jobs an array may have."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", run("scontrol", "show", "config") or "")
    return max(1, int(found[1]) - 1) if found else 1000


def is_running() -> bool:
    """Return whether this job runs on for SLURM; if it does, nobody has cancelled it."""
    answer = run("squeue", "--noheader", "--format=%T", f"--jobs={os.environ['SLURM_JOB_ID']}")
    return answer is not None and answer.strip() == "RUNNING"


def run(*command: str) -> str | None:
    """Return what a command of SLURM's prints; None if SLURM does not answer."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # no SLURM here
        return None
    known = answer.returncode == 0 or "Invalid job id" in answer.stderr  # of jobs that have ended a while ago
    return answer.stdout if known else None
