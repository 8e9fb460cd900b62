"""Many runs that start at once on data that nobody has rendered or prepared: all finish, each part is made once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rig import SMALL

pytestmark = pytest.mark.drill
ROOT = Path(__file__).resolve().parents[2]
RUNS = 8


def test_trainings_that_start_at_once_share_one_preparation(tmp_path, figure):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    flags = [*SMALL, "--limit", "8", "--epochs", "1"]
    runs = []
    for number in range(RUNS):
        with open(tmp_path / f"{number}.log", "w") as log:
            runs.append(subprocess.Popen([sys.executable, "-m", "gazepose.train", *flags, "--exp_path", f"run{number}"],
                                         cwd=tmp_path, env=environment, stdout=log, stderr=log))
    codes = [run.wait(900) for run in runs]
    logs = [(tmp_path / f"{number}.log").read_text() for number in range(RUNS)]
    made = {what: sum(line in log for log in logs) for what, line in {
        "worlds rendered": "clips of preset", "train prepared": "prepared train",
        "val prepared": "prepared val"}.items()}
    figure("trainings that finished", codes.count(0), RUNS)
    for what, count in made.items():
        figure(what, count, 1)
    figure("trainings that waited", sum("waiting for" in log for log in logs))
    assert codes == [0] * RUNS, logs[next(number for number, code in enumerate(codes) if code)]
    assert set(made.values()) == {1}
