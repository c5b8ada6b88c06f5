"""Write figures as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write, require_writable_file, user_output
from mnist_lab.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
DPI = 150


def require_figure_path(path: Path) -> None:
    """Raise UsageError unless a figure can be written to this path."""
    if path.suffix not in FORMATS:
        raise UsageError(f"--out={path}: must end in one of {', '.join(FORMATS)}")
    require_writable_file(path, f"--out={path}")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to the path given with --out, in the format that its name ends in."""
    with user_output(path, f"--out={path}") as partial:
        _save(figure, partial, path.suffix)


def save_figures(run: Run, drawn: Mapping[str, Figure | None]) -> list[Path]:
    """Write figures as figures/NAME.png in a run's folder, and return the paths; None removes an earlier start's."""
    paths = {name: run.figures_folder / f"{name}.png" for name in drawn}
    for name, figure in drawn.items():
        if figure is None:
            paths.pop(name).unlink(missing_ok=True)
        else:
            paths[name].parent.mkdir(exist_ok=True)
            write_figure(figure, paths[name])
    return list(paths.values())


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file's name ends in, such as .png."""
    with atomic_write(path, durable=False) as partial:
        _save(figure, partial, path.suffix)


def _save(figure: Figure, path: Path, suffix: str) -> None:
    """Write a figure to a path in the format that a suffix names."""
    from matplotlib import rc_context  # not for the commands that draw nothing

    # Pillow's own level makes the files a sixth smaller, and takes half as long again.
    options: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if suffix == ".png" else {}
    with rc_context({"text.hinting": "none"}):  # at this DPI hinting costs time, and spoils the spacing
        figure.savefig(path, format=suffix[1:], dpi=DPI, **options)
