#!/usr/bin/env bash
# Run a sweep on a SLURM cluster: sbatch slurm_sweep.sh. This small job submits the sweep's jobs and waits for them. Submit
# it again to continue a stopped sweep. Set the partition and the time limit of the jobs as your cluster needs them.
# LAUNCHER=processes bash slurm_sweep.sh runs the same sweep on one machine.
#SBATCH --job-name=sweep
#SBATCH --time=24:00:00
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --output=sweep-%j.log
set -euo pipefail
launcher=${LAUNCHER:-submitit_slurm}
limit=()
if [ "$launcher" = submitit_slurm ]; then limit=(hydra.launcher.timeout_min=60); fi
python -m mnist_lab -m model=lenet,mlp seed=0,1,2 sweep=six runs_dir="$PWD/runs" "hydra/launcher=$launcher" "${limit[@]}" "$@"
