"""Checkpoints of the published work: the kind of a file, its ModelConfig, and its weights under our names.

The keys inside decide the kind, never the file's name. Reading runs no code from the file. training/checkpoint.py
reads our own checkpoints; `load_into` takes the state of either.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from torch import Tensor, nn

from gazepose.models import build_model
from gazepose.models.gazepose import ModelConfig
from gazepose.tensor_files import read_tensors, read_torch_file

IMAGENET_FILE = "model.safetensors"
# (published prefix, our prefix); the first that fits is used, and names without one are the same
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
    """A published checkpoint after reading."""

    kind: str
    """a key of KINDS"""
    config: ModelConfig
    """what build_model needs for it; behaviour "published" """
    state: dict[str, Tensor]
    """weights by our names; Gaze360 has no two-class head"""
    taken: dict[str, str]
    """the file's keys in `state`: published name -> ours"""
    left: list[str]
    """the file's other keys"""


def read_published(path: str | Path) -> Published:
    """Recognise and read a Gaze360 .pth.tar, a GazePose or GazeLSTM .pth, or an Ego4D baseline .pth.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read without running code, or fits no kind. The message names the closest kind
            and the first keys that differ.
    """
    state = read_torch_file(Path(path))
    misfits = []
    for kind, renames in KINDS.items():
        try:
            config = _infer_config(kind, state)
        except (ValueError, IndexError, TypeError):                       # no such shape or option in this kind
            config = ModelConfig(behaviour="published")
        layout = _layout(config, kind, renames)                           # published key -> our key, shape
        differences = {
            "missing": [key for key in layout if key not in state and not key.endswith("num_batches_tracked")],
            "not known": [key for key in state if key not in layout],
            "of another shape": [key for key, (_, shape) in layout.items()
                                 if key in state and state[key].shape != shape]}
        if not differences["missing"] and not differences["of another shape"]:
            taken = {key: layout[key][0] for key in state if key in layout}
            ours = {name: state[key] if key in state else torch.zeros((), dtype=torch.int64)
                    for key, (name, _) in layout.items()}
            return Published(kind, config, ours, taken, differences["not known"])
        misfits.append((kind, differences))
    kind, differences = min(misfits, key=lambda misfit: sum(map(len, misfit[1].values())))
    summary = "; ".join(f"{what} {_first(keys)}" for what, keys in differences.items() if keys)
    raise ValueError(f"{path}: fits no published model; closest is {kind}, but {summary} "
                     "-> give a checkpoint of Gaze360, GazePose, its GazeLSTM or the Ego4D baseline")


def _first(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


def load_into(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Start a model from the weights of another: copy the layers that have the same names and shapes.

    A layer is copied whole or not at all: no bias without its weight.

    Args:
        model: changed in place.
        state: by our names, from `read_published` or one of our checkpoints.

    Returns:
        The names in `state` that were copied, and the others.

    Raises:
        ValueError: nothing fits.
    """
    own = model.state_dict()
    misfits = {name.rpartition(".")[0] for name, value in state.items()
               if name not in own or own[name].shape != value.shape}
    taken = [name for name in state if name.rpartition(".")[0] not in misfits]
    if not taken:
        raise ValueError(f"state: none of its {len(state)} entries ({', '.join(list(state)[:3])}, ...) fits "
                         f"{type(model).__name__} -> give weights of the same backbone")
    model.load_state_dict({name: state[name] for name in taken}, strict=False)
    return taken, [name for name in state if name not in set(taken)]


def cached_imagenet(backbone: str) -> tuple[dict[str, Tensor], str] | None:
    """ImageNet weights of a timm backbone by our names, and timm's tag and licence of them; None without them.

    They come from this machine's Hugging Face cache. Nothing is downloaded.
    """
    for config in _imagenet_files(backbone):
        path = try_to_load_from_cache(config.hf_hub_id, IMAGENET_FILE)
        if isinstance(path, str):
            state = {f"frames.backbone.{key}": value for key, value in read_tensors(Path(path)).items()}
            return state, f"{config.hf_hub_id}, licence {config.license}"
    return None


def fetch_imagenet(backbone: str) -> None:
    """Fetch a timm backbone's ImageNet weights into this machine's Hugging Face cache, unless they are there.

    Raises:
        ValueError: timm has none, or they cannot be fetched: no network, or HF_HUB_OFFLINE.
    """
    remedy = "give --checkpoint, or --pretrained no to train from random weights"
    config = next(_imagenet_files(backbone), None)
    if config is None:
        raise ValueError(f"--pretrained: timm has no weights of {backbone} -> {remedy}")
    try:
        hf_hub_download(config.hf_hub_id, IMAGENET_FILE)
    except Exception as error:                                            # the hub's client has many kinds
        raise ValueError(f"--pretrained: {config.hf_hub_id} cannot be fetched "
                         f"({(str(error) or type(error).__name__).splitlines()[0]}) -> try again with a network and "
                         f"without HF_HUB_OFFLINE; or {remedy}") from None


def _imagenet_files(backbone: str) -> Iterator[Any]:
    """timm's records of a backbone's weights, with hf_hub_id and license.

    First those that the published code used (tag tv_in1k: torchvision's), then timm's default.
    """
    for name in (f"{backbone}.tv_in1k", backbone):
        config = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
        if config is not None and config.hf_hub_id:
            yield config


def _infer_config(kind: str, state: Mapping[str, Tensor]) -> ModelConfig:
    """The options of the file's training that its shapes show; the defaults for the others."""
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
def _layout(config: ModelConfig, kind: str, renames: tuple[tuple[str, str], ...]) -> dict[str, tuple[str, torch.Size]]:
    """Published key -> our key and its shape; the model is built without memory."""
    with torch.device("meta"):
        own = build_model(config).state_dict()
    layout = {}
    for name, value in own.items():
        if kind == "Gaze360" and name.startswith("last_layer."):
            continue                                                      # our two-class head; Gaze360 has none
        published, ours = next((pair for pair in renames if name.startswith(pair[1])), ("", ""))
        layout[published + name[len(ours):]] = (name, value.shape)
    return layout
