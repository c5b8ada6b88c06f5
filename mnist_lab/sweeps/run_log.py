"""The log of a run: warnings on the terminal, everything in train.log of its folder."""

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
    """Writes into a run's folder once it has a record; what was logged before, too. A refused run leaves no file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self.run, self.before = Run(path.parent), list[logging.LogRecord]()
        self.setFormatter(LogFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.before.append(record)
        if self.stream or self.run.exists or self.run.job_path.exists():
            for each in self.before:
                super().emit(each)
            self.before.clear()


@contextmanager
def run_log(folder: Path, settings: HydraSettings) -> Iterator[None]:
    """Log a run during the block, as the lab does or as the command line's hydra/job_logging says."""
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
    verbose = settings.verbose
    names = [verbose] if isinstance(verbose, str) else [""] * verbose if isinstance(verbose, bool) else verbose
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        root.setLevel(level)
