"""Writing an embedded world: its workers, its seeds, and a world that was stopped or is finished."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gazepose.progress import Progress
from gazepose.synthetic import world
from gazepose.synthetic.plan import plan_clip
from gazepose.synthetic.presets import PRESETS

WORKER = """
import sys
from gazepose.progress import Progress
from gazepose.synthetic.world import run_tasks
task = "import os, time; open(r'{}', 'w').write(str(os.getpid())); time.sleep(60)"
run_tasks(exec, [(task.format(path),) for path in sys.argv[1:]], 2, Progress("", 2, "task"))
"""


def state_of(process: str) -> str:
    """R, S, Z and so on; "" when there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_no_worker_outlives_a_main_process_that_is_told_to_end(tmp_path):
    files = [tmp_path / "first", tmp_path / "second"]
    main = subprocess.Popen([sys.executable, "-c", WORKER, *map(str, files)])
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [file.read_text() for file in files]
    main.terminate()
    assert main.wait() == -signal.SIGTERM
    while any(state_of(worker) not in ("", "Z") for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {state_of(worker) for worker in workers} <= {"", "Z"}


def test_the_fault_of_a_worker_is_raised():
    with pytest.raises(ZeroDivisionError), Progress("", 3, "task", lambda line: None) as progress:
        world.run_tasks(exec, [("1 / 0",)] * 3, 2, progress)


def test_another_seed_is_another_world():
    plans = [plan_clip(PRESETS["tiny"], seed, "train", 0).truth["gaze"] for seed in (0, 1)]
    assert plans[0].shape != plans[1].shape or not np.allclose(plans[0], plans[1])


def test_a_stopped_world_continues_with_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], clips=(2, 1, 1), shots=1))
    draw, drawn = world._render_clip, []

    def stop_after_two(*which):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(which[-2:])
        draw(*which)

    monkeypatch.setattr(world, "_render_clip", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        world.render_world(tmp_path / "data", "tiny", 0, jobs=1, notify=lambda line: None)
    assert not (tmp_path / "data" / "world.json").exists()
    with pytest.raises(ValueError, match="seed 0.*wanted 'tiny', seed 7.*delete"):
        world.render_world(tmp_path / "data", "tiny", 7, jobs=1)
    monkeypatch.setattr(world, "_render_clip", lambda *which: (drawn.append(which[-2:]), draw(*which)))
    lines: list[str] = []
    world.render_world(tmp_path / "data", "tiny", 0, jobs=1, notify=lines.append)
    assert drawn == [("train", 0), ("train", 1), ("val", 0), ("test", 0)]
    assert "4 clips of preset 'tiny'" in lines[0] and "2 are done already" in lines[0]
    assert not [path for path in (tmp_path / "data").rglob("*") if "part" in path.name or path.name == ".pieces"]


def test_a_finished_world_is_not_touched(tiny_world):
    before = (tiny_world / "world.json").stat().st_mtime_ns
    lines: list[str] = []
    assert world.render_world(tiny_world, "tiny", 0, notify=lines.append) == tiny_world
    assert not lines and (tiny_world / "world.json").stat().st_mtime_ns == before
    for other in ({"preset": "hard", "seed": 0}, {"preset": "tiny", "seed": 1}):
        with pytest.raises(ValueError, match="world.json: this folder holds preset 'tiny', seed 0.*folder, or delete"):
            world.render_world(tiny_world, **other)


def test_other_data_is_not_written_over(tmp_path):
    (tmp_path / "json").mkdir()
    with pytest.raises(ValueError, match="not an embedded world -> name another folder"):
        world.render_world(tmp_path, "tiny")
    with pytest.raises(ValueError, match="preset 'huge' is unknown -> give one of tiny, default"):
        world.render_world(tmp_path, "huge")
    with pytest.raises(ValueError, match="seed -1: must not be negative"):
        world.render_world(tmp_path, "tiny", -1)
