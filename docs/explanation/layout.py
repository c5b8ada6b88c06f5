"""Draw layout.svg, the picture of the package in architecture.md, from its imports and docstrings.

    python docs/explanation/layout.py

The rows are the layers in pyproject.toml. An arrow shows that one part imports another; arrows that longer ways imply
are left out. tests/test_architecture.py checks that the picture shows the code.
"""

import ast
import re
import textwrap
from html import escape
from pathlib import Path

import grimp

CHECKOUT = Path(__file__).parent.parent.parent
PICTURE = Path(__file__).with_name("layout.svg")
# The width of the picture, the height of a row, the gap between rows, and the margin.
WIDTH, HEIGHT, GAP, MARGIN = 960, 62, 34, 16
STYLE = """
  rect.page { fill: #ffffff }
  rect.part { fill: #eef3fb; stroke: #4a6fa5; rx: 6px }
  text { font-family: system-ui, sans-serif; fill: #1b2733; text-anchor: middle }
  .name { font-size: 15px; font-weight: 600 }
  .about { font-size: 11px; fill: #45566b }
  path { fill: none; stroke: #8aa0bd; stroke-width: 1.2; marker-end: url(#tip) }
"""


def layers() -> list[list[str]]:
    """Return the layers of the package in the order of pyproject.toml, the highest first."""
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^layers = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert block
    return [row.split(" | ") for row in re.findall(r'"(.+)"', block[1])]


def imports(parts: list[str]) -> set[tuple[str, str]]:
    """Return the imports between parts of the package that no longer way implies, as (importer, imported)."""
    graph = grimp.build_graph("mnist_lab", exclude_type_checking_imports=True, cache_dir=None)
    direct = {part: {other for other in parts if other != part and _imports(graph, part, other)} for part in parts}

    def reachable(part: str) -> set[str]:
        return direct[part] | {further for other in direct[part] for further in reachable(other)}

    def is_implied(part: str, other: str) -> bool:
        return any(other in reachable(via) for via in direct[part] - {other})

    return {(part, other) for part in parts for other in direct[part] if not is_implied(part, other)}


def _imports(graph: grimp.ImportGraph, part: str, other: str) -> bool:
    """Return whether a module of a part imports a module of another."""
    modules, others = ({f"mnist_lab.{name}", *graph.find_descendants(f"mnist_lab.{name}")} for name in (part, other))
    return any(others & graph.find_modules_directly_imported_by(module) for module in modules)


def about(part: str) -> str:
    """Return the first line of a part's docstring."""
    folder = CHECKOUT / "mnist_lab" / part
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.splitlines()[0].split(". ")[0].rstrip(".").replace("`", "")


def draw() -> str:
    """Return the picture as SVG."""
    rows = layers()
    box: dict[str, tuple[float, float, float]] = {}  # x, y, width
    for number, row in enumerate(rows):
        width = min((WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row), 420)
        left = (WIDTH - len(row) * width - GAP * (len(row) - 1)) / 2
        for place, part in enumerate(row):
            box[part] = left + place * (width + GAP), MARGIN + number * (HEIGHT + GAP), width
    height = 2 * MARGIN + len(rows) * (HEIGHT + GAP) - GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The parts of mnist_lab; each imports only parts below it">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" style="fill:#8aa0bd;stroke:none"/></marker></defs>',
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
    ]
    for one, other in sorted(imports(list(box))):
        (x1, y1, w1), (x2, y2, w2) = box[one], box[other]
        start, end = x1 + w1 / 2, x2 + w2 / 2
        lines.append(
            f'<path d="M{start:.0f} {y1 + HEIGHT:.0f} C{start:.0f} {y1 + HEIGHT + GAP:.0f} '
            f'{end:.0f} {y2 - GAP:.0f} {end:.0f} {y2 - 2:.0f}"/>'
        )
    for part, (x, y, width) in box.items():
        name = f"{part}/" if (CHECKOUT / "mnist_lab" / part).is_dir() else f"{part}.py"
        lines.append(f'<rect class="part" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{HEIGHT}"/>')
        lines.append(f'<text class="name" x="{x + width / 2:.0f}" y="{y + 20:.0f}">{name}</text>')
        for number, line in enumerate(textwrap.wrap(about(part), int(width / 5.8))[:2]):
            lines.append(
                f'<text class="about" x="{x + width / 2:.0f}" y="{y + 37 + 14 * number:.0f}">{escape(line)}</text>'
            )
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
