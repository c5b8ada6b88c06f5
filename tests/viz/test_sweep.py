"""Pictures of a sweep: by one setting, and ranked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from mnist_lab.runs.ranking import Results
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.viz.heatmap import plot_accuracy_map
from mnist_lab.viz.style import COLOURS, TITLE_HEIGHT
from mnist_lab.viz.sweep import plot_ranking, plot_response, plot_sweep_curves


def results(*settings: dict[str, str]) -> Results:
    """Return the results of a sweep whose jobs fall from 97 % by 1 % each; seeds are one place in the ranking."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for i, own in enumerate(settings):
        job = FakeJob(tuple(f"{key}={value}" for key, value in own.items()), 0.97 - 0.01 * i)
        groups.setdefault(tuple(o for o in job.overrides if not o.startswith("seed=")), []).append(job)  # type: ignore[arg-type]
    ranked = list(groups.values())
    return Results(Sweep(Path("s")), [job for group in ranked for job in group], ranked)


@dataclass(frozen=True)
class FakeJob:
    overrides: tuple[str, ...]
    accuracy: float
    info: dict[str, Any] = field(init=False, hash=False)
    folder: Path = Path("job")
    epochs: tuple[dict[str, float], ...] = ({"epoch": 0, "val/acc": 0.9}, {"epoch": 1, "val/acc": 0.95})

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", {"metrics": {"val/acc": self.accuracy}})


def fractions(axes: Axes) -> list[float]:
    """Where the points lie between the axis' ends, from left to right."""
    points = np.asarray(axes.get_lines()[0].get_xydata())
    return axes.transAxes.inverted().transform(axes.transData.transform(points))[:, 0].round(2).tolist()  # type: ignore[no-any-return]


def ticks(axes: Axes) -> list[str]:
    low, high = axes.get_xlim()
    shown = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    return [text.get_text() for place, text in shown if low <= place <= high]


@pytest.mark.parametrize(
    ("values", "places", "labels"),
    [
        (["0.9", "0", "0.5"], [0.05, 0.55, 0.95], ["0", "0.5", "0.9"]),
        (["0.1", "0.001", "0.01"], [0.05, 0.5, 0.95], ["0.001", "0.01", "0.1"]),
        (["mlp", "lenet"], [0.05, 0.95], ["lenet", "mlp"]),
        (["0", "0.01", "1"], [0.05, 0.06, 0.95], ["0", "1"]),
        ([str(0.003 * 1.1**i) for i in range(30)], None, ["0.003", "0.01", "0.03"]),
    ],
    ids=["size", "logarithm", "side by side", "too close", "many"],
)
def test_values_of_a_setting_are_placed_and_named(
    values: list[str], places: list[float] | None, labels: list[str]
) -> None:
    (axes,) = plot_response(results(*({"optimizer.lr": value} for value in values)), "optimizer.lr").axes
    assert ticks(axes) == labels
    if places:
        assert fractions(axes) == places


def test_long_names_are_turned_and_stay_inside_the_figure() -> None:
    names = ["a_very_long_name_of_an_optimizer", "another_long_name", "sgd"]
    figure = plot_response(results(*({"optimizer": name} for name in names)), "optimizer")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in (*axes.get_xticklabels(), axes.xaxis.label)]
    assert min(box.y0 for box in boxes) >= 0


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
    assert [text.get_text() for text in plot_ranking(found).axes[0].get_yticklabels()] == ["mlp", "lenet"]
    assert "model=lenet: 94.50% ± 0.71" in str(plot_ranking(found).get_label())


def test_names_of_many_settings_stay_inside_the_figure() -> None:
    keys = ("optimizer.lr", "optimizer.momentum", "data.batch_size", "model.dropout", "optimizer.weight_decay")
    found = results(*(dict.fromkeys(keys, value) for value in ("0.01", "0.03")))
    curves = plot_sweep_curves(found, "acc")
    assert curves is not None
    ranking = plot_ranking(found)
    heat_map = plot_accuracy_map(found, "optimizer.lr", "optimizer.weight_decay")
    for figure in (curves, ranking, heat_map):
        figure.draw_without_rendering()
    (axes,) = ranking.axes
    (head,) = axes.findobj(lambda artist: isinstance(artist, Text) and artist.get_text().startswith("lr · momentum"))
    (cells,) = heat_map.axes
    (legend,) = curves.legends
    for figure, box in (
        (ranking, head.get_window_extent()),
        (curves, legend.get_window_extent()),
        (heat_map, cells.yaxis.label.get_window_extent()),
    ):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1 - (TITLE_HEIGHT * figure.dpi if figure is heat_map else -0.01)


def test_legend_names_the_best_job_with_the_colour_of_its_curve() -> None:
    found = results({"optimizer.lr": "0.1", "seed": "0"}, {"optimizer.lr": "0.1", "seed": "1"})
    object.__setattr__(found.ranked[0][1], "info", {"metrics": {"val/acc": 0.99}})
    figure = plot_sweep_curves(found, "acc")
    assert figure is not None
    (legend,) = figure.legends
    assert legend.get_texts()[0].get_text() == "best: seed=1"
    assert legend.get_lines()[0].get_color() == COLOURS["val"]
