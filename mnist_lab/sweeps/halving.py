"""Successive halving: all candidates train for a few epochs, the best of them continue, and so on to the end.

Jamieson and Talwalkar, 2016 (arXiv 1502.07943); with several brackets, Hyperband: Li et al., 2018 (arXiv 1603.06560). A
candidate that does not continue stays paused in its run folder. The others continue from their last checkpoints as if
they had never stopped; schedulers are planned for the whole length from the start.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mnist_lab.errors import UsageError, not_installed
from mnist_lab.formatting import print_lines
from mnist_lab.runs.record import DONE, RunState
from mnist_lab.runs.sweep import Job, Sweep
from mnist_lab.sweeps.jobs import is_distributed
from mnist_lab.sweeps.loop import Loop, open_sweep
from mnist_lab.sweeps.plan import Plan, combine_overrides
from mnist_lab.sweeps.progress import best_accuracy
from mnist_lab.tables import print_table

CHOICE = "hydra/sweeper=halving"


@dataclass
class Halving:
    """A sweep by successive halving: it trains many candidates for few epochs, and the best of them for more.

    Args:
        min_epochs: the epochs of the first rung.
        eta: each rung has eta times the epochs of the one before, and the best 1/eta of its candidates.
        brackets: the number of groups of candidates; each later group starts with fewer candidates and more epochs.
        n_candidates: the number of candidates to draw at random; None for every combination of the values.
        seed: the seed of the draw and of the order of candidates in brackets.
        params: the swept values by key, in Hydra's grammar; an override on the command line replaces those of its key.
    """

    min_epochs: int
    eta: int
    brackets: int
    n_candidates: int | None
    seed: int
    params: dict[str, str] | None = None

    def run(self, plan: Plan) -> None:
        jobs = combine_overrides(plan.overrides) if self.n_candidates is None else self.draw_jobs(plan)
        if not plan.swept or not jobs:
            raise UsageError(f"{CHOICE}: there is nothing to compare; give a setting several values")
        if plan.cfg.detach:
            raise UsageError(f"--detach: {CHOICE} compares jobs while it runs; run it in tmux, or with nohup")
        candidates, max_epochs = self.compose_candidates(plan, jobs)
        brackets = plan_brackets(len(candidates), max_epochs, self.min_epochs, self.eta, self.brackets)
        remaining, rungs = iter(candidates), list[list[str]]()
        with ExitStack() as at_end, open_sweep(plan, candidates) as loop:
            # In any case, the rungs are shown below the results of the sweep.
            at_end.callback(show_rungs, rungs, plan.sweep, max_epochs)
            for number, (size, epochs) in enumerate(brackets, 1):
                ids = list(itertools.islice(remaining, size))
                rungs.extend([str(number), *rung] for rung in train_rungs(loop, ids, epochs, self.eta))
                if plan.sweep.stop_file.exists():
                    break

    def compose_candidates(self, plan: Plan, jobs: list[list[str]]) -> tuple[dict[str, list[str]], int]:
        """Return the overrides of each candidate by its job's id, and the number of epochs of the best candidates."""
        if self.brackets != 1:
            random.Random(self.seed).shuffle(jobs)  # Neighbours in the grid start in different brackets.
        composed = plan.compose_jobs(jobs)
        configs = [cfg for _, cfg in composed.values()]
        if any(cfg.data.val_size == 0 for cfg in configs):
            raise UsageError(f"data.val_size=0: {CHOICE} compares candidates on validation images")
        if any(map(is_distributed, configs)):
            raise UsageError(f"{CHOICE}: does not pause distributed jobs; choose trainer=default")
        lengths = sorted({cfg.trainer.max_epochs for cfg in configs})
        if len(lengths) > 1:
            raise UsageError(f"trainer.max_epochs={','.join(map(str, lengths))}: {CHOICE} needs one for all candidates")
        return {id: job for id, (job, _) in composed.items()}, lengths[0]

    def draw_jobs(self, plan: Plan) -> list[list[str]]:
        """Return the overrides of each candidate, drawn at random."""
        try:
            from mnist_lab.sweeps.optuna_search import draw_jobs
        except ImportError as error:
            raise not_installed("hydra.sweeper.n_candidates", "optuna") from error
        return draw_jobs(plan.overrides, self.n_candidates, self.seed)


def plan_brackets(
    candidates: int, max_epochs: int, min_epochs: int, eta: int, brackets: int
) -> list[tuple[int, list[int]]]:
    """Return the number of candidates of each bracket, and the epochs of its rungs: one rung fewer in each bracket."""
    for name, value, least in (("min_epochs", min_epochs, 1), ("eta", eta, 2), ("brackets", brackets, 1)):
        if not isinstance(value, int) or value < least:
            raise UsageError(f"hydra.sweeper.{name}={value}: must be a whole number from {least} on")
    if max_epochs <= min_epochs:
        raise UsageError(
            f"hydra.sweeper.min_epochs={min_epochs}: must be less than trainer.max_epochs={max_epochs}, "
            "for which the best candidates train"
        )
    last_rung = round(math.log(max_epochs / min_epochs, eta)) or 1
    epochs = [*(min_epochs * eta**rung for rung in range(last_rung)), max_epochs]
    if brackets > min(len(epochs), candidates):
        most = min(len(epochs), candidates)
        raise UsageError(f"hydra.sweeper.brackets={brackets}: these epochs and candidates make {most} at most")
    # With Hyperband's sizes, each bracket takes about the same number of epochs.
    weights = [eta**-number * len(epochs) / (len(epochs) - number) for number in range(brackets)]
    sizes = [max(1, round(candidates * weight / sum(weights))) for weight in weights[1:]]
    return [(size, epochs[number:]) for number, size in enumerate([candidates - sum(sizes), *sizes])]


def train_rungs(loop: Loop, ids: Sequence[str], epochs: Sequence[int], eta: int) -> Iterator[list[str]]:
    """Train candidates rung by rung, and yield the row of each rung for `show_rungs`, until the sweep is stopping."""
    for goal in epochs:
        pause = None if goal == epochs[-1] else {"_target_": "mnist_lab.training.PauseAfter", "epochs": goal}
        # Since trained epochs are not trained again, a continued sweep makes the same choices.
        unfinished = [job.id for job in loop.sweep.read_jobs(ids) if not has_trained(job, goal)]
        loop.sweep.plan({}, dict.fromkeys(unfinished, pause))
        loop.run(unfinished)
        jobs = list(loop.sweep.read_jobs(ids))
        if any(job.state not in DONE for job in jobs):
            return
        metric = loop.sweep.metric
        accuracies = {job.id: best_accuracy(job, metric, goal) for job in jobs if job.state != RunState.FAILED}
        scores = {id: accuracy for id, accuracy in accuracies.items() if accuracy is not None}
        if not scores:
            return
        best = sorted(scores, key=scores.__getitem__, reverse=True)
        kept = best[: max(1, len(ids) // eta)] if pause else []
        yield [*map(str, (goal, len(ids), len(ids) - len(best), f"{scores[best[0]]:.2%}", len(kept) or ""))]
        ids = kept


def has_trained(job: Job, epochs: int) -> bool:
    """Return whether a job has trained for this many epochs, or has stopped early by itself."""
    return job.state == RunState.FINISHED or (job.state == RunState.PAUSED and len(job.epochs) >= epochs)


def show_rungs(rungs: Sequence[Sequence[str]], sweep: Sweep, max_epochs: int) -> None:
    """Print each rung, and the epochs that were trained beside those of all candidates trained to the end."""
    if not sweep.exists:  # It was refused.
        return
    if rungs:
        print_lines("rungs")
        print_table(("bracket", "epochs", "candidates", "failed", "best validation", "continued"), rungs)
    jobs = sweep.jobs()
    spent, all_of_them = sum(len(job.epochs) for job in jobs), len(jobs) * max_epochs
    print_lines(f"{spent} epochs; all candidates to the end: {all_of_them} ({spent / all_of_them:.0%})")
