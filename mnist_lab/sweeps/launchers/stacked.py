"""hydra/launcher=stacked: jobs of a small network that differ in a few numbers train together, the rest in turn."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig

from mnist_lab.config.compose import job_config
from mnist_lab.config.overrides import without_keys
from mnist_lab.errors import LabError
from mnist_lab.sweeps.job_call import HydraSession, JobCall
from mnist_lab.sweeps.launchers.launcher import Placement, Stage, processors
from mnist_lab.sweeps.launchers.local import LocalLauncher
from mnist_lab.sweeps.process import import_torch

if TYPE_CHECKING:
    from mnist_lab.training.stacked_runs import StackedRuns

MEMBER_KEYS = ("optimizer.lr", "optimizer.momentum", "optimizer.weight_decay", "seed")  # may differ within a stack
SMALLEST, LARGEST = 2, 24  # jobs of a stack


class StackedLauncher(LocalLauncher):
    """Trains jobs together in this process that differ in nothing but MEMBER_KEYS, and any others one after the other.

    Together are trained networks whose layers with weights are all linear, by SGD on a CPU: there it was measured to be
    faster. These jobs compute with one thread each, and the stack with as many as there are processors.
    """

    poll_seconds = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.stacks: list[dict[str, JobCall]] = []
        self.running: list[str] = []
        self.runs: StackedRuns | None = None
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    @property
    def at_once(self) -> int:
        return max(1, len(self.running))

    @property
    def threads(self) -> int | None:
        from mnist_lab.training.stacked_runs import StackedRun

        return 1 if StackedRun.current.get() else None

    def start(self, session: HydraSession, calls: Mapping[str, JobCall]) -> None:
        self.session = session
        alone = dict(calls)
        for alike in jobs_alike(calls):
            if len(alike) >= SMALLEST and can_be_stacked(session, calls[alike[0]].overrides):
                count = -(-len(alike) // LARGEST)
                for number in range(count):
                    self.stacks.append({id: alone.pop(id) for id in alike[number::count]})
        self.stages |= dict.fromkeys(calls, Placement(Stage.PENDING))
        super().start(session, alone)

    def poll(self) -> dict[str, Placement]:
        if self.thread is not None and not self.thread.is_alive():
            self.thread = None
            self.stages |= dict.fromkeys(self.running, Placement(Stage.ENDED))
            self.running = []
            if self.error is not None:
                raise self.error
        if self.thread is None and self.stacks:
            self._begin(self.stacks.pop(0))
        if self.thread is None:
            return super().poll()
        return self.stages

    def _begin(self, calls: Mapping[str, JobCall]) -> None:
        from mnist_lab.training.stacked_runs import StackedRuns

        jobs = [partial(self.session.run, call.overrides, call.number) for call in calls.values()]
        self.runs, self.running = StackedRuns(jobs, processors()), list(calls)
        self.stages |= dict.fromkeys(calls, Placement(Stage.RUNNING, place="stack"))
        self.placements = dict(self.stages)
        self.thread = threading.Thread(target=self._train, args=(self.runs,))
        self.thread.start()

    def _train(self, runs: StackedRuns) -> None:
        try:
            runs.train()
        except BaseException as error:
            self.error = error

    def cancel(self) -> list[str]:
        self.stacks.clear()
        if self.runs is not None:
            self.runs.stop()
        return super().cancel() + self.running

    def close(self) -> None:
        if self.thread is not None:
            self.thread.join()


def jobs_alike(calls: Mapping[str, JobCall]) -> list[list[str]]:
    """Return the ids of jobs in lists, in each of which they differ in MEMBER_KEYS alone."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for id, call in calls.items():
        alike.setdefault(tuple(without_keys(call.overrides, *MEMBER_KEYS)), []).append(id)
    return list(alike.values())


def can_be_stacked(session: HydraSession, overrides: Sequence[str]) -> bool:
    """Return whether jobs with these overrides can be trained together."""
    import_torch()
    from mnist_lab.sweeps.subprocess_job import is_distributed
    from mnist_lab.training.stacked_runs import stacking_obstacle

    instance = HydraConfig.instance()
    before = instance.cfg
    config = session.context.config_loader.load_sweep_config(session.config, list(overrides))
    instance.set_config(config)
    try:
        cfg = job_config(config)
        return not is_distributed(cfg) and stacking_obstacle(cfg) is None
    except LabError:
        return False  # the jobs will say what is wrong
    finally:
        instance.cfg = before
