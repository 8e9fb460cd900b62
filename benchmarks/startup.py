"""Goal 7: how long until train.py answers --help, until the verbs say their first line, and until the first step of a
prepared run on the CPU."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.measure import ROOT, Aim, Goal, interleaved, main, summaries
from gazepose.synthetic.world import render_world

HELP, FLOOR = "train.py --help", "importing torch, timm and accelerate alone"
STEP = "first step after accelerate launch"
LINES = {"prepare": ("prepare", "--split", "train", "--data", "{data}"), "doctor": ("doctor", "{data}"),
         "train": ("train", "--data", "{data}"), "infer": ("infer", "--data", "{data}")}
LINE = "first line of {}"
GOAL = Goal(7, "start-up", (
    Aim(HELP, most=6, unit="s"), Aim(FLOOR, unit="s"), Aim(STEP, most=15, unit="s"),
    *(Aim(LINE.format(verb), most=2, unit="CPU-s") for verb in LINES)),
    how="Importing torch, timm and accelerate alone. Wall seconds; of first lines CPU-seconds, without a reference.")


def world(work: Path) -> Path:
    """A tiny rendered world."""
    return render_world(work / "tiny-world", "tiny", 0, notify=lambda line: None)


def command(*words: str) -> int:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return 1


def first_line(verb: str, data: Path, folder: Path) -> float:
    """CPU-seconds of a verb until it prints; it is killed then."""
    words = [word.format(data=data) for word in LINES[verb]]
    with subprocess.Popen([sys.executable, "-m", "gazepose", *words], cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as program:
        assert program.stdout
        program.stdout.readline()
        spent = psutil.Process(program.pid).cpu_times()
        program.kill()
    return spent.user + spent.system


def first_step(data: Path, run: Path) -> float:
    """Seconds from `accelerate launch train.py` to its first recorded step; the short run is let finish."""
    shutil.rmtree(run, ignore_errors=True)
    began, seconds = time.perf_counter(), None
    flags = ["--data", str(data), "--exp_path", str(run), "--limit", "64", "--epochs", "1"]
    training = subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml",
         "train.py", *flags], cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stdout=subprocess.DEVNULL)
    while training.poll() is None:
        if seconds is None and (run / "metrics.jsonl").exists() and '"train"' in (run / "metrics.jsonl").read_text():
            seconds = time.perf_counter() - began
        time.sleep(0.02)
    if training.returncode or seconds is None:
        raise RuntimeError(f"train.py {' '.join(flags)}: ended with {training.returncode} before a step was recorded")
    return seconds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    data = world(options.work)
    timings = interleaved({
        HELP: lambda: command("train.py", "--help"),
        FLOOR: lambda: command("-c", "import torch, timm, accelerate")}, options.repeats, warm_up=not options.quick)
    first_step(data, options.work / "start")                           # prepares, and fills the caches
    steps = [first_step(data, options.work / "start") for _ in range(options.repeats)]
    lines = {LINE.format(verb): [first_line(verb, data, options.work) for _ in range(options.repeats)]
             for verb in LINES}
    return {"measured": {
        HELP: median(timings[HELP].wall), FLOOR: median(timings[FLOOR].wall), STEP: median(steps),
        **{name: median(seconds) for name, seconds in lines.items()}},
        "first_line_cpu_s": lines, "seconds": summaries(timings), "first_step_s": steps}


if __name__ == "__main__":
    main("startup", GOAL, measure)
