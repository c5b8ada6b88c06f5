"""Run folders and sweep folders: their records, locks and checkpoints, lists and rankings. Imports no torch."""
