"""`python -m mnist_lab export RUN... --format FORMAT`: write a run's network to a file, with a model card."""

from pathlib import Path

from mnist_lab.cli.parser import CommandParser, describe_runs, find_named_runs
from mnist_lab.errors import UsageError
from mnist_lab.formatting import print_lines, print_warning
from mnist_lab.sweeps.process import import_torch


def main(arguments: list[str]) -> None:
    parser = CommandParser("export")
    parser.add_runs()
    format_help = (
        "html: a page to draw on, with the network inside; onnx, torch_export: programs that take bytes of 28x28 and "
        "return probabilities; these three are checked on the test set; safetensors, state_dict: the weights alone"
    )
    parser.add_argument("--format", required=True, help=format_help)
    parser.add_argument("--to", type=Path, metavar="FILE", help="file of a run (default: exports/MODEL in its folder)")
    parser.add_argument("--opset", type=int, metavar="N", help="operator set of an ONNX file (default: torch's)")
    options = parser.parse_runs(arguments)
    runs = find_named_runs(options, options.runs)
    if options.to and len(runs) > 1:
        raise UsageError(f"--to={options.to}: only valid for one run; {len(runs)} are named")
    import_torch(f"exporting {describe_runs(runs)} as {options.format}")
    from mnist_lab.export.export import export
    from mnist_lab.export.model_card import NOT_CHECKED
    from mnist_lab.training.runtime import quiet_lightning

    for run in runs:
        with quiet_lightning():
            path, loading, check = export(run, options.format, options.to, options.opset)
        if check is None and options.format == "html":
            print_warning(f"{path}: check {NOT_CHECKED}")
        print_lines(*loading.split("\n"), f"model card: {path}.md", f"written: {path}")
