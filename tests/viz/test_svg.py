"""SVG in a page has the page's colours, tooltips, the same text each time, and ids of its own."""

import re
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from mnist_lab.viz.save import inline_svg
from mnist_lab.viz.style import COLOURS, set_title, set_tooltips, styled

HOSTILE = "<b>$x$ & 0.12345 #5b9bff"


@styled
def plot() -> Figure:
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    (line,) = axes.plot([1, 2, 3], [3, 1, 2], "o-", color=COLOURS["val"])
    set_tooltips(line, ["one", HOSTILE, "three"])
    axes.set_xlabel(HOSTILE)
    set_title(figure, "a title")
    return figure


def test_figure_has_the_pages_colours_and_its_texts_unchanged_but_no_title() -> None:
    figure = plot()
    figure.set_label("3 points")
    svg = inline_svg(figure, HOSTILE)
    root = ElementTree.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", f"{HOSTILE}: 3 points")
    assert root.get("viewBox") == f"0 0 {4 * 72} {3 * 72}"
    texts = [text.text for text in root.iter("text")]
    assert HOSTILE in texts and "a title" not in texts
    drawn = re.sub(r">[^<]*<|aria-label=\"[^\"]*\"", "", svg)
    assert "var(--val)" in drawn and "var(--soft)" in drawn
    assert not re.search("#[0-9a-f]{6}|font-family", drawn), "colours and fonts are the page's"


def test_equal_figures_are_equal_texts_and_figures_of_a_page_share_no_id() -> None:
    before = dict(matplotlib.rcParams)
    first, again, other = inline_svg(plot(), "a"), inline_svg(plot(), "a"), inline_svg(plot(), "b")
    assert first == again and dict(matplotlib.rcParams) == before
    ids = [set(re.findall(r'id="([^"]+)"', text)) for text in (first, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', first)) == ids[0]
    assert not re.search(r"https?:|date|metadata", first)


def test_every_point_has_its_tooltip() -> None:
    figure = plot()
    root = ElementTree.fromstring(inline_svg(figure, "a"))
    assert [mark.findtext("title") for mark in root.findall(".//*[@class='series']//use")] == ["one", HOSTILE, "three"]
    set_tooltips(figure.axes[0].get_lines()[0], ["one"])
    with pytest.raises(ValueError, match="shorter"):
        inline_svg(figure, "a")
