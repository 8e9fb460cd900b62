"""Goal 8: training on one GPU from shards, four cores: windows a second, how busy the GPU is, memory, --compile.

Without a GPU it says so and ends well; --on_cpu runs the same on the CPU at a small size, to try the script itself.
"""

import argparse
import gc
import os
from collections.abc import Generator
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.material import FACES, faces, many_rows
from benchmarks.measure import Aim, Goal, fresh_accelerator, main, parser
from gazepose.data.loader import make_loader, order_of
from gazepose.data.windows import WindowRule, centre_rows
from gazepose.models import ModelConfig, build_model
from gazepose.training.engine import Step, train_steps
from gazepose.training.losses import LossRule
from gazepose.training.optim import OptimConfig, make_optimizer

STRIDE, SEGMENT = 3, 8
WANTED = {"GazePose": 5000, "GazeLSTM": 7000}
RATE, BUSY = "{} training in bf16 from shards", "{} GPU busy"
MEMORY, COMPILE = "{} peak memory", "{} --compile against without"
GOAL = Goal(8, "one GPU", tuple(aim for name, least in WANTED.items() for aim in (
    Aim(RATE.format(name), least=least, unit="windows/s"), Aim(BUSY.format(name), least=0.9, unit="of the time"),
    Aim(MEMORY.format(name), unit="GB"), Aim(COMPILE.format(name)))),
    how="No reference. Training in bf16 from shards, flip, crop and normalisation on the device and counted.")
FLAGS = parser(GOAL)
FLAGS.add_argument("--cores", type=int, default=4, help="cores that training and its workers may use")
FLAGS.add_argument("--workers", type=int, default=4, help="loader processes")
FLAGS.add_argument("--batch_size", type=int, default=64, help="windows a step")
FLAGS.add_argument("--no_compile", action="store_true", help="leave out what takes minutes")
FLAGS.add_argument("--on_cpu", action="store_true", help="try the script on the CPU")


class Training:
    """An endless training of one model; `run` takes some more steps of it."""

    def __init__(self, name: str, compiled: bool, options: argparse.Namespace) -> None:
        source = faces(options.work, options.quick)
        rows = 20_000 if options.on_cpu or options.quick else 1_000_000
        index = many_rows(source, options.work / f"rows-{rows}", tracks=rows // 500, length=500)
        self.accelerator = fresh_accelerator("bf16")
        size: dict[str, Any] = {"num_encoder_layers": 1, "num_decoder_layers": 1} if options.on_cpu else {}
        torch.manual_seed(0)
        model = build_model(ModelConfig(model=name, prior_head=True, prior_landmark=True, **size))  # type: ignore[arg-type]
        model = model.to(memory_format=torch.channels_last)                              # type: ignore[call-overload]
        self.optim = OptimConfig()
        optimizer = make_optimizer(model, self.optim)
        if compiled:
            model.compile()
        rule = WindowRule(stride=STRIDE, windows_per_segment=SEGMENT, train=True)
        loader = make_loader(index, rule, centre_rows(index, STRIDE), batch_size=options.batch_size, crop_size=FACES,
                             num_workers=options.workers, pin_memory=self.accelerator.device.type == "cuda")
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        self.steps = self._endless()

    def _endless(self) -> Generator[list[Step], None, None]:
        number = epoch = 0
        while True:
            order_of(self.loader).epoch = epoch
            for steps in train_steps(self.accelerator, self.model, self.optimizer, self.loader, step=number,
                                     total=1_000_000, seed=0, loss=LossRule((0.2, 0.8)), optim=self.optim):
                number += len(steps)
                yield steps
            epoch += 1

    def close(self) -> None:
        """End the loader's workers, which live as long as it does, and give back the memory."""
        self.steps.close()
        del self.steps, self.loader, self.model, self.optimizer
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
        return {"windows_per_s": sum(step.samples for step in taken) / seconds,
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


def measure(options: argparse.Namespace) -> dict[str, Any]:
    cuda = torch.cuda.is_available() and not options.on_cpu
    if not cuda and not options.on_cpu:
        return {"measured": {}, "skipped": "no CUDA device on this machine"}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.cores])
    warm, steps = (1, 1) if options.quick else (20, 60)
    measured: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    for name in WANTED:
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        plain = Training(name, False, options)
        plain.run(warm)
        first = plain.run(steps)
        peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
        kernels = profiled(plain, max(1, steps // 5))
        details[name] = {"profile": kernels, "without": [first], "compiled": []}
        if not (options.no_compile or (options.quick and options.on_cpu)):
            compiled = Training(name, True, options)
            compiled.run(warm)
            for _ in range(options.repeats):                           # in turn
                details[name]["compiled"].append(compiled.run(steps))
                details[name]["without"].append(plain.run(steps))
            compiled.close()
        else:
            details[name]["without"] += [plain.run(steps) for _ in range(options.repeats - 1)]
        rates = {kind: median(run["windows_per_s"] for run in details[name][kind])
                 for kind in ("without", "compiled") if details[name][kind]}
        measured |= {RATE.format(name): rates["without"], BUSY.format(name): kernels["busy"],
                     MEMORY.format(name): peak,
                     COMPILE.format(name): rates["compiled"] / rates["without"] if "compiled" in rates else None}
        plain.close()
    return {"measured": measured, "models": details, "batch_size": options.batch_size, "workers": options.workers,
            "cores_used": len(os.sched_getaffinity(0)), "device": "cuda" if cuda else "cpu"}


if __name__ == "__main__":
    main("gpu", GOAL, measure, FLAGS)
