"""The main job: train a network, test it, and record the run."""

from mnist_lab.training.callbacks import RandomState, StepLog, TestCurve
from mnist_lab.training.checkpointing import SaveWithinEpochs
from mnist_lab.training.loggers import TensorBoard
from mnist_lab.training.progress import EpochLines, LayerTable

__all__ = ["EpochLines", "LayerTable", "RandomState", "SaveWithinEpochs", "StepLog", "TensorBoard", "TestCurve"]
