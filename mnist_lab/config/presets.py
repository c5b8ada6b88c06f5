"""The presets, experiment=NAME: what the comments at the top of their files say, and copies to change."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from mnist_lab.config import conf_dir
from mnist_lab.errors import UsageError
from mnist_lab.files import user_output
from mnist_lab.formatting import display_path


@dataclass(frozen=True)
class Preset:
    """A preset by its file.

    Attributes:
        path: of the file.
    """

    path: Path

    @property
    def name(self) -> str:
        """Its name, as in experiment=NAME."""
        return self.path.stem

    @property
    def header(self) -> str:
        """The comments at the top of the file, as one line."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        comments = itertools.takewhile(lambda line: line.startswith("#"), lines)
        return " ".join(line.lstrip("# ") for line in comments if not line.startswith("# @"))

    @property
    def summary(self) -> str:
        """What it is for."""
        return re.split(r": python -m|(?<=\.) ", self.header)[0]

    @property
    def measured(self) -> dict[str, str]:
        """Its test accuracy, the number of seeds, and the time of a run, as the header says; empty if it does not."""
        found = re.search(r"Here: (?P<accuracy>.*?%) over (?P<seeds>\d+) seeds, (?P<time>.*?) each", self.header)
        return found.groupdict() if found else {}


def find_presets(config_dir: str | None = None) -> list[Preset]:
    """Return the presets by name, also those of a folder of the user's own."""
    folders = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    paths = {path.stem: path for folder in folders for path in (folder / "experiment").glob("*.yaml")}
    return [Preset(paths[name]) for name in sorted(paths)]


def preset_names(config_dir: str | None = None) -> list[str]:
    """Return the names of the presets, which are the choices of experiment."""
    return [preset.name for preset in find_presets(config_dir)]


def copy_preset(name: str, folder: Path, new_name: str, config_dir: str | None = None) -> Path:
    """Copy a preset into a folder of the user's own, to be changed there, and return the new file.

    Args:
        name: the preset.
        folder: for --config-dir.
        new_name: of the copy.
        config_dir: another folder with presets.

    Raises:
        UsageError: there is no such preset, the new name is taken, or the file cannot be written.
    """
    presets = {preset.name: preset for preset in find_presets(config_dir)}
    if name not in presets:
        raise UsageError(f"{name}: unknown preset; choose from {', '.join(presets)}")
    path = folder / "experiment" / f"{new_name}.yaml"
    if new_name in presets or path.exists():
        raise UsageError(f"--as={new_name}: the name is taken; choose another")
    if not re.fullmatch(r"\w[\w-]*", new_name):
        raise UsageError(f"--as={new_name}: a name consists of letters, digits, _ and -")
    text = presets[name].path.read_text(encoding="utf-8")
    settings = text[re.match(r"(#.*\n)*", text).end() :]  # type: ignore[union-attr]
    with user_output(path, display_path(path)) as partial:
        partial.write_text(f"# @package _global_\n# A copy of {name}.\n{settings}", encoding="utf-8")
    return path
