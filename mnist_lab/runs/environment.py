"""Describe what a run's results depend on besides its settings: versions, commit, processor."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path

from mnist_lab.runs.record import GitState

PACKAGES = (
    "mnist-lab",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "tensorboard",
    "numpy",
)


def current_time() -> str:
    """Return the local time in ISO 8601, with microseconds and offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="microseconds")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> GitState | None:
    """Return the commit of the checkout with this code, or else with the current folder; None outside a checkout."""
    here = Path(__file__).parent
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name, folder=here) is not None
    folder = here if tracked else Path.cwd()
    commit = _git("rev-parse", "HEAD", folder=folder)
    return {"commit": commit, "changed": bool(_git("status", "--porcelain", folder=folder))} if commit else None


def _git(*arguments: str, folder: Path) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor_name() -> str:
    """Return the number of logical processors and the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or without a name
        name = platform.processor() or platform.machine()
    return f"{os.cpu_count()} × {name}"
