"""The flags of `python -m gazepose watch` and `live`. Importing them needs no video or picture library."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gazepose.data.box_formats import BoxFormat
from gazepose.watch.bouts import LookRules

Format = Literal["eaf", "vtt", "boris", "xlsx"]
LANDMARKS = "landmarks"
"""name of the scorer that is not a run"""
DETECT_SECONDS = 1 / 15
"""between two pictures in which faces are searched; docs/watch.md has what that costs"""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """How videos are watched."""

    scorer: tuple[str, ...] = (LANDMARKS,)
    """who scores: landmarks, or your run or checkpoint, or hf:OWNER/NAME[@REVISION]. Of several, the first gives
    `looking`; each other gets a column looking_<name>"""
    boxes: Path | None = None
    """table of your own face boxes, instead of a search for faces, as docs/boxes.md lists them"""
    boxes_format: BoxFormat = "auto"
    """what that table holds, see docs/boxes.md; auto: by its header and its numbers"""
    first_number: Literal[0, 1] = 0
    """number of the first picture in that table"""
    corrections: Path | None = None
    """corrections that were saved from watch.html"""
    to: tuple[Format, ...] = ()
    """also write files for coders: ELAN, WebVTT, a table for BORIS, a workbook"""
    causal: bool = False
    """the score of a picture uses no later picture"""
    smooth: float = 0.1
    """seconds on each side over which the median smooths the scores; 0: not"""
    video: bool = True
    """write <name>.watched.mp4, the video with boxes, scores and its sound"""
    blur: bool = False
    """blur all faces in <name>.watched.mp4"""
    dataset: Path | None = None
    """also make a data set here that train takes as --data; its labels are the scores where these are sure"""
    small: bool = False
    """add the faces of the data set at sizes at which landmarks fail"""
    detector_size: int | None = None
    """long side in pixels at which faces are searched; default: 640, and 960 for pictures above 1280. More finds
    smaller faces and takes longer"""
    replace: bool = False
    """replace what is in the folder, also results of other videos or settings"""
    jobs: int | None = None
    """how many videos at a time; default: one per core"""
    looks: LookRules = field(default_factory=LookRules)

    def __post_init__(self) -> None:
        if not self.scorer:
            raise ValueError(f"--scorer is empty -> give {LANDMARKS}, a run, or both")
        if self.small and self.dataset is None:
            raise ValueError("--small is for a data set -> give --dataset FOLDER")
        if self.detector_size is not None and not 64 <= self.detector_size <= 8192:
            raise ValueError(f"--detector_size {self.detector_size} -> give 64 to 8192 pixels")
        if self.jobs is not None and self.jobs < 0:
            raise ValueError(f"--jobs {self.jobs} -> give 1 or more")
        if not 0 <= self.smooth <= 10:
            raise ValueError(f"--smooth {self.smooth} -> give 0 to 10 seconds")


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """How the pictures of a camera are watched."""

    scorer: str = LANDMARKS
    """who scores: landmarks, or your run or checkpoint, or hf:OWNER/NAME[@REVISION]"""
    every: float = 0.0
    """seconds between two pictures that are used, at least; 0: every picture for which there is time"""
    window: Literal["closed", "causal"] = "closed"
    """frames that score frame t with a run: closed (t-3 to t), or causal (t-6 to t, which scores what was 0.1 s ago)"""
    smooth: float = 0.1
    """the probability is the median of twice so many seconds; 0: as it is"""
    detector_size: int | None = None
    """long side in pixels at which faces are searched; default: 640, and 960 for pictures above 1280"""
    give_up: float = 60.0
    """seconds without a picture after which the command ends; until then it connects again and again"""
    looks: LookRules = field(default_factory=LookRules)

    def __post_init__(self) -> None:
        for name, most in (("every", 60), ("smooth", 10), ("give_up", float("inf"))):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"--{name} {getattr(self, name)} -> give 0 to {most} seconds")
        if self.detector_size is not None and not 64 <= self.detector_size <= 8192:
            raise ValueError(f"--detector_size {self.detector_size} -> give 64 to 8192 pixels")
