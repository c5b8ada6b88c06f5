"""The page finds the digits in a drawing, whatever their place and size, in order, and as `predict` does."""

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_digits import LINES, drawn, likeness, lopsided, row_of_digits

from benchmarks.page import PAD, drawings
from mnist_lab.data.images import fit_image
from mnist_lab.inference.digits import NetworkInput, find_digit, find_number
from mnist_lab.web.page import TEMPLATES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def page(browser: "Browser") -> Iterator["Page"]:
    """Open a page that has only digit.js."""
    page = browser.new_page()
    page.add_script_tag(content=(TEMPLATES / "digit.js").read_text())
    yield page
    page.close()


def found(page: "Page", picture: Image.Image, call: str = "findNumber(grey, {width, height})") -> list[NetworkInput]:
    row: list[dict[str, Any]] = page.evaluate(
        f"""([picture, width, height]) => {{
            const grey = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
            return {call}.map((digit) => ({{...digit, pixels: [...digit.pixels]}}));
        }}""",
        [base64.b64encode(picture.tobytes()).decode(), *picture.size],
    )
    return [NetworkInput(**digit | {"pixels": np.reshape(digit["pixels"], (28, 28))}) for digit in row]


def test_lopsided_digit_stays_within_the_image(page: "Page") -> None:
    for quarters in range(4):
        (alone,) = found(page, lopsided(quarters))
        assert max(np.ptp(places) + 1 for places in alone.pixels.nonzero()) == 20


def test_row_is_split_from_left_to_right_and_what_is_below_is_counted(page: "Page") -> None:
    pad = Image.new("L", PAD, 255)
    pad.paste(row_of_digits().resize((360, 178)), (0, -30))
    for below in (0, 1):
        row = found(page, pad)
        assert [digit.candidates for digit in row] == [3 + below] * 3
        assert all(likeness(one, find_digit(drawn(digit))) > 0.9 for one, digit in zip(row, LINES, strict=True))
        pad.paste(drawn(7, height=80, at=(30, 20), page=(120, 120)), (130, 135))


def test_empty_pad_and_a_dot_have_no_digit(page: "Page") -> None:
    pad = Image.new("L", PAD, 255)
    assert found(page, pad) == []
    ImageDraw.Draw(pad).ellipse((100, 100, 118, 118), fill=0)
    assert found(page, pad) == []


def test_digits_are_those_that_predict_finds(page: "Page") -> None:
    images = np.stack([find_digit(drawn(digit)).pixels for digit in LINES])
    for picture in drawings(images, 12):
        row, expected = found(page, picture), find_number(picture)
        for one, other in zip(row, expected, strict=True):
            assert one.candidates == other.candidates and one.box == pytest.approx(other.box, abs=0.02)
            assert np.abs(one.pixels - other.pixels.astype(int)).mean() < 4


def test_whole_drawing_is_given_to_networks_for_other_things(page: "Page") -> None:
    picture = drawn(4, height=200, at=(40, 20), page=(256, 256))
    for background in (0, 255):
        ((pixels, *_),) = found(page, picture, f"fitImage(grey, {{width}}, {background})")
        assert np.abs(pixels - fit_image(picture, background).astype(int)).mean() < 4
