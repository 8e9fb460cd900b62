#!/usr/bin/env bash
# What: the guide's GazePose, both priors and temporal dropout -> runs/posetrain. [CONFIG=FILE] posetrain.sh [FLAG ...]
# How long: Ego4D: not timed. Embedded world, --limit 64 --epochs 1, 2 busy CPU cores: 7 minutes (it is rendered), then 1.5.
# Expect: published, Ego4D test: mAP 77.51, accuracy 88.11 (five runs: 77.02 +- 0.78), from --checkpoint GAZE360.pth.tar.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
accelerate launch --config_file "${CONFIG:-accelerate_configs/gpu1.yaml}" train.py --model GazePose --prior_head \
  --prior_landmark --mesh --Gaussiandrop --backbone resnet18 --split 1 --dsplit 0.1 --csplit 0.1 --batch_size 64 \
  --lr 1e-4 --epochs 10 --train_stride 3 --val_stride 13 --exp_path runs/posetrain "$@"
