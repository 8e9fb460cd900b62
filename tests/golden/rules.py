"""The fill rule and the inputs rule: weights, clips and priors out of text labels, and our models that hold them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from gazepose.compat.checkpoints import KINDS, read_published
from gazepose.models import ModelConfig, Priors, build_model
from golden import z

Entries = tuple[tuple[str, tuple[int, ...], str], ...]                    # published key, shape, dtype
GAINS = {"lstm.": 3, "base_model.fc": 1.5}                               # by how a weight's key begins
maps_seen: dict[tuple[str, torch.dtype], tuple[dict[str, Tensor], Tensor]] = {}


@cache
def filled(salt: str, key: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    """One weight; the same key and shape is the same tensor in every model, so it is not to be changed."""
    if dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    v, last = z(salt + key, math.prod(shape)), key.rsplit(".", 1)[-1]
    if last == "running_mean" or (last != "running_var" and "bias" in last):
        v = 0.1 * v
    elif last == "running_var":
        v = 1 + 0.1 * abs(v)
    elif len(shape) == 1:
        v = 1 + 0.1 * v
    elif not (key.endswith("_embed.weight") or key in ("head_query", "landmark_query", "headpos_emeb")):
        gain = next((gain for part, gain in GAINS.items() if key.startswith(part)), 1)
        v = gain / math.sqrt(math.prod(shape[1:])) * v
    return torch.from_numpy(v.astype(np.float32).reshape(shape))


@cache
def clip(label: str, batch: int = 2, frames: int = 7) -> Tensor:
    """The frames of all samples one after another, float32 [B * T, 3, 224, 224]."""
    b, t = batch, frames
    o, a = z(label + "/offset", b * t * 3).reshape(b, t, 3, 1, 1), z(label + "/amplitude", b * t).reshape(b, t, 1, 1, 1)
    c = z(label + "/coarse", b * t * 3 * 49).reshape(b, t, 3, 7, 7).repeat(32, axis=-1).repeat(32, axis=-2)
    f = z(label + "/fine", b * t * 3 * 224 * 224).reshape(b, t, 3, 224, 224)
    return torch.from_numpy((o + (1 + 0.5 * a) * (c + 0.5 * f)).astype(np.float32)).flatten(0, 1)


def forget() -> None:
    """Free the weights, clips and maps that are kept: half a gigabyte."""
    filled.cache_clear()
    clip.cache_clear()
    maps_seen.clear()


class Recognised(NamedTuple):
    """What `read_published` makes of a file with the filled weights."""

    kind: str
    config: ModelConfig
    taken: int
    left: list[str]
    alike: bool
    """every weight came out as it went in, under the name that `names` says"""


def entries_of(recorded: dict, name: str) -> Entries:
    return tuple((key, tuple(shape), dtype) for key, shape, dtype in recorded["state"][name])


@cache
def recognise(salt: str, entries: Entries) -> Recognised:
    """Write a checkpoint as the published training does, and read it."""
    state = {key: filled(salt, key, shape, dtype) for key, shape, dtype in entries}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        torch.save({"state_dict": state, "epoch": 3, "mAP": np.float64(0.5)}, path)
        published = read_published(path)
    alike = all(torch.equal(published.state[ours], state[key]) for ours, key in names(entries, published.kind).items())
    return Recognised(published.kind, published.config, len(published.taken), published.left, alike)


def names(entries: Entries, kind: str) -> dict[str, str]:
    """Our name -> the published key."""
    ours = {}
    for key, *_ in entries:
        theirs, own = next((pair for pair in KINDS[kind] if key.startswith(pair[0])), ("", ""))
        ours[own + key[len(theirs):]] = key
    return ours


def build(recorded: dict, name: str, **options: Any) -> tuple[Any, ModelConfig]:
    """Our model with the filled weights, for evaluation; options change the recognised config."""
    salt, entries = recorded["fill"]["salt"], entries_of(recorded, name)
    recognised = recognise(salt, entries)
    config = ModelConfig(**{**vars(recognised.config), **options})
    with torch.device("meta"):
        model: Any = build_model(config)
    shapes = {key: (shape, dtype) for key, shape, dtype in entries}
    state = {ours: filled(salt, key, *shapes[key]) for ours, key in names(entries, recognised.kind).items()}
    for ours, value in model.state_dict().items():                        # the two-class head Gaze360 does not have
        state.setdefault(ours, torch.zeros(value.shape))
    model.load_state_dict(state, assign=True)
    return model.eval(), config


def priors(recorded: dict, case: dict, split: float) -> Priors:
    """Angles in the middle of their bins [B, 3], landmarks in the published form [B, 5, 3]; NaN for a model without."""
    inputs = recorded["inputs"]
    if "head_bins" not in case:
        return Priors(torch.full((inputs["batch"], 3), math.nan), torch.full((inputs["batch"], 5, 3), math.nan))
    bins = torch.tensor(inputs[f"head_bins_split{split:g}"][case["head_bins"]])
    layout = torch.tensor(inputs["landmarks"][case["landmarks"]]).view(-1, 3, 5)  # five x, five y, five confidences
    return Priors((bins + 0.5) * split, layout.transpose(1, 2))


@contextmanager
def published_landmarks() -> Iterator[None]:
    """The recorded landmark vectors are in the published form already: they enter after eye_centred."""
    with patch("gazepose.models.queries.eye_centred", lambda landmarks: landmarks):
        yield


def pool_of(recorded: dict, model: Any, clips: list[str]) -> Tensor:
    """The clips' frames one after another. Models with the same backbone share its maps of them: they are slow."""
    backbone = model.frames.backbone
    dtype = next(backbone.parameters()).dtype
    frames, maps = [], []
    for name in clips:
        label = recorded["inputs"]["clip_labels"][name]
        frames.append(clip(label, recorded["inputs"]["batch"], recorded["inputs"]["frames"]).to(dtype))
        state, seen = maps_seen.get((label, dtype), ({}, None))
        own = backbone.state_dict()
        if seen is None or own.keys() != state.keys() or not all(torch.equal(own[key], state[key]) for key in own):
            seen = backbone.forward_features(frames[-1])
            maps_seen[label, dtype] = own, seen
        maps.append(seen)
    pool, known, look = torch.cat(frames), torch.cat(maps), backbone.forward_features
    backbone.forward_features = lambda frames: known if frames is pool else look(frames)
    return pool


def windows(recorded: dict, place: int = 0) -> Tensor:
    """The windows of the place-th clip of a pool, int64 [B, T]."""
    batch, frames = recorded["inputs"]["batch"], recorded["inputs"]["frames"]
    return torch.arange(batch * frames).view(batch, frames) + batch * frames * place
