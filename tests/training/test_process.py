"""The process of a run: `train` leaves it as it was; launchers of several processes, and the death of one of them."""

import ctypes
import errno
import gc
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lab import BATCH_SETS, SRUN_SETS, TORCHRUN_SETS, Command, Tiny, thorough
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from test_digits import drawn

from mnist_lab import UsageError, evaluate, sweep
from mnist_lab.cli.train import leave_disk_errors_to_main_thread
from mnist_lab.data.datamodule import MNISTDataModule
from mnist_lab.evaluation.ensemble import make_ensemble
from mnist_lab.inference.recognise import predict
from mnist_lab.runs.run import Run
from mnist_lab.training.runtime import cluster_environment, guest, is_process_lost, launch_command
from mnist_lab.training.train import train

GLOO = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")
BACKEND, NETWORK = torch.distributed.DistBackendError, torch.distributed.DistNetworkError


def process_settings() -> dict[str, Any]:
    """Return all that a library could set in the process that uses it."""
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_float32_matmul_precision()),
        "deterministic": (torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark),
        "generators": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "seed": torch.initial_seed(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions),
        "logging": [
            (logger.handlers[:], logger.level, logger.propagate)
            for logger in map(logging.getLogger, (None, "lightning", "lightning.pytorch", "mnist_lab"))
        ],
        "streams": (sys.stdout, sys.stderr),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "path": sys.path[:],
        "arguments": sys.argv[:],
        "collector": (gc.isenabled(), gc.get_threshold()),
    }


class Settings(Callback):
    """Changes settings of the whole process."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_float32_matmul_precision("medium")
        np.random.seed(random.randrange(100))
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        os.environ["CHANGED"] = "by a callback"


@pytest.mark.parametrize("ending", ["finished", "failed"])
def test_training_leaves_the_process_as_it_was(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    changes = ("threads=2", "trainer.deterministic=true", "+callbacks.settings._target_=test_process.Settings")
    cfg = tiny.compose("model=mlp", "trainer.max_epochs=1", "figures=true", *changes)
    if ending == "failed":
        cfg.trainer.limit_val_batches = 0.001  # This is refused when everything else is ready.
    load = ctypes.CDLL

    def library(name: str | None, *arguments: Any, **options: Any) -> Any:
        assert name is not None, "mallopt would change this process for good"
        return load(name, *arguments, **options)

    monkeypatch.setattr(ctypes, "CDLL", library)
    before = process_settings()
    if ending == "failed":
        with pytest.raises(ValueError, match="limit_val_batches"):
            train(cfg)
    else:
        assert train(cfg).info["status"] == "finished"
    assert process_settings() == before


class Interrupt(Callback):
    """Sends Ctrl-C to its own process, in training or in a test."""

    def on_train_batch_end(self, *args: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    on_test_batch_end = on_train_batch_end


def interrupt(tiny: Tiny, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call a public function, and interrupt it."""
    callback = ("model=mlp", "+callbacks.stop._target_=test_process.Interrupt")
    if what == "train":
        train(tiny.compose(*callback, "hydra.run.dir=runs/a"))
    elif what == "sweep":
        sweep(*tiny.overrides, *callback, "seed=1,2", "sweep=s", config_dir=tiny.conf)
    else:
        run = train(tiny.compose("model=mlp", "trainer.max_epochs=1", "hydra.run.dir=runs/a"))
        monkeypatch.setattr(MNISTDataModule, "test_dataloader", Interrupt().on_train_batch_end)
        evaluate(run)


@pytest.mark.parametrize("what", ["train", "sweep", "evaluate"])
def test_ctrl_c_reaches_a_notebook_as_itself_and_leaves_the_process_as_it_was(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    np.random.seed(3)
    before = process_settings()
    with pytest.raises(KeyboardInterrupt):
        interrupt(tiny, what, monkeypatch)
    assert process_settings() == before
    states = [run.info["status"] for run in Run.below("runs")]
    assert states == ["finished" if what == "evaluate" else "interrupted"]


@pytest.mark.slow
def test_public_functions_leave_the_callers_generators_as_they_were(tiny: Tiny) -> None:
    drawn().save("one.png")
    runs = [train(tiny.compose("model=mlp", "trainer.max_epochs=1", f"seed={seed}")) for seed in (1, 2)]
    random.seed(9)
    torch.manual_seed(10)
    before = process_settings()
    evaluate(runs[0])
    predict(runs[0], ["one.png"])
    make_ensemble(runs)
    sweep(*tiny.overrides, "model=mlp", "trainer.max_epochs=1", "seed=1,2", config_dir=tiny.conf)
    with pytest.raises(UsageError):
        evaluate(Run(Path("nowhere")))
    assert process_settings() == before


@pytest.mark.parametrize("was_used", [True, False])
def test_generators_of_gpus_are_restored_or_seeded_as_the_callers(
    was_used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: was_used)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: f"of {device}")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: calls.append(state))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", calls.append)
    torch.manual_seed(4)

    @guest()
    def draw() -> None:
        torch.manual_seed(5)
        calls.clear()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw()
    assert calls == (["of 0", "of 1"] if was_used else [4])


@pytest.mark.slow
def test_garbage_collector_runs_again_after_the_imports_and_passes_over_them() -> None:
    program = "import gc, sys; from mnist_lab.sweeps.process import *; assert 'torch' not in sys.modules; "
    program += "import_torch(); assert 'torch' in sys.modules; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


EXCHANGES = """
import atexit, os, sys
import torch.distributed
from mnist_lab import __main__ as program

class Held:
    def __del__(self, write=os.write):
        write(1, b"taken apart\\n")

def main():
    if {distributed}:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    atexit.register(print, "exit function", flush=True)
    sys.held = Held()
    {end}

program.main = main
program.program()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "status", "distributed"),
    [
        ("sys.exit(143)", 143, True),
        *thorough(("1 / 0", 1, True), ("pass", 0, True), ("sys.exit('why')", 1, True)),
        *thorough(("sys.exit(143)", 143, False), ("pass", 0, False), ("1 / 0", 1, False)),
    ],
)
def test_process_of_a_distributed_run_exits_before_python_finalises(end: str, status: int, distributed: bool) -> None:
    program = EXCHANGES.format(distributed=distributed, end=end)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines() == ["exit function"] + ["taken apart"] * (not distributed)
    assert ("ZeroDivisionError" in done.stderr, "why" in done.stderr) == (end == "1 / 0", "why" in end)


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named srun on the path, as on the login node of a cluster."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "srun").write_text("#!/bin/sh\nexit 1\n")
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("srun")
def test_srun_on_the_path_causes_no_warning_in_training_and_testing(command: Command) -> None:
    """pytest turns warnings into errors."""
    for arguments in (["model=mlp", "trainer.max_epochs=1"], ["test", "latest"]):
        outcome = command(*arguments, data=arguments[0] != "test")
        assert (outcome.status, outcome.err) == (0, "")
        assert "srun" not in outcome.out


@pytest.mark.slow
def test_epochs_without_validation_cause_no_warning(command: Command) -> None:
    outcome = command("model=mlp", "+trainer.check_val_every_n_epoch=2", "hydra.run.dir=runs/a/b")
    assert (outcome.status, outcome.err) == (0, "")


@pytest.fixture
def launched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of a launcher; those that `cluster_environment` sets are reset afterwards, too."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("launched", "kind"),
    [({}, LightningEnvironment), (BATCH_SETS, LightningEnvironment), (TORCHRUN_SETS, TorchElasticEnvironment)],
    indirect=["launched"],
)
def test_lightning_starts_the_processes_unless_torchrun_does(launched: None, kind: type) -> None:
    assert type(cluster_environment()) is kind


@pytest.mark.parametrize("launched", [SRUN_SETS], indirect=True)
def test_srun_starts_the_processes_and_requeues_none(launched: None) -> None:
    environment = cluster_environment()
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    assert (environment.main_address, environment.world_size()) == ("node1", 2)
    assert str(environment.main_port) == os.environ["MASTER_PORT"]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (GLOO, True),
        (NETWORK("recv, got 0 bytes"), True),
        (BACKEND("NCCL error: ncclRemoteError: A call failed possibly due to a network error"), True),
        (BACKEND("NCCL error: ncclInvalidUsage"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo/transport/"), False),
    ],
)
def test_only_a_lost_connection_stands_for_the_death_of_a_process(error: Exception, lost: bool) -> None:
    assert is_process_lost(error) == lost


@pytest.mark.parametrize(
    ("launched", "lost"), [(TORCHRUN_SETS, True), (SRUN_SETS, True), ({}, False)], indirect=["launched"]
)
def test_sigterm_after_a_lost_connection_is_the_launchers(launched: None, lost: bool) -> None:
    followed, alone = SIGTERMException(), SIGTERMException()
    followed.__context__ = GLOO
    assert is_process_lost(followed) == lost
    assert not is_process_lost(alone)


@pytest.mark.parametrize(
    ("launched", "command"),
    [
        ({}, "python -m mnist_lab resume=x"),
        (TORCHRUN_SETS, "torchrun ... -m mnist_lab resume=x"),
        (SRUN_SETS, "srun ... python -m mnist_lab resume=x"),
    ],
    indirect=["launched"],
)
def test_command_is_that_of_the_same_launcher(launched: None, command: str) -> None:
    assert launch_command(["resume=x"]) == command


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError(errno.ENOSPC, "full"), False),
        (FileNotFoundError(errno.ENOENT, "gone", "no folder/events"), False),
        (FileNotFoundError(errno.ENOENT, "missing", "events"), True),
        (OSError(errno.EIO, "broken"), True),
        (ValueError("wrong"), True),
    ],
    ids=str,
)
def test_thread_shows_the_traceback_of_all_but_a_full_disk_and_a_removed_folder(
    error: Exception, shown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(logging, "raiseExceptions", logging.raiseExceptions)
    leave_disk_errors_to_main_thread()

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert ("Traceback" in capsys.readouterr().err) == shown
