"""The curves of several runs in one figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_lab.runs.run import Run
from mnist_lab.viz.curves import METRICS, SETS
from mnist_lab.viz.style import distinct_colours, styled

MAX_NAMED = 24  # runs in the legend


@styled
def plot_comparison(runs: Sequence[Run], labels: Sequence[str]) -> Figure | None:
    """Plot loss and accuracy of runs by epoch: a row of axes for each set, a colour for each run; None without a curve.

    The test set has axes if a run evaluated it more than once; that of a run that did so once is a star there.
    """
    curves = {
        f"{kind}/{name}": [{x: by * y for x, y in run.curve(f"{kind}/{name}").items()} for run in runs]
        for kind in SETS
        for name, (_, by) in METRICS.items()
    }
    longest = {kind: max(map(len, curves[f"{kind}/loss"])) for kind in SETS}
    kinds = [kind for kind in SETS if longest[kind] > (kind == "test")]
    if not kinds:
        return None
    colours = distinct_colours(len(runs))
    columns = 2 if len(runs) > 4 and max(map(len, labels)) < 60 else 1
    height = 2.9 * len(kinds) + 0.3 + 0.2 * min(len(runs), MAX_NAMED) / columns
    figure = Figure(figsize=(10, height), layout="constrained")
    grid = figure.subplots(len(kinds), len(METRICS), sharex=True, squeeze=False)
    for i, kind in enumerate(kinds):
        for axes, (name, (up, _)) in zip(grid[i], METRICS.items(), strict=True):
            for curve, label, colour in zip(curves[f"{kind}/{name}"], labels, colours, strict=True):
                x, y = list(curve), list(curve.values())
                marker, size = ("*", 11) if kind == "test" and len(curve) == 1 else ("o", 3)
                axes.plot(x, y, "-", marker=marker, markersize=size, linewidth=1.2, color=colour, label=label)
            shown = [y for curve in curves[f"{kind}/{name}"] for y in curve.values()]
            if name == "loss" and 0 < 10 * min(shown) < max(shown):
                axes.set_yscale("log")  # beside a run that hardly learns, the others would be one line
                axes.yaxis.set_major_formatter("{x:g}")
            axes.set_title(SETS[kind][0], fontsize=10)
            axes.set_ylabel(up)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid()
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    handles = grid[0][0].get_lines()
    figure.legend(
        handles=handles[:MAX_NAMED],
        title=f"the first {MAX_NAMED} of {len(runs)} runs" if len(runs) > MAX_NAMED else None,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
    )
    return figure
