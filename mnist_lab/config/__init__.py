"""Compose configurations, validate them, and compare them."""

from pathlib import Path


def conf_dir() -> Path:
    """Return the folder of configurations: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).absolute().parent.parent
    return next(conf for conf in (package / "conf", package.parent / "conf") if (conf / "train.yaml").is_file())
