"""How much of the differences in accuracy each setting of a sweep explains."""

import statistics
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mnist_lab.runs.ranking import Results
from mnist_lab.viz.axes import sort_key

MIN_PLACES = 4  # A shorter ranking explains nothing.
PARTS = 4  # into which the values of a setting are divided if most of them occur once


def importances(results: Results, keys: Sequence[str]) -> tuple[dict[str, float], str]:
    """Return the importance of each setting, the greatest first, and how it is computed; none if too little differs."""
    jobs = [job for group in results.ranked for job in group]
    accuracies = [job.info["metrics"][results.metric] for job in jobs]
    values = {key: [results.settings(job)[key] for job in jobs] for key in keys}
    # Values are numbered in their order.
    numbers = {key: [sorted(set(each), key=sort_key).index(value) for value in each] for key, each in values.items()}
    numbers = {key: each for key, each in numbers.items() if any(each)}
    if len(numbers) < 2 or len(results.ranked) < MIN_PLACES or len(set(accuracies)) == 1:
        return {}, ""
    try:
        import optuna

        import_module("sklearn")  # Optuna's fANOVA needs it, and does not bring it.
    except ImportError:
        found = {key: explained_share(each, accuracies) for key, each in numbers.items()}
        method = "the variance of the means of its values; settings may share it"
    else:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        space: dict[str, Any] = {
            key: optuna.distributions.IntDistribution(0, max(each)) for key, each in numbers.items()
        }
        for i, accuracy in enumerate(accuracies):
            params = {key: each[i] for key, each in numbers.items()}
            study.add_trial(optuna.create_trial(params=params, distributions=space, value=accuracy))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        method = "fANOVA, computed by Optuna; together 100 %"
    return dict(sorted(found.items(), key=lambda item: -item[1])), method


def explained_share(numbers: Sequence[int], accuracies: Sequence[float]) -> float:
    """Return the share of the variance of accuracies that lies between the numbered values of a setting."""
    count = max(numbers) + 1
    parts = numbers if 2 * count <= len(numbers) else [PARTS * number // count for number in numbers]
    groups: dict[int, list[float]] = {}
    for part, accuracy in zip(parts, accuracies, strict=True):
        groups.setdefault(part, []).append(accuracy)
    means = [statistics.fmean(groups[part]) for part in parts]
    return statistics.pvariance(means) / statistics.pvariance(accuracies)
