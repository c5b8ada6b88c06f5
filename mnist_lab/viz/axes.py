"""What axes share: their ranges, ticks and grids, marks of what is cut off, and labels of lines."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import fmean, median
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from mnist_lab.viz.style import COLOURS, TOOLTIPS, set_tooltips

MAX_MARKS = 30  # points of a line with a marker
MIN_CUT = 1.5  # the length of an axis in terms of a shorter one, from which on the shorter one is taken
LABEL_ROW = 0.095  # the height of a label at a line's end, as a part of the axes
MAX_EVEN = 6  # values of a setting that get equal distances


def finish_axes(axes: Axes, label_x: str, label_y: str) -> None:
    """Label the axes, and add a grid."""
    axes.set(xlabel=label_x, ylabel=label_y)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")


def set_log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers as labels, since matplotlib's own need mathtext, which is off."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(log_locator(*axis.get_view_interval()))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def log_locator(low: float, high: float) -> LogLocator:
    """Return the ticks of a logarithmic axis: round numbers."""
    decades = math.log10(high / low)
    return LogLocator(subs=(1,) if decades > 3 else (1, 3) if decades > 1.5 else (1, 2, 5))


def sort_key(value: Any) -> tuple[float, str]:
    """Return the key that sorts values of a setting: numbers by size, then names."""
    try:
        return float(value), str(value)
    except (TypeError, ValueError):
        return math.inf, str(value)


def place_values(values: Collection[str]) -> tuple[dict[str, float], dict[float, str]]:
    """Return the places of a setting's values between 0 and 1, and the texts of ticks by their places.

    Few values and names are placed evenly. Many numbers are placed by size, or by their logarithms if these are spread
    more evenly, and the ticks are round numbers.
    """
    names = sorted(set(values), key=sort_key)
    numbers = [sort_key(name)[0] for name in names]
    if len(names) <= MAX_EVEN or not all(map(math.isfinite, numbers)):
        places = dict(zip(names, np.linspace(0, 1, len(names)).tolist() if names[1:] else [0.5], strict=True))
        return places, {place: name for name, place in places.items()}
    low, middle, high = numbers[0], median(numbers), numbers[-1]
    is_log = 0 < 4 * low < high and 2 * middle < math.sqrt(low * high) + (low + high) / 2
    scale: Callable[[float], float] = math.log if is_log else float
    locator = log_locator(low, high) if is_log else MaxNLocator(5, steps=[1, 2, 5, 10])

    def place(number: float) -> float:
        return (scale(number) - scale(low)) / (scale(high) - scale(low))

    ticks = {
        place(tick): f"{tick:g}".replace("e-0", "e-") for tick in locator.tick_values(low, high) if low <= tick <= high
    }
    return {name: place(number) for name, number in zip(names, numbers, strict=True)}, ticks


def find_floor(values: Sequence[float]) -> float:
    """Return the lowest of the values to show, so that a few bad ones do not hide how the good ones differ."""
    best, middle = max(values), median(values)
    return min(values) if best == middle else max(min(values), best - 4 * (best - middle))


def plot_means(axes: Axes, values: Mapping[Any, Sequence[float]], form: str, colour: Any, **style: Any) -> None:
    """Plot the means of values by their places, and a band over their ranges."""
    axes.plot(list(values), list(map(fmean, values.values())), form, color=colour, **style)
    if any(len(each) > 1 for each in values.values()):
        low, high = (list(map(end, values.values())) for end in (min, max))
        axes.fill_between(list(values), low, high, color=colour, alpha=0.2, linewidth=0)


def show_end(axes: Axes, name: str, count: int | None = None) -> None:
    """Fit the y axis to the second half of training, of the first lines, and mark points that it cuts off at its edge.

    Axes that share the y axis are fitted together. Of a long line, only some points have a marker, the last one among
    them.
    """
    panels = axes.get_shared_y_axes().get_siblings(axes)
    lines = [[line for line in panel.get_lines() if np.size(line.get_xydata())] for panel in panels]
    if not any(lines):
        return
    sign = 1 if name == "acc" else -1  # The greater is then the better.
    points = {line: np.asarray(line.get_xydata()) * (1, sign) for panel in lines for line in panel}
    first = [points[line] for panel in lines for line in panel[:count]]
    ends = [np.quantile(each[2 * each[:, 0] >= each[-1, 0], 1], (0.05, 0.95)) for each in first]
    values = np.concatenate([*points.values()])[:, 1]
    floor = np.max(ends) - max(3 * np.ptp(ends), 0.05 * np.ptp(values))
    low, best, worst = values[values >= floor].min(), values.max(), values.min()
    low = values[values >= low - 0.1 * (best - low)].min()  # Points that are almost equal stay together.
    if best - worst > MIN_CUT * (best - low):
        margin = max(0.05 * (best - low), 0.001 * (best - worst))  # The end may be a single value.
        axes.set_ylim(*sorted((sign * (low - margin), sign * (best + margin))))
    else:
        low = worst
    for panel, its in zip(panels, lines, strict=True):
        lowest = min((points[line][:, 1].min() for line in its), default=low)
        if lowest < low:
            note_cut(panel, sign * lowest, "%" if name == "acc" else " nats", above=sign < 0)
        for line in its:
            if line.get_marker() != "None":
                _mark_points(panel, line, points[line][:, 1] < low, above=sign < 0)


def note_cut(axes: Axes, most: float, unit: str, *, above: bool) -> None:
    """Note that points are above or below the axes, and the farthest of them."""
    add_note(axes, f"{'▲ cut off: up' if above else '▼ cut off: down'} to {float(f'{most:.3g}'):,g}{unit}")


def add_note(axes: Axes, text: str) -> None:
    """Add a note above the axes."""
    notes = f"{axes.get_title('right')}, {text}".removeprefix(", ")
    axes.set_title(notes, loc="right", y=1, color=COLOURS["soft"])


def _mark_points(axes: Axes, line: Line2D, is_cut: np.ndarray, *, above: bool) -> None:
    """Choose the points of a line with markers and tooltips; those that are cut off have theirs at the edge."""
    step = math.ceil(len(is_cut) / MAX_MARKS)
    chosen = range((len(is_cut) - 1) % step, len(is_cut), step)
    shown, cut = ([i for i in chosen if is_cut[i] == value] for value in (False, True))
    line.set_markevery(shown)
    artists: dict[Artist, list[int]] = {line: shown}
    if cut:
        x, transform = np.asarray(line.get_xdata())[cut], axes.get_xaxis_transform()
        style: dict[str, Any] = {"marker": "^" if above else "v", "s": 22, "color": line.get_color(), "clip_on": False}
        artists[axes.scatter(x, np.full(len(x), above), transform=transform, zorder=3, **style)] = cut
    texts = json.loads((line.get_gid() or "").removeprefix(TOOLTIPS) or "[]")
    line.set_gid(None)
    for artist, places in artists.items():
        if texts and places:
            set_tooltips(artist, [texts[i] for i in places])


def label_ends(axes: Axes, texts: Mapping[str, str]) -> None:
    """Write texts, by the labels of lines, right of these lines' ends, apart from each other; the first is bold."""
    low, high = sorted(axes.get_ylim())
    ends = []
    for line in axes.get_lines():
        points, label = np.asarray(line.get_xydata()), str(line.get_label())
        if len(points) and label in texts:
            x, y = points[-1]
            end = x, min(max(y, low), high)
            place = axes.transAxes.inverted().transform(axes.transData.transform(end))[1]
            ends.append((place, end, label, line.get_color()))
    ends.sort(reverse=True)
    places = [place for place, *_ in ends]
    for i in range(1, len(places)):
        places[i] = min(places[i], places[i - 1] - LABEL_ROW)
    for i in reversed(range(len(places))):
        places[i] = max(places[i], LABEL_ROW * (len(places) - 1 - i))
    for place, (_, end, label, colour) in zip(places, ends, strict=True):
        arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        style: dict[str, Any] = {"va": "center", "annotation_clip": False, "arrowprops": arrow | {"linestyle": ":"}}
        style["weight"] = "bold" if label == next(iter(texts)) else "normal"
        axes.annotate(texts[label], end, (1.04, place), textcoords="axes fraction", **style)
