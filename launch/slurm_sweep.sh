#!/usr/bin/env bash
#SBATCH --job-name=gazepose-sweep --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=8 --time=12:00:00
#SBATCH --signal=B:TERM@120 --requeue --open-mode=append --output=slurm-%A_%a.log
# What: an experiment over a SLURM array, each index a part. sbatch --array=1-8 launch/slurm_sweep.sh FILE [FLAG ...]
#       FILE: the name of an experiment of launch/experiments, such as modules, or a path; flags as of python -m gazepose sweep.
# How long: all its runs divided by the array's length. One part trains a run that others start from; they wait.
# Expect: runs/sweep/results/<experiment>-<world>.md from the part that ends last; a part that runs out of time is queued again.
cd "${SLURM_SUBMIT_DIR:?run me with sbatch --array}"              # SLURM runs a copy of this file that lies elsewhere
. launch/environment.sh
file="${1:?give an experiment, such as modules}"; shift
part="${SLURM_ARRAY_TASK_ID:?run me with sbatch --array=1-N}/${SLURM_ARRAY_TASK_COUNT:?run me with sbatch --array=1-N}"
trap 'kill -TERM "$sweep"' TERM                                   # it lets its runs save and waits for them
python -m gazepose sweep "$file" --part "$part" "$@" & sweep=$!
wait "$sweep" || true                                             # the signal ends this wait, not the sweep
while kill -0 "$sweep" 2>/dev/null; do wait "$sweep" || true; done
code=0
wait "$sweep" || code=$?                                          # its exit code
if [ "$code" = 75 ]; then
  echo "slurm: part $part was stopped and has saved -> job $SLURM_JOB_ID goes back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
