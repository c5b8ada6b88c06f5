"""Sweeps: many jobs of one command line, each a run; what they come to, whatever happens on the way."""
