"""A configuration makes the parts of a run and nothing else: it calls no other function or class."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lab import Command, assert_refused, thorough
from omegaconf import OmegaConf

from mnist_lab.config.targets import BASE_CLASSES, find_class, resolve_node
from mnist_lab.errors import Interrupted, UsageError
from mnist_lab.training.build import instantiate_node

SENTINEL = Path("was_called")
PATH: dict[str, Any] = {"_target_": "pathlib.Path", "_args_": [str(SENTINEL)]}
TOUCH = f"touch {SENTINEL}"
MALICIOUS: list[dict[str, Any]] = [  # Each makes the file if it is called.
    {"_target_": "os.system", "command": TOUCH},
    {"_target_": "torch.utils.collect_env.run", "command": TOUCH},
    {"_target_": "pathlib.Path.write_text", "_args_": [PATH, "x"]},
    {"_target_": "builtins.exec", "_args_": [f"open('{SENTINEL}', 'w')"]},
    {"_target_": "mnist_lab.files.write_text", "path": PATH, "text": "x"},
    {"_target_": "hydra.utils.instantiate", "config": {"_target_": "torch.save", "obj": 1, "f": str(SENTINEL)}},
    {"_target_": "mnist_lab.models.lenet.LeNet.load_from_checkpoint", "checkpoint_path": str(SENTINEL)},
    {"_target_": "functools.partial", "_args_": [{"_target_": "torch.utils.collect_env.run", "command": TOUCH}]},
]
PLACES = {  # Each place has a node that is valid there.
    "model": {"_target_": "mnist_lab.models.lenet.LeNet"},
    "data": {"_target_": "mnist_lab.data.datamodule.MNISTDataModule"},
    "data.source": {"_target_": "mnist_lab.data.Source", "name": "Tiny", "sha256": {}},
    "optimizer": {"_target_": "torch.optim.SGD"},
    "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR"},
    "augmentation": {"_target_": "mnist_lab.data.augmentation.Distortion"},
    "test_augmentation": {"_target_": "mnist_lab.models.Views"},
    "distillation": {"_target_": "mnist_lab.training.Teacher", "run": "runs/a"},
    "trainer": {"_target_": "lightning.pytorch.Trainer"},
    "callbacks.best": {"_target_": "mnist_lab.training.EpochCheckpoint", "monitor": "val/acc"},
    "callbacks.last": {"_target_": "mnist_lab.training.EpochCheckpoint"},
    "callbacks.mine": {"_target_": "lightning.pytorch.callbacks.LambdaCallback"},
    "logger.mine": {"_target_": "mnist_lab.training.loggers.TensorBoard"},
    "dashboard": {"_target_": "mnist_lab.viz.dashboard.Dashboard"},
}


def test_places_are_those_that_are_tried_here() -> None:
    assert {place.replace("*", "mine") for place in BASE_CLASSES} | {"augmentation"} == set(PLACES)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README").write_text("x")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("node", MALICIOUS, ids=[node["_target_"] for node in MALICIOUS])
def test_function_or_foreign_class_is_refused_in_every_place_without_a_call(node: dict[str, Any]) -> None:
    for place, right in PLACES.items():
        partial = node | {"_partial_": True}
        in_a_list = [{"deeper": [node]}]
        for tried in (node, right | {"x": node}, right | {"x": in_a_list}, right | {"_args_": [partial]}):
            with pytest.raises(UsageError, match="_target_=") as caught:
                instantiate_node(OmegaConf.create(tried), place)
            assert "\n" not in str(caught.value)
    assert not SENTINEL.exists()


@pytest.mark.usefixtures("files")
def test_interpolation_that_becomes_a_node_when_it_is_resolved_again_is_refused() -> None:
    hidden = "\\${oc.create:{_target_:torch.utils.collect_env.run,command:touch was_called}}"
    with pytest.raises(UsageError, match=r"model\.x="):
        instantiate_node(OmegaConf.create(PLACES["model"] | {"x": hidden}), "model")
    assert not SENTINEL.exists()


@pytest.mark.parametrize("node", [5, None, {}, {"_target_": 5}, {"_target_": "."}, {"_target_": "x"}])
@pytest.mark.parametrize("place", ["model", "callbacks.mine"])
def test_node_that_names_no_class_is_refused_in_one_line(node: Any, place: str) -> None:
    with pytest.raises(UsageError, match=place) as caught:
        instantiate_node(OmegaConf.create(node) if isinstance(node, dict) else node, place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"num_decoder_layers": 4000}, {"_args_": [4, 1, 4000]}, {"device": 0}], ids=str)
def test_argument_of_torch_is_small_and_on_no_device(settings: dict[str, Any]) -> None:
    node = {"_target_": "torch.nn.Transformer", **settings}
    with pytest.raises(UsageError, match="at most 1000 layers"):
        instantiate_node(OmegaConf.create(PLACES["model"] | {"x": [node]}), "model")


class Block(torch.nn.Module):
    """A part of a user's network, in another module than the network's."""


def test_part_of_a_network_may_be_of_ones_own() -> None:
    resolve_node(OmegaConf.create(PLACES["model"] | {"x": {"_target_": "test_targets.Block"}}), "model")


def test_module_that_is_no_augmentation_is_not_made() -> None:
    with pytest.raises(UsageError, match="images, generator, black"):
        instantiate_node(OmegaConf.create({"_target_": "torchmetrics.functional.image.lpips._LPIPS"}), "augmentation")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("RichProgressBar", "callbacks.progress"),
        ("LearningRateFinder", "-m optimizer.lr=..."),
        *thorough(("BatchSizeFinder", "-m data.batch_size=...")),
    ],
)
def test_callback_that_cannot_work_here_is_refused_with_a_remedy(command: Command, name: str, remedy: str) -> None:
    assert_refused(command(f"+callbacks.x._target_=lightning.pytorch.callbacks.{name}", "--check"), "", remedy)
    assert not list(Path().iterdir())


def test_signal_during_the_import_of_a_class_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "signalled.py").write_text("from mnist_lab.errors import Interrupted\nraise Interrupted(143)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Interrupted):
        find_class("signalled.Network", "model")
