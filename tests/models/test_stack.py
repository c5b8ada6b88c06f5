"""Steps of several networks taken at once are those that each takes alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lab.data.batches import Batches, Group
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.lenet import LeNet
from mnist_lab.models.mlp import MLP
from mnist_lab.models.stacked import Member, Stack, network_obstacle, optimizer_obstacle

STEPS = 60
IMAGES = torch.randn(400, 1, 28, 28, generator=torch.Generator().manual_seed(0)).double()
LABELS = torch.arange(400) % 10


class TiedWithoutBias(Classifier):
    """A layer without bias, and one that is used twice."""

    loss = "cross_entropy"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(784, 12, bias=False), nn.Linear(12, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.first(x.flatten(1)).relu()).relu()
        scores: Tensor = self.last(self.twice(x))
        return scores


class FunctionalDropout(MLP):
    """Dropout that is no layer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, training=self.training))


def member(network: Classifier, seed: int, steps: range = range(STEPS), **settings: Any) -> Member:
    """A network at steps of an epoch; its initial weights and the order of the images follow from the seed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)
    network.double().train()
    optimizer = torch.optim.SGD(network.parameters(), **settings)
    network.trainer = SimpleNamespace(optimizers=[optimizer])
    batches = Batches(IMAGES, LABELS, batch_size=6, shuffle=True, seed=seed)  # the last of 67 has 4 images
    return Member(network, Group(batches, batches.order(), steps))


def train_alone(network: Member) -> list[Tensor]:
    """Take the steps as any loop does; return the losses."""
    losses = []
    for images, labels in network.group:
        loss = network.model.loss_of(network.model(images), labels, network.model.label_smoothing)
        network.optimizer.zero_grad()
        loss.backward()
        network.optimizer.step()
        losses.append(loss.detach())
    return losses


SETTINGS: dict[str, list[dict[str, Any]]] = {
    "learning rates": [{"seed": 1, "lr": 0.01}, {"seed": 1, "lr": 0.1}, {"seed": 1, "lr": 0.0}],
    "momenta": [{"seed": 1, "lr": 0.01, "momentum": value} for value in (0, 0.5, 0.9)],
    "weight decays": [{"seed": 1, "lr": 0.01, "momentum": 0.9, "weight_decay": value} for value in (0, 0.1, 0.3)],
    "seeds": [{"seed": seed, "lr": 0.05, "momentum": 0.9} for seed in (1, 2, 3)],
    "all": [
        {"seed": 1, "lr": 0.05, "momentum": 0.9},
        {"seed": 1, "lr": 0.01, "weight_decay": 0.1},
        {"seed": 2, "lr": 0.05, "momentum": 0.5, "weight_decay": 0.01},
    ],
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("network", [MLP, TiedWithoutBias])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_weights_momenta_and_losses_are_those_of_each_network_alone(
    network: type[Classifier], settings: list[dict[str, Any]], label_smoothing: float
) -> None:
    """In float64, where rounding does not hide a mistake; over two groups, the second of which has a smaller batch."""
    for steps in (range(STEPS), range(STEPS, 67)):
        together, alone = ([member(network(), **each, steps=steps) for each in settings] for _ in range(2))
        for each in (*together, *alone):
            each.model.label_smoothing = label_smoothing
        stack = Stack(together)
        assert stack.scores_as_alone()
        for one, other, taken in zip(together, alone, stack.take_steps(), strict=True):
            torch.testing.assert_close(taken.losses, torch.stack(train_alone(other)), rtol=1e-9, atol=1e-12)
            assert torch.equal(taken.labels, torch.cat([labels for _, labels in other.group]))
            for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(one.optimizer.state_dict(), other.optimizer.state_dict(), rtol=1e-9, atol=1e-12)


def test_network_that_becomes_infinite_does_not_disturb_the_others() -> None:
    together, alone = ([member(MLP(), seed=1, lr=lr, momentum=0.9) for lr in (1e200, 0.01)] for _ in range(2))
    taken = Stack(together).take_steps()
    assert not taken[0].losses.isfinite().all()
    torch.testing.assert_close(taken[1].losses, torch.stack(train_alone(alone[1])), rtol=1e-9, atol=1e-12)


def test_random_network_is_recognised_by_its_scores_and_draws_nothing_for_that() -> None:
    stack = Stack([member(FunctionalDropout(), seed=1, lr=lr) for lr in (0.1, 0.2)])
    before = torch.get_rng_state()
    assert not stack.scores_as_alone()
    assert torch.equal(before, torch.get_rng_state())


class OwnLoss(MLP):
    def loss_of(self, *arguments: Any, **settings: Any) -> Tensor:
        return 2 * super().loss_of(*arguments, **settings)


class Normalised(MLP):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(128, affine=False)


def frozen() -> MLP:
    network = MLP()
    network.linears[0].bias.requires_grad = False
    return network


@pytest.mark.parametrize(
    ("network", "obstacle"),
    [
        (MLP(), None),
        (TiedWithoutBias(), None),
        (LeNet(), "its conv1.weight"),
        (OwnLoss(), "its own loss_of"),
        (Normalised(), "its norm.running_mean"),
        (frozen(), "its 0.bias"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_networks_that_cannot_be_stacked_are_told_by_their_parts(network: Classifier, obstacle: str | None) -> None:
    assert network_obstacle(network) == obstacle


def test_optimizers_other_than_plain_sgd_are_not_stacked() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    assert optimizer_obstacle(torch.optim.SGD(parameters, momentum=0.9, weight_decay=0.1, fused=True)) is None
    assert optimizer_obstacle(torch.optim.SGD(parameters, momentum=0.9, nesterov=True)) == "optimizer.nesterov"
    assert optimizer_obstacle(torch.optim.SGD(parameters, momentum=0.9, dampening=0.1)) == "optimizer.dampening"
    assert optimizer_obstacle(torch.optim.Adam(parameters)) == "the optimizer Adam"
