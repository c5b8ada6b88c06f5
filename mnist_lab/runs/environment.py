"""Describe what a run's results depend on besides its settings and its code: versions, processor."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import datetime
from pathlib import Path

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


def processor_name() -> str:
    """Return the number of logical processors and the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or without a name
        name = platform.processor() or platform.machine()
    return f"{os.cpu_count()} × {name}"
