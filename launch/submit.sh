#!/usr/bin/env bash
# What: the submission of several runs together: val and test with their mirrors, median over the track, calibration,
#       mean, boosting, each with its gain. Without run folders it trains three seeds of launch/demo.sh first.
#       [CONFIG=FILE] [VAL_STRIDE=1] submit.sh [RUN ...]
# How long: 6 to 10 minutes a seed on 2 free CPU cores; of a finished run a minute; then 20 s for the chain.
# Expect: runs/chain/chain.md and submission.json, every face once; val mAP .840 -> .862, test .846 -> .862.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
infer=(python infer.py)
if [ -n "${CONFIG:-}" ]; then infer=(accelerate launch --config_file "$CONFIG" infer.py); fi   # several processes
if [ $# = 0 ]; then
  for seed in 0 1 2; do
    run="runs/demo-$seed-clips"
    if ! grep -qs '"state": "finished"' "$run/status.json"; then SEED=$seed bash launch/demo.sh; fi
    set -- "$@" "$run"
  done
fi
scored() {                                 # scored RUN SPLIT: whether it was, with its mirror, since the run ended
  local record="$1/pred/$2.npz"            # the names of its columns stand in it as plain text
  if [ "$2" = val ] && [ -n "${VAL_STRIDE:-}" ]; then return 1; fi                 # at which stride cannot be seen
  grep -qs score_plain.npy "$record" && [ ! "$1/status.json" -nt "$record" ]
}
for run in "$@"; do
  for split in val test; do
    if scored "$run" "$split"; then
      echo "submit: $run/pred/$split.npz is there, with its mirror"
    else
      "${infer[@]}" --checkpoint "$run" --split "$split" --flip_average ${VAL_STRIDE:+--val_stride "$VAL_STRIDE"}
    fi
  done
done
python -m gazepose chain "$@" --out "${OUT:-runs/chain}"
