"""The order of images is a function of (seed, epoch), and every image is seen exactly once an epoch."""

import pytest
import torch
from lab import thorough
from torch.utils.data import DataLoader, TensorDataset

from mnist_lab.data.batches import Batches


def numbered(count: int, **settings: int | bool) -> Batches:
    """Return batches of images, each of which is its own number."""
    numbers = torch.arange(count)
    return Batches(numbers.float().reshape(-1, 1, 1, 1), numbers, **({"batch_size": 16} | settings))  # type: ignore[arg-type]


def seen(batches: Batches) -> list[int]:
    """Return the labels, and check that each comes with its image."""
    pairs = [pair for images, labels in batches for pair in zip(images.flatten(), labels, strict=True)]
    assert all(image == label for image, label in pairs)
    return [int(label) for _, label in pairs]


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int, batch_size: int = 16) -> list[int]:
        batches = numbered(100, shuffle=True, seed=seed, batch_size=batch_size)
        batches.set_epoch(epoch)
        return seen(batches)

    first = order(0, 0)
    torch.manual_seed(123)
    torch.rand(5)
    assert order(0, 0) == first == order(0, 0, batch_size=7)
    orders = [order(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 16


def test_epoch_set_after_iter_counts() -> None:
    """Lightning calls iter() before set_epoch in the first epoch."""
    early, late = numbered(50, shuffle=True), numbered(50, shuffle=True)
    iterator = iter(early)
    early.set_epoch(3)
    late.set_epoch(3)
    assert [int(label) for _, labels in iterator for label in labels] == seen(late)


@pytest.mark.parametrize("count", [1, 16, 18, *thorough(15, 64, 100)])
def test_unshuffled_batches_are_a_dataloaders(count: int) -> None:
    batches = numbered(count)
    expected = DataLoader(TensorDataset(batches.images, batches.labels), batch_size=16)
    assert len(batches) == len(expected)
    for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("count", [3, 31, 32, 33, *thorough(16, 34, 96, 97, 100)])
def test_processes_share_every_image_once_in_equally_many_steps(count: int, world_size: int, shuffle: bool) -> None:
    shares = [numbered(count, shuffle=shuffle, seed=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    steps = [[labels for _, labels in share] for share in shares]
    assert len({len(share) for share in shares} | {len(share_steps) for share_steps in steps}) == 1
    batches = [labels for share_steps in steps for labels in share_steps]
    assert all(len(labels) > 0 for labels in batches)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))


def test_epoch_continues_where_its_state_was_taken_and_the_next_begins_anew() -> None:
    whole = numbered(100, shuffle=True)
    whole.set_epoch(3)
    expected = seen(whole)
    broken_off = numbered(100, shuffle=True)
    broken_off.set_epoch(3)
    iterator = iter(broken_off)
    first = [int(label) for _ in range(2) for label in next(iterator)[1]]
    resumed = numbered(100, shuffle=True)
    resumed.load_state_dict(broken_off.state_dict())
    resumed.set_epoch(3)
    assert first + seen(resumed) == expected
    assert seen(resumed) == expected, "the state counts once"
    next_epoch = numbered(100, shuffle=True)
    next_epoch.load_state_dict(broken_off.state_dict())
    next_epoch.set_epoch(4)
    assert len(seen(next_epoch)) == 100


def test_iteration_that_was_broken_off_begins_anew() -> None:
    """trainer.limit_val_batches breaks an iteration off."""
    batches = numbered(100)
    next(iter(batches))
    assert seen(batches) == list(range(100))
