"""Run `python -m mnist_lab [COMMAND]`, and import each command only when it is used, so that --help is quick."""

import os
import re
import signal
import sys
import warnings
from pathlib import Path

from mnist_lab import __version__
from mnist_lab.cli.commands import COMMANDS, complete_command, help_text, unknown_command
from mnist_lab.config.distributed import rank
from mnist_lab.errors import UsageError, exit_on_user_error
from mnist_lab.formatting import print_lines, printable_lines
from mnist_lab.streams import protect_streams, show_first_line, stop_waiting_for_readers
from mnist_lab.sweeps.process import exit_before_teardown, keep_freed_memory


def program() -> None:
    """Run the command line in sys.argv as the whole of this process."""
    keep_freed_memory()
    with exit_before_teardown():
        protect_streams()
        plain = warnings.formatwarning
        warnings.formatwarning = lambda *args, **settings: printable_lines(plain(*args, **settings))
        main()


def main() -> None:
    """Run the command line in sys.argv, in a process that may continue afterwards."""
    with exit_on_user_error(is_first_process=rank() == 0):
        try:
            _main()
        except KeyboardInterrupt as stop:
            stop_waiting_for_readers()
            if sys.stderr.isatty() and stop.__cause__ is None:  # A run has printed how to resume it.
                print_lines("", file=sys.stderr)  # Otherwise the prompt would follow the terminal's ^C.
            raise SystemExit(128 + signal.SIGINT) from None
        finally:
            sys.stdout.flush()
            show_first_line()


def _main() -> None:
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise UsageError("the current folder was removed; change to another one") from None
    if not {"", here} & set(sys.path):
        sys.path.append(here)  # The console script would not find a user's own network otherwise.
    # A shell leaves the ~ of --config-dir=~/conf as it is.
    arguments = [re.sub("^(--[a-z-]+=)~(?=/)", lambda start: f"{start[1]}{Path.home()}", word) for word in sys.argv[1:]]
    name = arguments[0] if arguments else ""
    if name in COMMANDS:
        del arguments[0]
    elif re.fullmatch(r"\w[\w-]*", name):
        raise unknown_command(name)
    else:
        name = "train"
    if name == "train" and "query=bash" in arguments:
        line = complete_command(os.environ.get("COMP_LINE", ""))
        if line is None:
            return
        os.environ |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    if name == "train" and "--version" in arguments:
        print_lines(f"mnist_lab {__version__}")
    elif name == "train" and {"-h", "--help"} & set(arguments):
        print_lines(*help_text(arguments).split("\n"))
    else:
        if "LOCAL_RANK" not in os.environ and not {"-sc", "--shell-completion"} & set(arguments):
            show_first_line(f"{name}: starting ...")
        COMMANDS[name](arguments)


if __name__ == "__main__":
    program()
