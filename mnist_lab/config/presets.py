"""Find the presets, experiment=NAME, and read the comments at the top of their files."""

import itertools
import re
from pathlib import Path
from typing import NamedTuple

from mnist_lab.config import conf_dir


class Preset(NamedTuple):
    """A preset, with what the comments at the top of its file say."""

    path: Path
    name: str
    summary: str  # its purpose
    measured: dict[str, str]  # the test accuracy, the number of seeds and the time of a run, if they are known


def find_presets(config_dir: str | None = None) -> list[Preset]:
    """Return the presets of conf/ and of a folder of the user's own, in the order of their names."""
    folders = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    paths = {path.stem: path for folder in folders for path in (folder / "experiment").glob("*.yaml")}
    presets = []
    for name, path in sorted(paths.items()):
        lines = itertools.takewhile(re.compile("#").match, path.read_text(encoding="utf-8").splitlines())
        header = " ".join(line.lstrip("# ") for line in lines if not line.startswith("# @"))
        found = re.search(r"Here: (?P<accuracy>.*?%) over (?P<seeds>\d+) seeds, (?P<time>.*?) each", header)
        summary = re.split(r": python -m|(?<=\.) ", header)[0]
        presets.append(Preset(path, name, summary, found.groupdict() if found else {}))
    return presets


def preset_names(config_dir: str | None = None) -> list[str]:
    """Return the names of the presets, which are the choices of experiment."""
    return [preset.name for preset in find_presets(config_dir)]
