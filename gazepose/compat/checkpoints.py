"""Checkpoints of the published work -> ours: which kind a file is, its ModelConfig, its weights by our names.

The kind is recognised by the keys inside, never by the file's name. Reading runs no code from the file. Our own
checkpoints are read in checkpoint.py; `load_into` takes the state of either.
"""

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from gazepose.io import read_tensors
from gazepose.models import build_model
from gazepose.models.gazepose import ModelConfig

# published prefix, our prefix; the first that fits decides; other names are the same
FRAMES = (("base_model.fc1.", "frames.to_vector.0."), ("base_model.fc2.", "frames.to_vector.2."),
          ("base_model.", "frames.backbone."))
QUERIES = (("headpos_emeb", "contents"), ("head_query", "head_queries.table"),
           ("landmark_query", "landmark_queries.table"), ("yaw_embed.", "head_queries.yaw."),
           ("pitch_embed.", "head_queries.pitch."), ("roll_embed.", "head_queries.roll."),
           ("joint_embed.", "landmark_queries.cell."), ("c_embed.", "landmark_queries.confidence."))
KINDS = {
    "GazePose": FRAMES + QUERIES,
    "GazePose's GazeLSTM": FRAMES,
    "Ego4D's GazeLSTM or BaselineLSTM": (*FRAMES, ("last_layer1.", "last_layer.0."), ("last_layer2.", "last_layer.1.")),
    "Gaze360": (*FRAMES, ("last_layer.", "gaze_head.")),
}


@dataclass(frozen=True)
class Published:
    """A published checkpoint, recognised."""

    kind: str
    """whose it is"""
    config: ModelConfig
    """what build_model needs for it; behaviour "published" """
    state: dict[str, Tensor]
    """weights by our names; for Gaze360 all but the two-class head, which it does not have"""
    taken: dict[str, str]
    """its keys that are in `state`: published name -> ours"""
    left: list[str]
    """its keys that are not"""


def read_published(path: str | Path) -> Published:
    """Recognise and read a Gaze360 .pth.tar, a GazePose or GazeLSTM .pth, or an Ego4D baseline .pth.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable without running code, or it fits none of the four; names the closest kind and the
            first keys that differ.
    """
    state = _read(Path(path))
    misfits = []
    for kind, renames in KINDS.items():
        try:
            config = _infer_config(kind, state)
        except (ValueError, IndexError, TypeError):                       # no such shape or option in this kind
            config = ModelConfig(behaviour="published")
        wanted = _wanted(config, kind, renames)                           # published key -> our key, shape
        missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
        other = [key for key, (_, shape) in wanted.items() if key in state and state[key].shape != shape]
        left = [key for key in state if key not in wanted]
        if not missing and not other:
            taken = {key: wanted[key][0] for key in state if key in wanted}
            ours = {name: state[key] if key in state else torch.zeros((), dtype=torch.int64)
                    for key, (name, _) in wanted.items()}
            return Published(kind, config, ours, taken, left)
        misfits.append((len(missing) + len(other) + len(left), kind, missing, left, other))
    _, kind, missing, left, other = min(misfits, key=lambda misfit: misfit[0])
    differences = {"missing": missing, "not known": left, "of another shape": other}
    differ = "; ".join(f"{what} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
                       for what, keys in differences.items() if keys)
    raise ValueError(f"{path}: fits no published model; closest is {kind}, but {differ} "
                     "-> give a checkpoint of Gaze360, GazePose, its GazeLSTM or the Ego4D baseline")


def load_into(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Start a model from the weights of another: layers of the same names and shapes are taken, the rest left.

    A layer of which one entry does not fit is left whole: no bias without its weight.

    Args:
        model: changed in place.
        state: by our names, from `read_published` or one of our checkpoints.

    Returns:
        The names in `state` that were taken, and those that were left.

    Raises:
        ValueError: nothing fits.
    """
    own = model.state_dict()
    misfits = {name.rpartition(".")[0] for name, value in state.items()
               if name not in own or own[name].shape != value.shape}
    taken = [name for name in state if name.rpartition(".")[0] not in misfits]
    if not taken:
        raise ValueError(f"state: none of its {len(state)} entries ({', '.join(list(state)[:3])}, ...) fits "
                         f"{type(model).__name__} -> weights of the same backbone")
    model.load_state_dict({name: state[name] for name in taken}, strict=False)
    return taken, [name for name in state if name not in set(taken)]


def cached_imagenet(backbone: str) -> dict[str, Tensor] | None:
    """ImageNet weights of a timm backbone by our names, from this machine's Hugging Face cache; None without them.

    Nothing is fetched. Of several trainings the published code's is wanted (tag tv_in1k: torchvision's), else timm's
    default.
    """
    for name in (f"{backbone}.tv_in1k", backbone):
        config = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
        path = try_to_load_from_cache(config.hf_hub_id, "model.safetensors") if config and config.hf_hub_id else None
        if isinstance(path, str):
            return {f"frames.backbone.{key}": value for key, value in read_tensors(Path(path)).items()}
    return None


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their published names, without the prefix of DataParallel."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint -> check the path")
    scalar: Any = np.float64(0).__reduce__()[0]                           # the published training saved its mAP so
    numbers = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = [type(np.dtype(name)) for name in ("float32", "float64", "int64")]
    try:
        with torch.serialization.safe_globals([*numbers, np.dtype, *dtypes]):
            file = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        detail = f"it names {named[1]}, which could run code" if named else "its pickle holds more than tensors"
        raise ValueError(f"{path}: not read, {detail} -> where you trust it, save its state_dict alone") from error
    except Exception as error:                                            # what damaged bytes do to a reader is open
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a checkpoint of tensors ({detail}) -> the file is damaged, or of another "
                         "kind") from error
    state = file.get("state_dict", file) if isinstance(file, dict) else file
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: no state_dict of tensors inside -> save one with torch.save")
    cut = len("module.") if all(str(key).startswith("module.") for key in state) else 0  # DataParallel's
    return {str(key)[cut:]: value for key, value in state.items()}


def _infer_config(kind: str, state: Mapping[str, Tensor]) -> ModelConfig:
    """The options a file of this kind was trained with, as far as its shapes tell; else the defaults."""
    if kind != "GazePose":
        return ModelConfig(model="BaselineLSTM" if kind.startswith("Ego4D") else "GazeLSTM", behaviour="published",
                           gaze_head=kind == "Gaze360")
    options: dict[str, Any] = {}
    for option, key, axis in (("dmodel", "headpos_emeb", 1),
                              ("dim_feedforward", "transformer.encoder.layers.0.linear1.weight", 0)):
        if key in state:
            options[option] = state[key].shape[axis]
    for option, part in (("num_encoder_layers", "encoder"), ("num_decoder_layers", "decoder")):
        layers = {key.split(".")[3] for key in state if key.startswith(f"transformer.{part}.layers.")}
        if layers:
            options[option] = len(layers)
    if "yaw_embed.weight" in state:
        options |= {"prior_head": True, "split": _step(90, len(state["yaw_embed.weight"]) - 1)}
    if "joint_embed.weight" in state:
        options |= {"prior_landmark": True, "dsplit": _step(4, math.isqrt(len(state["joint_embed.weight"])) - 1)}
    if "c_embed.weight" in state:
        options["csplit"] = _step(1, len(state["c_embed.weight"]) - 1)
    return ModelConfig(behaviour="published", **options)


def _step(span: float, cells: int) -> float:
    """The shortest decimal of which `span` holds `cells` whole ones: 90 and 30 -> 3.0, 4 and 40 -> 0.1."""
    for digits in range(16):
        step = round(span / max(cells, 1), digits)
        if step > 0 and int(span / step) == cells:
            return step
    return span / max(cells, 1)


@cache
def _wanted(config: ModelConfig, kind: str, renames: tuple[tuple[str, str], ...]) -> dict[str, tuple[str, torch.Size]]:
    """Published key -> our key and its shape, for a model built without memory."""
    with torch.device("meta"):
        own = build_model(config).state_dict()
    wanted = {}
    for name, value in own.items():
        if kind == "Gaze360" and name.startswith("last_layer."):
            continue                                                      # our two-class head; Gaze360 has none
        published, ours = next((pair for pair in renames if name.startswith(pair[1])), ("", ""))
        wanted[published + name[len(ours):]] = (name, value.shape)
    return wanted
