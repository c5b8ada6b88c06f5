"""`python -m mnist_lab predict RUN IMAGE...`: which digits a run's network sees in pictures of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

from mnist_lab.arguments import Arguments, run_of
from mnist_lab.errors import BadInput
from mnist_lab.tables import print_for_programs


def main(arguments: list[str]) -> None:
    parser = Arguments("predict", __doc__)
    parser.add_run()
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="pictures, folders of them, or a CSV of 784 pixels a line (Kaggle's)"
    )
    parser.add_argument("--show", type=Path, metavar="DIR", help="save what the network saw of each picture")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a CSV's answers (default: submission.csv)")
    parser.add_forms()
    options = parser.parse_args(arguments)
    run = run_of(options)
    if any(name.lower().endswith(".csv") for name in options.images):
        if len(options.images) > 1 or options.show or options.form:
            raise BadInput("a CSV of pixels goes alone: no pictures beside it, nor --show, --json or --csv")
        from mnist_lab.submission import submit

        print(submit(run, Path(options.images[0]), options.out or Path("submission.csv")))
        return
    if options.out:
        raise BadInput(f"--out={options.out}: is for a CSV's answers; of pictures, --csv prints them")
    from mnist_lab.predict import pictures_of, predict, row, show_table

    paths, count = pictures_of(options.images), 0
    if options.show:
        from mnist_lab.seen import preview_paths, save_seen

        previews = preview_paths(paths, options.show)

    def skipped(path: Path, error: Exception) -> None:
        nonlocal count
        count += 1
        print(f"mnist_lab: {path}: {error}; skipped", file=sys.stderr)

    answers = predict(run, paths, skipped)
    if options.show:
        save_seen(answers, previews, options.show)
    if options.form:
        print_for_programs([row(answer) for answer in answers], options.form)
    else:
        show_table(answers)
        if options.show and answers:
            print(f"what the network saw: {options.show}")
    if count:
        raise SystemExit(1)
