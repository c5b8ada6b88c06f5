"""Sweeps of many jobs: their cost is proportional to the number of jobs, and seeds share a place in the ranking."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.sweep_scale import SWEPT, finish, jobs_of
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.sweeps.launchers.this_machine import LocalLauncher
from mnist_lab.sweeps.progress import SweepDisplay, show_results

COUNT = 60
# The audit hook, which Python never removes, adds opened files and listed folders while this is a list.
events: list[tuple[str, Path]] | None = None


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if events is not None and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | Path):
        events.append((event, Path(arguments[0])))


sys.addaudithook(_note)


@pytest.fixture
def noted() -> Iterator[list[tuple[str, Path]]]:
    """Return the list of the files opened and folders listed during the test."""
    global events
    events = []
    yield events
    events = None


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Return a sweep of finished jobs; it was continued with its settings in another order than its jobs record."""
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
    display = SweepDisplay(sweep, LocalLauncher(), console=console)
    display.live.start()
    display.update()
    written = sweep.results_csv.stat().st_mtime_ns
    noted.clear()
    display.update()
    assert {path.name for event, path in noted if event == "open"} == {"sweep.json"}
    assert sweep.results_csv.stat().st_mtime_ns == written
    changed = sweep.jobs()[7]
    finish(changed)
    noted.clear()
    display.update()
    display.live.stop()
    opened = {path.parent for event, path in noted if event == "open"}
    assert {path for path in opened if path.parent == sweep.folder} == {changed.folder}


def test_seeds_are_one_place_with_mean_and_spread(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    """The five best jobs have the accuracies 0.955, 0.956 and so on, by their seeds."""
    show_results(Results.of(sweep), "command")
    content = json.loads(sweep.results_json.read_text())
    first, best = content["ranked"][0], content["best"]
    assert [entry["jobs"] for entry in content["ranked"]] == [5] * 12
    assert first["val/acc"] == {"mean": pytest.approx(0.957), "std": pytest.approx(0.001 * 2.5**0.5)}
    assert first["settings"] == best["settings"] == {"optimizer.lr": "0.002", "optimizer.momentum": "0.05"}
    assert best["folders"] == [f"optimizer.lr=0.002,optimizer.momentum=0.05,seed={n}-{n + 55:012x}" for n in range(5)]
    out = capsys.readouterr().out
    assert f"best, test accuracy 95.70% ± 0.16 over 5 seeds: {best['command']}\n" in out
    assert f"the best of these seeds by validation: seed=4, test accuracy 95.90%: {sweep.folder}/" in out
    assert (sweep.folder / "heat_map.png").exists()
