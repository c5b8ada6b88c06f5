"""Figures as SVG in an HTML page."""

from __future__ import annotations

import io
import json
import re
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mnist_lab.viz.style import COLOURS, TITLE_HEIGHT, TOOLTIPS

# rem per inch of a figure, for text of a readable size: on a phone, wider than a phone, on a desk
MIN_SCALE, SCROLLED_SCALE, MAX_SCALE = 4.5, 5.4, 6.1
PHONE_WIDTH = 4.7  # inches
VARIABLES = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def inline_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element, in the page's colours and type, with tooltips and without a title.

    Equal figures of one name give equal texts. The figure's label, if it has one, describes it to screen readers.

    Args:
        figure: the figure; it loses its title.
        name: a name that no other figure of the page has; the ids of the element's parts follow from it.
    """
    width, height = figure.get_size_inches()
    if figure.get_suptitle():
        figure.suptitle("")
        height -= TITLE_HEIGHT
    figure.patch.set_visible(False)
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", bbox_inches=Bbox([[0, 0], [width, height]]), metadata=NO_METADATA)
    root = ElementTree.fromstring(file.getvalue())
    _simplify(root, set(re.findall(r"#([\w-]+)", file.getvalue())))
    scale = MIN_SCALE if width <= PHONE_WIDTH else SCROLLED_SCALE
    root.attrib = {
        "class": "chart",
        "role": "img",
        "aria-label": str(figure.get_label()) or name,
        "viewBox": root.attrib["viewBox"],
        "style": f"min-width:{scale * width:.1f}rem;max-width:{MAX_SCALE * width:.1f}rem",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _simplify(element: ElementTree.Element, used: set[str]) -> bool:
    """Reduce an element to what a page needs, with its tooltips; return whether anything is left.

    Args:
        element: the element; it is changed.
        used: ids that other elements refer to.
    """
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
    if attributes.get("transform", "").startswith(("rotate(-0 ", "rotate(0 ")):
        del attributes["transform"]
    if "style" in attributes:
        style = re.sub(r"font: (.*?)([\d.]+px)[^;]*", r"font-weight: \1; font-size: \2", attributes["style"])
        style = re.sub(r" ?font-family: [^;]*;?", "", style)
        attributes["style"] = re.sub("#[0-9a-f]{6}", lambda found: VARIABLES.get(found[0], found[0]), style)
    element.attrib = attributes
    if element.tag == "path":
        return bool(re.search("[LCQ]", attributes.get("d", "")))  # not the line of a single point
    return element.tag not in ("metadata", "style") and (element.tag not in ("g", "defs") or len(element) > 0)
