"""SVG in a page: in the page's colours, with tooltips, the same each time, and with ids of its own."""

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
    figure.set_label(HOSTILE)
    return figure


def test_colours_are_the_pages() -> None:
    text = re.sub(r">[^<]*<|aria-label=\"[^\"]*\"", "", inline_svg(plot(), "a"))
    assert "var(--val)" in text and "var(--soft)" in text
    assert not re.search("#[0-9a-f]{6}", text), "every colour follows the page's scheme"


def test_every_point_has_its_tooltip_and_texts_are_as_given() -> None:
    root = ElementTree.fromstring(inline_svg(plot(), "a"))
    assert [title.text for title in root.iter("title")] == ["one", HOSTILE, "three"]
    assert [mark.find("title") is not None for mark in root.findall(".//*[@class='series']//use")] == [True] * 3
    assert HOSTILE in [text.text for text in root.iter("text")]
    assert (root.get("role"), root.get("aria-label")) == ("img", HOSTILE)
    assert "a title" not in [text.text for text in root.iter("text")], "nor has it its room"
    assert root.get("viewBox") == f"0 0 {4 * 72} {2.7 * 72:g}"


def test_equal_figures_are_equal_texts_and_figures_of_a_page_share_no_id() -> None:
    before = dict(matplotlib.rcParams)
    first, again, other = inline_svg(plot(), "a"), inline_svg(plot(), "a"), inline_svg(plot(), "b")
    assert first == again and dict(matplotlib.rcParams) == before
    ids = [set(re.findall(r'id="([^"]+)"', text)) for text in (first, other)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', first)) == ids[0]
    assert not re.search(r"https?:|date|metadata", first)


def test_tooltips_and_points_must_agree_in_number() -> None:
    figure = plot()
    set_tooltips(figure.axes[0].get_lines()[0], ["one"])
    with pytest.raises(ValueError, match="shorter"):
        inline_svg(figure, "a")
