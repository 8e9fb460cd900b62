"""Published files as checkpoints: read one as a model, import it, or start a training from it.

Trainings that start from one of our own runs, or from ImageNet, are here too, because they report the same.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gazepose.compat.checkpoints import (
    Published,
    cached_imagenet,
    fetch_imagenet,
    load_into,
    read_published,
)
from gazepose.io import read_object, sha256_of
from gazepose.models import ModelConfig, build_model
from gazepose.tensor_files import read_tensors
from gazepose.training.checkpoint import CONFIG, WEIGHTS, file_to_score, save_weights, verify, weights_folder
from gazepose.training.config import GAZE_TASKS
from gazepose.training.learnt_from import LearntFrom, learnt_from
from gazepose.training.run_config import RunConfig
from gazepose.training.shipped_start import StartCard, default_card, start_weights

IMPORTED = "imported.json"
"""which entry of a published file became which of ours, and which were not used"""


def model_of(path: Path, published: Published) -> tuple[nn.Module, dict[str, Any]]:
    """The content of a published file as a model with its weights, and the configuration it was trained with.

    Raises:
        ValueError: Gaze360's file, which has no head for looking.
    """
    if published.kind == "Gaze360":
        raise ValueError(f"{path}: Gaze360's network says where a face looks, not whether at the camera -> start a "
                         f"training from it: python -m gazepose train --checkpoint {path}")
    model = build_model(published.config)
    model.load_state_dict(published.state)
    return model, {"model": asdict(published.config), "prepare": {"policy": "baseline"}, "data": {},
                   "quality_fit": None, "learnt_from": asdict(of_published(path, published))}


def of_published(path: Path, published: Published) -> LearntFrom:
    """Published weights have learnt from real faces."""
    data = "Gaze360" if published.kind == "Gaze360" else "Ego4D"
    return LearntFrom(real=(data,), start=(f"{path.name} ({published.kind}; {data} has a licence of its own)",))


def import_published(path: Path, folder: Path) -> dict[str, Any]:
    """Turn a published file into a checkpoint folder of ours.

    Returns:
        What `imported.json` in it holds: file, sha256, kind, taken {published name: ours}, left [published names].

    Raises:
        ValueError: not a published file that can score.
        FileExistsError: `folder` is something else than a checkpoint.
    """
    if folder.exists() and not (folder / WEIGHTS).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: exists and is not a checkpoint -> give --out a new folder")
    published = read_published(path)
    model, config = model_of(path, published)
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
    learnt_from: LearntFrom

    def __str__(self) -> str:
        return (f"{len(self.taken)} of the model's {len(self.taken) + len(self.random)} entries from {self.file} "
                f"({self.kind}); not used: {_by_layer(self.left)}; random: {_by_layer(self.random)}")


def _by_layer(names: Iterable[str]) -> str:
    """Names in short: "last_layer (2), transformer (184)"."""
    layers = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{layer} ({count})" for layer, count in sorted(layers.items())) or "nothing"


def find_start(run: RunConfig, model: ModelConfig, embedded: bool) -> float:
    """Look at the weights that a new training starts from, so that their faults are named before data are prepared.

    Args:
        embedded: the data are an embedded world, where the package's weights are taken before those of ImageNet.

    Returns:
        The model's `low_pass`: that of the run; or of the package's card, on rendered faces alone, since fine details
        of real ones help. Pre-training has none: from smoothed crops a network learns to see such details again.

    Raises:
        FileNotFoundError, ValueError: they are not there, or damaged.
    """
    if path := run.checkpoint:
        if path.is_file():
            read_published(path)
            return 0.0
        network = read_object(verify(weights_folder(path)) / CONFIG).get("model")
        return network.get("low_pass", 0.0) if isinstance(network, dict) else 0.0
    if run.pretrained == "yes":
        fetch_imagenet(model.backbone)
        return 0.0
    card = default_card(run, model)
    if card is None or not (embedded or run.pretrained == "package" or cached_imagenet(model.backbone) is None):
        return 0.0
    start_weights(card)
    return card.low_pass if embedded and run.task not in GAZE_TASKS else 0.0


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
        theirs, learnt = {ours: name for name, ours in published.taken.items()}, of_published(path, published)
    else:
        folder = verify(weights_folder(path))
        kind, state, unknown, theirs = "one of ours", read_tensors(folder / file_to_score(folder)), [], {}
        learnt = LearntFrom(start=(str(path),)) + learnt_from(read_object(folder / CONFIG), folder)
    try:
        taken, left = load_into(model, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    random = [name for name in model.state_dict() if name not in set(taken)]
    return Start(str(path), kind, taken, [theirs.get(name, name) for name in left] + unknown, random, learnt)


def start_from_imagenet(model: nn.Module, backbone: str, fetch: bool = False) -> Start | None:
    """Start a backbone as the published trainings do, where this machine has timm's weights; None where not.

    Args:
        fetch: download them first if needed.

    Raises:
        ValueError: they cannot be fetched.
    """
    if fetch:
        fetch_imagenet(backbone)
    cached = cached_imagenet(backbone)
    if cached is None:
        return None
    taken, left = load_into(model, cached[0])
    random = [name for name in model.state_dict() if name not in set(taken)]
    return Start("timm's cache", "ImageNet", taken, left, random, LearntFrom(start=(f"ImageNet ({cached[1]})",)))


def start_from_package(model: nn.Module, card: StartCard) -> Start:
    """Start a training from the weights of the package: as far as names and shapes agree.

    Raises:
        FileNotFoundError, ValueError: the file is missing or was changed; nothing fits.
    """
    taken, left = load_into(model, read_tensors(start_weights(card)))
    random = [name for name in model.state_dict() if name not in set(taken)]
    frames: Any = model.frames
    smooth = f", crops smoothed by {frames.low_pass:g} of their side" if frames.low_pass else ""
    return Start(f"the package's {card.name}", f"{card.model} of {card.states} rendered faces{smooth}", taken, left,
                 random, card.record())
