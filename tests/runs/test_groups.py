"""Runs that differ only in their seed are one row, with means and deviations."""

from pathlib import Path
from typing import Any

import pytest
import test_ls
from lab import Tiny

from mnist_lab.runs.listing import group_row, group_rows, row_cell
from mnist_lab.runs.run import Run


def fake(name: str, seed: int, minute: int = 0, **changes: Any) -> Run:
    """Make a run with a seed, from which its test accuracy and time follow."""
    metrics = {"test/acc": 0.9 + 0.01 * seed, "test/loss": 0.5}
    defaults = {"metrics": metrics, "seconds": {"total": 10.0 * seed}, "overrides": ["model=mlp", f"seed={seed}"]}
    folder = test_ls.fake(name, minute, **{"seed": seed, **defaults, **changes})
    (folder / "config.yaml").write_text(f"seed: {seed}\n")
    return Run(folder)


def row(*runs: Run) -> dict[str, Any]:
    return group_row({run: run.info for run in runs})


def names(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [[Path(run).name for run in each["runs"]] for each in rows]


def test_row_has_mean_and_sample_deviation_and_one_run_has_none(tiny: Tiny) -> None:
    made = row(fake("b", 3, 1), fake("a", 1, 2))
    assert made["test/acc"] == pytest.approx(0.92)
    assert made["test/acc_std"] == pytest.approx(0.02 / 2**0.5)
    assert (made["n"], made["seeds"], made["runs"]) == (2, [1, 3], ["runs/a", "runs/b"])
    assert (made["date"], made["overrides"]) == ("2026-11-21T13:02:00.000000+00:00", ["model=mlp"])
    assert (made["epochs"], made["epochs_std"], made["parameters"], made["time"]) == (1, 0, 130058, 20)
    assert row_cell(made, "test/acc") == "92.00% ± 1.41"
    assert row_cell(made, "test/loss") == "0.5000 ± 0.0000"
    assert row_cell(made, "time") == "20.0 s ± 14.1"
    assert row_cell(made, "epochs") == "1 ± 0"
    assert row_cell(made | {"seeds": list(range(40))}, "seeds") == "0 1 ... 39"
    alone = row(fake("c", 1))
    assert (alone["n"], alone["test/acc"], alone["test/acc_std"]) == (1, 0.91, None)
    assert row_cell(alone, "test/acc") == "91.00%"


def test_seed_that_was_repeated_counts_once(tiny: Tiny) -> None:
    made = row(
        fake("new", 1, 5, metrics={"test/acc": 0.5, "test/loss": float("nan")}), fake("old", 1, 4), fake("other", 2, 3)
    )
    assert (made["n"], made["seeds"], made["runs"]) == (2, [1, 2], ["runs/new", "runs/other"])
    assert made["test/acc"] == pytest.approx((0.5 + 0.92) / 2)
    assert (made["test/loss"], made["test/loss_std"]) == (None, None), "a run lacks it"


def test_only_finished_runs_with_a_readable_configuration_count(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    fake("whole", 1)
    for name, status in (("killed", "running"), ("failed", "failed"), ("broken", "failed")):
        fake(name, 2, status=status)
    (fake("unreadable", 3).folder / "config.yaml").write_text("[1")
    (fake("damaged", 4).folder / "run.json").write_text("{")
    assert names(group_rows(Run.records("runs"))) == [["whole"]]
    warnings = capsys.readouterr().err
    assert "warning: runs that have not finished are left out: " in warnings
    assert {"1 killed", "2 failed", "1 damaged"} == set(warnings.split("left out: ")[1].split("\n")[0].split(", "))
    assert "warning: runs/unreadable/config.yaml: not a run's configuration" in warnings
