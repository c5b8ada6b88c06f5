"""Take steps of several networks of linear layers at once: a batched product takes the place of a product for each."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from mnist_lab.data.batches import Batch, Group
from mnist_lab.models.classifier import Classifier, own_loss
from mnist_lab.models.multistep import StepCallback


@dataclass(frozen=True)
class Member:
    """A network in training, and the steps that it takes next."""

    model: Classifier
    group: Group

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The network's own optimizer."""
        optimizer: torch.optim.Optimizer = self.model.trainer.optimizers[0]
        return optimizer

    @property
    def structure(self) -> Hashable:
        """What networks must have in common for a stack."""
        shapes = tuple((name, parameter.shape) for name, parameter in self.model.named_parameters())
        steps, batches = self.group.steps, self.group.batches
        return type(self.model), shapes, self.model.label_smoothing, steps, batches.batch_size, len(batches.images)

    def sees_batches_of(self, other: Member) -> bool:
        """Return whether both see the same images in the same order."""
        mine, theirs = self.group.batches, other.group.batches
        if any(batches.augment is not None for batches in (mine, theirs)):
            return False  # each network's images are augmented for itself
        same_order = (mine.seed, mine.epoch) == (theirs.seed, theirs.epoch)
        return same_order and mine.images is theirs.images


@dataclass(frozen=True)
class StepsTaken:
    """What a member's N steps gave.

    Attributes:
        losses: the mean loss of each batch, (N,).
        scores: of the images of all batches, (N·B, K).
        labels: their classes, (N·B,).
    """

    losses: Tensor
    scores: Tensor
    labels: Tensor


def network_obstacle(model: Classifier) -> str | None:
    """Return what prevents a network from being stacked; None if all its layers with weights are linear."""
    stacked = {id(parameter) for layer in _linear_layers(model) for parameter in layer.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in stacked or not parameter.requires_grad:
            return f"its {name}"
    return own_loss(model) or next((f"its {name}" for name, _ in model.named_buffers()), None)


def optimizer_obstacle(optimizer: torch.optim.Optimizer) -> str | None:
    """Return what prevents the steps of several networks from being taken at once; None for plain SGD."""
    if type(optimizer) is not torch.optim.SGD or len(optimizer.param_groups) > 1:
        return f"the optimizer {type(optimizer).__name__}"
    settings = optimizer.param_groups[0]
    return next((f"optimizer.{name}" for name in ("nesterov", "dampening", "maximize") if settings[name]), None)


def training_obstacle(trainer: pl.Trainer, optimizer: torch.optim.Optimizer, *, moves_each_step: bool) -> str | None:
    """Return what in a run's training prevents its steps from being taken with those of others, or None.

    Args:
        trainer: Lightning's Trainer.
        optimizer: the run's.
        moves_each_step: whether the learning rate changes at every step.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    device = trainer.strategy.root_device.type
    present = {
        f"precision {trainer.precision}": trainer.precision != "32-true",
        f"the device {device}": device != "cpu",
        "a learning rate for each step": moves_each_step,
    }
    for callback in callbacks:
        present[type(callback).__name__] = isinstance(callback, StepCallback) and callback.needs_weights
    return optimizer_obstacle(optimizer) or next((name for name, is_present in present.items() if is_present), None)


class Stack:
    """Networks of one architecture whose steps are taken together, by SGD with settings of each network's own.

    Args:
        members: M networks without an obstacle, and as many steps of as many images for each.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members
        self.one_batch = all(member.sees_batches_of(members[0]) for member in members)
        optimizers = [member.optimizer for member in members]
        settings = [optimizer.param_groups[0] for optimizer in optimizers]
        self.own = list(zip(*(group["params"] for group in settings), strict=True))
        self.weights = [torch.stack([*map(_columns, each)]).requires_grad_() for each in self.own]
        self.momenta = [
            torch.stack([_columns(_momentum(o, own)) for o, own in zip(optimizers, each, strict=True)])
            for each in self.own
        ]
        self.lr, self.momentum, self.weight_decay = (
            torch.tensor([group[name] for group in settings], dtype=self.weights[0].dtype)[:, None, None]
            for name in ("lr", "momentum", "weight_decay")
        )
        self.decays = bool(self.weight_decay.any())

    def scores_as_alone(self) -> bool:
        """Return whether the stack gives the scores that each network gives by itself; a random one never does."""
        step = self.members[0].group.steps[0]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            with self._stacked_layers():
                together = self._scores(*self._batch(step))
            alone = [member.model.scores(member.group.batch(step)[0]) for member in self.members]
        return torch.allclose(together, torch.stack(alone), rtol=1e-3, atol=1e-4)

    def take_steps(self) -> list[StepsTaken]:
        """Take the steps of all networks; their weights and momenta are then those after the last one."""
        network = self.members[0].model
        taken: list[tuple[Tensor, Tensor, Tensor]] = []
        with self._stacked_layers():
            for step in self.members[0].group.steps:
                images, labels = self._batch(step)
                scores = self._scores(images, labels)
                each = network.loss_of(scores.flatten(0, 1), labels.flatten(), network.label_smoothing, "none")
                losses = each.reshape(labels.shape).mean(1)
                self._descend(torch.autograd.grad(losses.sum(), self.weights))
                taken.append((losses.detach(), scores.detach(), labels))
        self._write_back()
        losses = torch.stack([losses for losses, _, _ in taken], 1)  # (M, N)
        scores, labels = (torch.cat([step[part] for step in taken], 1) for part in (1, 2))  # (M, N·B, K), (M, N·B)
        return [StepsTaken(*parts) for parts in zip(losses, scores, labels, strict=True)]

    def _batch(self, step: int) -> Batch:
        """Return images, (M·B, 1, S, S), or (B, 1, S, S) where all members have the same, and labels, (M, B)."""
        if self.one_batch:
            images, labels = self.members[0].group.batch(step)
            return images, labels.expand(len(self.members), -1)
        batches = [member.group.batch(step) for member in self.members]
        return torch.cat([images for images, _ in batches]), torch.stack([labels for _, labels in batches])

    def _scores(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the scores, (M, B, K); the layers are the stacked ones."""
        self.batch_size = labels.shape[1]
        return self.members[0].model.scores(images).reshape(*labels.shape, -1)

    @contextmanager
    def _stacked_layers(self) -> Iterator[None]:
        """Let the first network's linear layers compute those of all networks, during the block."""
        layers = _linear_layers(self.members[0].model)
        stacked = {id(own[0]): weights for own, weights in zip(self.own, self.weights, strict=True)}
        for layer in layers:
            weight, bias = stacked[id(layer.weight)], stacked.get(id(layer.bias))
            layer.forward = partial(self._linear, weight, bias)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _linear(self, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        """Return a layer's outputs, (M·B, out), for the members' inputs, (M·B, in), or the same for all, (B, in)."""
        count = len(self.members)
        x = x.expand(count, -1, -1) if len(x) == self.batch_size else x.reshape(count, self.batch_size, -1)
        out = torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)
        return out.flatten(0, 1)

    @torch.no_grad()
    def _descend(self, gradients: Sequence[Tensor]) -> None:
        """Take a step of SGD, as torch.optim.SGD does."""
        for weights, gradient, momenta in zip(self.weights, gradients, self.momenta, strict=True):
            if self.decays:
                gradient = gradient.addcmul(weights, self.weight_decay)
            torch.addcmul(gradient, momenta, self.momentum, out=momenta)
            weights.addcmul_(momenta, self.lr, value=-1)

    @torch.no_grad()
    def _write_back(self) -> None:
        for weights, momenta, each in zip(self.weights, self.momenta, self.own, strict=True):
            for member, own, weight, momentum in zip(self.members, each, weights, momenta, strict=True):
                own.copy_(weight.t().reshape(own.shape))
                if member.optimizer.param_groups[0]["momentum"]:
                    member.optimizer.state[own]["momentum_buffer"] = (
                        momentum.t().reshape(own.shape).clone(memory_format=torch.contiguous_format)
                    )


def _linear_layers(model: nn.Module) -> list[nn.Linear]:
    return [layer for layer in model.modules() if type(layer) is nn.Linear]


def _columns(parameter: Tensor) -> Tensor:
    """Return a weight, (out, in), as (in, out), and a bias, (out,), as (1, out).

    The gradients of a stacked product then lie in memory as the weights do, or a step would take four times as long.
    """
    return parameter.detach().reshape(len(parameter), -1).t()


def _momentum(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
    buffer: Tensor | None = optimizer.state.get(parameter, {}).get("momentum_buffer")
    return torch.zeros_like(parameter) if buffer is None else buffer
