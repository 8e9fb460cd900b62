#!/usr/bin/env bash
# What: the submission of several runs together: val and test with their mirrors, median over the track, calibration,
#       mean, boosting, each with its gain. Without run folders it trains three seeds of launch/demo.sh first.
#       [CONFIG=FILE] [VAL_STRIDE=1] submit.sh [RUN ...]
# How long: 6 to 10 minutes per seed on 2 free CPU cores; a minute per finished run; then 20 s for the ensemble.
# Expect: runs/chain/chain.md and submission.json, every face once; val mAP 88.8 -> 89.0, test 83.1 before and after.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
infer=(python infer.py)
if [ -n "${CONFIG:-}" ]; then infer=(accelerate launch --config_file "$CONFIG" infer.py); fi   # several processes
if [ $# = 0 ]; then
  for seed in 0 1 2; do
    run="runs/demo-$seed"
    if ! grep -qs '"state": "finished"' "$run/status.json"; then SEED=$seed bash launch/demo.sh; fi
    set -- "$@" "$run"
  done
fi
scored() {                                 # scored RUN TABLE: whether it was, after the run ended
  [ -e "$2" ] && [ ! "$1/status.json" -nt "$2" ]
}
homes=()                                   # another stride than the run's has a folder of its own beside the run
for run in "$@"; do
  run="${run%/}"
  home="$run${VAL_STRIDE:+-stride-$VAL_STRIDE}"
  homes+=("$home")
  for split in val test; do
    if scored "$run" "$home/pred-flip/$split.npz"; then
      echo "submit: $home/pred-flip/$split.npz exists"
    else
      "${infer[@]}" --checkpoint "$run" --split "$split" --flip_average --exp_path "$home" \
        ${VAL_STRIDE:+--val_stride "$VAL_STRIDE"}
    fi
  done
done
python -m gazepose chain "${homes[@]}" --out "${OUT:-runs/chain}"
