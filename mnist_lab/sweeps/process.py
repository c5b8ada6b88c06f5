"""Settings for a whole process: the command line's own, or a worker's of a sweep. From Python none is made."""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def schema_warning_ignored() -> Iterator[None]:
    """Ignore Hydra's warning that conf/hydra/launcher has names of the launchers' own schemas, which is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
        yield


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 1 GB, for its next use: on Linux, with glibc; nothing elsewhere.

    By default large blocks go back to the kernel in every step, which clears them page by page to give them out again
    in the next one: up to half of a convolutional network's step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 32 * 2**20)  # the most that glibc takes
        mallopt(m_trim_threshold, 2**30)
