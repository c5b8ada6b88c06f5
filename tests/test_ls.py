"""`ls` shows every run below a folder, for people and for programs, whatever state the runs are in, and quickly."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, Tiny

from mnist_lab.ls import listed
from mnist_lab.runs import Run

Command = Callable[..., Outcome]
RECORD = {
    "status": "finished",
    "error": None,
    "overrides": ["model=mlp", "optimizer.lr=0.1"],
    "model": "mlp",
    "parameters": 130058,
    "seed": 0,
    "epochs": 1,
    "metrics": {"val/loss": 0.25, "val/acc": 0.9 + 1 / 3000, "test/loss": 0.5, "test/acc": 0.8125},
    "seconds": {"total": 12.3456, "fit": 10.0},
    "images_per_second": 12345.6,
}


def fake(place: str, minute: int, **changes: Any) -> Path:
    """A run folder with all that a run leaves, started at a minute of an hour."""
    folder = Path("runs") / place
    for name in ("checkpoints", "figures"):
        (folder / name).mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
    (folder / "config.yaml").write_text("".join(f"setting_{i}: {i}\n" for i in range(100)))
    (folder / "metrics.csv").write_text("step,epoch,train/loss\n1,0,0.5\n")
    record = RECORD | {"started": f"2026-11-21T13:{minute:02}:00.000000+00:00"} | changes
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def names(outcome: Outcome) -> list[str]:
    """The last part of each listed folder, in order."""
    assert outcome.status == 0, outcome.err
    return [Path(line.split()[-1]).name for line in outcome.out.splitlines()[1:]]


def test_runs_are_listed_oldest_first_with_what_they_came_to(command: Command) -> None:
    command("model=mlp", "hydra.run.dir=runs/z/first")
    command("model=lenet", "trainer.max_epochs=1", "hydra.run.dir=runs/a/second")
    info = Run(Path("runs/z/first")).info
    outcome = command("ls", data=False)
    assert names(outcome) == ["first", "second"]
    head, first, second = outcome.out.splitlines()
    assert head.split() == ["date", "model", "status", "val/acc", "test/acc", "time", "overrides", "run"]
    assert "trainer.max_epochs=1" in second and " lenet " in second
    accuracies = [f"{info['metrics'][name]:.2%}" for name in ("val/acc", "test/acc")]
    assert first.split()[2:7] == ["mlp", "finished", *accuracies, f"{info['seconds']['total']:.1f}"]
    assert first.split()[8:] == [*info["overrides"], "runs/z/first"]


def test_programs_get_every_value_unrounded(tiny: Tiny, command: Command) -> None:
    fake("a", 1)
    fake("b", 2, status="failed", metrics={"test/acc": float("nan")}, seconds={})
    (one, other) = json.loads(command("ls", "--json", data=False).out)
    assert one | RECORD["metrics"] == one  # type: ignore[operator]
    assert (one["run"], one["date"], one["time"]) == ("runs/a", "2026-11-21T13:01:00.000000+00:00", 12.3456)
    assert one["overrides"] == ["model=mlp", "optimizer.lr=0.1"]
    assert (other["status"], other["test/acc"], other["time"]) == ("failed", None, None), "JSON knows no NaN"
    written = list(csv.DictReader(io.StringIO(command("ls", "--csv", data=False).out)))
    assert float(written[0]["val/acc"]) == one["val/acc"]
    assert json.loads(written[0]["overrides"]) == one["overrides"]
    assert (written[1]["status"], written[1]["test/acc"]) == ("failed", "")
    assert list(written[0]) == list(one)


def test_latest_run_is_the_one_that_started_last_in_whatever_time_zone() -> None:
    fake("second", 0, started="2026-10-25T02:10:00.000000+01:00")  # after the end of summer time
    fake("first", 0, started="2026-10-25T02:30:00.000000+02:00")
    fake("third", 0, started="2026-10-25T01:20:00.000000+00:00")
    assert [run.folder.name for run in Run.below("runs")] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("date", ["b", "a", "c", "d"]),
        ("test/acc", ["a", "c", "b", "d"]),
        ("val/loss", ["c", "b", "a", "d"]),
        ("time", ["b", "c", "a", "d"]),
        ("run", ["a", "b", "c", "d"]),
        ("my/metric", ["c", "b", "a", "d"]),
    ],
)
def test_sort_puts_the_best_accuracy_and_the_smallest_rest_first_and_runs_without_last(
    tiny: Tiny, command: Command, column: str, order: list[str]
) -> None:
    fake("b", 1, metrics={"test/acc": 0.7, "val/loss": 0.2}, seconds={"total": 1})
    fake("a", 2, metrics={"test/acc": 0.9, "val/loss": 0.3}, seconds={"total": 3})
    fake("c", 3, metrics={"test/acc": 0.8, "val/loss": 0.1, "my/metric": 5}, seconds={"total": 2})
    fake("d", 4, metrics={"test/acc": float("nan")}, seconds={})
    assert names(command("ls", "--sort", column, data=False)) == order


def test_damaged_record_is_listed_and_stops_neither_the_list_nor_latest(tiny: Tiny, command: Command) -> None:
    whole = fake("whole", 1)
    fake("odd", 2, started="in the morning", metrics=None, seconds=None, overrides=None)
    for name, text in (("cut", '{"status": "fini'), ("empty", ""), ("other", "[1, 2]")):
        (fake(name, 3) / "run.json").write_text(text)
    outcome = command("ls", data=False)
    assert sorted(names(outcome)) == ["cut", "empty", "odd", "other", "whole"]
    assert outcome.out.count(" damaged ") == 3
    for name in ("cut", "empty", "other"):
        assert f"mnist_lab: warning: runs/{name}/run.json: " in outcome.err
    assert outcome.err.count("\n") == 3
    assert len(json.loads(command("ls", "--json", "--sort", "test/acc", data=False).out)) == 5
    (Path("runs") / "odd" / "run.json").unlink()
    assert Run.find("latest").folder == whole
    assert [run.folder for run in Run.below("runs")] == [whole]


def test_auto_starts_anew_where_the_only_record_is_damaged_and_then_goes_on(command: Command) -> None:
    (fake("cut", 1) / "run.json").write_text("")
    for epochs in (1, 2):
        outcome = command("model=mlp", "resume=auto", f"trainer.max_epochs={epochs}")
        assert outcome.status == 0, outcome.err
        assert outcome.err.count("warning") == 1
    (run,) = Run.below("runs")
    assert run.info["epochs"] == 2


def test_run_that_lies_in_another_runs_folder_is_found(tiny: Tiny) -> None:
    fake("", 1)
    fake("2026-11-21/later", 2)
    assert [run.folder for run in Run.below("runs")] == [Path("runs"), Path("runs/2026-11-21/later")]


def test_nothing_to_list_is_told(tiny: Tiny, command: Command) -> None:
    for arguments, told in (
        ((), "--runs-dir=runs: no such folder"),
        (("--runs-dir", "nowhere"), "--runs-dir=nowhere: no such folder"),
        (("--json", "--csv"), "not allowed with"),
    ):
        outcome = command("ls", *arguments, data=False)
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert told in outcome.err
    Path("runs").mkdir()
    outcome = command("ls", "--sort", "test/acc", data=False)
    assert (outcome.status, outcome.out, outcome.err) == (0, "no run below runs\n", "")
    assert command("ls", "--json", data=False).out == "[]\n"
    assert command("ls", "--csv", data=False).out == ""
    fake("a", 1)
    outcome = command("ls", "--sort", "test/accuracy", data=False)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "--sort=test/accuracy: no run has it; there are run, date, " in outcome.err and "test/acc" in outcome.err


def test_a_thousand_runs_are_listed_in_a_second(tiny: Tiny, command: Command) -> None:
    for number in range(1000):
        fake(f"2026-11-{1 + number % 28:02}/{number:04}-mlp", number % 60)
    started = time.perf_counter()
    outcome = command("ls", "--sort", "test/acc", data=False)
    seconds = time.perf_counter() - started
    assert len(names(outcome)) == 1000
    assert seconds < 1
    assert len(listed(Path("runs"))) == 1000


def test_overrides_give_way_in_a_narrow_terminal_and_nothing_elsewhere(
    tiny: Tiny, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake("2026-11-21/13-42-00-752418-mlp", 1, overrides=["model=mlp", "optimizer.weight_decay=0.0001"])
    monkeypatch.setenv("COLUMNS", "120")
    assert command("ls", data=False).out.endswith(f"  model=mlp optimizer.weight_decay=0.0001  {folder}\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, line = command("ls", data=False).out.splitlines()
    assert len(line) == 120
    assert "  model=mlp optimize...  " in line and line.endswith(str(folder))
    monkeypatch.setenv("COLUMNS", "40")
    assert command("ls", data=False).out.endswith(f"  model=mlp...  {folder}\n")


def test_ls_imports_neither_torch_nor_matplotlib(tiny: Tiny) -> None:
    fake("a", 1)
    program = (
        "import sys, mnist_lab.__main__ as program\n"
        "sys.argv[1:] = ['ls']\n"
        "program.main()\n"
        "assert not {'torch', 'lightning', 'matplotlib', 'hydra'} & set(sys.modules)"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
