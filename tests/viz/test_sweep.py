"""Figures of a sweep: heat map, response to a setting, ranking, learning curves."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes

from mnist_lab.config.overrides import without_keys
from mnist_lab.runs.ranking import Results
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.viz.style import COLOURS
from mnist_lab.viz.sweep import plot_ranking, plot_response, plot_sweep_curves


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
        (["mlp", "lenet"], [1, 0], ["lenet", "mlp"]),
        (["5", "none", "30"], [0, 2, 1], ["5", "30", "none"]),
    ],
)
def test_settings_values_are_placed_and_named(values: list[str], places: list[float], labels: list[str] | None) -> None:
    """Numbers have places on an axis, and names, best first, have rows."""
    (axes,) = plot_response(results(*({"optimizer.lr": value} for value in values)), "optimizer.lr").axes
    if labels is None:
        assert fractions(axes) == places
    else:
        assert [text.get_text() for text in axes.get_yticklabels()] == labels
        ranked = sorted(np.asarray(axes.get_lines()[0].get_xydata()).tolist(), reverse=True)
        assert [row for _, row in ranked] == places


def test_response_and_ranking_have_mean_and_spread_over_seeds() -> None:
    found = results(*({"model": model, "seed": seed} for model in ("mlp", "lenet") for seed in "01"))
    for figure, values in (
        (plot_response(found, "model"), [(94.5, 0), (96.5, 1)]),
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


def grid(rows: int, columns: int) -> Results:
    return results(*(dict(zip(KEYS, (str(0.5**i), str(j)), strict=False)) for i in range(columns) for j in range(rows)))


def test_legend_names_the_best_job_with_the_colour_of_its_curve() -> None:
    found = results({"optimizer.lr": "0.1", "seed": "0"}, {"optimizer.lr": "0.1", "seed": "1"})
    found.ranked[0][1].info["metrics"]["val/acc"] = 0.99
    figure = plot_sweep_curves(found, "acc")
    assert figure is not None
    (legend,) = figure.legends
    assert legend.get_texts()[0].get_text() == "best: seed=1"
    assert legend.get_lines()[0].get_color() == COLOURS["val"]
