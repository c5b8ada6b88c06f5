"""Train LeNet on a data set of your own: drawn circles, crosses and squares. You may add settings to the command."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mnist_lab import compose, train

FOLDER = Path("shapes")
IMAGES = 200  # per class


def draw_shape(name: str, random: np.random.Generator) -> Image.Image:
    """Draw a shape of random size and place on white paper."""
    image = Image.new("L", (64, 48), "white")
    draw = ImageDraw.Draw(image)
    x, y, size = random.integers([2, 2, 16], [30, 20, 28]).tolist()
    if name == "circle":
        draw.ellipse((x, y, x + size, y + size), outline="black", width=3)
    elif name == "square":
        draw.rectangle((x, y, x + size, y + size), outline="black", width=3)
    else:
        draw.line((x, y, x + size, y + size), fill="black", width=3)
        draw.line((x, y + size, x + size, y), fill="black", width=3)
    return image


def main() -> None:
    random = np.random.default_rng(0)
    for name in ("circle", "cross", "square"):
        (FOLDER / name).mkdir(parents=True, exist_ok=True)
        for number in range(IMAGES):
            draw_shape(name, random).save(FOLDER / name / f"{number}.png")
    settings = ["data=image_folder", f"data.source.path={FOLDER}", "data.batch_size=16", "optimizer=adam"]
    run = train(compose(*settings, *sys.argv[1:]))
    print(f"classes: {', '.join(run.config.data.source.classes)}")
    print(f"test accuracy: {run.info['metrics']['test/acc']:.2%}")


if __name__ == "__main__":
    main()
