"""A run survives a power failure at any moment: what the disk still holds resumes, bit for bit as if left alone."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from lab import Command, Tiny, slow, thorough, tiny_data

from benchmarks.kills import losses
from benchmarks.power_loss import Recorder, failures, rebuild
from mnist_lab.runs.run import Run
from mnist_lab.training.progress import console
from mnist_lab.training.train import train

SETTINGS = (
    "data=tiny",
    "model=mlp",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=4",
    "callbacks.checkpoint.every_n_train_steps=5",
    "figures=false",
)
CLONES = 30


@dataclass
class Recorded:
    """A run left alone, and all that it asked of the file system."""

    tiny: Tiny
    run: Run
    recorder: Recorder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("power")
    made = tiny_data(folder / "tiny")
    made.overrides = list(SETTINGS)
    recorder = Recorder(folder / "disk")
    recorder.folder.mkdir()
    quiet, console.quiet = console.quiet, True
    with recorder.recording():
        run = train(made.compose(f"runs_dir={recorder.folder / 'runs'}"))
    console.quiet = quiet
    yield Recorded(made, run, recorder)
    shutil.rmtree(folder)


def test_saved_checkpoint_outlives_a_power_failure(recorded: Recorded) -> None:
    changes, recorder = recorded.recorder.changes, recorded.recorder
    saves = [
        (number, change.entries[-1][2])
        for number, change in enumerate(changes)
        if change.kind == "names" and change.entries[-1][1] == "last.ckpt"
    ]
    assert len(saves) > 4
    for (_, saved), (moment, _) in pairwise(saves):  # just before the next one takes its place
        writes = [change for change in changes[:moment] if (change.kind, change.number) == ("write", saved)]
        disk = recorder.disk_after(moment, "all", random.Random(0))
        assert [kept for name, kept in disk.items() if name.endswith("last.ckpt")] == [writes[-1].content]


def test_finished_run_loses_nothing(recorded: Recorded) -> None:
    recorder = recorded.recorder
    finished = next(number for number in range(len(recorder.changes)) if is_finished(recorder, number))

    def disk(loss: str) -> dict[str, bytes | None]:
        tree = recorder.disk_after(finished + 2, loss, random.Random(0))  # with the folder synced
        return {name: tree[name] for name in tree if ".holder" not in name and not name.endswith(".log")}

    assert disk("all").items() >= disk("none").items()


def is_finished(recorder: Recorder, number: int) -> bool:
    change = recorder.changes[number]
    if change.kind != "names" or change.entries[-1][1] != "run.json":
        return False
    tree = recorder.disk_after(number + 1, "none", random.Random(0))
    return any(b'"status": "finished"' in (tree[name] or b"") for name in tree if name.endswith("run.json"))


@pytest.mark.parametrize("clone", [0, *slow(10), *thorough(*(n for n in range(CLONES) if n not in (0, 10)))])
def test_run_resumes_after_a_power_failure_as_if_left_alone(
    recorded: Recorded, command: Command, tmp_path: Path, clone: int
) -> None:
    recorder = recorded.recorder
    moment, loss = failures(len(recorder.changes), CLONES, seed=0)[clone]
    rebuild(recorder.disk_after(moment, loss, random.Random(clone)), tmp_path / "disk")
    own = ["--config-dir", str(recorded.tiny.conf), *SETTINGS]
    outcome = command(*own, f"runs_dir={tmp_path / 'disk' / 'runs'}", "resume=auto", data=False)
    assert outcome.status == 0, outcome.err
    resumed = Run.find("latest", tmp_path / "disk" / "runs")
    assert losses(recorded.run, resumed, repeats=False) == [], (moment, loss)
