"""`test`, `report`, `export`, `ensemble` and `draw`: what is done with the networks of runs."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_lab.cli.parser import CommandParser, find_named_folders, find_named_runs
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.config.metric_names import TEST_ACC, TEST_LOSS
from mnist_lab.errors import UsageError
from mnist_lab.formatting import display_path, print_lines, print_warning
from mnist_lab.runs.listing import format_cell

ENSEMBLE_COLUMNS = ("model", "seed", TEST_LOSS, TEST_ACC, "errors", "run")


def test(arguments: list[str]) -> None:
    parser = CommandParser("test")
    parser.add_runs("KEY=VALUE ...", "changes to its configuration")
    options = parser.parse_runs(arguments)
    overrides = [word for word in options.runs if "=" in word and not Path(word).exists()]
    runs = find_named_runs(options, [word for word in options.runs if word not in overrides])
    from mnist_lab.evaluation.evaluate import evaluate
    from mnist_lab.training.progress import console, results_table

    for run in runs:
        tested = evaluate(run, overrides)
        info, chosen = run.info, run.chosen_checkpoint().name
        if run.tested_epoch is not None:
            chosen = f"epoch {run.tested_epoch} ({run.chosen_by()})"
        console.print(results_table(f"{info['model'] or 'network'}, weights of {chosen}", tested))
        recorded = "as the run recorded"
        if TEST_ACC not in info["metrics"]:
            recorded = "the run recorded no test metrics"
        elif format_exactly(tested) != format_exactly(info["metrics"]):
            recorded = f"the run recorded {format_exactly(info['metrics'])}"
        console.print(f"{format_exactly(tested)} ({recorded})", f"run folder: {run}", sep="\n", soft_wrap=True)


def format_exactly(metrics: Mapping[str, float]) -> str:
    """Return test metrics with all their digits."""
    return ", ".join(f"{name} {metrics[name]!r}" for name in (TEST_LOSS, TEST_ACC))


def report(arguments: list[str]) -> None:
    parser = CommandParser("report")
    parser.add_runs()
    parser.add_argument("--out", type=Path, metavar="FILE", help="of one page; default: report.html in its folder")
    options = parser.parse_runs(arguments)
    folders = find_named_folders(options)
    if options.out and len(folders) > 1:
        raise UsageError(f"--out={options.out}: for one page; {len(folders)} are named")
    from mnist_lab.report.render import report as write_report

    for folder in folders:
        print_lines(f"written: {display_path(write_report(str(folder), options.out))}")


def export(arguments: list[str]) -> None:
    parser = CommandParser("export")
    parser.add_runs()
    words = (
        "html: a page to draw on, with the network inside; onnx, torch_export: programs, bytes of 28x28 in and "
        "probabilities out; these three are checked on the test set; "
        "safetensors, state_dict: the weights alone"
    )
    parser.add_argument("--format", required=True, help=words)
    parser.add_argument("--to", type=Path, metavar="FILE", help="of one run; default: exports/MODEL in the run folder")
    options = parser.parse_runs(arguments)
    runs = find_named_runs(options, options.runs)
    if options.to and len(runs) > 1:
        raise UsageError(f"--to={options.to}: for one run; {len(runs)} are named")
    from mnist_lab.export.export import export as write_network
    from mnist_lab.export.model_card import NOT_CHECKED
    from mnist_lab.training.runtime import quiet_lightning

    for run in runs:
        with quiet_lightning():
            path, loading, check = write_network(run, options.format, options.to)
        if check is None and options.format == "html":
            print_warning(f"{path}: check {NOT_CHECKED}")
        print_lines(*loading.split("\n"), f"model card: {path}.md", f"written: {path}")


def ensemble(arguments: list[str]) -> None:
    parser = CommandParser("ensemble")
    parser.add_runs()
    parser.add_argument("--to", type=Path, metavar="DIR", help="the run folder to make (default: one below runs-dir)")
    parser.add_forms()
    options = parser.parse_runs(arguments)
    runs = find_named_runs(options, options.runs, at_least=2)
    from mnist_lab.evaluation.ensemble import make_ensemble
    from mnist_lab.training.progress import working_on

    with working_on(f"testing {len(runs)} networks"):
        run, images = make_ensemble(runs, options.to, options.runs_dir)
    info = run.info
    whole = {"run": str(run), "model": info["model"], "seed": None, "metrics": info["metrics"]}
    networks: list[dict[str, Any]] = [*map(dict, info["members"] or []), whole]
    rows = []
    for network in networks:
        metrics = network.pop("metrics")
        rows.append({**network, **metrics, "errors": round((1 - metrics[TEST_ACC]) * images)})
    if options.form:
        print_rows(rows, options.form)
    else:
        lines = [[format_cell(name, row[name]) for name in ENSEMBLE_COLUMNS] for row in rows]
        print_table(ENSEMBLE_COLUMNS, lines, left=("model", "run"), cut="run")
    print_lines(f"run folder: {run}", file=sys.stderr if options.form else sys.stdout)


def draw(arguments: list[str]) -> None:
    parser = CommandParser("draw")
    parser.add_runs()
    words = "the address to listen at (%(default)s; 0.0.0.0: all of this machine's)"
    parser.add_argument("--host", default="127.0.0.1", help=words)
    parser.add_argument("--port", type=int, help="the port to listen at (default: the first free one from 8028 on)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
    options = parser.parse_runs(arguments)
    runs = find_named_runs(options, options.runs)
    if len(runs) > 1:
        raise UsageError(f"{len(runs)} runs are named, and the page is of one; `ensemble` makes one network of several")
    from mnist_lab.web.server import serve

    serve(runs[0], options.host, options.port, browser=not options.no_browser)
