"""Axes show the end of training, mark what they cut off, and have round numbers."""

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_lab.viz.axes import MAX_MARKS, set_log_scale, show_end
from mnist_lab.viz.save import inline_svg
from mnist_lab.viz.style import set_tooltips, styled


@styled
def plot(*curves: list[float], name: str = "acc", **style: Any) -> Axes:
    """Plot curves by epoch, with a tooltip for each point, and fit the axes to their ends."""
    axes = Figure().subplots()
    for curve in curves:
        (line,) = axes.plot(range(1, len(curve) + 1), curve, **{"marker": "o", **style})
        set_tooltips(line, [f"{y:g}" for y in curve])
    show_end(axes, name)
    return axes


@pytest.mark.parametrize(
    ("name", "curve", "note"),
    [
        ("acc", [36.5, 94, 95, 96, 97, 98], "▼ cut off: down to 36.5%"),
        ("loss", [1000, 0.3, 0.2, 0.15, 0.1, 0.05], "▲ cut off: up to 1,000 nats"),
        ("acc", [9, 56, 56, 56, 56], "▼ cut off: down to 9%"),
        ("acc", [93, 95, 96, 97], ""),
        ("acc", [97, 98], ""),
        ("acc", [94.9, 97, 98, 98.3], ""),
        ("acc", [98], ""),
        ("loss", [0.1, 0.2, 5.0, 9.0], ""),
        ("acc", [99, 50, 12, 11], ""),
    ],
)
def test_only_a_bad_start_is_cut_off(name: str, curve: list[float], note: str) -> None:
    axes = plot(curve, name=name)
    low, high = axes.get_ylim()
    shown = [low <= y <= high for y in curve]
    assert all(shown[1:]) and shown[0] == (not note)
    assert axes.get_title("right") == note
    marks = [collection.get_offsets().tolist() for collection in axes.collections]
    assert marks == ([[[1, float(name == "loss")]]] if note else [])


def test_every_marked_point_keeps_its_tooltip_also_at_the_edge() -> None:
    svg = inline_svg(plot([36.5, 90, 95, 96, 97, 98], [20, 30, 95, 96, 97, 97]).figure, "a")  # type: ignore[arg-type]
    assert sorted(map(float, re.findall("<title>(.*?)</title>", svg))) == sorted(
        [36.5, 90, 95, 96, 97, 98, 20, 30, 95, 96, 97, 97]
    )


@pytest.mark.parametrize("count", [2, MAX_MARKS, 1000])
def test_long_line_has_few_markers_the_last_point_among_them(count: int) -> None:
    (line,) = plot([98 - 60 / epoch for epoch in range(1, count + 1)]).get_lines()
    places = line.get_markevery()
    assert isinstance(places, list) and places[-1] == count - 1
    assert min(count, MAX_MARKS) / 2 <= len(places) <= MAX_MARKS


@pytest.mark.parametrize(("low", "high"), [(0.15, 0.45), (0.02, 0.3), (0.003757, 0.9), (1e-6, 10), (1e-12, 1)])
def test_logarithmic_axes_have_round_numbers(low: float, high: float) -> None:
    axes = Figure().subplots()
    axes.plot([low, high], [0, 1])
    set_log_scale(axes, "x")
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert len(ticks) > 1 and all(np.isclose(float(f"{tick:.2g}"), tick) for tick in ticks)
    assert all("$" not in label.get_text() for label in axes.get_xticklabels(which="both"))
