"""`python -m mnist_lab [COMMAND] ...`: picks the command and imports it only then, so that --help is quick."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import signal
import sys
from pathlib import Path

from mnist_lab import __version__
from mnist_lab.cli.help import help_text
from mnist_lab.errors import UsageError
from mnist_lab.streams import exit_on_user_error, standard_streams, stop_waiting_for_readers

COMMANDS = {
    "train": "mnist_lab.cli.train",
    "test": "mnist_lab.cli.test",
    "reproduce": "mnist_lab.cli.reproduce",
    "export": "mnist_lab.cli.export",
    "report": "mnist_lab.cli.report",
    "robustness": "mnist_lab.cli.robustness",
    "predict": "mnist_lab.cli.predict",
    "draw": "mnist_lab.cli.draw",
    "ls": "mnist_lab.cli.ls",
    "compare": "mnist_lab.cli.compare",
}


def main() -> None:
    """Run the command line in sys.argv."""
    with exit_on_user_error(), standard_streams():
        try:
            _main()
        except KeyboardInterrupt:  # a run that had begun has told more, and how to go on
            stop_waiting_for_readers()
            if sys.stderr.isatty():
                print(file=sys.stderr)  # the prompt would stand behind the terminal's ^C
            raise SystemExit(128 + signal.SIGINT) from None


def _main() -> None:
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise UsageError("the current folder was removed; change to another one") from None
    if not {"", here} & set(sys.path):
        sys.path.append(here)  # so that the console script, too, finds a network of the user's own
    first, *rest = sys.argv[1:] or [""]
    if first in COMMANDS and first != "train":
        importlib.import_module(COMMANDS[first]).main(rest)
        return
    if first == "train":
        del sys.argv[1]
    elif re.fullmatch(r"\w[\w-]*", first):
        near = difflib.get_close_matches(first, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UsageError(f"{first}: no such command; {hint} (--help tells more)")
    if "query=bash" in sys.argv and re.match(rf"\S+\s+({'|'.join(COMMANDS)})\b", os.environ.get("COMP_LINE", "")):
        return  # Hydra completes settings, and a command takes none of them
    if "--version" in sys.argv:
        print(f"mnist_lab {__version__}")
        return
    if {"-h", "--help"} & set(sys.argv):
        print(help_text(sys.argv))
        return
    importlib.import_module(COMMANDS["train"]).main()


if __name__ == "__main__":
    main()
