"""`python -m mnist_lab reproduce [PRESET ...]`: train presets over seeds, compare them with publications, rank them."""

from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.console import console, working_on
from mnist_lab.formatting import format_command
from mnist_lab.streams import StandardStream


def main(arguments: list[str]) -> None:
    parser = CommandParser("reproduce")
    words_help = "presets (default: those of the tutorials), and settings for all runs"
    parser.add_argument("words", metavar="PRESET|KEY=VALUE", nargs="*", help=words_help)
    seeds_help = "the seeds 1 to N, or FIRST to LAST, such as 11-20 (default: %(default)s)"
    parser.add_argument("--seeds", metavar="N|FIRST-LAST", default="5", help=seeds_help)
    runs_help = "the folder of the run folders (default: %(default)s)"
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/reproduce"), help=runs_help)
    out_help = "the folder for RESULTS.md and RECORDS.md, with all finished runs (default: that of --runs-dir)"
    parser.add_argument("--out", type=Path, help=out_help)
    parser.add_argument("--config-dir", help="a folder with your own configuration")
    options = parser.parse_intermixed_args(arguments)
    StandardStream.outlives_reader = True
    from mnist_lab.config.compose import reject_overrides
    from mnist_lab.config.overrides import quote_paths
    from mnist_lab.config.presets import preset_names
    from mnist_lab.reproduce import reproduce

    config_dir, runs_dir = options.config_dir, options.runs_dir
    names = [word for word in options.words if "=" not in word and not word.startswith("~")]
    overrides = quote_paths(word for word in options.words if word not in names)
    if not names:
        with working_on("reading the presets"):
            names = [name for name in preset_names(config_dir) if reproduce.has_tutorial(name, config_dir)]
    reproduce.reject_reserved_settings(overrides)
    reject_overrides(overrides)
    seeds, out = reproduce.parse_seeds(options.seeds), options.out or runs_dir
    try:
        reproduce.reproduce(names, seeds, runs_dir=runs_dir, out=out, overrides=overrides, config_dir=config_dir)
    except (SystemExit, KeyboardInterrupt):  # Even after Ctrl-C or SIGTERM, the finished runs are shown.
        console.print(f"to resume all: {format_command(['reproduce', *arguments])}", soft_wrap=True)
        reproduce.write_results(runs_dir, out, leaderboard=False)
        raise
    reproduce.write_results(runs_dir, out)
