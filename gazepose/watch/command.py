"""The way through of `python -m gazepose watch`: videos and pictures in, one folder out.

jobs.py finds, follows and reads the faces of each video; outputs.py writes what comes of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gazepose.data.box_formats import BoxFormat
from gazepose.data.video_times import is_still, stated_seconds
from gazepose.io import lock, sha256_of
from gazepose.watch.bouts import LookRules
from gazepose.watch.faces import LANDMARKS
from gazepose.watch.jobs import Pass, digests
from gazepose.watch.many import run_all
from gazepose.watch.results import PARTS, Results
from gazepose.watch.sources import name_scorers, name_sources, read_own_boxes

Format = Literal["eaf", "vtt", "boris", "xlsx"]
DETECT_SECONDS = 1 / 15      # between two pictures in which faces are searched; docs/watch.md has what that costs



@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """How videos are watched."""

    scorer: tuple[str, ...] = (LANDMARKS,)
    """who scores: landmarks, or your run or checkpoint. Of several, the first gives `looking`; each other gets a column
    looking_<name>"""
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
    """also make a data set here that train.py takes as --data; its labels are the scores where these are sure"""
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


def watch(sources: Sequence[Path], out: Path, config: WatchConfig = WatchConfig(),       # noqa: B008
          notify: Callable[[str], None] = print) -> dict[str, str]:
    """Watch videos and pictures, and write the folder `out`. Run again, it goes on where it was stopped.

    Returns:
        Why videos could not be watched, by name; the others are in the folder.

    Raises:
        FileNotFoundError: a source, a model file or a table does not exist. ValueError: no source, or none that can be
            watched; a setting, or what is in `out`, does not fit. FileExistsError: `out` has other files of these
            names. BlockingIOError: another command works in `out`.
    """
    videos, scorers = name_sources(sources, notify), name_scorers(config.scorer, LANDMARKS)
    models = _models()
    runs = {name: path for name, path in scorers.items() if path is not None}
    own = None if config.boxes is None else read_own_boxes(
        config.boxes, videos, config.boxes_format, config.first_number, notify)
    plan = {"videos": {name: path.name for name, path in videos.items()}, "scorers": list(scorers),
            "causal": config.causal, "detector_size": config.detector_size,
            "boxes": None if config.boxes is None else [sha256_of(config.boxes), config.boxes_format,
                                                        config.first_number],
            "models": digests(models), "runs": digests(runs)}
    results = Results(out, plan, config.replace)
    held = lock(out / PARTS / ".lock")
    try:
        results.begin(names_of_files(videos, config))
        jobs = [Pass(name, path, (out / PARTS).absolute(), models, runs, config.detector_size,
                     0.0 if config.causal else DETECT_SECONDS, config.causal, own[name][1] if own else None)
                for name, path in videos.items()]
        lengths = {name: _stated(path) for name, path in videos.items()}
        passes = run_all("watching", jobs, lengths, config.jobs, notify)
        from gazepose.watch.outputs import Writer
        return Writer(results, config, notify).write(videos, passes, list(scorers), own)
    finally:
        held.release()


def _models() -> dict[str, Path]:
    from gazepose.priors.model_files import find
    return {"yunet": find("yunet"), "face_landmarker": find("face_landmarker")}


def _stated(path: Path) -> float:
    try:
        return stated_seconds(path)
    except (ValueError, OSError, ImportError):                         # the pass says what is wrong
        return 0.0


def names_of_files(videos: Mapping[str, Path], config: WatchConfig) -> list[str]:
    """Files of the folder that are written whatever is in the videos."""
    names = ["faces.csv", "looks.csv", "people.csv", "watch.html", "boxes/val.csv"]
    if not config.video:
        return names
    return names + [f"{name}.watched.{'jpg' if is_still(path) else 'mp4'}" for name, path in videos.items()]
