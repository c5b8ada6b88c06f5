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
import torch
from omegaconf import DictConfig
from scipy.ndimage import gaussian_filter1d

from mnist_lab.config.validate import validate
from mnist_lab.data.batches import Batch, Batches
from mnist_lab.errors import UsageError
from mnist_lab.training.build import complete_data, make_data, make_trainable_model, set_up_classes
from mnist_lab.training.distillation import set_up_teacher
from mnist_lab.training.runtime import explain_batch_size_errors, guest

SMOOTHING = 8  # steps, the standard deviation of a Gaussian; an average of earlier losses alone would lag behind
DECAY = 0.95  # of the exponential moving average of the losses that shows divergence
DIVERGED = 4.0  # The test ends when that average is this many times its lowest value.
MIN_STEPS = 20  # Fewer steps suggest no rate.


@dataclass(frozen=True)
class RangeTest:
    """The learning rate and the training loss at each step of a range test."""

    rates: list[float]
    losses: list[float]

    @cached_property
    def smoothed(self) -> list[float]:
        smoothed: list[float] = gaussian_filter1d(self.losses, SMOOTHING, mode="nearest").tolist()
        return smoothed

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest over the logarithm of the rate, up to its minimum."""
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
    """Yield the batches of one epoch after another, each epoch in another order, without end."""
    for epoch in itertools.count():
        batches.set_epoch(epoch)
        yield from batches


def longest_fall(values: list[float]) -> list[int]:
    """Return the indices of the longest strictly decreasing subsequence, the first of several."""
    falls: list[list[int]] = []  # the longest that ends at each index
    for i, value in enumerate(values):
        higher = [fall for fall in falls if values[fall[-1]] > value]
        falls.append([*max(higher, key=len, default=[]), i])
    return max(falls, key=len)


@guest()
def range_test(cfg: DictConfig, lowest: float = 1e-5, highest: float = 10.0, steps: int = 300) -> RangeTest:
    """Train a new network for some steps on training batches while the learning rate grows exponentially.

    It uses the network, optimizer, augmentation and loss of the configuration, on the CPU. It ends early
    when the average loss is DIVERGED times its lowest value, or a loss is not finite. Nothing is written.
    """
    if not 0 < lowest < highest < math.inf:
        raise UsageError(f"--lowest={lowest:g} --highest={highest:g}: must be above 0, and the first below the second")
    if steps < 2 * MIN_STEPS:
        raise UsageError(f"--steps={steps}: must be {2 * MIN_STEPS} or more")
    validate(cfg)
    cfg = complete_data(cfg)
    torch.set_num_threads(cfg.threads or torch.get_num_threads())
    with explain_batch_size_errors(cfg.data):
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        model = make_trainable_model(cfg)
        set_up_teacher(cfg, model)
        data = make_data(cfg, model)
        data.setup("fit")
        set_up_classes(cfg, model, data)
        assert model.optimizer is not None
        optimizer = model.optimizer(model.parameters())
        rates, losses, average, lowest_average = [], [], 0.0, math.inf
        batches = itertools.islice(repeat_epochs(data.train_batches()), steps)
        for step, (images, labels) in enumerate(batches):
            rate = lowest * (highest / lowest) ** (step / (steps - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = model.objective(images, model(images), labels)
            if not loss.isfinite():
                break
            rates.append(rate)
            losses.append(loss.item())
            average = DECAY * average + (1 - DECAY) * losses[-1]
            unbiased = average / (1 - DECAY ** (step + 1))
            lowest_average = min(unbiased, lowest_average)
            if unbiased > DIVERGED * lowest_average:
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    if len(rates) < MIN_STEPS:
        raise UsageError(f"--lowest={lowest:g}: the loss diverges after {len(rates)} steps; begin with a lower rate")
    return RangeTest(rates, losses)
