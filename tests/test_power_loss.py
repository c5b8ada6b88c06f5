"""A run survives a power failure at any moment: what is left on the disk resumes to the same result, bit for bit."""

import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from lab import SAVED_OFTEN, Command, Tiny, slow, thorough, tiny_data

from benchmarks.kills import losses
from benchmarks.power_loss import Recorder, failures, rebuild
from mnist_lab.console import console
from mnist_lab.runs.run import Run
from mnist_lab.training.train import train

CLONES = 30
Recorded = tuple[Tiny, Run, Recorder]  # An undisturbed run, and all changes of files that it made.


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("power")
    tiny, recorder = tiny_data(folder / "tiny"), Recorder(folder / "disk")
    tiny.overrides = [*SAVED_OFTEN, "trainer.max_epochs=2"]
    recorder.folder.mkdir()
    quiet, console.quiet = console.quiet, True
    with recorder.recording():
        run = train(tiny.compose(f"runs_dir={recorder.folder / 'runs'}"))
    console.quiet = quiet
    yield tiny, run, recorder
    shutil.rmtree(folder)


def test_saved_checkpoint_outlives_a_power_failure(recorded: Recorded) -> None:
    _, _, recorder = recorded
    changes = recorder.changes
    saves = [
        (number, change.entries[-1][2])
        for number, change in enumerate(changes)
        if change.kind == "names" and change.entries[-1][1] == "last.ckpt"
    ]
    assert len(saves) > 4
    for (_, saved), (moment, _) in pairwise(saves):  # The power fails just before the next save replaces this one.
        writes = [change for change in changes[:moment] if (change.kind, change.number) == ("write", saved)]
        disk = recorder.disk_after(moment, "all", random.Random(0))
        assert [kept for name, kept in disk.items() if name.endswith("last.ckpt")] == [writes[-1].content]


def test_finished_run_loses_nothing(recorded: Recorded) -> None:
    _, _, recorder = recorded

    def record_after(moment: int) -> bytes:
        tree = recorder.disk_after(moment, "none", random.Random(0))
        return b"".join(content or b"" for name, content in tree.items() if name.endswith("run.json"))

    renamed = [number for number, change in enumerate(recorder.changes) if change.kind == "names"]
    written = [number for number in renamed if recorder.changes[number].entries[-1][1] == "run.json"]
    finished = next(number for number in written if b'"status": "finished"' in record_after(number + 1))

    def disk(loss: str) -> dict[str, bytes | None]:
        tree = recorder.disk_after(finished + 2, loss, random.Random(0))  # The folder is synced by then.
        return {name: tree[name] for name in tree if ".holder" not in name and not name.endswith(".log")}

    assert disk("all").items() >= disk("none").items()


@pytest.mark.parametrize("clone", [0, *slow(10), *thorough(*(n for n in range(CLONES) if n not in (0, 10)))])
def test_run_resumes_after_a_power_failure(recorded: Recorded, command: Command, tmp_path: Path, clone: int) -> None:
    tiny, run, recorder = recorded
    moment, loss = failures(len(recorder.changes), CLONES, seed=0)[clone]
    rebuild(recorder.disk_after(moment, loss, random.Random(clone)), tmp_path / "disk")
    assert command(*tiny.arguments(f"runs_dir={tmp_path / 'disk' / 'runs'}", "resume=auto"), data=False).status == 0
    resumed = Run.find("latest", tmp_path / "disk" / "runs")
    assert losses(run, resumed, repeats=False) == [], (moment, loss)
