"""Only one process works on a run folder; a run whose process is gone was killed."""

import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab import Command, Tiny, disk_full, held_by_another_process, wait_for

from mnist_lab.errors import UsageError
from mnist_lab.runs import locks
from mnist_lab.runs.locks import HOLDER, STALE_AFTER, RunInUse, holder_of, release_if_held_by, run_lock
from mnist_lab.runs.run import Run

FOLDER = Path("run")


def write_holder(host: str, age: float) -> None:
    """Write the record of a process on a machine, whose last heartbeat is `age` seconds old."""
    FOLDER.mkdir()
    (FOLDER / ".lock").touch()
    (FOLDER / HOLDER).write_text(json.dumps({"host": host, "pid": 1, "since": "2026-01-02T03:04:05+00:00"}))
    moment = time.time() - age
    os.utime(FOLDER / HOLDER, (moment, moment))


@pytest.mark.slow
def test_second_process_is_refused_in_one_line_that_says_who_holds_the_run(tiny: Tiny, command: Command) -> None:
    command("hydra.run.dir=run")
    before = {path: path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    with held_by_another_process(FOLDER):
        holder = json.loads((FOLDER / HOLDER).read_text())
        outcome = command("resume=run", "trainer.max_epochs=3")
        assert {path: path.read_bytes() for path in before} == before
        assert command("hydra.run.dir=run").status == 2
        assert Run(FOLDER).info["status"] == "finished"
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert f"in use by process {holder['pid']} on {socket.gethostname()} since 20" in line
    assert command("resume=run", "trainer.max_epochs=3").status == 0


@pytest.mark.slow
def test_run_of_a_killed_process_is_killed_and_can_be_resumed(tiny: Tiny, command: Command) -> None:
    command("hydra.run.dir=run")
    Run(FOLDER).update(status="running")
    with held_by_another_process(FOLDER) as process:
        assert Run(FOLDER).info["status"] == "running"
        os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.read()  # It ends when both the shell and the holder are gone.
        assert (FOLDER / HOLDER).exists()
        assert Run(FOLDER).info["status"] == "killed"
    assert "killed" in command("ls", "--runs-dir", ".", data=False).out
    assert command("resume=run", "trainer.max_epochs=3").status == 0
    assert Run(FOLDER).info["status"] == "finished"
    assert not (FOLDER / HOLDER).exists()


def test_holder_on_another_machine_counts_as_long_as_it_has_heartbeats(tiny: Tiny) -> None:
    """This happens on shared file systems whose locks do not reach other machines."""
    write_holder("another-machine", age=STALE_AFTER / 2)
    with pytest.raises(RunInUse, match="in use by process 1 on another-machine since 2026-01-02"), run_lock(FOLDER):
        pass
    moment = time.time() - STALE_AFTER - 1
    os.utime(FOLDER / HOLDER, (moment, moment))
    assert holder_of(FOLDER) is None
    with run_lock(FOLDER):
        assert holder_of(FOLDER) is not None
    shutil.rmtree(FOLDER)
    write_holder(socket.gethostname(), age=0)
    assert holder_of(FOLDER) is None, "on this machine the lock alone counts"


def test_lock_of_a_job_that_has_ended_on_its_machine_is_freed_whatever_the_domain(tiny: Tiny) -> None:
    for holder, machine in (("node1", "node1.cluster"), ("node1.cluster", "node1")):
        shutil.rmtree(FOLDER, ignore_errors=True)
        write_holder(holder, age=0)
        assert not release_if_held_by("node2", FOLDER) and not release_if_held_by("", FOLDER)
        assert release_if_held_by(machine, FOLDER)


def test_folder_without_room_for_a_holder_is_named_as_typed_and_left_free(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "write_text", disk_full)
    with pytest.raises(UsageError, match=r"^hydra\.run\.dir=run: cannot be written"), run_lock(FOLDER):
        pass
    assert not list(FOLDER.iterdir()) and holder_of(FOLDER) is None


def test_holder_has_heartbeats(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    with run_lock(FOLDER):
        os.utime(FOLDER / HOLDER, (0, 0))
        wait_for(lambda: (FOLDER / HOLDER).stat().st_mtime > 0, "a heartbeat", 30)


def test_lock_is_reentrant_in_its_thread_and_closed_to_others(tiny: Tiny) -> None:
    with ThreadPoolExecutor() as pool, run_lock(FOLDER), run_lock(FOLDER):
        other = pool.submit(run_lock(FOLDER).__enter__)
        with pytest.raises(RunInUse, match=f"process {os.getpid()}"):
            other.result()
    with run_lock(FOLDER):
        pass


@pytest.mark.parametrize("record", ["{", "[]", '{"host": 1}'])
def test_damaged_record_of_a_holder_is_no_error(tiny: Tiny, record: str) -> None:
    write_holder("h", age=0)
    (FOLDER / HOLDER).write_text(record)
    os.utime(FOLDER / HOLDER, (0, 0))
    assert holder_of(FOLDER) is None
    with run_lock(FOLDER):
        pass
