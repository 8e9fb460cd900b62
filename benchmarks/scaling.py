"""Goal 9: cost grows linearly: time and memory against rows, clips and processes, as one plot."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.index import ROWS, build, make_json, opened
from benchmarks.material import FACES, QUIET, data_set
from benchmarks.measure import ROOT, Aim, Goal, MemoryWatch, in_child, main, timed
from benchmarks.startup import world
from gazepose.data.index import Index
from gazepose.data.prepare import PrepareConfig, prepare

TIME, MEMORY = "CPU-seconds grow with rows to the power of", "memory grows with rows to the power of"
CLIPS, PEAK = "CPU-seconds grow with clips to the power of", "peak memory of all clips against one clip"
SHARED = "CPU-seconds of preparing, 4 processes against 1"
TRAINED = "CPU-seconds of a training window, most processes against 1"
GOAL = Goal(9, "growth", (
    Aim(TIME, most=1.1, unit=""), Aim(MEMORY, most=1.1, unit=""), Aim(CLIPS, most=1.1, unit=""),
    Aim(PEAK, most=1.2), Aim(SHARED, most=1.3), Aim(TRAINED, most=1.3)),
    how="Itself at other sizes, and with other numbers of processes.")
SMALL = ["--crop_size", "32", "--num_encoder_layers", "1", "--num_decoder_layers", "1", "--dmodel", "64",
         "--dim_feedforward", "64", "--output_stride", "32", "--windows_per_segment", "1"]
GLOBAL_BATCH = 32


def power(sizes: list[int], costs: list[float]) -> float | None:
    """Exponent of the growth over the larger half of the sizes, where what is constant counts little: 1 is linear.

    None where a cost was too small to be seen.
    """
    half = (len(sizes) - 1) // 2
    if min(costs[half:]) <= 0:
        return None
    return float(np.polyfit(np.log(sizes[half:]), np.log(costs[half:]), 1)[0])


def prepared(root: str, jobs: int) -> dict[str, float]:
    """Wall seconds, CPU-seconds and peak memory of preparing a data set in so many processes."""
    shutil.rmtree(Path(root) / "prepared", ignore_errors=True)
    with MemoryWatch() as watch:
        wall, cpu, _ = timed(lambda: bool(prepare(root, "train", PrepareConfig(crop_size=FACES, decoder="pyav"),
                                                  QUIET, jobs=jobs)))
    return {"wall_s": wall, "cpu_s": cpu, "peak_bytes": watch.peak}


def launched(data: Path, run: Path, processes: int, limit: int, epochs: int) -> int:
    shutil.rmtree(run, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu2.yaml",
         "--num_processes", str(processes), "train.py", "--data", str(data), "--exp_path", str(run), "--epochs",
         str(epochs), "--batch_size", str(GLOBAL_BATCH // processes), "--limit", str(limit), *SMALL],
        cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True, stdout=subprocess.DEVNULL)
    return epochs * limit


def trained(data: Path, run: Path, processes: int, limit: int, epochs: int) -> dict[str, float]:
    """Real launches of a small network; what the start costs goes out by taking a short run from a long one."""
    _, short, _ = timed(partial(launched, data, run, processes, limit, 1))
    _, long, _ = timed(partial(launched, data, run, processes, limit, 1 + epochs))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [line["samples_per_s"] for line in lines if line["kind"] == "train"]
    return {"windows_per_s": float(np.median(rates)), "cpu_s_per_window": max(long - short, 1e-9) / (epochs * limit),
            "launch_cpu_s": short}


def plot(path: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    """Seconds above, memory below, against rows (logarithmic), clips and processes; dotted: linear growth."""
    figure = Figure((10, 5.4), layout="constrained")
    axes = figure.subplots(2, 3)
    columns = {"rows": "an index from JSON", "clips": "preparing clips in one process",
               "processes": "preparing the clips in more"}
    for column, (kind, title) in enumerate(columns.items()):
        sizes = np.array([entry[kind] for entry in found[kind]])
        memory = "grown_bytes" if kind == "rows" else "peak_bytes"
        curves = {0: {"wall": "wall_s", "CPU": "cpu_s"}, 1: {"peak memory": memory}}
        for row, unit in enumerate(("seconds", "MB")):
            panel = axes[row][column]
            for label, key in curves[row].items():
                values = np.array([entry[key] for entry in found[kind]]) / (1e6 if row else 1)
                panel.plot(sizes, values, "o-", label=label)
            if kind == "rows" or (kind == "clips" and row == 0):
                panel.plot(sizes, sizes * values[-1] / sizes[-1], ":", color="grey", label="linear")
            panel.set(xlabel=kind, ylabel=unit)
            if kind == "rows":
                panel.set(xscale="log", yscale="symlog", ylim=(0, 2 * values.max()))
            else:
                panel.set(xticks=sizes, ylim=(0, 1.1 * panel.dataLim.ymax))
            panel.legend(frameon=False)
        axes[0][column].set_title(title)
    figure.savefig(path, dpi=120)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {"rows": [], "clips": [], "processes": [], "training": []}
    for rows in (1_000, 3_000, 10_000) if options.quick else (10_000, 100_000, 1_000_000, ROWS):
        annotated, split = make_json(options.work, rows)
        folder = options.work / f"growth-{rows}"
        cost = in_child(build, str(annotated), str(split), str(folder))
        found["rows"].append({"rows": rows, **cost, "open_s": opened(str(folder))})
        shutil.rmtree(folder)
    counts = (1, 2) if options.quick else (1, 2, 4, 8)
    for clips in counts:
        root = data_set(options.work, options.quick, clips=clips)
        found["clips"].append({"clips": clips, **in_child(prepared, str(root), 1)})
    largest = data_set(options.work, options.quick, clips=counts[-1])
    for processes in (1, 2, 4):
        found["processes"].append({"processes": processes, **in_child(prepared, str(largest), processes)})
    index = Index.open(largest / "prepared" / f"clean-{FACES}" / "train")
    assert len(index.clips) == counts[-1], f"{len(index.clips)} clips prepared, wanted {counts[-1]}"
    data, limit, epochs = world(options.work), *((32, 1) if options.quick else (96, 8))
    for processes in (1, 2) if options.quick else (1, 2, 4):
        found["training"].append({"processes": processes, **trained(data, options.work / "growth-run", processes, limit,
                                                                    epochs)})
    plot(options.out / "scaling.png", found)
    rows, clips = ([entry[kind] for entry in found[kind]] for kind in ("rows", "clips"))
    shared, steps = [entry["cpu_s"] for entry in found["processes"]], found["training"]
    return {"measured": {
        TIME: power(rows, [entry["cpu_s"] for entry in found["rows"]]),
        MEMORY: power(rows, [entry["grown_bytes"] for entry in found["rows"]]),
        CLIPS: power(clips, [entry["cpu_s"] for entry in found["clips"]]),
        PEAK: found["clips"][-1]["peak_bytes"] / found["clips"][0]["peak_bytes"], SHARED: shared[-1] / shared[0],
        TRAINED: steps[-1]["cpu_s_per_window"] / steps[0]["cpu_s_per_window"]}, "found": found, "plot": "scaling.png"}


if __name__ == "__main__":
    main("scaling", GOAL, measure)
