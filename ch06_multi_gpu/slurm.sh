#!/bin/bash
# A run of chapter 6 on a cluster with Slurm, one process per GPU:
#
#   sbatch --nodes=4 ch06_multi_gpu/slurm.sh --data work/ch02_tokenizer --out work/ch06_run --tp 8 --pp 2 --zero 1
#
# What stands behind the name of this script is for `ch06_multi_gpu train`. Two minutes before the job's time is over its
# ranks are interrupted: they save a checkpoint and end. The next job goes on from there, on as many nodes as it gets;
# with `sbatch --dependency=singleton ...` several can be queued at once, and run one after the other.
#
# On nodes without GPUs: LLM_PRESET=cpu sbatch --gpus-per-node=0 --ntasks-per-node=4 ...
#
#SBATCH --job-name=ch06
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=INT@120
#SBATCH --output=%x-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"  # sbatch runs a copy of this script, from elsewhere

preset=${LLM_PRESET:-cuda}
program=build/$preset/bin/ch06_multi_gpu
if [[ ! -x $program ]]; then
  echo "$0: there is no $PWD/$program; build it, and submit from the book's folder" >&2
  exit 2
fi
options=(--resume)  # if there is a checkpoint
if [[ $preset == cuda ]]; then
  options+=(--device cuda --nccl)
fi
exec srun --mpi="${LLM_SRUN_MPI:-pmix}" --kill-on-bad-exit=1 \
  "$program" train "${options[@]}" --threads "${SLURM_CPUS_PER_TASK:-1}" "$@"
