#!/usr/bin/env bash
# Train on the machines of a SLURM job: one torchrun a machine, one process an accelerator (without any, one a machine).
#
#   sbatch --nodes 2 --gpus-per-node 8 tools/slurm_train.sh CONF --exp EXP [options of reallm train]
#
# Everything is given to `reallm train`. EXP, the data and this environment must lie on a file system that all machines share. A
# job that was stopped, preempted or out of time goes on with the same command, on as many machines and accelerators.
#SBATCH --job-name=reallm
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "error: no SLURM job: start it with sbatch (on one machine: reallm train CONF --exp EXP --devices N)" >&2
  exit 2
fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # jobs that share a machine must not meet

exec srun --kill-on-bad-exit=1 torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" \
  --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
  --rdzv-id "$SLURM_JOB_ID" \
  --rdzv-backend c10d \
  --rdzv-endpoint "$head:$port" \
  -m reallm.cli train "$@"
