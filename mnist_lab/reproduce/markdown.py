"""Render RESULTS.md from the summary in results.json."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from mnist_lab.config.metric_names import is_accuracy
from mnist_lab.formatting import render_template
from mnist_lab.reproduce.summary import TOLERANCE, AccuracySummary, PresetSummary, join_unique

HEADS = ("preset", "epochs", "published %", "here %", "range", "seeds", "difference", "verdict", "time of a run")


def markdown(summary: Mapping[str, PresetSummary]) -> str:
    """Render RESULTS.md.

    Args:
        summary: by preset, as `summarise` returns it.
    """
    return render_template(
        Path(__file__).with_name("results.md.j2"),
        tolerance=TOLERANCE,
        summary=summary,
        heads=HEADS,
        overview=[overview_cells(f"[{name}](#{name})", row) for name, row in summary.items()],
        epochs={name: _epoch_rows(row) for name, row in summary.items()},
        epoch_heads=_epoch_heads,
        format_mean=_format_mean,
        join_unique=join_unique,
    )


def overview_cells(name: str, row: PresetSummary) -> list[str]:
    """Return a preset's cells of the table with HEADS."""
    accuracy = row["test_acc"]
    return [
        name,
        str(row["epochs"]),
        "-" if accuracy["published"] is None else f"{accuracy['published']:g}",
        _format_mean(accuracy),
        f"{accuracy['min']:.2f} to {accuracy['max']:.2f}",
        str(len(row["seeds"])),
        "-" if accuracy["difference"] is None else f"{accuracy['difference']:+.2f}",
        accuracy["verdict"],
        f"{row['seconds']['mean']:.0f} s",
    ]


def _epoch_heads(row: PresetSummary) -> list[str]:
    metrics = [(metric.split("/")[0], "accuracy, %" if is_accuracy(metric) else "loss") for metric in row["published"]]
    return ["epoch", *(f"{of}{kind} {what}" for kind, what in metrics for of in ("published ", "", "difference of "))]


def _epoch_rows(row: PresetSummary) -> list[list[str]]:
    """Return, for each epoch with a published figure, the cells of each metric: published, here, difference."""
    rows = []
    for epoch in range(row["epochs"] + 1):
        cells = [cell for metric in row["published"] for cell in _compare(row, metric, epoch)]
        if any(cells):
            rows.append([str(epoch), *cells])
    return rows


def _compare(row: PresetSummary, metric: str, epoch: int) -> tuple[str, str, str]:
    published, here = row["published"][metric][epoch : epoch + 1], row["curves"][metric][epoch]
    if not published or published[0] is None or not here:
        return "", "", ""
    digits = 2 if is_accuracy(metric) else 4
    mean = statistics.fmean(here)
    spread = f" ± {statistics.stdev(here):.{digits}f}" if len(here) > 1 else ""
    return f"{published[0]:.{digits}f}", f"{mean:.{digits}f}{spread}", f"{mean - published[0]:+.{digits}f}"


def _format_mean(accuracy: AccuracySummary) -> str:
    return f"{accuracy['mean']:.2f}" + ("" if accuracy["std"] is None else f" ± {accuracy['std']:.2f}")
