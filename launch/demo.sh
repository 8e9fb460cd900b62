#!/usr/bin/env bash
# What: from nothing to a submission on the embedded world: renders it, trains GazePose with both priors and temporal
#       dropout from the package's start weights, infers val and test, writes the submission's JSON and a report.
# How long: the installation (a minute with uv), then 5 to 15 minutes on 2 free CPU cores, as fast as these are.
# Expect: RESULT val_mAP of about .888 (seeds 0, 1, 2: .888, .885, .885); the same score for every face .50, head pose alone .65.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
SECONDS=0
seed="${SEED:-0}" run="runs/demo-${SEED:-0}"
if grep -qs '"state": "finished"' "$run/status.json"; then
  echo "demo: $run has finished before"
else
  resume=; if [ -e "$run/status.json" ]; then resume=--resume; fi          # it was stopped in the middle
  echo "demo: GazePose with both priors and temporal dropout, on the backbone of the package's start weights -> $run"
  accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    train.py --seed "$seed" --exp_path "$run" $resume --model GazePose --prior_head --prior_landmark --Gaussiandrop \
    --freeze_backbone
fi
echo "demo: val, the report, test and the submission -> $run/pred, $run/report"
python infer.py --checkpoint "$run" --split val --report
python infer.py --checkpoint "$run" --split test --to-json
echo "RESULT val_mAP=$(python -c "import json, sys; print(format(json.load(open(sys.argv[1]))['mAP'], '.3f'))" "$run/pred/val/metrics.json") seconds=$SECONDS"
