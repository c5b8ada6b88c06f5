"""Describe a data set: its classes, images, values and copies, and what looks wrong."""

from dataclasses import dataclass

import numpy as np
import torch

from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.data.images import SIDE
from mnist_lab.data.own_images import OwnImages, describe_images
from mnist_lab.formatting import print_lines, print_warning, shorten
from mnist_lab.tables import print_table

MAX_ROWS = 20  # Further classes share one row.


@dataclass(frozen=True)
class Summary:
    """What a data set consists of, and what looks wrong."""

    classes: list[str]
    counts: dict[str, list[int]]  # images of each class, for each raw set
    notes: list[str]  # sizes and values of the images, then what was left out and what is repeated
    warnings: list[str]

    def print(self) -> None:
        """Print sizes and values, the number of images of each class in each set, the other notes, and warnings."""
        description, *notes = self.notes
        print_lines(f"data: {len(self.classes)} classes", f"images: {description}")
        rows = list(zip(self.classes, *self.counts.values(), strict=True))
        others = (f"{len(rows) - MAX_ROWS} others", *(sum(counts[MAX_ROWS:]) for counts in self.counts.values()))
        rows = [*rows[:MAX_ROWS], *[others] * (len(rows) > MAX_ROWS), ("all", *map(sum, self.counts.values()))]
        cells = [[shorten(name, 1000), *(f"{n:,}" for n in counts)] for name, *counts in rows]
        print_table(["class", *self.counts], cells, left=["class"], cut="class")
        print_lines(*notes)
        for warning in self.warnings:
            print_warning(warning)


def print_summary(data: MNISTDataModule) -> None:
    """Print the summary of a user's own data."""
    if isinstance(data.source, OwnImages):
        summarise(data).print()


def summarise(data: MNISTDataModule) -> Summary:
    """Describe the raw sets of a data module."""
    classes, sets, names, warnings = data.classes, data.raw_sets(), data.image_names(), list[str]()
    counts = {kind: np.bincount(labels, minlength=len(classes)).tolist() for kind, (_, labels) in sets.items()}
    hashes = {kind: np.array([hash(image.tobytes()) for image in each], np.int64) for kind, (each, _) in sets.items()}
    if isinstance(data.source, OwnImages):
        notes = data.source.notes()
    else:
        shades = [shade for images, _ in sets.values() if len(images) for shade in (images.min(), images.max())]
        notes = [describe_images([(SIDE, SIDE)], (min(shades), max(shades)), (0, 255))]
    used = [name for name, *each in zip(classes, *counts.values(), strict=True) if any(each)]
    for number, (kind, (images, _)) in enumerate(sets.items()):
        missing = [name for name, count in zip(classes, counts[kind], strict=True) if count == 0]
        if missing and len(images):
            is_held_out = kind == "validation" and not data.source.read_settings().get("validation")
            remedy = "; hold out more with data.val_size, or others with data.split_seed" * is_held_out
            if kind == "training" and "".join(used).isdecimal():
                remedy = f"; data.source.classes=[{shorten(','.join(used), 200)}] leaves out those without any"
            warnings.append(f"the {kind} set has no images of {shorten(', '.join(missing))}{remedy}")
        for other in list(sets)[:number]:
            copies = names[kind][np.isin(hashes[kind], hashes[other])]
            if len(copies):
                found = f"{len(copies):,} of {len(images):,} {kind} images are in the {other} set, too"
                warnings.append(f"{found}: {shorten(', '.join(map(str, copies)), 60)}")
        if repeated := len(images) - len(np.unique(hashes[kind])):
            notes = [*notes, f"{repeated:,} of {len(images):,} {kind} images repeat another one of this set"]
        if blank := (images.min((1, 2)) == images.max((1, 2))).sum():
            warnings.append(f"{blank:,} of {len(images):,} {kind} images are blank: all their pixels are equal")
    labelled = np.concatenate([np.stack([hashes[kind], labels]) for kind, (_, labels) in sets.items()], axis=1)
    values, labels_each = np.unique(np.unique(labelled, axis=1)[0], return_counts=True)
    several = values[labels_each > 1]
    if twins := [f"{kind} {name}" for kind in sets for name in names[kind][np.isin(hashes[kind], several)]]:
        warnings.append(f"{len(twins):,} images have copies with another label: {shorten(', '.join(twins), 60)}")
    training = data.normalise(sets["training"][0])
    (lowest, highest), (std, mean) = map(float, training.aminmax()), map(float, torch.std_mean(training))
    side, moments = data.image_size, f"mean {round(mean, 2) + 0:.2f}, std {std:.2f}"
    notes = [*notes, f"the network gets {side} x {side} values from {lowest:.2f} to {highest:.2f}; {moments}"]
    return Summary(classes, counts, notes, warnings)
