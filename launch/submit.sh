#!/usr/bin/env bash
# What: the submission of several runs together: val and test with their mirrors, median over the track, calibration,
#       mean, boosting, each with its gain. Without run folders it trains three seeds of launch/demo.sh first.
#       [CONFIG=FILE] [VAL_STRIDE=1] submit.sh [RUN ...]
# How long: 6 to 10 minutes per seed on 2 free CPU cores; a minute per finished run; then 20 s for the ensemble.
# Expect: runs/chain/chain.md and submission.json, every face once; val mAP 84.0 -> 86.2, test 84.6 -> 86.2.
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
scored() {                                 # scored RUN SPLIT: whether it was, with flip averaging, after the run ended
  local record="$1/pred/$2.npz"            # an .npz holds the names of its columns as plain text
  if [ "$2" = val ] && [ -n "${VAL_STRIDE:-}" ]; then return 1; fi                 # the file does not say at which stride
  grep -qs score_plain.npy "$record" && [ ! "$1/status.json" -nt "$record" ]
}
for run in "$@"; do
  for split in val test; do
    if scored "$run" "$split"; then
      echo "submit: $run/pred/$split.npz exists, with flip averaging"
    else
      "${infer[@]}" --checkpoint "$run" --split "$split" --flip_average ${VAL_STRIDE:+--val_stride "$VAL_STRIDE"}
    fi
  done
done
python -m gazepose chain "$@" --out "${OUT:-runs/chain}"
