"""Where the jobs of a sweep run: in this process, in others of this machine, on SLURM, on Ray; hydra/launcher=..."""
