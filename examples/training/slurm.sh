#!/bin/bash
#SBATCH --job-name=adatom
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
# Trains on 8 processes of 16 threads. At the end of its time Slurm sends SIGTERM, after which the run stops with a checkpoint: submit the same file again
# and it goes on there.
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
srun python -m adatom train config.toml --resume
