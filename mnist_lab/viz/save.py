"""Figures as files, and as SVG in an HTML page. Commands import it before they know whether they draw."""

from __future__ import annotations

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
DPI = 150
# rem per inch of a figure, for text of a readable size: on a phone, wider than a phone, on a desk
MIN_SCALE, SCROLLED_SCALE, MAX_SCALE = 4.5, 5.4, 6.1
PHONE_WIDTH = 4.7  # inches


def require_figure_path(path: Path) -> None:
    """Raise UsageError unless a figure can be written to this path."""
    if path.suffix not in FORMATS:
        raise UsageError(f"--out={path}: must end in one of {', '.join(FORMATS)}")
    require_writable_file(path, f"--out={path}")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to the path given with --out."""
    write_figure(figure, path, f"--out={path}")


def write_figure(figure: Figure, path: Path, option: str = "") -> None:
    """Write a figure in the format that the file's name ends in; option is what a user named it by."""
    _escape_texts(figure)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # Pillow's own level makes the files a sixth smaller, and takes half as long again.
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if path.suffix == ".png" else {}
    output = user_output(path, option) if option else atomic_write(path, durable=False)
    with rc_context({"text.hinting": "none"}), output as partial:  # at this DPI hinting costs time, spoils the spacing
        if engine := figure.get_layout_engine():
            FigureCanvasAgg(figure)
            figure.set_dpi(DPI)
            engine.execute(figure)
            figure.set_layout_engine("none")  # savefig would draw the figure twice to lay it out
        figure.savefig(partial, format=path.suffix[1:], dpi=DPI, **options)


def inline_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element, in the page's colours and type, with tooltips and without its title.

    Equal figures of one name give equal texts. The figure's label, if it has one, describes it to screen readers.
    """
    from matplotlib import rc_context

    from mnist_lab.viz.style import TITLE_HEIGHT

    _escape_texts(figure)
    if figure.get_suptitle():
        figure.suptitle("", in_layout=False)
        figure.set_figheight(figure.get_figheight() - TITLE_HEIGHT)
    figure.patch.set_visible(False)
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):  # the ids follow from the name
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    _simplify(root, set(re.findall(r"#([\w-]+)", file.getvalue())))
    width = figure.get_figwidth()
    scale = MIN_SCALE if width <= PHONE_WIDTH else SCROLLED_SCALE
    root.attrib = {
        "class": "chart",
        "role": "img",
        "aria-label": str(figure.get_label()) or name,
        "viewBox": root.attrib["viewBox"],
        "style": f"min-width:{scale * width:.1f}rem;max-width:{MAX_SCALE * width:.1f}rem",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _escape_texts(figure: Figure) -> None:
    """Escape the control characters in the texts of a figure, which XML and fonts lack."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(printable_lines(text.get_text()))


def _simplify(element: ElementTree.Element, used: set[str]) -> bool:
    """Reduce an element to what a page needs, with its tooltips and the ids in use; return whether anything is left."""
    from mnist_lab.viz.style import COLOURS, TOOLTIPS

    element.tag = element.tag.rpartition("}")[2]  # an HTML page declares no namespaces
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    element.text, element.tail = (element.text or "").strip() or None, None
    element[:] = [child for child in element if _simplify(child, used)]
    element[:] = [child[0] if child.tag == "g" and not child.attrib and len(child) == 1 else child for child in element]
    id = attributes.get("id", "")
    if id.startswith(TOOLTIPS):
        attributes["class"] = "series"
        marks = list(element.iter("use")) or list(element.iter("path"))
        for mark, text in zip(marks, json.loads(id.removeprefix(TOOLTIPS)), strict=True):
            ElementTree.SubElement(mark, "title").text = text
    if id not in used:
        attributes.pop("id", None)
    for key in attributes.keys() & {"d", "x", "y", "transform"}:
        attributes[key] = " ".join(re.sub(r"(\.\d)\d+", r"\1", attributes[key]).split())
    if "style" in attributes:
        style = re.sub(r"font: (.*?)([\d.]+px)[^;]*", r"font-weight: \1; font-size: \2", attributes["style"])
        style = re.sub(r" ?font-family: [^;]*;?", "", style)
        for name, colour in COLOURS.items():
            style = style.replace(colour, f"var(--{name})")
        attributes["style"] = style
    element.attrib = attributes
    if element.tag == "path":
        return bool(re.search("[LCQ]", attributes.get("d", "")))  # not the line of a single point
    return element.tag not in ("metadata", "style") and (element.tag not in ("g", "defs") or len(element) > 0)
