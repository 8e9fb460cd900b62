#!/usr/bin/env bash
# What: scores val and test with one of the guide's models: pred.csv and submission.
#       [CONFIG=FILE] eval.sh pose|base [CHECKPOINT] [FLAG ...]     CHECKPOINT: a run, its best/, or a published .pth
# How long: Ego4D: not timed. Embedded world, --limit 64, 2 busy CPU cores: 4 minutes (crops are prepared), then 2.5.
# Expect: published, Ego4D test: pose mAP 77.51, accuracy 88.11; base 73.85, 86.18; val is scored at every 13th position.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
kind="${1:?give pose or base}"; shift
case "$kind" in
  pose) model=GazePose ;;
  base) model=GazeLSTM ;;
  *) echo "error: $kind is no model of the guide -> give pose or base" >&2; exit 2 ;;
esac
checkpoint="runs/${kind}train"
case "${1:-}" in "" | -*) ;; *) checkpoint="$1"; shift ;; esac
for split in val test; do
  accelerate launch --config_file "${CONFIG:-accelerate_configs/gpu1.yaml}" infer.py --split $split --to-json \
    --checkpoint "$checkpoint" --model $model --Gaussiandrop --batch_size 64 --val_stride 13 "$@"
done
