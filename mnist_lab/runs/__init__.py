"""Read and write run folders and sweep folders. Imports no torch."""

from mnist_lab.runs.run import Run

__all__ = ["Run"]
