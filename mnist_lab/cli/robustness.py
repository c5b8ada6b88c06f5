"""`python -m mnist_lab robustness RUN [RUN...]`: accuracy on test images that are shifted, turned, noisy and so on."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_cell
from mnist_lab.runs.listing import differing_settings_of_runs, find_runs
from mnist_lab.runs.run import Run
from mnist_lab.viz.save import require_figure_path, save_figure

if TYPE_CHECKING:
    from mnist_lab.evaluation.robustness import Measured

NAMES = ("shift", "rotation", "scale", "noise", "blur", "inversion", "occlusion")  # of the corruptions


def main(arguments: list[str]) -> None:
    parser = CommandParser("robustness", __doc__)
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
            raise UsageError(f"--only={name}: no such corruption; there are {', '.join(NAMES)}")
    if options.out:
        require_figure_path(options.out)
    runs = find_runs(options.runs, options.runs_dir, at_least=1)
    from mnist_lab.evaluation.robustness import example
    from mnist_lab.training.runtime import quiet_lightning
    from mnist_lab.viz.robustness import plot_robustness

    runs = with_weights(runs)
    with quiet_lightning():
        measured = measure_all(runs, names)
    groups = {name: [measured[run] for run in own] for name, own in grouped(runs).items()}
    if options.form:
        print_rows([row for run in runs for row in rows_of(run, measured[run])], options.form)
    elif len(runs) == 1:
        show_one(next(iter(groups)), measured[runs[0]])
    else:
        show_several(groups)
    if options.out:
        save_figure(plot_robustness(groups, example(runs[0])), options.out)
        print(f"figure: {options.out}", file=sys.stderr if options.form else sys.stdout)


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by their networks and whatever else tells them apart; those of several seeds are together."""
    groups: dict[str, list[Run]] = {}
    for model in dict.fromkeys(run.info["model"] for run in runs):
        own = [run for run in runs if run.info["model"] == model]
        settings = {key: values for key, values in differing_settings_of_runs(own).items() if key != "seed"}
        for i, run in enumerate(own):
            words = [
                f"{key}={format_cell(key, values[i])}" for key, values in settings.items() if values[i] is not None
            ]
            groups.setdefault(", ".join([model, *words]), []).append(run)
    return groups


def with_weights(named: Sequence[Run]) -> list[Run]:
    """The runs that have a checkpoint; the others are warned of, and if there are no more, UsageError."""
    runs = [run for run in named if run.checkpoint("best") or run.checkpoint("last")]
    if not runs:
        named[0].chosen_checkpoint()  # which raises, and says why
    for run in named:
        if run not in runs:
            print(f"mnist_lab: warning: {run}: has no checkpoint; left out", file=sys.stderr)
    return runs


def measure_all(runs: Sequence[Run], names: Sequence[str]) -> dict[Run, Measured]:
    """What measure gives of each run, with a bar on a terminal."""
    from mnist_lab.evaluation.robustness import measure  # torch

    console, measured = Console(stderr=True), {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(runs) * (1 + 5 * len(names)))
        for run in runs:
            progress.update(bar, description=run.info["model"])
            measured[run] = measure(run, names, lambda: progress.advance(bar))
    return measured


def rows_of(run: Run, measured: Measured) -> list[dict[str, Any]]:
    """What was measured of a run, a row for each accuracy; strength 0 is the test set as it is."""
    info = run.info
    begin = {"run": str(run), "model": info["model"], "seed": info.get("seed")}
    plain = {"corruption": None, "strength": 0, "amount": 0, "unit": None, "test/acc": measured["accuracy"]}
    rows = [begin | plain]
    for name, each in measured["corruptions"].items():
        pairs = zip(each["amounts"], each["accuracies"], strict=True)
        for strength, (amount, value) in enumerate(pairs, start=1):
            own = {"corruption": name, "strength": strength, "amount": amount, "unit": each["unit"], "test/acc": value}
            rows.append(begin | own)
    return rows


def means_of(measured: Sequence[Measured]) -> dict[str, float]:
    """Mean accuracies over runs: plain, by corruption over its five strengths, and over all corruptions."""
    means = {"plain": statistics.fmean(each["accuracy"] for each in measured)}
    names = list(measured[0]["corruptions"])
    for name in names:
        means[name] = statistics.fmean(value for each in measured for value in each["corruptions"][name]["accuracies"])
    return means | {"mean": statistics.fmean(means[name] for name in names)}


def show_one(name: str, measured: Measured) -> None:
    """Print a line for each corruption, with a column for each strength."""
    print(f"{name}: {measured['accuracy']:.2%} of {measured['images']:,} test images as they are\n")
    lines = []
    for corruption, each in measured["corruptions"].items():
        amounts = f"{', '.join(f'{amount:g}' for amount in each['amounts'])} {each['unit']}"
        shares = [*each["accuracies"], statistics.fmean(each["accuracies"])]
        lines.append([corruption, amounts, *(f"{share:.2%}" for share in shares)])
    print_table(["corruption", "strengths 1 to 5", *"12345", "mean"], lines, left=("corruption", "strengths 1 to 5"))


def show_several(measured: Mapping[str, Sequence[Measured]]) -> None:
    """Print a line for each group of runs, the one that holds up best first; means over strengths and runs."""
    means = {name: means_of(each) for name, each in measured.items()}
    best_first = sorted(means, key=lambda name: -means[name]["mean"])
    heads = ["runs", *next(iter(means.values()))]
    lines = [
        [name, str(len(measured[name])), *(f"{share:.2%}" for share in means[name].values())] for name in best_first
    ]
    print_table(["network", *heads], lines, left=("network",), cut="network")
