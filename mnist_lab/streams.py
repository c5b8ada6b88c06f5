"""Standard output and standard error, for readers that go away, full disks, and terminals that know only ASCII."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from mnist_lab.config.distributed import rank
from mnist_lab.errors import DISK_FULL, LabError, ProcessLost
from mnist_lab.formatting import printable

READER_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET)  # a closed pipe, terminal, connection
READER_GONE_STATUS = 128 + 13  # as of a process that SIGPIPE ended
PIPE_BUF = getattr(select, "PIPE_BUF", 512)  # bytes that a pipe takes at once if it takes any
PATIENCE = 3.0  # seconds to wait for a reader once the process is to stop
LOOKALIKES = {"×": "x", "±": "+-", "–": "-", "—": "-", "…": "~", "“": '"', "”": '"', "σ": "sigma"}
LOOKALIKES |= dict.fromkeys("─━╸╺╴╶┄┈", "-") | dict.fromkeys("│┃╎╏", "|")

_stopping = False  # whether the process is to stop
_outlives_reader = False  # whether it continues without a reader of standard output


class StandardStream(io.FileIO):
    """The file behind standard output or standard error; it handles slow and missing readers and full disks.

    It waits for a slow reader; after `stop_waiting_for_readers()` for some seconds at most. Without a reader the
    program ends, as others do, and a full disk is an OSError that names this stream. After `outlive_reader()`, and
    always without standard error, the program continues.

    Args:
        descriptor: 1 or 2.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.title = {1: "standard output", 2: "standard error"}[descriptor]

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            try:
                self._wait()
                rest = rest[super().write(rest[:PIPE_BUF]) or 0 :]
            except OSError as error:
                self._give_up(error)
                break
        return size

    def _wait(self) -> None:
        """Wait until the reader takes something.

        Raises:
            BrokenPipeError: it did not, and the process is to stop.
        """
        poll, started = select.poll(), time.monotonic()
        poll.register(self.fileno(), select.POLLOUT)
        while not poll.poll(100):
            if not _stopping:
                started = time.monotonic()
            elif time.monotonic() - started > PATIENCE:
                raise BrokenPipeError(errno.EPIPE, "nobody reads it")

    def _give_up(self, error: OSError) -> None:
        """Send further output to the null device, so that no later write fails, and warn where somebody may read it."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        reader_gone = error.errno in READER_GONE
        if self.fileno() == 1 and not _outlives_reader:
            if reader_gone:
                raise SystemExit(READER_GONE_STATUS) from error
            error.filename = self.title
            raise error
        if not reader_gone and sys.stderr is not None:
            print(f"mnist_lab: warning: {self.title}: {error.strerror}; the run continues", file=sys.stderr)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Have sys.stdout and sys.stderr cope, within the block, with readers, disks and encodings as StandardStream does.

    A character that the encoding lacks is written as one that looks like it. A stream that the shell has closed (`>&-`)
    leads nowhere.
    """
    global _stopping, _outlives_reader
    _stopping = _outlives_reader = False
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _coping(sys.stdout, 1), _coping(sys.stderr, 2)
    try:
        yield
    finally:
        try:
            sys.stderr.flush()
            sys.stdout.flush()
        finally:
            sys.stdout, sys.stderr = before


def outlive_reader() -> None:
    """Continue without a reader of standard output: results are in the run folders."""
    global _outlives_reader
    _outlives_reader = True


def stop_waiting_for_readers() -> None:
    """Wait some seconds at most for a slow reader, because the process is to stop."""
    global _stopping
    _stopping = True


def _coping(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed by the shell; the descriptor must not become another file's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        is_standard = stream.fileno() == descriptor
    except OSError:  # none of the operating system's, as a test or a notebook may put there
        is_standard = False
    if not is_standard or not hasattr(select, "poll"):
        return stream
    stream.flush()
    raw = StandardStream(descriptor)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="mnist_lab.lookalike",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _lookalike(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace a character that an encoding lacks; a byte of a file's name that is no character stays that byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    is_of_a_box = 0x2500 <= ord(character) <= 0x257F
    return LOOKALIKES.get(character, "+" if is_of_a_box else "?"), error.start + 1


codecs.register_error("mnist_lab.lookalike", _lookalike)


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a LabError, or a full disk, into one line on stderr and an exit status; HYDRA_FULL_ERROR=1 shows where."""
    try:
        yield
    except LabError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        _print_error(f"mnist_lab: {printable(str(error))}", by_all=isinstance(error, ProcessLost))
        raise SystemExit(error.exit_status) from None
    except OSError as error:
        if error.errno not in DISK_FULL or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _print_error(f"mnist_lab: {error.filename or 'the run folder'}: {error.strerror}; make room")
        raise SystemExit(LabError.exit_status) from None


def _print_error(line: str, *, by_all: bool = False) -> None:
    """Print an error; one that all of a run's processes meet is printed by the first."""
    if by_all or rank() == 0:
        print(line, file=sys.stderr)
