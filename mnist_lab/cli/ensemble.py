"""`python -m mnist_lab ensemble RUN RUN...`: combine networks into one that averages their probabilities."""

import sys
from pathlib import Path
from typing import Any

from mnist_lab.cli.parser import CommandParser, find_named_runs
from mnist_lab.config.metric_names import TEST_ACC, TEST_LOSS
from mnist_lab.console import working_on
from mnist_lab.formatting import print_lines
from mnist_lab.runs.listing import format_cell
from mnist_lab.sweeps.process import import_torch
from mnist_lab.tables import print_rows, print_table

COLUMNS = ("model", "seed", TEST_LOSS, TEST_ACC, "errors", "run")


def main(arguments: list[str]) -> None:
    parser = CommandParser("ensemble")
    parser.add_runs()
    parser.add_argument("--top", type=int, metavar="K", help="only the K best of the runs by validation accuracy")
    parser.add_argument("--to", type=Path, metavar="DIR", help="the new run folder (default: one below --runs-dir)")
    parser.add_forms()
    options = parser.parse_runs(arguments)
    runs = find_named_runs(options, options.runs, at_least=2)
    import_torch(task := f"testing {len(runs)} networks, alone and together")
    from mnist_lab.evaluation.ensemble import make_ensemble

    with working_on(task):
        run, images = make_ensemble(runs, options.to, options.runs_dir, top=options.top)
    info = run.info
    combined = {"run": str(run), "model": info["model"], "seed": None, "metrics": info["metrics"]}
    networks: list[dict[str, Any]] = [*map(dict, info["members"] or []), combined]
    rows = []
    for network in networks:
        metrics = network.pop("metrics")
        rows.append({**network, **metrics, "errors": round((1 - metrics[TEST_ACC]) * images)})
    if options.form:
        print_rows(rows, options.form)
    else:
        lines = [[format_cell(name, row[name]) for name in COLUMNS] for row in rows]
        print_table(COLUMNS, lines, left=("model", "run"), cut="run")
    *members, ensemble = rows
    best = max(members, key=lambda row: row[TEST_ACC], default=ensemble)
    file = sys.stderr if options.form else sys.stdout
    if best[TEST_ACC] > ensemble[TEST_ACC]:
        print_lines(f"worse than {best['run']} alone ({best[TEST_ACC]:.2%})", file=file)
        print_lines("--top K takes the K best by validation accuracy", file=file)
    print_lines(f"run folder: {run}", file=file)
