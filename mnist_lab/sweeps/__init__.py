"""Sweeps: run many jobs of one command, continue them after any interruption, and rank the results."""
