"""`python -m mnist_lab predict RUN IMAGE...`: recognise numbers, or a run's other classes, in your own images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lab.cli.parser import CommandParser, describe_runs, select_runs_and_words
from mnist_lab.console import working_on
from mnist_lab.errors import UsageError
from mnist_lab.files import ARRAY_FILES
from mnist_lab.formatting import format_count, natural_key, print_lines
from mnist_lab.runs.run import Run
from mnist_lab.sweeps.process import import_torch
from mnist_lab.tables import print_rows, print_table

if TYPE_CHECKING:
    from mnist_lab.inference.recognise import Answer


def main(arguments: list[str]) -> None:
    parser = CommandParser("predict")
    parser.add_runs(
        "IMAGE ...", "images, folders of images, or a file of them: .csv (Kaggle's), .npz, .npy, .mat", checkpoints=True
    )
    parser.add_argument("--single", action="store_true", help="read only the clearest digit of each image")
    parser.add_argument("--show", type=Path, metavar="DIR", help="save each image with the network's input beside it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of CSV predictions (default: submission.csv)")
    parser.add_forms()
    options = parser.parse_runs(arguments)
    runs, images = select_runs_and_words(options)
    if not images:
        raise UsageError("name an image, a folder of images, or a file of arrays or pixels, such as .npz or .csv")
    if len(runs) > 1 and (options.show or options.out):
        raise UsageError(f"--show and --out: only valid for one run; {len(runs)} are named")
    if any(name.lower().endswith((*ARRAY_FILES, "ubyte", "ubyte.gz", ".txt", ".xlsx")) for name in images):
        predict_arrays(runs, images, options)
    elif options.out:
        raise UsageError(f"--out={options.out}: only valid with a file of arrays or a CSV; for images, use --csv")
    else:
        predict_images(runs, images, options)


def predict_arrays(runs: Sequence[Run], names: Sequence[str], options: argparse.Namespace) -> None:
    """Write the predictions for a file of arrays or a CSV of pixels."""
    if len(runs) > 1 or len(names) > 1 or options.show or options.form:
        raise UsageError("arrays and a CSV cannot be combined with images, further runs, --show, --json or --csv")
    import_torch(task := f"predicting {names[0]} with {runs[0]}")
    from mnist_lab.inference.recognise import write_submission

    out = options.out or Path("submission.csv")
    with working_on(task):
        count, accuracy = write_submission(runs[0], Path(names[0]), out)
    if accuracy is not None:
        print_lines(f"accuracy by the labels: {accuracy:.2%}")
    print_lines(f"written: {out} ({format_count(count, 'image')})")


def predict_images(runs: Sequence[Run], names: Sequence[str], options: argparse.Namespace) -> None:
    """Print what each run reads in the images; name images that cannot be read, and exit with status 1 if there are."""
    import_torch(task := f"predicting {', '.join(names[:3])}{' ...' * (len(names) > 3)} with {describe_runs(runs)}")
    from mnist_lab.inference.preview import preview_paths, save_previews
    from mnist_lab.inference.recognise import predict

    paths = list_images(names)
    previews = preview_paths(paths, options.show) if options.show else {}
    skipped: set[Path] = set()

    def skip_image(path: Path, error: Exception) -> None:
        if path not in skipped:  # An earlier run may have named it.
            print_lines(f"mnist_lab: {path}: {error}; skipped", file=sys.stderr)
        skipped.add(path)

    with working_on(task):
        answers = {run: predict(run, paths, skip_image, single=options.single) for run in runs}
    if options.show:
        save_previews(answers[runs[0]], previews, options.show)
    if options.form:
        columns = {run: {"run": str(run)} if len(runs) > 1 else {} for run in runs}
        rows = [columns[run] | row for run in runs for answer in answers[run] for row in answer_rows(answer)]
        print_rows(rows, options.form)
    else:
        for run in runs:
            if len(runs) > 1:
                print_lines(run)
            print_answers(answers[run])
        if options.show and answers[runs[0]]:
            print_lines(f"previews: {options.show}")
    if skipped:
        raise SystemExit(1)


def list_images(names: Sequence[str]) -> list[Path]:
    """Return the named files and the images of named folders, without hidden files and duplicates, 2 before 10."""
    from mnist_lab.data.images import image_suffixes

    paths: dict[Path, None] = {}
    for path in map(Path, names):
        images = [path]
        if path.is_dir():
            suffixes = image_suffixes()
            images = [file for file in path.iterdir() if file.suffix.lower() in suffixes and file.name[0] != "."]
            if not images and len(names) == 1:
                raise UsageError(
                    f"{path}: contains no image files ({' '.join(sorted(suffixes))}); of arrays, name one file"
                )
        paths |= dict.fromkeys(sorted(images or [path], key=lambda image: natural_key(image.name)))
    return list(paths)


def answer_rows(answer: Answer) -> Iterator[dict[str, Any]]:
    """Yield a row for programs for each digit, with its place and box unless only one digit is read."""
    classifier = answer.classifier
    prefix = "p" if classifier.is_for_digits else "p_"
    has_places = classifier.is_for_digits and not answer.single
    for place, (found, probabilities) in enumerate(zip(answer.found, answer.probabilities, strict=True), start=1):
        best = classifier.classes[probabilities.argmax()]
        yield {
            "file": str(answer.path),
            **({"number": answer.text, "place": place} if has_places else {}),
            classifier.noun: int(best) if classifier.is_for_digits else best,
            "probability": float(probabilities.max()),
            "note": answer.note,
            **{f"{prefix}{name}": p for name, p in zip(classifier.classes, probabilities.tolist(), strict=True)},
            **(dict(zip(("left", "top", "right", "bottom"), found.box, strict=True)) if has_places else {}),
        }


def print_answers(answers: Sequence[Answer]) -> None:
    """Print a line for each answer, with a column of notes if there are any."""
    if not answers:
        return
    noun = "number" if any(len(answer.found) > 1 for answer in answers) else answers[0].classifier.noun
    heads = ["file", noun, "probability", "runner-up"]
    if any(answer.note for answer in answers):
        heads.append("note")
    lines = []
    for answer in answers:
        second, probability = answer.runner_up
        values = [f"{answer.probability:.2%}", f"{second} ({probability:.2%})"]
        lines.append([str(answer.path), answer.text, *values, answer.note][: len(heads)])
    print_table(heads, lines, left=("file", "note"), cut="file")
