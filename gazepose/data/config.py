"""The flags of preparation and of windows. Importing them needs no video, picture or tensor library."""

from dataclasses import dataclass
from typing import Literal, get_args

from gazepose.data.annotations import policy_named
from gazepose.data.clip_files import CropsFrom
from gazepose.data.tracks import Policy

Decoder = Literal["auto", "decord", "pyav"]
Disk = Literal["shared", "local"]
Augment = Literal["off", "standard"]
Scale = Literal["variance", "log", "given"]
"""the values that p is the CDF of: the Laplacian variance (published) or its logarithm; given: p came with the data"""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How the faces of a data set become crops."""

    policy: Literal["clean", "baseline"] = "clean"
    """how annotations are cleaned; baseline: as for the published scores"""
    rule: tuple[str, ...] = ()
    """NAME=VALUE: change one rule of the policy, such as max_gap=30; may be given several times"""
    crops_from: CropsFrom | None = None
    """source of the faces: videos/, video_imgs/ or face_imgs/; default: the first of them that exists"""
    crops: Literal["shards", "video"] = "shards"
    """shards: cut crops once and store them; video: cut them again in every epoch, for a first look or a small disk"""
    crop_size: int = 224
    """pixels per side of a face crop"""
    decoder: Decoder = "auto"
    """library that reads the videos; auto: decord where it can be loaded, else pyav. If decord cannot read a clip, pyav
    reads it, and it is counted"""
    data_disk: Disk = "shared"
    """shared: all machines see one disk; local: each machine has the data set on its own disk and prepares it itself"""
    max_bad_fraction: float = 0.01
    """stop if more than this part of a split's clips is missing, damaged or cut short"""

    def __post_init__(self) -> None:
        policy_named(self.policy, self.rule)
        if not 16 <= self.crop_size <= 1024:
            raise ValueError(f"--crop_size {self.crop_size} -> give 16 to 1024 pixels, such as 64 or 224")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"--max_bad_fraction {self.max_bad_fraction} -> give 0 to 1")
        if self.crops_from not in (None, *get_args(CropsFrom)):
            raise ValueError(f"crops_from {self.crops_from!r} is unknown -> use {', '.join(get_args(CropsFrom))}")

    @property
    def rules(self) -> Policy:
        """The policy with its changed rules."""
        return policy_named(self.policy, self.rule)


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """The flags that say how rows become windows; `WindowRule.of` takes them whole."""

    windows_per_segment: int = 8
    """how many neighbouring training windows share decoded frames, flip and crop; 1: windows share nothing, as always
    with --behaviour published"""
    gaussian_drop: bool = False
    """Gaussian Temporal Dropout (--Gaussiandrop): drop neighbouring frames of low quality"""
    quality_scale: Scale = "variance"
    """fit the Gaussian to the Laplacian variance (as published) or to its log; given: no fit, use the imported p"""
    flip: bool = True
    """mirror half of the training segments, with their priors"""
    random_crop: bool = True
    """crop training segments at random (80 to 100 % of the area), together with their landmarks"""
    augment: Augment = "off"
    """standard: change the look of training segments at random (light, colour, blur, size, noise, JPEG, a hidden part,
    other surroundings), and make half of their boxes up to a third larger;
    default: on an embedded world standard if training starts from the package's weights, else off"""

    def __post_init__(self) -> None:
        if self.windows_per_segment < 1:
            raise ValueError(f"--windows_per_segment {self.windows_per_segment} -> give 1 or more")
