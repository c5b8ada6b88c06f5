"""The pages' charts: values, and where they lie in a picture. charts.html.j2 draws them, in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from matplotlib.ticker import LogLocator, MaxNLocator

from mnist_lab.runs.run import Run
from mnist_lab.runs.state import RunState
from mnist_lab.viz.curves import METRICS, SETS
from mnist_lab.viz.heatmap import sort_key

if TYPE_CHECKING:  # torch is long in starting, and a sweep's page does without
    from mnist_lab.evaluation.predictions import Predictions

STEPS = (1, 2, 5, 10)  # between an axis' named values
NAMED = 8  # values of a setting that are named one by one
APART = 0.12  # of an axis' length, between two of them


@dataclass(frozen=True)
class Axis:
    """An axis from a value to another; some values are named."""

    label: str
    low: float
    high: float
    named: Mapping[float, str]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the axis' beginning, 1 at its end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Dot:
    """A value, what is told of it where a pointer is over it, its radius in pixels, and how far it spreads."""

    x: float
    y: float
    words: str
    radius: float = 3.5
    spread: float = 0


@dataclass(frozen=True)
class Line:
    """Values that belong together; style, such as train, is a class of the style sheet."""

    name: str
    style: str
    dots: list[Dot]
    mark: Literal["dot", "star", "cross"] = "dot"
    joined: bool = True


@dataclass(frozen=True)
class Chart:
    """Lines over two axes; words say what they show to those who cannot see them."""

    words: str
    x: Axis
    y: Axis
    lines: list[Line]
    diagonal: bool = False
    width: int = 420
    height: int = 260
    top, right, bottom, left = 12, 16, 44, 44  # margins

    def across(self, value: float) -> float:
        """Pixels from the left."""
        return round(self.left + self.x.share(value) * (self.width - self.left - self.right), 1)

    def down(self, value: float) -> float:
        """Pixels from the top."""
        return round(self.height - self.bottom - self.y.share(value) * (self.height - self.top - self.bottom), 1)

    def way(self, line: Line) -> str:
        """A line's way through its dots, for a polyline."""
        return " ".join(f"{self.across(dot.x)},{self.down(dot.y)}" for dot in line.dots)


def axis(label: str, values: Iterable[float], most: float = math.inf) -> Axis:
    """An axis from a round value to a round value, no greater than most, with these values between."""
    low, high = _apart(min(values := list(values)), max(values))
    ticks = [float(tick) for tick in MaxNLocator(5, steps=STEPS).tick_values(low, high) if tick <= most]
    return Axis(label, min(*ticks, low), min(max(*ticks, high), most), {tick: f"{tick:g}" for tick in ticks})


def epochs_axis(epochs: Sequence[float]) -> Axis:
    """An axis that begins and ends with these epochs."""
    low, high = _apart(min(epochs), max(epochs))
    ticks = MaxNLocator(7, steps=STEPS, integer=True).tick_values(low, high)
    return Axis("epoch", low, high, {float(tick): f"{tick:g}" for tick in ticks if low <= tick <= high})


def settings_axis(key: str, values: Iterable[str]) -> tuple[Axis, dict[str, float]]:
    """An axis of a setting's values, and where each of them lies.

    Numbers lie by their size, over a decade or more by their logarithm; names stand side by side.
    """
    order = sorted(set(values), key=sort_key)
    numbers = [sort_key(value)[0] for value in order]
    in_size = all(map(math.isfinite, numbers))
    places = dict(zip(order, numbers if in_size else map(float, range(len(order))), strict=True))
    low, high = min(places.values()), max(places.values())
    log = in_size and low > 0 and high / low >= 10
    if in_size and len(order) > NAMED:
        locator = LogLocator(subs=(1, 3)) if log else MaxNLocator(5, steps=STEPS)
        named = {float(tick): f"{tick:g}" for tick in locator.tick_values(low, high) if low <= tick <= high}
    else:
        named = {place: value for value, place in places.items()}
    if log:
        low, high = low * (low / high) ** 0.06, high * (high / low) ** 0.06
    else:
        low, high = _apart(low, high)
        low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    whole = Axis(key, low, high, {}, log)
    kept: dict[float, str] = {}
    for place, name in named.items():
        if not kept or whole.share(place) - whole.share(list(kept)[-1]) >= APART:
            kept[place] = name
    return Axis(key, low, high, kept, log), places


def _apart(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def by_epoch(run: Run, name: str) -> Chart | None:
    """A metric, "loss" or "acc", by epoch: training, validation, test, and what the tutorial published.

    What was measured before training is left out where there is more: it would press the rest flat. None without any.
    """
    label, factor = METRICS[name]
    info = run.info
    tested = run.tested_epoch if info["status"] == RunState.FINISHED else None
    published = run.tutorial.get("published") or {}
    lines = []
    for kind, (words, _) in SETS.items():
        curve = {x: factor * y for x, y in run.curve(f"{kind}/{name}").items()}
        lines.append(_line(words, kind, curve, name, "star" if kind == "test" and len(curve) == 1 else "dot", tested))
        printed = {float(x): y for x, y in enumerate(published.get(f"{kind}/{name}", [])) if y is not None}
        lines.append(_line(f"{words.split(',')[0]}, published", kind, printed, name, "cross"))
    lines = [line for line in lines if line.dots]
    dots = [dot for line in lines for dot in line.dots]
    if not dots:
        return None
    x, y = (
        epochs_axis([dot.x for dot in dots]),
        axis(label, [dot.y for dot in dots], 100 if name == "acc" else math.inf),
    )
    ends = (
        f"{line.dots[0].words}, to {line.dots[-1].words}" if line.dots[1:] else line.dots[0].words for line in lines
    )
    return Chart(f"{label} by epoch: {'; '.join(ends)}", x, y, lines)


def _line(
    words: str,
    style: str,
    curve: Mapping[float, float],
    name: str,
    mark: Literal["dot", "star", "cross"],
    tested: float | None = None,
) -> Line:
    """A curve, from epoch 1 on if it goes so far, named with its value in the epoch that was tested, else its last."""
    known = {x: y for x, y in curve.items() if math.isfinite(y)}
    shown = {x: y for x, y in known.items() if x > 0} or known
    values = {x: f"{y:.4f}" if name == "loss" else f"{y:.2f}%" for x, y in shown.items()}
    dots = [Dot(x, y, f"{words}, epoch {x:g}: {values[x]}") for x, y in shown.items()]
    if values:
        last = list(values)[-1]
        epoch = tested if tested in values else last
        words += f" {values[epoch]}" + (f" (epoch {epoch:g})" if epoch != last else "")
    return Line(words, style, dots, mark, joined=mark == "dot")


def reliability(predictions: Predictions) -> Chart:
    """How often the predicted class is right, by its probability; a dot's area grows with its number of images."""
    bins = predictions.calibration()
    most = max(count for _, _, count in bins)
    dots = [
        Dot(
            100 * sure,
            100 * right,
            f"{sure:.1%} sure, {right:.1%} right: {count:,} images",
            3 + 7 * (count / most) ** 0.5,
        )
        for sure, right, count in bins
    ]
    x, y = (
        Axis(label, 0, 100, {20.0 * step: str(20 * step) for step in range(6)})
        for label in ("probability of the predicted class (%)", "accuracy (%)")
    )
    words = f"Reliability diagram: {'; '.join(dot.words for dot in dots)}"
    return Chart(words, x, y, [Line(y.label, "test", dots, joined=False)], diagonal=True, width=340, height=320)
