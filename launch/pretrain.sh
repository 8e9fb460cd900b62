#!/usr/bin/env bash
# What: makes the start weights of the package, gazepose/weights/start.safetensors and their card start.json: renders a
#       world of its own and STATES single faces of it, trains FaceGaze (gaze and label) on them from random weights, and
#       keeps the mean of the weights after each epoch. Faces stay whole and unchanged (docs/tried.md says why).
#       Resumes where it was stopped.
# Usage: [STATES=74000] [EPOCHS=4] [SEED=2000] [TRAINING_SEED=1] [PRESET=default] [START=no] [PRECISION=no]
#        [LOW_PASS=0.015] [OUT=gazepose/weights] bash launch/pretrain.sh
#        START=yes goes on from the package's start weights, instead of random ones: give another SEED then.
#        PRECISION=bf16 is faster on CPUs with matrix units for bfloat16, and on GPUs.
#        A trial of a minute or two: STATES=64 EPOCHS=1 PRESET=tiny OUT=/tmp/weights
# How long: on one free CPU core 13 minutes to render, and 53 to train, in bf16 with matrix units.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
states="${STATES:-74000}" epochs="${EPOCHS:-4}" seed="${SEED:-2000}" preset="${PRESET:-default}" start="${START:-no}"
training_seed="${TRAINING_SEED:-1}" precision="${PRECISION:-no}" low_pass="${LOW_PASS:-0.015}" pixels=64
world="data/start/$preset-$seed-$states" run="runs/start-$preset-$seed-$states-$epochs-$training_seed"
case "$start" in no) weights="--pretrained no" ;; yes) weights= ;; *) echo "error: START=$start -> give no or yes" >&2; exit 1 ;; esac
python -m gazepose synthetic --out "$world" --preset "$preset" --seed "$seed" --stills "$states" --crop_size "$pixels"
if ! grep -qs '"state": "finished"' "$run/status.json"; then
  resume=; if [ -e "$run/status.json" ]; then resume=--resume; fi          # it was stopped in the middle
  accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision "$precision" --dynamo_backend no \
    train.py --data "$world" --exp_path "$run" $resume --seed "$training_seed" --task gaze --label_loss 1 --gaze_loss 1 \
    --epochs "$epochs" --crop_size "$pixels" --batch_size 64 --lr 1e-3 --ema 1 --no_random_crop --augment off \
    --save_every 5min $weights
fi
python -m gazepose write_start "$run" --out "${OUT:-gazepose/weights}" --low_pass "$low_pass" \
  --command "STATES=$states EPOCHS=$epochs SEED=$seed TRAINING_SEED=$training_seed PRESET=$preset START=$start \
PRECISION=$precision LOW_PASS=$low_pass bash launch/pretrain.sh"
