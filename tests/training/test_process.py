"""`train` called from Python leaves the process as it found it; only the command line sets anything for good."""

import ctypes
import errno
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lab import Tiny, thorough
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lab.cli.train import leave_disk_errors_to_main_thread
from mnist_lab.training.train import train


def process_settings() -> dict[str, Any]:
    """What a library could set of the process that uses it."""
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_float32_matmul_precision()),
        "deterministic": (torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark),
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
    """Changes what a process has one of."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        os.environ["CHANGED"] = "by a callback"


@pytest.mark.parametrize("ending", ["finished", "failed"])
def test_training_from_python_leaves_the_process_as_it_was(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    changes = ("threads=2", "trainer.deterministic=true", "+callbacks.settings._target_=test_process.Settings")
    cfg = tiny.compose("model=mlp", "trainer.max_epochs=1", "figures=true", *changes)
    if ending == "failed":
        cfg.trainer.limit_val_batches = 0.001  # refused when everything is made
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


@pytest.mark.slow
def test_garbage_collector_runs_again_after_the_imports_and_passes_over_them() -> None:
    program = "import gc, sys; from mnist_lab.sweeps.process import *; assert 'torch' not in sys.modules; "
    program += (
        "import_torch(); assert gc.get_freeze_count() == 0; own_process(); "  # a process of somebody else's, ours
    )
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
        ("1 / 0", 1, True),
        ("sys.exit(143)", 143, False),
        *thorough(("pass", 0, True), ("sys.exit('why')", 1, True), ("pass", 0, False), ("1 / 0", 1, False)),
    ],
)
def test_process_of_a_distributed_run_exits_before_python_is_taken_apart(
    end: str, status: int, distributed: bool
) -> None:
    program = EXCHANGES.format(distributed=distributed, end=end)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines() == ["exit function"] + ["taken apart"] * (not distributed)
    assert ("ZeroDivisionError" in done.stderr, "why" in done.stderr) == (end == "1 / 0", "why" in end)


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
