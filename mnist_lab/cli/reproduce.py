"""`python -m mnist_lab reproduce [PRESET ...]`: the tutorials' presets over several seeds, and a table of them."""

from __future__ import annotations

from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.formatting import format_command
from mnist_lab.streams import outlive_reader


def main(arguments: list[str]) -> None:
    parser = CommandParser("reproduce", __doc__)
    parser.add_argument("words", metavar="PRESET|KEY=VALUE", nargs="*", help="which presets (all), and other settings")
    parser.add_argument("--seeds", type=int, default=5, help="the seeds 1 to this (default: %(default)s)")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/reproduce"), help="default: %(default)s")
    parser.add_argument(
        "--out",
        type=Path,
        help="for RESULTS.md, results.json and figures, of all finished runs in "
        "the folder of --runs-dir (default: that folder)",
    )
    parser.add_argument("--config-dir", help="a folder of your own beside conf/")
    options = parser.parse_intermixed_args(arguments)
    outlive_reader()
    overrides = [word for word in options.words if "=" in word or word.startswith("~")]
    from mnist_lab.cli.train import reject_derived_settings
    from mnist_lab.config.compose import presets
    from mnist_lab.reproduce import reproduce

    names = [word for word in options.words if word not in overrides] or presets(options.config_dir)
    reproduce.reject_reserved_settings(overrides)
    reject_derived_settings(overrides)
    out = options.out or options.runs_dir
    try:
        reproduce.reproduce(
            names,
            options.seeds,
            runs_dir=options.runs_dir,
            out=out,
            overrides=overrides,
            config_dir=options.config_dir,
        )
    except (SystemExit, KeyboardInterrupt):  # Ctrl-C or SIGTERM: what is done is shown all the same
        from mnist_lab.training.progress import console

        command = format_command(["reproduce", *arguments])
        console.print(f"or, for all: {command}", soft_wrap=True)
        reproduce.write_results(options.runs_dir, out)
        raise
    reproduce.write_results(options.runs_dir, out)
