"""Test a run's weights from its folder alone, on the test set as it is and with shifts, noise and other corruptions."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mnist_lab.config.overrides import OverrideType, dotted_keys, nearest_key, parse_override, quote_paths
from mnist_lab.config.validate import drop_unknown_settings, validate
from mnist_lab.data.corruptions import corrupt
from mnist_lab.errors import UsageError
from mnist_lab.evaluation.predictions import Predictions, TrainedRun
from mnist_lab.formatting import shorten
from mnist_lab.models.classifier import Classifier
from mnist_lab.runs.run import Run
from mnist_lab.training.build import check_batch_limits, make_data, make_trained_model, set_up_classes
from mnist_lab.training.runtime import guest


@guest()
def evaluate(run: Run, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Return test/loss and test/acc of a run's best weights, or of its last without a validation set.

    Args:
        run: the run.
        overrides: changes to its configuration, such as data.root=FOLDER or trainer.accelerator=cpu.

    Raises:
        UsageError: the run has no checkpoint, or a changed setting is unknown or has a bad value.
    """
    chosen = run.chosen_checkpoint()
    cfg = override_config(run.config, overrides)
    cfg.update(callbacks={}, logger={}, dashboard={})  # A test needs none of their packages.
    drop_unknown_settings(cfg)
    validate(cfg)
    return evaluate_network(make_tester(cfg), cfg, make_trained_model(cfg, chosen))


def make_tester(cfg: DictConfig) -> pl.Trainer:
    """Return a Trainer that tests in this process alone, on the device and in the precision of a configuration."""
    return pl.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=1,
        precision=cfg.trainer.precision,
        limit_test_batches=cfg.trainer.get("limit_test_batches"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[LightningEnvironment()],  # In a SLURM job, Lightning would wait for the other tasks.
    )


def evaluate_network(tester: pl.Trainer, cfg: DictConfig, model: Classifier) -> dict[str, float]:
    """Return test/loss and test/acc of a network on the test set of a configuration; `make_tester` makes the tester."""
    data = make_data(cfg, model)
    check_batch_limits(cfg, data)
    set_up_classes(cfg, model, data)
    torch.set_num_threads(cfg.threads or torch.get_num_threads())  # The last digits of a sum depend on their number.
    (tested,) = tester.test(model, data, verbose=False)
    return dict(tested)


def override_config(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return a run's configuration with some of its settings changed."""
    known = dotted_keys(cfg)
    for override in map(parse_override, quote_paths(overrides)):
        line = shorten(override.input_line)
        if override.type is not OverrideType.CHANGE or override.is_sweep_override():
            raise UsageError(f"{line}: settings are changed one by one, as KEY=VALUE")
        if override.key_or_group not in known:
            near = nearest_key(override.key_or_group, known)
            hint = f"; did you mean {near}?" if near else ""
            raise UsageError(f"{line}: the run has no such setting{hint}")
        OmegaConf.update(cfg, override.key_or_group, override.value())
    return cfg


@dataclass(frozen=True)
class Robustness:
    """Accuracies of a network, from 0 to 1."""

    example: Tensor  # the first test image, (28, 28) bytes
    images: int
    accuracy: float  # without corruption
    accuracies: dict[str, list[float]]  # The keys are corruptions, the values the strengths 1 to 5.


def measure_robustness(run: Run, names: Sequence[str]) -> Robustness:
    """Measure the accuracies of a run's tested weights on the whole test set, for each corruption and strength."""
    trained = TrainedRun(run)
    images, labels = (torch.from_numpy(array) for array in trained.data.raw_test_set())
    is_light = trained.data.background > 127

    def accuracy(name: str, strength: int) -> float:
        # Corruptions fill with black, so light images are inverted for them.
        corrupted = 255 - corrupt(255 - images, name, strength) if is_light else corrupt(images, name, strength)
        probabilities = trained.model.probabilities(trained.data.normalise(corrupted.numpy()))
        return Predictions(labels.long(), probabilities).accuracy

    accuracies = {name: [accuracy(name, strength) for strength in range(1, 6)] for name in names}
    return Robustness(images[0], len(images), trained.predictions.accuracy, accuracies)
