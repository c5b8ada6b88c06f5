"""Train several runs together in one process: each as if it were alone, but for their steps, which are taken at once.

Each run has a thread of its own. One of them works at a time, until it comes to its next steps; when all have come to
theirs, or ended, the steps of all are taken.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig
from torch import Tensor

from mnist_lab.data.batches import Group
from mnist_lab.models.classifier import Classifier
from mnist_lab.models.multistep import eager_steps, single_step_reason
from mnist_lab.models.stacked import (
    Member,
    Stack,
    StepsTaken,
    network_obstacle,
    training_obstacle,
)
from mnist_lab.training.build import make_model, make_trainer
from mnist_lab.training.checkpointing import SaveWithinEpochs
from mnist_lab.training.loggers import MetricsCSV
from mnist_lab.training.progress import console
from mnist_lab.training.runtime import quiet_lightning, torch_settings

STEPS_PER_EXECUTION = 500  # all but the last of them are taken together
LOGGERS = (MetricsCSV, TensorBoardLogger, CSVLogger)  # of which a process may have several at work
SMALLEST_STACK = 3  # runs whose steps a thread takes, where there are several threads: fewer keep it busy with Python


def stacking_obstacle(cfg: DictConfig) -> str | None:
    """Return what prevents runs of a configuration from being trained together, or from gaining by it; None if nothing.

    Raises:
        UsageError: the network, the optimizer or the Trainer cannot be made.
    """
    model = make_model(cfg)
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # of Lightning, about devices
    try:
        with quiet_lightning():
            trainer = make_trainer(cfg, MetricsCSV(Path(cfg.folder)))
    finally:
        logging.disable(disabled)
    optimizer, _, interval = model.make_optimizer(model.parameters(), steps_per_epoch=100)
    trackers = (type(logger).__name__ for logger in trainer.loggers if not isinstance(logger, LOGGERS))
    return (
        network_obstacle(model)
        or single_step_reason(trainer, model, Classifier)
        or training_obstacle(trainer, optimizer, moves_each_step=interval == "step")
        or next(trackers, None)
    )


@dataclass(frozen=True)
class ProcessState:
    """What a run sets for its process and other runs set differently: random states, Hydra's settings, log files."""

    torch: Tensor = field(default_factory=torch.get_rng_state)
    numpy: Any = field(default_factory=np.random.get_state)
    python: Any = field(default_factory=random.getstate)
    hydra: Any = field(default_factory=lambda: HydraConfig.instance().cfg)
    handlers: list[logging.Handler] = field(default_factory=lambda: list(logging.root.handlers))

    def restore(self) -> None:
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        HydraConfig.instance().cfg = self.hydra
        logging.root.handlers[:] = self.handlers


class StackedRun:
    """A run in a thread of its own, which works only while `proceed` waits for it.

    Args:
        train: trains the run.
        runs: all of them.
    """

    current: ContextVar[StackedRun | None] = ContextVar("stacked_run", default=None)

    def __init__(self, train: Callable[[], None], runs: StackedRuns) -> None:
        self.train, self.runs = train, runs
        self.member: Member | None = None  # while it waits for its steps to be taken
        self.taken: StepsTaken | BaseException | None = None
        self.error: BaseException | None = None
        self.state: ProcessState | None = None
        self.may_work, self.pauses = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._main, daemon=True)

    def proceed(self) -> None:
        """Let the run work until it comes to its next steps, or ends."""
        before, self.member = self.state, None
        if before is None:
            self.thread.start()
        else:
            before.restore()
        self.may_work.release()
        self.pauses.acquire()
        self.state = ProcessState()
        if self.member is None and before is not None:
            for handler in before.handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.close()  # another run's settings of the logs had closed it, and a later message opened it

    def _main(self) -> None:
        self.may_work.acquire()
        StackedRun.current.set(self)
        try:
            self.train()
        except BaseException as error:
            self.error = error
        self.pauses.release()

    def wait_for_steps(self, model: Classifier, group: Group) -> StepsTaken | None:
        """Wait until steps are taken with those of the other runs; None if they cannot be."""
        self.taken = None
        trainer = model.trainer
        moves_each_step = any(each.interval == "step" for each in trainer.lr_scheduler_configs)
        obstacle = network_obstacle(model) or training_obstacle(
            trainer, trainer.optimizers[0], moves_each_step=moves_each_step
        )
        if group.steps and obstacle is None:
            self.member = Member(model, group)
            self.pauses.release()
            self.may_work.acquire()
        if isinstance(self.taken, BaseException):
            raise self.taken
        return self.taken


def stacked_steps(model: Classifier, group: Group) -> Iterator[Tensor]:
    """Take the steps of a group with those of the runs that train together with this one, or else alone."""
    run = StackedRun.current.get()
    assert run is not None
    taken = run.wait_for_steps(model, group)
    yield from eager_steps(model, group) if taken is None else _report(model, group, taken)
    if run.runs.stopping:
        for callback in model.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, SaveWithinEpochs):
                callback.stop = SIGTERMException()


def _report(model: Classifier, group: Group, taken: StepsTaken) -> Iterator[Tensor]:
    """Yield the losses of steps that have been taken, as if each had just been."""
    finite = bool(taken.losses.isfinite().all())
    for step, loss in zip(group.steps, taken.losses, strict=True):
        if not finite:
            model.stop_unless_finite(loss)
        group.batches.position = step + 1
        yield loss
    model.train_metrics.add(taken.losses.mean(), taken.scores, taken.labels)


class StackedRuns:
    """Runs that train together.

    Args:
        runs: what trains each; a `train` in there finds the run in `StackedRun.current`.
        threads: how many threads take steps.
    """

    def __init__(self, runs: Sequence[Callable[[], None]], threads: int) -> None:
        self.runs = [StackedRun(run, self) for run in runs]
        self.threads = threads
        self.stopping = False

    def train(self) -> None:
        """Train all runs to their ends.

        Raises:
            BaseException: the first error of a run, after all have ended.
        """
        with _shared_process(), ThreadPoolExecutor(self.threads) as pool:
            state = ProcessState()
            for run in self.runs:
                if not self.stopping:
                    state.restore()
                    run.proceed()
            while waiting := [run for run in self.runs if run.member is not None]:
                self._take_steps(waiting, pool)
                for run in waiting:
                    run.proceed()
        for run in self.runs:
            if run.error is not None:
                raise run.error

    def stop(self) -> None:
        """Let each run save and end at its next steps; those that have not begun do not begin."""
        self.stopping = True

    def _take_steps(self, runs: Sequence[StackedRun], pool: ThreadPoolExecutor) -> None:
        """Take the steps that runs wait for, at once for those that are alike.

        A run without any like it is a stack, too: what it computes does not depend on the others.
        """
        alike: dict[Hashable, list[tuple[Member, StackedRun]]] = {}
        for run in runs:
            assert run.member is not None
            alike.setdefault(run.member.structure, []).append((run.member, run))
        stacks: list[tuple[Stack, list[StackedRun]]] = []
        for same in alike.values():
            same.sort(key=lambda each: (each[0].group.batches.seed, each[0].group.batches.epoch))  # who share batches
            count = max(1, min(self.threads, len(same) // SMALLEST_STACK))
            for number in range(count):
                part = same[len(same) * number // count : len(same) * (number + 1) // count]
                stack = Stack([member for member, _ in part])
                if stack.scores_as_alone():
                    stacks.append((stack, [run for _, run in part]))
        for (_, together), taken in zip(stacks, pool.map(lambda stack: _taken(stack[0]), stacks), strict=True):
            for number, member_run in enumerate(together):
                member_run.taken = taken if isinstance(taken, BaseException) else taken[number]


@contextmanager
def _shared_process() -> Iterator[None]:
    """The settings that all runs make for the process, each of which would end with the first run to end."""
    quiet = console.quiet
    before = ProcessState()
    console.quiet = True
    try:
        with torch_settings(1), quiet_lightning():
            yield
    finally:
        console.quiet = quiet
        before.restore()


def _taken(stack: Stack) -> list[StepsTaken] | BaseException:
    try:
        return stack.take_steps()
    except BaseException as error:
        return error
