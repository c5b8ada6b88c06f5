"""Draw images that show what a network was given, for `predict --show`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mnist_lab.data.images import brightness, open_image
from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write
from mnist_lab.inference.recognise import Answer

SIDE, MARGIN = 280, 12  # pixels


def preview_paths(images: Iterable[Path], folder: Path) -> dict[Path, Path]:
    """Return the path of each image's preview in a folder; raise UsageError if the folder is not empty."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"--show={folder}: is not empty; choose a new folder")
    return {image: folder / f"{number:03}-{image.stem}.png" for number, image in enumerate(images, start=1)}


def save_previews(answers: Sequence[Answer], paths: Mapping[Path, Path], folder: Path) -> None:
    """Write a PNG for each answer into a folder, at the path that `preview_paths` gave its image."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for answer in answers:
            with atomic_write(paths[answer.path]) as partial:
                render_preview(answer).save(partial, format="PNG")
    except OSError as error:
        raise UsageError(f"--show={folder}: cannot be written ({error.strerror}); choose another") from error


def render_preview(answer: Answer) -> Image.Image:
    """Draw the grey image with boxes around what was recognised, the network's inputs beside it, and the answer."""
    grey = Image.fromarray(brightness(open_image(answer.path)).clip(0, 255).astype(np.uint8))
    factor = min(2 * SIDE / grey.width, SIDE / grey.height)
    image = grey.resize([max(1, round(factor * side)) for side in grey.size]).convert("RGB")
    for network_input in answer.found:
        left, top, right, bottom = network_input.box
        box = (left * image.width - 3, top * image.height - 3, right * image.width + 2, bottom * image.height + 2)
        ImageDraw.Draw(image).rectangle(box, outline=(214, 39, 40), width=2)
    height = SIDE + 2 * MARGIN + (70 if answer.note else 40)
    sheet = Image.new("RGB", (image.width + SIDE + 3 * MARGIN, height), "white")
    sheet.paste(image, (MARGIN, MARGIN + (SIDE - image.height) // 2))
    columns = math.ceil(math.sqrt(len(answer.found)))
    side = SIDE // columns
    for place, network_input in enumerate(answer.found):
        pixels = Image.fromarray(network_input.pixels).resize((side - 4, side - 4), Image.Resampling.NEAREST)
        row, column = divmod(place, columns)
        sheet.paste(pixels, (image.width + 2 * MARGIN + column * side, MARGIN + row * side))
    runner_up, probability = answer.runner_up
    text = f"{answer.text}: {answer.probability:.2%}   then {runner_up}: {probability:.2%}\n{answer.note}"
    ImageDraw.Draw(sheet).text((MARGIN, SIDE + 2 * MARGIN), text, fill="black", font=ImageFont.load_default(22))
    return sheet
