"""The learning-rate range test: train while the rate grows, and see where the loss falls fastest.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2017 (arXiv 1506.01186).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import lightning.pytorch as pl
import numpy as np
from omegaconf import DictConfig
from scipy.ndimage import gaussian_filter1d

from mnist_lab.config.validate import validate
from mnist_lab.data.batches import Batch, Batches
from mnist_lab.errors import UsageError
from mnist_lab.training.build import complete_data, make_data, make_model
from mnist_lab.training.runtime import explain_out_of_memory, torch_settings

SMOOTHING = 8  # The width in steps of a Gaussian on both sides; an average of the losses before would lag behind.
DECAY = 0.95  # Divergence is seen in an exponential moving average of the losses.
DIVERGED = 4.0  # The test ends where that average is so many times its lowest value.
FEWEST = 20  # No rate is suggested from fewer steps.


@dataclass(frozen=True)
class RangeTest:
    """The learning rate and the training loss of each step of a range test."""

    rates: list[float]
    losses: list[float]

    @cached_property
    def smoothed(self) -> list[float]:
        smoothed: list[float] = gaussian_filter1d(self.losses, SMOOTHING, mode="nearest").tolist()
        return smoothed

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest over the logarithm of the rate, before it is lowest."""
        slopes = np.gradient(self.smoothed, np.log(self.rates))
        return self.rates[int(slopes[: np.argmin(self.smoothed) + 1].argmin())]

    @property
    def valley(self) -> float:
        """The rate two thirds down the longest fall of the smoothed loss, a more careful choice.

        The fall is the longest subsequence in which each loss is below the one before; the idea is fastai's.
        """
        fall = longest_fall(self.smoothed)
        return self.rates[fall[2 * (len(fall) - 1) // 3]]


def repeat_epochs(batches: Batches) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other, each in an order of its own, without end."""
    for epoch in itertools.count():
        batches.set_epoch(epoch)
        yield from batches


def longest_fall(values: list[float]) -> list[int]:
    """Return the places of the longest strictly decreasing subsequence, the first of several."""
    falls: list[list[int]] = []  # The longest one to each place.
    for i, value in enumerate(values):
        falls.append([*max((fall for fall in falls if values[fall[-1]] > value), key=len, default=[]), i])
    return max(falls, key=len)


def range_test(cfg: DictConfig, lowest: float = 1e-5, highest: float = 10.0, steps: int = 300) -> RangeTest:
    """Train a new network for some steps on training batches while the learning rate grows exponentially.

    The network is that of the configuration, with its optimizer, augmentation and label smoothing, on the CPU. The test
    ends early where the average loss is DIVERGED times its lowest value, or not finite. Nothing is written.
    """
    if not 0 < lowest < highest < math.inf:
        raise UsageError(f"--lowest={lowest:g} --highest={highest:g}: must be above 0, and the first below the second")
    if steps < 2 * FEWEST:
        raise UsageError(f"--steps={steps}: must be {2 * FEWEST} or more")
    validate(cfg)
    with torch_settings(cfg.threads), explain_out_of_memory(cfg.data.batch_size, cfg.data.eval_batch_size):
        cfg = complete_data(cfg)
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        model = make_model(cfg)
        if model.optimizer is None:
            raise UsageError("optimizer: missing; choose one to train with, such as optimizer=sgd")
        optimizer = model.optimizer(model.parameters())
        data = make_data(cfg, model)
        data.prepare_data()
        data.setup("fit")
        batches = data.train_batches()
        rates, losses, average, lowest_average = [], [], 0.0, math.inf
        for step, (images, labels) in zip(range(steps), repeat_epochs(batches), strict=False):
            rate = lowest * (highest / lowest) ** (step / (steps - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = model.loss_of(model(images), labels, model.label_smoothing)
            if not math.isfinite(value := loss.item()):
                break
            rates.append(rate)
            losses.append(value)
            average = DECAY * average + (1 - DECAY) * value
            unbiased = average / (1 - DECAY ** (step + 1))
            lowest_average = min(unbiased, lowest_average)
            if unbiased > DIVERGED * lowest_average:
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if len(rates) < FEWEST:
        raise UsageError(f"--lowest={lowest:g}: the loss diverges after {len(rates)} steps; begin with a lower rate")
    return RangeTest(rates, losses)
