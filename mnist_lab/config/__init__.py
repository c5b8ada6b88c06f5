"""Compose configurations, validate them, and compare them."""

from pathlib import Path


def conf_dir() -> Path:
    """Return the folder of configurations, which is in the package of a wheel, and beside the package in a checkout."""
    package = Path(__file__).absolute().parent.parent
    return next(conf for conf in (package / "conf", package.parent / "conf") if (conf / "train.yaml").is_file())
