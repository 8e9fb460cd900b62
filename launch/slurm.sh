#!/usr/bin/env bash
#SBATCH --job-name=gazepose --nodes=1 --ntasks-per-node=1 --gpus-per-node=4 --cpus-per-task=32 --time=12:00:00
#SBATCH --signal=TERM@120 --requeue --open-mode=append --output=slurm-%A_%a.log
# What: a training on one or more nodes of SLURM, put back into the queue when it is pre-empted or its time is up.
#       sbatch [--nodes=2] launch/slurm.sh FLAG ...   from the repository; options of sbatch win over the lines above.
# How long: as train.py; SIGTERM two minutes before the end, a save at the next step, then the queue.
# Expect: exit code 0 finished, 75 queued again, anything else failed: RUN/status.json says why; docs/cluster.md.
cd "${SLURM_SUBMIT_DIR:?run me with sbatch}"                      # SLURM runs a copy of this file that lies elsewhere
. launch/environment.sh                                           # once, before the nodes look for it
run=""
for ((n = 1; n <= $#; n++)); do
  case "${!n}" in --exp_path=*) run="${!n#*=}" ;; --exp_path) next=$((n + 1)); run="${!next:-}" ;; esac
done
if [ -z "$run" ]; then run="runs/slurm-$SLURM_JOB_ID"; set -- "$@" --exp_path "$run"; fi
if [ -e "$run/status.json" ]; then set -- "$@" --resume; fi       # the same job again, or one that was started before

export MACHINES="${SLURM_NNODES:-1}" JOB="$SLURM_JOB_ID" PROCESSES="${PROCESSES:-${SLURM_GPUS_ON_NODE:-gpu}}"
read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export HEAD="$first:$((20000 + SLURM_JOB_ID % 20000))"             # a port that no other job on that node takes
trap : TERM                                                       # the training is asked to save; we wait for it
before="$(cat "$run/status.json" 2>/dev/null || true)"
code=0
srun --nodes="$MACHINES" --ntasks-per-node=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  --kill-on-bad-exit=1 bash launch/hosts.sh "$@" || code=$?
after="$(cat "$run/status.json" 2>/dev/null || true)"            # a launcher's own exit code does not tell
if [ "$after" != "$before" ] && [[ "$after" == *'"state": "preempted"'* ]]; then
  echo "slurm: $run was stopped and has saved -> job $SLURM_JOB_ID goes back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
  exit 75
fi
exit "$code"
