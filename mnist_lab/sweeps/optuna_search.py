"""A search for the best settings, on Optuna: it asks for settings, and a job tries them.

The study lies in the sweep's folder, study.journal, and is continued by the same command. Hydra's own Optuna sweeper
needs Optuna 2, which today's SQLAlchemy breaks.
"""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.config.overrides import Override
from mnist_lab.errors import UsageError
from mnist_lab.files import write_text
from mnist_lab.formatting import print_lines
from mnist_lab.runs.record import COMPLETE, DONE, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.loop import Loop, running
from mnist_lab.sweeps.plan import Plan

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {"random": RandomSampler, "qmc": QMCSampler}


@dataclass
class Search:
    """A sweep over Optuna's choice of values, one batch of jobs after the other.

    Args:
        n_trials: jobs in all.
        seed: seed of the sampler.
        prune_after: epochs that every job may train before a bad one is stopped; None for all.
        params: what is searched, by key, in Hydra's grammar, where the command line does not say.
    """

    n_trials: int
    seed: int
    prune_after: int | None = None
    params: dict[str, str] | None = None

    def run(self, plan: Plan) -> None:
        space = {str(each.get_key_element()): distribution(each) for each in plan.overrides if each.is_sweep_override()}
        if self.n_trials < 1:
            raise UsageError(f"hydra.sweeper.n_trials={self.n_trials}: must be 1 or more")
        if not plan.swept:
            raise UsageError("hydra/sweeper=optuna: there is nothing to search; leave a setting of its params open")
        if plan.cfg.detach:
            raise UsageError("--detach: a search asks for settings while its jobs run; run it in tmux, or with nohup")
        plan.launcher.check(self.n_trials)
        print_lines(f"searched: {', '.join(space)} (KEY=VALUE takes one out)")
        with running(plan, {}) as loop:
            self.search(plan, loop, space)

    def search(self, plan: Plan, loop: Loop, space: dict[str, BaseDistribution]) -> None:
        """Ask for settings, run their jobs and report the results, batch by batch, until the study has its trials.

        A trial whose job failed or was stopped stays open: the next start of the search runs that job again. What a
        batch asks for depends on the batches before it alone, so a search that was killed asks for the same again.
        """
        sweep, study = plan.sweep, open_study(plan.sweep.folder, self.prune_after)
        fixed = [str(override.input_line) for override in plan.overrides if not override.is_sweep_override()]
        tried: set[int] = set()
        while batch := next_batch(study, self.n_trials, plan.launcher.at_once, tried):
            tried |= set(batch)
            jobs: dict[str, list[str]] = {}
            ids: dict[int, str] = {}
            for number in batch:
                params = ask(study, number, space, self.seed)
                overrides = [*fixed, *(f"{key}={format_sample(value)}" for key, value in params.items())]
                ids[number], _ = plan.compose_job(overrides, number)
                jobs.setdefault(ids[number], overrides)
            sweep.plan(jobs, {id: self.prune_callback(sweep.folder, number) for number, id in ids.items()})
            loop.run([job.id for job in sweep.read_jobs(list(jobs)) if job.state not in COMPLETE])
            found = {job.id: job for job in sweep.read_jobs(list(jobs))}
            if any(job.state not in DONE for job in found.values()):
                return  # The sweep is stopping.
            for number, id in ids.items():
                accuracy = found[id].info.get("metrics", {}).get(VAL_ACC)
                if found[id].state == RunState.FAILED or accuracy is None:
                    continue
                was_pruned = found[id].state == RunState.PRUNED
                study.tell(number, **({"state": TrialState.PRUNED} if was_pruned else {"values": accuracy}))

    def prune_callback(self, folder: Path, number: int) -> dict[str, Any] | None:
        """Return the callback by which a job reports to its study."""
        if self.prune_after is None:
            return None
        own = {"folder": str(folder), "number": number, "prune_after": self.prune_after}
        return {"_target_": "mnist_lab.sweeps.optuna_search.Prune", **own}


class SweepStudy(optuna.Study):
    """A study that returns its trials by their numbers."""

    def __init__(self, name: str, storage: JournalStorage, pruner: optuna.pruners.BasePruner) -> None:
        super().__init__(name, storage, pruner=pruner)
        self.storage = storage

    def trial(self, number: int) -> optuna.Trial:
        """Return a trial by its number."""
        study = self.storage.get_study_id_from_name(self.study_name)
        return optuna.Trial(self, self.storage.get_trial_id_from_study_id_trial_number(study, number))


def open_study(folder: Path, prune_after: int | None = None) -> SweepStudy:
    """Return the study of a sweep, new or to continue."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = str(Sweep(folder).study_path)
    lock: Any = FileLock(f"{journal}.lock")  # Optuna's own locks outlive a killed process, and are waited for
    storage = JournalStorage(JournalFileBackend(journal, lock))
    optuna.create_study(study_name="sweep", storage=storage, direction="maximize", load_if_exists=True)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=prune_after or 0)
    return SweepStudy("sweep", storage, pruner)


def next_batch(study: optuna.Study, n_trials: int, at_once: int, tried: Collection[int]) -> list[int]:
    """Return the numbers of the trials to run next; empty where the search is over.

    Batches end at multiples of their size, so that a search that was killed within one continues with the same ones.
    """
    trials = study.get_trials(deepcopy=False)
    left = [trial.number for trial in trials if not trial.state.is_finished() and trial.number not in tried]
    first = left[0] if left else len(trials)
    end = min(n_trials, (first // at_once + 1) * at_once)
    return [*(number for number in left if number < end), *range(len(trials), end)]


def ask(study: SweepStudy, number: int, space: Mapping[str, BaseDistribution], seed: int) -> dict[str, Any]:
    """Return the settings of a trial, drawn now unless they were drawn before.

    Each is drawn with a seed of its own, so that a kill between two of them changes neither.
    """
    if number == len(study.get_trials(deepcopy=False)):
        study.ask()
    trial = study.trial(number)
    for place, (key, dist) in enumerate(space.items()):
        (own_seed,) = np.random.SeedSequence([seed, number, place]).generate_state(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # constant_liar, before Optuna 5
            study.sampler = optuna.samplers.TPESampler(seed=int(own_seed), constant_liar=True)
        suggest(trial, key, dist)
    return dict(trial.params)


def suggest(trial: optuna.Trial, key: str, dist: BaseDistribution) -> None:
    """Draw a trial's value of a setting, unless it has one."""
    if isinstance(dist, CategoricalDistribution):
        trial.suggest_categorical(key, dist.choices)
    elif isinstance(dist, IntDistribution):
        trial.suggest_int(key, dist.low, dist.high, log=dist.log)
    elif isinstance(dist, FloatDistribution):
        trial.suggest_float(key, dist.low, dist.high, log=dist.log)


def draw(swept: Sequence[Override], count: int, sampler: str, seed: int) -> list[list[str]]:
    """Return so many lists of overrides, the same ones for the same seed."""
    if not isinstance(count, int) or count < 1:
        raise UsageError(f"hydra.sweeper.n_candidates={count}: must be a whole number from 1 on, or null for a grid")
    if sampler not in SAMPLERS:
        raise UsageError(f"hydra.sweeper.sampler={sampler}: choose from {', '.join(SAMPLERS)}")
    space = {str(override.get_key_element()): distribution(override) for override in swept}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # QMCSampler, before Optuna 5
        study = optuna.create_study(sampler=SAMPLERS[sampler](seed=seed))
        trials = [study.ask(space) for _ in range(count)]
    return [[f"{key}={format_sample(value)}" for key, value in trial.params.items()] for trial in trials]


def distribution(override: Override) -> BaseDistribution:
    """Return what Optuna draws a swept override from: a,b and range() as they are, interval(), int(), tag(log, ...)."""
    sweep: Any = override.value()
    key = override.key_or_group
    if override.is_discrete_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if override.is_interval_sweep():
        log, low, high = "log" in sweep.tags, sweep.start, sweep.end
        if not low < high or (log and low <= 0):
            raise UsageError(f"{key}={override.get_value_string()}: needs low < high, and low > 0 with tag(log)")
        if isinstance(low, int) and isinstance(high, int):  # int(interval(...))
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    raise UsageError(f"{key}={override.get_value_string()}: cannot be searched; use a,b or interval(LOW,HIGH)")


def format_sample(value: Any) -> str:
    """Return a value as an override has it: a number that was drawn with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Prune(Callback):
    """Stops a job whose validation accuracy is, after an epoch, below the median of the others' at that epoch.

    The run is tested as any, and its status is "pruned".

    Args:
        folder: the sweep's.
        number: of the trial in its study.
        prune_after: epochs that every job may do.
    """

    def __init__(self, *, folder: str, number: int, prune_after: int) -> None:
        self.folder, self.number, self.prune_after = Path(folder), number, prune_after
        self.study: SweepStudy | None = None  # opened in the job's own process

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop a resumed job where it was stopped before it was killed."""
        mark = Run(Path(trainer.default_root_dir)).pruned_path
        if mark.exists() and trainer.current_epoch >= int(mark.read_text(encoding="utf-8")):
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or VAL_ACC not in trainer.callback_metrics:
            return
        self.study = self.study or open_study(self.folder, self.prune_after)
        trial = self.study.trial(self.number)
        epochs = trainer.current_epoch + 1
        if epochs not in self.study.get_trials(deepcopy=False)[self.number].intermediate_values:
            trial.report(float(trainer.callback_metrics[VAL_ACC]), epochs)
        if trial.should_prune():
            write_text(Run(Path(trainer.default_root_dir)).pruned_path, f"{epochs}\n")
            trainer.should_stop = True
