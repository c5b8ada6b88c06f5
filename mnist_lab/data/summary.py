"""What a user's own data are, said before training."""

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
    classes, sets, doubts = data.classes, data.raw_sets(), []
    known = {hash(image.tobytes()) for image in sets["training"][0]}
    others = [f"{len(classes) - MAX_COLUMNS} others"] if len(classes) > MAX_COLUMNS else []
    lines = [["", "images", *(shorten(name, 12) for name in classes[:MAX_COLUMNS]), *others]]
    for kind, (images, labels) in sets.items():
        counts = np.bincount(labels, minlength=len(classes)).tolist()
        shown = [len(labels), *counts[:MAX_COLUMNS], sum(counts[MAX_COLUMNS:])][: len(lines[0]) - 1]
        lines.append([kind, *map(str, shown)])
        missing = [name for name, count in zip(classes, counts, strict=True) if not count]
        if missing and kind != "validation":
            doubts.append(f"the {kind} set has no images of {shorten(', '.join(missing))}")
        if kind != "training" and (copies := sum(hash(image.tobytes()) in known for image in images)):
            doubts.append(f"{copies:,} of {len(images):,} {kind} images are in the training set, too")
        if len(images) and (brightest := images.max()) < DARK:
            doubts.append(f"the {kind} images have shades up to {brightest} of 255; is it another scale?")
    described, *notes = data.source.notes()
    print_lines(f"data: {len(classes)} classes; images of {described}")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for kind, *cells in lines:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print_lines("  ".join([kind.ljust(widths[0]), *padded]))
    print_lines(*notes)
    for doubt in doubts:
        print_warning(doubt)
