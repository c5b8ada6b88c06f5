"""Find the presets, experiment=NAME, and read the comments at the top of their files."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from mnist_lab.config import conf_dir


@dataclass(frozen=True)
class Preset:
    """A preset, known by its file."""

    path: Path

    @property
    def name(self) -> str:
        """The name, as in experiment=NAME."""
        return self.path.stem

    @property
    def header(self) -> str:
        """The comments at the top of the file, as one line."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        comments = itertools.takewhile(lambda line: line.startswith("#"), lines)
        return " ".join(line.lstrip("# ") for line in comments if not line.startswith("# @"))

    @property
    def summary(self) -> str:
        """The purpose of the preset."""
        return re.split(r": python -m|(?<=\.) ", self.header)[0]

    @property
    def measured(self) -> dict[str, str]:
        """The test accuracy, the number of seeds and the time of a run from the header; empty without them."""
        match = re.search(r"Here: (?P<accuracy>.*?%) over (?P<seeds>\d+) seeds, (?P<time>.*?) each", self.header)
        return match.groupdict() if match else {}


def find_presets(config_dir: str | None = None) -> list[Preset]:
    """Return the presets of conf/ and of a folder of the user's own, in the order of their names."""
    folders = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    paths = {path.stem: path for folder in folders for path in (folder / "experiment").glob("*.yaml")}
    return [Preset(paths[name]) for name in sorted(paths)]


def preset_names(config_dir: str | None = None) -> list[str]:
    """Return the names of the presets, which are the choices of experiment."""
    return [preset.name for preset in find_presets(config_dir)]
