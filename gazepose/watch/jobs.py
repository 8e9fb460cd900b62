"""What is done with one video, as jobs for many.py: its pass, and its drawing."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import gazepose
from gazepose.io import sha256_of, writing
from gazepose.priors.face_landmarker import FaceLandmarker
from gazepose.priors.model_files import find
from gazepose.text import read_text
from gazepose.watch import video_pass
from gazepose.watch.detect import Detector
from gazepose.watch.many import Report
from gazepose.watch.table import Table, Video
from gazepose.watch.video_pass import Tools


@dataclass(frozen=True)
class Watched:
    """A video whose pass is finished."""

    sha256: str
    """of the file"""
    folder: Path
    """of its parts"""


@dataclass(frozen=True)
class Pass:
    """One video, and how it is watched."""

    name: str
    path: Path
    """absolute"""
    parts: Path
    """folder of the parts of all videos"""
    models: Mapping[str, Path]
    """files of the detector ("yunet") and the landmark network ("face_landmarker")"""
    runs: Mapping[str, Path]
    """trained scorers: name -> run folder or checkpoint"""
    detector_size: int | None = None
    detect_seconds: float = 1 / 15
    causal: bool = False
    boxes: Mapping[int, tuple[np.ndarray, np.ndarray]] | None = None
    """the user's boxes, as video_pass.Tools has them; None: faces are searched"""
    part_seconds: float = video_pass.PART_SECONDS

    def run(self, report: Report) -> Watched:
        """Watch the video, or go on where it was stopped. Raises as video_pass.watch_video."""
        digest = sha256_of(self.path)
        folder = self.parts / f"{self.name}-{self.fingerprint(digest)}"
        folder.mkdir(parents=True, exist_ok=True)
        if not video_pass.is_finished(folder):
            video_pass.watch_video(self.path, folder, make_tools(self), report)
        return Watched(digest, folder)

    def fingerprint(self, digest: str) -> str:
        """Of all that the parts depend on. `digest`: SHA-256 of the video."""
        boxes = sha256()
        for number, (tracks, places) in sorted((self.boxes or {}).items()):
            boxes.update(np.int64(number).tobytes() + tracks.tobytes() + places.tobytes())
        facts = {"version": video_pass.VERSION, "video": digest, "models": digests(self.models),
                 "runs": digests(self.runs), "size": self.detector_size, "detect": self.detect_seconds,
                 "part": self.part_seconds, "causal": self.causal,
                 "boxes": None if self.boxes is None else boxes.hexdigest()}
        return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Drawing:
    """Drawing one video, as a job."""

    name: str
    video: Video
    table: Table
    looks: Table
    out: Path
    blur: bool
    mark: Path
    """file that says from which faces `out` was drawn"""

    @property
    def path(self) -> Path:
        return self.video.path

    def digest(self) -> str:
        """Of what is drawn."""
        text = f"{self.video} {self.blur} {gazepose.__version__}\n{self.table.to_csv()}{self.looks.to_csv()}"
        return sha256(text.encode()).hexdigest()

    def is_done(self) -> bool:
        return self.out.is_file() and self.mark.is_file() and read_text(self.mark) == self.digest()

    def run(self, report: Report) -> list[str]:
        """Draw it; returns what there is to say. Raises as draw.draw_video."""
        from gazepose.watch.draw import draw_video
        notes: list[str] = []
        self.mark.unlink(missing_ok=True)
        draw_video(self.video, self.table, self.looks, self.out, self.blur, notify=notes.append,
                   each=lambda number: report(number / self.video.fps if self.video.fps else 0.0))
        with writing(self.mark) as file:
            file.write(self.digest())
        return notes


def make_tools(job: Pass) -> Tools:
    """Load what a pass works with."""
    scorers: dict[str, Any] = {}
    if job.runs:
        import torch  # takes seconds to import

        from gazepose.watch.scorers import TrainedScorer
        torch.set_num_threads(1)                 # each process watches a video of its own
        window = "closed" if job.causal else "centred"
        scorers = {name: TrainedScorer(path, window, own_boxes=job.boxes is not None)
                   for name, path in job.runs.items()}
    detector, reader = load_networks(job.detector_size, job.models)
    return Tools(reader, None if job.boxes is not None else detector, dict(job.boxes or {}), scorers,
                 job.detect_seconds, job.part_seconds)


def load_networks(detector_size: int | None = None, models: Mapping[str, Path] | None = None
                  ) -> tuple[Detector, FaceLandmarker]:
    """What finds faces and what reads them.

    Args:
        detector_size: as Detector takes it. models: their files, as in Pass; default: those that `models` got.

    Raises:
        FileNotFoundError: a file is missing. ImportError, ValueError: as FaceLandmarker.
    """
    models = models or find_models()
    with _silent():
        return Detector(models["yunet"], detector_size), FaceLandmarker(models["face_landmarker"])


def find_models() -> dict[str, Path]:
    """Files of the detector and the landmark network. Raises FileNotFoundError where one is missing."""
    return {name: find(name) for name in ("yunet", "face_landmarker")}


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what libraries in C write to standard error when they load a network; errors are exceptions."""
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each model file, or of the weights of each run. Raises as checkpoint.verify."""
    return {name: _digest(path) for name, path in files.items()}


def _digest(path: Path) -> str:
    if path.is_file():
        return sha256_of(path)
    from gazepose.training.checkpoint import verify, weights_folder
    folder = verify(weights_folder(path))        # a damaged run is named before any video is watched
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json"))
    return sha256("".join(f"{file.name} {sha256_of(file)} " for file in files).encode()).hexdigest()
