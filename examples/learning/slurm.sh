#!/bin/bash
#SBATCH --job-name=adatom-label
#SBATCH --array=1-16
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
# Sixteen workers for a loop with label.wait = true, which runs as `adatom learn learn.toml` on any machine that shares the folder.
# Each calculation has as many threads, where label.threads is not given.
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
adatom label learn.toml
