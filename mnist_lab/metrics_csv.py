"""metrics.csv, the run folder's own curves."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from mnist_lab.files import write_text
from mnist_lab.runs import Run


class MetricsCSV(Logger):
    """metrics.csv: one row a step that was logged, in order; a resumed run goes on in it.

    Lightning's own CSVLogger deletes the rows of an earlier start and writes several rows for one step.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.rows: dict[int, dict[str, float]] = {}
        self.written = ""

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def go_on_from(self, step: int) -> None:
        """Keep an earlier start's rows of the steps before this one."""
        rows = Run(self.path.parent).metrics()
        self.rows = {int(row["step"]): row for row in rows if row["step"] < step}

    def checksum(self) -> int:
        """Return the CRC-32 of all rows but their speeds, which differ from start to start."""
        rows = [
            sorted((name, float(value)) for name, value in row.items() if name != "images_per_second")
            for _, row in sorted(self.rows.items())
        ]
        return zlib.crc32(repr(rows).encode())

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Not here: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        step = step or 0
        values = {name: float(value) for name, value in metrics.items()}
        self.rows.setdefault(step, {"step": step}).update(values)

    @rank_zero_only
    def save(self) -> None:
        """Write the file if an epoch is complete; Lightning calls this after each validation and epoch."""
        if self.rows and "train/loss" in self.rows[max(self.rows)]:
            self.write()

    @rank_zero_only
    def write(self) -> None:
        """Write the file if rows are new."""
        names = sorted({name for row in self.rows.values() for name in row} - {"step", "epoch"})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "epoch", *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        if text.getvalue() != self.written:
            self.written = text.getvalue()
            write_text(self.path, self.written)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.rows:
            self.write()
