"""`presets` lists the presets, or copies one; `reproduce` trains them over seeds, beside what was published."""

import re
from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.config.presets import find_presets, preset_names
from mnist_lab.errors import UsageError
from mnist_lab.files import user_output
from mnist_lab.formatting import display_path, format_command, print_lines
from mnist_lab.streams import StandardStream
from mnist_lab.sweeps.process import own_process


def presets(arguments: list[str]) -> None:
    parser = CommandParser("presets")
    parser.add_argument("words", metavar="cp NAME DIR", nargs="*", help="copy a preset into a folder of your own")
    parser.add_argument("--as", dest="new_name", metavar="NEW", help="the copy's name (default: my_NAME)")
    parser.add_argument("--config-dir", help="a folder of your own, with further presets")
    parser.add_forms()
    options = parser.parse_intermixed_args(arguments)
    if options.words:
        if options.words[0] != "cp" or len(options.words) != 3:
            raise UsageError(f"presets {' '.join(options.words)}: write presets, or presets cp NAME DIR")
        _, name, folder = options.words
        path = copy_preset(name, Path(folder), options.new_name or f"my_{name}", options.config_dir)
        command = format_command(["--config-dir", folder, f"experiment={path.stem}"])
        print_lines(f"written: {display_path(path)}; to train it: {command}")
        return
    presets = find_presets(options.config_dir)
    names = ("accuracy", "seeds", "time")
    rows = [[preset.name, *(preset.measured.get(name) for name in names), preset.summary] for preset in presets]
    if options.form:
        print_rows([dict(zip(("preset", *names, "for"), row, strict=True)) for row in rows], options.form)
    else:
        heads = ("preset", "test accuracy", "seeds", "time", "for")
        print_table(heads, [[value or "-" for value in row] for row in rows], left=("preset", "for"), cut="for")


def copy_preset(name: str, folder: Path, new_name: str, config_dir: str | None = None) -> Path:
    """Copy a preset into a folder for --config-dir, to be changed there, and return the new file."""
    presets = {preset.name: preset for preset in find_presets(config_dir)}
    if name not in presets:
        raise UsageError(f"{name}: unknown preset; choose from {', '.join(presets)}")
    path = folder / "experiment" / f"{new_name}.yaml"
    if new_name in presets or path.exists():
        raise UsageError(f"--as={new_name}: the name is taken; choose another")
    if not re.fullmatch(r"\w[\w-]*", new_name):
        raise UsageError(f"--as={new_name}: a name consists of letters, digits, _ and -")
    text = presets[name].path.read_text(encoding="utf-8")
    settings = re.sub(r"\A(#.*\n)*", "", text)
    with user_output(path, display_path(path)) as partial:
        partial.write_text(f"# @package _global_\n# A copy of {name}.\n{settings}", encoding="utf-8")
    return path


def reproduce(arguments: list[str]) -> None:
    parser = CommandParser("reproduce")
    words = "presets (default: all tutorials'), and settings for all runs"
    parser.add_argument("words", metavar="PRESET|KEY=VALUE", nargs="*", help=words)
    words = "the seeds 1 to N, or FIRST to LAST, such as 11-20 (default: %(default)s)"
    parser.add_argument("--seeds", metavar="N|FIRST-LAST", default="5", help=words)
    words = "the folder of the run folders (default: %(default)s)"
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/reproduce"), help=words)
    words = "for RESULTS.md and RECORDS.md with the results of all finished runs (default: the folder of --runs-dir)"
    parser.add_argument("--out", type=Path, help=words)
    parser.add_argument("--config-dir", help="a folder of your own configuration")
    options = parser.parse_intermixed_args(arguments)
    StandardStream.outlives_reader = True
    own_process()
    from mnist_lab.reproduce import reproduce
    from mnist_lab.sweeps.hydra_app import reject_derived_settings

    config_dir, runs_dir = options.config_dir, options.runs_dir
    overrides = [word for word in options.words if "=" in word or word.startswith("~")]
    names = [word for word in options.words if word not in overrides]
    names = names or [name for name in preset_names(config_dir) if reproduce.has_tutorial(name, config_dir)]
    reproduce.reject_reserved_settings(overrides)
    reject_derived_settings(overrides)
    seeds, out = reproduce.parse_seeds(options.seeds), options.out or runs_dir
    try:
        reproduce.reproduce(names, seeds, runs_dir=runs_dir, out=out, overrides=overrides, config_dir=config_dir)
    except (SystemExit, KeyboardInterrupt):  # After Ctrl-C or SIGTERM, too, the finished runs are shown.
        from mnist_lab.training.progress import console

        console.print(f"to resume all: {format_command(['reproduce', *arguments])}", soft_wrap=True)
        reproduce.write_results(runs_dir, out, leaderboard=False)
        raise
    reproduce.write_results(runs_dir, out)
