"""Keep the program alive if the reader of its standard output or error goes away, or their disk is full."""

import contextlib
import errno
import io
import os
import select
import signal
import sys
from typing import Any

READER_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # The pipe, terminal or connection is closed.
PATIENCE = 1.0  # seconds to wait for a reader once the process has to stop


class StandardStream(io.FileIO):
    """The file behind standard output or standard error; after a write has failed, it writes to the null device."""

    outlives_reader = False  # Training continues without a reader: its results are in the run folder.
    has_first_line = False  # show_first_line has shown one.

    def write(self, data: Any) -> int:
        show_first_line()
        try:
            while (written := super().write(data)) is None:  # Another program has made it non-blocking.
                select.select([], [self], [])
            return written
        except OSError as error:
            write_to_null_device(self.fileno())
            is_reader_gone = error.errno in READER_GONE
            if self.fileno() == 1 and not self.outlives_reader:
                if is_reader_gone:
                    raise SystemExit(128 + signal.SIGPIPE) from error
                error.filename = "standard output"
                raise
            if self.fileno() == 1 and not is_reader_gone:
                warning = f"mnist_lab: warning: standard output: {error.strerror}; the run continues"
                print(warning, file=sys.stderr)  # noqa: T201 (no module of the lab may be imported here)
            return len(data)


# The streams of the process, for stop_waiting_for_readers. Where the lab is imported, they are the user's and not here.
_protected: list[StandardStream] = []


def protect_streams() -> None:
    """Put a StandardStream behind sys.stdout and sys.stderr; a character that they cannot encode becomes `?`."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # The shell has closed it (>&-). No other file may get its number.
            write_to_null_device(descriptor)
        _protected.append(StandardStream(descriptor, "w", closefd=False))
        text = io.TextIOWrapper(
            io.BufferedWriter(_protected[-1]),
            encoding=stream and stream.encoding,
            errors="replace",
            line_buffering=not stream or stream.line_buffering or stream.write_through,
        )
        setattr(sys, name, text)


def show_first_line(text: str = "") -> None:
    """Show a text on standard error, if it is a terminal, until the program prints something; no text erases it."""
    if StandardStream.has_first_line or (text and _protected and sys.stderr.isatty()):
        StandardStream.has_first_line = bool(text)
        with contextlib.suppress(OSError):  # The terminal may be closed.
            os.write(2, f"\33[K{text}\r".encode())


def write_to_null_device(descriptor: int) -> None:
    """Redirect a descriptor to the null device, where a waiting write that a signal interrupts is repeated, too."""
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def stop_waiting_for_readers() -> None:
    """Redirect the streams that nobody has read for a second to the null device, because the process has to stop."""
    for file in _protected:
        if not select.select([], [file], [], PATIENCE)[1]:
            write_to_null_device(file.fileno())
