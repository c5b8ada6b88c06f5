"""Parts of benchmarks/fuzz.py: damaged pictures of every format and CSVs of pixels, for `predict`."""

import io
import random
import struct
import zlib
from functools import cache, partial
from pathlib import Path

from PIL import Image, ImageDraw

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
ODD_CELLS = ["", "256", "-1", "1.5", "x", '"', "nan", "1e3", "9" * 6000, "\0", "é", " 7", "٣", "0x10", "7,7", "\r", "'"]


@cache
def whole_picture(form: str, mode: str) -> bytes:
    """Return a picture of a 7 in a format."""
    picture = Image.new("L", (90, 70), 255)
    ImageDraw.Draw(picture).line([(25, 15), (60, 15), (40, 60)], fill=0, width=7)
    file = io.BytesIO()
    picture.convert("RGB").convert(mode).save(file, form)
    return file.getvalue()


def damaged_picture(chance: random.Random, run: Path, form: str) -> list[list[str]]:
    """Damage a picture: change, remove, repeat or cut off bytes, and enlarge numbers."""
    modes = ["L", "RGB"] + ["1", "P", "RGBA"] * (form == "PNG") + ["P"] * (form == "GIF")
    content = bytearray(whole_picture(form, chance.choice(modes)))
    for _ in range(chance.choice((1, 1, 3, 20))):
        place = chance.randrange(chance.choice((min(60, len(content)), len(content))))
        kind = chance.randrange(6)
        if kind < 3:
            content[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif kind == 3:
            order = chance.choice("<>")
            content[place : place + 4] = struct.pack(order + "I", chance.choice([0, 2**16, 2**31 - 1, 9000]))
        elif kind == 4:
            del content[place : place + chance.randrange(1, 9)]
        else:
            content[place:place] = content[max(0, place - 30) : place]
        if not content:
            content = bytearray(1)
    if chance.random() < 0.2:
        del content[chance.randrange(len(content)) :]
    path = Path(f"x.{form.lower()}")
    path.write_bytes(with_right_checksums(content) if form == "PNG" and chance.random() < 0.7 else content)
    return [["predict", str(run), str(path), *chance.choice([[], ["--json"], ["--show", "seen"]])]]


def with_right_checksums(png: bytes) -> bytes:
    """Correct the checksums of a PNG's chunks, so that their content is read."""
    content, place = bytearray(png), 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            break
        struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4
    return bytes(content)


def damaged_pixels(chance: random.Random, run: Path) -> list[list[str]]:
    """Damage a CSV of 784 pixels a line: its cells, lines, head or bytes."""
    labels = chance.random() < 0.5
    head = ["label"] * labels + [f"pixel{i}" for i in range(784)]
    lines = [head]
    for _ in range(3):
        lines.append([str(chance.randrange(10))] * labels + [str(chance.randrange(256)) for _ in range(784)])
    if chance.random() < 0.3:
        del lines[0]
    for _ in range(chance.choice((0, 1, 1, 3))):
        line = chance.choice(lines)
        kind = chance.randrange(4)
        if kind < 2:
            line[chance.randrange(len(line))] = chance.choice(ODD_CELLS)
        elif kind == 2:
            line[chance.randrange(len(line)) :] = ["0"] * chance.randrange(900)
        else:
            lines.insert(0, chance.choice([[], ["x"], ["0"] * 785, ["label"] * 784]))
        lines = [line or [""] for line in lines]
    content = bytearray(chance.choice(["\n", "\n", "\r\n", "\r"]).join(map(",".join, lines)).encode())
    if chance.random() < 0.3:
        content[chance.randrange(len(content))] = chance.choice([0, 10, 13, 34, 0x80, 0xFF])
    if chance.random() < 0.2:
        del content[chance.randrange(len(content)) :]
    Path("x.csv").write_bytes(content)
    return [["predict", str(run), "x.csv", *chance.choice([[], ["--out", "y.csv"]])]]


PARTS = {form.lower(): partial(damaged_picture, form=form) for form in FORMATS} | {"pixels_csv": damaged_pixels}
