"""The colours of figures and reports, and what else all figures share: type, titles, tooltips."""

import json
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure

# A colour of light pages and of dark ones; reports have CSS variables of these names. A hue has one meaning everywhere,
# and colours that are shown together differ for colour-blind eyes and in grey.
PALETTE = {
    "paper": ("#ffffff", "#14171c"),
    "tint": ("#f4f6f9", "#1d2128"),
    "line": ("#d5dbe3", "#39414c"),
    "ink": ("#16191d", "#e9ecf0"),
    "soft": ("#58616d", "#a6b0bd"),
    "train": ("#8590a0", "#727e8d"),
    "val": ("#74289a", "#cf9bff"),
    "test": ("#00794c", "#63e6ae"),
    "right": ("#3f4d5e", "#a9b5c4"),
    "wrong": ("#bd1a3c", "#f0607a"),
    "positive": ("#1f56c4", "#82b4ff"),
    "negative": ("#e0701c", "#dd6e22"),
}
COLOURS, DARK = ({name: pair[i] for name, pair in PALETTE.items()} for i in range(2))
FILL = 0.5  # the opacity of the strongest cell, on which text can be read
WIDTH, HEIGHT = 3.9, 2.6  # inches of a figure with one pair of axes
TITLE_ROW = 0.3  # inches of a line of a title
LETTER = 0.085  # inches of a letter, on average
TOOLTIPS = "tooltips:"  # the prefix of the group id of an artist with tooltips

# This decorates functions that make figures, since texts, axes and layouts copy these settings when they are created.
styled = rc_context(
    {
        "figure.constrained_layout.use": True,
        "text.color": COLOURS["ink"],
        "text.parse_math": False,  # The value of a setting may contain dollar signs.
        "font.size": 10,
        "figure.titlesize": 10,
        "figure.titleweight": "bold",
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
        "legend.frameon": False,
    }
)


def set_title(figure: Figure, title: str) -> None:
    """Write a title above a figure, which grows by its lines; reports have headings instead."""
    text = textwrap.fill(title, int(figure.get_figwidth() / (1.1 * LETTER)))
    figure.suptitle(text, x=0.02, ha="left")
    figure.set_figheight(figure.get_figheight() + TITLE_ROW * len(text.splitlines()))


def shorten_name(name: str, most: int) -> str:
    """Leave out the middle of a long name, since many names differ only at their ends."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) + most // 2 - most + 1 :]}"


def set_tooltips(artist: Artist, texts: Sequence[str]) -> None:
    """Give each marker of a line or a collection a tooltip, for reports."""
    artist.set_gid(TOOLTIPS + json.dumps(texts))


def rank_colours(count: int) -> list[str]:
    """Return colours of this many runs, the best first: black, then the lighter a grey, the lower the rank."""
    greys = LinearSegmentedColormap.from_list("greys", [COLOURS["soft"], COLOURS["train"]])
    return [COLOURS["ink"], *map(to_hex, greys(np.linspace(0, 1, count - 1)))]
