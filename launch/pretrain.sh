#!/usr/bin/env bash
# What: makes the start weights of the package, gazepose/weights/start.safetensors and their card start.json: renders a
#       world of its own and STATES single faces of it, trains FaceGaze (gaze and label) on them from random weights.
#       Resumes where it was stopped.
# Usage: [STATES=40000] [EPOCHS=6] [SEED=1000] [PRESET=default] [START=no] [OUT=gazepose/weights] bash launch/pretrain.sh
#        START=yes goes on from the package's start weights, instead of random ones: give another SEED then.
#        A trial of a minute or two: STATES=64 EPOCHS=1 PRESET=tiny OUT=/tmp/weights
# How long: on 2 free CPU cores about 15 minutes to render and 40 to train.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
states="${STATES:-40000}" epochs="${EPOCHS:-6}" seed="${SEED:-1000}" preset="${PRESET:-default}" start="${START:-no}" pixels=64
world="data/start/$preset-$seed-$states" run="runs/start-$preset-$seed-$states-$epochs"
case "$start" in no) weights="--pretrained no" ;; yes) weights= ;; *) echo "error: START=$start -> give no or yes" >&2; exit 1 ;; esac
python -m gazepose synthetic --out "$world" --preset "$preset" --seed "$seed" --stills "$states" --crop_size "$pixels"
if ! grep -qs '"state": "finished"' "$run/status.json"; then
  resume=; if [ -e "$run/status.json" ]; then resume=--resume; fi          # it was stopped in the middle
  accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    train.py --data "$world" --exp_path "$run" $resume --seed "$seed" --task gaze --label_loss 1 --gaze_loss 3 \
    --epochs "$epochs" --crop_size "$pixels" --batch_size 32 --save_every 5min --augment standard $weights
fi
python -m gazepose write_start "$run" --out "${OUT:-gazepose/weights}" \
  --command "STATES=$states EPOCHS=$epochs SEED=$seed PRESET=$preset START=$start bash launch/pretrain.sh"
