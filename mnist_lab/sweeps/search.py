"""A search for the best settings, on Optuna: it asks for settings, a job tries them, it is told what they came to.

The study lies in the sweep's folder, study.journal, and is gone on with by the same command. Hydra's own Optuna sweeper
needs Optuna 2, which today's SQLAlchemy breaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mnist_lab.errors import BadInput, told_in_one_line
from mnist_lab.sweeps.launch import id_of, launch, refuse_to_sweep, running
from mnist_lab.sweeps.launchers import parallel_jobs, refuse_more_than_memory
from mnist_lab.sweeps.sweep import Sweep, key_of

OVER = (TrialState.COMPLETE, TrialState.PRUNED)


def sweep_optuna(sweeper: Any, arguments: list[str]) -> list[Any]:
    """The work of hydra/sweeper=optuna."""
    with told_in_one_line():
        parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
        given = parser.parse_overrides(arguments)
        keys = {override.key_or_group for override in given}
        own = [f"{key}={value}" for key, value in sweeper.params.items() if key not in keys]
        overrides = [*given, *parser.parse_overrides(own)]
        space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
        fixed = [override.input_line for override in overrides if not override.is_sweep_override()]
        refuse_to_sweep([key_of(key) for key in space])
        if sweeper.n_trials < 1:
            raise BadInput(f"hydra.sweeper.n_trials={sweeper.n_trials}: must be 1 or more")
        if not space:
            raise BadInput("hydra/sweeper=optuna: there is nothing to search; leave a setting of its params open")
        at_once = parallel_jobs(sweeper.config.hydra.launcher)
        refuse_more_than_memory(sweeper.config.hydra.launcher, sweeper.n_trials)
        with running(sweeper, [key_of(key) for key in space], {}) as sweep:
            search(sweeper, sweep, space, [override for override in fixed if override], at_once)
    return []


def search(sweeper: Any, sweep: Sweep, space: dict[str, BaseDistribution], fixed: Sequence[str], at_once: int) -> None:
    """Ask, launch and tell until the study has its trials."""
    study = open_study(sweep.folder, sweeper.prune_after)
    again = unfinished(study)
    for params in again:
        study.enqueue_trial(params)
    failed_before = count(study, TrialState.FAIL)
    while (left := sweeper.n_trials - count(study, *OVER, TrialState.FAIL) + failed_before) > 0:
        asked = []
        for number in range(min(left, at_once)):
            # A sampler for each: a search that is gone on with does not draw what it has drawn before.
            study.sampler = optuna.samplers.TPESampler(seed=sweeper.seed + count(study, *OVER) + number)
            asked.append(study.ask(space))
        jobs, ids = {}, []
        for trial in asked:
            overrides = [*fixed, *(f"{key}={typed(value)}" for key, value in trial.params.items())]
            ids.append(id_of(sweeper, overrides))
            jobs[ids[-1]] = [*overrides, watched_by(sweep.folder, trial.number, sweeper.prune_after)]
        sweep.plan(jobs)
        states = {job.id: job.state for job in sweep.jobs()}
        launch(sweeper, sweep, {id: jobs[id] for id in jobs if states[id] != "finished"})
        found = {job.id: job for job in sweep.jobs()}
        if any(found[id].state not in ("finished", "failed") for id in ids):
            return  # told to stop
        for trial, id in zip(asked, ids, strict=True):
            accuracy = found[id].info.get("metrics", {}).get("val/acc")
            if found[id].state == "failed" or accuracy is None:
                study.tell(trial, state=TrialState.FAIL)
            elif study.get_trials(deepcopy=False)[trial.number].user_attrs.get("pruned"):
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, accuracy)


def open_study(folder: Path, prune_after: int | None = None) -> optuna.Study:
    """The study of a sweep, new or to go on with."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(str(folder / "study.journal"))),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=prune_after or 0),
        direction="maximize",
        load_if_exists=True,
    )


def count(study: optuna.Study, *states: TrialState) -> int:
    """How many trials are in one of these states."""
    return sum(trial.state in states for trial in study.get_trials(deepcopy=False))


def unfinished(study: optuna.Study) -> list[dict[str, Any]]:
    """The settings of earlier starts' trials that came to no value, to be tried again; those trials are failed."""
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
    tried = [trial.params for trial in trials if trial.state in OVER]
    left = [trial.params for trial in trials if trial.state not in OVER and trial.params not in tried]
    return [params for number, params in enumerate(left) if params and params not in left[:number]]


def distribution(override: Override) -> BaseDistribution:
    """What Optuna draws from for a swept override: a,b and range() as they are, interval(), int() and tag(log, ...)."""
    sweep: Any = override.value()
    key = override.key_or_group
    if override.is_discrete_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if override.is_interval_sweep():
        log, low, high = "log" in sweep.tags, sweep.start, sweep.end
        if not low < high or (log and low <= 0):
            raise BadInput(f"{key}={override.get_value_string()}: an interval goes up, and from above 0 with tag(log)")
        if isinstance(low, int) and isinstance(high, int):  # int(interval(...))
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    raise BadInput(f"{key}={override.get_value_string()}: cannot be searched; use a,b or interval(LOW,HIGH)")


def typed(value: Any) -> str:
    """A value in an override; a number that was drawn with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def watched_by(folder: Path, number: int, prune_after: int | None) -> str:
    """The override that lets a job tell its study how it does."""
    if prune_after is None:
        return "callbacks.prune=null"
    own = f"_target_:mnist_lab.sweeps.search.Prune,folder:'{folder}',number:{number},prune_after:{prune_after}"
    return f"callbacks.prune={{{own}}}"


class Prune(Callback):
    """Stops a job whose validation accuracy is, after an epoch, below the median of the others' at that epoch.

    The run ends as any: it is tested, and finished, with fewer epochs.

    Args:
        folder: the sweep's.
        number: of the trial in its study.
        prune_after: epochs that every job may do.
    """

    def __init__(self, *, folder: str, number: int, prune_after: int) -> None:
        self.folder, self.number, self.prune_after = Path(folder), number, prune_after
        self.trial: optuna.Trial | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or "val/acc" not in trainer.callback_metrics:
            return
        if self.trial is None:
            study = open_study(self.folder, self.prune_after)
            self.trial = optuna.Trial(study, study.get_trials(deepcopy=False)[self.number]._trial_id)
        self.trial.report(float(trainer.callback_metrics["val/acc"]), trainer.current_epoch)
        if self.trial.should_prune():
            self.trial.set_user_attr("pruned", True)
            trainer.should_stop = True
