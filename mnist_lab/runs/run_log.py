"""The log of a run: warnings on the terminal, everything in train.log in its folder."""

import logging
import logging.config
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_lab.config.compose import HydraSettings
from mnist_lab.files import make_folder
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
def run_log(folder: Path, settings: HydraSettings) -> Iterator[None]:
    """Log a run during the block: the lab's own way, or as hydra/job_logging says if the command line has it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    if settings.logging is None:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setLevel(logging.WARNING)
        terminal.setFormatter(LogFormatter("%(message)s"))
        root.handlers[:] = [terminal, RunLog(folder / f"{settings.log_name}.log")]
        root.setLevel(logging.INFO)
    else:
        make_folder(folder)
        logging.config.dictConfig(settings.logging)
    names = settings.verbose
    if isinstance(names, bool):
        names = [""] if names else []  # The root logger's name is empty.
    levels = {name: logging.getLogger(name).level for name in ([names] if isinstance(names, str) else names)}
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        for name, former_level in levels.items():
            logging.getLogger(name).setLevel(former_level)
        root.setLevel(level)
