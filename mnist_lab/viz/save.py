"""Figures as files, and as SVG in an HTML page. Commands import it before they know whether they draw."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write, require_writable_file, user_output
from mnist_lab.formatting import printable_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
DPI = 150
MIN_SCALE, MAX_SCALE = 4.5, 6.1  # rem per inch of a figure, for text of a readable size on a phone and on a desk


def require_figure_path(path: Path) -> None:
    """Raise UsageError unless a figure can be written to this path."""
    if path.suffix not in FORMATS:
        raise UsageError(f"--out={path}: must end in one of {', '.join(FORMATS)}")
    require_writable_file(path, f"--out={path}")


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
    """Return a figure as an SVG element for a page, which screen readers call by its name.

    It has the page's colours and type, and no title. Figures of one page need different names, since the ids in the
    element follow from it; equal figures of one name give equal texts.
    """
    from matplotlib import rc_context

    from mnist_lab.viz.style import COLOURS, TITLE_HEIGHT

    _escape_texts(figure)
    if figure.get_suptitle():
        figure.suptitle("", in_layout=False)
        figure.set_figheight(figure.get_figheight() - TITLE_HEIGHT)
    figure.patch.set_visible(False)
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))

    def page_style(found: re.Match[str]) -> str:
        style = re.sub(r"font: (.*?)([\d.]+px)[^;\"]*", r"font-weight: \1; font-size: \2", found[0])
        style = re.sub(r" ?font-family: [^;\"]*;?", "", style)
        for colour_name, colour in COLOURS.items():
            style = style.replace(colour, f"var(--{colour_name})")
        return style

    def rounded(found: re.Match[str]) -> str:
        return re.sub(r"(\.\d)\d+", r"\1", found[0])

    content = re.sub(r"^.*?<svg[^>]*>.*?</style>\s*</defs>|</svg>\s*$", "", file.getvalue(), flags=re.DOTALL)
    content = re.sub(r' style="[^"]*"', page_style, re.sub(r' (?:d|x|y|transform)="[^"]*"', rounded, content))
    content = re.sub(r'<g id="[^"]*">', "<g>", content).replace(' xlink:href="', ' href="')
    width, height = figure.get_size_inches()
    return (
        f'<svg class="chart" role="img" aria-label="{html.escape(name)}" viewBox="0 0 {72 * width:g} {72 * height:g}" '
        f'style="min-width:{MIN_SCALE * width:.1f}rem;max-width:{MAX_SCALE * width:.1f}rem">{content}</svg>'
    )


def _escape_texts(figure: Figure) -> None:
    """Escape the control characters in the texts of a figure, which XML and fonts lack."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(printable_lines(text.get_text()))
