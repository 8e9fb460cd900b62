"""Publish: the best weights of a run, their configuration and a model card as a repository of the hub.

Nothing leaves this machine but what `files_of` returns: safetensors, JSON without paths, and the card.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, get_type_hints

import torch

import gazepose
from gazepose.config import DataConfig, ModelFlags, OptimFlags, PrepareConfig, RunConfig
from gazepose.deploy import facts_of
from gazepose.io import read_object, sha256_of
from gazepose.manifest import MANIFEST
from gazepose.model_card import UNKNOWN, Licences, figures_of, model_card, public
from gazepose.tensor_files import Entries, tensor_entries
from gazepose.training.checkpoint import CONFIG, WEIGHTS, file_to_score, verify, weights_folder
from gazepose.training.hub import check_target, is_on_hub, send
from gazepose.training.learnt_from import learnt_from
from gazepose.training.runlog import run_folder
from gazepose.training.scoring import RunModel

CARD = "README.md"
SECTIONS = {"model": ModelFlags, "prepare": PrepareConfig, "data": DataConfig, "optim": OptimFlags, "run": RunConfig}
NUMBERS = ("quality_fit", "class_weights", "head_pose_fit", "face_heights", "fingerprint", "priors_read", "versions",
           "world_size", "precision")
"""entries of config.json beside its sections that are sent; none of them names a place"""


def public_config(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A checkpoint's config.json without paths, machines and commands.

    Args:
        path: of the checkpoint, for messages.

    Raises:
        ValueError: the record of what it has learnt from is damaged.
    """
    sent: dict[str, Any] = {}
    for section, kind in SECTIONS.items():
        names = {name for name, hint in get_type_hints(kind).items() if "Path" not in str(hint)}
        sent[section] = {name: value for name, value in (config.get(section) or {}).items() if name in names}
    return {**sent, **{name: config[name] for name in NUMBERS if name in config},
            "learnt_from": asdict(public(learnt_from(config, path)))}


def files_of(run: Path, repository: str, revision: str | None = None, licences: Licences = Licences()      # noqa: B008
             ) -> dict[str, Path | bytes]:
    """Name -> file or content of all that is sent: the weights, config.json, manifest.json and README.md.

    Args:
        run: a run, or one of its checkpoints. With --ema, the average of the weights is sent.

    Raises:
        ValueError: a published file, or one of the hub; a damaged checkpoint. FileNotFoundError: no checkpoint.
    """
    if is_on_hub(run) or run.is_file():
        raise ValueError(f"{run}: is no run of this machine -> name the folder of one; a published file becomes a "
                         "checkpoint's folder by `python -m gazepose import FILE --out FOLDER`")
    folder = verify(weights_folder(run))
    weights, config = folder / file_to_score(folder), read_object(folder / CONFIG)
    facts, entries = facts_of(RunModel.read(folder), folder), tensor_entries(weights)
    sent = public_config(config, folder)
    text = (json.dumps(sent, indent=1, allow_nan=False) + "\n").encode()
    digests = {CONFIG: sha256(text).hexdigest(), WEIGHTS: sha256_of(weights)}
    card = model_card(repository, revision, facts, public(learnt_from(config, folder)), numbers_in(entries),
                      figures_of(run_folder(folder), folder), licences)
    return {CARD: card.encode(), CONFIG: text, MANIFEST: (json.dumps(digests, indent=1) + "\n").encode(),
            WEIGHTS: weights}


def numbers_in(entries: Entries) -> int:
    """How many numbers the tensors of a file have."""
    return sum(torch.Size(shape).numel() for _, shape in entries.values())


def push(run: Path, repository: str, revision: str | None = None, private: bool = False, dry_run: bool = False,
         licences: Licences = Licences()) -> str:                                                      # noqa: B008
    """Send a run to the hub in one commit, and return what there is to say. Raises as `files_of` and `hub.send`.

    Args:
        dry_run: send nothing, and return the list of files and the card.
    """
    check_target(repository, revision, dry_run)
    files = files_of(run, repository, revision, licences)
    sizes = {name: len(content) if isinstance(content, bytes) else content.stat().st_size
             for name, content in files.items()}
    lines = [f"  {name:20} {size:12,} bytes" for name, size in sizes.items()]
    if UNKNOWN in bytes(files[CARD]).decode():
        lines.append(f"{CARD} says that the licence of some data is not known -> give it with --data_license")
    if dry_run:
        lines += ["", bytes(files[CARD]).decode(), f"--dry_run: nothing was sent to {repository}"]
    else:
        commit = send(repository, files, f"Upload by gazepose {gazepose.__version__}", revision, private)
        lines.append(f"pushed as hf:{repository}@{commit}")
    return "\n".join(lines)
