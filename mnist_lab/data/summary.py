"""Describe a user's own data before training."""

from collections.abc import Mapping

import numpy as np

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.own_images import OwnImages
from mnist_lab.formatting import print_lines, print_warning, shorten

MAX_COLUMNS = 10  # Further classes share one column.
DARK = 128  # A set without any brighter shade, of 255, gets a warning.


def print_summary(data: MNISTDataModule) -> None:
    """Print classes, images of each set, their sizes and values, and what was left out; warn of what looks wrong."""
    if not isinstance(data.source, OwnImages):
        return
    classes, sets = data.classes, data.raw_sets()
    counts = {kind: np.bincount(labels, minlength=len(classes)).tolist() for kind, (_, labels) in sets.items()}
    description, *notes = data.source.notes()
    print_lines(f"data: {len(classes)} classes; images of {description}")
    _print_counts(counts, classes)
    print_lines(*notes)
    known = {hash(image.tobytes()) for image in sets["training"][0]}
    for kind, (images, _) in sets.items():
        missing = [name for name, count in zip(classes, counts[kind], strict=True) if count == 0]
        if missing and kind != "validation":
            print_warning(f"the {kind} set has no images of {shorten(', '.join(missing))}")
        copies = sum(hash(image.tobytes()) in known for image in images) if kind != "training" else 0
        if copies:
            print_warning(f"{copies:,} of {len(images):,} {kind} images are in the training set, too")
        if len(images) and images.max() < DARK:
            print_warning(f"the {kind} images have shades up to {images.max()} of 255; is it another scale?")


def _print_counts(counts: Mapping[str, list[int]], classes: list[str]) -> None:
    """Print a table with the number of images of each class in each set."""
    if len(classes) > MAX_COLUMNS:
        counts = {kind: [*numbers[:MAX_COLUMNS], sum(numbers[MAX_COLUMNS:])] for kind, numbers in counts.items()}
        classes = [*classes[:MAX_COLUMNS], f"{len(classes) - MAX_COLUMNS} others"]
    lines = [["", "images", *(shorten(name, 12) for name in classes)]]
    lines += [[kind, str(sum(numbers)), *map(str, numbers)] for kind, numbers in counts.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for kind, *cells in lines:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print_lines("  ".join([kind.ljust(widths[0]), *padded]))
