"""The folders of runs and of whole sweeps that arguments name."""

from __future__ import annotations

import argparse
from pathlib import Path

from mnist_lab.cli.parser import find_named_runs
from mnist_lab.runs.sweep import Sweep  # imports Hydra, which other commands do without


def find_named_folders(options: argparse.Namespace) -> list[Path]:
    """Return the folders that RUN... and --where mean: that of a sweep which is named as a whole, and those of runs.

    Raises:
        UsageError: as `find_named_runs`.
    """
    sweeps = [name for name in options.runs if Sweep(Path(name)).exists and options.where is None]
    names = [name for name in options.runs if name not in sweeps]
    runs = find_named_runs(options, names) if names or not sweeps else []
    return list(dict.fromkeys([*map(Path, sweeps), *(run.folder for run in runs)]))
