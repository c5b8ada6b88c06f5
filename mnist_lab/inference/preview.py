"""What a network saw of pictures, to look at: `predict --show`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write
from mnist_lab.inference.images import brightness, opened
from mnist_lab.inference.recognise import Answer

SIDE, MARGIN = 280, 12  # pixels


def preview_paths(pictures: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Name a new PNG in a folder for each picture, after the picture. Files that exist are never replaced.

    Raises:
        UsageError: one of them exists; it may be a picture of the user's own.
    """
    paths: dict[Path, Path] = {}
    taken: set[str] = set()
    for picture in pictures:
        name, number = f"{picture.stem}.png", 1
        while name.lower() in taken:  # pictures of other folders or formats
            number += 1
            name = f"{picture.stem}-{number}.png"
        taken.add(name.lower())
        if os.path.lexists(folder / name):
            raise UsageError(f"--show={folder}: {folder / name} already exists; choose a new folder")
        paths[picture] = folder / name
    return paths


def save_previews(answers: Sequence[Answer], paths: Mapping[Path, Path], folder: Path) -> None:
    """Write a PNG for each answer into a folder, at the path that `preview_paths` gave its picture.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for answer in answers:
            with atomic_write(paths[answer.path]) as partial:
                render_preview(answer).save(partial, format="PNG")
    except OSError as error:
        raise UsageError(f"--show={folder}: cannot be written ({error.strerror}); choose another") from error


def render_preview(answer: Answer) -> Image.Image:
    """The picture in grey with the digit's place, beside it what the network was given; below, what it made of it."""
    grey = Image.fromarray(brightness(opened(answer.path)).clip(0, 255).astype(np.uint8))
    grey.thumbnail((2 * SIDE, SIDE))
    factor = min(2 * SIDE / grey.width, SIDE / grey.height)
    picture = grey.resize((max(1, round(factor * grey.width)), max(1, round(factor * grey.height)))).convert("RGB")
    left, top, right, bottom = answer.found.box
    box = (left * picture.width - 3, top * picture.height - 3, right * picture.width + 2, bottom * picture.height + 2)
    ImageDraw.Draw(picture).rectangle(box, outline=(214, 39, 40), width=2)
    given = Image.fromarray(answer.found.pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    sheet = Image.new(
        "RGB", (picture.width + SIDE + 3 * MARGIN, SIDE + 2 * MARGIN + (70 if answer.note else 40)), "white"
    )
    sheet.paste(picture, (MARGIN, MARGIN + (SIDE - picture.height) // 2))
    sheet.paste(given, (picture.width + 2 * MARGIN, MARGIN))
    (digit, probability), (second, its) = answer.ranked[:2]
    words = f"{digit}: {probability:.2%}   then {second}: {its:.2%}\n{answer.note}"
    ImageDraw.Draw(sheet).text((MARGIN, SIDE + 2 * MARGIN), words, fill="black", font=ImageFont.load_default(22))
    return sheet
