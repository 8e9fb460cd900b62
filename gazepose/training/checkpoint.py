"""Checkpoints of a run: weights and optimiser in safetensors, progress and configuration in JSON.

RUN/checkpoints/step-*/ holds what `resume` needs, the last KEEP of them; RUN/best/step-*/ the weights of the best
validation. Each is written atomically under a new name, and older ones are removed last. Readers never write.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from gazepose.io import leftovers, read_object, sha256_of, write_json, writing_folder
from gazepose.manifest import (
    MANIFEST,
    copy_others,
    is_written_here,
    mark_folder,
    read_manifest,
    remove_written,
    write_manifest,
)
from gazepose.models import build_model
from gazepose.models.config import ModelConfig
from gazepose.records import from_json
from gazepose.tensor_files import Entries, read_tensors, save_tensors, tensor_entries
from gazepose.text import counted
from gazepose.training.hub import local_folder
from gazepose.training.provenance import for_scoring
from gazepose.training.run_config import CONFIG

WEIGHTS, OPTIMIZER, PROGRESS = "model.safetensors", "optimizer.safetensors", "progress.json"
AVERAGE = "ema.safetensors"      # of the weights, in the checkpoints of a run with --ema
CHECKPOINTS, BEST = "checkpoints", "best"
KEEP = 2                         # checkpoints of a run, so that one remains if the newest is damaged
STEP = re.compile(r"step-(\d{8})(?:-(\d+))?")       # -2, -3, ...: the same step, saved again


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    epoch: int = 0
    """finished epochs, validation included"""
    consumed: int = 0
    """windows of the next epoch's order that were trained on; all of them: only its validation is missing"""
    order: str = ""
    """fingerprint of that order"""
    samples: int = 0
    best_mAP: float = -1.0
    world_size: int = 1
    skipped: int = 0


# ---- writing

@contextmanager
def checkpoint_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """Write a checkpoint atomically: yields a folder to fill, which gets a mark, a manifest and its name.

    Args:
        replace: an older folder of that name is removed last, without a user's own files; without it, that is an error.

    Raises:
        OSError: it cannot be written (the disk is full); an older folder stays as it is.
    """
    try:
        with writing_folder(folder, replace=replace) as part:
            yield part
            mark_folder(part, folder)
            write_manifest(part)
            if replace and folder.is_dir():
                copy_others(folder, part)
    except (OSError, SafetensorError) as error:      # safetensors has no error of its own for a full disk
        raise OSError(f"{folder}: cannot be written ({error}) -> make room on that disk; earlier checkpoints are "
                      "whole") from error


def save_weights(folder: Path, model: nn.Module, config: Mapping[str, Any],
                 beside: Mapping[str, Any] | None = None) -> None:
    """Write weights and configuration, which is all that inference needs, in place of an older folder of that name.

    Args:
        beside: more JSON files, by name.

    Raises:
        ValueError: a weight is not finite; such a model is never saved.
    """
    state = _finite_state(model)
    with checkpoint_folder(folder, replace=True) as part:
        save_tensors(state, part / WEIGHTS)
        for name, content in {CONFIG: config, **(beside or {})}.items():
            write_json(part / name, content)


def save_best(run: Path, model: nn.Module, config: Mapping[str, Any], step: int) -> Path:
    """`save_weights` of the best validation so far, under a new name in RUN/best; then remove older ones."""
    folder = _new_name(run / BEST, step)
    save_weights(folder, model, config)
    _remove_others(folder.parent, {folder})
    return folder


def save_training(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any,
                  progress: Progress, config: Mapping[str, Any], average: nn.Module | None = None) -> Path:
    """Write what `resume` needs, under a new name in RUN/checkpoints; then remove all but the last KEEP whole ones.

    The optimiser's state goes by position: `3.exp_avg` belongs to parameter 3. `average` is the model with the running
    average of its weights, if the run has one.

    Raises:
        ValueError: a weight is not finite; such a model is never saved.
        OSError: the disk is full; earlier checkpoints stay.
    """
    folder = _new_name(run / CHECKPOINTS, progress.step)
    states = {WEIGHTS: model} if average is None else {WEIGHTS: model, AVERAGE: average}
    weights, state = {name: _finite_state(one) for name, one in states.items()}, optimizer.state_dict()["state"]
    with checkpoint_folder(folder) as part:
        for name, tensors in weights.items():
            save_tensors(tensors, part / name)
        save_tensors({f"{number}.{key}": value.detach().cpu().contiguous()
                   for number, entry in state.items() for key, value in entry.items()}, part / OPTIMIZER)
        write_json(part / PROGRESS, {**asdict(progress), "scaler": scaler.state_dict() if scaler else None})
        write_json(part / CONFIG, config)
    # checkpoints of later steps were damaged: the run was resumed from one before them
    older = (old for old in reversed(steps_in(folder.parent)) if _order(old) < _order(folder) and is_written_here(old)
             and _is_whole(old))
    _remove_others(folder.parent, {folder, *islice(older, KEEP - 1)})
    return folder


def _finite_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's entries on the CPU, or a ValueError that names one which is not finite."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{key} is not finite -> start a new run with a lower --lr or with --clip 1 (--config "
                             "RUN); the last checkpoint stays")
    return state


# ---- names

def _order(folder: Path) -> tuple[int, int]:
    """(step, number of its save) of a checkpoint's name."""
    match = STEP.fullmatch(folder.name)
    assert match, folder
    return int(match[1]), int(match[2] or 1)


def steps_in(folder: Path) -> list[Path]:
    """Checkpoint folders in RUN/checkpoints or RUN/best, the oldest first; `verify` says whether one is whole."""
    return sorted((path for path in folder.glob("step-*") if STEP.fullmatch(path.name)), key=_order)


def _new_name(parent: Path, step: int) -> Path:
    """A name for a step that no folder has yet, behind those of earlier saves of this step."""
    saves = [number for other, number in map(_order, steps_in(parent)) if other == step]
    return parent / (f"step-{step:08d}-{max(saves) + 1}" if saves else f"step-{step:08d}")


def _remove_others(parent: Path, keep: set[Path]) -> None:
    """Remove checkpoints that were written here, and the unfinished ones of killed saves; a user's copies stay."""
    for folder in leftovers(parent, "step-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in {*steps_in(parent)} - keep:
        if is_written_here(folder):
            remove_written(folder, (WEIGHTS, AVERAGE, OPTIMIZER, PROGRESS, CONFIG))


# ---- reading

def verify(folder: Path) -> Path:
    """Check every file of the manifest against its checksum and return the folder.

    Raises:
        FileNotFoundError, ValueError: naming the file that is missing or altered.
    """
    manifest = read_manifest(folder)
    if WEIGHTS not in manifest:
        raise ValueError(f"{folder / MANIFEST}: names no {WEIGHTS} -> the file is damaged; use another checkpoint")
    for name, digest in manifest.items():
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: missing, though the manifest names it -> use another checkpoint")
        if sha256_of(file) != digest:
            raise ValueError(f"{file}: its SHA-256 differs from the manifest -> the file was changed; "
                             "use another checkpoint")
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        return bool(verify(folder))
    except (ValueError, FileNotFoundError):
        return False


def newest_whole(run: Path) -> tuple[Path | None, list[str]]:
    """A run's newest whole checkpoint, None if it has no checkpoint; and what is wrong with newer ones.

    Raises:
        ValueError: none of them is whole.
    """
    damaged = []
    for folder in reversed(steps_in(run / CHECKPOINTS)):
        try:
            return verify(folder), damaged
        except (ValueError, FileNotFoundError) as error:
            damaged.append(str(error))
    if damaged:
        best = f", from the best weights so far: --checkpoint {run / BEST}" if steps_in(run / BEST) else ""
        raise ValueError(f"{run}: every checkpoint is damaged -> start a new run with another --exp_path{best}\n  "
                         + "\n  ".join(damaged))
    return None, []


def resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, world_size: int,
           elastic: bool = False, average: nn.Module | None = None) -> Progress:
    """Load what `save_training` wrote into a model and an optimiser of the same configuration.

    Args:
        folder: a checkpoint that `verify` has accepted.
        elastic: accept another world size.
        average: as of `save_training`.

    Raises:
        ValueError: another world size or another model.
    """
    older = f"delete {folder}; then the checkpoint before it is resumed, or the run starts anew"
    facts = read_object(folder / PROGRESS, remedy=older)
    scaler_state = facts.pop("scaler", None)
    progress = from_json(Progress, facts, folder / PROGRESS, older)
    if progress.world_size != world_size and not elastic:
        raise ValueError(f"{folder}: saved by {counted(progress.world_size, 'process', 'processes')}, this run has "
                         f"{world_size} -> start {progress.world_size} for bit-identical results, or add --processes "
                         "any: results differ slightly, and every window is still used once per epoch")
    progress.world_size = world_size
    load_weights(folder, model)
    if average is not None:
        load_weights(folder, average, AVERAGE)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in read_tensors(folder / OPTIMIZER).items():
        if not re.fullmatch(r"\d{1,6}\.\w+", name):
            raise ValueError(f"{folder / OPTIMIZER}: {name[:80]!r} belongs to no parameter -> {older}")
        number, key = name.split(".", 1)
        if int(number) >= len(parameters) or (value.ndim and value.shape != parameters[int(number)].shape):
            raise ValueError(f"{folder / OPTIMIZER}: {name} fits no parameter -> {own_flags(folder)}")
        if value.ndim:                           # the fused step relies on the parameter's order in memory
            value = torch.empty_like(parameters[int(number)], dtype=value.dtype).copy_(value)
        entries.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    if scaler and scaler_state:
        scaler.load_state_dict(scaler_state)
    return progress


def load_weights(folder: Path, model: nn.Module, name: str = WEIGHTS) -> None:
    """One of a checkpoint's files of weights into the model they belong to.

    Raises:
        ValueError: a checkpoint of another model, naming the first keys that differ.
    """
    check_entries(folder / name, model, f"give the --model and priors it was trained with (see {folder / CONFIG})")
    model.load_state_dict(read_tensors(folder / name))


def file_to_score(folder: Path) -> str:
    """Which of a checkpoint's files is scored with, exported or started from: the average of the weights if there is
    one. In best/ it is model.safetensors, which holds the average there."""
    return AVERAGE if (folder / AVERAGE).exists() else WEIGHTS


def check_entries(file: Path, model: nn.Module, remedy: str) -> None:
    """Compare a model, which may be on the meta device, with the header of the weights; none of them is read.

    Raises:
        ValueError: a checkpoint of another model, naming the first keys that differ.
    """
    state = tensor_entries(file)
    own: Entries = {key: (value.dtype, tuple(value.shape)) for key, value in model.state_dict().items()}
    differing = sorted(key for key in own.keys() | state.keys() if own.get(key) != state.get(key))
    if differing:
        raise ValueError(f"{file}: a checkpoint of another model; {counted(len(differing), 'entry', 'entries')} "
                         f"differ, the first is {differing[0]:.140} -> {remedy}")


def check_size(folder: Path, network: ModelConfig, run: Path | None = None) -> None:
    """Compare a configuration with the header of the weights, before it can ask for memory.

    Args:
        run: the configuration is of this run, which is resumed; None: of the checkpoint itself.

    Raises:
        ValueError: they do not belong together.
    """
    try:
        with torch.device("meta"):               # shapes without memory
            sketch = build_model(network)
    except ValueError as error:
        raise ValueError(f"{(run or folder) / CONFIG}: {error}") from None
    cure = "use another checkpoint" if run is None else own_flags(folder, run)
    check_entries(folder / WEIGHTS, sketch, f"{(run or folder) / CONFIG} does not describe these weights; {cure}")


def own_flags(folder: Path, run: Path | str = "the run's folder") -> str:
    """What to do with a run whose config.json does not fit its checkpoint."""
    return f"copy {folder / CONFIG} into {run}, it has the flags that the checkpoint was saved with"


def weights_folder(path: Path) -> Path:
    """The checkpoint folder that a path means (RUN, RUN/best, or one with model.safetensors in it): itself, or the
    newest one in it or in its best/; or that of a name on the hub.

    Raises:
        FileNotFoundError: none of these. Others as hub.local_folder.
    """
    path = local_folder(path)
    for folder in (path, path / BEST):
        if (folder / WEIGHTS).exists():
            return folder
        if steps := steps_in(folder):
            return steps[-1]
    raise FileNotFoundError(f"{path}: neither a checkpoint ({WEIGHTS}) nor a run with a best checkpoint -> name a run "
                            "under runs/, a checkpoint folder, or a published .pth file")


def read_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A model with its weights, and of the configuration it was trained with what scoring may use.

    Args:
        path: a folder as `weights_folder` takes it, or a published file. The configuration of a published file comes
            from its keys and from the published training.

    Returns:
        The model, and its configuration as `for_scoring` in training/provenance.py returns it.

    Raises:
        ValueError: Gaze360's file, which has no head for looking; a configuration that does not fit the weights.
    """
    if path.is_file():
        from gazepose.compat.start import model_of, read_published
        return model_of(path, read_published(path))
    folder = verify(weights_folder(path))
    config = for_scoring(folder, read_object(folder / CONFIG))
    network = from_json(ModelConfig, config.get("model"), folder / CONFIG)
    check_size(folder, network)
    model = build_model(network)
    load_weights(folder, model, file_to_score(folder))
    return model, config
