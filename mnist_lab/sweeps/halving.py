"""Successive halving: all candidates train a little, the best of them are continued, and so on to the end.

Jamieson and Talwalkar, 2016 (arXiv 1502.07943); with several brackets, Hyperband: Li et al., 2018 (arXiv 1603.06560). A
candidate that is not continued stays paused in its run folder. One that is continued goes on from its last checkpoint
as if it had never stopped; schedulers are planned for the whole length from the start.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from rich.table import Table

from mnist_lab.config.metric_names import VAL_ACC
from mnist_lab.console import PlainConsole
from mnist_lab.errors import UsageError, not_installed
from mnist_lab.runs.record import DONE, RunState
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.sweeps.jobs import is_distributed
from mnist_lab.sweeps.loop import Loop, running
from mnist_lab.sweeps.plan import Plan, combinations

CHOICE = "hydra/sweeper=halving"


@dataclass(frozen=True)
class Rung:
    """The candidates of a bracket that have trained equally long."""

    epochs: int  # for which each has trained, unless it stopped early by itself
    candidates: int
    scores: dict[str, float]  # best validation accuracy by job id, the highest first; without those that failed


@dataclass
class Bracket:
    """Candidates that start together."""

    size: int  # how many candidates
    epochs: list[int]  # of each rung
    rungs: list[Rung] = field(default_factory=list)  # those that are done


@dataclass
class Halving:
    """A sweep by successive halving: many candidates for few epochs, the best of them for more.

    Args:
        min_epochs: epochs of the first rung.
        eta: each rung has eta times the epochs of the one before, and the best 1/eta of its candidates.
        brackets: how many times candidates start together, each time fewer and with more epochs.
        n_candidates: how many are drawn; None for every combination of the values.
        sampler: random or qmc, which draws them.
        seed: seed of the sampler and of the brackets.
        params: what is swept, by key, in Hydra's grammar, where the command line does not say.
    """

    min_epochs: int
    eta: int
    brackets: int
    n_candidates: int | None
    sampler: str
    seed: int
    params: dict[str, str] | None = None

    def run(self, plan: Plan) -> None:
        if not plan.swept:
            raise UsageError(f"{CHOICE}: there is nothing to compare; give a setting several values")
        if plan.cfg.detach:
            raise UsageError(f"--detach: {CHOICE} compares jobs while it runs; run it in tmux, or with nohup")
        candidates, max_epochs = self.compose_candidates(plan)
        brackets = plan_brackets(len(candidates), max_epochs, self.min_epochs, self.eta, self.brackets)
        plan.launcher.check(len(candidates))
        left = iter(candidates)
        with ExitStack() as at_end, running(plan, candidates) as loop:
            at_end.callback(show_brackets, brackets, plan.sweep, max_epochs)  # below the results, however it ends
            for bracket in brackets:
                own = list(itertools.islice(left, bracket.size))
                bracket.rungs.extend(climb(loop, own, bracket.epochs, self.eta))
                if plan.sweep.stop_file.exists():
                    break

    def compose_candidates(self, plan: Plan) -> tuple[dict[str, list[str]], int]:
        """Return the overrides of each candidate by its job's id, and the epochs for which the best of them train."""
        jobs = (
            combinations(plan.overrides) if self.n_candidates is None else self.draw_candidates(plan, self.n_candidates)
        )
        if self.brackets != 1:
            random.Random(self.seed).shuffle(jobs)  # Neighbours in the grid start in different brackets.
        candidates, lengths = {}, set()
        for number, job in enumerate(jobs):
            id, cfg = plan.compose_job(job, number)
            candidates[id] = job
            lengths.add(cfg.trainer.max_epochs)
            if cfg.data.val_size == 0:
                raise UsageError(f"data.val_size=0: {CHOICE} compares candidates on validation images")
            if is_distributed(cfg):
                raise UsageError(f"{CHOICE}: does not pause distributed jobs; choose trainer=default")
        if len(lengths) > 1:
            raise UsageError(
                f"trainer.max_epochs={','.join(map(str, sorted(lengths)))}: {CHOICE} needs one for all candidates"
            )
        return candidates, lengths.pop()

    def draw_candidates(self, plan: Plan, count: int) -> list[list[str]]:
        """Return candidates whose values Optuna's sampler has drawn: the same ones for the same seed."""
        try:
            from mnist_lab.sweeps.optuna_search import draw
        except ImportError as error:
            raise not_installed("hydra.sweeper.n_candidates", "optuna") from error
        fixed = [str(override.input_line) for override in plan.overrides if not override.is_sweep_override()]
        swept = [override for override in plan.overrides if override.is_sweep_override()]
        return [[*fixed, *drawn] for drawn in draw(swept, count, self.sampler, self.seed)]


def plan_brackets(candidates: int, max_epochs: int, min_epochs: int, eta: int, brackets: int) -> list[Bracket]:
    """Share candidates out among brackets, of which each begins a rung higher than the one before."""
    for name, value, least in (("min_epochs", min_epochs, 1), ("eta", eta, 2), ("brackets", brackets, 1)):
        if not isinstance(value, int) or value < least:
            raise UsageError(f"hydra.sweeper.{name}={value}: must be a whole number from {least} on")
    if max_epochs <= min_epochs:
        raise UsageError(
            f"hydra.sweeper.min_epochs={min_epochs}: must be less than trainer.max_epochs={max_epochs}, "
            "for which the best candidates train"
        )
    rungs = round(math.log(max_epochs / min_epochs, eta)) or 1  # above the first
    epochs = [*(min_epochs * eta**number for number in range(rungs)), max_epochs]
    if brackets > min(len(epochs), candidates):
        most = min(len(epochs), candidates)
        raise UsageError(f"hydra.sweeper.brackets={brackets}: these epochs and candidates make {most} at most")
    # Each bracket costs about the same epochs: Hyperband's sizes, for this number of candidates.
    weights = [eta**-number * (rungs + 1) / (rungs + 1 - number) for number in range(brackets)]
    sizes = [max(1, round(candidates * weight / sum(weights))) for weight in weights[1:]]
    return [Bracket(size, epochs[number:]) for number, size in enumerate([candidates - sum(sizes), *sizes])]


def climb(loop: Loop, ids: Sequence[str], epochs: Sequence[int], eta: int) -> Iterator[Rung]:
    """Train candidates rung by rung, and yield each rung when it is done; end where the sweep is stopping.

    What the folder has already is not trained again, and so a sweep that was stopped makes the same choices again.
    """
    for goal in epochs:
        pause = None if goal == epochs[-1] else {"_target_": "mnist_lab.training.PauseAfter", "epochs": goal}
        todo = [job.id for job in loop.sweep.read_jobs(ids) if not has_trained(job, goal)]
        loop.sweep.plan({}, dict.fromkeys(todo, pause))
        loop.run(todo)
        jobs = list(loop.sweep.read_jobs(ids))
        if any(job.state not in DONE for job in jobs):
            return
        scores = {job.id: best for job in jobs if (best := score(job, goal)) is not None}
        if not scores:
            return
        rung = Rung(goal, len(ids), dict(sorted(scores.items(), key=lambda entry: -entry[1])))
        yield rung
        ids = list(rung.scores)[: max(1, len(ids) // eta)]


def has_trained(job: Job, epochs: int) -> bool:
    """Return whether a job has trained so many epochs, or has stopped early by itself."""
    return job.state == RunState.FINISHED or (job.state == RunState.PAUSED and len(job.epochs) >= epochs)


def score(job: Job, epochs: int) -> float | None:
    """Return a job's best validation accuracy within so many epochs; None if it failed."""
    if job.state == RunState.FAILED:
        return None
    return max((row[VAL_ACC] for row in job.epochs if row["epoch"] < epochs and VAL_ACC in row), default=None)


def show_brackets(brackets: Sequence[Bracket], sweep: Sweep, max_epochs: int) -> None:
    """Print each rung, and the epochs that were trained beside those of all candidates trained to the end."""
    if not sweep.exists:  # It was refused.
        return
    jobs = sweep.jobs()
    console = PlainConsole()
    table = Table("bracket", "epochs", "candidates", "failed", "best validation", "continued", title="rungs")
    for number, bracket in enumerate(brackets, 1):
        for rung, following in itertools.zip_longest(bracket.rungs, bracket.rungs[1:]):
            failed = rung.candidates - len(rung.scores)
            continued = following.candidates if following else ""
            best = f"{max(rung.scores.values()):.2%}"
            table.add_row(*map(str, (number, rung.epochs, rung.candidates, failed, best, continued)))
    if table.row_count:
        console.print(table)
    spent, all_of_them = sum(len(job.epochs) for job in jobs), len(jobs) * max_epochs
    console.print(f"{spent} epochs; all candidates to the end: {all_of_them} ({spent / all_of_them:.0%})")
