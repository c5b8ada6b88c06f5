"""The main job: train a network, test it, and record the run."""

from mnist_lab.training.build import load_trained_model, make_data, make_model
from mnist_lab.training.callbacks import AveragedWeights, PauseAfter, RandomState, ReloadNetwork, StepLog, TestCurve
from mnist_lab.training.checkpointing import EpochCheckpoint, SaveWithinEpochs
from mnist_lab.training.distillation import Teacher
from mnist_lab.training.loggers import TensorBoard
from mnist_lab.training.progress import EpochLines, LayerTable, layer_table
from mnist_lab.training.trackers import MLflow, WandB

__all__ = [
    "AveragedWeights",
    "EpochCheckpoint",
    "EpochLines",
    "LayerTable",
    "MLflow",
    "PauseAfter",
    "RandomState",
    "ReloadNetwork",
    "SaveWithinEpochs",
    "StepLog",
    "Teacher",
    "TensorBoard",
    "TestCurve",
    "WandB",
    "layer_table",
    "load_trained_model",
    "make_data",
    "make_model",
]
