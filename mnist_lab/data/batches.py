"""Batches from memory, in an order that is a function of (seed, epoch) and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


def limit_batches(batches: int, limit: int | float | None) -> int:
    """Return how many of the batches Lightning runs under a limit: a count, a fraction, or None for all."""
    limit = 1.0 if limit is None else limit
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def count_batches(images: int, batch_size: int, world_size: int) -> int:
    """Return the steps of a whole epoch; a remainder of less than two images for each process joins the last step."""
    if images == 0:
        return 0
    steps, remainder = divmod(images, batch_size * world_size)
    if remainder >= 2 * world_size:  # Batch normalisation cannot be trained on one image.
        steps += 1
    return max(1, steps)


def upload(values: Tensor, images: Tensor) -> Tensor:
    """Return values of the CPU on the device of images, without a wait for a GPU; floats get the images' type."""
    values = values.to(images.dtype) if values.is_floating_point() else values
    if images.device.type in ("cpu", "mps", "xla"):
        return values.to(images.device)
    # A copy from other memory waits for the GPU. torch keeps this memory until it is copied.
    return values.pin_memory().to(images.device, non_blocking=True)


@dataclass(eq=False)
class Batches:
    """A data loader over labelled images in memory.

    Several processes draw shares of the same order: together they see every image exactly once an epoch, in equally
    many steps, each with batch_size images a process. `augment` gets a batch's images and a random generator of the
    step, or what `draw` drew for a number of images of a size by that generator.
    """

    images: Tensor  # (N, 1, S, S)
    labels: Tensor  # (N,)
    _: KW_ONLY
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    limit: int | float | None = None
    augment: Callable[[Tensor, Any], Tensor] | None = None
    draw: Callable[[int, int, torch.Generator], Tensor] | None = None
    epoch: int = field(default=0, init=False)
    position: int = field(default=0, init=False)  # batches handed out in this epoch

    batch_sampler = None

    def __post_init__(self) -> None:
        self.full_length = count_batches(len(self.images), self.batch_size, self.world_size)
        self.resumed = {"epoch": 0, "position": 0}

    @property
    def sampler(self) -> Batches:
        """The object whose set_epoch Lightning calls; Lightning looks for a batch_sampler first."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the position in the epoch, which Lightning saves in a checkpoint within an epoch."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.resumed = dict(state_dict)

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return limit_batches(self.full_length, self.limit)

    @property
    def seen(self) -> int:
        """Images that all processes together have seen in this epoch."""
        return self._end_of(self.position - 1) if self.position else 0

    def _end_of(self, step: int) -> int:
        """Return the index in the order at which a step ends."""
        return len(self.images) if step == self.full_length - 1 else (step + 1) * self.batch_size * self.world_size

    def order(self) -> Tensor | None:
        """Return the epoch's permutation of all images, (N,), equal in every process; None without shuffle."""
        if not self.shuffle:
            return None
        return upload(torch.randperm(len(self.images), generator=self._make_generator()), self.images)

    def _make_generator(self, *numbers: int) -> torch.Generator:
        """Return a generator that is a function of the seed, the epoch and further numbers."""
        (mixed,) = np.random.SeedSequence([self.seed, self.epoch, *numbers]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(mixed) >> 1)  # manual_seed takes 63 bits.

    def start_epoch(self) -> tuple[int, Tensor | None]:
        """Return the epoch's first step, which is above 0 if a run is resumed within it, and its order."""
        # The next epoch begins at its first step if the saved one was complete.
        self.position = self.resumed["position"] if self.resumed["epoch"] == self.epoch else 0
        self.resumed["position"] = 0
        return self.position, self.order()

    def _share(self, step: int) -> range:
        """Return which places of the order are this process's in a step."""
        return range(step * self.batch_size * self.world_size + self.rank, self._end_of(step), self.world_size)

    def random_amounts(self, steps: range) -> Sequence[Any]:
        """Return what `augment` gets in each step; amounts that are drawn go to the images' device at once."""
        if self.augment is None:
            return [None] * len(steps)
        # The step counts from 1 here, since SeedSequence ignores a trailing 0.
        generators = [self._make_generator(step + 1, self.rank) for step in steps]
        if self.draw is None:
            return generators
        counts = [len(self._share(step)) for step in steps]
        drawn = map(self.draw, counts, repeat(self.images.shape[-1]), generators)
        return torch.split(upload(torch.cat([*drawn]), self.images), counts)

    def batch(self, step: int, order: Tensor | None, amounts: Any) -> Batch:
        """Return this process's images, (B, 1, S, S), and labels, (B,), of a step, with its random amounts."""
        self.position = step + 1
        share = self._share(step)
        if order is None:
            places = slice(share.start, share.stop, share.step)
            return self.images[places], self.labels[places]
        chosen = order[share.start : share.stop : share.step]
        images = self.images.index_select(0, chosen)
        if self.augment is not None:
            images = self.augment(images, amounts)
        return images, self.labels.index_select(0, chosen)

    def __iter__(self) -> Iterator[Batch]:
        # A generator draws the order at the first batch, after set_epoch, which Lightning calls after iter().
        first, order = self.start_epoch()
        for step in range(first, len(self)):
            (amounts,) = self.random_amounts(range(step, step + 1))
            yield self.batch(step, order, amounts)


class Group:
    """Consecutive batches of an epoch, gathered lazily; what is random in them is drawn and uploaded ahead."""

    def __init__(self, batches: Batches, order: Tensor | None, steps: range) -> None:
        self.batches, self.order, self.steps = batches, order, steps
        self.amounts = dict(zip(steps, batches.random_amounts(steps), strict=True))

    def batch(self, step: int) -> Batch:
        return self.batches.batch(step, self.order, self.amounts[step])

    def __iter__(self) -> Iterator[Batch]:
        return map(self.batch, self.steps)


class Groups:
    """A data loader that yields the batches of an epoch in groups; the last group may be smaller."""

    batch_sampler = None

    def __init__(self, batches: Batches, size: int) -> None:
        self.batches = self.sampler = batches
        self.size = size
        self.state_dict, self.load_state_dict = batches.state_dict, batches.load_state_dict

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / self.size)

    def __iter__(self) -> Iterator[Group]:
        first, order = self.batches.start_epoch()
        for start in range(first - first % self.size, len(self.batches), self.size):
            steps = range(max(first, start), min(start + self.size, len(self.batches)))
            yield Group(self.batches, order, steps)
