"""A run's records: config.json, metrics.jsonl, status.json, trackers, and the lines on the terminal."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from gazepose.evaluation.metrics import metrics_line
from gazepose.io import lock, parse_json, read_object, write_json, writing
from gazepose.machine import cores
from gazepose.manifest import mark_folder
from gazepose.output import is_quiet, is_shown
from gazepose.processes import Preempted, StopRequest
from gazepose.startup import preempted
from gazepose.text import counted, printable, read_text
from gazepose.training.checkpoint import BEST, CHECKPOINTS, CONFIG, WEIGHTS, Progress, newest_whole
from gazepose.training.distributed import check_alike, from_main
from gazepose.training.engine import Step
from gazepose.training.run_config import differing, flags_of
from gazepose.training.trackers import TRACKER

PACKAGES = ("torch", "torchvision", "accelerate", "timm", "decord", "numpy", "safetensors")
PLAIN_LINE_SECONDS = 10.0
MAX_SKIPPED = 20                 # skipped steps in a row that end a training; fp16's scaler needs up to 16 to settle
LOCK = ".lock"                   # of a run's folder


def versions() -> dict[str, str | None]:
    """Versions of the packages that the numbers of a run depend on, and the commit of the code.

    The commit ends in `-dirty` where the code was changed. It is None where the package does not lie at the top of a
    repository: an installed package is not of the repository that surrounds it.
    """
    top, commit = Path(__file__).parents[2], None
    if (top / ".git").exists():
        git = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True,
                             cwd=top, check=False)
        commit = git.stdout.strip() or None
    numbers: dict[str, str | None] = {"python": sys.version.split()[0], "commit": commit}
    for name in PACKAGES:
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:             # decord has no wheel for some machines
            numbers[name] = None
    return numbers


def world_line(accelerator: Accelerator, batch_size: int) -> str:
    """The number of processes that really run, and their device; printed before anything else."""
    count = accelerator.num_processes
    return (f"world: {count} process{'es' if count > 1 else ''} on {accelerator.device.type}, mixed precision "
            f"{accelerator.mixed_precision}, {batch_size} windows per process and step, {batch_size * count} in all")


def launched(accelerator: Accelerator) -> dict[str, Any]:
    """What the launcher decides, for config.json."""
    return {"world_size": accelerator.num_processes, "precision": accelerator.mixed_precision}


def check_same_program(config: Mapping[str, Any], accelerator: Accelerator) -> None:
    """Compare flags and code of all processes. The data set may lie elsewhere on each machine; its content is compared
    when it is open.

    Args:
        config: as config.json has it.

    Raises:
        ValueError: naming what differs.
    """
    flags = {f"--{name}": value for name, value in flags_of(config).items() if name != "data"}
    check_alike(lambda value: gather_object([value]), "flags or code", {**flags, **launched(accelerator), **versions()},
                "start the same command with the same code on every machine; to resume, all must see the run's folder")


def find_checkpoint(folder: Path, accelerator: Accelerator) -> Path | None:
    """The newest whole checkpoint of a run, or None; prints a line about each that was skipped."""
    newest, damaged = from_main(accelerator, lambda: newest_whole(folder))
    for reason in damaged:
        accelerator.print(f"resume: skipped a damaged checkpoint: {reason}")
    if newest is None:
        accelerator.print(f"resume: {folder} has no checkpoint yet, so the run starts anew")
    return newest


def device_name(accelerator: Accelerator) -> str:
    """The GPU by its name, or how many cores this process may use."""
    if accelerator.device.type == "cuda":
        return torch.cuda.get_device_name(accelerator.device)
    return f"{accelerator.device.type.upper()}, {counted(cores(), 'core')}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_folder(path: Path) -> Path:
    """The run that a path belongs to: RUN itself, RUN/best, or a checkpoint in it; else the path's own folder."""
    folder = path if path.is_dir() else path.parent
    inside = folder.name in (BEST, CHECKPOINTS) or (folder / WEIGHTS).exists()
    above = (folder.parent, folder.parent.parent) if inside else ()
    return next((run for run in above if (run / "status.json").exists()), folder)


def newest_finished(runs: Path) -> Path:
    """The run that finished last under `runs`, by the time in its status.json: a copy changes a file's own time,
    which counts only where an older version wrote no other.

    Raises:
        FileNotFoundError: none did; names the training command.
    """
    found = ((path, read_object(path)) for path in runs.glob("*/status.json"))
    finished = [(str(status.get("time", "")), path.stat().st_mtime, path.parent) for path, status in found
                if status.get("state") == "finished"]
    if not finished:
        raise FileNotFoundError(f"{runs.absolute()}: no finished run -> train one first: "
                                "python -m gazepose train --model GazePose --prior_head")
    return max(finished)[2]


def _is_before(line: str, progress: Progress) -> bool:
    """Whether a line of metrics.jsonl is of a step that has been saved; a line that a killed process left is not."""
    try:
        entry = parse_json(line.encode())
        return entry["step"] <= progress.step and (entry["kind"] != "val" or entry["epoch"] <= progress.epoch)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


class RunLog:
    """Writes on the main process only; a progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, folder: Path, accelerator: Accelerator):
        self.folder, self.accelerator, self.main = folder, accelerator, accelerator.is_main_process
        self.began = self.last_line = time.perf_counter()
        self.progress: Progress | None = None
        self.total = 0
        self.skipped = 0
        """steps in a row up to now"""
        self.earlier: dict[str, Any] = {}
        """config.json of the run's earlier starts, if it is resumed"""
        self.compared = False
        """whether the trivial baselines have been shown"""
        self.bar = tqdm(disable=True)            # drawn from `start` on: lines of the start would break it

    def _take(self, resume: bool, config: Mapping[str, Any]) -> dict[str, Any]:
        """Lock the folder and write that a run is running in it; a refusal changes nothing.

        Returns:
            config.json as it was, with the changes of this start.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.lock = lock(self.folder / LOCK)
        except BlockingIOError as error:
            raise ValueError(f"{self.folder}: {error} trains in it -> wait until it has ended, or give another "
                             "--exp_path") from None
        records = [self.folder / name for name in ("status.json", "metrics.jsonl", "start.json", TRACKER)]
        if resume and not records[0].exists():
            raise ValueError(f"{self.folder}: there is no run to resume -> check --exp_path, or leave --resume out")
        if not resume:
            if any((self.folder / name).exists() for name in (CHECKPOINTS, BEST)):
                raise ValueError(f"{self.folder}: holds a training already -> add --resume to continue it, or give "
                                 "another --exp_path")
            for record in records:               # of a run without a checkpoint
                record.unlink(missing_ok=True)
        file, earlier = self.folder / CONFIG, {}
        if resume and file.exists():
            earlier = read_object(file)
            if changes := differing(earlier, config):
                earlier["changes"] = [*earlier.get("changes", []), {"time": _now(), **changes}]
        elif resume and (self.folder / CHECKPOINTS).exists():
            raise ValueError(f"{file}: missing -> copy it from a checkpoint in {self.folder / CHECKPOINTS}")
        if not earlier:                          # that of a resumed run stays until its data are found to be the same
            self._write_config(config)
        self.status("running")
        for name, (old, new) in differing(earlier, config).items():
            self.notify(f"resume: {name} {new}, before {old}")
        return earlier

    def _write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.json, and mark the run as one of this machine: what it names has been given here."""
        write_json(self.folder / CONFIG, config)
        mark_folder(self.folder, self.folder)

    def start(self, progress: Progress, total_steps: int, config: Mapping[str, Any]) -> None:
        """Begin or continue at `progress`. Records of later steps are removed, because these steps come again."""
        self.progress, self.total = progress, total_steps
        self.bar = tqdm(total=total_steps, initial=progress.step, desc="training", unit=" steps",
                        disable=not (self.main and sys.stderr.isatty()) or is_quiet(), position=0, miniters=1)
        if not self.main:
            return
        self._write_config(config)
        records, valid = self.folder / "metrics.jsonl", []
        for line in read_text(records).splitlines(keepends=True) if records.exists() else ():
            if _is_before(line, progress):
                valid.append(line)
        with writing(records) as file:
            file.writelines(valid)

    def notify(self, line: str) -> None:
        """One line of information on the terminal, beside the progress bar."""
        if self.main and is_shown(line):
            tqdm.write(printable(line))
            sys.stdout.flush()

    def record(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write one line of metrics.jsonl, and send the numbers in it to the trackers."""
        if self.main:
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, **values}) + "\n")
            self.accelerator.log({f"{kind}/{key}": value for key, value in values.items()
                                  if isinstance(value, int | float)}, step=values["step"])

    def step(self, step: Step, epoch: int) -> None:
        """Record an optimiser step, count it in the progress and show it.

        Raises:
            ValueError: it is the last of MAX_SKIPPED skipped steps in a row.
        """
        if self.progress:
            self.progress.samples += step.samples
            self.progress.skipped += step.skipped
        self.record("train", {"step": step.step + 1, "epoch": epoch, "loss": step.loss, "lr": step.lr,
                              "grad_norm": step.grad_norm if not step.skipped else None, "skipped": step.skipped,
                              "samples_per_s": step.samples / step.seconds, "waited": step.waited / step.seconds})
        self.bar.set_postfix_str(f"loss {step.loss:.3f}", refresh=False)
        self.bar.update(step.step + 1 - self.bar.n)
        now = time.perf_counter()
        if self.bar.disable and (now - self.last_line > PLAIN_LINE_SECONDS or step.step + 1 == self.total):
            self.last_line = now
            self.notify(f"step {step.step + 1}/{self.total}  loss {step.loss:.3f}  lr {step.lr:.1e}  "
                        f"{step.samples / step.seconds:.0f} windows/s")
        self.skipped = self.skipped + 1 if step.skipped else 0
        if self.skipped == MAX_SKIPPED:
            raise ValueError(f"step {step.step + 1}: the gradient was not finite for {MAX_SKIPPED} steps in a row -> "
                             f"start a new run with a lower --lr or with --clip 1: --config {self.folder}")

    def validation(self, step: int, epoch: int, result: Mapping[str, Any], baselines: Mapping[str, Any]) -> None:
        """Record a validation after so many steps and epochs, with the baselines that need no model."""
        seconds = round(time.perf_counter() - self.began, 1)
        self.record("val", {"step": step, "epoch": epoch, "seconds": seconds, **result, "baselines": baselines})
        trivial = "  ".join(f"{name.replace('_', ' ')} {entry['mAP']:.3f}" for name, entry in baselines.items()
                            if entry and entry.get("mAP") is not None)
        reason = f"  no mAP: {result['reason']}; best/ keeps the newest weights" if result["mAP"] is None else ""
        gaze = f"  gaze {result['gaze_degrees']:.1f} deg off" if "gaze_degrees" in result else ""
        beside = f"  without --ema mAP {result['mAP_without_ema']:.3f}" if result.get("mAP_without_ema") else ""
        self.notify(f"epoch {epoch}  val {metrics_line(result)}{beside}{gaze}{reason}  ({seconds:.0f} s)")
        if trivial and not self.compared:
            self.compared = True
            self.notify(f"         without a model: mAP {trivial}")

    def status(self, state: str, **facts: Any) -> None:
        """Write status.json, which launch scripts and infer.py read: running, finished, preempted or failed."""
        write_json(self.folder / "status.json", {
            "state": state, "time": _now(), "world_size": self.accelerator.num_processes,
            "device": self.accelerator.device.type, "seconds": round(time.perf_counter() - self.began, 1),
            **(asdict(self.progress) if self.progress else {}), **facts})

    def _ended(self, state: str, reason: str) -> None:
        """Only the first process that ends early writes the reason; the others would write that it is gone."""
        path = self.folder / "status.json"       # a machine with a disk of its own has none
        if path.is_file() and read_object(path)["state"] == "running":
            self.status(state, reason=reason, process=self.accelerator.process_index)

    @contextmanager
    def running(self, resume: bool, config: Mapping[str, Any], stop: StopRequest) -> Iterator[None]:
        """Hold the run's folder; write to status.json how the block ended, also where `stop` ends the process.

        Args:
            config: becomes config.json at once, so that a run without a checkpoint can be resumed with its flags too.

        Raises:
            ValueError: another training holds the folder, or it has checkpoints and `resume` is False.
            SystemExit: `preempted`, where the block ended with Preempted.
        """
        self.earlier = from_main(self.accelerator, lambda: self._take(resume, config))
        stop.ending = self._ended
        try:
            yield
            if self.main:
                self.status("finished")
        except Preempted as error:
            self._ended("preempted", str(error))
            self.notify(f"train: stopped {error} -> to continue, add --resume --exp_path {self.folder}")
            raise preempted() from None
        except BaseException as error:
            self._ended("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.bar.close()
