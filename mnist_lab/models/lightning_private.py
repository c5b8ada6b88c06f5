"""The one private name of Lightning that training needs, with its reason."""

from __future__ import annotations

import lightning.pytorch as pl


def count_logged_step(trainer: pl.Trainer) -> None:
    """Count an optimizer step that Lightning does not see, so that what it logs next has the right step.

    Lightning numbers what `self.log` logs by a count of its own, not by `trainer.global_step`, and has no public way to
    set it. A metric of the name "step" would be used instead, but then each network and callback of a user's own would
    have to log it as well, and Lightning leaves the epoch out.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped += 1
