"""Run folders and sweep folders: what they hold, and the one way to read and write it. Imports no torch."""

from mnist_lab.runs.run import Run

__all__ = ["Run"]
