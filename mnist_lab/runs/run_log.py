"""The log of a run: warnings on the terminal, everything in train.log in its folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_lab.formatting import LogFormatter
from mnist_lab.runs.run import Run


class RunLog(logging.FileHandler):
    """Writes into a run's folder, but nothing before it has a record, so that a refused run leaves no file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.run, self.pending = Run(path.parent), list[logging.LogRecord]()
        self.setFormatter(LogFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if "💡 Tip" not in str(record.msg):  # Lightning advertises a package.
            self.pending.append(record)
            self._write_pending()

    def close(self) -> None:
        self._write_pending()  # The run may have its record only since the last message.
        super().close()

    def _write_pending(self) -> None:
        if self.stream or self.run.exists or self.run.job_path.exists():
            for pending in self.pending:
                super().emit(pending)
            self.pending.clear()


@contextmanager
def run_log(folder: Path, name: str = "train") -> Iterator[None]:
    """Log warnings on the terminal, and everything in NAME.log in the run folder, during the block."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(LogFormatter("%(message)s"))
    root.handlers[:] = [terminal, RunLog(folder / f"{name}.log")]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
