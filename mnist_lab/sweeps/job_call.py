"""A job of a sweep as something that any process can call."""

import os
import pickle
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from mnist_lab.errors import Interrupted, UsageError
from mnist_lab.files import atomic_write
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.process import import_torch, own_process
from mnist_lab.sweeps.through_hydra import ErrorThroughHydra


@dataclass(frozen=True)
class HydraSession:
    """What Hydra needs to run jobs of a sweep, in this process or in another."""

    context: HydraContext
    config: DictConfig  # the sweep's whole configuration, with Hydra's
    task: TaskFunction

    def run(self, overrides: Sequence[str], number: int) -> None:
        """Run a job as Hydra does."""
        import_torch()
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)
        done = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)  # closes the job's train.log
        if done.status == JobStatus.FAILED:
            done.return_value  # noqa: B018, raises the exception

    @property
    def sweep(self) -> Sweep:
        """The sweep that the session belongs to."""
        return Sweep(Path(self.config.hydra.sweep.dir).absolute())

    def save(self) -> None:
        """Write the session, with this process's global state of Hydra, search path and current folder."""
        with atomic_write(self.sweep.session_path) as partial:
            partial.write_bytes(cloudpickle.dumps((self, Singleton.get_state(), sys.path, Path.cwd())))


@cache
def load_session(folder: Path) -> HydraSession:
    """Return the session of a sweep, having made this process one as the sweep's own."""
    here = socket.gethostname()
    try:
        session, state, search_path, current = pickle.loads(Sweep(folder).session_path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(
            f"runs_dir: {folder} is not on {here}; choose a runs_dir on a file system that all machines share"
        ) from error
    try:
        os.chdir(current)
    except OSError as error:
        raise UsageError(f"{current}: is not on {here}; start the sweep in a folder that all machines share") from error
    sys.path += [place for place in search_path if place not in sys.path]
    setup_globals()
    Singleton.set_state(state)
    return session  # type: ignore[no-any-return]


@dataclass(frozen=True)
class JobCall:
    """A job of a sweep, to be called in another process, on this machine or another."""

    folder: Path  # the sweep's
    overrides: tuple[str, ...]
    number: int  # its place in the sweep

    def __call__(self) -> bool:
        """Run the job."""
        own_process()
        try:
            load_session(self.folder).run(self.overrides, self.number)
        except Interrupted:
            return False
        except ErrorThroughHydra as carried:
            raise carried.error from None
        return True
