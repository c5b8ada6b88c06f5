"""What the tests share: tiny data, command lines in this process and in others, saved weights."""

import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from forks import Forked
from omegaconf import DictConfig, OmegaConf

from mnist_lab.config.compose import compose
from mnist_lab.data.mnist_files import FILES, Source
from mnist_lab.runs.run import Run

# Settings that no tutorial uses, by what they add to a recipe.
INGREDIENTS = {
    "distortions": ["augmentation=elastic", "augmentation.crop=3", "augmentation.cutout=7"],
    "own mean": ["data.mean=null", "data.std=null"],
    "averaged weights": ["callbacks=ema", "callbacks.ema.decay=0.9"],
    "label smoothing": ["label_smoothing=0.1"],
    "views": ["test_augmentation=views"],
    "warm-up": ["optimizer=adamw", "scheduler=onecycle", "scheduler.pct_start=0.15"],
}
SMALL_RESIDUAL = ["model=residual_cnn", "model.widths=[4,8,8]"]
RECIPE = [*SMALL_RESIDUAL, *(setting for settings in INGREDIENTS.values() for setting in settings)]
SAVED_OFTEN = ["data=tiny", "model=mlp", "trainer.accelerator=cpu", "trainer.log_every_n_steps=4", "figures=false"]
SAVED_OFTEN += ["callbacks.checkpoint.every_n_train_steps=5"]  # An epoch has twelve steps.
TRAIN, TEST = 230, 57  # Numbers of images. The batch sizes below divide neither.
# Variables that torchrun, a batch script of SLURM, and srun set in a process of two machines.
TORCHRUN_SETS = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "WORLD_SIZE": "6",
    "LOCAL_WORLD_SIZE": "3",
    "GROUP_WORLD_SIZE": "2",
}
BATCH_SETS = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_NODELIST": "node[1-2]"}
SRUN_SETS = BATCH_SETS | {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_NNODES": "2",
}


def idx(array: np.ndarray, code: int = 8) -> bytes:
    """Return an array as a file in the IDX format: of bytes (8), or of integers of two (11) or four bytes (12)."""
    dtype = {8: "u1", 11: ">i2", 12: ">i4"}[code]
    return np.array([256 * code + array.ndim, *array.shape], ">i4").tobytes() + array.astype(dtype).tobytes()


def tiny_arrays(train: int = TRAIN, test: int = TEST) -> list[np.ndarray]:
    """Return training images, their labels, test images, theirs: a bar whose height shows the class, in noise."""
    random = np.random.default_rng(7)
    arrays = []
    for count in (train, test):
        labels = np.arange(count) % 10
        images = random.integers(0, 120, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6] = 255
        arrays += [images.astype(np.uint8), labels.astype(np.uint8)]
    return arrays


@dataclass
class Tiny:
    """A tiny data set: the contents of its four files, its folders, and the overrides that use it."""

    folder: Path
    contents: dict[str, bytes]
    overrides: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "data"

    @property
    def raw(self) -> Path:
        return self.root / "Tiny" / "raw"

    @property
    def conf(self) -> Path:
        return self.folder / "conf"

    @property
    def sha256(self) -> dict[str, str]:
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.contents.items()}

    def source(self, **settings: object) -> Source:
        return Source(name="Tiny", sha256=self.sha256, **({"mirrors": []} | settings))  # type: ignore[arg-type]

    def write(self) -> None:
        self.raw.mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            (self.raw / name).write_bytes(content)

    def write_conf(self) -> None:
        """Write a configuration folder as a user would, with the data set as data=tiny."""
        source = {"_target_": "mnist_lab.data.Source", "name": "Tiny", "mirrors": [], "sha256": self.sha256}
        data = {"defaults": ["default", "_self_"], "val_size": 40, "batch_size": 16, "eval_batch_size": 25}
        (self.conf / "data").mkdir(parents=True)
        (self.conf / "data" / "tiny.yaml").write_text(yaml.safe_dump(data | {"source": source, "root": str(self.root)}))

    def arguments(self, *given: str) -> list[str]:
        """Return the arguments of a command line on the data set; a given setting replaces the default one."""
        keys = {argument.split("=")[0] for argument in given}
        defaults = [override for override in self.overrides if override.split("=")[0] not in keys]
        return ["--config-dir", str(self.conf), *defaults, *given]

    def compose(self, *overrides: str) -> DictConfig:
        return compose(*self.overrides, *overrides, config_dir=str(self.conf))


def tiny_data(folder: Path) -> Tiny:
    """Write a tiny data set and the folder of its configuration."""
    tiny = Tiny(folder, dict(zip(FILES, map(idx, tiny_arrays()), strict=True)))
    tiny.write()
    tiny.write_conf()
    return tiny


def marked(mark: pytest.MarkDecorator, *values: object) -> list[Any]:
    return [pytest.param(*(value if isinstance(value, tuple) else [value]), marks=mark) for value in values]


def slow(*values: object) -> list[Any]:
    """Mark values of a parametrised test as slow, where its other values are quick."""
    return marked(pytest.mark.slow, *values)


def thorough(*values: object) -> list[Any]:
    """Mark values of a parametrised test as thorough: its other values prove the same."""
    return marked(pytest.mark.thorough, *values)


@dataclass
class Mirror:
    """A web server on this machine with the files of a data set; `behave` may answer a request in its place."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)  # further ones, by name
    requests: list[str] = field(default_factory=list)
    behave: Callable[[BaseHTTPRequestHandler, int], bool] = lambda handler, number: False


@dataclass
class Outcome:
    """Exit status and output of a command line."""

    status: int
    out: str
    err: str


def run(
    tiny: Tiny,
    *arguments: str,
    then: Callable[[subprocess.Popen[str]], None] | None = None,
    program: Sequence[str] = ("-m", "mnist_lab"),
) -> tuple[int, str]:
    """Run a command line in a process and a session of its own, as a terminal does; return its status and output."""
    with started("-u", *program, *tiny.arguments(*arguments), stderr=subprocess.STDOUT) as process:
        if then is not None:
            then(process)
        out, _ = process.communicate()
    return process.returncode, out


def completed(*arguments: str, **settings: Any) -> Outcome:
    """Run a Python command line in a process of its own, such as `completed("-m", "mnist_lab", "ls")`."""
    with started(*arguments, **{"stderr": subprocess.PIPE} | settings) as process:
        out, err = process.communicate()
    return Outcome(process.returncode, out, err)


@contextmanager
def started(*arguments: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a Python command line. It is killed with its children after six minutes, or on an error in the block."""
    settings = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True} | settings
    with Forked([sys.executable, *arguments], **settings) as process:
        limit = threading.Timer(360, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        try:
            yield process
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # Popen waits for its end.
            raise
        finally:
            limit.cancel()


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Have a process of its own hold a run folder's lock for the duration of the block."""
    program = (
        "import sys; from mnist_lab.runs.locks import *\nwith run_lock(Path(sys.argv[1])): print(flush=True); input()"
    )
    # The shell is its parent: a child of this process could share its lock.
    command = shlex.join([sys.executable, "-c", program, str(folder.absolute())])
    with subprocess.Popen(
        ["sh", "-c", f"{command}; true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.communicate("\n")


Command = Callable[..., Outcome]  # The fixture `command` has this type.


def assert_refused(outcome: Outcome, start: str = "", *parts: str, status: int = 2) -> None:
    """Assert that a command ended with a status and one line on stderr, which has this start and these parts."""
    assert (outcome.status, outcome.err.count("\n")) == (status, 1), outcome
    assert outcome.err.startswith(f"mnist_lab: {start}"), outcome.err
    assert all(part in outcome.err for part in parts), outcome.err


def weights(checkpoint: Path | None) -> dict[str, torch.Tensor]:
    """Return the weights in a checkpoint."""
    assert checkpoint is not None
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two states hold the same tensors, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def change_settings(run: Run, settings: Mapping[str, object]) -> None:
    """Set values in a run's config.yaml by their keys."""
    config = OmegaConf.load(run.config_path)
    for key, value in settings.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    OmegaConf.save(config, run.config_path)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait until a condition holds, or fail with the words for what was awaited."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def write_files_of_guide(name: str) -> None:
    """Write the files of a guide, whose code blocks begin with a comment that names them, into the current folder."""
    text = (Path(__file__).parents[1] / "docs" / "guides" / name).read_text(encoding="utf-8")
    for path, content in re.findall(r"^```\w+\n# (\S+\.(?:py|yaml))\b(.*?)^```", text, re.MULTILINE | re.DOTALL):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("#" + content, encoding="utf-8")


def disk_full(*args: object, **kwargs: object) -> None:
    """Raise the error of a full disk, in the place of a function that writes."""
    raise OSError(28, "No space left on device")
