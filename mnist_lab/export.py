"""`python -m mnist_lab export RUN --format FORMAT`: a run's network in a file for use elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mnist_lab.arguments import Arguments, run_of
from mnist_lab.build import trained_model
from mnist_lab.errors import BadInput
from mnist_lab.files import replacing
from mnist_lab.runs import Run


def state_dict(run: Run, path: Path) -> str:
    """Write the weights alone, under the tutorial's names; say how to load them."""
    weights = trained_model(run).state_dict()
    with replacing(path) as partial, partial.open("wb") as file:
        torch.save({name: tensor.contiguous() for name, tensor in weights.items()}, file)
    return f'network.load_state_dict(torch.load("{path.name}", weights_only=True))'


FORMATS: dict[str, tuple[str, Callable[[Run, Path], str]]] = {"state_dict": (".pt", state_dict)}  # with their suffixes


def export(run: Run, form: str, path: Path | None = None) -> tuple[Path, str]:
    """Write a run's tested weights in a form; where they are, and how to load them.

    Args:
        run: the run.
        form: a name in FORMATS.
        path: where to; None for exports/<model> in the run folder.

    Raises:
        BadInput: the run has no checkpoint, or the file cannot be written.
    """
    suffix, write = FORMATS[form]
    path = path or run.folder / "exports" / f"{run.info['model']}{suffix}"
    if path.exists() and not path.is_file():
        raise BadInput(f"--to={path}: there already, and not a file; choose another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path, write(run, path)
    except OSError as error:
        raise BadInput(
            f"--to={path}: cannot be written ({error.filename}: {error.strerror}); choose another"
        ) from error


def main(arguments: list[str]) -> None:
    parser = Arguments("export", __doc__)
    parser.add_run()
    parser.add_argument("--format", choices=FORMATS, required=True, help="state_dict: a plain torch state_dict")
    parser.add_argument("--to", type=Path, metavar="FILE", help="default: exports/MODEL in the run folder")
    options = parser.parse_args(arguments)
    path, how = export(run_of(options), options.format, options.to)
    print(f"{how}\nwritten: {path}")
