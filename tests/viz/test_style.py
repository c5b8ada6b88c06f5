"""The colours mean the same everywhere, and can be told apart in grey, by colour-blind eyes, and on both pages."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import mnist_lab
from mnist_lab.viz.style import COLOURS, DARK, FILL

PACKAGE = Path(mnist_lab.__file__).parent
TOGETHER = (("train", "val", "test"), ("right", "wrong"), ("positive", "negative"))
# What the eyes see of linear red, green and blue (Machado, Oliveira and Fernandes, 2009, severity 1).
EYES = {
    "normal": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    """Return linear red, green and blue of a colour such as #ffffff."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colour: str, eyes: str = "normal") -> np.ndarray:
    """Return lightness and colour as the CIE defines them, in which distances are those that eyes see."""
    x, y, z = np.cbrt(XYZ @ np.clip(EYES[eyes] @ linear(colour), 0, 1) / XYZ.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """Return the contrast of two linear colours, as WCAG defines it."""
    low, high = sorted(XYZ[1] @ colour + 0.05 for colour in (one, other))
    return float(high / low)


@pytest.mark.parametrize("palette", [COLOURS, DARK])
def test_colours_shown_together_differ_for_all_eyes_and_in_grey(palette: dict[str, str]) -> None:
    for names in TOGETHER:
        for one, other in combinations(names, 2):
            for eyes in EYES:
                distance = np.linalg.norm(lab(palette[one], eyes) - lab(palette[other], eyes))
                assert distance > 20, f"{one} and {other}, {eyes}: {distance:.0f}"
            assert abs(lab(palette[one])[0] - lab(palette[other])[0]) > 8, f"{one} and {other} in grey"
    for one, other in combinations([name for names in TOGETHER for name in names], 2):
        assert np.linalg.norm(lab(palette[one]) - lab(palette[other])) > 20, f"{one} and {other}"


@pytest.mark.parametrize("palette", [COLOURS, DARK])
def test_lines_and_texts_stand_out_from_the_paper(palette: dict[str, str]) -> None:
    paper, ink = linear(palette["paper"]), linear(palette["ink"])
    for name in (name for names in TOGETHER for name in names):
        assert contrast(linear(palette[name]), paper) > 3, name
    for name in ("ink", "soft", "right", "wrong"):
        assert contrast(linear(palette[name]), paper) > 4.5, name
    for name in ("val", "right", "wrong"):  # the strongest cells of heat maps and confusion matrices
        values = [np.array([int(palette[key][i : i + 2], 16) for i in (1, 3, 5)]) for key in (name, "paper")]
        red, green, blue = (FILL * values[0] + (1 - FILL) * values[1]).astype(int)
        assert contrast(linear(f"#{red:02x}{green:02x}{blue:02x}"), ink) > 4.5, f"text on {name}"


def test_pages_know_the_colours_that_they_use_and_a_sign_looks_the_same() -> None:
    page = (PACKAGE / "web/templates/page.css").read_text()
    for i, palette in enumerate((COLOURS, DARK)):
        for variable, name in (("accent", "positive"), ("negative", "negative")):
            assert re.findall(f"--{variable}: (#[0-9a-f]+);", page)[i] == palette[name]
    style = (PACKAGE / "report/templates/style.css").read_text()
    templates = "".join(path.read_text() for path in PACKAGE.glob("report/templates/*"))
    known = {*COLOURS, *re.findall(r"--([a-z-]+):", templates)}
    assert set(re.findall(r"var\(--([a-z-]+)", templates)) <= known
    assert COLOURS.keys() == DARK.keys() and not COLOURS.keys() & set(re.findall(r"--([a-z-]+):", style))
