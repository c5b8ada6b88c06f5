"""The tutorials' presets over several seeds beside the published figures: results.json, RESULTS.md and figures."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure
from omegaconf import OmegaConf

from mnist_lab.config.compose import compose
from mnist_lab.config.metric_names import METRIC_NAMES, TEST_ACC, is_accuracy
from mnist_lab.config.settings import format_differences
from mnist_lab.files import write_text
from mnist_lab.formatting import Markdown, escape_markdown, render_template
from mnist_lab.runs.record import RunRecord
from mnist_lab.runs.run import Run
from mnist_lab.viz.curves import METRICS, SETS, finish_axes, plot_published
from mnist_lab.viz.save import write_figure
from mnist_lab.viz.style import set_title, styled

TOLERANCE = 0.3  # points; a mean test accuracy at most so far below the published one has reached it
PAGE, SUMMARY = "RESULTS.md", "results.json"
HEADS = ("preset", "epochs", "published %", "here %", "range", "seeds", "difference", "verdict", "time of a run")


def write_tutorials(found: Mapping[str, Sequence[Run]], out: Path) -> list[list[str]]:
    """Write summary, page and figures of finished runs by preset into a folder; return the rows of HEADS."""
    summary = {name: summarise(name, runs) for name, runs in found.items()}
    for name, row in summary.items():
        write_figure(plot_reproduction(name, row), out / f"{name}.png")
    write_text(out / SUMMARY, json.dumps(summary, indent=1) + "\n")
    write_text(out / PAGE, markdown(summary))
    return [_overview_cells(name, row) for name, row in summary.items()]


def summarise(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Summarise a preset's finished runs for results.json.

    Accuracies are in per cent. A curve is a list by epoch, 0 being before training, of lists by seed.
    """
    infos = [run.info for run in runs]
    preset = compose(f"experiment={name}", config_dir=infos[0]["config_dir"])
    tutorial: dict[str, Any] = OmegaConf.to_container(preset.tutorial)  # type: ignore[assignment]
    published = {metric: y for metric, y in (tutorial.get("published") or {}).items() if metric in METRIC_NAMES}
    epochs = max(info["epochs"] for info in infos)
    curves = {}
    for metric in METRIC_NAMES:
        factor, by_seed = 100 if is_accuracy(metric) else 1, [run.curve(metric) for run in runs]
        curves[metric] = [
            [round(factor * curve[epoch], 6) for curve in by_seed if epoch in curve] for epoch in range(epochs + 1)
        ]
    accuracies = [round(100 * info["metrics"][TEST_ACC], 6) for info in infos]
    mean, target = statistics.fmean(accuracies), (published.get(TEST_ACC) or [None])[-1]
    changed, difference, largest = changed_settings(name, runs), None, None
    if target is None or changed:
        verdict = f"not compared: {', '.join(changed) or 'nothing was published'}"
    else:
        difference = round(mean - target, 6)
        verdict = "reached" if difference >= -TOLERANCE else f"missed by {-TOLERANCE - difference:.2f}"
        largest = _largest_difference(published[TEST_ACC], curves[TEST_ACC])
    seconds = [info["seconds"]["total"] for info in infos]
    return {
        "command": f"python -m mnist_lab experiment={name}",
        "changed": changed,
        **{key: tutorial.get(key) for key in ("title", "source", "explained_by", "disagreements")},
        "published": published,
        "epochs": epochs,
        "seeds": [info["seed"] or 0 for info in infos],
        "test_acc": {
            "published": target,
            "mean": round(mean, 6),
            "std": round(statistics.stdev(accuracies), 6) if len(accuracies) > 1 else None,
            "min": min(accuracies),
            "max": max(accuracies),
            "difference": difference,
            "verdict": verdict,
            "largest_difference": largest,
        },
        "curves": curves,
        "seconds": {"mean": statistics.fmean(seconds), "min": min(seconds), "max": max(seconds)},
        "device": join_unique(info["device"] for info in infos),
        "processor": join_unique(info["processor"] for info in infos),
        "versions": {key: join_unique(info["versions"].get(key) for info in infos) for key in infos[0]["versions"]},
        "commits": join_unique(map(commit_of, infos)),
    }


def _largest_difference(published: Sequence[float | None], here: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """Return the epoch and the largest difference of the mean from the published figure from epoch 3 on, if known."""
    pairs = list(enumerate(zip(published, here, strict=False)))[3:]
    differences = {epoch: statistics.fmean(own) - there for epoch, (there, own) in pairs if own and there is not None}
    if len(differences) < 3:
        return None
    epoch = max(differences, key=lambda epoch: abs(differences[epoch]))
    return {"epoch": epoch, "difference": round(differences[epoch], 6)}


def changed_settings(name: str, runs: Sequence[Run]) -> list[str]:
    """Return the settings in which runs differ from their preset."""
    preset = compose(f"experiment={name}", config_dir=runs[0].info["config_dir"])
    differences = [item for run in runs for item in format_differences(preset, run.config).items()]
    return list(dict.fromkeys(f"{key}={now}" for key, (_, now) in differences if key != "seed"))


def commit_of(info: RunRecord) -> str:
    """Return the commit that a run was made with, and whether files were changed."""
    git = info["git"] or {"commit": "unknown", "changed": False}
    return str(git["commit"])[:12] + (" and changes" if git["changed"] else "")


def join_unique(values: Iterable[Any]) -> str:
    """Join the distinct values with commas."""
    return ", ".join(dict.fromkeys(map(str, values)))


def markdown(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Render RESULTS.md from the content of results.json."""
    links = {name: Markdown(f"[{escape_markdown(name)}](#{quote(name)})") for name in summary}
    return render_template(
        Path(__file__).with_name("results.md.j2"),
        tolerance=TOLERANCE,
        summary=summary,
        heads=HEADS,
        overview=[_overview_cells(links[name], row) for name, row in summary.items()],
        epochs={name: _epoch_rows(row) for name, row in summary.items()},
        epoch_heads=_epoch_heads,
        format_mean=_format_mean,
        join_unique=join_unique,
    )


def _overview_cells(name: str, row: Mapping[str, Any]) -> list[str]:
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


def _format_mean(accuracy: Mapping[str, Any]) -> str:
    return f"{accuracy['mean']:.2f}" + ("" if accuracy["std"] is None else f" ± {accuracy['std']:.2f}")


def _epoch_heads(row: Mapping[str, Any]) -> list[str]:
    metrics = [(metric.split("/")[0], "accuracy, %" if is_accuracy(metric) else "loss") for metric in row["published"]]
    return ["epoch", *(f"{of}{kind} {what}" for kind, what in metrics for of in ("published ", "", "difference of "))]


def _epoch_rows(row: Mapping[str, Any]) -> list[list[str]]:
    """Return, for each epoch with a published figure, the cells of each metric: published, here, difference."""
    rows = []
    for epoch in range(row["epochs"] + 1):
        cells = []
        for metric, figures in row["published"].items():
            published, here = [*figures, *[None] * epoch][epoch], row["curves"][metric][epoch]
            if published is None or not here:
                cells += ["", "", ""]
                continue
            digits, mean = 2 if is_accuracy(metric) else 4, statistics.fmean(here)
            spread = f" ± {statistics.stdev(here):.{digits}f}" if len(here) > 1 else ""
            cells += [f"{published:.{digits}f}", f"{mean:.{digits}f}{spread}", f"{mean - published:+.{digits}f}"]
        if any(cells):
            rows.append([str(epoch), *cells])
    return rows


@styled
def plot_reproduction(name: str, row: Mapping[str, Any]) -> Figure:
    """Plot a preset's curves from epoch 1 on, mean and range over its seeds, with the published points.

    The axes fit the test set and the published points; the first epochs of training may lie outside.
    """
    seeds = len(row["seeds"])
    figure = Figure(figsize=(9, 3.8))
    set_title(figure, f"{name}: mean and range of {seeds} seed{'s' * (seeds > 1)}, published figures as crosses")
    for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        shown: list[float] = []
        for kind, (words, colour) in SETS.items():
            by_epoch = enumerate(row["curves"].get(f"{kind}/{metric}", []))
            curve = {epoch: values for epoch, values in by_epoch if epoch > 0 and values}
            if curve:
                low, high = [min(values) for values in curve.values()], [max(values) for values in curve.values()]
                axes.plot(list(curve), list(map(statistics.fmean, curve.values())), color=colour, label=words)
                axes.fill_between(list(curve), low, high, color=colour, alpha=0.2, linewidth=0)
                shown += [*low, *high] if kind == "test" else []
            shown += plot_published(axes, row, f"{kind}/{metric}")
        if shown and metric == "loss":
            axes.set_ylim(top=1.15 * max(shown))
        elif shown:
            axes.set_ylim(bottom=min(shown) - 0.1 * (100 - min(shown)))
        finish_axes(axes, "epoch", METRICS[metric][0])
        axes.legend()
    return figure
