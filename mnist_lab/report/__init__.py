"""Pages to look at, print and hand on: what a run, or a sweep, came to."""
