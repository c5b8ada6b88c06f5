"""Where Hydra looks for sweepers. It imports this whenever it starts, and so the work is elsewhere."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """Every combination of the values separated by commas."""

    def sweep(self, arguments: list[str]) -> Any:
        from mnist_lab.sweeps.launch import sweep_grid

        return sweep_grid(self, arguments)
