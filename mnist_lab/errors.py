"""What a user can cause, told in one line; a programming error is none of these and keeps its traceback."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class LabError(Exception):
    """A failure that its message explains: what, where, and the remedy."""

    exit_status = 1


class BadInput(LabError, ValueError):
    """A setting, a file or a folder that cannot be used; nothing was started."""

    exit_status = 2


class DataUnavailable(LabError, ConnectionError):
    """The data set is not on this machine, and no source could bring it."""


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn a LabError, or a full disk, into one line on stderr and an exit status; HYDRA_FULL_ERROR=1 shows where."""
    try:
        yield
    except LabError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        print(f"mnist_lab: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"mnist_lab: {error.filename or 'the run folder'}: {error.strerror}; make room", file=sys.stderr)
        raise SystemExit(LabError.exit_status) from None
