"""`python -m mnist_lab robustness RUN [RUN...]`: accuracy on test images that are shifted, turned, noisy and so on."""

from __future__ import annotations

import sys
from pathlib import Path

from mnist_lab.arguments import Arguments
from mnist_lab.compare import refuse_no_figure, runs_of, save_figure
from mnist_lab.errors import BadInput
from mnist_lab.tables import print_for_programs

NAMES = ("shift", "rotation", "scale", "noise", "blur", "inversion", "occlusion")  # of the corruptions


def main(arguments: list[str]) -> None:
    parser = Arguments("robustness", __doc__)
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a run folder, part of its name, latest, or a folder of runs",
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where a name is looked for (%(default)s)")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="draw the accuracies into this file")
    parser.add_forms()
    options = parser.parse_args(arguments)
    names = list(NAMES) if options.only is None else list(dict.fromkeys(options.only.split(",")))
    for name in names:
        if name not in NAMES:
            raise BadInput(f"--only={name}: no such corruption; there are {', '.join(NAMES)}")
    if options.out:
        refuse_no_figure(options.out)
    runs = runs_of(options.runs, options.runs_dir, at_least=1)
    from mnist_lab import robustness
    from mnist_lab.build import quiet_lightning
    from mnist_lab.robustness_report import robustness_figure, rows_of, show_one, show_several

    runs = robustness.with_weights(runs)
    with quiet_lightning():
        measured = robustness.measure_all(runs, names)
    groups = {name: [measured[run] for run in own] for name, own in robustness.grouped(runs).items()}
    if options.form:
        print_for_programs([row for run in runs for row in rows_of(run, measured[run])], options.form)
    elif len(runs) == 1:
        show_one(next(iter(groups)), measured[runs[0]])
    else:
        show_several(groups)
    if options.out:
        save_figure(robustness_figure(groups, robustness.example(runs[0])), options.out)
        print(f"figure: {options.out}", file=sys.stderr if options.form else sys.stdout)
