"""Batches from memory, in an order that is a function of (seed, epoch) and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class Batches:
    """A labelled image set held in memory, one batch after the other.

    Takes a DataLoader's place in Lightning. In a run of several processes each draws its share of the same order:
    together they see every image exactly once an epoch, in equally many steps.

    Args:
        images: normalised images, (N, 1, S, S).
        labels: their classes, (N,).
        batch_size: images a step, in each process; the last batch may be smaller.
        shuffle: a new order every epoch, or the data set's own.
        seed: the order's seed.
        rank: this process's number among world_size.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(images) < world_size:
            raise ValueError(f"{len(images)} images cannot be shared among {world_size} processes")
        self.images, self.labels = images, labels
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.position = 0  # batches handed out in this epoch
        self.resumed = {"epoch": 0, "position": 0}

    batch_sampler = None

    @property
    def sampler(self) -> Batches:
        """Where Lightning looks for set_epoch; it looks for a batch_sampler first."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """How far the epoch is; Lightning keeps it in a checkpoint and brings it back within an epoch."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.resumed = dict(state_dict)

    def __len__(self) -> int:
        """Steps an epoch. A remainder too small to give every process an image joins the step before it."""
        whole, rest = divmod(len(self.images), self.batch_size * self.world_size)
        return max(1, whole + (rest >= self.world_size))

    def order(self) -> Tensor | None:
        """The epoch's permutation of all images, the same in every process; None for the data set's own order."""
        if not self.shuffle:
            return None
        (mixed,) = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed) >> 1)  # manual_seed takes 63 bits
        return torch.randperm(len(self.images), generator=generator).to(self.images.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator, so that the order is drawn at the first batch: Lightning calls iter() before set_epoch.
        order, steps = self.order(), len(self)
        stride = self.batch_size * self.world_size
        # An epoch that was over when it was saved is not gone on with, however few of its batches were asked for.
        first = self.resumed["position"] if self.resumed["epoch"] == self.epoch else 0
        self.resumed["position"] = 0
        for step in range(first, steps):
            self.position = step + 1
            stop = len(self.images) if step == steps - 1 else (step + 1) * stride
            share = slice(step * stride + self.rank, stop, self.world_size)
            if order is None:
                yield self.images[share], self.labels[share]
            else:
                chosen = order[share]
                yield self.images.index_select(0, chosen), self.labels.index_select(0, chosen)
