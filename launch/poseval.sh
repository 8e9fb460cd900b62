#!/usr/bin/env bash
# What: the guide's GazePose on val and test: pred.csv and submission. [CONFIG=FILE] poseval.sh [CHECKPOINT] [FLAG ...]
# How long: Ego4D: not timed. Embedded world, --limit 64, 2 busy CPU cores: 4 minutes (crops are prepared), then 2.5.
# Expect: published, Ego4D test: mAP 77.51, accuracy 88.11; val is scored at every 13th position.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
checkpoint=runs/posetrain
case "${1:-}" in "" | -*) ;; *) checkpoint="$1"; shift ;; esac      # a run, its best/, or a published .pth
for split in val test; do
  accelerate launch --config_file "${CONFIG:-accelerate_configs/gpu1.yaml}" infer.py --split $split --to-json \
    --checkpoint "$checkpoint" --model GazePose --Gaussiandrop --batch_size 64 --val_stride 13 "$@"
done
