"""On a pretended GPU: tensors of two devices, waits within a step and float64 fail with their line in the package."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from lab import RECIPE, Tiny, thorough
from PIL import Image
from pretended import why_not_here

GPU = ("trainer.accelerator=gpu", "trainer.log_every_n_steps=5")
OPERATORS = {  # of a training step with SGD
    "lenet": 38,
    "mlp": 36,
    "fast_cnn": 39,
    "simple_cnn": 32,
    "compact_cnn": 34,
    "dropout_cnn": 38,
    "tiny_cnn": 54,
    "residual_cnn": 78,
}
EMA = "{_target_:mnist_lab.training.AveragedWeights}"
QUICK = ("lenet", "mlp", "fast_cnn")
TRAININGS = (
    "augmentation=affine",
    "augmentation=elastic augmentation.crop=3 augmentation.cutout=7",
    "data.mean=null data.std=null",
    "test_augmentation=views label_smoothing=0.1",
    "class_weights=balanced scheduler=plateau callbacks.best.monitor=val/balanced_acc",
    "optimizer=adam scheduler=step",
    "optimizer=adamw scheduler=cosine",
    "optimizer.nesterov=true scheduler=onecycle scheduler.cycle_momentum=true",
    "callbacks=ema",
    f"callbacks=test_curve callbacks.test_curve.before_training=true callbacks.ema={EMA}",
    "callbacks=early_stopping logger=csv",
    "+callbacks.reload={_target_:mnist_lab.training.ReloadNetwork,after:1}",
    "steps_per_execution=1 model=dropout_cnn",
    "trainer.max_steps=7 data.val_size=0",
    "trainer.deterministic=true figures=true",
    "+trainer.gradient_clip_val=1 +trainer.accumulate_grad_batches=2",
)
OnDevice = Callable[..., dict[str, int]]


@pytest.fixture(scope="module")
def device_process() -> Iterator["subprocess.Popen[str]"]:
    """The process that runs command lines on the device, which changes torch for good."""
    if reason := why_not_here():
        pytest.skip(reason)
    program = Path(__file__).with_name("on_device.py")
    with subprocess.Popen([sys.executable, program], stdin=-1, stdout=-1, text=True, cwd="/") as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def on_device(device_process: "subprocess.Popen[str]", tiny: Tiny) -> OnDevice:
    """Runs command lines on the device, and returns the operators of a training step; they must run without a fault."""

    def run(*commands: list[str]) -> dict[str, int]:
        assert device_process.stdin is not None
        assert device_process.stdout is not None
        case = {"folder": str(Path.cwd()), "commands": commands}
        print(json.dumps(case), file=device_process.stdin, flush=True)
        report = json.loads(device_process.stdout.readline())
        assert not report["faults"], "\n".join(f"{count} times {fault}" for fault, count in report["faults"].items())
        assert report["status"] == 0, report["printed"]
        operators: dict[str, int] = report["operators"]
        return operators

    return run


@pytest.mark.slow
@pytest.mark.parametrize("network", [*QUICK, *thorough(*(name for name in OPERATORS if name not in QUICK))])
def test_step_of_each_network_takes_few_operators(on_device: OnDevice, tiny: Tiny, network: str) -> None:
    operators = on_device(tiny.arguments(*GPU, f"model={network}", "trainer.max_epochs=1"))
    assert sum(operators.values()) <= OPERATORS[network], operators


@pytest.mark.slow
@pytest.mark.parametrize("settings", [" ".join(RECIPE), *thorough(*TRAININGS)])
def test_training_fails_on_no_device_and_waits_for_none(on_device: OnDevice, tiny: Tiny, settings: str) -> None:
    on_device(tiny.arguments(*GPU, *([] if "model=" in settings else ["model=mlp"]), *settings.split()))


@pytest.mark.thorough
def test_commands_run(on_device: OnDevice, tiny: Tiny) -> None:
    Image.fromarray(np.pad(np.full((20, 4), 255, np.uint8), 12)).save("digit.png")
    trained = [tiny.arguments(*GPU, "model=mlp", f"seed={seed}", f"hydra.run.dir=runs/a/{seed}") for seed in (0, 1)]
    lines = """
        resume=runs/a/0 trainer.max_epochs=3
        test runs/a/0
        predict runs/a/0 digit.png
        ensemble runs/a/0 runs/a/1 --to runs/a/both
        test runs/a/both
        robustness runs/a/0 --only shift,noise
        report runs/a/0
        export runs/a/0 --format html"""
    lr = ["lr", *tiny.arguments(*GPU, "model=mlp"), "--steps", "40"]
    on_device(*trained, *map(shlex.split, lines.strip().splitlines()), lr)


@pytest.mark.thorough
@pytest.mark.parametrize("sweeper", ["grid", "halving"])
def test_sweep_runs(on_device: OnDevice, tiny: Tiny, sweeper: str) -> None:
    on_device(["-m", *tiny.arguments(*GPU, "model=mlp", f"hydra/sweeper={sweeper}", "optimizer.lr=0.01,0.1")])
