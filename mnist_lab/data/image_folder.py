"""A data set of image files, a folder for each class."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mnist_lab.data.images import UnreadableImage, fit_image, image_suffixes, open_image
from mnist_lab.data.own_images import Labelled, OwnImages
from mnist_lab.errors import UsageError
from mnist_lab.formatting import natural_key


@dataclass(frozen=True, kw_only=True)
class ImageFolder(OwnImages):
    """A folder with a folder of images for each class, which bears the class's name.

    Images of any size, grey or in colour, become grey ones of 28x28 pixels, as `images.fit_image` makes them. If the
    folder contains two named train and test, each of them has a folder for each class.
    """

    def _files(self) -> list[Path]:
        return [
            path for folder in self._sets().values() for paths in self._class_files(folder).values() for path in paths
        ]

    def _checksum(self) -> str:
        """Return the sum of the lines that `sha256sum` prints for the files, in the order of their paths."""
        lines = sorted(
            (path.relative_to(self._path).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in self._files()
        )
        return hashlib.sha256("".join(f"{checksum}  {name}\n" for name, checksum in lines).encode()).hexdigest()

    def _decode(self) -> Labelled:
        sets = {name: self._class_files(folder) for name, folder in self._sets().items()}
        classes = list(sets["train"]) if self.classes is None else list(self.classes)
        for name, found in sets.items():
            if unknown := [each for each in found if each not in classes]:
                raise UsageError(
                    f"data.source.path={self.path}: class {unknown[0]} of the {name} set is not one of "
                    f"{', '.join(classes)}"
                )
        arrays = {name: self._decode_set(found, classes) for name, found in sets.items()}
        return Labelled(arrays["train"], arrays.get("test"), classes)

    def _sets(self) -> dict[str, Path]:
        """Return the folders of the training set and, if it is kept apart, of the test set."""
        if not self._path.is_dir():
            state = "not a folder" if self._path.exists() else "folder not found"
            raise UsageError(f"data.source.path={self.path}: {state}")
        kept_apart = {name: self._path / name for name in ("train", "test")}
        if all(folder.is_dir() for folder in kept_apart.values()):
            return kept_apart
        return {"train": self._path}

    def _class_files(self, folder: Path) -> dict[str, list[Path]]:
        """Return the image files of each class."""
        folders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))]
        if not folders:
            raise UsageError(
                f"data.source.path={self.path}: contains no folders of images; a folder for each class is needed, "
                "such as cat/1.png and dog/1.png"
            )
        suffixes = image_suffixes()
        found = {}
        for each in sorted(folders, key=lambda path: natural_key(path.name)):
            files = (path for path in each.rglob("*") if path.suffix.lower() in suffixes and path.name[0] != ".")
            found[each.name] = sorted(path for path in files if path.is_file())
            if not found[each.name]:
                raise UsageError(
                    f"data.source.path={self.path}: {each} contains no images ({' '.join(sorted(suffixes))})"
                )
        return found

    def _decode_set(self, files: dict[str, list[Path]], classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return images (N, 28, 28), uint8, and labels (N,), the classes mixed."""
        labelled = [(path, classes.index(name)) for name, paths in files.items() for path in paths]
        random.Random(0).shuffle(labelled)
        images = []
        for path in _with_progress([path for path, _ in labelled]):
            try:
                images.append(fit_image(open_image(path)))
            except UnreadableImage as error:
                raise UsageError(f"data.source.path={self.path}: {path}: {error}; remove or replace it") from error
        return np.stack(images), np.array([label for _, label in labelled])


def _with_progress(paths: list[Path]) -> Iterable[Path]:
    console = Console(stderr=True)
    return track(paths, "reading images", console=console, transient=True, disable=not console.is_terminal)
