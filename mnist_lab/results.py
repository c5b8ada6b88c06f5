"""RESULTS.md, results.json and figures: the presets over several seeds, beside what their tutorials published."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from mnist_lab import figures
from mnist_lab.check import differences
from mnist_lab.config import compose
from mnist_lab.files import replacing
from mnist_lab.runs import Run
from mnist_lab.terminal import console

TOLERANCE = 0.3  # points by which a mean test accuracy may fall short of the published one and still have reached it
FACTORS = {"train/loss": 1, "test/loss": 1, "train/acc": 100, "test/acc": 100}  # to the unit of the table: per cent
INTRODUCTION = f"""\
# The tutorials, reproduced

Written by `python -m mnist_lab reproduce`: every tutorial's network at the tutorial's own settings, trained on all
60,000 images with the seeds 1, 2, ... The test set, evaluated after every epoch, chose nothing. Here: mean ± standard
deviation over the seeds of the test accuracy after the last epoch. The verdict is *reached* where the mean is at most
{TOLERANCE} points below the published figure.

"""
HEADS = ("preset", "epochs", "published %", "here %", "range", "seeds", "difference", "verdict", "time of a run")


def write(runs_dir: Path, out: Path) -> None:
    """Compare the finished runs below runs_dir with the published figures, into out, and print the table."""
    summary = summarise(runs_dir)
    if not summary:
        console.print(f"no finished run below {runs_dir} yet: no table", soft_wrap=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, row in summary.items():
        figures.against_published(name, row).savefig(out / f"{name}.png", dpi=120)
    for file, text in (("results.json", json.dumps(summary, indent=1) + "\n"), ("RESULTS.md", markdown(summary))):
        with replacing(out / file) as partial:
            partial.write_text(text)
    short = [HEADS.index(head) for head in ("preset", "published %", "here %", "seeds", "verdict")]
    table = Table(*(HEADS[i] for i in short))
    for name, row in summary.items():
        cells = _cells(name, row)
        table.add_row(*(cells[i] for i in short))
    console.print(table)
    console.print(f"written: {out / 'RESULTS.md'}, {out / 'results.json'}", soft_wrap=True)


def summarise(runs_dir: Path) -> dict[str, Any]:
    """By preset, its curves and final figures over the seeds, the published ones, times, machine and versions.

    Accuracies are in per cent. A curve is a list by epochs done, 0 being before training, of lists by seed.
    """
    found: dict[str, list[Run]] = {}
    for path in runs_dir.glob("*-seed*/run.json"):
        run = Run(path.parent)
        if run.info["status"] == "finished":
            found.setdefault(run.folder.name.rsplit("-seed", 1)[0], []).append(run)
    return {
        name: _row(name, sorted(runs, key=lambda run: int(run.info["seed"]))) for name, runs in sorted(found.items())
    }


def _row(name: str, runs: list[Run]) -> dict[str, Any]:
    infos = [run.info for run in runs]
    tutorial = runs[0].tutorial
    published = tutorial.get("published", {})
    epochs = max(info["epochs"] for info in infos)
    curves = {}
    for metric, factor in FACTORS.items():
        by_seed = [run.curve(metric) for run in runs]
        curves[metric] = [
            [round(factor * curve[epoch], 6) for curve in by_seed if epoch in curve] for epoch in range(epochs + 1)
        ]
    accuracies = [round(100 * info["metrics"]["test/acc"], 6) for info in infos]
    mean, target = statistics.fmean(accuracies), published.get("test/acc", [None])[-1]
    changed = _changed(name, runs)
    if target is None or changed:
        difference, verdict = None, "not compared"
    else:
        difference = round(mean - target, 6)
        verdict = "reached" if difference >= -TOLERANCE else f"missed by {-TOLERANCE - difference:.2f}"
    seconds = [info["seconds"]["total"] for info in infos]
    return {
        "command": f"python -m mnist_lab experiment={name}",
        "changed": changed,
        **{key: tutorial.get(key) for key in ("title", "source", "published", "explained_by", "disagreements")},
        "epochs": epochs,
        "seeds": [info["seed"] for info in infos],
        "test_acc": {
            "published": target,
            "mean": round(mean, 6),
            "std": round(statistics.stdev(accuracies), 6) if len(accuracies) > 1 else None,
            "min": min(accuracies),
            "max": max(accuracies),
            "difference": difference,
            "verdict": verdict,
        },
        "curves": curves,
        "seconds": {"mean": statistics.fmean(seconds), "min": min(seconds), "max": max(seconds)},
        **{key: _distinct(info[key] for info in infos) for key in ("device", "processor")},
        "versions": {key: _distinct(info["versions"].get(key) for info in infos) for key in infos[0]["versions"]},
        "commits": _distinct(_commit(info) for info in infos),
    }


def _changed(name: str, runs: list[Run]) -> list[str]:
    """The settings in which the runs depart from their preset."""
    found: dict[str, None] = {}
    for run in runs:
        own = compose(f"experiment={name}", "callbacks.summary=null", config_dir=run.info["config_dir"])
        ours = differences(own, run.config)
        found |= dict.fromkeys(f"{key}={now}" for key, (_, now) in ours.items() if key != "seed")
    return list(found)


def _commit(info: dict[str, Any]) -> str:
    git = info["git"] or {"commit": "unknown", "changed": False}
    return git["commit"][:12] + (" and changes" if git["changed"] else "")


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def markdown(summary: dict[str, Any]) -> str:
    """RESULTS.md of what results.json has."""
    return "\n".join(_lines(summary)) + "\n"


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    yield from INTRODUCTION.splitlines()
    yield from _table(HEADS, [_cells(f"[{name}](#{name})", row) for name, row in summary.items()])
    yield ""
    for key, words in (("processor", "Processor"), ("device", "Used"), ("commits", "Commit")):
        yield f"{words}: {_distinct(row[key] for row in summary.values())}.  "
    versions = next(iter(summary.values()))["versions"]
    yield (
        "Versions: "
        + ", ".join(f"{name} {_distinct(row['versions'].get(name) for row in summary.values())}" for name in versions)
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
        f"{metric.split('/')[0]} {'accuracy, %' if metric.endswith('acc') else 'loss'}"
        for metric in row["published"] or {}
    ]
    rows = []
    for epoch in range(row["epochs"] + 1):
        cells = [cell for metric in row["published"] or {} for cell in _comparison(row, metric, epoch)]
        if any(cells):
            rows.append([str(epoch), *cells])
    if rows:
        yield from _table(
            ["epoch", *(f"{words}{head}" for head in heads for words in ("published ", "", "difference of "))], rows
        )
        yield ""
    other = summary.get(row["explained_by"])
    if other:
        yield f"The difference is explained by `experiment={row['explained_by']}`: {_mean(other)} %."
        yield ""
    if row["disagreements"]:
        yield "Where the tutorial's text, code and printed figures disagree:"
        yield from (f"- {line}" for line in row["disagreements"])


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


def _cells(name: str, row: dict[str, Any]) -> list[str]:
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
