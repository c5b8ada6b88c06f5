"""`python -m mnist_lab presets`: the presets, what they reach and how long they take; `presets cp` copies one."""

import re
from collections.abc import Sequence
from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.cli.tables import print_rows, print_table
from mnist_lab.config.presets import find_presets
from mnist_lab.errors import UsageError
from mnist_lab.files import user_output
from mnist_lab.formatting import display_path, format_command

HEADS = ("preset", "test accuracy", "seeds", "time", "for")


def main(arguments: Sequence[str]) -> None:
    parser = CommandParser("presets")
    parser.add_argument("words", metavar="cp NAME DIR", nargs="*", help="copy a preset into a folder of your own")
    parser.add_argument("--as", dest="new_name", metavar="NEW", help="the copy's name (default: my_NAME)")
    parser.add_argument("--config-dir", help="a folder of your own, with further presets")
    parser.add_forms()
    options = parser.parse_intermixed_args(arguments)
    if options.words:
        action, *names = options.words
        if action != "cp" or len(names) != 2:
            raise UsageError(f"presets {' '.join(options.words)}: write presets, or presets cp NAME DIR")
        name, folder = names
        path = copy_preset(name, Path(folder), options.new_name or f"my_{name}", options.config_dir)
        command = format_command(["--config-dir", folder, f"experiment={path.stem}"])
        print(f"written: {display_path(path)}; to train it: {command}")
        return
    rows = [
        {
            "preset": preset.name,
            **{name: preset.measured.get(name) for name in ("accuracy", "seeds", "time")},
            "for": preset.summary,
        }
        for preset in find_presets(options.config_dir)
    ]
    if options.form:
        print_rows(rows, options.form)
    else:
        print_table(
            HEADS, [[value or "-" for value in row.values()] for row in rows], left=("preset", "for"), cut="for"
        )


def copy_preset(name: str, folder: Path, new_name: str, config_dir: str | None = None) -> Path:
    """Copy a preset into a folder of the user's own, to be changed there, and return the new file.

    Args:
        name: the preset.
        folder: for --config-dir.
        new_name: of the copy.
        config_dir: another folder with presets.

    Raises:
        UsageError: there is no such preset, the new name is taken, or the file cannot be written.
    """
    presets = {preset.name: preset for preset in find_presets(config_dir)}
    if name not in presets:
        raise UsageError(f"{name}: unknown preset; choose from {', '.join(presets)}")
    path = folder / "experiment" / f"{new_name}.yaml"
    if new_name in presets or path.exists():
        raise UsageError(f"--as={new_name}: the name is taken; choose another")
    if not re.fullmatch(r"\w[\w-]*", new_name):
        raise UsageError(f"--as={new_name}: a name consists of letters, digits, _ and -")
    text = presets[name].path.read_text(encoding="utf-8")
    settings = text[re.match(r"(#.*\n)*", text).end() :]  # type: ignore[union-attr]
    with user_output(path, display_path(path)) as partial:
        partial.write_text(f"# @package _global_\n# A copy of {name}.\n{settings}", encoding="utf-8")
    return path
