"""`python -m mnist_lab presets`: list the presets with their accuracy and time; `presets cp` copies one."""

import re
from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.config.presets import find_presets
from mnist_lab.errors import UsageError
from mnist_lab.files import user_output
from mnist_lab.formatting import display_path, format_command, print_lines
from mnist_lab.tables import print_rows, print_table


def main(arguments: list[str]) -> None:
    parser = CommandParser("presets")
    parser.add_argument("words", metavar="cp NAME DIR", nargs="*", help="copy a preset into a folder of your own")
    parser.add_argument("--config-dir", help="a folder with your own presets")
    parser.add_forms()
    options = parser.parse_intermixed_args(arguments)
    if options.words:
        if options.words[0] != "cp" or len(options.words) != 3:
            raise UsageError(f"presets {' '.join(options.words)}: write presets, or presets cp NAME DIR")
        _, name, folder = options.words
        path = copy_preset(name, Path(folder), options.config_dir)
        command = format_command(["--config-dir", folder, f"experiment={path.stem}"])
        print_lines(f"written: {display_path(path)}", f"to train it: {command}")
        return
    presets = find_presets(options.config_dir)
    names = ("accuracy", "seeds", "time")
    rows = [[preset.name, *(preset.measured.get(name) for name in names), preset.summary] for preset in presets]
    if options.form:
        print_rows([dict(zip(("preset", *names, "for"), row, strict=True)) for row in rows], options.form)
    else:
        heads = ("preset", "test accuracy", "seeds", "time", "for")
        cells = [[value or "-" for value in row] for row in rows]
        print_table(heads, cells, left=("preset", "for"), cut="for", wrap=True)


def copy_preset(name: str, folder: Path, config_dir: str | None) -> Path:
    """Copy a preset into a folder for --config-dir, as my_NAME, and return the new file."""
    presets = {preset.name: preset for preset in find_presets(config_dir)}
    if name not in presets:
        raise UsageError(f"{name}: unknown preset; choose from {', '.join(presets)}")
    path = folder / "experiment" / f"my_{name}.yaml"
    if path.exists():
        raise UsageError(f"{display_path(path)}: exists already; rename it")
    text = presets[name].path.read_text(encoding="utf-8")
    settings = re.sub(r"\A(#.*\n)*", "", text)
    with user_output(path, display_path(path)) as partial:
        partial.write_text(f"# @package _global_\n# A copy of {name}.\n{settings}", encoding="utf-8")
    return path
