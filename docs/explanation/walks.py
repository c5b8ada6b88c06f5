"""Count the files in the walks of architecture.md: those that a configuration, a batch and a job of a sweep pass.

    python docs/explanation/walks.py

It trains MLPs for a few steps and watches the calls of the package's functions. A value passes a file if it is an
argument of a function there; for a job, its overrides, its record or its id.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import hydra
import torch
from omegaconf import DictConfig

import mnist_lab
from mnist_lab.__main__ import main as command_line
from mnist_lab.config.compose import CommandLine
from mnist_lab.data.batches import Group
from mnist_lab.runs.sweep import Job
from mnist_lab.training import train

PACKAGE = Path(mnist_lab.__file__).parent
TINY = ("model=mlp", "trainer.limit_train_batches=4", "trainer.max_epochs=1", "dashboard=none", "figures=false")


def file_of(frame: FrameType) -> str | None:
    """Return the file of the package in which a frame runs, or None."""
    path = Path(frame.f_code.co_filename)
    return str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else None


class Walk:
    """Collects the files whose functions have a value as an argument, until a function is called."""

    def __init__(self, passes: Callable[[Any], bool], until: str) -> None:
        self.passes, self.until = passes, until
        self.files: dict[str, None] = {}
        self.ended = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or self.ended:
            return
        file = file_of(frame)
        if file is None:
            return
        code = frame.f_code
        if any(self.passes(frame.f_locals.get(name)) for name in code.co_varnames[: code.co_argcount]):
            self.files[file] = None
        self.ended = code.co_name == self.until


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count compositions and validations in the block."""
    counts = {"compositions": 0, "validations": 0}

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            counts[name] += 1
            return function(*args, **settings)

        return call

    with (
        mock.patch.object(hydra, "compose", counting("compositions", hydra.compose)),
        mock.patch.object(train, "validate", counting("validations", train.validate)),
    ):
        yield counts


def walk(title: str, passes: Callable[[Any], bool], until: str, *arguments: str) -> None:
    """Run a command line and print the walk of a value."""
    noted = Walk(passes, until)
    with tempfile.TemporaryDirectory() as folder, counted() as counts, redirect_stdout(StringIO()):
        sys.argv = ["mnist_lab", *TINY, f"runs_dir={folder}", *arguments]
        sys.setprofile(noted)
        try:
            command_line()
        finally:
            sys.setprofile(None)
    print(
        f"{title}: {len(noted.files)} files, {counts['compositions']} compositions, {counts['validations']} validations"
    )
    print(f"    {', '.join(noted.files)}")


def main() -> None:
    walk("optimizer.lr", lambda value: isinstance(value, DictConfig), "configure_optimizers", "optimizer.lr=0.1")
    walk("a batch", lambda value: isinstance(value, Group | torch.Tensor) or _is_batch(value), "on_train_epoch_end")
    swept = ("-m", "seed=1,2,3", "optimizer.lr=0.05")

    def is_job(value: Any) -> bool:
        first = next(iter(value), None) if isinstance(value, list | dict) else value
        is_id = isinstance(first, str) and re.fullmatch(r"[0-9a-f]{12}", first) is not None
        return isinstance(value, CommandLine | Job) or is_id

    walk("a job of a sweep of three", is_job, "train", *swept)


def _is_batch(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], torch.Tensor)


if __name__ == "__main__":
    main()
