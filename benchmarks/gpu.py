"""Goal 8: training on one GPU from shards, four cores: a step without graphs, from CUDA graphs, and compiled.

One call takes five minutes at most (--minutes) and prints a table. Without a GPU it says so and ends well; --dry runs
all of it on the CPU, with small models and with dry_graph.py instead of CUDA graphs.
"""

import argparse
import gc
import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.dry_graph import DryGraph
from benchmarks.material import FACES, NoiseFaces, many_rows
from benchmarks.measure import Aim, Goal, figure, fresh_accelerator, main, parser
from gazepose.data.loader import make_loader, order_of
from gazepose.data.windows import WindowRule, centre_rows
from gazepose.models import ModelConfig, build_model
from gazepose.training.engine import Step, train_steps
from gazepose.training.graphs import StepGraphs, prepare_launches, ready_for_graphs, step_graphs
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer

STRIDE, SEGMENT = 3, 8
WANTED = {"GazePose": 5000, "GazeLSTM": 7000}
GRAPHED = {"GazePose": 2300, "GazeLSTM": None}
"""windows a second at 64 windows a step; of the first, its kernels take 28 ms a step"""
WAYS = {"no graphs": "no", "graphs": "graphs", "compiled": "yes"}
"""ways of launching a step -> --compile of train.py"""
RATE, BUSY = "{} training in bf16 from shards", "{} GPU busy"
RATE_GRAPHS, BUSY_GRAPHS = "{} training from CUDA graphs", "{} GPU busy with CUDA graphs"
MEMORY, COMPILE = "{} peak memory", "{} --compile against without"
GOAL = Goal(8, "one GPU", tuple(aim for name, least in WANTED.items() for aim in (
    Aim(RATE.format(name), least=least, unit="windows/s"), Aim(BUSY.format(name), least=0.9, unit="of the time"),
    Aim(RATE_GRAPHS.format(name), least=GRAPHED[name], unit="windows/s"),
    Aim(BUSY_GRAPHS.format(name), least=0.9, unit="of the time"),
    Aim(MEMORY.format(name), unit="GB"), Aim(COMPILE.format(name)))),
    how="No reference. Training in bf16 from shards, flip, crop and normalisation on the device and counted.")
TINY = {"backbone": "test_resnet", "output_stride": 32, "dmodel": 32, "dim_feedforward": 32, "nheads": 2,
        "num_encoder_layers": 1, "num_decoder_layers": 1}
FLAGS = parser(GOAL)
FLAGS.add_argument("--cores", type=int, default=4, help="cores that training and its workers may use")
FLAGS.add_argument("--workers", type=int, default=4, help="loader processes; --dry has none")
FLAGS.add_argument("--batch_size", type=int, default=64, help="windows a step")
FLAGS.add_argument("--minutes", type=float, default=5, help="show then what was measured; default %(default)s")
FLAGS.add_argument("--no_compile", action="store_true", help="leave out what takes minutes")
FLAGS.add_argument("--dry", action="store_true", help="try the script on the CPU, with small models")


class OutOfTime(Exception):
    """The minutes are over."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block when the time is over, also in the middle of compiling."""
    def stop(number: int, frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    except OutOfTime:
        print("  the minutes are over; the table shows what was measured")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Training:
    """An endless training of one model; `run` takes some more steps of it."""

    def __init__(self, name: str, way: str, options: argparse.Namespace) -> None:
        pixels, rows = (32, 2_000) if options.dry else (FACES, 20_000 if options.quick else 200_000)
        index = many_rows(NoiseFaces(64, pixels), options.work / f"noise-{pixels}-{rows}", tracks=rows // 500,
                          length=500)
        self.accelerator = fresh_accelerator("bf16")
        torch.manual_seed(0)
        size: dict[str, Any] = TINY if options.dry else {}
        model = build_model(ModelConfig(model=name, prior_head=True, prior_landmark=True, **size))  # type: ignore[arg-type]
        model = model.to(memory_format=torch.channels_last)                              # type: ignore[call-overload]
        self.optim = OptimConfig()
        rule = WindowRule(stride=STRIDE, windows_per_segment=SEGMENT, train=True)
        loader = make_loader(index, rule, centre_rows(index, STRIDE), batch_size=options.batch_size,
                             crop_size=pixels, num_workers=0 if options.dry else options.workers,
                             pin_memory=self.accelerator.device.type == "cuda")
        optimizer = make_optimizer(model, self.optim)
        if options.dry and way == "compiled":
            model.compile(backend="eager")               # torch's own compiler takes a minute
        else:
            prepare_launches(self.accelerator, model, WAYS[way])
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        if options.dry and way == "graphs":
            ready_for_graphs(self.optimizer)
            order_of(self.loader).full_pools = True
            self.graphs: StepGraphs | None = StepGraphs(DryGraph, warm_up=1)
        else:
            self.graphs = step_graphs(self.accelerator, self.optimizer, order_of(self.loader), WAYS[way])
        self.steps = self._endless()

    def _endless(self) -> Generator[list[Step], None, None]:
        number = epoch = 0
        while True:
            order_of(self.loader).epoch = epoch
            for steps in train_steps(self.accelerator, self.model, self.optimizer, self.loader, step=number,
                                     total=1_000_000, seed=0, loss=LossRule((0.2, 0.8)), optim=self.optim,
                                     graphs=self.graphs):
                number += len(steps)
                yield steps
            epoch += 1

    def close(self) -> None:
        """End the loader's workers, which live as long as it does, and give back the memory."""
        self.steps.close()
        del self.steps, self.loader, self.model, self.optimizer, self.graphs
        self.accelerator.free_memory()
        gc.collect()

    def take(self, count: int) -> list[Step]:
        """At least so many more steps; the device has done all of them."""
        taken: list[Step] = []
        while len(taken) < count:
            taken += next(self.steps)
        return taken

    def run(self, steps: int) -> dict[str, float]:
        taken = self.take(steps)
        seconds = sum(step.seconds for step in taken)
        return {"windows_per_s": sum(step.samples for step in taken) / seconds, "ms_a_step": seconds / len(taken) * 1e3,
                "waited": sum(step.waited for step in taken) / seconds}


def profiled(training: Training, steps: int) -> dict[str, Any]:
    """Share of the time in which kernels ran, and the ten operations that took most of it."""
    cuda = training.accelerator.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds) as trace:
        taken = training.take(steps)
    steps, seconds = len(taken), sum(step.seconds for step in taken)
    spent = "self_device_time_total" if cuda else "self_cpu_time_total"
    found = sorted(trace.key_averages(), key=lambda entry: -getattr(entry, spent))
    kernels = sum(event.device_time_total for event in trace.events() or [] if event.device_type.name == "CUDA")
    return {"busy": kernels / 1e6 / seconds if cuda else None, "seconds": seconds, "steps": steps,
            "top": [{"name": entry.key, "ms_per_step": getattr(entry, spent) / 1e3 / steps,
                     "calls_per_step": entry.count / steps} for entry in found[:10]]}


def measure_way(name: str, way: str, options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Train one model in one way; its figures go into `found` as soon as they are there."""
    cuda = torch.cuda.is_available() and not options.dry
    warm, steps = (2, 2) if options.quick or options.dry else (20, 60)
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    training = Training(name, way, options)
    began = time.perf_counter()
    training.run(warm)
    found |= {"first_steps_s": time.perf_counter() - began, "runs": []}
    for _ in range(options.repeats):
        found["runs"].append(training.run(steps))
    found |= {key: median(run[key] for run in found["runs"]) for key in ("windows_per_s", "ms_a_step", "waited")}
    found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    graphs = training.graphs
    found["captured"] = None if graphs is None else len(graphs.captured)
    if way != "compiled":
        found["profile"] = profiled(training, max(1, steps // 5))
        found["busy"] = found["profile"]["busy"]
    training.close()


def lines_of(ways: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """The table: a line for each model and way."""
    columns = {"windows/s": "windows_per_s", "ms a step": "ms_a_step", "GPU busy": "busy", "waited for data": "waited",
               "peak GB": "peak_gb", "first steps, s": "first_steps_s"}
    lines = [f"| model | launched | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    return lines + [f"| {name} | {way} | {' | '.join(figure(found.get(key)) for key in columns.values())} |"
                    for name, of_model in ways.items() for way, found in of_model.items()]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    cuda = torch.cuda.is_available() and not options.dry
    if not cuda and not options.dry:
        return {"measured": {}, "skipped": "no CUDA device on this machine"}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.cores])
    ways: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in WANTED}
    order = [(name, way) for name in WANTED for way in ("no graphs", "graphs")]
    if not options.no_compile:                           # last, because one model takes minutes
        order += [(name, "compiled") for name in reversed(WANTED)]
    with limited(60 * options.minutes):
        for name, way in order:
            ways[name][way] = {}
            measure_way(name, way, options, ways[name][way])
    print("\n".join(lines_of(ways)))
    measured: dict[str, float | None] = {}
    for name, found in ways.items():
        plain, graphs, compiled = (found.get(way, {}) for way in WAYS)
        rates = [way.get("windows_per_s") for way in (plain, compiled)]
        measured |= {RATE.format(name): plain.get("windows_per_s"), BUSY.format(name): plain.get("busy"),
                     RATE_GRAPHS.format(name): graphs.get("windows_per_s"),
                     BUSY_GRAPHS.format(name): graphs.get("busy"), MEMORY.format(name): plain.get("peak_gb"),
                     COMPILE.format(name): rates[1] / rates[0] if all(rates) else None}
    return {"measured": measured, "models": ways, "batch_size": options.batch_size, "workers": options.workers,
            "cores_used": len(os.sched_getaffinity(0)), "device": "cuda" if cuda else "cpu"}


if __name__ == "__main__":
    main("gpu", GOAL, measure, FLAGS)
