#!/usr/bin/env bash
# What: one of the guide's trainings -> runs/posetrain or runs/basetrain. [CONFIG=FILE] train.sh pose|base [FLAG ...]
#       pose: GazePose with both priors and temporal dropout; base: GazeLSTM with temporal dropout.
# How long: Ego4D: not timed. Embedded world, --limit 64 --epochs 1, 2 busy CPU cores: 7 minutes (it is rendered), then 1.5.
# Expect: published, Ego4D test, from --checkpoint GAZE360.pth.tar: pose mAP 77.51, accuracy 88.11 (five runs: mAP 77.02
#       +- 0.78); base 73.85, 86.18 (--no_gaussian_drop: 71.92, 85.98).
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
kind="${1:?give pose or base}"; shift
case "$kind" in
  pose) flags="--model GazePose --prior_head --prior_landmark --mesh --split 1 --dsplit 0.1 --csplit 0.1 --lr 1e-4" ;;
  base) flags="--model GazeLSTM --lr 5e-5" ;;
  *) echo "error: $kind is no training of the guide -> give pose or base" >&2; exit 2 ;;
esac
accelerate launch --quiet --config_file "${CONFIG:-accelerate_configs/gpu1.yaml}" train.py $flags --Gaussiandrop \
  --backbone resnet18 --batch_size 64 --epochs 10 --train_stride 3 --val_stride 13 --exp_path "runs/${kind}train" "$@"
