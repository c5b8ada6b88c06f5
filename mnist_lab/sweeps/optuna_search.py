"""hydra/sweeper=optuna: a search for the best settings with Optuna, whose trials are jobs.

The study is study.journal in the sweep's folder, and the same command continues it. Hydra's own Optuna sweeper needs
Optuna 2, which today's SQLAlchemy breaks.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mnist_lab.config.overrides import Override
from mnist_lab.errors import UsageError
from mnist_lab.files import write_text
from mnist_lab.formatting import print_lines
from mnist_lab.runs.record import COMPLETE, DONE, RunState
from mnist_lab.runs.run import Run
from mnist_lab.runs.sweep import Sweep
from mnist_lab.sweeps.loop import Loop, open_sweep
from mnist_lab.sweeps.plan import Plan


@dataclass
class Search:
    """A sweep over values that Optuna chooses, one batch of jobs after the other.

    Args:
        n_trials: the number of jobs.
        seed: the seed of the sampler.
        prune_after: the number of epochs after which bad jobs are stopped; None for never.
        params: the searched values by key, in Hydra's grammar; an override on the command line replaces those of its
            key.
    """

    n_trials: int
    seed: int
    prune_after: int | None = None
    params: dict[str, str] | None = None

    def run(self, plan: Plan) -> None:
        space = make_space(plan.overrides)
        if self.n_trials < 1:
            raise UsageError(f"hydra.sweeper.n_trials={self.n_trials}: must be 1 or more")
        if not plan.swept:
            raise UsageError("hydra/sweeper=optuna: there is nothing to search; leave a setting of its params open")
        if plan.cfg.detach:
            raise UsageError("--detach: a search draws settings while its jobs run; run it in tmux, or with nohup")
        plan.launcher.check(self.n_trials)
        print_lines(f"searched: {', '.join(space)} (KEY=VALUE takes one out)")
        with open_sweep(plan, {}, self.n_trials) as loop:
            self.search(plan, loop, space)

    def search(self, plan: Plan, loop: Loop, space: dict[str, BaseDistribution]) -> None:
        """Draw settings, run their jobs and report the results, batch by batch, until the study has its trials.

        A trial whose job has failed or was stopped stays open, and the next start of the search runs that job again.
        The settings of a batch depend on earlier batches alone, so that a killed search draws the same ones again.
        """
        sweep, study = plan.sweep, open_study(plan.sweep.folder, self.prune_after)
        tried: set[int] = set()
        while batch := next_batch(study, self.n_trials, plan.launcher.parallel_jobs, tried):
            tried |= set(batch)
            planned: dict[str, list[str]] = {}
            ids: dict[int, str] = {}
            for number in batch:
                overrides = set_values(plan.overrides, draw_params(study, number, space, self.seed))
                ids[number], _ = plan.compose_job(overrides, number)
                planned.setdefault(ids[number], overrides)
            prune = {"_target_": "mnist_lab.sweeps.optuna_search.Prune", "prune_after": self.prune_after}
            callbacks = {id: prune | {"number": number} for number, id in ids.items()}
            sweep.plan(planned, callbacks if self.prune_after is not None else dict.fromkeys(callbacks))
            loop.run([job.id for job in sweep.read_jobs(list(planned)) if job.state not in COMPLETE])
            jobs = {job.id: job for job in sweep.read_jobs(list(planned))}
            if any(job.state not in DONE for job in jobs.values()):
                return  # The sweep is stopping.
            for number, id in ids.items():
                accuracy = jobs[id].info.get("metrics", {}).get(sweep.metric)
                if jobs[id].state == RunState.PRUNED and accuracy is not None:
                    study.tell(number, state=TrialState.PRUNED)
                elif jobs[id].state != RunState.FAILED and accuracy is not None:
                    study.tell(number, accuracy)


def open_study(folder: Path, prune_after: int | None = None) -> optuna.Study:
    """Create the study of a sweep, or open it to continue it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = str(Sweep(folder).study_path)
    lock: Any = FileLock(f"{journal}.lock")  # Optuna's own locks outlive a killed process, and block the next one.
    return optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(journal, lock)),
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=prune_after or 0),
    )


def find_trial(study: optuna.Study, number: int) -> optuna.Trial:
    """Return a trial of a study by its number."""
    return optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)  # There is no public way.


def next_batch(study: optuna.Study, n_trials: int, size: int, tried: Collection[int]) -> list[int]:
    """Return the numbers of the trials to run next; empty at the end of the search."""
    # Batches end at multiples of their size, so that a search killed in a batch continues with the same batches.
    trials = study.get_trials(deepcopy=False)
    untried = [trial.number for trial in trials if not trial.state.is_finished() and trial.number not in tried]
    first = untried[0] if untried else len(trials)
    end = min(n_trials, (first // size + 1) * size)
    return [*(number for number in untried if number < end), *range(len(trials), end)]


def draw_params(study: optuna.Study, number: int, space: Mapping[str, BaseDistribution], seed: int) -> dict[str, Any]:
    """Return the settings of a trial, drawn now unless an earlier start has drawn them."""
    # Each setting has a seed of its own, so that a kill between two of them changes neither.
    if number == len(study.get_trials(deepcopy=False)):
        study.ask()
    trial = find_trial(study, number)
    for place, (key, dist) in enumerate(space.items()):
        (sampler_seed,) = np.random.SeedSequence([seed, number, place]).generate_state(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # Before Optuna 5, constant_liar is experimental.
            study.sampler = TPESampler(seed=int(sampler_seed), constant_liar=True)
        suggest(trial, key, dist)
    return dict(trial.params)


def suggest(trial: optuna.Trial, key: str, dist: BaseDistribution) -> None:
    """Draw a trial's value of a setting, unless the trial has one."""
    if isinstance(dist, CategoricalDistribution):
        trial.suggest_categorical(key, dist.choices)
    elif isinstance(dist, IntDistribution):
        trial.suggest_int(key, dist.low, dist.high, log=dist.log)
    elif isinstance(dist, FloatDistribution):
        trial.suggest_float(key, dist.low, dist.high, log=dist.log)


def draw_jobs(overrides: Sequence[Override], count: Any, seed: int) -> list[list[str]]:
    """Return the overrides of each of this number of jobs, the same ones for the same seed."""
    if not isinstance(count, int) or count < 1:
        raise UsageError(f"hydra.sweeper.n_candidates={count}: must be a whole number from 1 on, or null for a grid")
    space = make_space(overrides)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    return [set_values(overrides, study.ask(space).params) for _ in range(count)]


def make_space(overrides: Sequence[Override]) -> dict[str, BaseDistribution]:
    """Return the distribution of each swept key."""
    swept = [override for override in overrides if override.is_sweep_override()]
    return {str(override.get_key_element()): make_distribution(override) for override in swept}


def make_distribution(override: Override) -> BaseDistribution:
    """Return the distribution of a swept override: a,b and range() as they are, interval(), int(), tag(log, ...)."""
    sweep: Any = override.value()
    key = override.key_or_group
    if override.is_discrete_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if override.is_interval_sweep():
        log, low, high = "log" in sweep.tags, sweep.start, sweep.end
        if not low < high or (log and low <= 0):
            raise UsageError(f"{key}={override.get_value_string()}: needs low < high, and low > 0 with tag(log)")
        if isinstance(low, int) and isinstance(high, int):  # An interval has int ends only in int(interval(...)).
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    raise UsageError(f"{key}={override.get_value_string()}: cannot be searched; use a,b or interval(LOW,HIGH)")


def set_values(overrides: Sequence[Override], params: Mapping[str, Any]) -> list[str]:
    """Return overrides with drawn values in the place of the swept ones; numbers are rounded to four digits."""
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    values = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in params.items()}
    return [*fixed, *(f"{key}={value}" for key, value in values.items())]


class Prune(Callback):
    """Stops a job, which is a trial of its sweep's study, if its accuracy is below the median of others at that epoch.

    The run is tested like any other, and its status is "pruned".
    """

    def __init__(self, *, number: int, prune_after: int) -> None:
        self.number, self.prune_after = number, prune_after

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop a job that was killed after it was pruned, at the epoch where it was pruned."""
        self.run = Run(Path(trainer.default_root_dir))
        sweep = Sweep(self.run.folder.parent)
        self.study, self.metric = open_study(sweep.folder, self.prune_after), sweep.metric
        if self.run.pruned_path.exists() and trainer.current_epoch >= int(self.run.pruned_path.read_text("utf-8")):
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or self.metric not in trainer.callback_metrics:
            return
        trial = find_trial(self.study, self.number)
        epochs = trainer.current_epoch + 1
        if epochs not in self.study.get_trials(deepcopy=False)[self.number].intermediate_values:
            trial.report(float(trainer.callback_metrics[self.metric]), epochs)
        if trial.should_prune():
            write_text(self.run.pruned_path, f"{epochs}\n")
            trainer.should_stop = True
