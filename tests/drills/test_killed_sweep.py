"""A sweep that is killed in the middle, with everything it started, and started again: the same table."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.drill
ROOT = Path(__file__).resolve().parents[2]
SMALL = "--crop_size 32 --output_stride 32 --num_encoder_layers 1 --num_decoder_layers 1 --dmodel 64 " \
        "--dim_feedforward 64"
EXPERIMENT = f'''
title = "Two"
question = "Which?"
against = "a"
[embedded]
worlds = ["tiny"]
seeds = [0, 1]
split = "test"
start = ["--task gaze --label_loss 1 --limit 64 --epochs 1 {SMALL}"]
flags = "--limit 96 --epochs 2 {SMALL}"
[[row]]
name = "a"
flags = "--model GazeLSTM"
[[row]]
name = "b"
flags = "--prior_head"
'''
KILLS = (12, 25, 40, 60)         # seconds after which the sweep dies, counted from its last start


def sweep(folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    (folder / "two.toml").write_text(EXPERIMENT)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(folder.parent / "data")
    return subprocess.Popen([sys.executable, "-m", "gazepose", "sweep", "two.toml", "--flags", "--num_workers 0"],
                            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def test_a_killed_sweep_ends_with_the_same_table(tmp_path, figure):
    (tmp_path / "data").mkdir()
    assert sweep(tmp_path / "whole").wait() == 0
    killed = 0
    for seconds in KILLS:
        running = sweep(tmp_path / "killed")
        try:
            running.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
            killed += 1
            time.sleep(1)
    else:
        assert sweep(tmp_path / "killed").wait() == 0

    def table(folder: str) -> str:
        lines = (tmp_path / folder / "runs/sweep/results/two-tiny.csv").read_text().splitlines()
        keep = [k for k, name in enumerate(lines[0].split(",")) if name != "seconds"]
        return "\n".join(",".join(line.split(",")[k] for k in keep) for line in lines)

    figure("times the sweep was killed", killed, ">= 2")
    figure("lines of the table that differ", sum(a != b for a, b in zip(table("whole").splitlines(),
                                                                        table("killed").splitlines(), strict=True)), 0)
    assert killed >= 2 and table("whole") == table("killed")
