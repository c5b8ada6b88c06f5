"""`python -m mnist_lab predict RUN IMAGE...`: which digits a run's network sees in pictures of one's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lab.cli.parser import CommandParser, find_run
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.errors import UsageError
from mnist_lab.inference.images import suffixes

if TYPE_CHECKING:
    from mnist_lab.inference.recognise import Answer


def main(arguments: list[str]) -> None:
    parser = CommandParser("predict", __doc__)
    parser.add_run()
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="pictures, folders of them, or a CSV of 784 pixels a line (Kaggle's)"
    )
    parser.add_argument("--show", type=Path, metavar="DIR", help="save what the network saw of each picture")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a CSV's answers (default: submission.csv)")
    parser.add_forms()
    options = parser.parse_args(arguments)
    run = find_run(options)
    if any(name.lower().endswith(".csv") for name in options.images):
        if len(options.images) > 1 or options.show or options.form:
            raise UsageError("a CSV of pixels goes alone: no pictures beside it, nor --show, --json or --csv")
        from mnist_lab.inference.pixel_csv import submit

        print(submit(run, Path(options.images[0]), options.out or Path("submission.csv")))
        return
    if options.out:
        raise UsageError(f"--out={options.out}: is for a CSV's answers; of pictures, --csv prints them")
    from mnist_lab.inference.recognise import predict

    paths, count = pictures_of(options.images), 0
    if options.show:
        from mnist_lab.inference.preview import preview_paths, save_previews

        previews = preview_paths(paths, options.show)

    def skipped(path: Path, error: Exception) -> None:
        nonlocal count
        count += 1
        print(f"mnist_lab: {path}: {error}; skipped", file=sys.stderr)

    answers = predict(run, paths, skipped)
    if options.show:
        save_previews(answers, previews, options.show)
    if options.form:
        print_rows([row(answer) for answer in answers], options.form)
    else:
        show_table(answers)
        if options.show and answers:
            print(f"what the network saw: {options.show}")
    if count:
        raise SystemExit(1)


def pictures_of(names: Sequence[str]) -> list[Path]:
    """The files that are named, and of a folder its pictures, 2 before 10; no hidden ones. Each one once.

    Raises:
        UsageError: a folder holds none.
    """
    paths: dict[Path, None] = {}
    for path in map(Path, names):
        inside = [path]
        if path.is_dir():
            inside = [each for each in path.iterdir() if each.suffix.lower() in suffixes() and each.name[0] != "."]
            if not inside:
                raise UsageError(f"{path}: has no pictures in it, by their names ({' '.join(sorted(suffixes()))})")
        paths |= dict.fromkeys(sorted(inside, key=_natural))
    return list(paths)


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    parts = filter(None, re.split(r"([0-9]+)", path.name))
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]


def row(answer: Answer) -> dict[str, Any]:
    """An answer for programs."""
    digit, probability = answer.ranked[0]
    ten = {f"p{each}": value for each, value in enumerate(answer.probabilities.tolist())}
    return {"file": str(answer.path), "digit": digit, "probability": probability, "note": answer.note, **ten}


def show_table(answers: Sequence[Answer]) -> None:
    """Print the answers, a line each; with a column of notes if there is one."""
    lines, heads = [], ["file", "digit", "probability", "runner-up", "note"]
    for answer in answers:
        (digit, probability), (second, its) = answer.ranked[:2]
        lines.append([str(answer.path), str(digit), f"{probability:.2%}", f"{second} ({its:.2%})", answer.note])
    if not any(answer.note for answer in answers):
        heads, lines = heads[:-1], [line[:-1] for line in lines]
    if lines:
        print_table(heads, lines, left=("file", "note"), cut="file")
