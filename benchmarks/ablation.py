"""What each ingredient of a recipe brings, on the same validation images and over the same seeds.

    python -m mnist_lab -m --config-dir benchmarks/search hydra/launcher=processes sweep=ablation data.val_size=10000 \
        experiment=champion,champion_no_elastic,champion_no_views seed=1,2,3
    python -m benchmarks.ablation runs/sweeps/ablation champion

The first command trains a recipe and its variants, which are presets in benchmarks/search. The second prints a table in
Markdown. A variant's difference from the recipe is the mean over the seeds of the difference of their validation
accuracies with the same seed, with a 95 % interval by Student's t.
"""

import argparse
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.stats import t as student

from benchmarks.timing import print_head, print_row
from mnist_lab.config.overrides import override_values
from mnist_lab.evaluation.predictions import PairedComparison, Predictions, TrainedRun
from mnist_lab.runs.run import Run


@dataclass(frozen=True)
class Row:
    """A variant beside the recipe.

    Attributes:
        accuracy: its mean validation accuracy over the seeds, in per cent.
        difference: its accuracy less the recipe's, in percentage points.
        reach: half the width of the 95 % interval of the difference; infinite for one seed.
        only_recipe: images that only the recipe gets right, over all seeds.
        only_variant: images that only the variant gets right, over all seeds.
    """

    name: str
    seeds: int
    accuracy: float
    difference: float
    reach: float
    only_recipe: int
    only_variant: int


def predictions_on_validation_set(run: Run) -> Predictions:
    """Return the predictions of a run for its validation images, by the weights that were tested."""
    trained = TrainedRun(run)
    trained.data.setup("fit")
    images, labels = (torch.cat(parts) for parts in zip(*trained.data.val_dataloader(), strict=True))
    return Predictions(labels, trained.model.probabilities(images))


def compare(sweep: Path, recipe: str) -> list[Row]:
    """Return a row for each preset of a sweep over presets and seeds, the recipe first."""
    by_preset: dict[str, dict[int, Predictions]] = {}
    for run in Run.below(sweep):
        preset = override_values(run.info["overrides"])["experiment"]
        by_preset.setdefault(preset, {})[run.config.seed] = predictions_on_validation_set(run)
    names = [recipe, *sorted(by_preset.keys() - {recipe})]
    return [compare_with_recipe(name, by_preset[recipe], by_preset[name]) for name in names]


def compare_with_recipe(name: str, recipe: dict[int, Predictions], variant: dict[int, Predictions]) -> Row:
    """Compare a variant with the recipe, over the seeds of both."""
    seeds = sorted(recipe.keys() & variant.keys())
    pairs = [PairedComparison.of(recipe[seed], variant[seed]) for seed in seeds]
    differences = [100 * pair.difference for pair in pairs]
    return Row(
        name,
        len(seeds),
        100 * statistics.fmean(variant[seed].accuracy for seed in seeds),
        statistics.fmean(differences),
        interval_reach(differences),
        sum(pair.only_first for pair in pairs),
        sum(pair.only_second for pair in pairs),
    )


def interval_reach(values: list[float]) -> float:
    """Return half the width of the 95 % interval of a mean by Student's t, infinite for one value."""
    if len(values) < 2:
        return math.inf
    return float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("recipe", help="the preset that the others are compared with")
    options = parser.parse_args()
    accuracy, recipe, variant = "validation accuracy, %", "only the recipe right", "only the variant right"
    print_head("preset", "seeds", accuracy, "difference", recipe, variant)
    for row in compare(options.sweep, options.recipe):
        difference = f"{row.difference:+.3f} ± {row.reach:.3f}" if row.name != options.recipe else "-"
        print_row(row.name, row.seeds, f"{row.accuracy:.3f}", difference, row.only_recipe, row.only_variant)


if __name__ == "__main__":
    main()
