"""Measuring: the ways to be compared in turn, medians, CPU-seconds beside wall seconds, memory, and the machine.

A benchmark is a Goal and a function; `main` gives it its flags, and writes what it returns as JSON. What is heavy to
import is imported where it is used: processes whose memory is measured import this module too.
"""

import argparse
import gc
import multiprocessing
import os
import platform
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psutil

if TYPE_CHECKING:
    from accelerate import Accelerator

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("av", "opencv-python-headless", "simplejpeg", "pillow", "pandas")
T = TypeVar("T")


@dataclass(frozen=True)
class Aim:
    """One figure and what is wanted of it; without a bound it is only stated."""

    what: str
    least: float | None = None
    most: float | None = None
    unit: str = "times"

    @property
    def wanted(self) -> str:
        if self.least is None and self.most is None:
            return "stated"
        sign, bound = ("≥", self.least) if self.most is None else ("≤", self.most)
        return f"{sign} {bound:g} {self.unit}".rstrip()

    def met(self, value: float | None) -> bool | None:
        """None where nothing is wanted or nothing was measured."""
        if value is None or (self.least is None and self.most is None):
            return None
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@dataclass(frozen=True)
class Goal:
    """What a benchmark measures; the first aim is the one that the page shows."""

    number: int
    title: str
    aims: tuple[Aim, ...]
    how: str
    """against what, in which precision, and what is counted on either side"""


@dataclass
class Timing:
    """Seconds per unit of work, one entry a round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        return {"wall_s": median(self.wall), "cpu_s": median(self.cpu), "wall_rounds": self.wall,
                "cpu_rounds": self.cpu}


def cpu_seconds() -> float:
    """Used so far by this process and by all it started, living or gone."""
    total = time.process_time()
    me = psutil.Process()                                              # Accelerate depends on psutil
    with suppress(psutil.NoSuchProcess):
        times = me.cpu_times()
        total += times.children_user + times.children_system
    for child in me.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def timed(work: Callable[[], float]) -> tuple[float, float, float]:
    """(wall seconds, CPU-seconds, what work returned) of one call."""
    gc.collect()
    cpu, wall = cpu_seconds(), time.perf_counter()
    units = work()
    return time.perf_counter() - wall, cpu_seconds() - cpu, units


def interleaved(ways: Mapping[str, Callable[[], float]], repeats: int, warm_up: bool = True) -> dict[str, Timing]:
    """Time several ways round by round, every second round backwards, so that a busy moment hits all of them.

    Args:
        ways: each does its work once and returns how many units of it that was.
        warm_up: run each once before, without counting it.
    """
    timings = {name: Timing() for name in ways}
    if warm_up:
        for work in ways.values():
            work()
    for number in range(repeats):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            wall, cpu, units = timed(ways[name])
            timings[name].wall.append(wall / units)
            timings[name].cpu.append(cpu / units)
    return timings


def times_faster(slow: Timing, fast: Timing, clock: str = "cpu") -> float:
    """Median over the rounds of how many times less the fast way used in the same round."""
    pairs = zip(getattr(slow, clock), getattr(fast, clock), strict=True)
    return median(before / max(after, 1e-9) for before, after in pairs)


def both_clocks(slow: Timing, fast: Timing) -> dict[str, float]:
    return {"cpu": times_faster(slow, fast), "wall": times_faster(slow, fast, "wall")}


def summaries(timings: Mapping[str, Timing]) -> dict[str, Any]:
    return {name: timing.summary() for name, timing in timings.items()}


def in_child(function: Callable[..., T], *args: Any) -> T:
    """Run a function of a module in a fresh process, whose memory and imports are its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def fresh_accelerator(mixed_precision: str) -> "Accelerator":
    """An Accelerator of any precision; one process may have only one at a time, so the last is forgotten."""
    from accelerate.state import AcceleratorState

    from gazepose.training.distributed import start_accelerator

    AcceleratorState._reset_state(reset_partial_state=True)
    return start_accelerator(mixed_precision=mixed_precision)


def private_bytes(pid: int | str = "self") -> int:
    """Memory that a process holds alone: what it wrote. Pages of a file that is mapped to be read are the system's
    cache, one copy for all processes, even while only one looks at them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


class MemoryWatch:
    """Resident memory of this process and all it started, sampled while the block runs."""

    def __init__(self, every: float = 0.1) -> None:
        self.every, self.seconds, self.bytes = every, [], []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        began, me = time.perf_counter(), psutil.Process()
        while True:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            self.seconds.append(time.perf_counter() - began)
            self.bytes.append(total)
            if self._stop.wait(self.every):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak(self) -> int:
        return max(self.bytes)

    def growth(self) -> int:
        """Bytes by which the last fifth of the time lies above the second fifth, medians."""
        fifth = max(1, len(self.bytes) // 5)
        return int(median(self.bytes[-fifth:]) - median(self.bytes[fifth:2 * fifth] or self.bytes[:1]))


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    import cv2
    import torch

    from gazepose.training.runlog import versions

    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else []
    found = versions()
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    commit = found.pop("commit")
    return {"cpu": names[0] if names else platform.processor(), "cores": len(os.sched_getaffinity(0)),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1), "system": platform.platform(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "threads": {"torch": torch.get_num_threads(), "opencv": cv2.getNumThreads(), **{
                name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}},
            "versions": found, "commit": commit}


def parser(goal: Goal) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    made = argparse.ArgumentParser(description=f"Goal {goal.number}: {goal.title}")
    made.add_argument("--quick", action="store_true", help="small sizes, one round: shows that it works, no figures")
    made.add_argument("--repeats", type=int, help="rounds; default 5, quick 1")
    made.add_argument("--out", type=Path, help=f"where the JSON goes; default {RESULTS.relative_to(ROOT)}, "
                      "with --quick its folder quick/")
    made.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "gazepose-benchmarks",
                      help="where videos and faces are made, once; default %(default)s")
    return made


def without_places(flags: list[str]) -> list[str]:
    """Flags without --work, --out and --sheet, which name places of one machine and change no figure."""
    kept, skip = [], False
    for flag in flags:
        place = flag.partition("=")[0] in ("--work", "--out", "--sheet")
        if not skip and not place:
            kept.append(flag)
        skip = place and "=" not in flag
    return kept


def main(name: str, goal: Goal, measure: Callable[[argparse.Namespace], dict[str, Any]],
         made: argparse.ArgumentParser | None = None) -> None:
    """Run a benchmark from its flags, show its figures, write <out>/<name>.json.

    Args:
        measure: takes the flags; returns {"measured": {an aim's `what`: value}, ...}, the rest is kept as it is.
        made: a `parser` with flags of the benchmark's own.
    """
    from gazepose.io import write_json

    options = (made or parser(goal)).parse_args()
    options.repeats = options.repeats or (1 if options.quick else 5)
    options.work = options.work.resolve() / ("quick" if options.quick else "full")
    options.work.mkdir(parents=True, exist_ok=True)
    out = options.out or (RESULTS / "quick" if options.quick else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    options.out = out
    load, began = os.getloadavg()[0], time.perf_counter()
    found = measure(options)
    facts = {**machine(), "load_average_before": load}                 # afterwards: the threads are as they were used
    measured = found.pop("measured")
    assert set(measured) <= {aim.what for aim in goal.aims}, f"not among the aims: {set(measured)}"
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *without_places(sys.argv[1:])])
    write_json(out / f"{name}.json", {
        "name": name, "goal": goal.number, "title": goal.title, "command": command, "quick": options.quick,
        "wanted": {aim.what: aim.wanted for aim in goal.aims},
        "measured": {aim.what: measured.get(aim.what) for aim in goal.aims},
        "met": {aim.what: aim.met(measured.get(aim.what)) for aim in goal.aims},
        "seconds": round(time.perf_counter() - began, 1), "machine": facts, **found})
    print(f"goal {goal.number}: {goal.title}{' (quick: not to be quoted)' if options.quick else ''}")
    if "skipped" in found:
        print(f"  skipped: {found['skipped']}")
    for aim in goal.aims:
        print(f"  {aim.what}: {figure(measured.get(aim.what))}, wanted {aim.wanted}")
    print(f"  -> {out / f'{name}.json'}")


def figure(value: float | None) -> str:
    """Three figures that count; a dash where nothing was measured."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
