"""Rank four learning rates by validation accuracy, in a sweep from Python. You may add settings to the command."""

from __future__ import annotations

import sys

from mnist_lab import sweep


def main() -> None:
    results = sweep("model=mlp", "optimizer.lr=0.003,0.01,0.03,0.1", "trainer.max_epochs=2", *sys.argv[1:])
    for group in results.ranked:  # jobs that differ in their seed alone are one group
        metrics = group[0].info["metrics"]
        print(f"{group[0].folder.name}: validation {metrics['val/acc']:.2%}, test {metrics['test/acc']:.2%}")


if __name__ == "__main__":
    main()
