"""RunConfig: the flags of one training run; what may differ when it is resumed; whether it has learnt at all."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gazepose.data.config import WindowConfig
from gazepose.data.index import Index
from gazepose.models.config import ModelConfig
from gazepose.training.config import LossConfig

CONFIG = "config.json"           # of a run and of each of its checkpoints
SECTIONS = ("model", "prepare", "data", "optim", "run")
LAUNCHED = ("world_size", "precision")
"""entries of config.json that the launcher decides"""
ONE_START = ("exp_path", "resume", "processes", "config")
"""flags that concern one start of a run, not the run"""
MAY_CHANGE = ("epochs", "save_every", "num_workers", "log_with", "compile", "data", "data_disk", "max_bad_fraction")
"""flags that may change when a run is resumed, besides ONE_START; of --data only the place: its fingerprint stays"""
PRIORS = ("head_pose", "landmarks", "quality", "quality_p", "gaze")
"""columns of an index that may be imported, and that a training reads only with some flags"""

SAVE_EVERY = re.compile(r"(?=\d)(?P<steps>[1-9]\d*)?(?:(?:^|,)(?P<minutes>\d+(?:\.\d+)?)min)?")


@dataclass(frozen=True, kw_only=True)
class RunConfig(LossConfig):
    """One training run."""

    allow_unknown_priors: bool = False
    """train with --prior_head or --prior_landmark on data without this prior; it is then unknown for every face"""
    epochs: int = 10
    """how often every training row is used"""
    batch_size: int = 64
    """windows per step and process; the global size is printed"""
    gradient_accumulation_steps: int = 1
    """batches per optimiser step"""
    checkpoint: Path | None = None
    """start from these weights: one of our runs or checkpoint folders, a published file, or hf:OWNER/NAME[@REVISION]"""
    pretrained: Literal["yes", "no", "package"] | None = None
    """yes: start the backbone from timm's ImageNet weights; they are downloaded if needed, unless HF_HUB_OFFLINE is
    set; no (--from_scratch): start from random weights; package: from the package's; default: on real data from
    ImageNet's, if this machine has them, else from the package's, but not with --behaviour published"""
    config: Path | None = None
    """start a new run with the flags of another as defaults: its folder or its config.json"""
    exp_path: Path | None = None
    """run folder (--train_path); default: runs/<model>-<time>"""
    resume: bool = False
    """resume the run of --exp_path, with its own flags, from its newest undamaged checkpoint, also mid-epoch"""
    processes: str | None = None
    """how many processes must have been started: a number, or any. --resume then accepts a run of another number; each
    window is still used once per epoch, but results differ slightly. Default: any, with --resume the run's number"""
    save_every: str = "15min"
    """also save after so many minutes (15min), steps (500, and every 15 minutes), or both (500,5min); 0min: only at the
    end of an epoch and on a stop signal"""
    seed: int = 0
    """seed of all random numbers"""
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """precision of the model; default: that of `accelerate launch`"""
    compile: Literal["no", "yes", "graphs", "auto"] = "no"
    """yes: torch.compile the model; graphs: launch the kernels of a step together, as CUDA graphs; the pool of frames
    is then filled up to one size, which BatchNorm sees; auto: graphs on a GPU, else no"""
    sync_batchnorm: bool = False
    """BatchNorm over the windows of all processes (GPUs only); off: each process uses its own windows"""
    log_with: Literal["tensorboard", "wandb", "trackio"] | None = None
    """also log to this tracker; metrics.jsonl is always written"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)} -> give 1 or more")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"--seed {self.seed} -> give 0 to 2**63 - 1")
        if not SAVE_EVERY.fullmatch(self.save_every):
            raise ValueError(f"--save_every {self.save_every!r:.40} -> give minutes such as 15min or 0min, 1 or more "
                             "steps such as 500, or both: 500,15min")
        if self.processes not in (None, "any") and not re.fullmatch(r"[1-9]\d*", self.processes):
            raise ValueError(f"--processes {self.processes!r:.40} -> give a number of 1 or more, or any")
        if self.resume and self.exp_path is None:
            raise ValueError("--resume needs a run -> name its folder with --exp_path")
        if self.resume and self.config is not None:
            raise ValueError("--resume uses the flags of its own run -> leave --config out, or --resume to start a new "
                             "run")
        if self.checkpoint is not None and self.pretrained is not None:
            raise ValueError("--checkpoint and --pretrained: a run has one start -> give one of them")

    @property
    def save_steps(self) -> int | None:
        """Steps between two saves; None: steps do not matter."""
        steps = SAVE_EVERY.fullmatch(self.save_every)["steps"]                     # type: ignore[index]
        return None if steps is None else int(steps)

    @property
    def save_minutes(self) -> float:
        """Minutes between two saves; 0: time does not matter."""
        minutes = SAVE_EVERY.fullmatch(self.save_every)["minutes"]                 # type: ignore[index]
        return 15.0 if minutes is None else float(minutes)


def takes_package(checkpoint: object, pretrained: object, behaviour: object) -> bool:
    """Whether these flags mean the package's start weights: for comparisons with published numbers only by name."""
    return checkpoint is None and (pretrained == "package" or (pretrained is None and behaviour != "published"))


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Flags of two configurations, as config.json has them, that differ: name -> both values."""
    one, other = (flags_of(json.loads(json.dumps(record))) for record in (before, after))
    return {name: [one[name], value] for name, value in other.items()
            if name in one and one[name] != value and name not in ONE_START}


def flags_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of all sections by name, and what the launcher decides."""
    flags = {name: value for section in SECTIONS for name, value in record.get(section, {}).items()}
    return {**flags, **{name: record[name] for name in LAUNCHED if name in record}}


def face_heights(box: np.ndarray) -> tuple[float, float] | None:
    """The heights in pixels that nine of ten boxes [n, 4] have: their 5th and 95th percentile; None: unknown."""
    heights = np.asarray(box[:, 3] - box[:, 1], np.float64)
    known = heights[np.isfinite(heights) & (heights > 0)]
    if not len(known):
        return None
    low, high = np.percentile(known, (5, 95)).tolist()
    return low, high


def fingerprints_of(index: Index) -> tuple[str, str]:
    """What a run's config.json may hold of a split: SHA-256 of its faces, labels and crops, without PRIORS, so that an
    import of a prior changes nothing; and the index's own, of all it holds, as older versions wrote it."""
    contents = index.contents
    files = {name: entry["sha256"] for name, entry in sorted(contents["files"].items()) if name not in PRIORS}
    shards = [entry["sha256"] for entry in contents["shards"]]
    text = json.dumps([contents["clips"], contents["track_name"], files, shards])
    return hashlib.sha256(text.encode()).hexdigest(), index.facts["fingerprint"]


def priors_read(index: Index, model: ModelConfig, windows: WindowConfig, loss: LossConfig) -> dict[str, str | None]:
    """SHA-256 of each of PRIORS that a training reads, by name; None: the index has none, so it is unknown."""
    given = windows.quality_scale == "given"
    reads = {"head_pose": model.prior_head, "landmarks": model.prior_landmark, "gaze": loss.gaze_weight > 0,
             "quality": windows.gaussian_drop and not given, "quality_p": windows.gaussian_drop and given}
    return {name: index.contents["files"].get(name, {}).get("sha256") for name in PRIORS if reads[name]}


def data_read(indexes: Mapping[str, Index], *flags: Any) -> dict[str, dict[str, Any]]:
    """What config.json records of the data: of each split, the first of `fingerprints_of`, and `priors_read`."""
    return {"fingerprint": {split: fingerprints_of(index)[0] for split, index in indexes.items()},
            "priors_read": {split: priors_read(index, *flags) for split, index in indexes.items()}}


def files_read(index: Index, *flags: Any) -> dict[str, str | None]:
    """SHA-256 of each file of an index that a training reads, by name. Arguments as of `priors_read`."""
    contents = index.contents
    files = {name: entry["sha256"] for name, entry in contents["files"].items() if name not in PRIORS}
    return {**files, **{shard["file"]: shard["sha256"] for shard in contents["shards"]}, **priors_read(index, *flags)}


def check_same_data(run: Path, earlier: Mapping[str, Any], record: Mapping[str, Any], indexes: Mapping[str, Index],
                    resumed: Path) -> None:
    """Refuse to resume a run on other data than it had, or with other values of a prior that it reads.

    Args:
        earlier: config.json of the run; record: what it would be now. indexes: by split. resumed: its checkpoint.

    Raises:
        ValueError: naming what differs.
    """
    had, read = earlier.get("fingerprint", record["fingerprint"]), earlier.get("priors_read", {})
    splits: dict[str, list[str]] = {}
    for split, index in indexes.items():
        if had.get(split) not in fingerprints_of(index):
            splits.setdefault("data", []).append(split)
        elif isinstance(before := read.get(split), dict):
            for name, digest in record["priors_read"][split].items():
                if before.get(name) != digest:
                    splits.setdefault(name, []).append(split)
    if splits:
        text = ", ".join(f"{' and '.join(names)} {what}" for what, names in splits.items())
        raise ValueError(f"{record['root']}: the prepared {text} differ from those that {run} was trained on -> bring "
                         "the old ones back (--data FOLDER, or import the priors again), or start a new run from its "
                         f"weights: --config {run} --checkpoint {resumed}")


def check_learning(skipped: int, steps: int, run: Path) -> str:
    """How many steps of a training were skipped, in a line; empty: none.

    Raises:
        ValueError: all of them, so that the weights are those of the start.
    """
    if skipped and skipped == steps:
        raise ValueError(f"all {steps} steps were skipped, because the gradient was not finite, so nothing was learnt "
                         f"-> start a new run with a lower --lr or with --clip 1: --config {run}")
    return f"skipped {skipped} of {steps} steps: the gradient was not finite" if skipped else ""
