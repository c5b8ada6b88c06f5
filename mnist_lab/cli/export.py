"""`python -m mnist_lab export RUN --format FORMAT`: a run's network in a file for use elsewhere, with a model card."""

from __future__ import annotations

from pathlib import Path

from mnist_lab.cli.parser import CommandParser, find_run

FORMATS = ("onnx", "torch_export", "safetensors", "state_dict")


def main(arguments: list[str]) -> None:
    parser = CommandParser("export", __doc__)
    parser.add_run()
    words = (
        "onnx, torch_export: programs, bytes of 28x28 in and probabilities out, checked on the test set; "
        "safetensors, state_dict: the weights alone"
    )
    parser.add_argument("--format", choices=FORMATS, required=True, help=words)
    parser.add_argument("--to", type=Path, metavar="FILE", help="default: exports/MODEL in the run folder")
    options = parser.parse_args(arguments)
    run = find_run(options)
    from mnist_lab.export.export import export
    from mnist_lab.training.runtime import quiet_lightning

    with quiet_lightning():
        path, how = export(run, options.format, options.to)
    print(f"{how}\nmodel card: {path}.md\nwritten: {path}")
