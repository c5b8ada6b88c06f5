"""A folder of image files, with a folder for each class."""

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.progress import track

from mnist_lab.console import PlainConsole
from mnist_lab.data.image_source import SPLITS, Labelled, parse_split
from mnist_lab.data.images import PixelBudget, UnreadableImage, fit_image, image_suffixes, open_image
from mnist_lab.data.own_images import Decoded, OwnImages, describe_images, describe_left_out
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key, shorten

# Systems and programs make these folders, beside those whose names begin with a dot.
TOOL_FOLDERS = {"__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found"}

FilesOfClasses = dict[str, list[Path]]


class ImageFolder(OwnImages):
    """A folder with a folder of images for each class, or with such folders for train, test and val, or some of these.

    Images of any size, grey or in colour, become grey ones of 28x28 pixels, as `images.fit_image` makes them.
    """

    def _files(self) -> list[Path]:
        return _join_files(self._find_sets())

    def _decode(self) -> Decoded:
        sets = self._find_sets()
        classes = list(self.classes or sets["training"])
        for split, files in sets.items():
            if unknown := [name for name in files if name not in classes]:
                raise UsageError(f"class {unknown[0]} of the {split} set is not one of {shorten(', '.join(classes))}")
        budget = PixelBudget()
        listed = {split: _label_files(files, classes) for split, files in sets.items()}
        decoded = {split: _read_images(labelled, budget) for split, labelled in listed.items()}
        names = {split: [path.relative_to(self._path).as_posix() for path, _ in each] for split, each in listed.items()}
        lowest = min(images.min() for images, _ in decoded.values())
        highest = max(images.max() for images, _ in decoded.values())
        description = describe_images(budget.sizes, (lowest, highest), (0, 255))
        return Decoded(decoded, classes, [description, *self._describe_unread(_join_files(sets))], names)

    def _describe_unread(self, images: Iterable[Path]) -> list[str]:
        """Return a note of the files and links below the folder that are not among the images, if there are any."""
        read = {path for image in images for path in (image, *image.parents)}
        others = [path for path in sorted(self._path.rglob("*")) if path.is_symlink() or not path.is_dir()]
        unread = [path.relative_to(self._path).as_posix() for path in others if path not in read]
        reason = "hidden, a link, no image, or in no class's folder"
        return [describe_left_out(reason, unread)] if unread else []

    def _find_sets(self) -> dict[str, FilesOfClasses]:
        """Return the image files of each class of each set."""
        if not self._path.is_dir():
            raise UsageError("not a folder; data=arrays reads a file" if self._path.exists() else "folder not found")
        folders = _list_folders(self._path)
        set_folders = [folder for folder in folders if parse_split(folder.name)]
        sets = {parse_split(folder.name): folder for folder in set_folders}
        # Beside folders with other names, "train" is a class, unless there is a second set.
        if not set_folders or (len(set_folders) < len(folders) and not {"training"} < sets.keys()):
            return {"training": _find_classes(self._path, "training")}
        if "training" not in sets or len(set_folders) > len(sets):
            names = ", ".join(folder.name for folder in set_folders)
            raise UsageError(f"has the folders {names}; needed are one named train and at most one of val and of test")
        return {split: _find_classes(sets[split], split) for split in SPLITS if split in sets}


def _join_files(sets: dict[str, FilesOfClasses]) -> list[Path]:
    """Return the files of all classes of all sets."""
    return [path for classes in sets.values() for files in classes.values() for path in files]


def _find_classes(folder: Path, split: str) -> FilesOfClasses:
    """Return the image files of each class in the folder of a set; classes of the training set must have some."""
    classes = {class_folder.name: sorted(_find_images(class_folder)) for class_folder in _list_folders(folder)}
    if not classes:
        raise UsageError(
            f"{folder} contains no folders of images; a folder for each class is needed, such as cat/1.png"
        )
    empty = [name for name, files in classes.items() if not files]
    if empty and (split == "training" or len(empty) == len(classes)):
        raise UsageError(f"{folder / empty[0]} contains no images ({' '.join(sorted(image_suffixes()))})")
    return classes


def _find_images(folder: Path) -> list[Path]:
    """Return the image files at any depth of a class's folder; links to folders are left out."""
    suffixes = image_suffixes()
    paths = [path for path in folder.rglob("*") if not any(map(_is_hidden, path.relative_to(folder).parts))]
    folders = [path for path in paths if path.is_dir()]
    if folders and any(parse_split(path.name) for path in (folder, *folders)):
        raise UsageError(f"{folder} mixes sets and classes; train, val and test hold a folder for each class")
    return [path for path in paths if path.suffix.lower() in suffixes and path.is_file()]


def _list_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, 2 before 10, without hidden ones, those of tools, and links to folders above."""
    folders = [path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name)]
    inside = [path for path in folders if not folder.resolve().is_relative_to(path.resolve())]
    return sorted(inside, key=lambda path: natural_key(path.name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in TOOL_FOLDERS


def _label_files(files: FilesOfClasses, classes: list[str]) -> list[tuple[Path, int]]:
    """Return the files of a set with their labels, in a random order of the classes."""
    labelled = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
    random.Random(0).shuffle(labelled)
    return labelled


def _read_images(labelled: list[tuple[Path, int]], budget: PixelBudget) -> Labelled:
    """Return the images, (N, 28, 28) bytes, of files, and their labels, (N,)."""
    images, console = [], PlainConsole(stderr=True)
    for path, _ in track(labelled, "reading images", console=console, transient=True, disable=not console.is_terminal):
        try:
            images.append(fit_image(open_image(path, budget)))
        except UnreadableImage as error:
            raise UsageError(f"{path}: {error}; remove or replace it") from error
    return np.stack(images), np.array([label for _, label in labelled])
