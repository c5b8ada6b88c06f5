"""Class names of version 0.1.0, which its runs and sweeps use, for classes that were moved."""

from __future__ import annotations

FORMER_NAMES = {  # by current name
    "mnist_lab.data.Distortion": "mnist_lab.data.augmentation.Affine",
    "mnist_lab.data.MNISTDataModule": "mnist_lab.data.datamodule.MNISTDataModule",
    "mnist_lab.data.Source": "mnist_lab.data.source.Source",
    "mnist_lab.models.CompactCNN": "mnist_lab.models.compact_cnn.CompactCNN",
    "mnist_lab.models.DropoutCNN": "mnist_lab.models.dropout_cnn.DropoutCNN",
    "mnist_lab.models.LeNet": "mnist_lab.models.lenet.LeNet",
    "mnist_lab.models.MLP": "mnist_lab.models.mlp.MLP",
    "mnist_lab.models.SimpleCNN": "mnist_lab.models.simple_cnn.SimpleCNN",
    "mnist_lab.sweeps.optuna_search.Prune": "mnist_lab.sweeps.search.Prune",
    "mnist_lab.training.EpochLines": "mnist_lab.terminal.EpochLines",
    "mnist_lab.training.LayerTable": "mnist_lab.terminal.LayerTable",
    "mnist_lab.training.RandomState": "mnist_lab.callbacks.RandomState",
    "mnist_lab.training.SaveWithinEpochs": "mnist_lab.interrupts.SaveWithinEpochs",
    "mnist_lab.training.StepLog": "mnist_lab.callbacks.StepLog",
    "mnist_lab.training.TensorBoard": "mnist_lab.events.TensorBoard",
    "mnist_lab.training.TestCurve": "mnist_lab.callbacks.TestCurve",
    "mnist_lab.viz.Dashboard": "mnist_lab.dashboard.Dashboard",
}
CURRENT_NAMES = {former: name for name, former in FORMER_NAMES.items()} | {
    "mnist_lab.data.Affine": "mnist_lab.data.Distortion"
}
