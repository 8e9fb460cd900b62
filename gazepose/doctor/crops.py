"""The test set's crops: names, unique ids, headers. No crop is decoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gazepose.data.challenge import list_videos, walk_crops
from gazepose.data.crops import PUBLISHED_SIZE
from gazepose.data.images import size_by_header
from gazepose.doctor.checks import Findings
from gazepose.io import is_id

Faces = dict[tuple[str, str], list[np.ndarray]]


def examine_crops(root: Path, findings: Findings, notify: Callable[[str, int, int], None]
                  ) -> tuple[dict[str, Any], Faces]:
    """Facts of DATA/videos_challenge, and the frames of each video and track; empty where there is no test set."""
    folder = root / "videos_challenge"
    faces: Faces = {}
    try:
        videos = list_videos(folder)
    except FileNotFoundError:
        findings.add("test_absent")
        return {}, faces
    for entry in sorted(folder.iterdir()):
        findings.add("crop_folder_misnamed", entry.is_dir() and not is_id(entry.name), split="test", detail=entry.name)
    tracks, crops = 0, 0
    for done, video in enumerate(videos, 1):
        numbers: dict[str, list[int]] = {}
        seen: set[tuple[str, str]] = set()
        for path, crop, _ in walk_crops(folder, video):
            place = {"split": "test", "clip": video, "track": path.parent.name, "detail": path.name}
            if crop is None:
                if path.is_dir() and path.parent == folder / video:
                    findings.add("crop_folder_misnamed", **{**place, "track": path.name, "detail": path.name})
                else:
                    findings.add("crop_misnamed", **place)
                continue
            crops += 1
            numbers.setdefault(crop.track, []).append(crop.frame)
            findings.add("crop_unframed", crop.frame < 0, **place)
            place |= {"frame": crop.frame if crop.frame >= 0 else None}
            findings.add("crop_twice", (crop.track, crop.unique_id) in seen, **place)
            seen.add((crop.track, crop.unique_id))
            try:
                size = size_by_header(path)
            except (ValueError, OSError) as error:
                findings.add("crop_damaged", **{**place, "detail": str(error).removeprefix(f"{folder / video}/")})
                continue
            if size != (PUBLISHED_SIZE, PUBLISHED_SIZE):
                findings.add("crop_size", **{**place, "detail": f"{path.name}, {size[1]} x {size[0]}"})
        tracks += len(numbers)
        for track, frames in numbers.items():
            faces[video, track] = [np.unique(np.array(frames, np.int64))] * 2
        notify("test crops", done, len(videos))
    return {"videos": len(videos), "tracks": tracks, "crops": crops, "names": videos}, faces
