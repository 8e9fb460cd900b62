#!/usr/bin/env bash
#SBATCH --job-name=gazepose --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8 --time=12:00:00
#SBATCH --signal=TERM@120 --requeue --open-mode=append --output=slurm-%A_%a.log
# What: one training per line of a file of flags. sbatch --array=1-$(wc -l < FILE) launch/slurm_array.sh FILE [FLAG ...]
#       Line n is array index n; flags behind FILE are for all. Quotes work as in a shell, nothing else of it does.
# How long: each as train.py on the nodes of one index.
# Expect: runs/array-<job>-<index>, unless the line has --exp_path; exit codes as of launch/slurm.sh, which runs each.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?run me with sbatch --array}"
file="${1:?give a file with one line of flags per run}"; shift
line="$(sed -n "${SLURM_ARRAY_TASK_ID:?run me with sbatch --array}p" "$file")"
[ -n "$line" ] || { echo "error: $file: no line $SLURM_ARRAY_TASK_ID -> --array=1-$(wc -l < "$file")" >&2; exit 2; }
mapfile -t flags < <(xargs -n 1 printf '%s\n' <<< "$line")
echo "array: $file, line $SLURM_ARRAY_TASK_ID: $line"
run="runs/array-$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID"
case " $line $* " in *" --exp_path"*) ;; *) flags+=(--exp_path "$run") ;; esac
exec bash launch/slurm.sh "${flags[@]}" "$@"
