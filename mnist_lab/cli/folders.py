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
    sweeps = [Path(name) for name in options.runs if options.where is None and Sweep(Path(name)).exists]
    names = [name for name in options.runs if Path(name) not in sweeps]
    runs = find_named_runs(options, names) if names or not sweeps else []
    return list(dict.fromkeys([*sweeps, *(run.folder for run in runs)]))
