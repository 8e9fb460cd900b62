"""What a run keeps: weights in safetensors, the optimiser beside them, progress and configuration in JSON.

A folder that has its name is whole: it is written under another name, flushed, renamed; the old one goes last. A run
keeps its last KEPT states under checkpoints/ and the weights of the best validation under best/.
"""

import math
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from typeguard import TypeCheckError, check_type

from gazepose.compat.checkpoints import Published, cached_imagenet, load_into, read_published
from gazepose.io import is_id, read_object, read_tensors, sha256_of, sync_folder, write_json
from gazepose.models import build_model
from gazepose.models.gazepose import ModelConfig

WEIGHTS, OPTIMIZER, PROGRESS, CONFIG = "model.safetensors", "optimizer.safetensors", "progress.json", "config.json"
IMPORTED = "imported.json"
"""which entry of a published file became which of ours, and which were left"""
MANIFEST = "manifest.json"
"""SHA-256 of each other file of the folder"""
CHECKPOINTS = "checkpoints"
KEPT = 2                         # checkpoints of a run, so that one is left if the newest turns out damaged


Built = TypeVar("Built")


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    epoch: int = 0
    """epochs that are behind it, validation included"""
    consumed: int = 0
    """windows of the next epoch's order that are learnt from; all of them: only its validation is missing"""
    order: str = ""
    """fingerprint of that order"""
    samples: int = 0
    best_mAP: float = -1.0
    world_size: int = 1
    skipped: int = 0


def built(kind: type[Built], facts: Any, path: Path,
          remedy: str = "written by another version, or damaged; use another checkpoint") -> Built:
    """A dataclass of what a file holds of it: every name known, every value of its type, every number finite.

    Raises:
        ValueError: naming the file and the first that is not.
    """
    try:
        if not isinstance(facts, dict):
            raise TypeError(f"an object is wanted, this is a {type(facts).__name__}")
        hints = get_type_hints(kind)
        facts = {name: tuple(value) if isinstance(value, list) and get_origin(hints.get(name)) is tuple else value
                 for name, value in facts.items()}                      # JSON has no tuples
        for name, value in facts.items():
            if name not in hints:
                raise TypeError(f"{name[:40]!r} is unknown")
            check_type(Path(value) if hints[name] == Path | None and isinstance(value, str) else value, hints[name])
            numeric = hints[name] in (int, float)
            if isinstance(value, float) and not math.isfinite(value) or isinstance(value, bool) and numeric:
                raise TypeError(f"{name} {value}")
        return kind(**facts)
    except (TypeCheckError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {kind.__name__}: {error} -> {remedy}") from None


def _old_name(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _mend(folder: Path) -> None:
    """Bring the old folder back where the machine stopped between the two renames of `whole_folder`."""
    if not folder.exists() and _old_name(folder).exists():
        _old_name(folder).rename(folder)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that gets its name, a manifest and the old one's place when the block ends well.

    Raises:
        OSError: it cannot be written (the disk is full); what was there is untouched.
    """
    staged, old = folder.with_name(f".{folder.name}.{os.getpid()}"), _old_name(folder)
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        yield staged
        write_json(staged / MANIFEST, {file.name: sha256_of(file) for file in sorted(staged.iterdir())})
        for file in staged.iterdir():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(staged)
    except (OSError, SafetensorError) as error:      # safetensors has no error of its own for a full disk
        shutil.rmtree(staged, ignore_errors=True)
        raise OSError(f"{folder}: cannot be written ({error}) -> make room on that disk; what was saved before is "
                      "whole") from error
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    _mend(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    staged.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def verified(folder: Path) -> Path:
    """The folder, once every file of its manifest has its checksum.

    Raises:
        FileNotFoundError, ValueError: naming the file that is missing or altered.
    """
    _mend(folder)
    manifest = read_object(folder / MANIFEST)
    if WEIGHTS not in manifest:
        raise ValueError(f"{folder / MANIFEST}: names no {WEIGHTS} -> the file is damaged; use another checkpoint")
    for name, digest in manifest.items():
        if not is_id(name) or not isinstance(digest, str):
            raise ValueError(f"{folder / MANIFEST}: {name[:140]!r} is no file with its checksum -> use another "
                             "checkpoint")
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: missing, though the manifest names it -> use another checkpoint")
        if sha256_of(file) != digest:
            raise ValueError(f"{file}: its SHA-256 is not the manifest's -> the file was altered; "
                             "use another checkpoint")
    return folder


def save_weights(folder: Path, model: nn.Module, config: Mapping[str, Any],
                 beside: Mapping[str, Any] | None = None) -> None:
    """Weights and configuration: all that inference needs.

    Args:
        beside: JSON files that go with them, by name.

    Raises:
        ValueError: a weight is not finite; such a model is never saved.
    """
    state = _finite_state(model)
    with whole_folder(folder) as staged:
        save_file(state, staged / WEIGHTS)
        for name, content in {CONFIG: config, **(beside or {})}.items():
            write_json(staged / name, content)


def _finite_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's entries on the CPU.

    Raises:
        ValueError: one is not finite, by name.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{key} is not finite -> lower --lr or set --clip 1; the last checkpoint is kept")
    return state


def save_training(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any,
                  progress: Progress, config: Mapping[str, Any]) -> Path:
    """Everything `resume` needs, under RUN/checkpoints/step-<step>; then all but the last KEPT whole ones go.

    The optimiser's state goes by position: `3.exp_avg` is parameter 3's.

    Raises:
        ValueError: a weight is not finite; such a model is never saved.
        OSError: the disk is full; what was saved before is kept.
    """
    folder = run / CHECKPOINTS / f"step-{progress.step:08d}"
    weights, state = _finite_state(model), optimizer.state_dict()["state"]
    with whole_folder(folder) as staged:
        save_file(weights, staged / WEIGHTS)
        save_file({f"{number}.{key}": value.detach().cpu().contiguous()
                   for number, entry in state.items() for key, value in entry.items()}, staged / OPTIMIZER)
        write_json(staged / PROGRESS, {**asdict(progress), "scaler": scaler.state_dict() if scaler else None})
        write_json(staged / CONFIG, config)
    # those of later steps were passed over as damaged, those of other names are of saves that died
    older = (old for old in reversed(checkpoints_of(run)) if old.name < folder.name and _is_whole(old))
    for gone in set(folder.parent.iterdir()) - {folder, *islice(older, KEPT - 1)}:
        shutil.rmtree(gone, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        return bool(verified(folder))
    except (ValueError, FileNotFoundError):
        return False


def checkpoints_of(run: Path) -> list[Path]:
    """Folders of a run's checkpoints, the oldest first; whether they are whole, `verified` says."""
    for old in run.glob(f"{CHECKPOINTS}/.step-*.old"):
        _mend(old.with_name(old.name.removeprefix(".").removesuffix(".old")))
    return sorted(run.glob(f"{CHECKPOINTS}/step-*"))


def newest_whole(run: Path) -> tuple[Path | None, list[str]]:
    """A run's newest checkpoint that is whole, None where there is no checkpoint; and what is wrong with newer ones.

    Raises:
        ValueError: none of them is whole.
    """
    passed = []
    for folder in reversed(checkpoints_of(run)):
        try:
            return verified(folder), passed
        except (ValueError, FileNotFoundError) as error:
            passed.append(str(error))
    if passed:
        raise ValueError(f"{run}: no checkpoint is whole -> start anew with another --exp_path, from the best weights "
                         f"so far: --checkpoint {run / 'best'}\n  " + "\n  ".join(passed))
    return None, []


def resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: Any, world_size: int,
           elastic: bool = False) -> Progress:
    """Load what `save_training` wrote into a model and an optimiser of the same configuration.

    Args:
        folder: a checkpoint that was `verified`.
        elastic: another world size is all right.

    Raises:
        ValueError: another world size or another model.
    """
    facts = read_object(folder / PROGRESS)
    scaler_state = facts.pop("scaler", None)
    progress = built(Progress, facts, folder / PROGRESS)
    if progress.world_size != world_size and not elastic:
        raise ValueError(f"{folder}: saved by {progress.world_size} processes, this run has {world_size} -> start "
                         f"{progress.world_size}, so that the run continues exactly, or add --elastic: it continues "
                         "with other sums, and every window is still learnt from once per epoch")
    progress.world_size = world_size
    load_weights(folder, model)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, torch.Tensor]] = {}
    state = read_tensors(folder / OPTIMIZER)
    if wrong := [name for name in state if not re.fullmatch(r"\d{1,6}\.\w+", name)]:
        raise ValueError(f"{folder / OPTIMIZER}: {wrong[0][:80]!r} is no parameter's -> use another checkpoint")
    for name, value in state.items():
        number, key = name.split(".", 1)
        if int(number) >= len(parameters) or (value.ndim and value.shape != parameters[int(number)].shape):
            raise ValueError(f"{folder / OPTIMIZER}: {name} fits no parameter -> resume with the flags of the run, "
                             f"such as --freeze_backbone (see {folder / CONFIG})")
        if value.ndim:                           # in its order in memory, which the fused step takes for granted
            value = torch.empty_like(parameters[int(number)], dtype=value.dtype).copy_(value)
        entries.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    if scaler and scaler_state:
        scaler.load_state_dict(scaler_state)
    return progress


def load_weights(folder: Path, model: nn.Module) -> None:
    """Weights of one of our checkpoints into the model they belong to.

    Raises:
        ValueError: a checkpoint of another model, naming the first keys that differ.
    """
    path = folder / WEIGHTS
    own, state = model.state_dict(), read_tensors(path)
    differing = sorted(key for key in own.keys() | state.keys() if key not in own or key not in state
                       or (own[key].shape, own[key].dtype) != (state[key].shape, state[key].dtype))
    if differing:
        raise ValueError(f"{path}: a checkpoint of another model; {len(differing)} entries differ, the first is "
                         f"{differing[0]} -> give the --model and priors it was trained with (see {folder / CONFIG}), "
                         "or leave the flags out: infer.py takes them from there")
    model.load_state_dict(state)


def weights_folder(path: Path) -> Path:
    """The checkpoint folder that a path means: itself, or the best one of a run.

    Raises:
        FileNotFoundError: neither.
    """
    for folder in (path, path / "best"):
        if (folder / WEIGHTS).exists():
            return folder
    raise FileNotFoundError(f"{path}: neither a checkpoint ({WEIGHTS}) nor a run with a best one -> name a run under "
                            "runs/, a checkpoint folder, or a published .pth file")


def run_folder(path: Path) -> Path:
    """The run that a run folder, one of its checkpoints or any other file lies in."""
    folder = path if path.is_dir() else path.parent
    above = (folder.parent, folder.parent.parent) if (folder / WEIGHTS).exists() else ()     # best/, checkpoints/step-*
    return next((run for run in above if (run / "status.json").exists()), folder)


def read_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A model with its weights, and the configuration it was trained with.

    Args:
        path: a run, one of its checkpoints, or a published file (its configuration is read off its keys, the rest is
            the published training's).

    Raises:
        ValueError: Gaze360's file, which has no head for looking.
    """
    if path.is_file():
        return _published_model(path, read_published(path))
    folder = verified(weights_folder(path))
    config = read_object(folder / CONFIG)
    model = build_model(built(ModelConfig, config.get("model"), folder / CONFIG))
    load_weights(folder, model)
    fit = config.setdefault("quality_fit", None)
    if fit is not None and not (isinstance(fit, list) and [*map(type, fit)] == [float] * 2
                                and all(map(math.isfinite, fit))):
        raise ValueError(f"{folder / CONFIG}: quality_fit {fit!r:.80} is no mean and standard deviation -> use another "
                         "checkpoint")
    return model, config


def _published_model(path: Path, published: Published) -> tuple[nn.Module, dict[str, Any]]:
    if published.kind == "Gaze360":
        raise ValueError(f"{path}: Gaze360's network says where a face looks, not whether at the camera -> start a "
                         f"training from it: accelerate launch train.py --checkpoint {path}")
    model = build_model(published.config)
    model.load_state_dict(published.state)
    return model, {"model": asdict(published.config), "prepare": {"policy": "baseline"}, "data": {},
                   "quality_fit": None}


def import_published(path: Path, folder: Path) -> dict[str, Any]:
    """Turn a published file into a checkpoint folder of ours.

    Returns:
        What `imported.json` in it holds: file, sha256, kind, taken {published name: ours}, left [published names].

    Raises:
        ValueError: not a published file that can score.
        FileExistsError: `folder` is something else than a checkpoint.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: exists and is no checkpoint -> give --out a folder that is not there yet")
    published = read_published(path)
    model, config = _published_model(path, published)
    facts = {"file": str(path), "sha256": sha256_of(path), "kind": published.kind, "taken": published.taken,
             "left": published.left}
    save_weights(folder, model, config, {IMPORTED: facts})
    return facts


@dataclass(frozen=True)
class Start:
    """What a training started from, name by name."""

    file: str
    kind: str
    taken: list[str]
    """entries of the model that come from the file"""
    left: list[str]
    """entries of the file that were not used, by its own names"""
    random: list[str]
    """entries of the model that keep their random start"""

    def __str__(self) -> str:
        return (f"{len(self.taken)} of the model's {len(self.taken) + len(self.random)} entries from {self.file} "
                f"({self.kind}); left in the file: {_by_layer(self.left)}; at random: {_by_layer(self.random)}")


def _by_layer(names: Iterable[str]) -> str:
    """Names in short: "last_layer (2), transformer (184)"."""
    layers = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{layer} ({count})" for layer, count in sorted(layers.items())) or "nothing"


def start_from(model: nn.Module, path: Path) -> Start:
    """Start a training from the weights of another model, as far as names and shapes agree.

    Args:
        path: a run, one of its checkpoints, or a published file.

    Raises:
        ValueError: nothing fits.
    """
    if path.is_file():
        published = read_published(path)
        kind, state, unknown = published.kind, published.state, published.left
        theirs = {ours: name for name, ours in published.taken.items()}
    else:
        kind, state, unknown, theirs = "one of ours", read_tensors(verified(weights_folder(path)) / WEIGHTS), [], {}
    try:
        taken, left = load_into(model, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    random = [name for name in model.state_dict() if name not in set(taken)]
    return Start(str(path), kind, taken, [theirs.get(name, name) for name in left] + unknown, random)


def start_from_imagenet(model: nn.Module, backbone: str) -> Start | None:
    """Start a backbone as the published trainings do, where this machine has timm's weights; None where not."""
    state = cached_imagenet(backbone)
    if state is None:
        return None
    taken, left = load_into(model, state)
    random = [name for name in model.state_dict() if name not in set(taken)]
    return Start("timm's cache", "ImageNet", taken, left, random)


def newest_finished(runs: Path) -> Path:
    """The run that finished last under `runs`.

    Raises:
        FileNotFoundError: none did; names the training command.
    """
    finished = [(status.stat().st_mtime, status.parent) for status in runs.glob("*/status.json")
                if read_object(status).get("state") == "finished"]
    if not finished:
        raise FileNotFoundError(f"{runs.absolute()}: no finished run -> train one first: "
                                "accelerate launch train.py --model GazePose --prior_head")
    return max(finished)[1]


def git_commit() -> str | None:
    """Commit of the code that runs, with `-dirty` where it was changed; None outside a repository."""
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True,
                          cwd=Path(__file__).parent, check=False)
    return done.stdout.strip() or None
