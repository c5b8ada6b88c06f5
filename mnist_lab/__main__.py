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
from mnist_lab.cli.commands import COMMANDS
from mnist_lab.cli.help import help_text
from mnist_lab.errors import UsageError
from mnist_lab.streams import exit_on_user_error, standard_streams, stop_waiting_for_readers
from mnist_lab.sweeps.process import exit_before_teardown


def program() -> None:
    """Run the command line in sys.argv as the whole of this process."""
    with exit_before_teardown():
        main()


def main() -> None:
    """Run the command line in sys.argv; the process may go on."""
    with exit_on_user_error(), standard_streams():
        try:
            _main()
        except KeyboardInterrupt:  # a run that had started has said more, and how to resume it
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
    arguments = sys.argv[1:]
    first, *rest = arguments or [""]
    if first in COMMANDS and first != "train":
        importlib.import_module(f"mnist_lab.cli.{first}").main(rest)
        return
    if first == "train":
        arguments = rest
    elif re.fullmatch(r"\w[\w-]*", first):
        near = difflib.get_close_matches(first, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(COMMANDS)}"
        if first == "resume":  # a setting of train
            hint = f"to resume a run, write resume={rest[0] if rest else 'RUN'}"
        raise UsageError(f"{first}: unknown command; {hint} (--help tells more)")
    if "query=bash" in arguments:
        line = complete_command(os.environ.get("COMP_LINE", ""))
        if line is None:
            return
        os.environ |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    if "--version" in arguments:
        print(f"mnist_lab {__version__}")
        return
    if {"-h", "--help"} & set(arguments):
        print(help_text(arguments))
        return
    importlib.import_module("mnist_lab.cli.train").main(arguments)


def complete_command(line: str) -> str | None:
    """Print the commands that complete the first word of a command line.

    Returns:
        The line that Hydra completes, which knows the settings; None where they do not belong.
    """
    program, word, rest = re.fullmatch(r"(\S*\s*)(\S*)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    if not rest:
        print(*(name for name in COMMANDS if name.startswith(word)))
    if rest and word == "train":
        return program + rest.lstrip()
    return None if rest and word in COMMANDS else line


if __name__ == "__main__":
    program()
