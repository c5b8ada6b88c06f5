"""The table of commands, and what follows from it: dispatch, help, completion and suggestions."""

import difflib
import re
import textwrap
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mnist_lab.config import conf_dir
from mnist_lab.config.keys import INTERNAL_CHOICES
from mnist_lab.errors import UsageError
from mnist_lab.formatting import print_lines


@dataclass(frozen=True)
class Command:
    """A command of `python -m mnist_lab`; a call with its arguments imports and runs its code."""

    function: str  # MODULE or MODULE.FUNCTION in this folder
    arguments: str  # the arguments as --help shows them
    summary: str

    def __call__(self, arguments: list[str]) -> None:
        module, _, function = self.function.partition(".")
        getattr(import_module(f"mnist_lab.cli.{module}"), function or "main")(arguments)


COMMANDS = {
    "train": Command("train", "[KEY=VALUE ...]", "train a network, then test it (the default command)"),
    "test": Command(
        "test",
        "RUN... [KEY=VALUE]",
        "test runs again; RUN: its folder, part of its name, latest, a sweep, a folder of runs, or a checkpoint",
    ),
    "reproduce": Command("reproduce", "[PRESET ...] [--seeds N|FIRST-LAST]", "train presets over seeds, and rank them"),
    "lr": Command("lr", "[KEY=VALUE ...]", "find a learning rate to try, by a range test on training batches"),
    "presets": Command("presets", "[cp NAME DIR]", "list the presets, their accuracy and time; or copy one"),
    "report": Command("report", "RUN|SWEEP...", "write an HTML page about a run or a sweep, report.html in its folder"),
    "data": Command("data", "[RUN] [KEY=VALUE ...]", "look at a data set, and at labels that a network doubts"),
    "export": Command(
        "export",
        "RUN... --format onnx|torch_export|html|safetensors|state_dict",
        "write the network to a file, checked on the test set",
    ),
    "robustness": Command("robustness", "RUN [RUN ...]", "measure accuracy on shifted, rotated, noisy ... images"),
    "ensemble": Command("ensemble", "RUN RUN...", "combine the networks of runs into one, as a run of its own"),
    "predict": Command("predict", "RUN IMAGE...", "recognise digits in your own images, arrays or CSV"),
    "draw": Command("draw", "RUN", "draw a digit in the browser and see the prediction"),
    "ls": Command(
        "ls",
        "[RUN ...] [--sort COLUMN] [--limit N] [--group seed] [--where CONDITION]",
        "list the runs, or mean ± standard deviation over seeds",
    ),
    "tag": Command("annotate.tag", "RUN TAG... [--remove]", 'tag a run, to find it again: ls --where "tag == keep"'),
    "note": Command("annotate.note", "RUN TEXT", "keep a note with a run"),
    "rm": Command("trash.rm", "RUN|SWEEP... [--empty-trash]", "move runs into the trash, or empty the trash"),
    "restore": Command("trash.restore", "[NAME ...]", "take runs out of the trash, or list it"),
    "archive": Command("archive.archive", "RUN... FILE.zip", "write runs into one file, with checksums"),
    "unarchive": Command("archive.unarchive", "FILE.zip", "verify such a file, and unpack its runs"),
    "status": Command(
        "status", "[SWEEP|RUN] [--watch]", "show a sweep's jobs, or a run: state, machine, log, time left"
    ),
    "compare": Command("compare", "RUN RUN...", "show how runs differ, and test whether two differ by chance"),
}

# Other programs have these names for the commands.
SYNONYMS = {"fit": "train", "run": "train", "eval": "test", "evaluate": "test", "list": "ls", "remove": "rm"}
SYNONYMS |= {"resume": "resume=RUN", "sweep": "-m"}
HELP = """\
mnist_lab: train, test and compare five published tutorials' networks on MNIST.

Usage: python -m mnist_lab [COMMAND] [KEY=VALUE ...]   (or mnist-lab ...)

Commands
{commands}
  COMMAND --help         more about one command

Settings: one choice of each group, and any single value by its dotted name
{groups}

Values most often changed
  seed=0  trainer.max_epochs=5  trainer.accelerator=auto|cpu|gpu
  optimizer.lr=0.01  optimizer.momentum=0.9  data.batch_size=64
  data.val_size=5000  data.root=FOLDER  data.download=false
  resume=RUN|latest|auto         continue a run, in its folder
  init_from=FILE                 start from a checkpoint or state_dict

Examples
  python -m mnist_lab
  python -m mnist_lab model=lenet trainer.accelerator=gpu
  python -m mnist_lab model=mlp optimizer=adam optimizer.lr=0.001 seed=0
  python -m mnist_lab -m optimizer.lr=0.001,0.01,0.1 optimizer.momentum=0.5,0.9
  python -m mnist_lab -m hydra/sweeper=halving optimizer.lr=0.001,0.01,0.1
  python -m mnist_lab -m hydra/sweeper=optuna hydra.sweeper.n_trials=30
  python -m mnist_lab resume=latest trainer.max_epochs=8
  python -m mnist_lab experiment=compact_cnn

See also
  -m                 run every combination of the values separated by commas;
                     sweep=NAME names the sweep, to continue it later
  --check            validate a command line, describe its runs, and stop
  --cfg job          print the configuration of a command line, and stop
  --info defaults    print the files of the configuration, and stop
  --config-dir DIR   add a folder of your own to conf/; a network is one class
                     and one YAML in DIR/model
  --version          print the program's version
  --hydra-help       the other options
  tensorboard --logdir runs
  eval "$(mnist-lab -sc install=bash)"   complete groups and keys in this shell
"""


# Hydra's own help would compose the configuration first, and take ten times as long.
def help_text(arguments: list[str]) -> str:
    """Return the help, with the groups and choices of conf/ and of the folder that --config-dir names."""
    match = re.search(r"(?:^|\0)(?:--config-dir|-cd)[=\0]([^\0]+)", "\0".join(arguments))
    folders = [conf_dir(), *([Path(match[1])] if match else [])]
    groups: dict[str, list[str]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*/*.yaml")):
        if f"{path.parent.name}={path.stem}" not in INTERNAL_CHOICES:
            groups.setdefault(path.parent.name, []).append(path.stem)
    lines = [
        textwrap.fill(f"  {group:<12} {', '.join(names)}", 79, subsequent_indent=" " * 15)
        for group, names in groups.items()
    ]
    return HELP.format(commands="\n".join(map(_describe, COMMANDS)), groups="\n".join(lines))


def _describe(name: str) -> str:
    """Return a command's lines of the help, with its summary in the second column."""
    usage, indent = f"  {name} {COMMANDS[name].arguments}", " " * 25
    first = usage.ljust(25) if len(usage) < 25 else f"{usage}\n{indent}"
    return first + textwrap.fill(COMMANDS[name].summary, 54).replace("\n", f"\n{indent}")


def unknown_command(name: str) -> UsageError:
    """Return the error of an unknown command, with the one that it may mean."""
    meant = [SYNONYMS[name]] if name in SYNONYMS else difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {meant[0]}?" if meant else f"choose from {', '.join(COMMANDS)}, or write KEY=VALUE"
    return UsageError(f"{name}: unknown command; {hint} (see --help)")


def complete_command(line: str) -> str | None:
    """Print the commands that complete a line's first word, and return the line for Hydra; None for other commands."""
    program, word, rest = re.fullmatch(r"(\S*\s*)(\S*)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    if not rest:
        print_lines(" ".join(name for name in COMMANDS if name.startswith(word)))
        return line
    if word == "train":
        return program + rest.lstrip()
    return None if word in COMMANDS else line
