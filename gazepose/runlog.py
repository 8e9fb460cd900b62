"""A run's records: config.json, metrics.jsonl, status.json, trackers, and what is seen on the terminal."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from gazepose.checkpoint import Progress, git_commit, write_json
from gazepose.engine import Step

PACKAGES = ("torch", "torchvision", "accelerate", "timm", "decord", "numpy", "safetensors")
PLAIN_LINE_SECONDS = 10.0


def versions() -> dict[str, str | None]:
    """Versions of what the numbers of a run depend on, and the code's commit."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}, "commit": git_commit()}


def world_line(accelerator: Accelerator, batch_size: int) -> str:
    """How many processes really run, and on what; printed before anything else."""
    count = accelerator.num_processes
    return (f"world: {count} process{'es' if count > 1 else ''} on {accelerator.device.type}, mixed precision "
            f"{accelerator.mixed_precision}, {batch_size} windows per process and step, {batch_size * count} in all")


def metrics_line(result: Mapping[str, Any]) -> str:
    """The main figures of `metrics.evaluate` in one line; a metric that does not exist is a dash."""
    named = {"mAP": "mAP", "AP looking": "ap_looking", "AP not looking": "ap_not_looking", "accuracy": "accuracy",
             "AUROC": "auroc"}
    return "  ".join(f"{name} {'-' if result[key] is None else format(result[key], '.3f')}"
                     for name, key in named.items())


def start_accelerator(**options: Any) -> Accelerator:
    """Accelerate's Accelerator as this machine has it: without a GPU it says so, else several CPU processes would each
    take themselves for the only one; and the cores are shared out, since the launchers give each process one thread.
    """
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), **options)
    if accelerator.device.type == "cpu":
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    return accelerator


class RunLog:
    """Writes on the main process only; a progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, folder: Path, accelerator: Accelerator, total_steps: int):
        self.folder, self.accelerator, self.main = folder, accelerator, accelerator.is_main_process
        self.began = self.last_line = time.perf_counter()
        self.total = total_steps
        self.compared = False
        """whether the trivial baselines have been shown"""
        self.bar = tqdm(total=total_steps, unit="step", disable=not (self.main and sys.stderr.isatty()))

    def say(self, line: str) -> None:
        """One line on the terminal, beside the progress bar."""
        if self.main:
            tqdm.write(line)
            sys.stdout.flush()

    def record(self, kind: str, values: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, and to the trackers what is a number."""
        if self.main:
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, **values}) + "\n")
            self.accelerator.log({f"{kind}/{key}": value for key, value in values.items()
                                  if isinstance(value, int | float)}, step=values["step"])

    def step(self, step: Step, epoch: int) -> None:
        """Record an optimiser step and show where the run stands."""
        self.record("train", {"step": step.step + 1, "epoch": epoch, "loss": step.loss, "lr": step.lr,
                              "grad_norm": step.grad_norm if not step.skipped else None, "skipped": step.skipped,
                              "samples_per_s": step.samples / step.seconds, "waited": step.waited / step.seconds})
        self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
        self.bar.update(step.step + 1 - self.bar.n)
        now = time.perf_counter()
        if self.bar.disable and (now - self.last_line > PLAIN_LINE_SECONDS or step.step + 1 == self.total):
            self.last_line = now
            self.say(f"step {step.step + 1}/{self.total}  loss {step.loss:.3f}  lr {step.lr:.1e}  "
                     f"{step.samples / step.seconds:.0f} windows/s")

    def validation(self, progress: Progress, result: Mapping[str, Any], baselines: Mapping[str, Any]) -> None:
        """Record a validation, beside what needs no model."""
        seconds = round(time.perf_counter() - self.began, 1)
        self.record("val", {"step": progress.step, "epoch": progress.epoch, "seconds": seconds, **result,
                            "baselines": baselines})
        trivial = "  ".join(f"{name.replace('_', ' ')} {entry['mAP']:.3f}" for name, entry in baselines.items()
                            if entry and entry.get("mAP") is not None)
        gaze = f"  gaze {result['gaze_degrees']:.1f} deg off" if "gaze_degrees" in result else ""
        self.say(f"epoch {progress.epoch}  val {metrics_line(result)}{gaze}  ({seconds:.0f} s)")
        if trivial and not self.compared:
            self.compared = True
            self.say(f"         without a model: mAP {trivial}")

    def status(self, state: str, **facts: Any) -> None:
        """running, finished or failed; launch scripts and infer.py read it."""
        if self.main:
            write_json(self.folder / "status.json", {
                "state": state, "world_size": self.accelerator.num_processes, "device": self.accelerator.device.type,
                "seconds": round(time.perf_counter() - self.began, 1), **facts})

    @contextmanager
    def running(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Write the configuration; say in status.json how the block ended."""
        if self.main:
            write_json(self.folder / "config.json", config)
        self.status("running")
        try:
            yield
        except BaseException as error:
            self.status("failed", reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            self.bar.close()
