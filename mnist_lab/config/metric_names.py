"""The names of the metrics that a run logs."""

from typing import Final, Literal

TRAIN_LOSS, TRAIN_ACC = "train/loss", "train/acc"
VAL_LOSS: Final = "val/loss"
VAL_ACC: Final = "val/acc"
TEST_LOSS: Final = "test/loss"
TEST_ACC: Final = "test/acc"
METRIC_NAMES = (TRAIN_LOSS, TRAIN_ACC, VAL_LOSS, VAL_ACC, TEST_LOSS, TEST_ACC)  # means over a set, once an epoch
TRAIN_LOSS_STEP, LEARNING_RATE = "train/loss_step", "lr"  # of a single step
IMAGES_PER_SECOND = "images_per_second"  # of training, once an epoch
EXAMPLES_SEEN: Final = "examples_seen"  # training images since the run was started; in metrics.csv alone
EPOCH_METRICS = (VAL_LOSS, VAL_ACC, TRAIN_LOSS, TRAIN_ACC, IMAGES_PER_SECOND)  # that a callback may monitor


def direction(name: str) -> Literal["min", "max"] | None:
    """Return whether the least or the greatest value of a metric is the best; None for one of a user's own."""
    if is_loss(name):
        return "min"
    return "max" if is_accuracy(name) or name == IMAGES_PER_SECOND else None


def is_accuracy(name: str) -> bool:
    """Return whether a metric is an accuracy, from 0 to 1, of which the greater is the better."""
    return name.endswith("/acc")


def is_loss(name: str) -> bool:
    """Return whether a metric is a mean loss."""
    return name.endswith("/loss")
