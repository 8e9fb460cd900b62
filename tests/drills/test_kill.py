"""Launches of two processes, killed at any moment: resumed until they have finished they are the same run.

They are real ones, by accelerate, whose imports take most of the time; or, with WARM=1, forked from a process that has
them behind it, which is several times as fast and leaves out the launcher alone: what stands for it does nothing.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm

pytestmark = pytest.mark.drill
ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("KILLS", 50))
WARM = os.environ.get("WARM") == "1"
STOPS = min(10, KILLS)
BACKBONE = "test_resnet" if WARM else "resnet18"
FLAGS = ["--preset", "tiny", "--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1",
         "--dmodel", "64", "--dim_feedforward", "64", "--output_stride", "32", "--limit", "48", "--batch_size", "2",
         "--prior_head", "--windows_per_segment", "2", "--save_every", "3", "--backbone", BACKBONE,
         "--num_workers", "0"]


class Launch:
    """A real launch into a run folder; `resume` once there is something to resume."""

    def __init__(self, run: Path, *flags: str, world: int = 2, script: Path = ROOT / "train.py"):
        self.run, self.began = run, time.monotonic()
        again = ["--resume"] if (run / "status.json").exists() else []
        run.parent.mkdir(exist_ok=True)
        command = [str(script), "--exp_path", str(run), *FLAGS, *again, *flags]
        if WARM:
            logs = [run.parent / f"{run.name}.{rank}.log" for rank in range(world)]
            self.launcher, *self._ranks = warm.start(*command, cwd=run.parents[1], logs=logs, launcher=True)
            return
        with open(run.parent / f"{run.name}.log", "a") as log:
            self._started = subprocess.Popen(
                [sys.executable, "-m", "accelerate.commands.launch",
                 "--config_file", ROOT / "accelerate_configs" / "cpu2.yaml", "--num_processes", str(world),
                 "--main_process_port", "0", *command],
                cwd=run.parents[1], stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.launcher = self._started.pid

    def pids(self) -> list[int]:
        """The launcher and the training processes that run; torch gives each of them a session of its own."""
        if WARM:
            return [pid for pid in (self.launcher, *self._ranks) if runs(pid)]
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.fsencode(self.run) in (folder / "cmdline").read_bytes().split(b"\0"):     # a zombie has none
                    found.append(int(folder.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def ranks(self) -> list[int]:
        return [pid for pid in self.pids() if pid != self.launcher]

    def ended(self) -> bool:
        """Nothing is left; what stands for the launcher does not end by itself."""
        if not WARM:
            return self._started.poll() is not None and not self.pids()
        if not self.ranks() and runs(self.launcher):
            os.kill(self.launcher, signal.SIGKILL)
            warm.wait([self.launcher], 10)
        return not self.pids()

    def end(self) -> float:
        """Seconds until no process is left."""
        began = time.monotonic()
        while not self.ended():
            time.sleep(0.05)
            assert time.monotonic() < began + 300, f"{self.run}: still runs {self.pids()}"
        return time.monotonic() - began

    def steps(self) -> int:
        records = self.run / "metrics.jsonl"
        return len(records.read_text().splitlines()) if records.exists() else 0

    def until_a_step(self) -> None:
        before = self.steps()
        while self.steps() <= before and not self.ended():
            time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def state(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["state"] if (run / "status.json").exists() else "not begun"


def final(run: Path) -> list[bytes]:
    last = sorted((run / "checkpoints").glob("step-*"))[-1]
    return [(last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors", "progress.json")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, float]:
    """A run that nothing stopped, and its seconds; the world has been rendered before."""
    work = tmp_path_factory.mktemp("work")
    Launch(work / "runs" / "first", "--epochs", "1").end()
    launch = Launch(work / "runs" / "whole", "--epochs", "2")
    launch.end()
    assert state(launch.run) == "finished", "".join(log.read_text() for log in launch.run.parent.glob("whole*.log"))
    return launch.run, time.monotonic() - launch.began


def test_kill_9_at_any_moment(whole, figure):
    run, seconds = whole
    chance, alike, slowest, launches = random.Random(0), 0, 0.0, 0
    for number in range(KILLS):
        killed = run.with_name(f"killed-{number}")
        launch = Launch(killed, "--epochs", "2")
        time.sleep(chance.uniform(0, seconds))
        whom = chance.choice(["launcher", "one", "all"])
        targets = {"launcher": [launch.launcher], "one": launch.ranks() or [launch.launcher],
                 "all": launch.pids()}[whom]
        pids = chance.sample(targets, min(1, len(targets)) if whom == "one" else len(targets))
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        took, launches = launch.end(), launches + 1
        slowest, after = max(slowest, took), state(killed)
        for _ in range(3):
            if state(killed) != "finished":
                Launch(killed, "--epochs", "2").end()
                launches += 1
        same = state(killed) == "finished" and final(killed) == final(run)
        alike += same
        print(f"kill {number + 1}: {whom} while {after}, gone after {took:.1f} s, {'same' if same else 'DIFFERENT'}",
              flush=True)
    figure("runs that end bitwise alike", f"{alike}/{KILLS}", f"{KILLS}/{KILLS}")
    figure("launches", launches)
    figure("slowest end after a kill, s", f"{slowest:.1f}", "10")
    assert alike == KILLS


def test_sigterm_again_and_again(whole, figure):
    run, _ = whole
    stopped, slowest, preempted = run.with_name("stopped"), 0.0, 0
    for number in range(STOPS):
        launch = Launch(stopped, "--epochs", "2")
        launch.until_a_step()
        os.kill(launch.launcher if number % 2 else launch.ranks()[number // 2 % 2], signal.SIGTERM)
        slowest, preempted = max(slowest, launch.end()), preempted + (state(stopped) == "preempted")
    Launch(stopped, "--epochs", "2").end()
    alike = state(stopped) == "finished" and final(stopped) == final(run)
    figure("stops with status preempted", f"{preempted}/{STOPS}", f"{STOPS}/{STOPS}")
    figure("slowest stop, s", f"{slowest:.1f}", "5")
    figure("bitwise alike after them", alike, True)
    assert alike and preempted == STOPS


def test_two_then_three_then_one_process(whole, figure):
    run = whole[0].with_name("elastic")
    for world in (2, 3, 1):
        flags = ["--epochs", "1", *(["--processes", "any"] if world != 2 else [])]
        launch = Launch(run, *flags, world=world, script=Path(__file__).with_name("noting.py"))
        if world > 1:
            launch.until_a_step()
            os.kill(launch.launcher, signal.SIGTERM)
        launch.end()
        assert state(run) == ("preempted" if world > 1 else "finished")
    rows = [int(row) for file in run.parent.glob("elastic.rows.*") for row in file.read_text().split()]
    figure("rows learnt from, of them distinct, wanted 48", f"{len(rows)}, {len(set(rows))}", "48, 48")
    assert len(rows) == len(set(rows)) == 48
