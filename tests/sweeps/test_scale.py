"""Sweeps of many jobs: their cost grows with the jobs alone, and jobs at once on one folder lose nothing."""

import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.sweep_scale import SWEPT, finish, jobs_of, session_of
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.record import RunState
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.sweeps.launch import Launch
from mnist_lab.sweeps.launchers.launcher import Placement, Stage
from mnist_lab.sweeps.launchers.local import LocalLauncher
from mnist_lab.sweeps.progress import Watch

COUNT = 60
events: list[tuple[str, Path]] | None = None  # of Python's audit: files opened and folders listed, while it is a list


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if events is not None and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | Path):
        events.append((event, Path(arguments[0])))


sys.addaudithook(_note)  # Python takes none back


@pytest.fixture
def noted() -> Iterator[list[tuple[str, Path]]]:
    """The files that are opened, and the folders that are listed, from here to the end of the test."""
    global events
    events = []
    yield events
    events = None


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep of finished jobs. It was continued with its settings in another order than its jobs have recorded."""
    jobs = jobs_of(COUNT)
    planned = {id: overrides[::-1] for id, overrides in jobs.items()}
    made = Sweep.open(tmp_path / "sweeps" / "s", "command", SWEPT, planned)
    for id, overrides in jobs.items():
        folder = made.folder / f"{','.join(overrides)}-{id}"
        folder.mkdir()
        finish(Job(tuple(overrides), folder))
    return made


@pytest.mark.parametrize("terminal", [True, False])
def test_unchanged_jobs_are_not_read_again(sweep: Sweep, noted: list[tuple[str, Path]], terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, height=12)
    watch = Watch(sweep, LocalLauncher(), console)
    watch.live.start()
    watch.look()
    written = sweep.results_csv.stat().st_mtime_ns
    noted.clear()
    watch.look()
    assert [path.name for event, path in noted if event == "open"] == ["sweep.json"]
    assert sweep.results_csv.stat().st_mtime_ns == written
    changed = sweep.jobs()[7]
    finish(changed)
    noted.clear()
    watch.look()
    watch.live.stop()
    opened = {path.parent for event, path in noted if event == "open"}
    assert {path for path in opened if path.parent == sweep.folder} == {changed.folder}


class EndsAtOnce(LocalLauncher):
    """Has all its jobs ended at the first poll."""

    def poll(self) -> dict[str, Placement]:
        return dict.fromkeys(self.stages, Placement(Stage.ENDED))


def test_folder_is_listed_once_for_all_jobs_that_have_ended(
    sweep: Sweep, tmp_path: Path, noted: list[tuple[str, Path]]
) -> None:
    with session_of(tmp_path, "local") as session:
        launch = Launch(EndsAtOnce(), session, jobs_of(COUNT))
        noted.clear()
        launch.wait()
    assert len([path for event, path in noted if event != "open" and path == sweep.folder]) == 1


AT_ONCE = """
import os, sys
from pathlib import Path
from benchmarks.sweep_scale import finish, jobs_of
from mnist_lab.runs.locks import run_lock
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.sweep import Job, Sweep

sweep, jobs = Sweep(Path(sys.argv[1])), jobs_of(int(sys.argv[2]))
wait, begin = os.pipe()
children = []
for id, overrides in jobs.items():
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(begin)
            os.read(wait, 1)  # until the pipe is closed, for all at once
            folder = sweep.folder / f"{','.join(overrides)}-{id}"
            with run_lock(folder):
                finish(Job(tuple(overrides), folder, process={"pid": os.getpid()}))
            if int(id, 16) % 10 == 0:
                Results.of(sweep).write()
            status = 0
        finally:
            os._exit(status)
    children.append(child)
os.close(begin)
failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
print(*children)
sys.exit(failed)
"""


def test_200_jobs_at_once_on_one_folder_lose_nothing(tmp_path: Path) -> None:
    jobs = jobs_of(200)
    sweep = Sweep.open(tmp_path / "s", "command", SWEPT, jobs)
    command = [sys.executable, "-c", AT_ONCE, str(sweep.folder), str(len(jobs))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = sweep.jobs()
    assert [job.state for job in found] == [RunState.FINISHED] * 200
    assert [job.process["pid"] for job in found] == list(map(int, done.stdout.split()))
    assert {job.id: list(job.overrides) for job in found} == jobs
    for number, job in enumerate(found):
        assert job.info["overrides"] == list(job.overrides)
        assert job.info["metrics"]["val/acc"] == 0.9 + number % 97 / 1000
    Results.of(sweep).write()
    with sweep.results_csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["folder"] for row in rows} == {job.folder.name for job in found}
    assert len(rows) == 200
    assert not list(sweep.folder.rglob("*.partial"))
