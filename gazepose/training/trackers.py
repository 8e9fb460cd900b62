"""Trackers (--log_with): TensorBoard, Weights & Biases, Trackio. Each gets the run's name and its whole configuration,
and goes on where it was when the run is resumed."""

import json
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from gazepose.io import read_object, write_json
from gazepose.training.run_config import flags_of

PROJECT = "gazepose"
TRACKER = "tracker.json"         # in a run's folder: the id by which Weights & Biases knows it


def check_tracker(name: str | None) -> None:
    """Refuse a tracker of --log_with whose package is not installed.

    Raises:
        ValueError: naming the package.
    """
    packages = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
    if name is not None and not any(find_spec(str(package)) for package in packages):
        raise ValueError(f"--log_with {name}: this package is not installed -> pip install {name}, or leave --log_with "
                         "out: metrics.jsonl is always written")


def start_tracker(accelerator: Accelerator, folder: Path, config: Mapping[str, Any], step: int) -> None:
    """Start the tracker of --log_with, if there is one.

    TensorBoard's events are in RUN/gazepose, and Weights & Biases' files in RUN/wandb. Trackio has one place of its own
    for all runs (TRACKIO_DIR).

    Args:
        config: as config.json has it. step: steps that the run has done; later ones in the tracker come again.
    """
    run: dict[str, Any] = {"name": folder.resolve().name, "config": dict(config)}
    options = {"tensorboard": {"purge_step": step + 1}, "trackio": {**run, "resume": "allow" if step else "never"}}
    if accelerator.is_main_process and "wandb" in map(str, accelerator.log_with):
        options["wandb"] = {**run, "dir": str(folder), "id": _id_of(folder), "resume": "allow"}
    accelerator.init_trackers(PROJECT, init_kwargs=options)
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard" and accelerator.is_main_process:
            flags = {flag: value if isinstance(value, bool | int | float) else str(value)
                     for flag, value in flags_of(config).items()}
            tracker.writer.add_text("config.json", f"```\n{json.dumps(config, indent=1)}\n```", step)
            for part in _hparams()(flags, {}):           # SummaryWriter.add_hparams opens a file of its own for them
                tracker.writer.file_writer.add_summary(part)


def _hparams() -> Any:
    """The function that turns flags into the summaries of TensorBoard's page of hyperparameters."""
    try:
        from torch.utils.tensorboard.summary import hparams
    except ImportError:                          # the other package that Accelerate takes
        from tensorboardX.summary import hparams  # type: ignore[reportMissingImports]
    return hparams


def _id_of(folder: Path) -> str:
    """The run's id, made at its first start."""
    file = folder / TRACKER
    if not file.exists():
        write_json(file, {"id": uuid.uuid4().hex[:12]})
    return str(read_object(file).get("id"))
