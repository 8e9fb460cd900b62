#!/usr/bin/env bash
# What: scores val and test with one of the guide's models: pred.csv and submission. --val: only val; --eval: only test.
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
flags=() splits=()
while [ $# -gt 0 ]; do                 # a split in the flags is scored alone; --split 1 is the guide's degrees per bin
  case "$1 ${2:-}" in
    "--val "* | --split=val*) splits+=(--val) ;;
    "--eval "* | --split=test*) splits+=(--eval) ;;
    "--split val") splits+=(--val); shift ;;
    "--split test") splits+=(--eval); shift ;;
    *) flags+=("$1") ;;
  esac
  shift
done
for split in ${splits[@]:---val --eval}; do
  accelerate launch --quiet --config_file "${CONFIG:-accelerate_configs/gpu1.yaml}" infer.py $split --to-json \
    --checkpoint "$checkpoint" --model $model --Gaussiandrop --batch_size 64 --val_stride 13 ${flags[@]+"${flags[@]}"}
done
