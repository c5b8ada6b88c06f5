"""User errors on their way through Hydra, which would print a traceback of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from mnist_lab.errors import DISK_FULL, LabError


class ErrorThroughHydra(SystemExit):
    """A user error or a full disk, as the one exception that Hydra lets pass without a word."""

    def __init__(self, error: LabError | OSError) -> None:
        super().__init__(error.exit_status if isinstance(error, LabError) else LabError.exit_status)
        self.error = error


@contextmanager
def carry_through_hydra() -> Iterator[None]:
    """Raise a user error, or a full disk, of the block as ErrorThroughHydra."""
    try:
        yield
    except LabError as error:
        raise ErrorThroughHydra(error) from error
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise ErrorThroughHydra(error) from error
