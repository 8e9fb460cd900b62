#!/usr/bin/env bash
# What: the guide's baseline, GazeLSTM with temporal dropout -> runs/basetrain. [CONFIG=FILE] basetrain.sh [FLAG ...]
# How long: Ego4D: not timed. Embedded world, --limit 64 --epochs 1, 2 busy CPU cores: 7 minutes (it is rendered), then 1.5.
# Expect: published, Ego4D test: mAP 73.85, accuracy 86.18 (--no_gaussian_drop: 71.92, 85.98), from --checkpoint GAZE360.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
accelerate launch --config_file "${CONFIG:-accelerate_configs/gpu1.yaml}" train.py --model GazeLSTM --Gaussiandrop \
  --backbone resnet18 --batch_size 64 --lr 5e-5 --epochs 10 --train_stride 3 --val_stride 13 \
  --exp_path runs/basetrain "$@"
