"""`ls` quickly lists every run below a folder, in any state, as a table or for programs."""

import builtins
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from lab import Command, Outcome, Tiny, assert_refused, thorough

from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Job, Sweep, write_job

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
    """Make a run folder with everything that a run leaves; the run started at this minute of an hour."""
    folder = Path("runs") / place
    for name in ("checkpoints", "figures"):
        (folder / name).mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
    (folder / "config.yaml").write_text("".join(f"setting_{i}: {i}\n" for i in range(100)))
    (folder / "metrics.csv").write_text("step,epoch,train/loss\n1,0,0.5\n")
    record = RECORD | {"started": f"2026-11-21T13:{minute:02}:00.000000+00:00"} | changes
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def fake_runs() -> None:
    """Make the run folders of a, of b, which is of lenet and has failed, and of a job of the sweep s."""
    fake("a", 1)
    Sweep.open(Path("runs/sweeps/s"), "-m sweep=s", ["optimizer.lr"], {"0123456789ab": ("optimizer.lr=0.1",)})
    write_job(Job(("optimizer.lr=0.1",), fake("sweeps/s/lr=0.1-0123456789ab", 2)))
    fake("b", 3, model="lenet", status="failed", metrics={})


def names(outcome: Outcome) -> list[str]:
    """Return the last part of each listed folder, in order."""
    assert outcome.status == 0, outcome.err
    return [Path(line.split()[-1]).name for line in outcome.out.splitlines()[1:]]


def test_runs_are_listed_oldest_first_with_their_results(command: Command) -> None:
    command("model=mlp", "dashboard=none", "trainer.max_epochs=1", "hydra.run.dir=runs/z/first")
    fake("a/second", 1, model="lenet", overrides=["trainer.max_epochs=1"], started="2999-01-01T00:00:00+00:00")
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


def test_latest_run_is_the_one_that_started_last_in_any_time_zone(tiny: Tiny) -> None:
    fake("second", 0, started="2026-10-25T02:10:00.000000+01:00")  # Summer time has ended.
    fake("first", 0, started="2026-10-25T02:30:00.000000+02:00")
    fake("third", 0, started="2026-10-25T01:20:00.000000+00:00")
    assert [run.folder.name for run in Run.below("runs")] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("date", ["b", "a", "c", "d"]),
        ("test/acc", ["a", "c", "b", "d"]),
        ("val/loss", ["c", "b", "a", "d"]),
        ("my/metric", ["c", "b", "a", "d"]),
    ],
)
def test_best_accuracy_or_least_other_value_is_first_and_runs_without_one_are_last(
    tiny: Tiny, command: Command, column: str, order: list[str]
) -> None:
    fake("b", 1, metrics={"test/acc": 0.7, "val/loss": 0.2}, seconds={"total": 1})
    fake("a", 2, metrics={"test/acc": 0.9, "val/loss": 0.3}, seconds={"total": 3})
    fake("c", 3, metrics={"test/acc": 0.8, "val/loss": 0.1, "my/metric": 5}, seconds={"total": 2})
    fake("d", 4, metrics={"test/acc": float("nan")}, seconds={})
    assert names(command("ls", "--sort", column, data=False)) == order


def test_damaged_record_is_listed_and_stops_neither_the_list_nor_latest(tiny: Tiny, command: Command) -> None:
    whole = fake("whole", 1)
    fake("odd", 2, started="in the morning")
    fake("null", 2, metrics=None)
    fake("typed", 3, metrics={"test/acc": "high"})
    for name, text in (("cut", '{"status": "fini'), ("empty", ""), ("other", "[1, 2]")):
        (fake(name, 3) / "run.json").write_text(text)
    outcome = command("ls", data=False)
    assert sorted(names(outcome)) == ["cut", "empty", "null", "odd", "other", "typed", "whole"]
    assert outcome.out.count(" damaged ") == 5
    for name in ("cut", "empty", "null", "other", "typed"):
        assert f"mnist_lab: warning: runs/{name}/run.json: " in outcome.err
    assert outcome.err.count("\n") == 5
    assert len(json.loads(command("ls", "--json", "--sort", "test/acc", data=False).out)) == 7
    (Path("runs") / "odd" / "run.json").unlink()
    assert Run.find("latest").folder == whole
    assert [run.folder for run in Run.below("runs")] == [whole]


def test_empty_list_is_no_error(tiny: Tiny, lab: Command) -> None:
    Path("runs").mkdir()
    outcome = lab("ls", "--sort", "test/acc")
    assert (outcome.status, outcome.out, outcome.err) == (0, "no run below runs\n", "")
    assert lab("ls", "--json").out == "[]\n"


def test_listing_reads_one_file_of_each_run(tiny: Tiny, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """That keeps a list of a thousand runs below a second, which benchmarks.start measures."""
    for number in range(50):
        fake(f"2026-11-{1 + number % 28:02}/{number:04}-mlp", number % 60)
    opened: list[str] = []

    def recording(file: Any, *arguments: Any, **settings: Any) -> Any:
        opened.append(Path(file).name)
        return original(file, *arguments, **settings)

    original = io.open
    for module in (io, builtins):  # pathlib uses the first, other code the second.
        monkeypatch.setattr(module, "open", recording)
    outcome = command("ls", "--sort", "test/acc", data=False)
    monkeypatch.undo()
    assert len(names(outcome)) == 50
    assert opened == ["run.json"] * 50


@pytest.mark.parametrize("columns", [60, 100, *thorough(80, 120)])
def test_table_fits_the_terminal_and_names_each_run_as_commands_take_it(
    tiny: Tiny, command: Command, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    overrides = ["model=dropout_cnn", "optimizer.weight_decay=0.0001", "data.batch_size=1000"]
    long = f"sweeps/wide/{','.join(overrides)}"
    folders = [
        fake("2026-11-21/13-42-00-752418-dropout_cnn", 1, model="dropout_cnn", overrides=overrides),
        fake(f"{long}-0123456789ab", 2, status="interrupted", overrides=overrides),
        fake(f"{long}-ba9876543210", 3, overrides=[]),
    ]
    complete = command("ls", data=False).out
    assert [line.split()[-1] for line in complete.splitlines()[1:]] == [str(folder) for folder in folders]
    assert f"  {' '.join(overrides)}  {folders[0]}" in complete, "nothing is left out of a pipe"
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    head, *lines = command("ls", data=False).out.splitlines()
    assert max(map(len, [head, *lines])) <= columns
    assert {"status", "test/acc", "run"} <= set(head.split())
    assert ("overrides" in head) == (columns >= 100)
    assert [Run.find(line.split()[-1]).folder for line in lines] == folders


@pytest.mark.parametrize(
    "line",
    ["ls runs/sweeps/s", "ls --columns run,optimizer.lr", "status s", "status r1", "compare runs", "presets"],
)
def test_no_line_of_a_table_is_wider_than_the_terminal(
    tiny: Tiny, command: Command, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    keys = ("data.source.path", "callbacks.early_stopping.patience", "optimizer.lr")
    jobs = {f"{i:012}": [f"{key}={'long' * 9}{i}" for key in keys] for i in range(8)}
    Sweep.open(Path("runs/sweeps/s"), "-m sweep=s", keys, jobs)
    for i, (id, overrides) in enumerate(jobs.items()):
        folder = fake(f"sweeps/s/{','.join(overrides)[:150]}-{id}", i, overrides=overrides)
        write_job(Job(tuple(overrides), folder, process={"host": "node" * 9}))
        (folder / "config.yaml").write_text(f"data: {{source: {{path: {'long' * 9}{i}}}}}\noptimizer: {{lr: {i}}}\n")
    fake("r1", 30, overrides=["model=mlp"] * 9, max_epochs=1)
    (Path("runs/r1") / "config.yaml").write_text("optimizer: {lr: 5}\n")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    outcome = command(*line.split(), data=False)
    table = [row for row in outcome.out.splitlines() if "  " in row]
    assert outcome.status == 0 and len(table) > 1 and max(map(len, table)) <= 80, outcome.out


def test_run_is_found_by_a_unique_beginning_or_end_of_its_name(tiny: Tiny, command: Command) -> None:
    morning = fake("2026-11-21/09-15-00-000001-mlp", 1)
    noon = fake("2026-11-21/12-00-00-000002-lenet", 2)
    job = fake("sweeps/s/optimizer.lr=0.1-0123456789ab", 3)
    for name, folder in (
        ("09-15", morning),
        ("lenet", noon),
        ("2026-11-21/12", noon),
        ("0123456789ab", job),
        (str(noon), noon),
    ):
        assert Run.find(name).folder == folder
    for name, error in (
        ("2026-11-21", "2026-11-21: 2 runs match; give more of the name: 2026-11-21/09-15-00-000001-mlp, "),
        ("00", "00: run folder not found, nor the beginning or end of a run's name below runs"),
        ("x" * 5000, "run folder not found"),
    ):
        outcome = command("test", name, data=False)
        assert_refused(outcome, "", error)
        assert len(outcome.err) < 300


def test_limit_keeps_the_latest_or_with_sort_the_first(tiny: Tiny, command: Command) -> None:
    for number, accuracy in enumerate([0.9, 0.7, 0.8]):
        fake(f"r{number}", number, metrics={"test/acc": accuracy})
    assert names(command("ls", "--limit", "2", data=False)) == ["r1", "r2"]
    assert names(command("ls", "--limit", "2", "--sort", "test/acc", data=False)) == ["r0", "r2"]
    assert len(json.loads(command("ls", "--limit", "1", "--json", data=False).out)) == 1


def test_seeds_of_the_same_settings_are_one_line(tiny: Tiny, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (lr, seed) in enumerate([(0.1, 1), (0.1, 2), (0.1, 3), (0.2, 1)]):
        overrides = ["model=mlp", f"seed={seed}", f"optimizer.lr={lr}"]
        metrics = {"val/acc": 0.9, "test/acc": 0.8 + lr / 10 + seed / 100}
        folder = fake(f"r{number}", number, overrides=overrides, seed=seed, metrics=metrics)
        (folder / "config.yaml").write_text(f"seed: {seed}\noptimizer: {{lr: {lr}}}\n")
    fake("under_way", 50, status="running")
    outcome = command("ls", "--group", "seed", "--sort", "test/acc", data=False)
    head, first, second = outcome.out.splitlines()
    assert head.split() == ["date", "model", "n", "seeds", "val/acc", "test/acc", "time", "overrides"]
    cells = [" ".join(line.split()[2:]) for line in (first, second)]
    assert cells[0] == "mlp 3 1 2 3 90.00% ± 0.00 83.00% ± 1.00 12.3 s ± 0.0 model=mlp optimizer.lr=0.1"
    assert cells[1] == "mlp 1 1 90.00% 83.00% 12.3 s model=mlp optimizer.lr=0.2"
    assert outcome.err == "mnist_lab: warning: runs that have not finished are left out: 1 killed\n"
    (row,) = json.loads(command("ls", "--group", "seed", "--limit", "1", "--json", data=False).out)
    assert (row["n"], row["seeds"], row["runs"], row["test/acc_std"]) == (1, [1], ["runs/r3"], None)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = command("ls", "--group", "seed", data=False).out.splitlines()
    assert max(map(len, shown)) <= 80 and {"n", "test/acc", "overrides"} <= set(shown[0].split())
