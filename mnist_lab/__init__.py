"""mnist_lab: five published MNIST tutorials' networks on one footing, on PyTorch Lightning and Hydra."""

import re
from pathlib import Path

__version__ = "0.1.0"


def conf_dir() -> Path:
    """The folder of configurations: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).absolute().parent
    return next(conf for conf in (package / "conf", package.parent / "conf") if (conf / "train.yaml").is_file())


def config_dirs(arguments: list[str]) -> list[Path]:
    """The user's own folder of configurations that --config-dir names; none if it names none."""
    named = re.search(r"(?:^|\0)(?:--config-dir|-cd)[=\0]([^\0]+)", "\0".join(arguments))
    return [Path(named[1])] if named else []
