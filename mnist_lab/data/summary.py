"""What a user's own data are, said before training."""

import numpy as np

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.own_images import OwnImages
from mnist_lab.formatting import print_lines, print_warning, shorten


def print_summary(data: MNISTDataModule) -> None:
    """Print classes, images of each set, their sizes and values, and what was left out; warn of what looks wrong."""
    if not isinstance(data.source, OwnImages):
        return
    sets, doubts = data.raw_sets(), []
    known = {hash(image.tobytes()) for image in sets["training"][0]}
    for kind, (images, labels) in sets.items():
        counts = np.bincount(labels, minlength=len(data.classes)).tolist()
        found = [f"{name} {count:,}" for name, count in zip(data.classes, counts, strict=True) if count]
        shades = f", shades {images.min()} to {images.max()}" if len(images) else ""
        print_lines(f"{kind} images: {len(labels):,}{shades}; {len(found)} classes: {shorten(', '.join(found), 200)}")
        missing = [name for name, count in zip(data.classes, counts, strict=True) if not count]
        if missing and kind != "validation":
            doubts.append(f"the {kind} set has no images of {shorten(', '.join(missing))}")
        if kind != "training" and (copies := sum(hash(image.tobytes()) in known for image in images)):
            doubts.append(f"{copies:,} of {len(images):,} {kind} images are in the training set, too")
        if len(images) and images.max() < 128:
            doubts.append(f"the {kind} set has shades up to {images.max()} of 255; another scale?")
    for note in data.source.notes():
        print_lines(note)
    for doubt in doubts:
        print_warning(doubt)
