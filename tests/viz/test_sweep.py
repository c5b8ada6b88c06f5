"""Figures of a sweep: heat map, response to a setting, ranking, learning curves."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from mnist_lab.config.overrides import without_keys
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.viz.style import COLOURS
from mnist_lab.viz.sweep import plot_accuracy_map, plot_ranking, plot_response, plot_sweep_curves


def results(*settings: dict[str, str]) -> Results:
    """Return results of jobs with these settings whose accuracy falls from 97 % by 1 % each; seeds share a place."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for i, values in enumerate(settings):
        epochs = [{"epoch": 0, "val/acc": 0.9}, {"epoch": 1, "val/acc": 0.95}]
        job = SimpleNamespace(info={"metrics": {"val/acc": 0.97 - 0.01 * i}}, folder=Path("job"), epochs=epochs)
        job.overrides = [f"{key}={value}" for key, value in values.items()]
        groups.setdefault(tuple(without_keys(job.overrides, "seed")), []).append(job)  # type: ignore[arg-type]
    ranked = list(groups.values())
    return Results(Sweep(Path("s")), [job for group in ranked for job in group], ranked)


def fractions(axes: Axes) -> list[float]:
    """Return the places of the points between the ends of the axis, from left to right."""
    axes.get_xlim()  # This scales the axis.
    points = np.asarray(axes.get_lines()[0].get_xydata())
    return axes.transAxes.inverted().transform(axes.transData.transform(points))[:, 0].round(2).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("values", "places", "labels"),
    [
        (["0.9", "0", "0.5"], [0.05, 0.55, 0.95], None),
        (["0.1", "0.001", "0.01"], [0.05, 0.5, 0.95], None),
        (["mlp", "lenet"], [0.05, 0.95], ["lenet", "mlp"]),
        (["5", "none", "30"], [0.05, 0.5, 0.95], ["5", "30", "none"]),
    ],
)
def test_settings_values_are_placed_and_named(values: list[str], places: list[float], labels: list[str] | None) -> None:
    (axes,) = plot_response(results(*({"optimizer.lr": value} for value in values)), "optimizer.lr").axes
    assert fractions(axes) == places
    if labels:
        assert [text.get_text() for text in axes.get_xticklabels()] == labels


def test_response_and_ranking_have_mean_and_spread_over_seeds() -> None:
    found = results(*({"model": model, "seed": seed} for model in ("mlp", "lenet") for seed in "01"))
    for figure, values in (
        (plot_response(found, "model"), [(0, 94.5), (1, 96.5)]),
        (plot_ranking(found), [(96.5, 0), (94.5, 1)]),
    ):
        (axes,) = figure.axes
        np.testing.assert_allclose(np.asarray(axes.get_lines()[0].get_xydata()), values)
        (bars,) = axes.collections
        lengths = [np.ptp(segment, axis=0).max() for segment in bars.get_segments()]  # type: ignore[attr-defined]
        np.testing.assert_allclose(lengths, 2 * np.std([0, 1], ddof=1))
    labels = [text.get_text() for text in plot_ranking(found).axes[0].get_yticklabels()]
    assert labels == ["model=mlp", "model=lenet"]
    assert plot_ranking(found).get_label() == "model=mlp: 96.50% ± 0.71; model=lenet: 94.50% ± 0.71"


KEYS = ("optimizer.lr", "optimizer.weight_decay", "data.batch_size", "model.dropout", "optimizer.momentum")
NAMES = ("a_very_long_name_of_an_optimizer", "another_long_name", "sgd")


def grid(rows: int, columns: int) -> Results:
    return results(*(dict(zip(KEYS, (str(0.5**i), str(j)), strict=False)) for i in range(columns) for j in range(rows)))


@pytest.mark.parametrize(
    "plot",
    [
        *(lambda size=size: plot_accuracy_map(grid(*size), *KEYS[:2]) for size in ((2, 2), (4, 3), (2, 9))),
        lambda: plot_response(results(*({"optimizer": name} for name in NAMES)), "optimizer"),
        lambda: plot_response(grid(1, 12), KEYS[0]),
        lambda: plot_ranking(results(*(dict.fromkeys(KEYS, value) for value in ("0.01", "0.03")))),
        lambda: plot_sweep_curves(results(*(dict.fromkeys(KEYS, value) for value in ("0.01", "0.03"))), "acc"),
    ],
)
def test_every_text_is_inside_its_figure_and_plain(plot: Callable[[], Figure]) -> None:
    figure = plot()
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]  # type: ignore[attr-defined]
    for axes in figure.axes:  # matplotlib does not draw ticks beyond the ends of an axis.
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            hidden = [tick for tick in axis.get_major_ticks() if not min(low, high) <= tick.get_loc() <= max(low, high)]
            texts = [text for text in texts if not any(text in (tick.label1, tick.label2) for tick in hidden)]
    boxes = [(text, text.get_window_extent()) for text in texts]
    whole = figure.bbox
    outside = [text.get_text() for text, box in boxes if (box.min < whole.min).any() or (box.max > whole.max).any()]
    assert texts and outside == []
    assert not any("$" in text.get_text() for text in texts)


def test_legend_names_the_best_job_with_the_colour_of_its_curve() -> None:
    found = results({"optimizer.lr": "0.1", "seed": "0"}, {"optimizer.lr": "0.1", "seed": "1"})
    found.ranked[0][1].info["metrics"]["val/acc"] = 0.99
    figure = plot_sweep_curves(found, "acc")
    assert figure is not None
    (legend,) = figure.legends
    assert legend.get_texts()[0].get_text() == "best: seed=1"
    assert legend.get_lines()[0].get_color() == COLOURS["val"]
