"""RESULTS.md, of what results.json has."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

from mnist_lab.reproduce.summary import TOLERANCE, join_unique

INTRODUCTION = f"""\
# The tutorials, reproduced

Made of the runs of `python -m mnist_lab reproduce`: every tutorial's network at the tutorial's own settings, trained on
all 60,000 images with the seeds 1, 2, ... The test set, evaluated after every epoch, chose nothing. Here: mean ±
standard deviation over the seeds of the test accuracy after the last epoch. *Reached*: the mean is at most
{TOLERANCE} points below the published figure.

"""
HEADS = ("preset", "epochs", "published %", "here %", "range", "seeds", "difference", "verdict", "time of a run")


def markdown(summary: dict[str, Any]) -> str:
    """RESULTS.md of what results.json has."""
    return "\n".join(_lines(summary)) + "\n"


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    yield from INTRODUCTION.splitlines()
    yield from _table(HEADS, [cells_of(f"[{name}](#{name})", row) for name, row in summary.items()])
    yield ""
    for key, words in (("processor", "Processor"), ("device", "Used"), ("commits", "Commit")):
        yield f"{words}: {join_unique(row[key] for row in summary.values())}.  "
    versions = next(iter(summary.values()))["versions"]
    yield (
        "Versions: "
        + ", ".join(f"{name} {join_unique(row['versions'].get(name) for row in summary.values())}" for name in versions)
        + "."
    )
    for name, row in summary.items():
        yield from _section(name, row, summary)


def _section(name: str, row: dict[str, Any], summary: dict[str, Any]) -> Iterator[str]:
    title = f'"{row["title"]}", {row["source"]}: ' if row["title"] else ""
    yield from ("", f"## {name}", "", f"{title}`{row['command']}`", "")
    if row["changed"]:
        yield from (f"Not the preset as it stands, and so not compared: {', '.join(row['changed'])}.", "")
    yield f"![{name}: loss and accuracy by epoch]({name}.png)"
    yield ""
    heads = [
        f"{metric.split('/')[0]} {'accuracy, %' if metric.endswith('acc') else 'loss'}" for metric in row["published"]
    ]
    rows = []
    for epoch in range(row["epochs"] + 1):
        cells = [cell for metric in row["published"] for cell in _comparison(row, metric, epoch)]
        if any(cells):
            rows.append([str(epoch), *cells])
    if rows:
        yield from _table(
            ["epoch", *(f"{words}{head}" for head in heads for words in ("published ", "", "difference of "))], rows
        )
        yield ""
    largest = row["test_acc"]["largest_difference"]
    if largest:
        where = f"{largest['difference']:+.2f} points, after epoch {largest['epoch']}"
        yield f"From epoch 3 on, the largest difference of the mean test accuracy is {where}."
        yield ""
    other = summary.get(row["explained_by"])
    if other:
        yield f"An experiment on the difference, `experiment={row['explained_by']}`, gives {_mean(other)} %."
        yield ""
    if row["disagreements"]:
        yield "Where the tutorial's text, code and printed figures disagree:"
        yield from ("", *(f"- {line}" for line in row["disagreements"]))
    else:
        yield "Nowhere do the tutorial's text, code and printed figures disagree, as far as we know."


def _comparison(row: dict[str, Any], metric: str, epoch: int) -> tuple[str, str, str]:
    """Published, ours, and the difference, after so many epochs; empty where nothing was published."""
    values = row["published"][metric]
    here = row["curves"][metric][epoch]
    if epoch >= len(values) or values[epoch] is None or not here:
        return "", "", ""
    digits = 2 if metric.endswith("acc") else 4
    mean = statistics.fmean(here)
    spread = f" ± {statistics.stdev(here):.{digits}f}" if len(here) > 1 else ""
    return f"{values[epoch]:.{digits}f}", f"{mean:.{digits}f}{spread}", f"{mean - values[epoch]:+.{digits}f}"


def cells_of(name: str, row: dict[str, Any]) -> list[str]:
    accuracy = row["test_acc"]
    return [
        name,
        str(row["epochs"]),
        "-" if accuracy["published"] is None else f"{accuracy['published']:g}",
        _mean(row),
        f"{accuracy['min']:.2f} to {accuracy['max']:.2f}",
        str(len(row["seeds"])),
        "-" if accuracy["difference"] is None else f"{accuracy['difference']:+.2f}",
        accuracy["verdict"],
        f"{row['seconds']['mean']:.0f} s",
    ]


def _mean(row: dict[str, Any]) -> str:
    accuracy = row["test_acc"]
    return f"{accuracy['mean']:.2f}" + ("" if accuracy["std"] is None else f" ± {accuracy['std']:.2f}")


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"
