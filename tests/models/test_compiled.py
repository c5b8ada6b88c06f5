"""Compiled steps are those taken operation by operation, up to rounding."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lab import Command
from lightning.pytorch import LightningModule, Trainer

from mnist_lab.data.batches import Batches, Group
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.compact_cnn import CompactCNN
from mnist_lab.models.compiled import CompiledSteps, compile_obstacle
from mnist_lab.models.mlp import MLP
from mnist_lab.models.multistep import StepCallback, eager_steps
from mnist_lab.runs.run import Run
from mnist_lab.training.execution import STEPS_WORTH_COMPILING

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, fused=True),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01, fused=True),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    "dampening": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, dampening=0.5),
    "adam": lambda parameters: torch.optim.Adam(parameters, weight_decay=0.01, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, betas=(0.8, 0.95), fused=True),
}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """The graphs that were captured; they are run operation by operation, which saves the C++ compiler's time."""
    captured: list[torch.fx.GraphModule] = []
    compile = torch.compile

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Any:
        captured.append(graph)
        return graph.forward

    def patched(function: Any, *, options: object = None, **settings: Any) -> Any:
        return compile(function, backend=backend, **settings)

    monkeypatch.setattr(torch, "compile", patched)
    torch.compiler.reset()
    return captured


def train(network: type[Classifier], optimizer: str, steps: Callable[..., Any], count: int = 20) -> tuple[Any, ...]:
    """Losses, weights and the optimizer's state after steps in two groups, the learning rate of which differs."""
    torch.manual_seed(1)
    model = network().train()
    made = OPTIMIZERS[optimizer](model.parameters())
    model.trainer = SimpleNamespace(optimizers=[made], precision="32-true")
    images = torch.randn(200, 1, model.image_size, model.image_size)
    batches = Batches(images, torch.arange(200) % 10, batch_size=8, shuffle=True)
    assert compile_obstacle(model) is None
    losses = []
    for part in (range(count // 2), range(count // 2, count)):
        losses += list(steps(model, Group(batches, batches.order(), part)))
        made.param_groups[0]["lr"] *= 0.5
    return torch.stack(losses), model.state_dict(), made.state_dict(), model.train_metrics.sums()


def assert_same(compiled: tuple[Any, ...], eager: tuple[Any, ...]) -> None:
    for one, other in zip(compiled, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)  # Adam divides by small numbers


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", [MLP, CompactCNN])
def test_steps_losses_and_metrics_are_those_of_eager_mode_in_one_graph(
    graphs: list[torch.fx.GraphModule], network: type[Classifier], optimizer: str
) -> None:
    """Dropout of the convolutional network draws the same numbers, and a changed learning rate needs no new graph."""
    compiled = train(network, optimizer, CompiledSteps())
    assert len(graphs) == 1
    assert_same(compiled, train(network, optimizer, eager_steps))


@pytest.mark.slow
@pytest.mark.parametrize(("network", "optimizer"), [(MLP, "momentum"), (CompactCNN, "adam")])
def test_compiler_gives_the_steps_of_eager_mode(network: type[Classifier], optimizer: str) -> None:
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    torch.compiler.reset()
    steps = CompiledSteps()
    compiled = train(network, optimizer, steps)
    assert steps.failure is None
    assert_same(compiled, train(network, optimizer, eager_steps))


def test_graph_that_gives_other_weights_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(function: Any, **settings: Any) -> Any:
        def step(parameters: list[torch.Tensor], *arguments: Any) -> Any:
            result = function(parameters, *arguments)
            parameters[0].mul_(1.01)
            return result

        return step

    monkeypatch.setattr(torch, "compile", wrong)
    steps = CompiledSteps()
    trained = train(CompactCNN, "momentum", steps)
    assert steps.failure == "the compiled graph gives other weights"
    for one, other in zip(trained, train(CompactCNN, "momentum", eager_steps), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_run_without_a_compiler_is_trained_all_the_same_and_says_so(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.compiler.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(tmp_path / "none"),))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    assert command("model=mlp", "compile=true", "hydra.run.dir=runs/compiled").status == 0
    assert command("model=mlp", "compile=false", "hydra.run.dir=runs/eager").status == 0
    one, other = Run(Path("runs/compiled")), Run(Path("runs/eager"))
    assert one.info["execution"].startswith("eager; not compiled: InvalidCxxCompiler")
    assert other.info["execution"] == "eager"
    assert one.info["metrics"] == other.info["metrics"]


class Stop(StepCallback):
    """SIGTERM in the middle of the second epoch."""

    needs_weights = False

    def after_step(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: torch.Tensor) -> None:
        if step == 15:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("graphs")
def test_compiled_run_that_is_resumed_gives_what_an_undisturbed_one_gives(command: Command) -> None:
    settings = ("model=mlp", "compile=true", "trainer.max_epochs=3", "scheduler=onecycle", "steps_per_execution=5")
    assert command(*settings, "hydra.run.dir=runs/whole").status == 0
    stop = "+callbacks.stop._target_=test_compiled.Stop"
    assert command(*settings, "hydra.run.dir=runs/parts", stop).status == 143
    assert Run(Path("runs/parts")).info["steps"] % 12 != 0
    assert command("resume=runs/parts", "trainer.max_epochs=3", "callbacks.stop=null").status == 0
    whole, parts = (torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(value, parts["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert Run(Path("runs/parts")).info["execution"] == "compiled"


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize(
    "settings",
    [
        ["model=mlp", "callbacks=ema", "callbacks.ema.decay=0.9"],
        ["model=compact_cnn", "optimizer=adamw", "scheduler=onecycle", "label_smoothing=0.1", "augmentation=affine"],
    ],
    ids=" ".join,
)
def test_compiled_run_gives_the_metrics_of_an_eager_one(command: Command, settings: list[str]) -> None:
    for compiles in ("true", "false"):
        assert command(*settings, f"compile={compiles}", f"hydra.run.dir=runs/{compiles}").status == 0
    compiled, eager = Run(Path("runs/true")), Run(Path("runs/false"))
    assert (compiled.info["execution"], eager.info["execution"]) == ("compiled", "eager")
    assert compiled.info["metrics"] == pytest.approx(eager.info["metrics"], rel=1e-3)
    speed = {"images_per_second": 0.0}
    for one, other in zip(compiled.metrics(), eager.metrics(), strict=True):
        assert one | speed == pytest.approx(other | speed, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["+trainer.gradient_clip_val=1"], "single steps"),
        (
            ["optimizer._target_=torch.optim.RMSprop", "~optimizer.nesterov", "~optimizer.fused"],
            "the optimizer RMSprop",
        ),
    ],
)
def test_run_that_cannot_be_compiled_says_why(command: Command, settings: list[str], reason: str) -> None:
    outcome = command("model=mlp", "compile=true", *settings)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"compile=false, for {reason}" in outcome.out


@pytest.mark.parametrize(
    ("settings", "execution"),
    [
        (["model=mlp"], "eager"),
        (["model=mlp", f"trainer.max_epochs={STEPS_WORTH_COMPILING}"], "compiled"),
        (
            ["model=mlp", f"trainer.max_epochs={STEPS_WORTH_COMPILING}", "trainer.accelerator=cpu", "compile=false"],
            "eager",
        ),
        (["model=lenet", f"trainer.max_epochs={STEPS_WORTH_COMPILING}"], "eager"),
    ],
)
@pytest.mark.usefixtures("graphs")
def test_long_runs_of_linear_layers_are_compiled(command: Command, settings: list[str], execution: str) -> None:
    early = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0.00001")
    assert command(*settings, *early, "hydra.run.dir=runs/a").status == 0
    assert Run(Path("runs/a")).info["execution"] == execution
