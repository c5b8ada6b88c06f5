"""The text of --help. Not Hydra's own, which composes everything first and takes ten times as long."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from mnist_lab.cli.commands import COMMANDS
from mnist_lab.config import conf_dir

HELP = """\
mnist_lab: train, test and compare five published tutorials' networks on MNIST.

Usage: python -m mnist_lab [COMMAND] [KEY=VALUE ...]   (mnist-lab does the same)

Commands
{commands}
  COMMAND --help         more about one command

Settings: one of each group, and any single value by its dotted name
{groups}

Values most often changed
  seed=0  trainer.max_epochs=5  trainer.accelerator=auto|cpu|gpu
  optimizer.lr=0.01  optimizer.momentum=0.9  data.batch_size=64
  data.val_size=5000  data.root=FOLDER  data.download=false
  resume=RUN|latest|auto         continue a run, in its folder
  init_from=FILE                 start from a checkpoint's or state_dict's file

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
  --check            validate a command line, say what it would run, and stop
  --cfg job          print the configuration that a command line gives, and stop
  --info defaults    print which files it comes from
  --config-dir DIR   add a folder of your own to conf/; a network is one class
                     and one YAML in DIR/model
  --version          print the program's version
  --hydra-help       the other options
  tensorboard --logdir runs
  eval "$(mnist-lab -sc install=bash)"   complete groups and keys in this shell
"""


def help_text(arguments: Sequence[str]) -> str:
    """Return the help, with the groups and choices of conf/ and of the folder that --config-dir names."""
    named = re.search(r"(?:^|\0)(?:--config-dir|-cd)[=\0]([^\0]+)", "\0".join(arguments))
    folders = [conf_dir(), *([Path(named[1])] if named else [])]
    groups: dict[str, list[str]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*/*.yaml")):
        groups.setdefault(path.parent.name, []).append(path.stem)
    lines = (
        textwrap.fill(f"  {group:<12} {', '.join(names)}", 79, subsequent_indent=" " * 15)
        for group, names in groups.items()
    )
    return HELP.format(commands="\n".join(map(_describe, COMMANDS)), groups="\n".join(lines))


def _describe(name: str) -> str:
    """Return a command's lines of the help, its summary in the second column."""
    usage, indent = f"  {name} {COMMANDS[name].arguments}", " " * 25
    first = usage.ljust(25) if len(usage) < 25 else f"{usage}\n{indent}"
    return first + textwrap.fill(COMMANDS[name].summary, 54).replace("\n", f"\n{indent}")
