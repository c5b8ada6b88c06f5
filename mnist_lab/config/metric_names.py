"""Name the metrics that a run logs, and say which values are better."""

from typing import Final, Literal

TRAIN_LOSS, TRAIN_ACC = "train/loss", "train/acc"
VAL_LOSS: Final = "val/loss"
VAL_ACC: Final = "val/acc"
VAL_BALANCED_ACC: Final = "val/balanced_acc"  # The mean of the recalls, logged where classes are unequal.
TEST_LOSS: Final = "test/loss"
TEST_ACC: Final = "test/acc"
TEST_BALANCED_ACC: Final = "test/balanced_acc"
# Means over a whole set, logged once an epoch. The last parts, loss and acc, are those of each set and also stand in
# models/metrics.py, which makes the values, and in training/loggers.py, training/progress.py and viz/curves.py. Whole
# names are also in conf/callbacks, and in conf/experiment for published values.
METRIC_NAMES = (
    *(TRAIN_LOSS, TRAIN_ACC),
    *(VAL_LOSS, VAL_ACC, VAL_BALANCED_ACC),
    *(TEST_LOSS, TEST_ACC, TEST_BALANCED_ACC),
)
TRAIN_LOSS_STEP, LEARNING_RATE = "train/loss_step", "lr"  # Both belong to a single step.
IMAGES_PER_SECOND = "images_per_second"  # The speed of training, logged once an epoch.
EXAMPLES_SEEN: Final = "examples_seen"  # Counts training images since the start of the run, in metrics.csv alone.
# A callback or a scheduler may monitor these.
EPOCH_METRICS = (VAL_LOSS, VAL_ACC, VAL_BALANCED_ACC, TRAIN_LOSS, TRAIN_ACC, IMAGES_PER_SECOND)


def direction(name: str) -> Literal["min", "max"] | None:
    """Return whether the least or the greatest value of a metric is the best; None for a metric of the user's own."""
    if is_loss(name):
        return "min"
    return "max" if is_accuracy(name) or name == IMAGES_PER_SECOND else None


def is_accuracy(name: str) -> bool:
    """Return whether a metric is an accuracy, from 0 to 1."""
    return name.endswith(("/acc", "/balanced_acc"))


def is_loss(name: str) -> bool:
    """Return whether a metric is a mean loss."""
    return name.endswith("/loss")


def in_words(name: str) -> str:
    """Return a metric's name in words, such as validation accuracy for val/acc."""
    words = name.replace("val/", "validation ").replace("train/", "training ").replace("balanced_", "balanced ")
    return words.replace(" acc", " accuracy")
