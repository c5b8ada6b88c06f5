"""A digit gives the same 28 x 28 pixels in different images, and an image without a digit is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from lab import thorough
from PIL import Image, ImageDraw, ImageOps, features

from benchmarks.digits import lit, ruled
from mnist_lab.data.images import FORMATS, SIDE, PixelBudget, UnreadableImage, read_image
from mnist_lab.inference.digits import BOX, NetworkInput, NoDigit, find_digit, find_number

WRITTEN = [form for form in FORMATS if form != "AVIF" or features.check("avif")]

# A digit is a line through points of the unit square.
LINES = {
    2: [(0.05, 0.2), (0.3, 0), (0.6, 0.1), (0.6, 0.35), (0, 1), (0.7, 0.95)],
    4: [(0.55, 0), (0, 0.6), (0.75, 0.6), (0.5, 0.6), (0.5, 0.2), (0.5, 1)],
    7: [(0, 0), (0.7, 0), (0.3, 1)],
}


def drawn(
    digit: int = 4,
    *,
    height: int = 120,
    at: tuple[int, int] = (90, 60),
    page: tuple[int, int] = (300, 240),
    pen: int = 0,
) -> Image.Image:
    """Draw a digit in black on white, with strokes of a tenth of its height unless a pen is given."""
    picture = Image.new("L", page, 255)
    points = [(at[0] + x * height, at[1] + y * height) for x, y in LINES[digit]]
    width = pen or max(1, height // 10)
    ImageDraw.Draw(picture).line(points, fill=0, width=width, joint="curve")
    for x, y in points:
        ImageDraw.Draw(picture).ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=0)
    return picture


def row_of_digits(gap: int = 60) -> Image.Image:
    """Draw the three digits of LINES side by side, each at most 102 pixels wide."""
    row = Image.new("L", (3 * (102 + gap), 240), 255)
    for place, digit in enumerate(LINES):
        row.paste(drawn(digit, page=(102 + gap, 240), at=(gap // 2 + 6, 60)), (place * (102 + gap), 0))
    return row


def lopsided(quarters: int = 0) -> Image.Image:
    """Draw a thin line with a block at its end, which contains the centre of mass, turned by quarters."""
    picture = Image.new("L", (240, 240), 255)
    ImageDraw.Draw(picture).rectangle((90, 30, 149, 89), fill=0)
    ImageDraw.Draw(picture).rectangle((117, 90, 122, 209), fill=0)
    return picture.rotate(90 * quarters)


def likeness(one: NetworkInput, other: NetworkInput) -> float:
    """Return the correlation of two digits, at most 1; moved by a pixel, since centres are rounded to pixels."""
    moved = (np.roll(other.pixels, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1))
    return max(float(np.corrcoef(one.pixels.ravel(), pixels.ravel())[0, 1]) for pixels in moved)


def saved(picture: Image.Image, form: str, **settings: object) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, form, **settings)
    file.seek(0)
    return file


@pytest.mark.parametrize("digit", LINES)
@pytest.mark.parametrize("height", [20, 130, 900])
def test_digit_fills_a_box_of_20_pixels_and_has_its_centre_of_mass_in_the_middle(digit: int, height: int) -> None:
    found = find_digit(drawn(digit, height=height, at=(60, 20), page=(1000, 1000) if height > 200 else (300, 240)))
    assert height < 100 or likeness(find_digit(drawn(digit)), found) > 0.9
    pixels = found.pixels
    assert pixels.shape == (SIDE, SIDE) and pixels.dtype == np.uint8 and pixels.max() == 255
    rows, columns = (pixels.any(1).nonzero()[0], pixels.any(0).nonzero()[0])
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == BOX
    for axis in (0, 1):
        centre = pixels.sum(1 - axis) @ np.arange(SIDE) / pixels.sum()
        assert abs(centre - SIDE / 2) <= 0.5, "rounded to whole pixels, as MNIST's"


def test_lopsided_digit_stays_within_the_image() -> None:
    for quarters in range(4):
        pixels = find_digit(lopsided(quarters)).pixels
        assert max(np.ptp(places) + 1 for places in pixels.nonzero()) == BOX


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"])
def test_mode_changes_nothing(mode: str) -> None:
    picture = drawn()
    if mode in ("I", "I;16", "F"):
        other = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257).convert(mode)
    elif mode == "LAB":
        other = Image.merge("LAB", [picture, *(Image.new("L", picture.size, 128) for _ in "ab")])
    else:
        other = picture.convert("RGB").convert(mode) if mode in ("HSV", "YCbCr") else picture.convert(mode)
    assert other.mode == mode
    assert likeness(find_digit(picture), find_digit(other)) > 0.99


def on_nothing(colour: str) -> Image.Image:
    """Draw the digit in ink of a colour on a transparent page."""
    picture = Image.new("RGBA", (300, 240), colour)
    picture.putalpha(ImageOps.invert(drawn()))
    return picture


def red_on_green() -> Image.Image:
    """Draw the digit in two colours of equal brightness."""
    ink = 1 - np.asarray(drawn(), float)[..., None] / 255
    return Image.fromarray((ink * [200, 30, 30] + (1 - ink) * [20, 124, 20]).astype(np.uint8))


def in_floats(white: float) -> Image.Image:
    """Draw the digit in floats up to a value for white, and a NaN."""
    values = np.asarray(drawn(), np.float32) / 255 * white
    values[0, 0] = np.nan
    return Image.fromarray(values)


@pytest.mark.parametrize(
    "picture",
    [*map(on_nothing, ("black", "white", "red")), red_on_green(), *map(in_floats, (4095.0, 1e-6))],
    ids=["black on nothing", "white on nothing", "red on nothing", "red on green", "12 bits", "tiny floats"],
)
def test_ink_of_any_colour_and_scale_is_seen(picture: Image.Image) -> None:
    assert likeness(find_digit(drawn()), find_digit(picture)) > 0.97


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", *thorough("PNG", "TIFF", "WEBP")])
def test_image_is_turned_upright_by_exif(orientation: int, form: str) -> None:
    turned = {  # how a camera of that orientation stores the image
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    picture = drawn(7).transpose(turned[orientation]) if orientation > 1 else drawn(7)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = find_digit(read_image(saved(picture, form, exif=exif)))
    assert likeness(find_digit(drawn(7)), found) > 0.97
    assert found.box == pytest.approx(find_digit(drawn(7)).box, abs=0.02)


@pytest.mark.parametrize("digit", LINES)
@pytest.mark.parametrize("seed", [0, *thorough(1, 2, 3)])
def test_shading_shadow_noise_and_lines_of_the_paper_are_left_out(digit: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    picture = lit(ruled(drawn(digit), random).convert("L"), random)
    assert likeness(find_digit(drawn(digit)), find_digit(picture)) > 0.9


def test_table_dust_and_writing_far_away_are_left_out() -> None:
    picture = drawn(2, height=100, at=(110, 60))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 18, 240), fill=60)  # table
    pen.rectangle((0, 225, 300, 240), fill=60)
    pen.rectangle((240, 120, 245, 124), fill=0)  # dust
    pen.line((260, 20, 280, 30, 270, 45), fill=0, width=3)
    assert likeness(find_digit(drawn(2)), find_digit(picture)) > 0.97


def test_digit_in_two_parts_is_whole() -> None:
    picture = drawn(7, height=140)
    ImageDraw.Draw(picture).rectangle((0, 84, 300, 92), fill=255)  # This cuts its bar off.
    top, bottom = find_digit(picture).box[1::2]
    assert 240 * (bottom - top) == pytest.approx(154, abs=3)
    assert likeness(find_digit(drawn(7)), find_digit(picture)) > 0.85


@pytest.mark.parametrize("gap", [12, 120])
def test_digits_side_by_side_are_counted_and_one_of_them_is_taken_alone(gap: int) -> None:
    found = find_digit(row_of_digits(gap))
    assert found.candidates == 3
    row = find_number(row_of_digits(gap))
    assert all(likeness(find_digit(drawn(digit)), each) > 0.97 for digit, each in zip(LINES, row, strict=True))
    assert max(likeness(find_digit(drawn(digit)), found) for digit in LINES) > 0.97


@pytest.mark.parametrize("digit", LINES)
def test_line_around_a_digit_is_left_out(digit: int) -> None:
    for shape, box in (("rectangle", (50, 20, 218, 220)), ("ellipse", (40, 10, 230, 230))):
        picture = drawn(digit)
        getattr(ImageDraw.Draw(picture), shape)(box, outline=0, width=4)
        found = find_digit(picture)
        assert likeness(find_digit(drawn(digit)), found) > 0.97 and found.candidates == 1


def test_thin_strokes_are_thickened() -> None:
    thin, usual = find_digit(drawn(7, height=200, at=(60, 20), pen=2)), find_digit(drawn(7))
    assert thin.pixels.sum() > 0.4 * usual.pixels.sum()
    assert likeness(thin, usual) > 0.75
    assert thin.pixels.max() == 255


def test_image_without_a_digit_is_refused() -> None:
    noise = np.random.default_rng(0).normal(0, 6, (240, 320))
    dust, table = (Image.new("L", (320, 240), 255) for _ in range(2))
    for x, y in np.random.default_rng(1).integers(0, 230, (20, 2)).tolist():
        ImageDraw.Draw(dust).rectangle((x, y, x + 2, y + 1), fill=0)
    ImageDraw.Draw(table).rectangle((0, 0, 30, 240), fill=80)
    shaded, dots = 120 + np.linspace(0, 100, 320) + noise, []
    for side, longest in ((28, 3), (56, 4), (112, 5)):
        dots.append(Image.new("L", (side, side), 255))
        ImageDraw.Draw(dots[-1]).ellipse((14, 14, 13 + longest, 13 + longest), fill=0)
    for picture in (
        *(Image.new(mode, (320, 240)) for mode in ("L", "RGB", "RGBA", "I;16")),
        *(Image.new("L", (320, 240), 127), Image.new("1", (1, 1)), Image.new("L", (3000, 1), 255)),
        *(Image.fromarray(page.clip(0, 255).astype(np.uint8)) for page in (200 + noise, shaded)),
        *(dust, table, *dots),
    ):
        with pytest.raises(NoDigit, match="no digit found"):
            find_digit(picture)


@pytest.mark.parametrize("mode", ["1", "L", "RGBA", *thorough("P", "CMYK")])
def test_large_image_is_shrunk_while_it_is_read(mode: str) -> None:
    large = drawn(7, height=2000, at=(1500, 800), page=(4000, 3001))
    if mode == "RGBA":
        large = Image.merge("RGBA", [*[Image.new("L", large.size)] * 3, ImageOps.invert(large)])
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = large.convert(mode).transpose(Image.Transpose.ROTATE_180)
    picture = read_image(saved(turned, "JPEG" if mode == "CMYK" else "PNG", exif=exif))
    assert max(picture.size) <= 2000
    assert likeness(find_digit(drawn(7, height=200, at=(150, 80), page=(400, 300))), find_digit(picture)) > 0.99


@pytest.mark.parametrize("form", WRITTEN)
def test_every_format_is_read(form: str) -> None:
    assert likeness(find_digit(drawn()), find_digit(read_image(saved(drawn(), form)))) > 0.99


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "unknown image format; save it as JPEG or PNG"),
        (b"just words", "unknown image format"),
        (saved(drawn(), "PNG").getvalue()[:200], "corrupt or incomplete"),
        (saved(drawn(page=(900, 900)), "JPEG").getvalue()[:3000], "corrupt or incomplete"),
        (saved(drawn(), "TIFF").getvalue()[:5000], "corrupt or incomplete"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unknown image format"),
    ],
)
def test_file_that_is_not_a_complete_image_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(UnreadableImage, match=message):
        read_image(io.BytesIO(content))


def claiming(width: int, height: int) -> bytes:
    """Return a PNG of few bytes that claims to have a size."""
    content = bytearray(saved(drawn(), "PNG").getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_progressive_jpeg_of_many_scans_is_refused() -> None:
    whole = saved(drawn(), "JPEG", progressive=True).getvalue()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    assert read_image(io.BytesIO(whole[:-2] + scan * 3 + whole[-2:]))
    with pytest.raises(UnreadableImage, match="more than 100 scans"):
        read_image(io.BytesIO(whole[:-2] + scan * 200 + whole[-2:]))


def test_images_of_many_pixels_and_few_bytes_are_read_up_to_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_lab.data.images.FREE_PIXELS", 1_000_000)
    budget, blank = PixelBudget(), saved(Image.new("1", (700, 700)), "PNG")
    assert read_image(blank, budget) and read_image(blank, budget)
    with pytest.raises(UnreadableImage, match="too many pixels in all"):
        read_image(blank, budget)


def test_small_file_that_would_fill_the_memory_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(UnreadableImage, match=r"too many pixels \(11000 x 11000\); shrink it to 120,000,000"):
        read_image(io.BytesIO(claiming(11_000, 11_000)))
    with pytest.raises(UnreadableImage, match="too many pixels; shrink it to 120,000,000"):
        read_image(io.BytesIO(claiming(30_000, 30_000)))  # Pillow itself refuses this.
    for size in ((1, 79_999_999), (79_999_999, 1)):  # A row's address takes more memory than its pixel.
        with pytest.raises(UnreadableImage, match="too narrow"):
            read_image(io.BytesIO(claiming(*size)))
