"""Images in place of videos: is the folder of a listed clip there, and is every image whole? By headers and ends."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from gazepose.data.images import face_path, picture_path, size_by_header
from gazepose.doctor.checks import Findings, Place

NUMBERED = re.compile(r"(?:img|face)_(\d{5,9})\.jpg")


@dataclass
class ClipImages:
    """What stands in for a clip's video: video_imgs/<clip> (images) or face_imgs/<clip> (faces)."""

    source: Literal["images", "faces"]
    folder: Path
    width: int = 0
    height: int = 0
    """of the first wanted image"""
    _numbers: dict[str, np.ndarray] = field(default_factory=dict)

    def path(self, track: str, number: int) -> Path:
        """The image of decoded picture `number`."""
        return picture_path(self.folder, number) if self.source == "images" else face_path(self.folder, track, number)

    def there(self, track: str, numbers: np.ndarray) -> np.ndarray:
        """Which of a track's pictures (numbered from 0) have an image, bool [n]."""
        folder = self.path(track, 0).parent
        if folder.name not in self._numbers:
            found = [(int(match[1]) - 1, match[0]) for match in map(NUMBERED.fullmatch, os.listdir(folder))
                     if match] if folder.is_dir() else []
            self._numbers[folder.name] = np.array([number for number, name in found
                                                   if self.path(track, number).name == name], np.int64)
        return (numbers >= 0) & np.isin(numbers, self._numbers[folder.name])


def look_at_images(source: Literal["images", "faces"], folder: Path, wanted: dict[str, np.ndarray], place: Place,
                   findings: Findings) -> ClipImages | None:
    """The images of a clip; None, and found, where preparation could not use them.

    Args:
        wanted: numbers of the pictures that show a face, by track; int64.
    """
    images = ClipImages(source, folder)
    if not wanted:                                                     # no folder is opened for a clip without faces
        return images
    if not folder.is_dir():
        findings.add("images_missing", **place, file=f"{folder.parent.name}/{folder.name}")
        return None
    if source == "images":
        wanted = {"": np.unique(np.concatenate(list(wanted.values())))}
    for track, numbers in wanted.items():
        for number in numbers[images.there(track, numbers)].tolist():
            try:
                size = size_by_header(images.path(track, number))
            except (ValueError, OSError) as error:
                findings.add("image_damaged", **place, detail=str(error).removeprefix(f"{folder}/"))
                return None
            if not images.width:
                images.height, images.width = size
    return images
