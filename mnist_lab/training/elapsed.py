"""Count the seconds of a run over all its starts, however each of them ended."""

from __future__ import annotations

import time

from lightning.pytorch import Callback, LightningModule, Trainer


class ElapsedTime(Callback):
    """Counts the seconds of a run from when it is made, and saves them in each checkpoint.

    A resumed run continues from the seconds of its checkpoint: as the steps after it are done again, so is their time
    counted again. A run that was killed, interrupted or left alone is counted alike.
    """

    def __init__(self) -> None:
        self.earlier = {"total": 0.0, "fit": 0.0}  # of the starts before this one
        self.started = time.perf_counter()
        self.fit_started = self.fit_seconds = 0.0

    def seconds(self) -> dict[str, float]:
        """Return the seconds of the run until now, in total and in fit."""
        now = time.perf_counter()
        fit = now - self.fit_started if self.fit_started else self.fit_seconds
        return {"total": self.earlier["total"] + now - self.started, "fit": self.earlier["fit"] + fit}

    def state_dict(self) -> dict[str, float]:
        return self.seconds()

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.earlier = self.earlier | state_dict

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.fit_started = time.perf_counter()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.fit_seconds, self.fit_started = time.perf_counter() - self.fit_started, 0.0
