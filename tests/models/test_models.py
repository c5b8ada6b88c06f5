"""Networks have the tutorials' values, fit their loss and their data, and are found by their YAML alone."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lab import Command, Tiny, assert_refused
from torch import nn

from benchmarks import tutorials
from mnist_lab import conf_dir
from mnist_lab.config.compose import compose
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.errors import UsageError
from mnist_lab.models.classifier import LOSSES, Classifier
from mnist_lab.models.deployed import InferenceModule
from mnist_lab.models.dummy_batch import check_output
from mnist_lab.models.metrics import LossAndAccuracy, compute_means
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_model
from mnist_lab.training.progress import layer_table

NETWORKS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))


def network(name: str) -> Classifier:
    torch.manual_seed(0)
    return make_model(compose(f"model={name}"))


def images_for(model: Classifier, count: int = 6) -> torch.Tensor:
    return torch.randn(count, 1, model.image_size, model.image_size)


@pytest.mark.parametrize("name", tutorials.NETWORKS)
def test_network_has_the_weights_and_computes_the_values_of_the_tutorials(name: str) -> None:
    tutorial, model = tutorials.NETWORKS[name]().eval(), network(name).eval()
    model.load_state_dict(tutorial.state_dict())
    images = images_for(model)
    scores, expected = model(images), tutorial(images)
    assert torch.allclose(scores, expected, atol=1e-5)
    for output in (scores, expected):
        LOSSES[model.loss](output, torch.arange(len(images))).backward()
    for parameter, expected_parameter in zip(model.parameters(), tutorial.parameters(), strict=True):
        assert torch.allclose(parameter.grad, expected_parameter.grad, atol=1e-5)


def test_residual_cnn_has_the_configured_widths_and_blocks() -> None:
    assert sum(parameter.numel() for parameter in network("residual_cnn").parameters()) == 298_442
    torch.manual_seed(0)
    model = make_model(compose("model=residual_cnn", "model.widths=[4,6,8]", "model.blocks=[0,1,3]"))
    assert [len(stage) for stage in (model.stage1, model.stage2, model.stage3)] == [0, 1, 3]
    assert model(images_for(model)).shape == (6, 10)
    assert model.widen2[1].weight.shape == (8, 6, 3, 3)


def test_learned_pooling_of_tiny_cnn_with_equal_weights_is_the_mean() -> None:
    mean, learned = network("tiny_cnn").eval(), make_model(compose("model=tiny_cnn", "model.pooling=learned")).eval()
    learned.load_state_dict(mean.state_dict() | {"pool.0.weight": torch.full((16, 1, 6, 6), 1 / 36)}, strict=False)
    images = images_for(mean)
    assert torch.allclose(learned(images), mean(images), atol=1e-4)


@pytest.mark.parametrize("name", ["compact_cnn", "dropout_cnn"])
def test_dropout_acts_only_in_training(name: str) -> None:
    model = network(name)
    images = images_for(model)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


def test_layer_table_and_predict_leave_the_random_state_and_set_the_mode() -> None:
    model = network("dropout_cnn").train()
    state = torch.get_rng_state()
    layer_table(model, (1, 1, 28, 28))
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    model.predict(torch.zeros(1, 1, 28, 28))
    assert not model.training


def test_means_are_over_images_not_over_batches_and_begin_anew() -> None:
    scores, labels = torch.randn(25, 10), torch.randint(10, (25,))
    metrics = LossAndAccuracy()
    for _ in range(2):
        metrics.reset()  # It must also drop the batches that are not counted yet.
        for part in (slice(0, 16), slice(16, 25)):
            metrics.add(F.cross_entropy(scores[part], labels[part]), scores[part], labels[part])
    values = compute_means(metrics.sums())
    assert torch.allclose(values["loss"], F.cross_entropy(scores, labels).double(), atol=1e-6)
    assert values["acc"].item() == (scores.argmax(1) == labels).sum().item() / 25


class Linear(Classifier):
    """A network of one layer, which others derive from."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(28 * 28, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.flatten(1))  # type: ignore[no-any-return]


class LogLinear(Linear):
    """The same layer, with log-probabilities."""

    loss = "nll"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).log_softmax(1)


@pytest.mark.parametrize("weights", [None, torch.arange(1, 11) / 4], ids=["equal weights", "weights"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("network", [Linear, LogLinear])
def test_label_smoothing_and_class_weights_change_the_gradient_and_not_the_validation_loss(
    network: type[Linear], smoothing: float, weights: torch.Tensor | None
) -> None:
    """The gradient of cross-entropy by the logits is the probabilities minus the target."""
    torch.manual_seed(0)
    model, images, labels = network().train(), torch.randn(6, 1, 28, 28), torch.tensor([0, 0, 3, 9, 3, 1])
    model.label_smoothing, model.class_weights = smoothing, weights
    probabilities, target = model(images).softmax(1), F.one_hot(labels, 10) * (1 - smoothing) + smoothing / 10
    weight_of_image = torch.ones(6) if weights is None else weights[labels]
    expected = (weight_of_image[:, None] * (probabilities - target) / 6).T @ images.flatten(1)
    model.training_loss((images, labels)).backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(model.net.weight.grad, expected, atol=1e-6)
    assert "class_weights" not in model.state_dict()
    model.validation_step((images, labels), 0)
    plain = F.cross_entropy(model(images), labels).double()
    assert torch.allclose(compute_means(model.val_metrics.sums())["loss"], plain, atol=1e-6)


class MissingLayer(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(x)  # type: ignore[no-any-return]


class MissingValue(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.width = self.height


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Probabilities(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (MissingLayer, "AttributeError: 'MissingLayer' object has no attribute 'output' (" + __file__),
        (MissingValue, "AttributeError: 'MissingValue' object has no attribute 'height' (" + __file__),
        (Plain, "not a class derived from mnist_lab.models.Classifier"),
    ],
)
def test_mistake_in_a_users_network_is_reported_before_a_run(command: Command, network: type, problem: str) -> None:
    assert_refused(command(f"model._target_=test_models.{network.__name__}"), "model", problem)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("settings", "change", "problem"),
    [
        ({}, lambda scores: scores[:, :9], "forward returns shape (2, 9)"),
        ({}, lambda scores: None, "forward returns NoneType, not a tensor of shape (B, 10)"),
        ({}, torch.Tensor.long, "forward returns torch.int64"),
        ({}, lambda scores: scores * float("nan"), "forward returns values that are NaN or infinite"),
        ({"image_size": "28"}, None, "image_size='28' is invalid"),
        ({"loss": "crossentropy"}, None, "loss='crossentropy' is invalid; choose from nll, cross_entropy"),
        ({"loss": "nll"}, lambda scores: scores.softmax(1), "does not return log-probabilities"),
    ],
)
def test_network_whose_scores_do_not_fit_is_refused(settings: dict[str, object], change: Any, problem: str) -> None:
    model = type("Changed", (Linear,), settings | {"forward": lambda self, x: change(Linear.forward(self, x))})()
    with pytest.raises(UsageError, match=re.escape(problem)):
        check_output(model)


def test_network_that_gives_probabilities_to_cross_entropy_is_trained_with_a_warning(command: Command) -> None:
    outcome = command("model._target_=test_models.Probabilities", "trainer.max_epochs=1", "hydra.run.dir=runs/a")
    assert outcome.status == 0
    assert outcome.out.startswith("warning: model: Probabilities.forward returns probabilities")
    assert outcome.out.count("warning: model") == 1
    assert Run(Path("runs/a")).info["model"] == "Probabilities"


@pytest.mark.parametrize("name", NETWORKS)
def test_check_of_the_output_leaves_the_random_state_the_modes_and_the_weights(name: str) -> None:
    model = network(name)
    next(iter(model.children())).eval()  # A user may keep a layer frozen.
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    assert check_output(model) is None
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert type(model)(num_classes=12)(images_for(model)).shape == (6, 12)


def test_networks_name_is_its_files_or_else_its_classes() -> None:
    assert compose("model=mlp").name == "mlp"
    assert compose("model=mlp", "model._target_=test_models.Linear").name == "Linear"
    assert compose("experiment=lenet").name == "lenet"


@pytest.mark.parametrize("mean", [0.2, None])
@pytest.mark.parametrize("size", [14, 28, 32, 45])
def test_bytes_are_resized_and_normalised_as_by_the_data_module(tiny: Tiny, size: int, mean: float | None) -> None:
    class Seeing(Classifier):
        image_size = size

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x
            return x.flatten(1)[:, :10]

    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)
    images[:100] = np.where(images[:100] > 127, 255, 0)
    data = MNISTDataModule(source=tiny.source(), image_size=size, mean=mean, std=mean and 0.4)
    network = Seeing()
    InferenceModule(network, data.mean, data.std)(torch.from_numpy(images))
    assert torch.equal(network.seen, data.normalise(images))
