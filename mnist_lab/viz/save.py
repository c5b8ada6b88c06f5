"""Figures as files, and as SVG in an HTML page. It imports matplotlib late, since most commands may draw nothing."""

from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write, require_writable_file, user_output
from mnist_lab.formatting import printable_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
DPI = 160
MIN_SCALE, MAX_SCALE = 4.5, 7.0  # rem per inch of a figure, for text of a readable size on a phone and on a desk


def require_figure_path(path: Path) -> None:
    """Raise UsageError unless a figure can be written to this path."""
    if path.suffix not in FORMATS:
        raise UsageError(f"--out={path}: must end in one of {', '.join(FORMATS)}")
    require_writable_file(path, f"--out={path}")


def write_figure(figure: Figure, path: Path, option: str = "") -> None:
    """Write a figure in the format that the path's suffix names; `option` is the option with which a user gave it."""
    _escape_texts(figure)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # Pillow's default level makes files a sixth smaller, but takes half as long again.
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if path.suffix == ".png" else {}
    output = user_output(path, option) if option else atomic_write(path, durable=False)
    # At this DPI, hinting takes time and spoils the spacing.
    with rc_context({"text.hinting": "none"}), output as partial:
        if engine := figure.get_layout_engine():  # savefig would draw the figure twice to lay it out.
            FigureCanvasAgg(figure)
            figure.set_dpi(DPI)
            engine.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(partial, format=path.suffix[1:], dpi=DPI, **options)


def inline_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element for a page; screen readers read its name and the figure's label, if it has one.

    The element has the page's colours and font, tooltips, and no title. The ids in it follow from the name, so that
    figures on one page need different names, and equal figures with the same name give the same text.
    """
    from matplotlib import rc_context

    from mnist_lab.viz.style import TITLE_ROW

    _escape_texts(figure)
    if title := figure.get_suptitle():
        figure.suptitle("", in_layout=False)
        figure.set_figheight(figure.get_figheight() - TITLE_ROW * len(title.splitlines()))
    figure.patch.set_visible(False)
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg")
    root, width = ElementTree.fromstring(file.getvalue()), figure.get_figwidth()
    for element in list(root.iter()):
        _adapt(element)
    root[:] = [child for child in root if child.tag != "metadata" and child.find("style") is None]
    root.attrib = {
        "class": "chart",
        "role": "img",
        "aria-label": f"{name}: {figure.get_label()}" if figure.get_label() else name,
        "viewBox": root.attrib["viewBox"],
        "style": f"min-width:{MIN_SCALE * width:.1f}rem;max-width:{MAX_SCALE * width:.1f}rem",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element) -> None:
    """Give an element of a figure its tooltips, short numbers, and the page's colours and font."""
    from mnist_lab.viz.style import COLOURS, TOOLTIPS

    element.tag = element.tag.rpartition("}")[2]  # An HTML page declares no namespaces.
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    element.text, element.tail = (element.text or "").strip() or None, None
    if element.tag == "g" and attributes.pop("id", "").startswith(TOOLTIPS):
        attributes["class"] = "series"
        marks = element.findall(".//{*}use")
        if not marks:  # A thin line is hard to point at; a wide one without a colour lies above it.
            attributes["class"] = "series line"
            marks = [copy.deepcopy(path) for path in element.findall(".//{*}path")]
            for mark in marks:
                mark.set("style", "fill: none; stroke: transparent; stroke-width: 9")
                _adapt(mark)
            element.extend(marks)
        for mark, text in zip(marks, json.loads(element.attrib["id"].removeprefix(TOOLTIPS)), strict=True):
            ElementTree.SubElement(mark, "title").text = text
    for key in attributes.keys() & {"d", "x", "y", "transform"}:
        attributes[key] = " ".join(re.sub(r"(\.\d)\d+", r"\1", attributes[key]).split())
    if "style" in attributes:
        style = re.sub(r"font: (.*?)([\d.]+px)[^;]*", r"font-weight: \1; font-size: \2", attributes["style"])
        style = re.sub(r" ?font-family: [^;]*;?", "", style)
        for name, colour in COLOURS.items():
            style = style.replace(colour, f"var(--{name})")
        attributes["style"] = style
    element.attrib = attributes


def _escape_texts(figure: Figure) -> None:
    """Escape the control characters in the texts of a figure, since XML and fonts lack them."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(printable_lines(text.get_text()))
