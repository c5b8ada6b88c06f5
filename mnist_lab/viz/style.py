"""The colours of figures and reports, and what else all figures share: type, titles, tooltips."""

import json
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

# Each colour is also a CSS variable of the reports. report/templates/style.css has other values for a dark page.
COLOURS = {
    "paper": "#ffffff",
    "tint": "#f4f6f9",
    "line": "#d5dbe3",
    "ink": "#16191d",
    "soft": "#58616d",
    "train": "#2563c9",
    "val": "#b4540a",
    "test": "#1b7f4d",
    "bad": "#b3261e",
    "heat": "#5b9bff",
    "error": "#ff9d5c",
}
WIDTH, HEIGHT = 4.6, 2.75  # inches of a figure with one pair of axes
TITLE_HEIGHT = 0.3  # inches
TOOLTIPS = "tooltips:"  # the prefix of the group id of an artist with tooltips

# This decorates functions that make figures, since texts, axes and layouts copy these settings when they are created.
styled = rc_context(
    {
        "figure.constrained_layout.use": True,
        "text.color": COLOURS["ink"],
        "text.parse_math": False,  # The value of a setting may contain dollar signs.
        "font.size": 9.5,
        "figure.titlesize": 10,
        "axes.titlesize": 10,
        "axes.labelcolor": COLOURS["soft"],
        "axes.edgecolor": COLOURS["soft"],
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": COLOURS["soft"],
        "ytick.color": COLOURS["soft"],
        "grid.color": COLOURS["line"],
        "legend.fontsize": 8.8,
        "legend.frameon": False,
    }
)


def set_title(figure: Figure, title: str) -> None:
    """Write a title above the axes; reports have headings instead."""
    figure.suptitle(title, x=0.02, ha="left", wrap=True)


def set_tooltips(artist: Artist, texts: Sequence[str]) -> None:
    """Give each marker of a line or a collection a tooltip, for reports."""
    artist.set_gid(TOOLTIPS + json.dumps(texts))


def distinct_colours(count: int) -> list[Any]:
    """Return this many distinct colours, as matplotlib takes them."""
    return [f"C{i}" if count <= 10 else colormaps["turbo"](i / (count - 1)) for i in range(count)]
