"""Standard output and standard error whose reader goes away or stops reading, or whose disk is full."""

import errno
import io
import os
import select
import signal
import sys
from typing import Any

READER_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # The pipe, terminal or connection is closed.
PATIENCE = 1.0  # seconds to wait for a reader once the process is to stop


class StandardStream(io.FileIO):
    """The file behind standard output or standard error; from the first write that fails on, the null device."""

    outlives_reader = False  # whether to continue without one: the results of training are in the run folders

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # Another program made it non-blocking.
                select.select([], [self], [])
            return written
        except OSError as error:
            write_to_null_device(self.fileno())
            reader_gone = error.errno in READER_GONE
            if self.fileno() == 2:
                return len(data)
            if not self.outlives_reader:
                if reader_gone:
                    raise SystemExit(128 + signal.SIGPIPE) from error
                error.filename = "standard output"
                raise
            if not reader_gone:
                warning = f"standard output: {error.strerror}; the run continues"
                print(f"mnist_lab: warning: {warning}", file=sys.stderr)  # noqa: T201  # formatting is no part of it
            return len(data)


_protected: list[StandardStream] = []  # It stays empty where the lab is imported: streams are the user's.


def protect_streams() -> None:
    """Put a StandardStream behind sys.stdout and sys.stderr, for good; a character that one lacks becomes `?`."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # The shell has closed it (>&-), and no other file may take its number.
            write_to_null_device(descriptor)
        _protected.append(StandardStream(descriptor, "w", closefd=False))
        text = io.TextIOWrapper(
            io.BufferedWriter(_protected[-1]),
            encoding=stream and stream.encoding,
            errors="replace",
            line_buffering=not stream or stream.line_buffering or stream.write_through,
        )
        setattr(sys, name, text)


def write_to_null_device(descriptor: int) -> None:
    """Make a descriptor lead to the null device, for a write that waits, too, when a signal has it tried again."""
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def stop_waiting_for_readers() -> None:
    """Send to the null device what nobody reads for a second, because the process is to stop."""
    for file in _protected:
        if not select.select([], [file], [], PATIENCE)[1]:
            write_to_null_device(file.fileno())
