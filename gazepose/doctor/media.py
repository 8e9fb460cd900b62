"""Videos, images and test crops: are they here, whole, and as the annotation describes them?

Videos are read by their headers and first picture, images and crops by their first and last bytes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gazepose.data.challenge import list_videos, walk_crops
from gazepose.data.containers import container_of
from gazepose.data.conventions import FPS, of_rate
from gazepose.data.crops import PUBLISHED_SIZE
from gazepose.data.images import face_path, picture_path, size_by_header
from gazepose.data.prepare import pictures_folder
from gazepose.data.tracks import MAX_FRAME
from gazepose.data.video import OTHER_SHAPE, VideoFacts, find_video, look_at, shape_change
from gazepose.doctor.checks import Findings, Place
from gazepose.io import is_id
from gazepose.progress import Progress

Faces = dict[tuple[str, str], list[np.ndarray]]      # frames of each clip and track, under clean and under baseline


@dataclass
class ClipImages:
    """What takes the place of a clip's video: video_imgs/<clip> (images) or face_imgs/<clip> (faces)."""

    source: Literal["images", "faces"]
    folder: Path
    width: int = 0
    height: int = 0
    """of the first image that is read"""
    _names: dict[Path, set[str]] = field(default_factory=dict)

    def path(self, track: str, number: int) -> Path:
        """The image of decoded picture `number`."""
        return picture_path(self.folder, number) if self.source == "images" else face_path(self.folder, track, number)

    def has(self, track: str, numbers: np.ndarray) -> np.ndarray:
        """Which of a track's pictures (numbered from 0) have an image, bool [n]."""
        folder = self.path(track, 0).parent
        if folder not in self._names:
            self._names[folder] = {*os.listdir(folder)} if folder.is_dir() else set()
        names = self._names[folder]
        return np.array([number >= 0 and self.path(track, number).name in names for number in numbers.tolist()], bool)


def check_video(root: Path, place: Place, annotated: dict[str, Any] | None, any_rate: bool,
                findings: Findings) -> VideoFacts | None:
    """Facts of the clip's video; None, and a finding, where preparation could not use it.

    Args:
        place: split and clip. annotated: the clip, for its seconds.
        any_rate: a table numbers frames as they are decoded, so any frame rate will do; training knows one.
    """
    path, facts, whole, videos = root, None, 0, pictures_folder(root, "videos")
    with findings.catching("pictures_damaged", "two videos of one clip", videos, **place):
        path = find_video(videos, place["clip"])
    if path == root:
        return None
    with findings.catching("pictures_damaged", "video", path, "pictures_missing", **place):
        facts, whole = look_at(path)
        if change := shape_change(path):
            findings.add("pictures_damaged", what="shape changes", **place, detail=f"{change} -> {OTHER_SHAPE}")
    if facts is None:
        return None
    if whole < facts.frames:
        findings.add("pictures_damaged", what="video cut short", **place,
                     detail=f"the file holds {whole} of {facts.frames} frames")
        if container_of(str(path)) == "mov":
            return None
        facts = replace(facts, frames=whole)                           # the decoders end there without an error
    if any_rate:
        findings.add("rate_differs", bool(words := of_rate(facts.fps)), **place, detail=words)
    elif abs(facts.fps - FPS) > 0.1:
        findings.add("video_differs", what="frame rate", **place, detail=f"{facts.fps:.3f} frames per second")
    if annotated is not None:
        compare_length(facts, annotated, place, findings)
    return facts


def compare_length(video: VideoFacts, annotated: dict[str, Any], place: Place, findings: Findings) -> None:
    """Compare with the seconds that the annotation gives; a difference of one frame is rounding."""
    start, end = annotated.get("video_start_sec"), annotated.get("video_end_sec")
    if not all(isinstance(seconds, int | float) and abs(seconds) < MAX_FRAME for seconds in (start, end)):
        return
    stated = round((end - start) * (video.fps or FPS))                 # type: ignore[operator]
    findings.add("video_differs", video.frames < stated - 1, what="too short", **place,
                 detail=f"{video.frames} of {stated} frames")


def check_images(source: Literal["images", "faces"], folder: Path, numbers_of: dict[str, np.ndarray], place: Place,
                 findings: Findings) -> ClipImages | None:
    """The images of a clip; None, and a finding, where preparation could not use them.

    Args:
        numbers_of: numbers of the pictures that show a face, by track; int64.
    """
    images = ClipImages(source, folder)
    if not numbers_of:                           # no folder is opened for a clip without faces
        return images
    if not folder.is_dir():
        findings.add("pictures_missing", what="folder of images", **place, file=f"{folder.parent.name}/{folder.name}")
        return None
    if source == "images":
        numbers_of = {"": np.unique(np.concatenate(list(numbers_of.values())))}
    for track, numbers in numbers_of.items():
        for number in numbers[images.has(track, numbers)].tolist():
            size = _jpeg_size(images.path(track, number), folder, "pictures_damaged", "image", place, findings)
            if size is None:
                return None
            if not images.width:
                images.height, images.width = size
    return images


def check_crops(root: Path, findings: Findings, notify: Callable[[str], None]) -> tuple[dict[str, Any], Faces]:
    """Facts of DATA/videos_challenge, and the frames of each video and track; empty where there is no test set."""
    folder = root / "videos_challenge"
    try:
        videos = list_videos(folder)
    except FileNotFoundError:
        findings.add("split_absent", what="test crops", split="test", file="videos_challenge")
        return {}, {}
    for entry in sorted(folder.iterdir()):
        findings.add("name_unusable", entry.is_dir() and not is_id(entry.name), what="folder of a video", split="test",
                     detail=entry.name)
    frames: dict[tuple[str, str], list[int]] = {}
    with Progress("reading the test crops", len(videos), "videos", notify) as progress:
        for video in videos:
            seen: set[tuple[str, str]] = set()
            for path, crop, _ in walk_crops(folder, video):
                place = {"split": "test", "clip": video, "track": path.parent.name, "detail": path.name}
                if crop is None:
                    is_track = path.is_dir() and path.parent == folder / video
                    findings.add("name_unusable", what="folder of a track" if is_track else "crop",
                                 **{**place, "track": path.name} if is_track else place)
                    continue
                frames.setdefault((video, crop.track), []).append(crop.frame)
                findings.add("crop_unusual", crop.frame < 0, what="no frame number", **place)
                place |= {"frame": crop.frame if crop.frame >= 0 else None}
                findings.add("face_twice", (crop.track, crop.unique_id) in seen, what="crop", **place)
                seen.add((crop.track, crop.unique_id))
                size = _jpeg_size(path, folder / video, "crop_damaged", "", place, findings)
                findings.add("crop_unusual", size not in (None, (PUBLISHED_SIZE, PUBLISHED_SIZE)), what="size",
                             **{**place, "detail": f"{path.name}, {size[1]} x {size[0]}" if size else ""})
            progress.add(1)
    facts = {"videos": len(videos), "tracks": len(frames), "crops": sum(map(len, frames.values())), "names": videos}
    return facts, {key: [np.unique(np.array(numbers, np.int64))] * 2 for key, numbers in frames.items()}


def _jpeg_size(path: Path, folder: Path, kind: str, what: str, place: Place, findings: Findings
               ) -> tuple[int, int] | None:
    """(height, width) of an image; None, and a finding of this kind, where the file is damaged."""
    with findings.catching(kind, what, folder, **place):
        return size_by_header(path)
    return None
