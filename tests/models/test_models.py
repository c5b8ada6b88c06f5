"""The five networks are the tutorials': names, sizes, losses. A sixth is found here by its YAML alone."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lab import Outcome
from torch import nn

from benchmarks import tutorials
from mnist_lab import conf_dir
from mnist_lab.config.compose import compose
from mnist_lab.models.classifier import LOSSES, Classifier, conv_output_size
from mnist_lab.models.metrics import LossAndAccuracy, means
from mnist_lab.models.trial import check_output
from mnist_lab.runs.run import Run
from mnist_lab.training.build import make_model
from mnist_lab.training.progress import layer_table

NETWORKS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
PUBLISHED = {  # parameters; layers' names with their weights' shapes; whether forward ends in log-probabilities
    "lenet": (
        61_706,
        {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)},
        False,
    ),
    "mlp": (130_058, {"0": (128, 784), "2": (128, 128), "4": (64, 128), "6": (64, 64), "8": (10, 64)}, True),
    "simple_cnn": (
        431_080,
        {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)},
        True,
    ),
    "compact_cnn": (
        46_566,
        {"conv1": (32, 1, 5, 5), "conv2": (16, 32, 3, 3), "fc1": (100, 400), "fc2": (10, 100)},
        True,
    ),
    "dropout_cnn": (
        21_840,
        {"conv1": (10, 1, 5, 5), "conv2": (20, 10, 5, 5), "fc1": (50, 320), "fc2": (10, 50)},
        True,
    ),
}


def network(name: str) -> Classifier:
    torch.manual_seed(0)
    return make_model(compose(f"model={name}"))


def images_for(model: Classifier, count: int = 6) -> torch.Tensor:
    return torch.randn(count, 1, model.image_size, model.image_size)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_ten_scores_an_image(name: str) -> None:
    model = network(name)
    assert model(images_for(model)).shape == (6, 10)
    assert model.loss in LOSSES


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dict_is_the_tutorials(name: str) -> None:
    parameters, layers, _ = PUBLISHED[name]
    state = network(name).state_dict()
    expected = {f"{layer}.weight": shape for layer, shape in layers.items()}
    expected |= {f"{layer}.bias": shape[:1] for layer, shape in layers.items()}
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected
    assert sum(tensor.numel() for tensor in state.values()) == parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_forward_ends_as_the_loss_expects(name: str) -> None:
    model = network(name).eval()
    total = model(images_for(model)).exp().sum(1)
    ends_in_log_probabilities = PUBLISHED[name][2]
    assert torch.allclose(total, torch.ones(6), atol=1e-5) == ends_in_log_probabilities
    assert model.loss == ("nll" if ends_in_log_probabilities else "cross_entropy")


@pytest.mark.parametrize("name", PUBLISHED)
def test_network_computes_what_the_tutorials_does(name: str) -> None:
    theirs, ours = tutorials.NETWORKS[name]().eval(), network(name).eval()
    ours.load_state_dict(theirs.state_dict())
    images = images_for(ours)
    expected = theirs(images)
    computed = ours(images)
    assert torch.allclose(computed, expected, atol=1e-5)
    labels = torch.arange(len(images))
    for scores in (computed, expected):
        LOSSES[ours.loss](scores, labels).backward()
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(our.grad, their.grad, atol=1e-5)


def test_residual_cnn_is_as_wide_and_deep_as_asked_for() -> None:
    assert sum(parameter.numel() for parameter in network("residual_cnn").parameters()) == 298_442
    torch.manual_seed(0)
    model = make_model(compose("model=residual_cnn", "model.widths=[4,6,8]", "model.blocks=[0,1,3]"))
    assert [len(stage) for stage in (model.stage1, model.stage2, model.stage3)] == [0, 1, 3]
    assert model(images_for(model)).shape == (6, 10)
    assert model.widen2[1].weight.shape == (8, 6, 3, 3)


@pytest.mark.parametrize("name", ["lenet", "mlp"])  # cross-entropy on logits, and NLL on log-probabilities
def test_label_smoothing_spreads_a_share_of_each_label_over_all_classes_in_training_alone(name: str) -> None:
    model = network(name).train()
    images, labels = images_for(model), torch.arange(6)
    target = F.one_hot(labels, 10) * 0.8 + 0.2 / 10
    expected = -(target * model(images).log_softmax(1)).sum(1).mean()
    model.label_smoothing = 0.2
    assert torch.allclose(model.training_loss((images, labels)), expected, atol=1e-6)
    model.validation_step((images, labels), 0)
    plain = F.cross_entropy(model(images), labels).double()
    assert torch.allclose(means(model.val_metrics.sums())["loss"], plain, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv_output_size_is_torchs(stride: int, padding: int, dilation: int) -> None:
    for size in (5, 6, 7, 28, 33):
        for kernel in (1, 2, 3, 5):
            settings = {"stride": stride, "padding": padding, "dilation": dilation}
            try:
                side = nn.Conv2d(1, 1, kernel, **settings)(torch.zeros(1, 1, size, size)).shape[-1]
            except RuntimeError:  # the kernel does not fit
                with pytest.raises(ValueError, match="does not fit"):
                    conv_output_size(size, kernel, **settings)
            else:
                assert conv_output_size(size, kernel, **settings) == side


@pytest.mark.parametrize("bad", [{"size": 0}, {"kernel": 0}, {"stride": 0}, {"padding": -1}, {"dilation": 0}])
def test_conv_output_size_refuses_what_is_no_size(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        conv_output_size(**({"size": 28, "kernel": 5} | bad))


@pytest.mark.parametrize("name", ["compact_cnn", "dropout_cnn"])
def test_dropout_is_for_training_only(name: str) -> None:
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


def test_means_are_over_images_not_over_batches() -> None:
    scores, labels = torch.randn(25, 10), torch.randint(10, (25,))
    metrics = LossAndAccuracy()
    for part in (slice(0, 16), slice(16, 25)):
        metrics.add(F.cross_entropy(scores[part], labels[part]), scores[part], labels[part])
    values = means(metrics.sums())
    assert torch.allclose(values["loss"], F.cross_entropy(scores, labels).double(), atol=1e-6)
    assert values["acc"].item() == (scores.argmax(1) == labels).sum().item() / 25


def test_reset_forgets_batches_that_were_not_counted_yet() -> None:
    scores, labels = torch.randn(10, 10), torch.arange(10)
    metrics = LossAndAccuracy()
    metrics.add(F.cross_entropy(scores, labels), scores, labels)
    metrics.reset()
    metrics.add(F.cross_entropy(scores, labels), scores, labels)
    sums = metrics.sums()
    assert sums["images"] == 10
    assert torch.allclose(means(sums)["loss"], F.cross_entropy(scores, labels).double())


class Linear(Classifier):
    """A network of one layer, which each of those below spoils in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(28 * 28, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.net(x.flatten(1))
        return scores


class NineOutputs(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[:, :9]


class Nothing(Linear):
    def forward(self, x: torch.Tensor) -> None:  # type: ignore[override]
        super().forward(x)


class Integers(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).long()


class NotANumber(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * float("nan")


class NoSize(Linear):
    image_size = "28"  # type: ignore[assignment]


class UnknownLoss(Linear):
    loss = "crossentropy"  # type: ignore[assignment]


class ProbabilitiesForNLL(Linear):
    loss = "nll"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


class MissingLayer(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.output(x)
        return scores


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
        (NineOutputs, "forward returns shape (2, 9)"),
        (Nothing, "forward returns NoneType, not a tensor of shape (B, 10)"),
        (Integers, "forward returns torch.int64"),
        (NotANumber, "forward returns values that are NaN or infinite"),
        (NoSize, "image_size='28' is invalid"),
        (UnknownLoss, "loss='crossentropy' is invalid; choose from nll, cross_entropy"),
        (ProbabilitiesForNLL, "does not return log-probabilities"),
        (MissingLayer, "AttributeError: 'MissingLayer' object has no attribute 'output' (" + __file__),
        (MissingValue, "AttributeError: 'MissingValue' object has no attribute 'height' (" + __file__),
        (Plain, "not a class derived from mnist_lab.models.Classifier"),
    ],
)
def test_mistake_in_a_network_of_the_user_is_reported_in_one_line_before_a_run_is_made(
    command: Callable[..., Outcome], network: type, problem: str
) -> None:
    outcome = command(f"model._target_=test_models.{network.__name__}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome
    assert outcome.err.startswith("mnist_lab: model") and problem in outcome.err
    assert not list(Path().iterdir())


def test_network_that_gives_probabilities_to_cross_entropy_is_trained_with_a_warning(
    command: Callable[..., Outcome],
) -> None:
    outcome = command("model._target_=test_models.Probabilities", "trainer.max_epochs=1", "hydra.run.dir=runs/a")
    assert outcome.status == 0
    assert outcome.out.startswith("warning: model: Probabilities.forward returns probabilities")
    assert outcome.out.count("warning") == 1
    assert Run(Path("runs/a")).info["model"] == "Probabilities"


@pytest.mark.parametrize("name", NETWORKS)
def test_check_of_the_output_leaves_the_random_state_the_modes_and_the_weights(name: str) -> None:
    model = network(name)
    next(iter(model.children())).eval()  # a layer that is kept frozen
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    assert check_output(model) is None
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_networks_name_is_its_files_or_else_its_classes() -> None:
    assert compose("model=mlp").name == "mlp"
    assert compose("model=mlp", "model._target_=test_models.Linear").name == "Linear"
    assert compose("experiment=lenet").name == "lenet"
